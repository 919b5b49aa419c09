"""Talk to the keeper from Python: an MCP client over its unix socket, starting the keeper when needed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp.client.client import Client
from mcp.shared.message import SessionMessage
from mcp_types import CallToolResult, jsonrpc_message_adapter

from kernelrepl import rendezvous
from kernelrepl.errors import KeeperUnavailable, KernelReplError

LINE_BYTES = 64 << 20


class ToolFailed(KernelReplError):
    """A tool refused; the text is the reason and the remedy."""


@asynccontextmanager
async def _transport(which: str, start: bool) -> AsyncIterator[Any]:
    """The streams of a connection, as the SDK's client wants them."""
    hello = {
        "client": "cli",
        "connection": secrets.token_hex(8),
        "settings": {key: value for key, value in os.environ.items() if key.startswith(rendezvous.PREFIX)},
    }
    if start:
        sock, _ = await asyncio.to_thread(rendezvous.connect_or_start, os.environ, which, hello)
    else:
        found = await asyncio.to_thread(rendezvous.connect, rendezvous.data_dir(os.environ), which, hello)
        if found is None:
            raise KeeperUnavailable("no keeper is running; the next call starts one")
        sock, _ = found
    reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LINE_BYTES)
    to_client, from_keeper = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    from_client, to_keeper = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        # The keeper going away ends the stream; the client turns that into an error of the call in flight.
        with contextlib.suppress(ConnectionError, anyio.BrokenResourceError):
            async with to_client:
                while line := await reader.readline():
                    await to_client.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))

    async def write() -> None:
        with contextlib.suppress(ConnectionError):
            async with to_keeper:
                async for message in to_keeper:
                    writer.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                    await writer.drain()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(write)
            yield from_keeper, from_client
            group.cancel_scope.cancel()
    finally:
        writer.close()


@asynccontextmanager
async def connect(*, operator: bool = False, start: bool = True) -> AsyncIterator[Client]:
    """An MCP client of the keeper. Raises KeeperUnavailable."""
    which = rendezvous.OPERATOR if operator else rendezvous.AGENT
    async with _transport(which, start) as streams:

        @asynccontextmanager
        async def ready() -> AsyncIterator[Any]:
            yield streams

        async with Client(ready(), mode="2026-07-28") as client:
            yield client


async def call(client: Client, tool: str, **arguments: Any) -> CallToolResult:
    """Call a tool. Raises ToolFailed with the tool's own words."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        text = "\n".join(block.text for block in result.content if block.type == "text")
        raise ToolFailed(text.removeprefix(f"Error executing tool {tool}: "))
    return result


def write_figures(result: Any, directory: Path, stem: str) -> list[Path]:
    """Write the images of a result as files; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, block in enumerate((b for b in result.content if b.type == "image"), 1):
        path = directory / f"{stem}-{number}.{block.mime_type.split('/')[1]}"
        path.write_bytes(base64.b64decode(block.data))
        paths.append(path)
    return paths
