"""Follow what runs in a session, whoever runs it: one execution a call, shown as it goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ProgressNotification, ProgressNotificationParams

from kernelrepl.mcp import waiting
from kernelrepl.mcp.arguments import answer
from kernelrepl.mcp.log import WatchResult, log_entry
from kernelrepl.mcp.results import PIECES_KEY, REMARKS_KEY
from kernelrepl.model import ExecutionResult, Output
from kernelrepl.outputs import beside, pieces, remarks
from kernelrepl.sessions import results
from kernelrepl.sessions.handle import ExecutionHandle
from kernelrepl.sessions.manager import Manager

if TYPE_CHECKING:
    from kernelrepl.store.reading import ExecutionRow

EXECUTION_KEY = "kernelrepl/execution"
"""Where a progress message tells which execution has begun."""
LOOK_S = 0.25
"""How often the database is asked for the next one."""


async def follow(ctx: Context[Any, Any], manager: Manager, session_id: str, after: int | None) -> CallToolResult:
    """Return the execution behind the one with the number `after` when it is over; see `keeper_watch`."""
    if after is None:
        latest, _ = await manager.latest_executions(session_id, 1)
        ran = [row for row in latest if row.status != "started"]
        after = ran[-1].id if ran else 0 if not latest else latest[-1].id - 1
    while True:
        rows = await manager.history(session_id, after, 1)
        if rows:
            return await _follow(ctx, manager, session_id, rows[0])
        await asyncio.sleep(LOOK_S)


async def _follow(ctx: Context[Any, Any], manager: Manager, session_id: str, row: ExecutionRow) -> CallToolResult:
    session = manager.loaded().get(session_id)
    execution = None if session is None else session.unfinished.get(row.request_id)
    if execution is not None:
        await _tell(ctx, row)
        await waiting.wait_for(ctx, ExecutionHandle(execution, session), None, live=True)
    found = await manager.services.store.execution(row.request_id)
    if found is None:  # it was deleted with its session
        found = row
    return await beside.large(len(found.outputs), _reply, session_id, found, manager.sandbox)


def _reply(session_id: str, row: ExecutionRow, sandbox: str) -> CallToolResult:
    result = results.from_row(session_id, row, sandbox, lost_reply=False)
    reply = answer(WatchResult(execution=log_entry(row), number=row.id), f"{row.status}: {row.code[:200]}")
    reply.meta = {PIECES_KEY: pieces.pieces(result.output.cells), REMARKS_KEY: remarks.remarks(result)}
    return reply


async def outcome(ctx: Context[Any, Any], manager: Manager, session_id: str, request_id: str) -> ExecutionResult:
    """Return what one execution has come to, when it has ended. One that nothing is known of has never begun."""
    session = manager.loaded().get(session_id)
    execution = None if session is None else session.unfinished.get(request_id)
    if execution is not None:
        handle = ExecutionHandle(execution, session)
        await waiting.wait_for(ctx, handle, None, live=True)
        return handle.result()
    row = await manager.services.store.execution(request_id)
    if row is None:
        note = "it had not started; nothing ran"
        return ExecutionResult(session_id, "interrupted", Output(), sandbox=manager.sandbox, note=note)
    return await beside.large(len(row.outputs), results.from_row, session_id, row, manager.sandbox, False)


async def _tell(ctx: Context[Any, Any], row: ExecutionRow) -> None:
    """Report that it has begun."""
    token = (ctx.request_context.meta or {}).get("progress_token")
    if token is not None:
        about = log_entry(row).model_dump(mode="json")
        params = ProgressNotificationParams(progress_token=token, progress=0, _meta={EXECUTION_KEY: about})
        await ctx.session.send_notification(ProgressNotification(params=params), str(ctx.request_context.request_id))
