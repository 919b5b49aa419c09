"""Open files of the person, also where a session may write beside them.

A path leads into such a place as it always does. From there on its names are opened from the descriptor of the place,
over no link: code of a session can put one there at any moment, and it would lead, with the person's rights, wherever
that code likes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from kernelrepl.workspaces.beneath import DIRECTORY, HOLD, QUIETLY, complete, make_directories, open_beneath, reopen
from kernelrepl.workspaces.entrances import within


def open_file(path: Path | str, places: Sequence[str]) -> IO[bytes]:
    """Open a file to read, unbuffered. places: where sessions write, resolved. Raises OSError."""
    entered = _entered(path, places)
    if entered is None:
        return Path(path).open("rb", buffering=0)
    place, names = entered
    with _told(place), _held(place) as top:
        held = open_beneath(top, names, HOLD, over_mounts=True) if names else os.dup(top)
        try:
            mode = os.fstat(held).st_mode
            if stat.S_ISLNK(mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe would wait for code of a session
                raise OSError(errno.EINVAL, f"it is no file, in {place}, where a session may write")
            return os.fdopen(reopen(held, os.O_RDONLY | QUIETLY), "rb", buffering=0)
        finally:
            os.close(held)


def open_directory(path: Path | str, places: Sequence[str], *, make: bool = False) -> int:
    """Open a directory; the descriptor is the caller's. make: with those above it, if they are missing.

    Raises OSError.
    """
    entered = _entered(path, places)
    if entered is None:
        if make:
            Path(path).mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    place, names = entered
    with _told(place), _held(place) as top:
        if make:
            return make_directories(top, names, over_mounts=True)
        return open_beneath(top, names, DIRECTORY, over_mounts=True)


def write(path: Path, content: bytes, places: Sequence[str]) -> None:
    """Write a file, in the place of one that is there. Raises OSError."""
    if _entered(path, places) is None:
        path.write_bytes(content)
        return
    directory = open_directory(path.parent, places)
    try:
        with complete(directory, os.fsencode(path.name), 0o666, contextlib.nullcontext, replace=True) as out:
            out.write(content)
    finally:
        os.close(directory)


def _entered(path: Path | str, places: Sequence[str]) -> tuple[str, list[bytes]] | None:
    """The place that a path leads into, and the names from there on."""
    entered = within(os.path.join(Path.cwd(), path), places)  # noqa: PTH118 - pathlib would drop dots
    return None if entered is None else (entered[0], [os.fsencode(name) for name in entered[1]])


@contextlib.contextmanager
def _held(place: str) -> Iterator[int]:
    held = os.open(place, HOLD)
    try:
        yield held
    finally:
        os.close(held)


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    """Say where a link is not followed, and why."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        why = f"it is a symbolic link or leads through one, in {place}, where a session may write"
        raise OSError(errno.ELOOP, why) from error
