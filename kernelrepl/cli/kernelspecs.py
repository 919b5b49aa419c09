"""Kernelspecs of single sessions: each is an entry of its own in a launcher."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import click

from kernelrepl import discovery
from kernelrepl.cli.base import given, session_argument
from kernelrepl.cli.calls import tool
from kernelrepl.cli.terminal import say
from kernelrepl.errors import InvalidArgument
from kernelrepl.validation import check_session_id

_PREFIX = "kernelrepl-"
_MARK, _PLACE = "kernelrepl_session", "kernelrepl_data_dir"
_SETTINGS = ("KERNELREPL_DATA_DIR", "KERNELREPL_RUNTIME_DIR", "KERNELREPL_CONFIG")
"""What leads to the keeper that has the session, where it is not the usual one."""


@click.group()
def kernelspec() -> None:
    """Add sessions to the launcher of JupyterLab. It also works for other programs that read kernelspecs."""


@kernelspec.command()
@session_argument
@click.option("--no-provisioner", is_flag=True, help="Use this if Jupyter runs in an environment without kernelrepl.")
def add(session_id: str, no_provisioner: bool) -> None:
    """Add a session to the launcher."""
    tool("python_list_variables", session_id=check_session_id(session_id), limit=1)  # it has to be there
    say(f"{_add(session_id, no_provisioner)}: opens session {session_id!r}")


@kernelspec.command()
@session_argument
def remove(session_id: str) -> None:
    """Remove a session from the launcher; the session stays."""
    directory = _installed().get(check_session_id(session_id))
    if directory is None:
        raise InvalidArgument(f"session {session_id!r} has no entry; `kernelrepl kernelspec sync` shows which have")
    shutil.rmtree(directory)
    say(f"{directory}: removed")


@kernelspec.command()
def sync() -> None:
    """List the entries, and remove those of deleted sessions."""
    there = {entry["session_id"] for entry in _sessions()}
    for session_id, directory in sorted(_installed().items()):
        if session_id in there:
            say(f"{directory}: opens session {session_id!r}")
        else:
            shutil.rmtree(directory)
            say(f"{directory}: removed, session {session_id!r} is gone")


def _sessions() -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    cursor = None
    while True:
        page = tool("python_list_sessions", limit=1000, **given({"cursor": cursor})).structured
        found += page["sessions"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return found


def _specs() -> Path:
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "kernels"


def _installed() -> dict[str, Path]:
    """The directories of our entries by session id; those of another data directory are another's."""
    found = {}
    for file in _specs().glob(f"{_PREFIX}*/kernel.json"):
        try:
            about = json.loads(file.read_text())["metadata"]
            if about[_PLACE] == str(discovery.data_dir(os.environ)):
                found[str(about[_MARK])] = file.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _add(session_id: str, no_provisioner: bool) -> Path:
    name = _PREFIX + "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in session_id).lower()
    known = _installed().get(session_id)
    directory = known or _specs() / name
    while known is None and directory.exists():  # upper and lower case are one here, and signs a hyphen
        directory = directory.with_name(directory.name + "-")
    provisioner = {"provisioner_name": "kernelrepl", "config": {"session_id": session_id}}
    spec = {
        "argv": [sys.executable, "-P", "-m", "kernelrepl", "kernel", "-f", "{connection_file}", "-s", session_id],
        "display_name": f"{session_id} (kernelrepl)",
        "language": "python",
        "interrupt_mode": "signal",
        "env": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        "metadata": {
            "debugger": False,
            _MARK: session_id,
            _PLACE: str(discovery.data_dir(os.environ)),
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
