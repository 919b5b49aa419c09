"""The tools that only the person has who runs the keeper: on a socket of their own, and never for an agent."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import BaseModel, Field

from kernelrepl import __version__
from kernelrepl.errors import UnknownSession
from kernelrepl.jupyter.gateway import AttachRequest
from kernelrepl.jupyter.sockets import Address
from kernelrepl.keeper.connection import Connection
from kernelrepl.keeper.keeper import Keeper
from kernelrepl.mcp import watching
from kernelrepl.mcp.arguments import MAX_PAGE, answer
from kernelrepl.mcp.log import LogResult, WatchResult, log_entry
from kernelrepl.mcp.packages import InstalledResult, PackagesResult, of_installed, of_packages
from kernelrepl.mcp.results import Attached, HistoryResult, KeeperStatus, ReplResult, cells_of, of_execution
from kernelrepl.model import counted
from kernelrepl.packages import layers
from kernelrepl.sessions import importing

STOP_DELAY_S = 0.2
"""Between the answer to a stop and the stop, so that the answer arrives."""

HISTORY_BYTES = 2 << 20


class GrantResult(BaseModel):
    """What a session may reach beside its workspace."""

    session_id: str
    read: list[str]
    write: list[str]
    from_next_kernel: bool
    """Whether the kernel that is there goes on with what it could reach before."""


class OperatorTools:
    """What the command line asks a keeper for."""

    def __init__(self, keeper: Keeper, connection: Callable[[], Connection]) -> None:
        """connection: the one that a call comes from."""
        self._keeper = keeper
        self._connection = connection

    async def keeper_status(self) -> Annotated[CallToolResult, KeeperStatus]:
        """What the keeper does: sessions, kernels, connections."""
        manager, connection = self._keeper.manager, self._connection()
        count = await manager.services.store.count_sessions()
        status = KeeperStatus(
            pid=os.getpid(),
            version=__version__,
            data_dir=str(self._keeper.data_dir),
            runtime_dir=str(self._keeper.runtime_dir),
            sessions=count,
            kernels=manager.kernels(),
            busy=sorted(name for name, session in manager.loaded().items() if session.busy and session.unfinished),
            connections=self._keeper.connections,
            sandbox=manager.sandbox,
            groups=self._keeper.groups,
            python=sys.executable,
            python_version=platform.python_version(),
            sessions_python=connection.settings.python,
            note=connection.note,
            settings=self._keeper.settings_as_json(),
            metrics=self._keeper.metrics.dump(),
        )
        return answer(status, status.model_dump_json(indent=2))

    async def keeper_workspace(self, session_id: str) -> str:
        """Where the files of a session are."""
        return str(await self._keeper.manager.workspace(session_id))

    async def keeper_written(self) -> list[str]:
        """Where sessions may write."""
        return list(self._keeper.manager.confinement.exposure.written())

    async def keeper_history(self, session_id: str, cursor: int = 0) -> Annotated[CallToolResult, HistoryResult]:
        """What has run in a session, as cells of a notebook, a part at a time."""
        rows = await self._keeper.manager.history(session_id, cursor, HISTORY_BYTES)
        cells = await asyncio.to_thread(cells_of, rows)
        found = HistoryResult(cells=cells, next_cursor=rows[-1].id if rows else None)
        return answer(found, f"{counted(len(cells), 'execution')} of {session_id!r}")

    async def keeper_log(
        self, session_id: str, count: Annotated[int, Field(ge=1, le=MAX_PAGE)]
    ) -> Annotated[CallToolResult, LogResult]:
        """What has run in a session last: code, who, when, how long, how it ended, and what was saved."""
        rows, total = await self._keeper.manager.latest_executions(session_id, count)
        entries = await asyncio.to_thread(lambda: [log_entry(row) for row in rows])
        found = LogResult(executions=entries, left_out=max(0, total - len(rows)))
        return answer(found, f"{counted(len(entries), 'execution')} of {session_id!r}")

    async def keeper_watch(
        self, ctx: Context[Any, Any], session_id: str, number: int | None = None
    ) -> Annotated[CallToolResult, WatchResult]:
        """Wait for the next execution of a session, show it as it runs, and return when it is over.

        number: of the last one that was seen; None: what runs now, or else runs next, is wanted.
        """
        return await watching.follow(ctx, self._keeper.manager, session_id, number)

    async def keeper_outcome(
        self, ctx: Context[Any, Any], session_id: str, request_id: str
    ) -> Annotated[CallToolResult, ReplResult]:
        """Wait for one execution, whatever else runs in its session, and return its outcome."""
        result = await watching.outcome(ctx, self._keeper.manager, session_id, request_id)
        return of_execution(result, self._connection().settings.max_output_chars, live=True, whole=True)

    async def keeper_rename_session(self, ctx: Context[Any, Any], session_id: str, new_id: str) -> str:
        """Give a session another id."""
        try:
            await self._keeper.manager.rename(session_id, new_id)
        except UnknownSession:
            # The first try of this very call may have done it, and only its reply was lost.
            if json.dumps(ctx.request_context.request_id) not in self._connection().resumed:
                raise
            await self._keeper.manager.workspace(new_id)
        return f"session {session_id!r} is {new_id!r} now"

    async def keeper_grant(
        self, session_id: str, read: list[str], write: list[str], revoke: list[str]
    ) -> Annotated[CallToolResult, GrantResult]:
        """Change what a session may reach beside its workspace."""
        access, later = await self._keeper.manager.grant(session_id, read, write, revoke)
        found = GrantResult(
            session_id=session_id, read=list(access.read), write=list(access.write), from_next_kernel=later
        )
        lines = [f"{kind} {path}" for kind, paths in (("read", access.read), ("write", access.write)) for path in paths]
        if later:
            lines.append(
                "its kernel, at work or with names that are not saved, goes on as it is; the next one has it:"
                f" `kernelrepl interrupt {session_id} --force` ends this one"
            )
        return answer(found, "\n".join(lines or [f"session {session_id!r} reaches nothing beside its workspace"]))

    # Notebooks

    async def keeper_attach(
        self,
        session_id: str | None = None,
        notebook: str | None = None,
        address: dict[str, Any] | None = None,
        restart: bool = False,
        again: bool = False,
        throwaway: bool = False,
    ) -> Annotated[CallToolResult, Attached]:
        """Serve a session to Jupyter clients, while this connection lasts. Returns what a connection file says."""
        connection = self._connection()
        connection.attached = True
        where = None if address is None else Address.load(address)
        request = AttachRequest(session_id, notebook, where, restart, again, throwaway)
        session_id, served = await self._keeper.gateway.attach(request, connection.origin(), connection.id)
        return answer(Attached(session_id=session_id, connection=served.dump()), f"session {session_id!r} is served")

    async def keeper_detach(self, address: dict[str, Any]) -> str:
        """End what `keeper_attach` began. The session stays, unless it was made for that client alone."""
        await self._keeper.gateway.detach(Address.load(address), self._connection().id)
        return "detached"

    async def keeper_left(self, address: dict[str, Any]) -> str:
        """Wait until a client of an attached session asks to end its kernel."""
        place = self._keeper.gateway.place(Address.load(address))
        await place.left.wait()
        return "left"

    async def keeper_interrupt(self, address: dict[str, Any]) -> str:
        """Interrupt what the clients there run; nothing of others."""
        place = self._keeper.gateway.place(Address.load(address))
        await place.server.interrupt(place.sockets)
        return "interrupted"

    async def keeper_rename(self, address: dict[str, Any], notebook: str, before: str | None = None) -> str:
        """The notebook of an attached client has another path now, and keeps its session."""
        await self._keeper.gateway.rename(Address.load(address), notebook, before)
        return "renamed"

    async def keeper_connection_file(self, session_id: str) -> str:
        """A connection file of a session, for `jupyter console --existing=FILE` and the like."""
        origin = self._connection().origin()
        return str(await self._keeper.gateway.connection_file(session_id, origin))

    async def keeper_trust(self, session_id: str, trusted: bool = True) -> str:
        """Let the outputs of a session act in notebooks (scripts, widgets), or no longer."""
        await self._keeper.gateway.trust(session_id, trusted)
        what = "may act" if trusted else "cannot act any more"
        return f"outputs of session {session_id!r} {what} in notebooks from now on"

    async def keeper_packages(self, session_id: str) -> Annotated[CallToolResult, PackagesResult]:
        """The packages that were installed for a session, the latest first."""
        place = layers.home(await self._keeper.manager.workspace(session_id))
        return answer(*of_packages(session_id, await asyncio.to_thread(layers.read, place)))

    async def keeper_install(self, session_id: str, names: list[str]) -> Annotated[CallToolResult, InstalledResult]:
        """Install packages for a session."""
        manager = self._keeper.manager
        await manager.workspace(session_id)  # it has to be there already
        session = await manager.session(session_id, self._connection().origin())
        return answer(*of_installed(session_id, await session.slot.install(names)))

    # Sessions of another program

    async def keeper_import_state(self, session_id: str, source: str) -> str:
        """Whether a source has been imported as this session: none, begun, whole; other: the session is not of it."""
        return await importing.state(self._keeper.manager, session_id, source)

    async def keeper_import_history(self, session_id: str, source: str, rows: list[importing.PastExecution]) -> str:
        """Add what another program ran to a session, which is made if there is none. Rows that are there stay."""
        await importing.add_history(self._keeper.manager, session_id, self._connection().origin(), source, rows)
        return f"{counted(len(rows), 'execution')} of {session_id!r}"

    async def keeper_import_values(
        self, session_id: str, source: str, part: str, code: str, timeout: float
    ) -> Annotated[CallToolResult, ReplResult]:
        """Run code that loads values of another program, once: a second call gets the outcome of the first."""
        connection, name = self._connection(), importing.name_of(source, part)
        handle = await importing.run_part(
            self._keeper.manager, session_id, connection.origin(), name, code, timeout_s=timeout
        )
        return of_execution(handle.result(), connection.settings.max_output_chars, whole=True)

    async def keeper_stop(self) -> str:
        """Stop the keeper. Sessions stay; the next call starts a new one."""
        asyncio.get_running_loop().call_later(STOP_DELAY_S, self._keeper.stopping.set)
        return "the keeper stops; sessions stay"
