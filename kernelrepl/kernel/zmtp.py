"""Speak ZMTP 3.0 to a socket of a kernel, and hold no more of a message than a message may have.

libzmq reads whatever comes: it bounds single frames, but not how many of them make a message, nor what waits. A kernel
that writes to its socket by itself could fill the memory of the keeper. This is the client's side of the protocol
without security (https://rfc.zeromq.org/spec/23/), and reads on when somebody wants to have the next message.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from pathlib import Path

from kernelrepl.kernel.stock import Holding

MAX_MESSAGE_BYTES = 18 << 20
"""Of all frames of a message. The outputs of a cell take 16 MB at most."""
MAX_FRAMES = 1000
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_MORE, _LONG, _COMMAND = 1, 2, 4
_MECHANISM = slice(12, 32)
_PART_BYTES = 256 << 10
_COMMAND_BYTES = 4096

Frame = bytes | bytearray


class Broken(Exception):
    """The peer has closed the connection, or speaks another protocol."""


class Connection:
    """To one socket of a kernel."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = "", held: Holding | None = None
    ) -> None:
        self._reader = reader
        self._name = name
        self._held = held or Holding()
        self._writer = writer
        self._inside = False
        """In the middle of a message that is left out."""

    @classmethod
    async def open(cls, path: Path, kind: str, identity: bytes = b"", held: Holding | None = None) -> Connection:
        """Connect and shake hands. Raises OSError and Broken. held: where it is counted what a message takes."""
        reader, writer = await asyncio.open_unix_connection(path, limit=_PART_BYTES)
        found = cls(reader, writer, path.name, held)
        try:
            about = _property(b"Socket-Type", kind.encode()) + _property(b"Identity", identity)
            writer.write(_GREETING + _frame(b"\x05READY" + about, _COMMAND))
            await found._shake_hands()
        except BaseException:
            found.close()
            raise
        if kind == "SUB":
            found.send([b"\x01"])  # everything
        return found

    async def _shake_hands(self) -> None:
        try:
            greeting = await self._reader.readexactly(len(_GREETING))
            flags, size = await self._head()
            if greeting[:1] != b"\xff" or greeting[10] < 3 or greeting[_MECHANISM] != _GREETING[_MECHANISM]:
                raise Broken("the kernel greets in another protocol")
            if not flags & _COMMAND or size > _COMMAND_BYTES or (await self._body(size))[:6] != b"\x05READY":
                raise Broken("the kernel does not shake hands")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Broken("the kernel closed a connection") from error

    def send(self, frames: Sequence[Frame]) -> None:
        """Send a message at once, or as soon as there is room."""
        last = len(frames) - 1
        self._writer.writelines(_frame(frame, _MORE if place < last else 0) for place, frame in enumerate(frames))

    async def recv(self) -> tuple[list[Frame] | None, int, int]:
        """The next message, and how many frames and bytes were read. None: they belong to a message that is left out.

        Raises Broken at the end.
        """
        try:
            return await self._recv()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Broken("the kernel closed a connection") from error

    async def _recv(self) -> tuple[list[Frame] | None, int, int]:
        frames: list[Frame] = []
        budget_bytes = MAX_MESSAGE_BYTES
        while True:
            flags, size = await self._head()
            if flags & _COMMAND:
                raise Broken("a command after the handshake: nobody asked for one")
            self._inside = self._inside or size > budget_bytes or len(frames) >= MAX_FRAMES
            if self._inside:
                self._inside = bool(flags & _MORE)
                return None, len(frames) + 1, MAX_MESSAGE_BYTES - budget_bytes + await self._skip(size)
            budget_bytes -= size
            await self._held.hold(self._name, MAX_MESSAGE_BYTES - budget_bytes)
            with self._held.waiting(self._name):
                frames.append(await self._body(size))
            if not flags & _MORE:
                return frames, len(frames), MAX_MESSAGE_BYTES - budget_bytes

    async def _head(self) -> tuple[int, int]:
        flags, size = await self._reader.readexactly(2)
        if flags & _LONG:
            (size,) = struct.unpack("!Q", bytes([size]) + await self._reader.readexactly(7))
        return flags, size

    async def _body(self, size: int) -> Frame:
        """As it comes: what is only announced takes no room."""
        if size <= _PART_BYTES:
            return await self._reader.readexactly(size)
        body = bytearray()
        while len(body) < size:
            body += await self._part(size - len(body))
        return body

    async def _skip(self, size: int) -> int:
        left = size
        while left:
            left -= len(await self._part(left))
        return size

    async def _part(self, most: int) -> bytes:
        part = await self._reader.read(min(most, _PART_BYTES))
        if not part:
            raise Broken("the kernel closed a connection")
        await asyncio.sleep(0)  # what is there already is read without a wait
        return part

    def done(self) -> None:
        """Note that the last message has been dealt with."""
        self._held.let_go(self._name)

    def close(self) -> None:
        self._held.let_go(self._name)
        self._writer.close()


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4) + value


def _frame(body: Frame, flags: int) -> bytes:
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | _LONG]) + len(body).to_bytes(8) + body
