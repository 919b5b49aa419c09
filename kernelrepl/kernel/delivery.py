"""Giving a kernel the components of its session: some at the start, the others when it asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from kernelrepl.errors import StorageFailed
from kernelrepl.guest import frames, wire
from kernelrepl.kernel.channel import HostChannel
from kernelrepl.kernel.window import Window
from kernelrepl.model import Manifest, Portion, StoredComponent, Write

LATER_BYTES = 1 << 20
"""Components of mere data from this size on are loaded when they are needed, or when the kernel has nothing to do."""
_log = logging.getLogger("kernelrepl")


class Library(Protocol):
    """Where the components are."""

    async def missing(self, parts: Sequence[StoredComponent]) -> set[int]:
        """The rows of components that are not all there."""

    def pour(self, parts: Sequence[StoredComponent], write: Write, budget_bytes: int) -> AsyncIterator[Portion]:
        """Write their bytes, one after the other, in portions; tells of each."""


class Delivery:
    """To one kernel."""

    def __init__(self, channel: HostChannel, library: Library, give_up: Callable[[], Awaitable[None]]) -> None:
        """give_up: called when the kernel waits for what will not come."""
        self._channel = channel
        self.library = library
        self._give_up = give_up
        self._window = Window()
        self._later: dict[int, StoredComponent] = {}
        """What the kernel has not asked for yet, by key."""
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def waits(self, key: int) -> bool:
        """Whether a component waits until it is needed."""
        return key in self._later

    async def send_start(self, fields: dict[str, Any], manifest: Manifest) -> None:
        """Send the `start` frame, with the window and with what is told of the components, and then the first ones.

        fields: its other fields.
        """
        early, later = _by_urgency(manifest)
        self._later = {part.key: part for part in later}
        entries, given = await self._entries(early)
        file = self._window.for_reading()
        try:
            told = {"components": entries, "later": [_entry(part) for part in later]}
            await self._channel.send_file(frames.build("start", **fields, **told), file)
        finally:
            os.close(file)
        self._spawn(self._pour(given))

    def want(self, header: dict[str, Any]) -> None:
        """The kernel asks for components. Raises WireError if it may not have them."""
        keys = header["components"]
        if len(set(keys)) < len(keys) or not all(key in self._later for key in keys):
            raise wire.WireError("the kernel wants components that are not there")
        # Each is given once: a kernel cannot make the keeper work over and over.
        self._spawn(self._deliver([self._later.pop(key) for key in keys]))

    def emptied(self, header: dict[str, Any]) -> None:
        """The kernel has emptied a slot. Raises WireError if it had not got it."""
        if not self._window.emptied(header["slot"]):
            raise wire.WireError("the kernel has emptied what it had not got")

    async def stop(self) -> None:
        """End what is on its way. Nothing else may be asked for after that."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._later.clear()
        del self._window  # now, and not when garbage is collected: it is a file

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, wanted: list[StoredComponent]) -> None:
        try:
            entries, given = await self._entries(wanted)
        except StorageFailed as error:
            # It waits for an answer. What it does not get now, the next kernel may.
            why = f"it could not be read from the store: {error}"
            entries, given = [_entry(part) | {"skip": why} for part in wanted], []
        async with self._turn:
            with contextlib.suppress(wire.ChannelClosed):
                await self._channel.send(frames.build("data", components=entries))
                await self._pour_now(given)

    async def _pour(self, parts: list[StoredComponent]) -> None:
        async with self._turn:
            with contextlib.suppress(wire.ChannelClosed):
                await self._pour_now(parts)

    async def _entries(self, parts: Sequence[StoredComponent]) -> tuple[list[dict[str, Any]], list[StoredComponent]]:
        """What the kernel is told of each component, and those whose bytes it gets."""
        missing = await self.library.missing([part for part in parts if part.blocked is None])
        entries = [_entry(part) for part in parts]
        for entry, part in zip(entries, parts, strict=True):
            if part.row in missing:
                entry["skip"] = "its bytes are missing from the store"
        return entries, [part for part, entry in zip(parts, entries, strict=True) if entry["skip"] is None]

    async def _pour_now(self, parts: Sequence[StoredComponent]) -> None:
        window = self._window  # as long as a thread writes to it
        slot = await window.slot()

        def write(data: memoryview, offset: int) -> None:
            window.write(slot, data, offset)

        try:
            async for size, intact in self.library.pour(parts, write, wire.SLOT_BYTES):
                damage = {} if intact else {"damaged": True}
                await self._channel.send(frames.build("piece", slot=slot, size=size, **damage))
                slot = await window.slot()
        except (StorageFailed, OSError):
            _log.exception("the bytes of a session could not be read")
            await self._give_up()
        window.emptied(slot)
        await window.release()


def _entry(part: StoredComponent) -> dict[str, Any]:
    return {
        "roots": part.roots,
        "references": part.references,
        "segments": part.segments,
        "code": part.has_code,
        "magic": part.magic,
        "python": part.python,
        "packages": part.packages,
        "skip": part.blocked,
    }


def _by_urgency(manifest: Manifest) -> tuple[list[StoredComponent], list[StoredComponent]]:
    """The components to load at the start, and the large ones that can wait until they are needed."""
    own = {root for name, (root, *_) in manifest.names.items() if name.startswith("*")}
    needed = own.union(*(part.references for part in manifest.components))
    early: list[StoredComponent] = []
    later: list[StoredComponent] = []
    for part in manifest.components:
        waits = part.inert and part.size_bytes >= LATER_BYTES and part.blocked is None
        (later if waits and needed.isdisjoint(part.roots) else early).append(part)
    return early, later
