"""This module is the MCP server: the tools that agents see, and their connections to the keeper.

One server object serves all connections of one kind. A context variable says which connection a call came from.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from contextvars import ContextVar
from typing import Annotated, Any

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.stdio import stdio_server
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import Field

from kernelrepl import __version__
from kernelrepl.errors import InvalidSessionId, KernelReplError, UnknownSession
from kernelrepl.keeper.connection import Connection
from kernelrepl.keeper.keeper import Keeper
from kernelrepl.mcp import schemas, waiting
from kernelrepl.mcp.arguments import MAX_PAGE, Server, answer, check_wait, request
from kernelrepl.mcp.files import WorkspaceFiles
from kernelrepl.mcp.framing import LineReader, LineWriter
from kernelrepl.mcp.operator import OperatorTools
from kernelrepl.mcp.resources import Outputs
from kernelrepl.mcp.results import (
    ENDED_BEFORE,
    IDLE_ENDED,
    NOTHING_RAN,
    ChangedResult,
    ReplResult,
    SessionsResult,
    VariablesResult,
    cells_of,
    earlier,
    of_execution,
    of_sessions,
    of_variables,
)
from kernelrepl.model import ExecutionResult, counted
from kernelrepl.outputs import notebook
from kernelrepl.sessions.handle import ExecutionHandle
from kernelrepl.sessions.results import nothing_ran

SESSIONS_PAGE = 100
VARIABLES_PAGE = 300
_NO_MODELS = ("cli", "python")
"""The names of connections whose programs show a result to a person, not to a model."""
_UNNAMED = ("mcp", "kernelrepl")
"""What a program calls itself that is no host: the SDK's own client, if nobody gives it a name, and parts of this."""
_LISTS = ("python_list_variables", "python_list_sessions")
NOTEBOOK_BYTES = 8 << 20
NOTEBOOK_URI = "kernelrepl://sessions/{session_id}/notebook"

_connection: ContextVar[Connection] = ContextVar("connection")

INSTRUCTIONS = """\
Python sessions that never forget. Pass the same session_id to python_repl again and again: variables, functions, \
classes and imports stay, even if the kernel crashes, the machine restarts or weeks go by. A reply says what could \
not be saved. Without session_id the code runs in a fresh kernel that is thrown away. Long code: the \
call returns after `wait` seconds with status "running", and python_wait collects the rest. The last expression is \
echoed, open figures are returned as images; files can be written to the working directory, text also with \
%%writefile NAME."""
CONFINED = """ Code runs in a sandbox: no network and no shell (%pip install asks the person for a package), and of \
the person's files only those that were granted or put into the session."""

SessionId = Annotated[
    str, Field(description="the session, for example 'analysis'; letters, digits and . _ - : @ +, at most 100")
]
Contains = Annotated[str | None, Field(description="list only names that contain this text, ignoring case")]
Cursor = Annotated[str | None, Field(description="the next_cursor of the page before; leave it out for the first")]
Wait = Annotated[
    float, Field(description="seconds to wait for the result before the call returns with status 'running'")
]


