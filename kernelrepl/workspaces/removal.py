"""Remove directory trees that hostile code made and may still be changing: closed, deeper than any path, full of links.

Everything is removed by its name in a directory that is open, so what is put in its place is removed instead, and
nothing outside. Other mounts are neither entered nor removed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from kernelrepl.workspaces.beneath import MOST_OPEN, Descent, entries

_RIGHTS = stat.S_IRWXU
_MOST_NAMES = 10_000
"""So many directories in one are kept in mind at once."""
_MOST_REMOVED = 50_000_000
_MOST_AGAIN = 1000
"""How often one looks again into a directory that something was put into meanwhile: somebody may never stop."""


def remove(path: Path) -> None:
    """Remove a directory and all in it, whatever it is like; nothing if it is not there, or is a link.

    What cannot be removed stays, as with shutil.rmtree(ignore_errors=True).
    """
    removal = _Removal()
    while True:
        with contextlib.suppress(OSError), Descent(path, _RIGHTS) as descent:
            removal.empty(descent)
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if removal.again():
                continue
        return


@dataclass(slots=True)
class _Level:
    """One of the directories that are being emptied, each in the one before."""

    name: bytes
    waiting: list[bytes] = field(default_factory=list)
    look: bool = True
    """Whether there may be something in it, beside those that wait."""


class _Removal:
    def __init__(self) -> None:
        self._left = _MOST_REMOVED
        self._again = _MOST_AGAIN

    def again(self) -> bool:
        """Whether to try once more what failed."""
        self._again -= 1
        return self._again > 0 and self._left > 0

    def empty(self, descent: Descent) -> None:
        """Empty the directory where the way begins. Raises OSError."""
        levels = [_Level(b"")]
        while levels:
            level = levels[-1]
            if level.waiting:
                self._enter(descent, levels, level.waiting.pop())
            elif level.look and self._left > 0:
                level.look = False
                level.waiting = self._unlink(descent.here)
            else:
                levels.pop()
                if levels:
                    descent.up()
                    self._leave(descent, levels[-1], level.name)

    def _enter(self, descent: Descent, levels: list[_Level], name: bytes) -> None:
        """Go down, or if it is too deep for that, put the directory at the top, which is looked at again."""
        with contextlib.suppress(OSError):
            descent.down(name)
            if descent.depth < MOST_OPEN - 1:
                levels.append(_Level(name))
                return
            descent.up()  # it has the rights now that moving it takes
            fresh = f"h-{secrets.token_hex(8)}".encode()
            os.rename(name, fresh, src_dir_fd=descent.here, dst_dir_fd=descent.top)
            self._left -= 1
            levels[0].look = levels[-1].look = True

    def _leave(self, descent: Descent, level: _Level, name: bytes) -> None:
        """Remove a directory that was emptied."""
        try:
            os.rmdir(name, dir_fd=descent.here)
            self._left -= 1
            level.look = True
        except FileNotFoundError:
            level.look = True
        except OSError:  # something is in it again, or it is something else
            level.look = level.look or self.again()

    def _unlink(self, directory: int) -> list[bytes]:
        """Remove what is no directory; returns the names of some that are."""
        found = []
        for entry in entries(directory):
            name = os.fsencode(entry.name)
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    found.append(name)
                else:
                    os.unlink(name, dir_fd=directory)
                    self._left -= 1
            if len(found) >= _MOST_NAMES or self._left <= 0:
                break
        return found
