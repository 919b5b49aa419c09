"""The tools that only the person has who runs the keeper: on a socket of their own, and never for an agent."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult

from kernelrepl import __version__
from kernelrepl.errors import KernelReplError
from kernelrepl.keeper import Keeper
from kernelrepl.mcp_arguments import answer
from kernelrepl.mcp_results import HistoryResult, KeeperStatus, cells_of

STOP_DELAY_S = 0.2
"""Between the answer to a stop and the stop, so that the answer arrives."""

HISTORY_BYTES = 8 << 20


class OperatorTools:
    """What the command line asks a keeper for."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def keeper_status(self) -> Annotated[CallToolResult, KeeperStatus]:
        """What the keeper does: sessions, kernels, connections."""
        manager = self._keeper.manager
        try:
            count = await manager.count_sessions()
        except KernelReplError as error:
            raise ToolError(str(error)) from error
        status = KeeperStatus(
            pid=os.getpid(),
            version=__version__,
            data_dir=str(self._keeper.data_dir),
            runtime_dir=str(self._keeper.runtime_dir),
            sessions=count,
            kernels=manager.kernels(),
            connections=self._keeper.connections,
            sandbox=manager.sandbox,
            metrics=self._keeper.metrics.dump(),
        )
        return answer(status, status.model_dump_json(indent=2))

    async def keeper_workspace(self, session_id: str) -> str:
        """Where the files of a session are."""
        try:
            return str(await self._keeper.manager.workspace(session_id))
        except KernelReplError as error:
            raise ToolError(str(error)) from error

    async def keeper_history(self, session_id: str, cursor: int = 0) -> Annotated[CallToolResult, HistoryResult]:
        """What has run in a session, as cells of a notebook, a part at a time."""
        try:
            rows = await self._keeper.manager.history(session_id, cursor, HISTORY_BYTES)
        except KernelReplError as error:
            raise ToolError(str(error)) from error
        cells = await asyncio.to_thread(cells_of, rows)
        found = HistoryResult(cells=cells, next_cursor=rows[-1].id if rows else None)
        return answer(found, f"{len(cells)} executions of {session_id!r}")

    async def keeper_grant(self, session_id: str, read: list[str], write: list[str], revoke: list[str]) -> str:
        """Change what a session may reach beside its workspace."""
        try:
            access, later = await self._keeper.manager.grant(session_id, read, write, revoke)
        except KernelReplError as error:
            raise ToolError(str(error)) from error
        lines = [f"{kind} {path}" for kind, paths in (("read", access.read), ("write", access.write)) for path in paths]
        if later:
            lines.append("its kernel, at work or with names that are not saved, goes on as it is; the next one has it")
        return "\n".join(lines or [f"session {session_id!r} reaches nothing beside its workspace"])

    async def keeper_stop(self) -> str:
        """Stop the keeper. Sessions stay; the next call starts a new one."""
        asyncio.get_running_loop().call_later(STOP_DELAY_S, self._keeper.stopping.set)
        return "the keeper stops; sessions stay"
