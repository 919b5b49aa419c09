"""The channel between a kernel and its keeper: framing only, shared by both ends.

A frame is a fixed prefix, a JSON header and raw bytes:

    4 bytes  magic (format and version)
    4 bytes  length of the header, big endian
    8 bytes  length of the payload, big endian
    header   UTF-8 JSON object with a "type"
    payload  raw bytes, described by the header

A frame from the keeper may bring a file with it: its header says `"file": true`, and its descriptor comes with the
first byte. Such a file is the window through which the bytes of components come, in slots.

The channel is one inherited unix stream socket. The kernel is not trusted by the keeper, so lengths
are bounded before anything is read.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Any

PROTOCOL = 2
MAGIC = b"KRC1"
PREFIX = struct.Struct("!4sIQ")
MAX_HEADER_BYTES = 32 << 20
MAX_PAYLOAD_BYTES = 64 << 20
PIECE_BYTES = 2 << 20
"""The most that is put into one frame of a long transfer, and into one transaction of the store: other sessions wait
for it. With four times as much they waited six times as long, and the transfer itself was no faster."""

CHUNK_BYTES = 256 << 10
"""Segments of components are cut into chunks of this size; those that the store has already do not travel again."""
ROW_BYTES = 8 << 10
"""Components up to this size are kept whole."""

EXIT_BROKEN = 70
"""The exit code of a kernel that ended itself because user code broke what it works with."""

SLOTS = 4
SLOT_BYTES = 4 << 20
"""Slots of the window are filled while others are emptied."""

_IOV_MAX = 512
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_FILE_SPACE = socket.CMSG_SPACE(struct.calcsize("i"))

Buffer = bytes | bytearray | memoryview


class WireError(Exception):
    """The peer sent something that is not a frame of this protocol."""


class ChannelClosed(WireError):
    """The peer closed the channel."""


def encode(header: dict[str, Any], payload_bytes: int) -> bytes:
    """The prefix and header of a frame whose payload has `payload_bytes` bytes."""
    body = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    return PREFIX.pack(MAGIC, len(body), payload_bytes) + body


def parse_prefix(prefix: bytes) -> tuple[int, int]:
    """Length of header and payload in bytes.

    Raises WireError for a wrong magic or a length over the bounds.
    """
    magic, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise WireError(f"not a channel frame: {magic!r}")
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise WireError(f"frame too large: header {header_bytes}, payload {payload_bytes} bytes")
    return header_bytes, payload_bytes


def parse_header(body: Buffer) -> dict[str, Any]:
    """The header as a dict with a string "type". Raises WireError otherwise."""
    try:
        header = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise WireError(f"frame header is not JSON: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise WireError("frame header has no type")
    return header


def pieces(buffers: Sequence[Buffer], limit: int = PIECE_BYTES) -> list[list[memoryview]]:
    """Cut buffers, in order, into groups of at most `limit` bytes each."""
    groups: list[list[memoryview]] = [[]]
    room = limit
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        while view.nbytes:
            if not room:
                groups.append([])
                room = limit
            part = view[:room]
            groups[-1].append(part)
            room -= part.nbytes
            view = view[part.nbytes :]
    return groups if groups[-1] else groups[:-1]


def chunk_lengths(segments: Iterable[int]) -> list[int]:
    """The lengths of the chunks into which segments of these lengths are cut, in bytes."""
    lengths: list[int] = []
    for size in segments:
        whole, rest = divmod(size, CHUNK_BYTES)
        lengths += [CHUNK_BYTES] * whole
        if rest:
            lengths.append(rest)
    return lengths


Run = tuple[int, int, int]
"""Chunks of a component, in order: (key, start, count) of the version that the store has of that key, or, with the
key -1, so many new ones."""


def new_lengths(segments: Iterable[int], runs: Iterable[Run] | None) -> list[int]:
    """The lengths of the chunks of a component that are new, in order. Raises ValueError if the runs do not fit."""
    lengths = chunk_lengths(segments)
    if runs is None:
        return lengths
    new: list[int] = []
    at = 0
    for key, start, count in runs:
        if count < 1 or start < 0 or at + count > len(lengths):
            raise ValueError("runs that do not fit their component")
        if key < 0:
            new += lengths[at : at + count]
        at += count
    if at != len(lengths):
        raise ValueError("runs that do not cover their component")
    return new


class Channel:
    """The kernel's end: blocking, used by the main thread only."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._files: list[int] = []

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, header: dict[str, Any], payload: Sequence[Buffer] = ()) -> None:
        """Send one frame. Raises ChannelClosed when the keeper is gone."""
        views = [memoryview(part).cast("B") for part in payload if memoryview(part).nbytes]
        queue = [memoryview(encode(header, sum(v.nbytes for v in views))), *views]
        try:
            while queue:
                sent = self._sock.sendmsg(queue[:_IOV_MAX])
                while queue and sent >= queue[0].nbytes:
                    sent -= queue.pop(0).nbytes
                if sent:
                    queue[0] = queue[0][sent:]
        except (BrokenPipeError, ConnectionError) as error:
            raise ChannelClosed("the keeper closed the channel") from error

    def recv(self) -> tuple[dict[str, Any], bytearray]:
        """Receive one frame; the descriptor of its file, if it brings one, is its "file".

        Raises ChannelClosed at the end of the stream.
        """
        header_bytes, payload_bytes = parse_prefix(bytes(self._read(PREFIX.size)))
        header, payload = parse_header(self._read(header_bytes)), self._read(payload_bytes)
        if header.get("file"):
            header["file"] = self._files.pop(0)
        return header, payload

    def _read(self, size: int) -> bytearray:
        received = bytearray(size)
        view = memoryview(received)
        while view.nbytes:
            try:
                got, ancillary, _, _ = self._sock.recvmsg_into([view], _FILE_SPACE, _CLOSE_ON_EXEC)
            except ConnectionError as error:
                raise ChannelClosed("the keeper closed the channel") from error
            if not got:
                raise ChannelClosed("the keeper closed the channel")
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._files.extend(array.array("i", data))
            view = view[got:]
        return received


def map_window(descriptor: int) -> memoryview:
    """The window through which components come, for reading; closes the descriptor."""
    try:
        return memoryview(mmap.mmap(descriptor, SLOTS * SLOT_BYTES, mmap.MAP_SHARED, mmap.PROT_READ))
    finally:
        os.close(descriptor)
