"""Talk to the keeper from Python: an MCP client over its unix socket, starting the keeper when needed.

When the keeper goes away, the client finds or starts the next one and repeats the requests that were in flight. The
next keeper answers them from its rows, so nothing runs twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import CallToolResult, ErrorData, JSONRPCError, JSONRPCRequest, jsonrpc_message_adapter

from kernelrepl import discovery, errors
from kernelrepl.discovery.link import KeeperLink
from kernelrepl.errors import KeeperUnavailable, KernelReplError, NoKeeper, ToolFailed

LINE_BYTES = 64 << 20
_GONE = -32000


class _Wire:
    """This class carries the requests of one client to a keeper, and to the next one when that keeper ends."""

    def __init__(self, which: str, *, start: bool, outputs: bool) -> None:
        self._which = which
        self._start = start
        self._hello: dict[str, Any] = {
            "client": "python" if outputs else "cli",
            "connection": secrets.token_hex(8),
            "outputs": outputs,
            "python": sys.executable,
            "settings": discovery.settings_of(os.environ),
        }
        self._link = KeeperLink()
        self._connected = False
        self._needed = asyncio.Event()
        """Set while a request is in flight."""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> None:
        """Find or start a keeper. Raises KeeperUnavailable."""
        hello = {**self._hello, "resumed": self._link.resumed()}
        looking = asyncio.get_running_loop().run_in_executor(None, self._find, hello)
        try:
            sock = await asyncio.shield(looking)
        except asyncio.CancelledError:
            looking.add_done_callback(_close_unwanted)
            raise
        self._reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=LINE_BYTES)
        self._connected = True
        for line in self._link.replay():
            self._writer.write(line)

    def _find(self, hello: dict[str, Any]) -> socket.socket:
        if self._start:
            return discovery.connect_or_start(os.environ, self._which, hello)[0]
        found = discovery.find(discovery.data_dir(os.environ), self._which, hello)
        if found is None:
            raise NoKeeper
        return found[0]

    async def receive(self) -> AsyncGenerator[SessionMessage, None]:
        """Yield messages from the keeper, until no keeper is left and none can be started."""
        while True:
            with contextlib.suppress(ConnectionError):
                while line := await self._reader.readline():
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                    identity = getattr(message, "id", None)
                    if identity is not None and not isinstance(message, JSONRPCRequest):
                        self._link.answered(identity)
                        self._note_need()
                    yield SessionMessage(message)
            self._connected = False
            self._writer.close()
            await self._needed.wait()  # nobody needs a keeper only because one has ended
            try:
                await self._again()
            except KernelReplError as error:
                for refused in self._refuse(str(error)):
                    yield refused
                return

    async def _again(self) -> None:
        if not self._start:
            raise KeeperUnavailable("the keeper has ended")
        self._link.attempt()
        await self.connect()

    def _refuse(self, reason: str) -> Iterator[SessionMessage]:
        for identity in self._link.give_up():
            error = ErrorData(code=_GONE, message=reason)
            yield SessionMessage(JSONRPCError(jsonrpc="2.0", id=identity, error=error))
        self._note_need()

    async def send(self, message: SessionMessage) -> None:
        """Send a message to the keeper, and remember a request until it is answered or cancelled."""
        content = message.message
        line = content.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        known = ("method", "params", "id")
        self._link.sent({name: getattr(content, name) for name in known if hasattr(content, name)}, line)
        self._note_need()
        if self._connected:
            # If the keeper is gone, reading tells so, and what is in flight is sent again.
            with contextlib.suppress(ConnectionError):
                self._writer.write(line)
                await self._writer.drain()

    def _note_need(self) -> None:
        if self._link.busy:
            self._needed.set()
        else:
            self._needed.clear()

    def close(self) -> None:
        self._writer.close()


def _close_unwanted(found: asyncio.Future[socket.socket]) -> None:
    if not found.cancelled() and found.exception() is None:
        found.result().close()


@asynccontextmanager
async def _transport(which: str, start: bool, outputs: bool) -> AsyncIterator[Any]:
    """Yield the two streams of a connection, as the SDK's client needs them."""
    wire = _Wire(which, start=start, outputs=outputs)
    await wire.connect()
    to_client, from_keeper = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    from_client, to_keeper = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        with contextlib.suppress(anyio.BrokenResourceError):
            async with to_client, contextlib.aclosing(wire.receive()) as messages:
                async for message in messages:
                    await to_client.send(message)

    async def write() -> None:
        async with to_keeper:
            async for message in to_keeper:
                await wire.send(message)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(write)
            yield from_keeper, from_client
            group.cancel_scope.cancel()
    finally:
        wire.close()


@asynccontextmanager
async def connect(*, operator: bool = False, start: bool = True, outputs: bool = False) -> AsyncIterator[Client]:
    """Yield an MCP client that is connected to the keeper.

    operator: whether to use the socket with the tools of the operator. start: whether to start a keeper if none runs.
    outputs: whether results carry their outputs in `_meta`, as a notebook stores them. Raises NoKeeper if none runs and
    none is to be started, else KeeperUnavailable.
    """
    which = discovery.OPERATOR if operator else discovery.AGENT
    async with _transport(which, start, outputs) as streams:

        @asynccontextmanager
        async def ready() -> AsyncIterator[Any]:
            yield streams

        async with Client(ready(), mode="2026-07-28") as client:
            yield client


async def call(client: Client, tool: str, **arguments: Any) -> CallToolResult:
    """Call a tool and return its result.

    Raises the KernelReplError that the tool raised, a ToolFailed with its text, or KeeperUnavailable.
    """
    try:
        result = await client.call_tool(tool, arguments)
    except MCPError as error:
        raise (KeeperUnavailable if error.code == _GONE else ToolFailed)(error.message) from error
    if result.is_error:
        known = errors.from_wire((result.meta or {}).get(errors.WIRE_KEY))
        text = "\n".join(block.text for block in result.content if block.type == "text")
        raise known or ToolFailed(text.removeprefix(f"Error executing tool {tool}: "))
    return result
