"""Have what is in memory lie in large pages: a fork copies a table with an entry for each page. Runs in the zygote."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kernelrepl.guest.system import libc

_LARGE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_SMALL = os.sysconf("SC_PAGE_SIZE")
_COLLAPSE = 25
"""MADV_COLLAPSE. A system before Linux 6.1 refuses, and all stays as it was."""
_ENTRY_BYTES = 8
"""What /proc/self/pagemap has for each page. The highest bit of the last byte: it is there."""


def join() -> None:
    """What is half empty stays as it is, because a large page takes its room as a whole."""
    try:
        large = int(_LARGE.read_text())
        with open("/proc/self/pagemap", "rb") as table:  # noqa: PTH123
            for first, end in list(_private()):
                for start in range(-(-first // large) * large, end - large + 1, large):
                    if 2 * _present(table, start, large) >= large // _SMALL:
                        libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(large), _COLLAPSE)
    except OSError:  # there are none here
        return


def _private() -> Iterator[tuple[int, int]]:
    """Where memory is that belongs to no file, and can be written."""
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        for line in maps:
            place, rights, _, _, _, *name = line.split()
            if rights == "rw-p" and name in ([], ["[heap]"]):
                first, end = place.split("-")
                yield int(first, 16), int(end, 16)


def _present(table: BinaryIO, start: int, size: int) -> int:
    """How many pages are there."""
    table.seek(start // _SMALL * _ENTRY_BYTES)
    entries = table.read(size // _SMALL * _ENTRY_BYTES)
    return sum(last >> 7 for last in entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES])
