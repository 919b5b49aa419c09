"""Many sessions: find or create them, run code in them, list, clear, delete and stop them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from kernelrepl.errors import DirectoryFailed, NothingRunning, SessionDamaged, SessionInUse, UnknownSession
from kernelrepl.kernel import KernelDied
from kernelrepl.model import ALL, JupyterRequest, Page, PageRequest, SessionInfo, SessionView, Variable
from kernelrepl.outputs import beside, remarks
from kernelrepl.sandbox import Access
from kernelrepl.sessions import results, standby
from kernelrepl.sessions.confinement import Confinement, Grants, SessionSpec
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.handle import ExecutionHandle
from kernelrepl.sessions.lifecycle import State
from kernelrepl.sessions.observer import SessionObserver
from kernelrepl.sessions.recorder import NullRecorder, StoreRecorder
from kernelrepl.sessions.services import Services
from kernelrepl.sessions.session import Session
from kernelrepl.sessions.standby import Standby, StandbyKernel
from kernelrepl.store.reading import ExecutionRow
from kernelrepl.validation import check_code, check_session_id, check_timeout
from kernelrepl.workspaces import directories


@dataclass(frozen=True)
class Origin:
    """Who asks, and can ask its person: what a new session gets is taken from here, and the row says who ran it."""

    name: str = "unknown"
    grants: Grants = field(default_factory=Grants)
    can_ask: bool = False


class Manager:
    """All sessions of one keeper."""

    def __init__(self, data_dir: Path, confinement: Confinement, services: Services) -> None:
        self.data_dir = data_dir
        self.confinement = confinement
        self.sandbox = confinement.label
        self.capacity = services.capacity
        self.services = services
        self._store = services.store
        # Weakly, so that nobody ever gets a second one while somebody still holds the first.
        self._sessions: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()
        self._keys: weakref.WeakKeyDictionary[Session, int] = weakref.WeakKeyDictionary()
        self._creating: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._kept: set[Session] = set()
        """Those that have, or are about to have, what is not in the store."""
        self._transient: set[Session] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self.standby: Standby | None = None
        """Kernels that are ready for what is new. Set by whoever keeps them so."""
        self.losses = ""
        """What a new session is told of the database, if that has lost something."""
        self.observers: dict[str, SessionObserver] = {}
        """Who sees what goes on in a session, by its id; for sessions that are loaded later. See `observe`."""

    # Running code

    async def execute(
        self,
        code: str,
        session_id: str,
        origin: Origin,
        *,
        request_id: str,
        timeout_s: float | None = None,
        reset: bool = False,
        resumed: bool = False,
        cell: JupyterRequest | None = None,
    ) -> ExecutionHandle:
        """Start code in a session, creating it if there is none.

        A request that was seen before is not run again: its outcome comes from its row, or the execution that still
        runs is joined. resumed: the caller asks for a request whose reply it lost. cell: how a Jupyter client asked.
        """
        check_code(code)
        check_timeout(timeout_s)
        session = await self._session(check_session_id(session_id), origin)
        if (known := session.unfinished.get(request_id)) is not None:
            return ExecutionHandle(known, session)
        if resumed and (row := await self._store.execution(request_id)) is not None:
            return await self._stored(session_id, row, lost_reply=True)
        self._kept.add(session)
        execution = Execution(code, request_id, origin.name, timeout_s, reset, cell, can_ask=origin.can_ask)
        return ExecutionHandle(session.submit(execution), session)

    async def execute_once(self, code: str, origin: Origin, *, timeout_s: float | None) -> ExecutionHandle:
        """Start code in a fresh kernel that leaves nothing. End it with `discard`."""
        check_code(code)
        check_timeout(timeout_s)
        spec = await asyncio.to_thread(self.confinement.fix, origin.grants)
        prepared = None if self.standby is None else self.standby.take(spec)
        try:
            workspace = self.confinement.make_temporary_workspace() if prepared is None else prepared.workspace
            if prepared is not None:
                directories.mark_temporary(workspace)
        except OSError as error:
            raise DirectoryFailed(self.confinement.runtime_dir, error.strerror) from error
        launch = self.confinement.launch(workspace, spec)
        session = Session(None, launch, spec.limits, NullRecorder(), self.services, sandbox=self.sandbox)
        self._transient.add(session)
        await self._give(session, prepared)
        execution = Execution(code, secrets.token_hex(16), origin.name, timeout_s)
        return ExecutionHandle(session.submit(execution), session)

    def discard(self, handle: ExecutionHandle) -> asyncio.Task[None]:
        """End a session that leaves nothing, and its workspace. Nobody needs to wait for that."""
        assert handle.session is not None
        ending = asyncio.create_task(self._end(handle.session))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return ending

    async def _end(self, session: Session) -> None:
        await session.close()
        self._transient.discard(session)
        self.confinement.exposure.forget(session.launch.workspace.name)
        await asyncio.to_thread(directories.remove_temporary, session.launch.workspace)

    async def latest(self, session_id: str) -> ExecutionHandle:
        """The execution that runs in a session, or the last one that did. Raises NothingRunning."""
        info, _ = await self._known(session_id)
        session = self._sessions.get(session_id)
        if session is not None and session.latest is not None:
            pending = (execution for execution in session.unfinished.values() if not execution.is_answered)
            return ExecutionHandle(next(pending, session.latest), session)
        row = await self._store.last_execution(info.key)
        if row is None:
            raise NothingRunning(session_id)
        return await self._stored(session_id, row, lost_reply=False)

    async def _stored(self, session_id: str, row: ExecutionRow, *, lost_reply: bool) -> ExecutionHandle:
        result = await beside.large(len(row.outputs), results.from_row, session_id, row, self.sandbox, lost_reply)
        return ExecutionHandle.of_row(row, result)

    # Sessions

    def observe(self, session_id: str, observer: SessionObserver | None) -> None:
        """From now on somebody sees what goes on in a session, whenever it has a kernel; None: nobody any more."""
        if observer is None:
            self.observers.pop(session_id, None)
        else:
            self.observers[session_id] = observer
        if (session := self._sessions.get(session_id)) is not None:
            session.observer = observer

    async def session(self, session_id: str, origin: Origin) -> Session:
        """A session, made if there is none. It is kept until it has come to rest."""
        session = await self._session(check_session_id(session_id), origin)
        self._kept.add(session)
        return session

    async def _session(self, session_id: str, origin: Origin) -> Session:
        async with self._creating.setdefault(session_id, asyncio.Lock()):
            session = self._sessions.get(session_id)
            if session is None or await self._may_choose_anew(session, origin):
                session = await self._load_session(session_id, origin)
                self._sessions[session_id] = session
            return session

    async def _load_session(self, session_id: str, origin: Origin) -> Session:
        found = await self._store.find_session(session_id)
        expired_at = prepared = None
        if found is None:
            spec = await asyncio.to_thread(self.confinement.fix, origin.grants)
            prepared = None if self.standby is None else self.standby.take(spec)
            name = directories.new_name() if prepared is None else prepared.workspace.name
            if prepared is None:
                await self._make_workspace(name)
            try:
                versions = None if prepared is None else (prepared.kernel.python, prepared.kernel.packages)
                key, expired_at = await self._store.create_session(session_id, name, spec.dump(), versions)
            except BaseException:
                if prepared is not None:
                    await standby.discard(prepared)
                raise
        else:
            info, stored = found
            if info.damaged:
                raise SessionDamaged(session_id)
            key, name = info.key, info.workspace
            spec = before = SessionSpec.load(stored)
            if info.total_executions == 0 and before.python != origin.grants.python:
                # No kernel ever came up in it: what was wrong may have been the interpreter.
                spec = replace(before, python=origin.grants.python)
            spec = self.confinement.admit(session_id, spec)
            await self._make_workspace(name)
            if spec != before:
                await self._store.fix_session(key, spec.dump())
        session = Session(
            session_id,
            self.confinement.launch(self._workspace(name), spec),
            spec.limits,
            StoreRecorder(key, self._store, spec.limits),
            self.services,
            sandbox=self.sandbox,
        )
        self._keys[session] = key
        session.observer = self.observers.get(session_id)
        self._kept.add(session)
        await self._give(session, prepared)
        if found is not None and found[0].miscounted:
            await self._store.recount(key)
            session.greeting = remarks.MISCOUNTED
        elif found is None:
            session.greeting = remarks.greeting(session_id, expired_at, self.losses) or origin.grants.note or None
        return session

    async def _give(self, session: Session, prepared: StandbyKernel | None) -> None:
        """Let a session begin with a kernel that is ready; if that has ended meanwhile, it starts one itself."""
        if prepared is not None:
            try:
                await session.slot.adopt(prepared.kernel)
            except KernelDied:
                await prepared.kernel.stop()

    async def _may_choose_anew(self, session: Session, origin: Origin) -> bool:
        """Whether a session has never had a kernel, and is asked for with another interpreter."""
        python = origin.grants.python or self.confinement.python
        if session.pid is not None or session.busy or session.state is State.DELETED or session.launch.python == python:
            return False
        found = await self._store.find_session(session.session_id or "")
        return found is not None and found[0].total_executions == 0

    async def _make_workspace(self, name: str) -> None:
        try:
            await asyncio.to_thread(self.confinement.make_workspace, self._workspace(name))
        except OSError as error:
            raise DirectoryFailed(self._workspace(name), error.strerror) from error

    def _workspace(self, name: str) -> Path:
        return directories.workspaces(self.data_dir) / name

    async def workspace(self, session_id: str) -> Path:
        """The directory that belongs to a session. Raises UnknownSession."""
        info, _ = await self._known(session_id)
        return self._workspace(info.workspace)

    async def _known(self, session_id: str) -> tuple[SessionInfo, dict[str, Any]]:
        found = await self._store.find_session(check_session_id(session_id))
        if found is None:
            raise UnknownSession(session_id, await self._store.similar_ids(session_id))
        return found

    async def list_sessions(self, request: PageRequest = ALL) -> Page[SessionView]:
        """The latest used first. Raises InvalidArgument for a cursor that is none."""
        infos = await self._store.list_sessions(request)
        return Page(map(self._view, infos), infos.total, infos.next_cursor)

    def loaded(self) -> dict[str, Session]:
        """The sessions that are in memory now, by their id: those with a kernel, and those that somebody uses."""
        return dict(self._sessions)

    def kernels(self) -> dict[str, int]:
        """Of each session that is awake, the process id of its kernel."""
        return {name: session.pid for name, session in self._sessions.items() if session.pid is not None}

    async def unused_sessions(self, since: datetime | None) -> list[SessionInfo]:
        """Sessions at rest that nobody has used since then (None: no such), or that are marked inactive."""
        infos = await self._store.unused_sessions(since)
        return [info for info in infos if self._view(info).kernel != State.BUSY.value]

    def _view(self, info: SessionInfo) -> SessionView:
        session = self._sessions.get(info.session_id)
        if session is None:
            return SessionView(info, "asleep", None, self.sandbox)
        return SessionView(info, session.kernel_state, session.pid, session.sandbox)

    async def list_variables(self, session_id: str, request: PageRequest = ALL) -> Page[Variable]:
        """Answered from the store, so it works while the session is busy or asleep. Raises UnknownSession."""
        info, _ = await self._known(session_id)
        return await self._store.variables(info.key, request)

    async def history(self, session_id: str, after: int, capacity: int) -> list[ExecutionRow]:
        """What has run in a session, in its order, behind row `after`: as much as takes `capacity` bytes."""
        info, _ = await self._known(session_id)
        return await self._store.executions(info.key, after, capacity)

    async def latest_executions(self, session_id: str, count: int) -> tuple[list[ExecutionRow], int]:
        """The last `count` executions in their order, without outputs, and how many there are in all."""
        info, _ = await self._known(session_id)
        return await self._store.latest_executions(info.key, count), info.total_executions

    async def rename(self, session_id: str, new_id: str) -> None:
        """Give a session another id. Its kernel goes on. Raises UnknownSession, SessionExists, SessionInUse."""
        async with contextlib.AsyncExitStack() as held:
            for name in sorted({session_id, check_session_id(new_id)}):
                await held.enter_async_context(self._creating.setdefault(name, asyncio.Lock()))
            info, _ = await self._known(session_id)
            if info.damaged:
                raise SessionDamaged(session_id)
            session = self._sessions.get(session_id)
            if session_id in self.observers or (session is not None and session.busy):
                raise SessionInUse(session_id, attached=session_id in self.observers)
            await self._store.rename_session(info.key, new_id)
            if session is not None:
                session.session_id = new_id
                self._sessions[new_id] = self._sessions.pop(session_id)

    async def clear(self, session_id: str, origin: Origin) -> int:
        """Forget the variables of a session; history and workspace stay. Returns how many there were."""
        info, _ = await self._known(session_id)
        session = await self._session(session_id, origin)
        await session.clear()
        return info.variable_count

    async def grant(
        self, session_id: str, read: Sequence[str], write: Sequence[str], revoke: Sequence[str]
    ) -> tuple[Access, bool]:
        """Change what a session may reach beside its workspace. Raises UnknownSession, AccessRefused.

        Returns what it may reach now, and whether its kernel has to be ended first: one with names that are
        not saved is not ended for this.
        """
        info, stored = await self._known(session_id)
        if info.damaged:
            raise SessionDamaged(session_id)
        before = SessionSpec.load(stored)
        spec = await asyncio.to_thread(self.confinement.regrant, before, read, write, revoke)
        if spec == before:
            return spec.access, False
        await self._store.fix_session(info.key, spec.dump())
        session = self._sessions.get(session_id)
        self.confinement.regranted(info.workspace, spec, lives=session is not None and session.pid is not None)
        if session is None:
            return spec.access, False
        session.launch = self.confinement.launch(session.launch.workspace, spec)
        if session.busy or session.unsaved or session.store_is_behind:
            return spec.access, session.pid is not None
        await session.hibernate()
        self.confinement.regranted(info.workspace, spec, lives=False)
        return spec.access, False

    async def delete(self, session_id: str, origin: Origin) -> None:
        """Delete a session with everything it has, running or not. Raises UnknownSession."""
        info, _ = await self._known(session_id)
        if info.damaged:
            await self._store.delete_session(info.key)  # which directory it had is not certain any more: it stays
            return
        session = await self._session(session_id, origin)
        await self._remove(session_id, session)

    async def expire(self, session_id: str, unused_since: str) -> bool:
        """Delete a session, unless it has been used since then; whether it is gone."""
        if await self._store.find_session(session_id) is None:
            return False
        session = await self._session(session_id, Origin())
        found = await self._store.find_session(session_id)
        if found is None or found[0].last_used_at != unused_since or session.busy:
            return False
        await self._remove(session_id, session, remember=True)
        self.services.emit("expired", session=session_id)
        return True

    async def _remove(self, session_id: str, session: Session, *, remember: bool = False) -> None:
        await session.delete()
        try:
            await self._store.delete_session(self._keys[session], remember=remember)
        finally:
            self._kept.discard(session)
            self.confinement.exposure.forget(session.launch.workspace.name)
            if self._sessions.get(session_id) is session:
                del self._sessions[session_id]
            if session_id in self.observers:
                self.observers[session_id].deleted()

    # Idleness and end

    def live(self) -> int:
        """How many kernels there are, or will be in a moment."""
        return len(self._transient) + sum(1 for s in self._sessions.values() if s.pid is not None or s.busy)

    def busy(self) -> bool:
        creating = any(lock.locked() for lock in self._creating.values())  # for code that is about to run
        return creating or bool(self._transient) or any(session.busy for session in self._sessions.values())

    async def tidy(self) -> float | None:
        """Stop kernels that have idled long enough, and forget who sleeps; returns when the next may be due, in s."""
        due = await self.capacity.hibernate_idle()
        self._kept = {session for session in self._kept if not session.dispensable}
        await self._store.collect_if_due()
        return due

    async def close(self) -> None:
        """End all kernels. Sessions stay in the store."""
        self.capacity.close()
        # Together: each may take as long as its kernel is given for a last audit.
        await asyncio.gather(*(s.close() for s in (*self._sessions.values(), *self._transient)), *self._ending)
