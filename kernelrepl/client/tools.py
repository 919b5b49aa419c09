"""The tools as async Python functions, for scripts and notebooks.

They call the same keeper as every MCP host of yours, and start it if none runs. Each event loop has one connection,
which ends with the loop. Every function raises KeeperUnavailable if no keeper can be reached or started.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from mcp.client.client import Client

from kernelrepl.client import connection as client
from kernelrepl.client.result import Result, images
from kernelrepl.errors import KeeperUnavailable

LONGEST_WAIT_S = 7 * 24 * 3600.0
"""How long a call without `wait` waits at most."""


async def python_repl(
    code: str,
    session_id: str | None = None,
    *,
    wait: float | None = None,
    timeout: float | None = None,
    reset: bool = False,
) -> Result:
    """Run Python code in a session and return its outcome.

    code: Python as IPython takes it, with magics and top-level await. session_id: the name under which the state is
    kept; without one, the code runs in a fresh kernel that is thrown away. wait: seconds after which the call returns
    with status "running" and `python_wait` collects the outcome; None: the call returns when the code has ended.
    timeout: seconds after which the code is interrupted; None: never. reset: whether to remove the variables of the
    session first.

    The result has the fields of the tool of this name: `status` ("ok", "error", "timeout", "interrupted", "running"
    or "crashed"), `stdout`, `stderr` and `result` (texts), `error` (`name`, `message`, `traceback`, or None), `saved`
    (lists of names: `created`, `changed`, `deleted`), `not_saved` and `restored`, `committed` (whether the state is
    stored), `files` (what was written in the working directory: `path`, `size_bytes` and `by`), `duration_s` and more.
    Code that fails is a result with status "error". Cancelling the call interrupts the code. Raises a KernelReplError:
    InvalidSessionId, InvalidArgument, KernelStartFailed, SandboxUnavailable, SandboxTooWeak, StorageFailed,
    SessionDeleted or KeeperUnavailable.
    """
    arguments: dict[str, Any] = {"code": code, "timeout": timeout, "reset": reset}
    if session_id is not None:
        arguments["session_id"] = session_id
    return await _call("python_repl", wait=LONGEST_WAIT_S if wait is None else wait, **arguments)


async def python_wait(session_id: str, wait: float | None = None) -> Result:
    """Wait for the code that runs in a session and return its outcome, as `python_repl` would.

    wait: seconds after which the call returns with status "running"; None: the call returns when the code has ended.
    If nothing runs, the outcome of the last execution is returned. Raises UnknownSession, NothingRunning if nothing has
    ever run, and the errors of `python_repl`.
    """
    return await _call("python_wait", session_id=session_id, wait=LONGEST_WAIT_S if wait is None else wait)


async def python_interrupt(session_id: str, *, force: bool = False) -> Result:
    """Interrupt the code that runs in a session, like Ctrl-C, and return its outcome as `python_repl` would.

    force: whether to end the kernel, even an idle one; the next call restores what is saved. If nothing runs, `note`
    says so, and the result is the last outcome if no call has returned it yet. Raises UnknownSession, and
    NothingRunning if nothing has ever run.
    """
    return await _call("python_interrupt", session_id=session_id, force=force)


async def python_list_variables(
    session_id: str, *, contains: str | None = None, limit: int = 300, cursor: str | None = None
) -> Result:
    """Return the variables of a session, sorted by name, without waking the session.

    The result has `session_id`, `variable_count` (on all pages), `variables` and `next_cursor`. Each variable is a dict
    of `name`, `type`, `size_bytes`, `saved`, `updated_at` (UTC, ISO 8601), `summary` and `reason` (why it is not saved,
    or None). contains, limit and cursor work as in `python_list_sessions`. Raises UnknownSession and InvalidArgument.
    """
    return await _call("python_list_variables", session_id=session_id, contains=contains, limit=limit, cursor=cursor)


async def python_list_sessions(*, contains: str | None = None, limit: int = 100, cursor: str | None = None) -> Result:
    """Return the sessions, the latest used first.

    contains: return only sessions whose id contains this text, ignoring case. limit: entries of one page, 1 to 1000.
    cursor: the `next_cursor` of the page before; it is None on the last page. The result has `session_count` (on all
    pages), `sessions`, `next_cursor` and `note`. Each session is a dict of `session_id`, `created_at` and
    `last_used_at` (UTC, ISO 8601), `variable_count`, `total_executions`, `size_bytes`, `state`, `kernel`, `sandbox` and
    `damaged`. Raises InvalidArgument.
    """
    return await _call("python_list_sessions", contains=contains, limit=limit, cursor=cursor)


async def python_clear_session(session_id: str) -> Result:
    """Remove all variables of a session, and return `session_id` and `message`. Files and history stay.

    Waits until code that runs in the session has ended. Raises UnknownSession.
    """
    return await _call("python_clear_session", session_id=session_id)


async def python_delete_session(session_id: str) -> Result:
    """Delete a session with its variables, history and files, and return `session_id` and `message`.

    Code that runs in the session is stopped. Raises UnknownSession.
    """
    return await _call("python_delete_session", session_id=session_id)


class _Connection:
    """This class holds a client of the keeper as long as its event loop lives, in a task of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._client: asyncio.Future[Client] = loop.create_future()
        self._end = asyncio.Event()
        self._task = loop.create_task(self._hold(), name="kernelrepl connection")

    async def _hold(self) -> None:
        try:
            async with client.connect(outputs=True) as found:
                self._client.set_result(found)
                await self._end.wait()
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the client
            if not self._client.done():
                self._client.set_exception(_only(error))
        finally:
            self._client.cancel()

    @property
    def usable(self) -> bool:
        return not self._task.done() and not self._end.is_set()

    async def client(self) -> Client:
        """Return the client when it is connected. Raises KeeperUnavailable."""
        return await asyncio.shield(self._client)

    def end(self) -> asyncio.Task[None]:
        """Close it; the next call opens another one. Returns the task that ends with that."""
        self._end.set()
        return self._task


_connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection] = weakref.WeakKeyDictionary()


async def close() -> None:
    """Close the connection of this event loop. `asyncio.run` does this by itself; the next call opens another one."""
    connection = _connections.pop(asyncio.get_running_loop(), None)
    if connection is not None:
        await asyncio.wait({connection.end()})


async def _call(tool: str, **arguments: Any) -> Result:
    loop = asyncio.get_running_loop()
    connection = _connections.get(loop)
    if connection is None or not connection.usable:
        connection = _connections[loop] = _Connection(loop)
    try:
        result = await client.call(await connection.client(), tool, **arguments)
    except KeeperUnavailable:
        connection.end()
        raise
    meta = result.meta or {}
    text = "\n".join(block.text for block in result.content if block.type == "text")
    return Result(
        result.structured_content or {},
        text,
        images(result.content),
        meta.get("kernelrepl/outputs", ()),
        meta.get("kernelrepl/remarks", ()),
    )


def _only(error: BaseException) -> BaseException:
    """Return the error inside groups of one: task groups wrap what their body raises."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


__all__ = [
    "Result",
    "python_clear_session",
    "python_delete_session",
    "python_interrupt",
    "python_list_sessions",
    "python_list_variables",
    "python_repl",
    "python_wait",
]
