"""Bring back `mmap.mmap(-1, n)`, memory that processes share, on a file that has no name. Runs in the kernel.

The sandbox refuses memory that is shared and belongs to no file, because nobody can count it. A file in /dev/shm is
counted; where there is none, one among the temporary files.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import IO, Any, Self

_SHARED = "/dev/shm"


class _Mapping(mmap.mmap):
    """Memory that is mapped, as `mmap.mmap` is documented."""

    __slots__ = ()

    def __new__(
        cls,
        fileno: int,
        length: int,
        flags: int = mmap.MAP_SHARED,
        prot: int = mmap.PROT_READ | mmap.PROT_WRITE,
        access: int = mmap.ACCESS_DEFAULT,
        offset: int = 0,
        **more: Any,
    ) -> Self:
        try:
            return super().__new__(cls, fileno, length, flags, prot, access, offset, **more)
        except PermissionError:
            if fileno != -1:
                raise
        with _file() as file:
            # Taken now: where a file in memory finds no room later, whoever writes into it is killed.
            os.posix_fallocate(file.fileno(), 0, length)
            return super().__new__(cls, file.fileno(), length, flags & ~mmap.MAP_ANONYMOUS, prot, access, **more)


def _file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=_SHARED, buffering=0)
    except OSError:
        return tempfile.TemporaryFile(buffering=0)


def install() -> None:
    """Put it in the place of the library's, whose name and documentation it has."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(_Mapping, name, getattr(mmap.mmap, name))
    mmap.mmap = _Mapping  # type: ignore[misc]
