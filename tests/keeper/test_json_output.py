"""Commands that tell more than a sentence tell it to programs, too: `--json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.mcp_hosts import command
from tests.support.wheels import index_of, make_wheel


def said(environ: dict[str, str], *arguments: str, code: int = 0) -> Any:
    done = command(environ, *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_copies_are_a_list(shared_environ: dict[str, str], tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "22")):
        (tmp_path / name).write_text(text)
    command(shared_environ, "exec", "-s", "copies", "0")
    put = said(shared_environ, "put", "copies", str(tmp_path / "a"), str(tmp_path / "b"), "--to", "in")
    assert put == {"files": [{"path": "in/a", "size_bytes": 1}, {"path": "in/b", "size_bytes": 2}]}
    out = tmp_path / "out"
    got = said(shared_environ, "get", "copies", "in", "--to", str(out))
    assert got["files"] == [{"path": str(out / "in" / name), "size_bytes": n} for name, n in (("a", 1), ("b", 2))]


def test_copies_before_a_failure_are_told(shared_environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "first").write_text("1")
    command(shared_environ, "exec", "-s", "partly", "0")
    put = said(shared_environ, "put", "partly", str(tmp_path / "first"), str(tmp_path / "none"), code=1)
    assert [one["path"] for one in put["files"]] == ["first"]


def test_what_goes_to_standard_output_is_no_json(shared_environ: dict[str, str]) -> None:
    done = command(shared_environ, "get", "copies", "in/a", "--to", "-", "--json")
    assert done.returncode == 2
    assert "--to -" in done.stderr


def test_grants_are_lists_of_paths(shared_environ: dict[str, str], tmp_path: Path) -> None:
    command(
        shared_environ, "exec", "-s", "granted", "x = (n for n in 'ab')"
    )  # cannot be saved: this kernel is not ended
    granted = said(shared_environ, "grant", "granted", "--read", str(tmp_path))
    assert granted == {"session_id": "granted", "read": [str(tmp_path)], "write": [], "from_next_kernel": True}
    assert said(shared_environ, "grant", "granted", "--revoke", str(tmp_path))["read"] == []


def test_an_installation_names_what_it_brought(environ: dict[str, str], tmp_path: Path) -> None:
    make_wheel(tmp_path / "index", "tidy", "1.1", {"tidy.py": "ROOMS = 4"})
    environ |= index_of(tmp_path / "index")
    command(environ, "exec", "-s", "s", "0")
    tidy = [{"name": "tidy", "version": "1.1"}]
    assert said(environ, "packages", "s", "add", "tidy") == {"session_id": "s", "installed": True, "packages": tidy}
    assert said(environ, "packages", "s", "add", "tidy")["installed"] is False
