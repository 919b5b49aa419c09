"""MCP's newline framing over a stream of the keeper, in the form the SDK's stdio transport takes.

The SDK drops what it cannot read without a word, and whoever sent it would wait for ever: it is answered here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from mcp_types import (
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from kernelrepl.keeper.connection import Connection

_INVALID_REQUEST = -32600
_INVALID_PARAMS = -32602


class LineReader:
    """The lines of a stream as text, for the SDK's framing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            try:
                line = await self._reader.readline()
            except (ValueError, ConnectionError):
                line = b""  # a line over the limit, or a client that went away
            if not line:
                return
            text = line.decode(errors="replace")
            try:
                message = jsonrpc_message_adapter.validate_json(text, by_name=False)
            except ValidationError as error:
                [problem, *_] = error.errors(include_url=False, include_input=False)
                reason = f"not a message that can be read: {problem['msg']}"
                self._answer(_error(_id_of(text), _INVALID_REQUEST, reason))
                continue
            if (refusal := _refusal(message)) is not None:
                self._answer(refusal)
                continue
            if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
                # What the SDK then does looks the same as when the client leaves, and that cancels nothing.
                self._connection.cancelled.append(str((message.params or {}).get("requestId")))
            yield text

    def _answer(self, error: JSONRPCError) -> None:
        self._writer.write(error.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")


def _refusal(message: JSONRPCMessage) -> JSONRPCError | None:
    """The answer to a message that the SDK would not answer; None if it would."""
    if isinstance(message, JSONRPCRequest) and message.method == "tools/call":
        params = message.params or {}
        if not isinstance(params.get("arguments"), dict | None):
            return _error(message.id, _INVALID_PARAMS, '"arguments" must be an object')
        if not isinstance(params.get("name"), str):
            return _error(message.id, _INVALID_PARAMS, '"name" must be the name of a tool')
    return None


def _id_of(line: str) -> str | int | None:
    """The id of a request that the SDK cannot read, if this reader can."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    identity = message.get("id") if isinstance(message, dict) and "method" in message else None
    return identity if type(identity) in (str, int) else None


def _error(identity: str | int | None, code: int, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=identity, error=ErrorData(code=code, message=message))


class LineWriter:
    """The other direction."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def write(self, text: str) -> None:
        self._writer.write(text.encode())

    async def flush(self) -> None:
        try:
            await self._writer.drain()
        except ConnectionError:
            return  # nobody reads any more; the end of the input ends the connection
