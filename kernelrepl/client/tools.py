"""The tools as async Python functions, for scripts and notebooks.

They go through the same keeper as every MCP host of yours, which is started when needed. Each event loop
has one connection; it ends with the loop.
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


async def python_repl(
    code: str,
    session_id: str | None = None,
    *,
    wait: float | None = None,
    timeout: float | None = None,
    reset: bool = False,
) -> Result:
    """Run Python code in a session and return its outcome.

    code: Python as IPython takes it, with magics and top-level await. session_id: where the state is kept;
    without one the code runs in a fresh kernel that is thrown away. wait: seconds until the call returns with
    status "running" (None: it returns when the code has ended); `python_wait` collects the rest. timeout: seconds
    after which the code is interrupted. reset: forget the variables of the session first.

    The result has the fields of the tool of this name: `status` ("ok", "error", "timeout", "interrupted", "running"
    or "crashed"), `stdout`, `stderr`, `result`, `error`, `saved`, `not_saved`, `restored`, `committed` and more. Code
    that fails is a result with status "error". Cancelling the call interrupts the code. Raises a KernelReplError:
    InvalidSessionId, InvalidArgument, KernelStartFailed, StorageFailed, SessionDeleted or KeeperUnavailable.
    """
    arguments: dict[str, Any] = {"code": code, "timeout": timeout, "reset": reset}
    if session_id is not None:
        arguments["session_id"] = session_id
    return await _call("python_repl", wait=LONGEST_WAIT_S if wait is None else wait, **arguments)


async def python_wait(session_id: str, wait: float | None = None) -> Result:
    """Wait for the code that runs in a session and return its outcome, as `python_repl` would.

    wait: at most so many seconds; None: until it has ended. Raises UnknownSession, NothingRunning and what
    `python_repl` raises.
    """
    return await _call("python_wait", session_id=session_id, wait=LONGEST_WAIT_S if wait is None else wait)


async def python_interrupt(session_id: str, *, force: bool = False) -> Result:
    """Interrupt the code that runs in a session, like Ctrl-C; with `force` end its kernel.

    Where nothing runs any more, `note` says so, and the outcome comes with it if no call has had it.
    Raises UnknownSession and NothingRunning.
    """
    return await _call("python_interrupt", session_id=session_id, force=force)


async def python_list_variables(
    session_id: str, *, contains: str | None = None, limit: int = 300, cursor: str | None = None
) -> Result:
    """The variables of a session by name: `session_id`, `variable_count` and `variables`.

    Each of these has `name`, `type`, `size_bytes`, `saved`, `updated_at`, `summary` and `reason`. Wakes nothing.
    contains, limit and cursor are those of `python_list_sessions`. Raises UnknownSession and InvalidArgument.
    """
    return await _call("python_list_variables", session_id=session_id, contains=contains, limit=limit, cursor=cursor)


async def python_list_sessions(*, contains: str | None = None, limit: int = 100, cursor: str | None = None) -> Result:
    """The sessions, the latest used first: `session_count` and `sessions`.

    Each of these has `session_id`, `created_at`, `variable_count`, `total_executions` and more. contains: only those
    whose name has this in it; upper and lower case are the same. limit: entries of one page, 1 to 1000. cursor: the
    `next_cursor` of the page before, which is None on the last one. Raises InvalidArgument.
    """
    return await _call("python_list_sessions", contains=contains, limit=limit, cursor=cursor)


async def python_clear_session(session_id: str) -> Result:
    """Remove all variables of a session; its files and its history stay. Raises UnknownSession."""
    return await _call("python_clear_session", session_id=session_id)


async def python_delete_session(session_id: str) -> Result:
    """Delete a session for good: variables, history and files. Raises UnknownSession."""
    return await _call("python_delete_session", session_id=session_id)


class _Connection:
    """A client of the keeper that lives as long as its event loop, in a task of its own."""

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
        """Raises KeeperUnavailable."""
        return await asyncio.shield(self._client)

    def end(self) -> asyncio.Task[None]:
        """Close it; the next call opens another one. Returns the task that ends with that."""
        self._end.set()
        return self._task


_connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection] = weakref.WeakKeyDictionary()


async def close() -> None:
    """Close the connection of this event loop. `asyncio.run` does it by itself; the next call opens another."""
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
    """Task groups wrap what their body raises."""
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
