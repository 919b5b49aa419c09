"""`kernelrepl install` on files as people have them: one entry comes and goes, and the host can start the server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from mcp import Client, StdioServerParameters

import kernelrepl
from kernelrepl.cli import entry, jsonc
from kernelrepl.cli.mcp_hosts import HOSTS
from tests.support.mcp_hosts import COMMAND, DEADLINE_S, command, run
from tests.unit.test_host_places import LINUX

pytestmark = pytest.mark.anyio

BESIDE = """\
{
  "mcpServers": {
    "tickets": {
      "command": "npx",
      "args": ["-y", "tickets-server"],
      "env": {"TICKETS_KEY": "hunter2"}
    }
  }
}
"""
CONFIGURATIONS = {
    "claude": BESIDE.replace("  ", "    "),
    "claude-code": '{\n  "numStartups": 41,\n  "mcpServers": {},\n  "projects": {\n    "/": {"mcpServers": {}}\n  }\n}',
    "cursor": BESIDE.replace("\n", "\r\n"),
    "vscode": """\
// Servers for all my windows
{
\t"inputs": [
\t\t{ "id": "key", "type": "promptString", "password": true }, /* asked once */
\t],
\t"servers": {
\t\t"tickets": { "type": "http", "url": "https://tickets.example/mcp" }, // the team's
\t\t// "old": { "command": "old" },
\t},
}
""",
    "zed": """\
// Zed settings
//
// See the documentation of Zed.
{
  "theme": { "mode": "dark", "dark": "One Dark" }, // at night
  "context_servers": {
    "tickets": { "source": "custom", "command": "tickets", "args": [] }
    // more to come
  },
  "vim_mode": false,
}
""",
    "codex": """\
# Codex
model = "o9"   # the usual one
approval_policy = "on-request"

[mcp_servers.tickets]
command = "npx"
args = ["-y", "tickets-server"]
env = { "TICKETS_KEY" = "hunter2" }

[projects."/home/me/work"]
trust_level = "trusted\"""",
    "gemini": '{"security":{"auth":{"selectedType":"api-key"}},"mcpServers":{"tickets":{"httpUrl":"https://t.example"}}}',
    "windsurf": '\ufeff{\n  "mcpServers": {\n  }\n}\n',
    "cline": BESIDE.replace('"env"', '"disabled": false,\n      "autoApprove": [],\n      "env"'),
    "lmstudio": "",
}


@pytest.fixture
def place(environ: dict[str, str]) -> Path:
    """The home of the user whom `environ` describes."""
    return Path(environ["HOME"])


def lay(home: Path, host: str) -> Path:
    """Write the configuration that a person has for a host."""
    path = home / LINUX[host]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONFIGURATIONS[host].encode())
    return path


