"""The keeper's end of the channel. Everything that comes out of it is untrusted and bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import Any

from kernelrepl import bounded_json
from kernelrepl.guest import wire
from kernelrepl.kernel import turns
from kernelrepl.kernel.flood import CHANNEL_LIMITS, Budget, FloodLimits, Meter, Verdict
from kernelrepl.model import Commit
from kernelrepl.outputs import beside

_READ_AHEAD_BYTES = 256 << 10
"""Twice as much is kept of a kernel that is not heard for a while, and there are many."""
_MAX_DEPTH = 8
"""How deep a header may be nested. A commit has five levels; what is deeper could not be printed or compared."""
_FRAME_S, _BYTE_S, _ITEM_S, _ROW_S = 20e-6, 8e-9, 1.5e-6, 20e-6
"""About what a frame, a byte and a value of its header, and a row that it has written take of the keeper's time."""
_PART_BYTES = 1 << 20
_FRAMES_A_TURN, _BYTES_A_TURN = 64, 32 << 10
"""So many frames are read, with so many bytes of headers, until others get their turn."""
_RETRY_S = 0.005
_MOST_PACKAGES = 100
_HEAVY_BYTES = 16 << 10
"""A header that is longer takes more than a millisecond."""


class HostChannel:
    """Frames over an asyncio stream."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        sock: socket.socket,
        limits: FloodLimits = CHANNEL_LIMITS,
        budget: Budget | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._sock = sock
        writer.transport.set_write_buffer_limits(0)  # what has been sent is in the socket
        self._meter = Meter(limits)
        self.budget = budget or Budget()
        self.hurry = asyncio.Event()
        """Set when the kernel has ended: what it has sent until then is read without a pause."""
        self.may_rest = False
        """Whether what a flood of it has sent may be left for a moment. Not while it starts: that must end in time."""
        self.heavy = False
        """Whether the header of the last frame is worth a thread, with all that is done with it."""
        self._frames = self._bytes = 0

    @classmethod
    async def open(
        cls, sock: socket.socket, limits: FloodLimits = CHANNEL_LIMITS, budget: Budget | None = None
    ) -> HostChannel:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_READ_AHEAD_BYTES)
        return cls(reader, writer, sock, limits, budget)

    async def recv(self) -> tuple[dict[str, Any], bytes]:
        """The next frame.

        Raises wire.ChannelClosed at the end, wire.WireError for what is no frame and for far too many of them.
        """
        self.budget.held.let_go("frame")
        self._frames += 1
        now = asyncio.get_running_loop().time()
        heavy = self.budget.was_heavy(now)
        if not heavy:
            turns.come()
        shorter = turns.SHORTER if heavy else 1
        if self._frames >= _FRAMES_A_TURN // shorter or self._bytes >= _BYTES_A_TURN // shorter:
            self._frames = self._bytes = 0
            # Reading what is there already gives no turn to others.
            await turns.give_way(heavy=heavy, took_s=self._rest_for())
            now = asyncio.get_running_loop().time()
        try:
            with self.budget.held.waiting("frame", "draft"):
                if delay := self.budget.delay(now):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.hurry.wait(), delay)
                prefix = await self._reader.readexactly(wire.PREFIX.size)
            header_bytes, payload_bytes = wire.parse_prefix(prefix)
            # Only headers are parsed; the sum of the payloads is a matter of the store's limits.
            if self._meter.count(header_bytes, now) is Verdict.KILL:
                raise wire.WireError("the kernel floods the channel")
            await self.budget.held.hold("frame", header_bytes + payload_bytes)
            body = await self._read(header_bytes)
            self.heavy = header_bytes > _HEAVY_BYTES
            header, items = await beside.apart(_bounded_header, body) if self.heavy else _bounded_header(body)
            self._bytes += header_bytes
            self.budget.spend(_FRAME_S + header_bytes * _BYTE_S + items * _ITEM_S)
            return header, await self._read(payload_bytes) if payload_bytes else b""
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise wire.ChannelClosed("the kernel closed the channel") from error

    def _rest_for(self) -> float:
        """About how long its last turn was; 0 if others would wait while it rests."""
        took = self.budget.turn()
        return took if self.may_rest and not self.hurry.is_set() and not self.budget.held.is_seated else 0.0

    async def _read(self, size: int) -> bytes:
        """As it comes: what is only announced takes no room."""
        with self.budget.held.waiting("frame", "draft"):
            if size <= _PART_BYTES:
                return await self._reader.readexactly(size)
            parts = []
            while size:
                parts.append(await self._reader.readexactly(min(size, _PART_BYTES)))
                size -= len(parts[-1])
            return b"".join(parts)

    def charge(self, commit: Commit) -> None:
        """Note what a commit costs beside its header: the rows that it writes, and what it shows."""
        rows = len(commit.names) + len(commit.unsaved) + len(commit.deleted) + len(commit.components)
        runs = sum(len(part.runs or ()) for part in commit.components)
        self.budget.spend((rows + len(commit.closed)) * _ROW_S + runs * _ITEM_S + len(commit.outputs) * _BYTE_S)

    async def send(self, header: dict[str, Any], payload: Sequence[bytes] = ()) -> None:
        frame = b""
        for following in wire.frames(header, sum(len(part) for part in payload)):
            if frame:
                await self._write(frame)
            frame = following
        await self._write(frame, *payload)

    async def _write(self, *data: bytes) -> None:
        """Write at once, so that nothing comes in between, and give others their turn after what was long."""
        for part in data:
            self._writer.write(part)
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise wire.ChannelClosed("the kernel closed the channel") from error
        if len(data[0]) >= _BYTES_A_TURN:
            await asyncio.sleep(0)

    async def send_file(self, header: dict[str, Any], file: int) -> None:
        """Send a frame without payload that brings a file with it."""
        frame = b""
        for following in wire.frames({**header, "file": True}, 0):
            if frame:
                await self._write(frame)
            frame = following
        while True:
            try:
                await self._writer.drain()
                if self._writer.transport.get_write_buffer_size():
                    continue  # another frame has come in between
                sent = socket.send_fds(self._sock, [frame], [file])
            except BlockingIOError:
                await asyncio.sleep(_RETRY_S)
                continue
            except OSError as error:
                raise wire.ChannelClosed("the kernel closed the channel") from error
            break
        self._writer.write(frame[sent:])

    def close(self) -> None:
        self._writer.close()
        self._reader = asyncio.StreamReader()  # what nobody has read is nobody's


def _bounded_header(body: bytes) -> tuple[dict[str, Any], int]:
    """A header, and about how many values are in it. What is too much is refused before it is decoded."""
    try:
        items = bounded_json.check(body, items=wire.MAX_HEADER_ITEMS, depth=_MAX_DEPTH)
        header = wire.parse_header(body)
    except bounded_json.TooMuch as error:
        raise wire.WireError(f"frame header: {error}") from error
    level: list[Any] = [header]
    for _ in range(_MAX_DEPTH):
        level = [
            value
            for container in level
            for value in (container.values() if isinstance(container, dict) else container)
            if isinstance(value, dict | list)
        ]
        if not level:
            return header, items
    raise wire.WireError("frame header is nested too deeply")


def text_of(value: Any, limit: int) -> str:
    """A value from a header as a text that can be stored and sent on."""
    return str(value)[:limit].encode(errors="replace").decode()


def versions_of(packages: dict[str, Any]) -> dict[str, str]:
    """The versions of packages that a kernel tells of, as they can be stored."""
    return {text_of(name, 80): text_of(version, 80) for name, version in list(packages.items())[:_MOST_PACKAGES]}
