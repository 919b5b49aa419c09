"""What a kernel takes of the machine: memory of its processes, files of its workspace. Reads, changes nothing else."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_BLOCK_BYTES = 512
_MOST_PROCESSES = 100_000


def descendants(pid: int) -> Iterator[int]:
    """A process and all that it started, as far as they still belong to it."""
    waiting = [pid]
    for _ in range(_MOST_PROCESSES):
        if not waiting:
            return
        found = waiting.pop()
        yield found
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{found}/task"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    children = Path(f"/proc/{found}/task/{thread}/children").read_text()
                    waiting += map(int, children.split())


def resident(pids: list[int]) -> int:
    """Bytes of memory, those that are shared counted for each process: never less than what is really taken."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * _PAGE_BYTES


def proportional(pids: list[int]) -> int:
    """Bytes of memory, those that are shared by several processes divided among them. Costs milliseconds each."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
        except (OSError, ValueError, IndexError):
            total += resident([pid])  # of another user, or about to end
    return total


@dataclass(frozen=True)
class Files:
    """What the files of a directory take on the disk, and how many there are. Neither is counted to the end of time."""

    size: int
    count: int


def files(directory: Path, most_bytes: int | None, most_files: int | None) -> Files:
    """Count until one of the limits is passed. Links are not followed; what is sparse counts as it is stored.

    A directory that has been closed is opened again for it, and one that is too deep to look into counts as
    too many files: there is no other reason to make either.
    """
    size = count = 0
    waiting = [os.fspath(directory)]
    while waiting:
        here = waiting.pop()
        try:
            entries = list(_entries(here))
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG or most_files is None:
                continue  # it is gone, or no directory any more
            return Files(size, most_files + 1)
        for path, found in entries:
            count += 1
            size += found.st_blocks * _BLOCK_BYTES
            if stat.S_ISDIR(found.st_mode):
                waiting.append(path)
        if (most_bytes is not None and size > most_bytes) or (most_files is not None and count > most_files):
            break
    return Files(size, count)


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    descriptor = _open(directory)
    try:
        for name in os.listdir(descriptor):  # noqa: PTH208
            with contextlib.suppress(OSError):
                yield f"{directory}/{name}", os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    finally:
        os.close(descriptor)


def _open(directory: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(directory, flags)
    except PermissionError:
        # Through a descriptor: what has this name a moment later may be a link to somewhere else.
        held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            Path(f"/proc/self/fd/{held}").chmod(0o700)
        finally:
            os.close(held)
        return os.open(directory, flags)
