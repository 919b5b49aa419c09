"""The channel between a kernel and its keeper: framing only, shared by both ends.

A frame is a fixed prefix, a JSON header and raw bytes:

    4 bytes  magic (format and version)
    4 bytes  length of the header, big endian
    8 bytes  length of the payload, big endian
    header   UTF-8 JSON object with a "type"
    payload  raw bytes, described by the header

A header that would be long comes in parts: frames of the type "part", each with a dict or list and where in the header
it belongs, and then the frame itself, with what is left.

A frame from the keeper may bring a file with it: its header says `"file": true`, and its descriptor comes with the
first byte. Such a file is the window through which the bytes of components come, in slots.

The channel is one inherited unix stream socket. The kernel is not trusted by the keeper, so lengths
are bounded before anything is read.
"""

from __future__ import annotations

import array
import bisect
import itertools
import json
import mmap
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

DAMAGED = (
    "it is damaged in the database: what is there is not what was stored; give it a value again, or put back a copy of"
    " the database"
)
"""Why something that the disk has changed is not restored."""
PROTOCOL = 4
MAGIC = b"KRC1"
PREFIX = struct.Struct("!4sIQ")
MAX_HEADER_BYTES = 256 << 10
"""What a kernel may say in one header; what the keeper says is not bounded by it."""
MAX_HEADER_ITEMS = 20_000
"""The most values and keys in one header: some milliseconds of work."""
PART_BYTES = 48 << 10
"""What is longer is said in parts of about this length, in frames of their own: others get their turn between them.
The longest single entry, a name that is not saved with all that is said about it, still fits into a header."""
MAX_PAYLOAD_BYTES = 28 << 20
MAX_OUTPUTS_BYTES = 24 << 20
"""Of the payload of a commit, what its outputs may take."""
KEEPERS_HEADER_BYTES = 64 << 20

# What a session may have. The kernel keeps to it and says what it leaves out; the keeper ends one that does not.
MAX_NAMES = 20_200
MAX_NAME_CHARS = 1000
MAX_SAID_CHARS = 2000
"""Of one text that is said about a name: a type, a path, a reason, a summary."""
MAX_TEXT_CHARS = 8_000_000
"""Of the names of a session, with what is said about each."""
MAX_COMPONENTS = 50_000
MAX_NUMBERS = 400_000
"""Of roots, references, segments and runs of all components of one commit."""
MAX_CHUNKS = 100_000
"""Of all components of one commit: 26 GB. A segment of any size has one."""
MAX_RUNS = 16_384
MAX_RUN_KEYS = 1024
"""How many runs one commit may have, and of how many components of the store their chunks may be."""
MAX_FAILED = 200
"""How much of what was around a session (directories, variables of the environment) is told when it is lost."""
PIECE_BYTES = 2 << 20
"""The most that is put into one frame of a long transfer, and into one transaction of the store: other sessions wait
for it. With four times as much they waited six times as long, and the transfer itself was no faster."""

CHUNK_BYTES = 256 << 10
"""Segments of components are cut into chunks of this size; those that the store has already do not travel again."""
ROW_BYTES = 8 << 10
"""Components up to this size are kept whole."""

REPLY = "application/vnd.kernelrepl.reply+json"
"""Among the forms of what a cell shows: what a model gets in their place, {"text": ...}, {"image/png": ...} or both."""

EXIT_BROKEN = 70
"""The exit code of a kernel that ended itself because user code broke what it works with."""

NICENESS = 5
"""How much nicer a kernel and all it starts are than the keeper: a third of the weight where processors are short, so
that sessions which compute do not keep those waiting that only ask."""

SLOTS = 4
SLOT_BYTES = 4 << 20
"""Slots of the window are filled while others are emptied."""

_FEW = 500
"""So many entries are encoded at once to see how long they are."""
_WHOLE = 4
"""What has no more entries than what is said about a name is never cut."""
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


def parse_prefix(prefix: bytes, most_header_bytes: int = MAX_HEADER_BYTES) -> tuple[int, int]:
    """Length of header and payload in bytes.

    Raises WireError for a wrong magic or a length over the bounds.
    """
    magic, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise WireError(f"not a channel frame: {magic!r}")
    if header_bytes > most_header_bytes or payload_bytes > MAX_PAYLOAD_BYTES:
        raise WireError(f"frame too large: header {header_bytes}, payload {payload_bytes} bytes")
    return header_bytes, payload_bytes


