"""What the files of a workspace take of the disk, counted while hostile code may change them.

It opens directories and reads what is in them, nothing else; as an ordinary user it gives itself the right to read its
own directories that were closed. Nothing outside is touched, whatever is put in place of a directory meanwhile. What
is moved about while it is counted may be counted twice, or only the next time.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from kernelrepl.workspaces.beneath import Descent, Evasive, entries, walk

_BLOCK_BYTES = 512
_RIGHTS = stat.S_IRUSR | stat.S_IXUSR
MOST_WAITING = 150_000
"""So many directories are kept in mind at once, those that were passed on the way down included."""


@dataclass(frozen=True)
class Files:
    """What the files of a directory take on the disk, and how many there are. Neither is counted to the end of time.

    What has several names counts with each of them: no second name makes it less.
    """

    size: int
    count: int


def files(directory: Path, most_bytes: int | None, most_files: int | None) -> Files:
    """Count until one of the limits is passed. Links are not followed; what is sparse counts as it is stored.

    A tree that cannot be looked into although it is ours counts as too many files: there is no other reason for one.
    """
    counted = _Count(most_bytes, most_files)
    try:
        with Descent(directory, _RIGHTS) as descent:
            walk(descent, counted.look, MOST_WAITING)
    except Evasive:
        return counted.too_many()
    except (_Passed, OSError):
        pass  # one of the limits, or there is no such directory
    return Files(counted.size, counted.count)


class _Passed(Exception):
    """It is too much already."""


class _Count:
    def __init__(self, most_bytes: int | None, most_files: int | None) -> None:
        self._most_bytes = most_bytes
        self._most_files = most_files
        self.size = 0
        self.count = 0

    def look(self, directory: int) -> list[bytes]:
        """Count what is in a directory; returns the names of those in it. Raises _Passed, Evasive."""
        found = []
        for entry in entries(directory):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                if os.fstat(directory).st_uid == os.geteuid():
                    raise Evasive(error.errno, "closed meanwhile") from error
                self.count += 1  # in a directory of somebody else's
                continue
            self.count += 1
            self.size += status.st_blocks * _BLOCK_BYTES
            if (self._most_bytes is not None and self.size > self._most_bytes) or (
                self._most_files is not None and self.count > self._most_files
            ):
                raise _Passed
            if stat.S_ISDIR(status.st_mode):
                found.append(os.fsencode(entry.name))
        return found

    def too_many(self) -> Files:
        """More than is allowed, of whatever has a limit."""
        if self._most_files is not None:
            return Files(self.size, self._most_files + 1)
        return Files(self.size if self._most_bytes is None else self._most_bytes + 1, self.count)
