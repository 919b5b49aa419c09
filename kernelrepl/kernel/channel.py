"""The keeper's end of the channel. Everything that comes out of it is untrusted and bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from kernelrepl.guest import wire
from kernelrepl.model import Commit, NewComponent, Saved

_READ_AHEAD_BYTES = 4 << 20
_MAX_NAME_CHARS = 100_000
_MAX_TEXT_CHARS = 2000
_MAX_ENTRIES = 200_000


class HostChannel:
    """Frames over an asyncio stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> HostChannel:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_READ_AHEAD_BYTES)
        return cls(reader, writer)

    async def recv(self) -> tuple[dict[str, Any], bytes]:
        """The next frame. Raises wire.ChannelClosed at the end, wire.WireError for what is no frame."""
        try:
            prefix = await self._reader.readexactly(wire.PREFIX.size)
            header_bytes, payload_bytes = wire.parse_prefix(prefix)
            header = wire.parse_header(await self._reader.readexactly(header_bytes))
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

    def close(self) -> None:
        self._writer.close()


def parse_commit(header: dict[str, Any], payload: bytes, python: str) -> Commit:
    """A commit frame as a value. Raises wire.WireError for anything that is not of its form."""
    try:
        return _parse_commit(header, payload, python)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise wire.WireError(f"malformed commit: {type(error).__name__}: {error}") from error


def _parse_commit(header: dict[str, Any], payload: bytes, python: str) -> Commit:
    at = _count(header["outputs_bytes"])
    outputs = payload[:at].decode() or "[]"
    components = []
    for index, entry in enumerate(_bounded(header["components"])):
        segments = tuple(_count(size) for size in entry["segments"])
        size = _count(sum(segments))
        data = None
        if not entry.get("staged"):
            data = payload[at : at + size]
            if len(data) != size:
                raise ValueError("payload shorter than its components")
            at += size
        roots = tuple(_count(root) for root in entry["roots"])
        if not roots or not segments:
            raise ValueError("a component without roots or segments")
        references = tuple(_count(root) for root in entry["references"])
        components.append(NewComponent(index, roots, references, segments, bool(entry["code"]), data))
    outcome = header["outcome"]
    if outcome is not None:
        outcome = {
            "status": "error" if outcome["status"] == "error" else "ok",
            "execution_count": _count(outcome["execution_count"]),
            "duration_s": float(outcome["duration_s"]),
            "error": _pair(outcome["error"]) if outcome["error"] else None,
        }
    saved = header["saved"]
    return Commit(
        cause=_text(header["cause"]),
        request=_text(header["request"]),
        names={
            _name(name): (_count(root), _text(kind), _count(size))
            for name, (root, kind, size, _) in _bounded(header["names"]).items()
        },
        unsaved={
            _name(name): (_text(kind), _text(path), _text(reason))
            for name, (kind, path, reason, _) in _bounded(header["unsaved"]).items()
        },
        summaries={
            _name(name): _text(entry[3]) for field in ("names", "unsaved") for name, entry in header[field].items()
        },
        deleted=tuple(_name(name) for name in _bounded(header["deleted"])),
        components=tuple(components),
        closed=tuple(_count(key) for key in _bounded(header["closed"])),
        magic=_text(header["magic"]),
        python=python,
        saved=Saved(*(tuple(_name(name) for name in saved[key]) for key in ("created", "changed", "deleted"))),
        outcome=outcome,
        outputs=outputs,
        failure=None if header.get("failure") is None else _text(header["failure"]),
    )


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"not a count: {value!r:.40}")
    return value


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