class ClientHandler:
    """This object serves all connections of one keeper."""

    def __init__(self) -> None:
        self._servers: dict[tuple[bool, bool], MCPServer[Any]] = {}

    async def __call__(
        self, keeper: Keeper, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        kind = (connection.operator, connection.settings.structured == "on")
        server = self._servers.get(kind)
        if server is None:
            server = self._servers[kind] = build_server(keeper, operator=kind[0], output_schemas=kind[1])
        _connection.set(connection)
        low = server._lowlevel_server
        stdin: Any = LineReader(reader, writer, connection)
        stdout: Any = LineWriter(writer)
        async with stdio_server(stdin, stdout) as (read_stream, write_stream):
            await low.run(read_stream, write_stream, low.create_initialization_options())


def build_server(keeper: Keeper, *, operator: bool = False, output_schemas: bool = False) -> MCPServer[Any]:
    """Return the MCP server of a keeper.

    operator: whether it also has the tools of the person who runs the keeper. output_schemas: whether its tools say
    what their structured content is; a model pays for each character of that, and needs none of them.
    """
    unconfined = keeper.manager.confinement.tier is None
    instructions = INSTRUCTIONS + ("" if unconfined else CONFINED)
    server = Server(
        keeper.emit, _is_structured, _is_linked, version=__version__, instructions=instructions, log_level="WARNING"
    )
    tools = Tools(keeper)
    for tool, title, hints in (
        (tools.python_repl, "Run Python", ToolAnnotations(destructive_hint=True, open_world_hint=unconfined)),
        (tools.python_wait, "Wait for Python", ToolAnnotations(read_only_hint=True, open_world_hint=False)),
        (tools.python_interrupt, "Interrupt Python", ToolAnnotations(destructive_hint=True, open_world_hint=False)),
        (tools.python_list_variables, "List variables", ToolAnnotations(read_only_hint=True, open_world_hint=False)),
        (tools.python_list_sessions, "List sessions", ToolAnnotations(read_only_hint=True, open_world_hint=False)),
        (
            tools.python_clear_session,
            "Clear a session",
            ToolAnnotations(destructive_hint=True, idempotent_hint=True, open_world_hint=False),
        ),
        (
            tools.python_delete_session,
            "Delete a session",
            ToolAnnotations(destructive_hint=True, idempotent_hint=True, open_world_hint=False),
        ),
    ):
        about = schemas.description(tool.__doc__ or "")
        shape = None if output_schemas else False
        server.add_tool(tool, title=title, description=about, annotations=hints, structured_output=shape)
    for added in server._tool_manager.list_tools():
        added.parameters = schemas.lean(added.parameters)
    Outputs(keeper).register(server)
    WorkspaceFiles(keeper).register(server)
    server.resource(
        NOTEBOOK_URI,
        name="notebook",
        description="a session as a notebook: all code that ran in it, with its outputs",
        mime_type="application/x-ipynb+json",
    )(tools.notebook)
    if operator:
        more = OperatorTools(keeper, _connection.get)
        for reading in (
            more.keeper_status, more.keeper_workspace, more.keeper_written, more.keeper_history, more.keeper_left,
            more.keeper_packages, more.keeper_log, more.keeper_watch, more.keeper_outcome, more.keeper_import_state,
        ):  # fmt: skip
            server.add_tool(reading, annotations=ToolAnnotations(read_only_hint=True))
        for changing in (
            more.keeper_grant, more.keeper_stop, more.keeper_attach, more.keeper_detach, more.keeper_interrupt,
            more.keeper_rename, more.keeper_connection_file, more.keeper_trust, more.keeper_install,
            more.keeper_rename_session, more.keeper_import_history, more.keeper_import_values,
        ):  # fmt: skip
            server.add_tool(changing, annotations=ToolAnnotations(destructive_hint=True))
    return server


def _client_of(ctx: Context[Any, Any], connection: Connection) -> str | None:
    """Return the name that the program behind a proxy gives itself, or None for other connections."""
    params = ctx.session.client_params
    return params.client_info.name[:100] if connection.name == "front" and params is not None else None


def _is_structured(ctx: Context[Any, Any] | None, tool: str) -> bool:
    """Return whether the reply to a call has structured content beside its text and images.

    Some hosts give their model the structured content alone, so that text and images are lost. Lists are the same in
    both. A program that needs the fields asks for them by the setting, or is a client of ours.
    """
    connection = _connection.get()
    asked = connection.settings.structured
    if connection.name != "front" or asked != "auto":
        return connection.name != "front" or asked == "on"
    return tool in _LISTS or ctx is None or _client_of(ctx, connection) in _UNNAMED


def _is_linked(ctx: Context[Any, Any] | None) -> bool:
    """Return whether the reply to a call links to what it has no room for, and to the files that it names.

    Libraries that leave their name at the SDK's make an address of a link, which the service that runs the model is
    asked to fetch: it refuses the whole conversation. What is linked is named in the text as well.
    """
    connection = _connection.get()
    if connection.name != "front" or connection.settings.structured == "on":
        return True
    return ctx is not None and _client_of(ctx, connection) not in _UNNAMED


def _plain_id(request: str) -> str:
    """Return a JSON-RPC id in a form that fits into a URI."""
    return request if request.isdigit() else hashlib.sha256(request.encode()).hexdigest()[:16]


def _reply(execution: ExecutionResult) -> CallToolResult:
    """Return the reply for an execution in the form that the connection of this call needs."""
    connection = _connection.get()
    whole = connection.name in _NO_MODELS
    most, outputs, live = connection.settings.max_output_chars, connection.outputs, connection.live
    return of_execution(execution, most, outputs=outputs, live=live, whole=whole)


def _deliver(handle: ExecutionHandle, remark: str | None = None) -> CallToolResult:
    """Return the reply for an execution as far as it has come, with outcomes of earlier code that no call received.

    remark: a note for the reply, if the execution has ended.
    """
    return _reply(handle.collect(earlier, remark))


class Tools:
    """This class has the tools. A model reads their docstrings."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def python_repl(
        self,
        ctx: Context[Any, Any],
        code: Annotated[str, Field(description="Python code; IPython magics and top-level await work")],
        session_id: Annotated[
            str | None,
            Field(description="keep state under this name; leave it out for a fresh kernel that is thrown away"),
        ] = None,
        wait: Wait = 45,
        timeout: Annotated[
            float | None, Field(description="interrupt the code after this many seconds; without it, it may run on")
        ] = None,
        reset: Annotated[bool, Field(description="forget all variables of the session before running")] = False,
    ) -> Annotated[CallToolResult, ReplResult] | InputRequiredResult:
        """Run Python code in a session and return its output.

        State persists under session_id across calls, crashes and restarts: when the reply arrives, everything the code
        changed is stored. The last expression is echoed; figures come back as images. If the code takes longer than
        `wait` seconds the reply has status "running" and the output so far: collect the outcome with python_wait.
        Without session_id it ends then, and nothing is kept.
        """
        connection = _connection.get()
        check_wait(wait)
        if session_id is None:
            return await self._run_once(ctx, connection, code, wait, timeout)
        if waiting.has_answer(ctx):  # it brings no new code: what waits for the answer goes on
            return await self.python_wait(ctx, session_id, wait)
        request = json.dumps(ctx.request_context.request_id)
        handle = await self._keeper.manager.execute(
            code,
            session_id,
            connection.origin(_client_of(ctx, connection), can_ask=waiting.can_ask(ctx)),
            request_id=f"{connection.id}-{_plain_id(request)}",
            timeout_s=timeout,
            reset=reset,
            resumed=request in connection.resumed,
        )
        return await self._collect(ctx, connection, handle, wait)

    async def _run_once(
        self, ctx: Context[Any, Any], connection: Connection, code: str, wait: float, timeout: float | None
    ) -> CallToolResult | InputRequiredResult:
        # There is no session to come back to, so the call itself has to end it.
        limit = min(wait, timeout) if timeout is not None else wait
        manager = self._keeper.manager
        handle = await manager.execute_once(code, connection.origin(), timeout_s=max(limit, 0.001))
        try:
            return await self._collect(ctx, connection, handle, None)
        finally:
            manager.discard(handle)

    async def _collect(
        self,
        ctx: Context[Any, Any],
        connection: Connection,
        handle: ExecutionHandle,
        wait: float | None,
    ) -> CallToolResult | InputRequiredResult:
        try:
            await waiting.wait_for(ctx, handle, wait, live=connection.live)
        except anyio.get_cancelled_exc_class():
            if str(ctx.request_context.request_id) in connection.cancelled:
                with anyio.CancelScope(shield=True):
                    await handle.interrupt()
            raise
        return waiting.question_of(ctx, handle) or _deliver(handle)

    async def python_wait(
        self, ctx: Context[Any, Any], session_id: SessionId, wait: Wait = 45
    ) -> Annotated[CallToolResult, ReplResult] | InputRequiredResult:
        """Wait for the code that runs in a session and return its outcome, as python_repl would.

        If nothing runs, the outcome of the last execution is returned.
        """
        check_wait(wait)
        handle = await self._keeper.manager.latest(session_id)
        await waiting.take_answer(ctx, handle)
        await waiting.wait_for(ctx, handle, wait, live=_connection.get().live)
        return waiting.question_of(ctx, handle) or _deliver(handle)

    async def python_interrupt(
        self,
        session_id: SessionId,
        force: Annotated[
            bool,
            Field(description="end the kernel at once, even an idle one; what is saved is restored by the next call"),
        ] = False,
    ) -> Annotated[CallToolResult, ReplResult]:
        """Interrupt the code that runs in a session, like Ctrl-C, and return its outcome.

        Its changes until then are kept. With force the kernel is ended and the session returns to its state before
        this code.
        """
        handle = await self._keeper.manager.latest(session_id)
        if handle.is_stored:
            session = self._keeper.manager.loaded().get(session_id) if force else None
            ended = session is not None and session.pid is not None
            if session is not None:
                await session.hibernate()
            return _reply(nothing_ran(handle.result(), IDLE_ENDED if ended else NOTHING_RAN))
        if handle.is_done:
            ended = force and await handle.end_kernel()
            if handle.is_uncollected:
                return _deliver(handle, IDLE_ENDED if ended else ENDED_BEFORE)
            return _reply(nothing_ran(handle.result(), IDLE_ENDED if ended else NOTHING_RAN))
        await handle.interrupt(force=force)
        if force:
            await handle.wait()
        return _deliver(handle)

    async def python_list_variables(
        self,
        session_id: SessionId,
        contains: Contains = None,
        limit: Annotated[int, Field(description=f"entries of one page, 1 to {MAX_PAGE}")] = VARIABLES_PAGE,
        cursor: Cursor = None,
    ) -> Annotated[CallToolResult, VariablesResult]:
        """List the variables of a session by name, with type and size, and whether each one is saved.

        It works while the session is busy or asleep, and wakes nothing.
        """
        variables = await self._keeper.manager.list_variables(session_id, request(limit, cursor, contains))
        return answer(*of_variables(session_id, variables))

    async def python_list_sessions(
        self,
        contains: Contains = None,
        limit: Annotated[int, Field(description=f"entries of one page, 1 to {MAX_PAGE}")] = SESSIONS_PAGE,
        cursor: Cursor = None,
    ) -> Annotated[CallToolResult, SessionsResult]:
        """List the sessions, the latest used first."""
        views = await self._keeper.manager.list_sessions(request(limit, cursor, contains))
        return answer(*of_sessions(views, self._keeper.manager.losses))

    async def python_clear_session(self, session_id: SessionId) -> Annotated[CallToolResult, ChangedResult]:
        """Remove all variables from a session, when code that runs in it has ended. Files and history stay."""
        count = await self._keeper.manager.clear(session_id, _connection.get().origin())
        message = f"{counted(count, 'variable')} removed from {session_id!r}; files and history are kept"
        return answer(ChangedResult(session_id=session_id, message=message), message)

    async def python_delete_session(
        self, ctx: Context[Any, Any], session_id: SessionId
    ) -> Annotated[CallToolResult, ChangedResult]:
        """Delete a session for good: variables, history and files. Stops code that runs in it."""
        connection = _connection.get()
        try:
            await self._keeper.manager.delete(session_id, connection.origin())
        except UnknownSession:
            # The first try of this very call may have done it, and only its reply was lost.
            if json.dumps(ctx.request_context.request_id) not in connection.resumed:
                raise
        message = f"session {session_id!r} is deleted"
        return answer(ChangedResult(session_id=session_id, message=message), message)

    async def notebook(self, session_id: str) -> str:
        """Return a session as a notebook in JSON: its code with outputs; the last part only, if it is very long."""
        cells: deque[str] = deque()
        size = left_out = cursor = 0
        try:
            while rows := await self._keeper.manager.history(session_id, cursor, NOTEBOOK_BYTES):
                cursor = rows[-1].id
                for cell in await asyncio.to_thread(lambda rows: [json.dumps(c) for c in cells_of(rows)], rows):
                    cells.append(cell)
                    size += len(cell)
                while size > NOTEBOOK_BYTES and len(cells) > 1:
                    size -= len(cells.popleft())
                    left_out += 1
        except (UnknownSession, InvalidSessionId) as error:
            raise ResourceNotFoundError(str(error)) from error
        except KernelReplError as error:
            raise ResourceError(str(error)) from error
        found = notebook.document(session_id, [], left_out=left_out)
        return json.dumps(found)[:-2] + ",".join(cells) + "]}"
