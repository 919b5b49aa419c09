"""The keeper's end of the channel. Everything that comes out of it is untrusted and bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
from collections.abc import Sequence
from typing import Any

from kernelrepl import bounded_json
from kernelrepl.guest import wire
from kernelrepl.kernel.meter import CHANNEL_LIMITS, Budget, FloodLimits, Meter, Verdict
from kernelrepl.model import Commit, NewComponent, Saved

_READ_AHEAD_BYTES = 4 << 20
_MAX_TEXT_CHARS = 2000
_MAX_DEPTH = 8
"""How deep a header may be nested. A commit has five levels; what is deeper could not be printed or compared."""
_LARGE = tuple(f'{{"type":"{kind}",'.encode() for kind in wire.LARGE)
"""How the longer headers begin: what a long one says is looked at before it is decoded."""
_FRAME_S, _BYTE_S, _ITEM_S, _ROW_S = 20e-6, 8e-9, 0.4e-6, 20e-6
"""About what a frame, a byte and a value of its header, and a row that it has written take of the keeper's time."""
_PART_BYTES = 1 << 20
_FRAMES_A_TURN = 64
_RETRY_S = 0.005


class HostChannel:
    """Frames over an asyncio stream."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        sock: socket.socket,
        limits: FloodLimits = CHANNEL_LIMITS,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._sock = sock
        writer.transport.set_write_buffer_limits(0)  # what has been sent is in the socket
        self._meter = Meter(limits)
        self._budget = Budget()
        self.hurry = asyncio.Event()
        """Set when the kernel has ended: what it has sent until then is read without a pause."""
        self._frames = 0

    @classmethod
    async def open(cls, sock: socket.socket, limits: FloodLimits = CHANNEL_LIMITS) -> HostChannel:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_READ_AHEAD_BYTES)
        return cls(reader, writer, sock, limits)

    async def recv(self) -> tuple[dict[str, Any], bytes]:
        """The next frame.

        Raises wire.ChannelClosed at the end, wire.WireError for what is no frame and for far too many of them.
        """
        self._frames += 1
        if self._frames % _FRAMES_A_TURN == 0:
            await asyncio.sleep(0)  # reading what is there already gives no turn to others
        now = asyncio.get_running_loop().time()
        if delay := self._budget.delay(now):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.hurry.wait(), delay)
        try:
            prefix = await self._reader.readexactly(wire.PREFIX.size)
            header_bytes, payload_bytes = wire.parse_prefix(prefix)
            # Only headers are parsed; the sum of the payloads is a matter of the store's limits.
            if self._meter.count(header_bytes, now) is Verdict.KILL:
                raise wire.WireError("the kernel floods the channel")
            header, items = _bounded_header(await self._read(header_bytes))
            self._budget.spend(_FRAME_S + header_bytes * _BYTE_S + items * _ITEM_S)
            return header, await self._read(payload_bytes) if payload_bytes else b""
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise wire.ChannelClosed("the kernel closed the channel") from error

    async def _read(self, size: int) -> bytes:
        """As it comes: what is only announced takes no room."""
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
        self._budget.spend((rows + len(commit.closed)) * _ROW_S + runs * _ITEM_S + len(commit.outputs) * _BYTE_S)

    async def send(self, header: dict[str, Any], payload: Sequence[bytes] = ()) -> None:
        self._writer.write(wire.encode(header, sum(len(part) for part in payload)))
        for part in payload:
            self._writer.write(part)
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise wire.ChannelClosed("the kernel closed the channel") from error

    async def send_file(self, header: dict[str, Any], file: int) -> None:
        """Send a frame without payload that brings a file with it."""
        frame = wire.encode({**header, "file": True}, 0)
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


def _bounded_header(body: bytes) -> tuple[dict[str, Any], int]:
    """A header, and about how many values are in it. What is too much is refused before it is decoded."""
    if len(body) > wire.SMALL_HEADER_BYTES and not body.startswith(_LARGE):
        raise wire.WireError(f"a header of {len(body)} bytes in a frame that needs none so long")
    try:
        items = bounded_json.check(body, items=wire.MAX_HEADER_ITEMS, depth=_MAX_DEPTH)
        header = wire.parse_header(body)
    except bounded_json.TooMuch as error:
        raise wire.WireError(f"frame header: {error}") from error
    if len(body) > wire.SMALL_HEADER_BYTES and header["type"] not in wire.LARGE:
        raise wire.WireError("a long header in a frame that needs none")
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


def parse_commit(header: dict[str, Any], payload: bytes, python: str, packages: str = "{}") -> Commit:
    """A commit frame as a value. Raises wire.WireError for anything that is not of its form."""
    try:
        return _parse_commit(header, payload, python, packages)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise wire.WireError(f"malformed commit: {type(error).__name__}: {error}") from error


def _parse_commit(header: dict[str, Any], payload: bytes, python: str, packages: str) -> Commit:
    at = _count(header["outputs_bytes"])
    if at > min(len(payload), wire.MAX_OUTPUTS_BYTES):
        raise ValueError("outputs that are not there, or too many of them")
    components = _components(header["components"], payload, at)
    outcome = header["outcome"]
    if outcome is not None:
        outcome = {
            "status": "error" if outcome["status"] == "error" else "ok",
            "execution_count": _count(outcome["execution_count"]),
            "duration_s": _seconds(outcome["duration_s"]),
            "error": _pair(outcome["error"]) if outcome["error"] else None,
        }
    names, unsaved = _bounded(header["names"]), _bounded(header["unsaved"])
    if not names.keys().isdisjoint(unsaved):
        raise ValueError("a name that is saved and not saved")
    deleted = tuple(_name(name) for name in _bounded(header["deleted"]))
    told = {"created": names, "changed": names, "deleted": frozenset(deleted)}
    commit = Commit(
        cause=_text(header["cause"]),
        request=_text(header["request"]),
        names={_name(name): (_count(root), _text(kind), _count(size)) for name, (root, kind, size, _) in names.items()},
        unsaved={
            _name(name): (_text(kind), _text(path), _text(reason)) for name, (kind, path, reason, _) in unsaved.items()
        },
        summaries={_name(name): _text(entry[3]) for entries in (names, unsaved) for name, entry in entries.items()},
        deleted=deleted,
        components=components,
        closed=tuple(_count(key) for key in _bounded(header["closed"], wire.MAX_COMPONENTS)),
        magic=_text(header["magic"]),
        python=_text(python),
        # A name that the commit does not speak of has not changed, whatever is told.
        saved=Saved(
            *(
                tuple(name for name in dict.fromkeys(_bounded(header["saved"][key])) if name in known)
                for key, known in told.items()
            )
        ),
        packages=packages,
        outcome=outcome,
        outputs=_outputs(payload[:at]),
        missed=_count(header.get("missed", 0)),
        failure=None if header.get("failure") is None else _text(header["failure"]),
    )
    if len(names) + len(unsaved) > wire.MAX_NAMES or _chars(commit) > wire.MAX_TEXT_CHARS:
        raise ValueError("more names, or more about them, than a session may have")
    return commit


def _components(entries: Any, payload: bytes, at: int) -> tuple[NewComponent, ...]:
    """Whose bytes begin at a place in the payload. Nothing is made in proportion to a length that is only said."""
    components = []
    held: set[int] = set()
    chunks = runs_in_all = 0
    keys: set[int] = set()
    for index, entry in enumerate(_bounded(entries, wire.MAX_COMPONENTS)):
        segments = tuple(_count(size) for size in _bounded(entry["segments"], wire.MAX_CHUNKS))
        _count(sum(segments))
        cuts = wire.Cuts(segments)
        chunks += cuts.count
        if chunks > wire.MAX_CHUNKS:
            raise ValueError(f"more than {wire.MAX_CHUNKS} chunks")
        runs = None
        if entry.get("runs") is not None:
            runs = tuple(_run(*run) for run in _bounded(entry["runs"], wire.MAX_RUNS))
            runs_in_all += len(runs)
            keys.update(key for key, _, _ in runs)
        if runs_in_all > wire.MAX_RUNS or len(keys) > wire.MAX_RUN_KEYS + 1:
            raise ValueError("too many runs")
        size = cuts.new_bytes(runs)
        data = None
        if not entry.get("staged"):
            data = payload[at : at + size]
            if len(data) != size:
                raise ValueError("payload shorter than its components")
            at += size
        roots = tuple(_count(root) for root in entry["roots"])
        if not held.isdisjoint(roots) or len(set(roots)) < len(roots):
            raise ValueError("a root in two places")
        held.update(roots)
        if not roots or not segments:
            raise ValueError("a component without roots or segments")
        references = tuple(_count(root) for root in entry["references"])
        components.append(
            NewComponent(index, roots, references, segments, bool(entry["code"]), data, bool(entry["inert"]), runs)
        )
    return tuple(components)


def _outputs(recorded: bytes) -> str:
    """Recorded outputs, as they came: counted, not decoded. What holds too much is left out, and that is said."""
    if not recorded:
        return "[]"
    try:
        bounded_json.check(recorded)
    except bounded_json.TooMuch as error:
        text = f"[… the outputs were left out: {error} …]\n"
        return json.dumps([{"type": "stream", "content": {"name": "stderr", "text": text}}])
    return recorded.decode()


def _chars(commit: Commit) -> int:
    """How many characters are in the names of a commit, and in what it says about them."""
    texts = sum(map(len, (*commit.names, *commit.unsaved, *commit.deleted, *commit.summaries.values())))
    texts += sum(len(kind) for _, kind, _ in commit.names.values())
    return texts + sum(len(text) for entry in commit.unsaved.values() for text in entry)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"not a count: {value!r:.40}")
    return value


def _run(key: Any, start: Any, count: Any) -> wire.Run:
    return (-1 if key == -1 else _count(key)), _count(start), _count(count)


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"not a duration: {value!r:.40}")
    return seconds


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > wire.MAX_NAME_CHARS:
        raise ValueError("not a name")
    value.encode()  # a lone surrogate could not be stored
    return value


def _pair(value: Any) -> list[str]:
    first, second = value
    return [_text(first), _text(second)]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value[:_MAX_TEXT_CHARS].encode(errors="replace").decode()


def _bounded(value: Any, most: int = wire.MAX_NAMES) -> Any:
    if len(value) > most:
        raise ValueError("too many entries")
    return value
