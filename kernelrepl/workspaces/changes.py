"""Which files of a workspace code has written since a moment, and which ones a person has put there.

The times that the file system keeps tell the first: the time of the last change of an inode, which code cannot set, is
compared with the clock that the kernel of the system takes it from. That clock moves in ticks of some milliseconds, so
what was changed just before the moment may look as if it came after it; of that, each change is told once. A look has
a bound, since there may be any number of files, and follows no link. What a person puts is noted in a file beside the
workspace, where code of the session does not write.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from kernelrepl.model import ChangedFile, FileChanges
from kernelrepl.workspaces import directories
from kernelrepl.workspaces.beneath import DIRECTORY, open_beneath

MOST_LOOKED = 500
"""So many names are looked at, those near the top first."""
FEW = 50
"""So few names are looked at in less time than it takes to have a thread do it."""
SOON_S = 0.005
"""A directory from which very many names were removed takes long to read, and has few."""
MOST_DEPTH = 30
"""So many directories deep."""
MOST_KEPT = 50
PATH_CHARS = 400
"""So many files are told of by their paths, and so long paths; others are counted."""
_NOTES_BYTES = 256 << 10
_CLOCK_REALTIME_COARSE = 5  # Python has no name for it
_TICK_NS = 100_000_000  # and more: it is at most 10 ms
_LEFT_BY_LIBRARIES = ("~", ".pyc", "-journal", "-wal", "-shm")


def now() -> int:
    """Return the time, in nanoseconds, as the file system takes it: what is changed later is not older."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


class Watch:
    """The files of one workspace, from one look to the next."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = os.fspath(workspace)
        self._notes = os.fspath(directories.notes(workspace))
        self._names = MOST_LOOKED
        self._took_s = 0.0
        self._told: set[tuple[int, int]] = set()
        """The latest changes that the last look has found: inode and time."""

    @property
    def is_quick(self) -> bool:
        """Whether a look takes no time that anybody notices: the last one has seen few names, and soon."""
        return self._names <= FEW and self._took_s < SOON_S

    def look(self, began: int) -> FileChanges:
        """Return what has been written since `began`, which is from `now`, and what was put and is not told of yet.

        A file is told of with its path as the system has it, which may hold anything but a NUL.
        """
        clock = time.perf_counter()
        notes = _take_notes(self._notes)
        found = _Look(began, self._told, {path: at for path, _, at in notes})
        with contextlib.suppress(OSError):  # there may be no workspace any more
            found.walk(self._workspace)
        self._names, self._took_s = found.names, time.perf_counter() - clock
        least = time.time_ns() - _TICK_NS
        self._told = {change for change in found.changes if change[1] > least}
        return _changes(found, notes)


def _changes(found: _Look, notes: list[tuple[str, int, int]]) -> FileChanges:
    noted = [ChangedFile(path, size) for path, size in {path: size for path, size, _ in notes}.items()]
    written, put = _kept(found.written), _kept(noted)
    return FileChanges(written, put, found.may_be_more, len(found.written) - len(written), len(noted) - len(put))


def _kept(files: list[ChangedFile]) -> tuple[ChangedFile, ...]:
    """Return the first of these files: a session keeps them until its next execution."""
    short = [file for file in files if len(file.path) <= PATH_CHARS]
    return tuple(sorted(short, key=lambda file: file.path)[:MOST_KEPT])


class _Look:
    def __init__(self, began: int, told: set[tuple[int, int]], put: dict[str, int]) -> None:
        """told: what is no news. put: when a person was done with each path, in nanoseconds."""
        self.written: list[ChangedFile] = []
        self.changes: set[tuple[int, int]] = set()
        """Each of them as inode and time."""
        self.may_be_more = False
        """Whether something was changed where nobody has looked."""
        self._began = began
        self._told = told
        self._put = put
        self._left = MOST_LOOKED

    @property
    def names(self) -> int:
        """How many names were looked at."""
        return MOST_LOOKED - self._left

    def walk(self, workspace: str) -> None:
        """Look at what is in a workspace. Raises OSError if there is none."""
        top = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            waiting = deque(self._look_into(top, []))
            while waiting:
                parts, changed = waiting.popleft()
                if not self._left or len(parts) > MOST_DEPTH:
                    self.may_be_more |= changed
                    continue
                with contextlib.suppress(OSError):  # it is closed, gone, or no directory any more
                    directory = open_beneath(top, parts, DIRECTORY)
                    try:
                        waiting += self._look_into(directory, parts)
                    finally:
                        os.close(directory)
        finally:
            os.close(top)

    def _look_into(self, directory: int, parts: list[bytes]) -> Iterator[tuple[list[bytes], bool]]:
        """Look at what is in a directory; returns the directories in it, and whether each was changed itself."""
        with os.scandir(directory) as entries:
            for entry in entries:
                if not self._left:
                    self.may_be_more |= os.fstat(directory).st_ctime_ns >= self._began
                    return
                self._left -= 1
                if _is_left_by_libraries(entry.name):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # it is gone
                changed = status.st_ctime_ns >= self._began
                here = [*parts, os.fsencode(entry.name)]
                if stat.S_ISDIR(status.st_mode):
                    yield here, changed
                elif stat.S_ISREG(status.st_mode) and changed:
                    self._take(os.fsdecode(b"/".join(here)), status)

    def _take(self, path: str, status: os.stat_result) -> None:
        """Note a file that has changed, unless that was told before or a person has done it."""
        change = status.st_ino, status.st_ctime_ns
        self.changes.add(change)
        if change not in self._told and status.st_ctime_ns > self._put.get(path, 0):
            self.written.append(ChangedFile(path, status.st_size))


def _is_left_by_libraries(name: str) -> bool:
    """Whether libraries and editors make such files by themselves, for themselves."""
    return name.startswith(".") or name == "__pycache__" or name.endswith(_LEFT_BY_LIBRARIES)


# What a person has put


def note_put(workspace: Path, path: str, size: int) -> None:
    """Note that a person has put a file into a workspace, when it is there: the next reply tells of it."""
    line = json.dumps([path, size, time.time_ns()]) + "\n"
    with contextlib.suppress(OSError):  # it is there, whoever is told
        notes = os.open(
            directories.notes(workspace),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )
        try:
            os.write(notes, line.encode())
        finally:
            os.close(notes)


def _take_notes(notes: str) -> list[tuple[str, int, int]]:
    """Return what has been noted, once: path, size, and when it was done."""
    try:
        with os.fdopen(os.open(notes, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            os.unlink(notes)  # noqa: PTH108 - what is noted from now on is told next time
            text = file.read(_NOTES_BYTES)
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):  # a line may be cut, or anything
            match json.loads(line):
                case [str(path), int(size), int(at)]:
                    found.append((path, size, at))
    return found
