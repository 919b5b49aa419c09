"""A file in memory through which the bytes of components reach a kernel."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence

from kernelrepl.guest import wire
from kernelrepl.model import StoredComponent


class Area:
    """An empty file with room for components. Raises OSError.

    It is closed when nobody refers to it any more: a thread may still write to it when its task has been cancelled,
    and must not find another file under its number.
    """

    def __init__(self, components: Sequence[StoredComponent]) -> None:
        self.parts: list[tuple[StoredComponent, list[int]]] = []
        """Each component, and the offset of each of its segments."""
        self.size_bytes = 0
        for component in components:
            offsets, self.size_bytes = wire.area_offsets(component.segments, self.size_bytes)
            self.parts.append((component, offsets))
        self._file = _file()
        os.truncate(self._file, self.size_bytes)

    def fileno(self) -> int:
        return self._file

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def seal(self) -> None:
        """Nobody changes the file any more: whoever maps it relies on its size, and on its bytes."""
        if hasattr(os, "memfd_create"):
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, seals)


def _file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("kernelrepl", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
