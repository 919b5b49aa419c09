"""What `kernelrepl config` prints, put to use as each host would: exactly that command, with hardly an environment."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from kernelrepl.cli.mcp_hosts import HOSTS
from tests.support.mcp_hosts import COMMAND, DEADLINE_S, run

pytestmark = pytest.mark.anyio

SERVERS = {
    "claude": "mcpServers",
    "claude-code": "mcpServers",
    "cursor": "mcpServers",
    "vscode": "servers",
    "zed": "context_servers",
    "codex": "mcp_servers",
    "gemini": "mcpServers",
    "windsurf": "mcpServers",
    "cline": "mcpServers",
    "lmstudio": "mcpServers",
}


def printed(host: str, environ: dict[str, str]) -> tuple[Any, str]:
    """The snippet, and what is said beside it."""
    done = subprocess.run(
        [COMMAND, "config", host], env=environ, capture_output=True, text=True, check=True, timeout=DEADLINE_S
    )
    return (tomllib if host == "codex" else json).loads(done.stdout), done.stderr


def test_every_host_is_tried_here() -> None:
    """And no other."""
    assert SERVERS.keys() == HOSTS.keys()


@pytest.mark.parametrize("host", SERVERS)
async def test_the_snippet_of_a_host_starts_a_server(host: str, environ: dict[str, str], tmp_path: Path) -> None:
    """From the root directory, with a PATH that leads to the launcher alone."""
    snippet, said = printed(host, environ)
    assert ("toml" if host == "codex" else "json") in said
    [(name, entry)] = snippet[SERVERS[host]].items()
    assert (name, list(snippet)) == ("kernelrepl", [SERVERS[host]])
    assert entry.get("type", "stdio") == "stdio"
    assert Path(entry["command"]).is_absolute()
    alone = tmp_path / "bin"
    alone.mkdir()
    (alone / "kernelrepl").symlink_to(COMMAND)
    server = StdioServerParameters(
        command=entry["command"], args=entry["args"], env={"PATH": str(alone), **entry["env"]}, cwd="/"
    )
    async with Client(server, mode="legacy", read_timeout_seconds=DEADLINE_S) as client:
        assert (await run(client, "import os; os.getcwd() != '/'"))["result"] == "True"


def test_settings_of_the_terminal_go_along(environ: dict[str, str]) -> None:
    """Where the host has an environment of its own, the server must still find the same sessions."""
    snippet, _ = printed("claude", environ)
    wanted = {name: value for name, value in environ.items() if name.startswith("KERNELREPL_")}
    assert snippet["mcpServers"]["kernelrepl"]["env"] == wanted


def test_without_settings_there_is_no_environment(tmp_path: Path) -> None:
    """As little to copy as possible."""
    snippet, _ = printed("cursor", {"PATH": "/usr/bin", "HOME": str(tmp_path)})
    assert snippet == {"mcpServers": {"kernelrepl": {"command": str(COMMAND), "args": []}}}


def test_an_unknown_host_is_said_with_the_known_ones(environ: dict[str, str]) -> None:
    """As the command line does it."""
    done = subprocess.run([COMMAND, "config", "emacs"], env=environ, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert ", ".join(map(repr, HOSTS)) in done.stderr
