"""MCP's newline framing over a stream of the keeper, in the form the SDK's stdio transport takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from kernelrepl.keeper import Connection


class LineReader:
    """The lines of a stream as text, for the SDK's framing."""

    def __init__(self, reader: asyncio.StreamReader, connection: Connection) -> None:
        self._reader = reader
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            try:
                line = await self._reader.readline()
            except (ValueError, ConnectionError):
                line = b""  # a line over the limit, or a client that went away
            if not line:
                # A client that leaves has not cancelled anything: executions go on without it.
                self._connection.gone = True
                return
            yield line.decode(errors="replace")


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
