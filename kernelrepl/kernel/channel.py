"""The keeper's end of the channel. Everything that comes out of it is untrusted and bounded."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Sequence
from typing import Any

from kernelrepl.guest import wire
from kernelrepl.kernel.meter import CHANNEL_LIMITS, FloodLimits, Meter, Verdict
from kernelrepl.model import Commit, NewComponent, Saved

_READ_AHEAD_BYTES = 4 << 20
_MAX_NAME_CHARS = 100_000
_MAX_TEXT_CHARS = 2000
_MAX_ENTRIES = 200_000
_MAX_DEPTH = 8
"""How deep a header may be nested. A commit has five levels; what is deeper could not be printed or compared."""
_MAX_CONTAINERS = 2_000_000
"""How many lists and objects a header may hold: each takes many times its length in memory."""
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
        try:
            prefix = await self._reader.readexactly(wire.PREFIX.size)
            header_bytes, payload_bytes = wire.parse_prefix(prefix)
            # Only headers are parsed; the sum of the payloads is a matter of the store's limits.
            if self._meter.count(header_bytes, asyncio.get_running_loop().time()) is Verdict.KILL:
                raise wire.WireError("the kernel floods the channel")
            header = _bounded_header(await self._reader.readexactly(header_bytes))
            return header, await self._reader.readexactly(payload_bytes) if payload_bytes else b""
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise wire.ChannelClosed("the kernel closed the channel") from error

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


def _bounded_header(body: bytes) -> dict[str, Any]:
    if body.count(b"[") + body.count(b"{") > _MAX_CONTAINERS:
        raise wire.WireError("frame header holds too much")
    header = wire.parse_header(body)
    level: list[Any] = [header]
    for _ in range(_MAX_DEPTH):
        level = [
            value
            for container in level
            for value in (container.values() if isinstance(container, dict) else container)
            if isinstance(value, dict | list)
        ]
        if not level:
            return header
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
    outputs = payload[:at].decode() or "[]"
    components = []
    held: set[int] = set()
    for index, entry in enumerate(_bounded(header["components"])):
        segments = tuple(_count(size) for size in entry["segments"])
        _count(sum(segments))
        runs = None if entry.get("runs") is None else tuple(_run(*run) for run in _bounded(entry["runs"]))
        size = sum(wire.new_lengths(segments, runs))
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
    saved = header["saved"]
    return Commit(
        cause=_text(header["cause"]),
        request=_text(header["request"]),
        names={_name(name): (_count(root), _text(kind), _count(size)) for name, (root, kind, size, _) in names.items()},
        unsaved={
            _name(name): (_text(kind), _text(path), _text(reason)) for name, (kind, path, reason, _) in unsaved.items()
        },
        summaries={_name(name): _text(entry[3]) for entries in (names, unsaved) for name, entry in entries.items()},
        deleted=tuple(_name(name) for name in _bounded(header["deleted"])),
        components=tuple(components),
        closed=tuple(_count(key) for key in _bounded(header["closed"])),
        magic=_text(header["magic"]),
        python=_text(python),
        saved=Saved(*(tuple(_name(name) for name in saved[key]) for key in ("created", "changed", "deleted"))),
        packages=packages,
        outcome=outcome,
        outputs=outputs,
        missed=_count(header.get("missed", 0)),
        failure=None if header.get("failure") is None else _text(header["failure"]),
    )


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
    if not isinstance(value, str) or len(value) > _MAX_NAME_CHARS:
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


def _bounded(value: Any) -> Any:
    if len(value) > _MAX_ENTRIES:
        raise ValueError("too many entries")
    return value
