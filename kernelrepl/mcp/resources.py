"""What of an execution a client fetches by its address: texts in full length, and figures as the code showed them."""

from __future__ import annotations

import base64
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from kernelrepl.keeper.keeper import Keeper
from kernelrepl.mcp.results import FIGURE_URI, OUTPUT_URI
from kernelrepl.model import Output
from kernelrepl.outputs import beside, transcript
from kernelrepl.sessions.results import DAMAGED

_STREAMS = ("stdout", "stderr", "result")


class Outputs:
    """The outputs of executions that are stored."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def register(self, server: MCPServer[Any]) -> None:
        about = "the whole output of an execution"
        server.resource(OUTPUT_URI, name="output", description=about, mime_type="text/plain")(self.text)
        for kind in ("png", "jpeg"):
            uri = FIGURE_URI.format(request_id="{request_id}", number="{number}", kind=kind)
            about = "a figure of an execution, in its own size"
            server.resource(uri, name=f"figure as {kind}", description=about, mime_type=f"image/{kind}")(self.figure)

    async def text(self, request_id: str, stream: str) -> str:
        """The whole of stdout, stderr or result of an execution."""
        output = await self._load(request_id)
        if output is None or stream not in _STREAMS:
            raise ResourceNotFoundError("there is no such output; it may have been deleted with its session")
        return str(getattr(output, stream) or "")

    async def figure(self, request_id: str, number: str) -> bytes:
        """A figure of an execution, counted from 1."""
        output = await self._load(request_id)
        if output is None or number not in map(str, range(1, len(output.figures) + 1)):
            raise ResourceNotFoundError("there is no such figure; it may have been deleted with its session")
        return base64.b64decode(output.figures[int(number) - 1].data)

    async def _load(self, request_id: str) -> Output | None:
        row = await self._keeper.manager.services.store.execution(request_id)
        if row is not None and row.damaged:
            raise ResourceError(DAMAGED)
        return None if row is None else await beside.large(len(row.outputs), transcript.load, row.outputs)
