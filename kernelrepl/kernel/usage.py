"""What a kernel takes of the machine: memory of its processes. Reads, changes nothing."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 512
_MEMORY = re.compile(rb"^(?:VmRSS|VmPTE|VmSwap):\s+(\d+)", re.M)
_TABLES = 1
"""Where page tables stand among them, in the order of the file."""
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


def of_group(group: int) -> list[int]:
    """All of a process group, also those whose parent has ended. Asks every process of the machine."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        with contextlib.suppress(OSError):  # it has ended
            if os.getpgid(int(pid)) == group:
                found.append(int(pid))
    return found


def _status(pid: int) -> list[bytes]:
    """What memory a process has by its status, in KB: its pages, those that were swapped out, its page tables."""
    try:
        descriptor = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return _MEMORY.findall(os.read(descriptor, 16_384))
    except OSError:
        return []
    finally:
        os.close(descriptor)


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    except OSError:
        return []


def face(pid: int) -> int:
    """The thread of a process that shows what the process has: the first, unless it has ended before the others."""
    if _status(pid):
        return pid
    return next((thread for thread in _threads(pid) if thread != pid and _status(thread)), pid)


def resident(pids: list[int]) -> int:
    """Bytes of memory, those that are shared counted for each process: never less than what is really taken."""
    return sum(_taken(pid) for pid in pids)


def _taken(pid: int) -> int:
    return sum(map(int, _status(pid) or _status(face(pid)))) << 10


@dataclass(frozen=True)
class Shares:
    """Bytes of memory, those that are shared by several processes divided among them."""

    total: int = 0
    files_in_memory: int = 0
    """How much of it are pages of files that are in memory alone."""

    def __add__(self, other: Shares) -> Shares:
        return Shares(self.total + other.total, self.files_in_memory + other.files_in_memory)


def proportional(pids: list[int]) -> Shares:
    """What processes take, exactly. Costs milliseconds each."""
    return sum((_share(face(pid)) for pid in pids), Shares())


def _share(pid: int) -> Shares:
    taken = _status(pid)
    try:
        lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
        found = {words[0]: int(words[1]) << 10 for words in lines if words[0] in ("Pss:", "Pss_Shmem:", "SwapPss:")}
        tables = int(taken[_TABLES]) << 10
        return Shares(found["Pss:"] + found.get("SwapPss:", 0) + tables, found.get("Pss_Shmem:", 0))
    except (OSError, ValueError, IndexError, KeyError):
        return Shares(sum(map(int, taken)) << 10)  # of another user, or about to end
