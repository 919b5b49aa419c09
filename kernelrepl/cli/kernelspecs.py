"""Kernelspecs of single sessions: each is an entry of its own in a launcher."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click

from kernelrepl.checks import check_session_id
from kernelrepl.cli.base import given, run, tool
from kernelrepl.errors import InvalidArgument

_PREFIX = "kernelrepl-"
_MARK = "kernelrepl_session"


@click.group()
def kernelspec() -> None:
    """Give sessions entries of their own in the launchers of notebook hosts."""


@kernelspec.command()
@click.argument("session_id")
@click.option("--no-provisioner", is_flag=True, help="For a Jupyter that runs where kernelrepl is not installed.")
def add(session_id: str, no_provisioner: bool) -> None:
    """Add an entry that opens a session."""
    click.echo(f"{_add(check_session_id(session_id), no_provisioner)}: opens session {session_id!r}")


@kernelspec.command()
@click.argument("session_id")
def remove(session_id: str) -> None:
    """Remove the entry of a session. The session stays."""
    directory = _installed().get(check_session_id(session_id))
    if directory is None:
        raise InvalidArgument(f"session {session_id!r} has no entry; `kernelrepl kernelspec sync` shows which have")
    shutil.rmtree(directory)
    click.echo(f"{directory}: removed")


@kernelspec.command()
def sync() -> None:
    """Remove the entries of sessions that are gone, and show those that are left."""
    there = {entry["session_id"] for entry in _sessions()}
    for session_id, directory in sorted(_installed().items()):
        if session_id in there:
            click.echo(f"{directory}: opens session {session_id!r}")
        else:
            shutil.rmtree(directory)
            click.echo(f"{directory}: removed, session {session_id!r} is gone")


def _sessions() -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    cursor = None
    while True:
        page = run(tool("python_list_sessions", limit=1000, **given({"cursor": cursor}))).structured_content
        found += page["sessions"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return found


def _specs() -> Path:
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "kernels"


def _installed() -> dict[str, Path]:
    """The directories of our entries by session id."""
    found = {}
    for file in _specs().glob(f"{_PREFIX}*/kernel.json"):
        try:
            found[str(json.loads(file.read_text())["metadata"][_MARK])] = file.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _add(session_id: str, no_provisioner: bool) -> Path:
    name = _PREFIX + "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in session_id).lower()
    directory = _installed().get(session_id) or _specs() / name
    if directory.exists() and directory not in _installed().values():
        raise InvalidArgument(f"'{directory}' is there already and is no entry of kernelrepl; move it away")
    taken = {path: other for other, path in _installed().items()}
    while taken.get(directory, session_id) != session_id:
        directory = directory.with_name(directory.name + "-")
    provisioner = {"provisioner_name": "kernelrepl", "config": {"session_id": session_id}}
    spec = {
        "argv": [sys.executable, "-m", "kernelrepl", "kernel", "-f", "{connection_file}", "-s", session_id],
        "display_name": f"{session_id} (kernelrepl)",
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": {
            "debugger": False,
            _MARK: session_id,
            **({} if no_provisioner else {"kernel_provisioner": provisioner}),
        },
    }
    directory.mkdir(parents=True, exist_ok=True)
    for logo in _logos():
        shutil.copy(logo, directory / logo.name)
    (directory / "kernel.json").write_text(json.dumps(spec, indent=1) + "\n")
    return directory


def _logos() -> list[Path]:
    """Those of the installed kernelspec."""
    places = [Path(sys.prefix) / "share/jupyter/kernels/kernelrepl", Path(__file__).parents[2] / "kernel_spec"]
    return next((found for place in places if (found := sorted(place.glob("logo-*")))), [])