def here(environ: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process, which is quick; returns its exit code and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environ, clear=True),
        mock.patch.object(sys, "argv", ["kernelrepl", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = entry.main()
    return code, out.getvalue(), err.getvalue()


def installed(environ: dict[str, str], *arguments: str) -> str:
    """Run `install`, which has to succeed, and return what it prints."""
    code, out, err = here(environ, "install", *arguments)
    assert code == 0, err
    return out + err


def refused(environ: dict[str, str], *arguments: str) -> str:
    """Run `install`, which has to refuse, and return why."""
    code, out, err = here(environ, "install", *arguments)
    assert code == 1, out
    return err


def loaded(host: str, path: Path) -> dict[str, Any]:
    """The settings in a file, read by another parser than the one that wrote them where there is one."""
    text = path.read_bytes().decode()
    return tomllib.loads(text) if host == "codex" else jsonc.load(text)


def test_every_host_is_tried_here() -> None:
    """And no other."""
    assert CONFIGURATIONS.keys() == HOSTS.keys()


@pytest.mark.parametrize("host", CONFIGURATIONS)
def test_an_entry_comes_and_goes_to_the_byte(host: str, environ: dict[str, str], place: Path) -> None:
    """Nothing else changes in between, and the second time there is nothing to do."""
    path = lay(place, host)
    path.chmod(0o640)
    before, meant = path.read_bytes(), loaded(host, path)
    said = installed(environ, host)
    assert str(path) in said
    assert "+" in said
    after = path.read_bytes()
    settings = loaded(host, path)
    entry = settings[HOSTS[host].servers].pop("kernelrepl")
    assert entry["command"] == str(COMMAND)
    assert entry["env"] == {name: value for name, value in environ.items() if name.startswith("KERNELREPL_")}
    assert settings == {HOSTS[host].servers: {}, **meant}
    lines = [line.strip().rstrip(b",") for line in before.splitlines() if b"{}" not in line and line.strip() != b"{"]
    if host != "gemini":  # it is one line
        assert all(line in after for line in lines)
    assert path.stat().st_mode & 0o777 == 0o640
    assert "already" in installed(environ, host)
    assert path.read_bytes() == after
    assert "again as it was" in installed(environ, host, "--undo")
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o640
    assert not list(path.parent.glob("*.new"))
    assert "nothing was written" in installed(environ, host, "--undo")


@pytest.mark.parametrize("host", CONFIGURATIONS)
def test_a_file_that_was_not_there_goes_again(host: str, environ: dict[str, str], place: Path) -> None:
    """With the directories that were made for it."""
    there = set(place.rglob("*"))
    installed(environ, host)
    assert loaded(host, place / LINUX[host])[HOSTS[host].servers].keys() == {"kernelrepl"}
    assert (place / LINUX[host]).stat().st_mode & 0o777 == 0o600  # hosts keep keys in it
    assert "removed" in installed(environ, host, "--undo")
    assert set(place.rglob("*")) == there


@pytest.mark.parametrize("host", CONFIGURATIONS)
def test_changes_of_others_stay(host: str, environ: dict[str, str], place: Path) -> None:
    """Then only the entry goes, and the person is told."""
    path = lay(place, host)
    installed(environ, host)
    text = path.read_bytes().decode()
    mark = "# later\n" if host == "codex" else "// later\n"
    path.write_bytes((text + ("" if text.endswith("\n") else "\n") + mark).encode())
    assert "only the entry" in installed(environ, host, "--undo")
    assert path.read_bytes().decode().endswith(mark)
    assert "kernelrepl" not in path.read_bytes().decode()
    assert {HOSTS[host].servers: {}, **loaded(host, path)} == {
        HOSTS[host].servers: {},
        **(tomllib.loads if host == "codex" else jsonc.load)(CONFIGURATIONS[host]),
    }


@pytest.mark.parametrize("host", ["claude-code", "zed", "codex"])
def test_another_entry_of_this_name_is_replaced_by_force_only(host: str, environ: dict[str, str], place: Path) -> None:
    """And comes back to the byte."""
    path = lay(place, host)
    path.write_text(HOSTS[host].form.put(path.read_text(), HOSTS[host].path, {"command": "mine"}))
    before = path.read_bytes()
    assert "--force" in refused(environ, host)
    assert "--force" in refused(environ, host, "--undo")
    assert path.read_bytes() == before
    assert "mine" in installed(environ, host, "--force")
    assert loaded(host, path)[HOSTS[host].servers]["kernelrepl"]["command"] == str(COMMAND)
    installed({**environ, "KERNELREPL_STANDBY": "1"}, host, "--force")  # a second change does not hide the first
    installed(environ, host, "--undo")
    assert path.read_bytes() == before


def test_what_a_user_adds_to_the_entry_makes_it_no_other(environ: dict[str, str], place: Path) -> None:
    """Hosts note there which tools may run."""
    path = place / LINUX["cline"]
    installed(environ, "cline")
    changed = path.read_text().replace('"command"', '"autoApprove": ["python_repl"],\n      "command"')
    path.write_text(changed)
    assert "already" in installed(environ, "cline")
    assert path.read_text() == changed


def test_only_looking_writes_nothing(environ: dict[str, str], place: Path) -> None:
    """`--print` prints what `config` prints, and `--dry-run` the change."""
    path = lay(place, "zed")
    before = sorted(place.rglob("*")), path.read_bytes()
    assert here(environ, "install", "zed", "--print") == here(environ, "config", "zed")
    shown = installed(environ, "zed", "--dry-run")
    assert re.search(r'^\+    "kernelrepl": \{$', shown, re.M)
    installed(environ, "zed")
    after = path.read_bytes()
    assert '-    "kernelrepl": {' in installed(environ, "zed", "--undo", "--dry-run")
    assert path.read_bytes() == after
    installed(environ, "zed", "--undo")
    assert (sorted(place.rglob("*")), path.read_bytes()) == before


def test_keys_of_other_servers_are_not_noted(environ: dict[str, str], place: Path, data_dir: Path) -> None:
    """What is kept for --undo is the change alone."""
    lay(place, "claude")
    installed(environ, "claude")
    [note] = (data_dir / "hosts").iterdir()
    assert "hunter2" not in note.read_text()
    assert (data_dir / "hosts").stat().st_mode & 0o077 == 0


def test_links_stay_links(environ: dict[str, str], place: Path, tmp_path: Path) -> None:
    """People keep their settings elsewhere; one that leads to no file yet leads to a new one."""
    kept = tmp_path / "dotfiles" / "mcp.json"
    kept.parent.mkdir()
    path = place / LINUX["cursor"]
    path.parent.mkdir()
    path.symlink_to(kept)
    for before in (None, BESIDE.encode()):
        if before is not None:
            kept.write_bytes(before)
        installed(environ, "cursor")
        assert path.is_symlink()
        assert "kernelrepl" in loaded("cursor", kept)["mcpServers"]
        installed(environ, "cursor", "--undo")
        assert path.is_symlink()
        assert (kept.read_bytes() if kept.exists() else None) == before


def test_a_file_of_a_project_is_changed_where_it_lies(environ: dict[str, str], tmp_path: Path) -> None:
    """As `.mcp.json`, that a team shares."""
    path = tmp_path / "project" / ".mcp.json"
    path.parent.mkdir()
    installed(environ, "claude-code", "--file", str(path))
    assert loaded("claude-code", path)["mcpServers"]["kernelrepl"]["type"] == "stdio"
    installed(environ, "claude-code", "--undo", "--file", str(path))
    assert not path.exists()


def test_a_link_that_a_session_may_have_put_there_is_not_followed(
    environ: dict[str, str], place: Path, tmp_path: Path
) -> None:
    """It leads, with the person's rights, wherever its code likes."""
    project = tmp_path / "project"
    project.mkdir()
    done = command(environ, "exec", "-s", "s", "1")
    assert done.returncode == 0, done.stderr
    assert command(environ, "grant", "s", "--write", str(project)).returncode == 0
    (project / ".mcp.json").symlink_to(place / "own.json")
    done = command(environ, "install", "claude-code", "--file", str(project / ".mcp.json"))
    assert done.returncode == 1
    assert "over a link" in done.stderr
    assert not (place / "own.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{\n  "mcpServers": {\n    "a": {}\n    "b": {}\n  }\n}\n', "line 4: a comma or a } is missing"),
        (b"[]", "line 1: the file is to be an object"),
        (b'{\n"mcpServers": []\n}', "line 2: 'mcpServers' is to be an object"),
        (b'{\n\n"a": "\xff"}', "is not UTF-8 in line 3"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8 in line 1"),
    ],
)
def test_a_broken_file_stays_as_it_is(content: bytes, said: str, environ: dict[str, str], place: Path) -> None:
    """The error names the file, the line and what to do."""
    path = lay(place, "cursor")
    path.write_bytes(content)
    error = refused(environ, "cursor")
    assert said in error
    assert str(path) in error
    assert "try again" in error
    assert (path.read_bytes(), list(path.parent.iterdir())) == (content, [path])


def test_what_is_no_file_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    """Instead of a wait for a writer that never comes."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name, why in (("pipe", "is not a file"), ("folder", "is not a file"), ("loop", "symbolic links")):
        assert why in refused(environ, "cursor", "--file", str(tmp_path / name))
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(environ, "cursor", "--file", str(tmp_path / "file" / "mcp.json"))


@pytest.mark.parametrize("host", ["vscode", "codex"])
async def test_the_entry_that_was_written_starts_a_server(host: str, environ: dict[str, str], place: Path) -> None:
    """Exactly that command, with hardly an environment, as the host would."""
    path = lay(place, host)
    done = command(environ, "install", host)
    assert done.returncode == 0, done.stderr
    entry = loaded(host, path)[HOSTS[host].servers]["kernelrepl"]
    server = StdioServerParameters(
        command=entry["command"], args=entry["args"], env={"PATH": "/usr/bin", **entry["env"]}, cwd="/"
    )
    async with Client(server, mode="legacy", read_timeout_seconds=DEADLINE_S) as client:
        assert (await run(client, "6 * 7"))["result"] == "42"


def test_under_uvx_the_entry_is_uvx(environ: dict[str, str], tmp_path: Path) -> None:
    """Its environment lies in a cache and may be gone tomorrow; `uvx` is named by its path where it is found."""
    cached = tmp_path / "uv" / "archive-v0" / "Xb3_q"
    venv.create(cached, symlinks=True)
    code = [str(Path(kernelrepl.__file__).parents[1]), sysconfig.get_path("purelib")]
    under = {**environ, "PYTHONPATH": os.pathsep.join(code), "PATH": str(tmp_path / "bin")}

    def printed() -> dict[str, Any]:
        line = [str(cached / "bin" / "python"), "-m", "kernelrepl", "config", "cursor"]
        done = subprocess.run(line, env=under, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
        entry: dict[str, Any] = json.loads(done.stdout)["mcpServers"]["kernelrepl"]
        return entry

    assert (printed()["command"], printed()["args"]) == ("uvx", ["kernelrepl"])
    uvx = tmp_path / "bin" / "uvx"
    uvx.parent.mkdir()
    uvx.write_text("#!/bin/sh\n")
    uvx.chmod(0o755)
    assert (printed()["command"], printed()["args"]) == (str(uvx), ["kernelrepl"])
