"""What processes hold of the machine beside their own pages. Reads /proc, changes nothing.

Memory of the system that is taken in their name: buffers of sockets, watches and locks, pieces of address space, files
of a tmpfs. Room on the disk that no name leads to: files that were removed and are still open or mapped. What costs
much to look at is looked at for a few processes at a time, and counted as it was last seen until their next turn.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kernelrepl.kernel import usage

ROUND_S = 0.004
"""After this time no further process is looked at in the same round."""
AREAS_S = 2.0
"""The least time between two looks at the address space of one process, which cost more than all others together.
One that maps files without a name is looked at each time: whether they count depends on its descriptors too."""
_DESCRIPTOR_BYTES = 1024
"""Of an open file with what belongs to it, rounded up."""
_AREA_BYTES = 256
"""Of a piece of address space."""
_LINES = 4
"""What is told of a descriptor has a line for each lock and each watch, which take four times as much."""
_MOST_BYTES = 8 << 20
"""More than that is not read of one file of /proc: it is enough to be over any limit, or else no harm."""
_DATAGRAMS = 11
"""So many messages wait at a socket for datagrams, each as large as the buffer of who sent it."""
_DATAGRAM = b"0002"
_QUEUED = re.compile(rb"^scm_fds:\s+0*[1-9]", re.M)
_DELETED = b" (deleted)"


def _default_buffer() -> int:
    try:
        return int(Path("/proc/sys/net/core/wmem_default").read_text())
    except (OSError, ValueError):
        return 212_992


@dataclass(frozen=True)
class _Space:
    """The address space of one process, when it was last looked at."""

    seen_at: float = -math.inf
    memory: int = 0
    mapped: frozenset[tuple[int, int]] = frozenset()
    """Files of the workspace without a name that are mapped: nobody can tell how large they are."""


_UNSEEN = _Space()


@dataclass
class _Detail:
    """Of one process, when it was last looked at."""

    memory: int = 0
    sockets: set[int] = field(default_factory=set)
    removed: dict[tuple[int, int], int] = field(default_factory=dict)
    """Bytes of files without a name, by device and inode."""
    queued: bool = False
    """Whether descriptors wait in one of its sockets for somebody to receive them."""
    space: _Space = _UNSEEN


class Holdings:
    """Of all processes of one kernel."""

    def __init__(self, workspace: Path, home: str, tmpfs: Iterable[str]) -> None:
        """home: what processes call the workspace. tmpfs: directories of theirs in memory."""
        with contextlib.suppress(OSError):
            self._device = workspace.stat().st_dev
        self._home = os.fsencode(home) + b"/"
        self._tmpfs = tuple(tmpfs)
        self._details: dict[int, _Detail] = {}
        self._buffer = _default_buffer()
        self._rows = 0
        self._files = 0
        self.queued_since: float | None = None
        """Since when descriptors have been seen in queues of sockets, at each look."""

    def look(self, pids: list[int]) -> None:
        """Look at some processes anew, those first that have not been looked at for longest. Takes milliseconds."""
        until = time.monotonic() + ROUND_S
        there = set(pids)
        known = {pid: detail for pid, detail in self._details.items() if pid in there}  # in their order
        order = [*(pid for pid in pids if pid not in known), *(pid for pid in self._details if pid in known)]
        self._details = known
        for pid in order:
            before = known.pop(pid, _Detail())
            known[pid] = self._detail(usage.face(pid), before.space)  # now the last in the order
            if time.monotonic() > until:
                break
        self._look_at_all(pids)
        if not any(detail.queued for detail in known.values()):
            self.queued_since = None
        elif self.queued_since is None:
            self.queued_since = time.monotonic()

    @property
    def memory_bytes(self) -> int:
        """Memory that no process has among its pages; never less than it is, once all have been looked at."""
        held = sum(detail.memory + detail.space.memory for detail in self._details.values())
        seen: set[int] = set().union(*(detail.sockets for detail in self._details.values()))
        return held + max(self._rows, len(seen) * self._buffer)

    @property
    def tmpfs_bytes(self) -> int:
        """Memory that files of theirs take."""
        return self._files

    def removed_bytes(self) -> int | None:
        """Room on the disk of files without a name. None: a file is mapped of which only the system knows the size."""
        found: dict[tuple[int, int], int] = {}
        for detail in self._details.values():
            found |= detail.removed
        if any(detail.space.mapped - found.keys() for detail in self._details.values()):
            return None
        return sum(found.values())

    def _look_at_all(self, pids: list[int]) -> None:
        """Look at what all of them have together: their network and their directories in memory."""
        ours = Path("/proc/self/ns/net").stat().st_ino
        for pid in reversed(pids[:3]):  # the first of them may be closed to us
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}/ns/net").st_ino != ours:  # noqa: PTH116
                    self._rows = self._buffers(_read(f"/proc/{pid}/net/unix"))
                self._files = sum(_used(f"/proc/{pid}/root{path}") for path in self._tmpfs)
                return

    def _buffers(self, table: bytes) -> int:
        """The most that all sockets of a network hold, also those that are in no process: not accepted, or sent."""
        sockets = table.count(b"\n") - 1
        datagrams = sum(line.split(None, 5)[4:5] == [_DATAGRAM] for line in table.splitlines())
        return (sockets + _DATAGRAMS * datagrams) * self._buffer

    def _detail(self, pid: int, space: _Space) -> _Detail:
        found = _Detail(space=space)
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                found.memory += _DESCRIPTOR_BYTES
                with contextlib.suppress(OSError):
                    self._descriptor(pid, name, found)
        now = time.monotonic()
        if space.mapped or now >= space.seen_at + AREAS_S:
            with contextlib.suppress(OSError):
                found.space = self._space(_read(f"/proc/{pid}/maps"), now)
        return found

    def _descriptor(self, pid: int, name: str, found: _Detail) -> None:
        path = f"/proc/{pid}/fd/{name}"
        try:
            goal = os.readlink(path)  # noqa: PTH115
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            goal = "/… (deleted)"
        if not goal.startswith(("/", "socket:", "anon_inode:[eventpoll]")):
            return
        told = _read(f"/proc/{pid}/fdinfo/{name}")
        found.memory += _LINES * len(told)
        if goal.startswith("socket:["):
            found.sockets.add(int(goal[8:-1]))
            found.queued = found.queued or _QUEUED.search(told) is not None
        elif goal.endswith("(deleted)"):
            status = os.stat(path)  # noqa: PTH116
            if stat.S_ISREG(status.st_mode) and not status.st_nlink and status.st_dev == self._device:
                found.removed[status.st_dev, status.st_ino] = status.st_blocks * usage.BLOCK_BYTES

    def _space(self, maps: bytes, now: float) -> _Space:
        mapped = set()
        for line in maps.splitlines() if _DELETED in maps else ():
            if line.endswith(_DELETED):
                _, _, _, device, inode, path = line.split(None, 5)
                major, minor = (int(part, 16) for part in device.split(b":"))
                if path.startswith(self._home) and os.makedev(major, minor) == self._device:
                    mapped.add((self._device, int(inode)))
        return _Space(now, _AREA_BYTES * maps.count(b"\n"), frozenset(mapped))


def _used(directory: str) -> int:
    found = os.statvfs(directory)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _read(path: str) -> bytes:
    return b"".join(_pieces(path))


def _pieces(path: str) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        left = _MOST_BYTES
        while left > 0 and (piece := os.read(descriptor, 65_536)):
            left -= len(piece)
            yield piece
    finally:
        os.close(descriptor)
