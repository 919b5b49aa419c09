"""A window in memory through which the bytes of components reach a kernel, a portion at a time."""

from __future__ import annotations

import asyncio
import os
import tempfile

from kernelrepl.guest import wire

_BYTES = wire.SLOTS * wire.SLOT_BYTES


class Window:
    """Slots that the keeper fills and the kernel, which may only read them, empties. Raises OSError.

    The file is closed when nobody refers to it any more: a thread may still write to it when its task has been
    cancelled, and must not find another file under its number.
    """

    def __init__(self) -> None:
        self._file = _file()
        os.truncate(self._file, _BYTES)
        self._free: asyncio.Queue[int] = asyncio.Queue()
        self._taken: set[int] = set()
        for slot in range(wire.SLOTS):
            self._free.put_nowait(slot)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def for_reading(self) -> int:
        """A descriptor that cannot be written to; whoever asks closes it."""
        try:
            return os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY)
        except FileNotFoundError:  # not on Linux
            return os.dup(self._file)

    async def slot(self) -> int:
        """A slot that the kernel has emptied, or never had."""
        slot = await self._free.get()
        self._taken.add(slot)
        return slot

    def emptied(self, slot: object) -> bool:
        """The kernel says that it has emptied a slot; whether it had it."""
        if not isinstance(slot, int) or slot not in self._taken:
            return False
        self._taken.remove(slot)
        self._free.put_nowait(slot)
        return True

    async def release(self) -> None:
        """Give the memory back, when the kernel has emptied all slots: most of the time nothing is delivered."""
        slots = [await self._free.get() for _ in range(wire.SLOTS)]
        for size in (0, _BYTES):
            os.truncate(self._file, size)
        for slot in slots:
            self._free.put_nowait(slot)

    def write(self, slot: int, data: memoryview, offset: int) -> None:
        """Write to a slot."""
        at = slot * wire.SLOT_BYTES + offset
        while data.nbytes:
            written = os.pwrite(self._file, data, at)
            data, at = data[written:], at + written


def _file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("kernelrepl", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
