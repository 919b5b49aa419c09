"""The directories of one session: how they are named, made, given to the user of its kernel, and removed.

A session's workspace stands in the data directory and stays until the session is deleted, as do its packages. A call
without a session has one that goes with the call: either made for it in the runtime directory, or taken from a kernel
on standby and then marked as temporary by a file beside it. Where a kernel has no private /tmp, it gets a directory for
temporary files in the runtime directory.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from kernelrepl.workspaces import removal
from kernelrepl.workspaces.beneath import HOLD, Descent, entries, give, open_beneath, walk

_SOCKETS, _TEMPORARY, SCRATCH = "k-", "once-", "t-"
"""What the names begin with of the directories in a runtime directory that `sweep_runtime` removes."""
_MARK = ".once"
"""What the name of the file ends with that marks a workspace as temporary."""
_NOTES = ".put"
"""What the name of the file ends with that notes what a person has put into a workspace."""
_WORKSPACES, _PACKAGES = "workspaces", "packages"


# Names


def workspaces(data_dir: Path) -> Path:
    """Where the workspaces of all sessions of a data directory are."""
    return data_dir / _WORKSPACES


def new_name() -> str:
    """The name of a workspace that is to be made; no other has it."""
    return secrets.token_hex(8)


def scratch(runtime_dir: Path, workspace: Path) -> Path:
    """The directory for temporary files of the kernel of a workspace, where it has no private /tmp."""
    return runtime_dir / f"{SCRATCH}{workspace.name}"


def packages(workspace: Path) -> Path:
    """The directory for what is installed for the session with this workspace; the session does not write there."""
    if workspace.parent.name == _WORKSPACES:
        return workspace.parent.with_name(_PACKAGES) / workspace.name
    return workspace.with_name(f"{workspace.name}.{_PACKAGES}")  # of a single call: it has none, and goes with it


def notes(workspace: Path) -> Path:
    """The file beside a workspace that notes what a person has put there, until somebody is told."""
    return workspace.with_name(workspace.name + _NOTES)


def for_sockets(runtime_dir: Path) -> Path:
    """A directory for the sockets of one kernel process, which is to be made."""
    return runtime_dir / f"{_SOCKETS}{secrets.token_hex(4)}"


# Making


def make(workspace: Path, owner: int | None) -> None:
    """Make a workspace if it is not there, and give it to whoever its kernel runs as. Raises OSError.

    owner: the user that the kernel becomes if the keeper is root; None: it stays root.
    """
    workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        hand_over(workspace, owner or 0)


def make_private(directory: Path) -> None:
    """Make a directory that only this user may enter, if it is not there. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def make_temporary(runtime_dir: Path) -> Path:
    """Make a workspace for a single call, which has no owner yet: see `make`. Raises OSError."""
    make_private(runtime_dir)  # if somebody has cleaned it away
    return Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=runtime_dir))


def mark_temporary(workspace: Path) -> None:
    """Note that this workspace is no session's: it goes with the only call that runs in it. Raises OSError."""
    _mark(workspace).touch(mode=0o600)


def _mark(workspace: Path) -> Path:
    return workspace.with_name(workspace.name + _MARK)


# Owners


def hand_over(workspace: Path, uid: int) -> None:
    """Give a user what is in a workspace, if it belongs to another. What is linked from elsewhere is left alone.

    Needs root. Raises OSError.
    """
    with Descent(workspace, 0) as descent:
        top = os.dup(descent.here)
        try:
            before = os.fstat(top).st_uid
            if before != uid:
                walk(descent, functools.partial(_hand_over_entries, before, uid))
                os.fchown(top, uid, uid)  # last: until it is done, it is done again
        finally:
            os.close(top)


def _hand_over_entries(before: int, uid: int, directory: int) -> list[bytes]:
    """Hand over what is in a directory, held while it is looked at; returns the names of directories in it."""
    found = []
    for entry in entries(directory):
        name = os.fsencode(entry.name)
        with contextlib.suppress(OSError):
            held = open_beneath(directory, [name], HOLD)
            try:
                status = os.fstat(held)
                linked = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
                if status.st_uid == before and not linked:
                    give(held, uid, uid)
            finally:
                os.close(held)
            if stat.S_ISDIR(status.st_mode):
                found.append(name)
    return found


# Removing


def remove(workspace: Path) -> None:
    """Remove a workspace with what is noted of it, and the packages of its session."""
    removal.remove(workspace)
    removal.remove(packages(workspace))
    with contextlib.suppress(OSError):
        notes(workspace).unlink()


def remove_temporary(workspace: Path) -> None:
    """Remove a workspace that was made for a single call or marked as temporary, and its mark."""
    remove(workspace)
    with contextlib.suppress(OSError):
        _mark(workspace).unlink()


def sweep_workspaces(place: Path, kept: Iterable[str]) -> None:
    """Remove what a keeper that was killed left: workspaces marked as temporary, and empty ones that are nobody's.

    place: see `workspaces`. kept: the names of those that belong to sessions.
    """
    for mark in place.glob(f"*{_MARK}"):
        remove_temporary(mark.with_suffix(""))
    known = set(kept)
    for workspace in place.glob("*"):
        if workspace.name not in known:
            with contextlib.suppress(OSError):  # it is not empty, and may be somebody's after all
                workspace.rmdir()
    for of_session in place.with_name(_PACKAGES).glob("*"):
        # Where a workspace has stayed, its session may come back with a copy of the database.
        if of_session.name not in known and not (place / of_session.name).exists():
            removal.remove(of_session)


def sweep_runtime(runtime_dir: Path) -> None:
    """Remove what a keeper that was killed left in its runtime directory: of kernels, and of single calls."""
    for prefix in (_SOCKETS, _TEMPORARY, SCRATCH):
        for stale in runtime_dir.glob(f"{prefix}*"):
            removal.remove(stale)
