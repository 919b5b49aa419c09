"""What a kernel takes of the machine: memory of its processes. Reads, changes nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
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
