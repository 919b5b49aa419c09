"""Wait in a call until code has ended, and ask the person at the host if the code waits for that.

Since 2026-07-28 a call returns with the question, and the host calls again with the answer. Before, the server sends
the host a request of its own while the call waits.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import (
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    ProgressNotification,
    ProgressNotificationParams,
)
from mcp_types.version import is_version_at_least
from pydantic import BaseModel

from kernelrepl.mcp.results import PIECES_KEY
from kernelrepl.outputs import pieces
from kernelrepl.sessions.handle import ExecutionHandle

FIRST_PROGRESS_S = 1.0
PROGRESS_S = 5.0
LIVE_S = 0.1
"""How often who shows outputs as they come gets them."""
_IN_RESULTS = "2026-07-28"
_KEY = "person"
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
"""The form of a question: nothing is to be filled in, and to accept is to agree."""


class Agreement(BaseModel):
    """What a person fills in: nothing, as to accept is to agree."""


def can_ask(ctx: Context[Any, Any]) -> bool:
    """Return whether the host of a call says that it can ask its person."""
    capabilities = ctx.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def returns_questions(ctx: Context[Any, Any]) -> bool:
    """Return whether a call of this host returns with a question, instead of waiting for the answer."""
    return is_version_at_least(ctx.request_context.protocol_version, _IN_RESULTS)


def question_of(ctx: Context[Any, Any], handle: ExecutionHandle) -> InputRequiredResult | None:
    """Return the result of a call that returns with a question; None for any other."""
    question = handle.question
    if question is None or not (can_ask(ctx) and returns_questions(ctx)):
        return None
    params = ElicitRequestFormParams(message=question.text, requested_schema=_NOTHING)
    state = json.dumps({"request": handle.execution.request_id})
    return InputRequiredResult(input_requests={_KEY: ElicitRequest(params=params)}, request_state=state)


def has_answer(ctx: Context[Any, Any]) -> bool:
    """Return whether a call is the second one of a host, with the answer to a question."""
    return ctx.request_state is not None


async def take_answer(ctx: Context[Any, Any], handle: ExecutionHandle) -> None:
    """Give an execution the answer that a call brings, if it is the one that waits for it."""
    if ctx.request_state is None or handle.question is None:
        return
    if json.loads(ctx.request_state)["request"] != handle.execution.request_id:  # the SDK has sealed it
        return
    given = (ctx.input_responses or {}).get(_KEY)
    handle.question.decide(isinstance(given, ElicitResult) and given.action == "accept")
    await asyncio.sleep(0)  # the question is gone then


async def wait_for(
    ctx: Context[Any, Any], handle: ExecutionHandle, wait_s: float | None, *, live: bool = False
) -> None:
    """Wait until an execution is over or `wait_s` has passed, and report from time to time that it goes on.

    Return earlier with a question for the person, if the host takes one from a result. live: report all that it shows.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    pause, asks = LIVE_S if live else FIRST_PROGRESS_S, can_ask(ctx)
    shown = 0
    while True:
        left = None if wait_s is None else began + wait_s - loop.time()
        if left is not None and left <= 0:
            # Even a wait of 0 lets a result through that is there already.
            await asyncio.sleep(0)
            return
        if await handle.wait(pause if left is None else min(pause, left), or_question=asks):
            return
        if asks and handle.question is not None:
            if returns_questions(ctx):
                return
            await _ask(ctx, handle)
            continue
        if live:
            shown = await show(ctx, handle, shown)
            continue
        await ctx.report_progress(round(loop.time() - began, 1), message=handle.last_line or "running")
        pause = PROGRESS_S


async def show(ctx: Context[Any, Any], handle: ExecutionHandle, shown: int) -> int:
    """Report what an execution has shown since its message number `shown`, and return how many there are now."""
    messages = handle.execution.live.since(shown)
    token = (ctx.request_context.meta or {}).get("progress_token")
    if messages and token is not None:
        found = await asyncio.to_thread(pieces.pieces, messages)
        params = ProgressNotificationParams(
            progress_token=token, progress=shown + len(messages), _meta={PIECES_KEY: found}
        )
        await ctx.session.send_notification(ProgressNotification(params=params), str(ctx.request_context.request_id))
    return shown + len(messages)


async def _ask(ctx: Context[Any, Any], handle: ExecutionHandle) -> None:
    """Ask by a request of the server, and give the execution its answer. It may end meanwhile."""
    question = handle.question
    assert question is not None
    asked = asyncio.ensure_future(ctx.elicit(question.text, Agreement))
    began = asyncio.get_running_loop().time()
    try:
        while not asked.done() and not handle.is_done:
            either: set[asyncio.Future[Any]] = {asked, handle.execution.result}
            await asyncio.wait(either, timeout=PROGRESS_S, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                await ctx.report_progress(round(asyncio.get_running_loop().time() - began, 1), message=question.text)
        if asked.done():
            try:
                question.decide(asked.result().action == "accept")
            except MCPError:
                question.decide(None)  # the host cannot ask after all
            await asyncio.sleep(0)
    finally:
        asked.cancel()
