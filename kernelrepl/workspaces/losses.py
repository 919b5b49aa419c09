"""What a data directory shows of sessions that its database does not know any more."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kernelrepl.model import counted


def of_database(database: Path, workspaces: Path) -> str:
    """What is to be said before a database is made anew where sessions were; empty if none were."""
    try:
        if database.stat().st_size:
            return ""
    except OSError:
        pass
    count = len(_directories(workspaces))
    if not count:
        return ""
    return (
        f"the database {database} was gone or empty when its keeper started, though directories of"
        f" {counted(count, 'session')} stand in {workspaces}: what all sessions had before is lost, but their files are"
        " there; `kernelrepl stop`, and put back a copy of the database if there is one"
    )


def of_rows(damaged: Sequence[str]) -> str:
    """What is to be said of a database in which some rows are not what was written."""
    if not damaged:
        return ""
    found = "; ".join(damaged)
    return f"the database is damaged ({found} are not what was stored), `kernelrepl doctor --check` tells more"


def noted(found: str) -> str:
    """The same, when it stands in the log."""
    if found:
        logging.getLogger("kernelrepl").error("%s", found)
    return found


def unknown(workspaces: Path, known: Iterable[str]) -> list[str]:
    """The directories that belong to no session and have files in them."""
    names = sorted(_directories(workspaces) - set(known))
    return [name for name in names if _has_files(workspaces / name)]


def _directories(workspaces: Path) -> set[str]:
    try:
        with os.scandir(workspaces) as entries:
            return {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    except OSError:
        return set()


def _has_files(path: Path) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except OSError:
        return True