def parse_header(body: Buffer) -> dict[str, Any]:
    """The header as a dict with a string "type". Raises WireError otherwise."""
    try:
        header = json.loads(str(body, "utf-8"))  # of bytes it would take other encodings, which nobody has counted
    except (ValueError, RecursionError) as error:
        raise WireError(f"frame header is not JSON: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise WireError("frame header has no type")
    return header


def pieces(buffers: Sequence[Buffer], limit: int = PIECE_BYTES) -> list[list[memoryview]]:
    """Cut buffers, in order, into groups of at most `limit` bytes each."""
    groups: list[list[memoryview]] = [[]]
    budget_bytes = limit
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        while view.nbytes:
            if not budget_bytes:
                groups.append([])
                budget_bytes = limit
            part = view[:budget_bytes]
            groups[-1].append(part)
            budget_bytes -= part.nbytes
            view = view[part.nbytes :]
    return groups if groups[-1] else groups[:-1]


Run = tuple[int, int, int]
"""Chunks of a component, in order: (key, start, count) of the version that the store has of that key, or, with the
key -1, so many new ones."""


class Cuts:
    """The chunks into which segments of these lengths are cut. Its cost follows the segments, not the lengths."""

    def __init__(self, segments: Sequence[int]) -> None:
        self._ends = list(itertools.accumulate(-(-size // CHUNK_BYTES) for size in segments))
        """Of each segment, how many chunks there are up to its end."""
        self._bytes = list(itertools.accumulate(segments))
        """And how many bytes."""
        self.count = self._ends[-1] if self._ends else 0
        self.size_bytes = self._bytes[-1] if self._bytes else 0

    def before(self, chunk: int) -> int:
        """How many bytes the first so many chunks have."""
        segment = bisect.bisect_right(self._ends, chunk)
        if not segment:
            return chunk * CHUNK_BYTES
        return self._bytes[segment - 1] + (chunk - self._ends[segment - 1]) * CHUNK_BYTES

    def lengths(self, start: int, stop: int) -> list[int]:
        """The lengths of these chunks, in bytes. The cost follows their number, which the caller has checked."""
        found: list[int] = []
        segment = bisect.bisect_right(self._ends, start)
        while start < stop:
            last = min(stop, self._ends[segment])
            found += [CHUNK_BYTES] * (last - start)
            if last == self._ends[segment]:
                found[-1] = self._bytes[segment] - self.before(last - 1)
            start, segment = last, segment + 1
            while segment < len(self._ends) and self._ends[segment] == start:
                segment += 1  # empty segments have no chunk
        return found

    def new(self, runs: Iterable[Run] | None) -> list[tuple[int, int]]:
        """From where to where chunks are new. Raises ValueError if the runs do not fit."""
        if runs is None:
            return [(0, self.count)] if self.count else []
        found: list[tuple[int, int]] = []
        at = 0
        for key, start, count in runs:
            if count < 1 or start < 0 or at + count > self.count:
                raise ValueError("runs that do not fit their component")
            if key < 0:
                found.append((at, at + count))
            at += count
        if at != self.count:
            raise ValueError("runs that do not cover their component")
        return found

    def new_bytes(self, runs: Iterable[Run] | None) -> int:
        """How many bytes are new. Raises ValueError if the runs do not fit."""
        return sum(self.before(stop) - self.before(start) for start, stop in self.new(runs))

    def new_lengths(self, runs: Iterable[Run] | None) -> list[int]:
        """The lengths of the chunks that are new. Raises ValueError if the runs do not fit."""
        return [length for start, stop in self.new(runs) for length in self.lengths(start, stop)]


def frames(header: dict[str, Any], payload_bytes: int) -> Iterator[bytes]:
    """Prefixes and headers of the frames that say all this: one, or parts of a long header and the rest of it."""
    if sum(len(value) for value in header.values() if isinstance(value, dict | list)) <= _FEW:
        frame = encode(header, payload_bytes)
        if len(frame) <= PREFIX.size + PART_BYTES:
            yield frame
            return
    rest = dict(header)
    for key, value in header.items():
        if isinstance(value, dict | list) and _may_be_long(value):
            rest[key] = type(value)()
            for path, part in _parts(value, (key,)):
                yield encode({"type": "part", "of": header["type"], "path": path, "value": part}, 0)
    yield encode(rest, payload_bytes)


def _may_be_long(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return len(value) > _WHOLE or any(isinstance(part, dict | list) and len(part) > _WHOLE for part in inner)


Path = tuple[str | int, ...]
"""Where a part of a header belongs: a key in a dict, -1 for the last entry of a list."""


def _parts(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """A dict or list, cut between its entries, and within those that are too long."""
    keys = list(value) if isinstance(value, dict) else itertools.repeat(-1)
    part, size = type(value)(), 0
    for key, entry in zip(keys, value.values() if isinstance(value, dict) else value, strict=False):
        length = len(json.dumps(entry)) + 2 + (0 if key == -1 else len(json.dumps(key)))
        long = length > PART_BYTES and isinstance(entry, dict | list) and len(entry) > _WHOLE
        if part and (long or size + length > PART_BYTES):
            yield path, part
            part, size = type(value)(), 0
        known = type(entry)() if long else entry
        if isinstance(value, dict):
            part[key] = known
        else:
            part.append(known)
        size += length
        if long:
            yield path, part
            yield from _parts(entry, (*path, key))
            part, size = type(value)(), 0
    if part:
        yield path, part


def join(whole: dict[str, Any], path: Sequence[str | int], part: Any) -> None:
    """Put a part to its place in what has come of a header. Raises LookupError, TypeError or AttributeError."""
    place: Any = whole
    for step in path[:-1]:
        place = place[step]
    place = place.setdefault(path[-1], type(part)()) if isinstance(place, dict) else place[path[-1]]
    place.update(part) if isinstance(part, dict) else place.extend(part)


class Channel:
    """The kernel's end: blocking, used by the main thread only."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._files: list[int] = []
        self._begun: dict[str, dict[str, Any]] = {}
        """What has come of long headers, by their types."""

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, header: dict[str, Any], payload: Sequence[Buffer] = ()) -> None:
        """Send one frame. Raises ChannelClosed when the keeper is gone."""
        views = [memoryview(part).cast("B") for part in payload if memoryview(part).nbytes]
        queue = [*(memoryview(frame) for frame in frames(header, sum(v.nbytes for v in views))), *views]
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
        """Receive one frame, with the parts of it that came before; the descriptor of its file, if it brings one, is
        its "file".

        Raises ChannelClosed at the end of the stream.
        """
        while True:
            header_bytes, payload_bytes = parse_prefix(bytes(self._read(PREFIX.size)), KEEPERS_HEADER_BYTES)
            header, payload = parse_header(self._read(header_bytes)), self._read(payload_bytes)
            if header["type"] != "part":
                break
            join(self._begun.setdefault(header["of"], {}), header["path"], header["value"])
        header |= self._begun.pop(header["type"], {})
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
