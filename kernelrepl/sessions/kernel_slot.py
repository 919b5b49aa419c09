"""The place of one session's kernel: started with all that the session has, watched, and ended."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from kernelrepl.kernel import Kernel, KernelDied, Launch
from kernelrepl.kernel.flood import Verdict
from kernelrepl.kernel.kernel import Handlers
from kernelrepl.model import Commit, Limits, NotRestored, Restored
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.lifecycle import Event, State, advance
from kernelrepl.sessions.recorder import Recorder
from kernelrepl.sessions.resource_monitor import FULL_FILE_BYTES, ResourceMonitor
from kernelrepl.sessions.save_state import SaveState
from kernelrepl.sessions.services import Services
from kernelrepl.sessions.starting import Starter


class SessionObserver(Protocol):
    """Somebody who sees all that goes on in the kernel of a session."""

    def began(self, execution: Execution) -> None: ...

    def ended(self, execution: Execution) -> None: ...

    def published(self, message: dict[str, Any]) -> None: ...

    def restarted(self) -> None:
        """Its kernel is gone, without having been at rest: what only the kernel had is lost."""

    def deleted(self) -> None:
        """The session is gone. There may be another one with its name."""


class KernelSlot(ABC):
    """Has a kernel or none. What the kernel runs is the business of who inherits from this."""

    idle_since: float

    def __init__(
        self, session_id: str | None, launch: Launch, limits: Limits, recorder: Recorder, services: Services
    ) -> None:
        self.session_id = session_id
        self.launch = launch
        self.limits = limits
        self.state = State.ASLEEP
        self.current: Execution | None = None
        """What the kernel runs."""
        self.observer: SessionObserver | None = None
        self._recorder = recorder
        self._services = services
        self._save_state = SaveState(recorder, services.emit, session_id)
        self._starter = Starter(recorder, services, limits, durable=session_id is not None)
        self._kernel: Kernel | None = None
        self._renewed = asyncio.Event()
        """Set when there is another kernel than before."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watches: list[asyncio.Task[None]] = []
        self._ending: asyncio.Task[None] | None = None
        self._monitor = ResourceMonitor(
            launch.resources, launch.workspace, self._overrun, lambda size: services.capacity.weigh(self, size)
        )

    @property
    def unsaved(self) -> set[str]:
        """The names whose values only the kernel has."""
        return self._save_state.unsaved

    @property
    def store_is_behind(self) -> bool:
        """Whether the kernel has changes that the store has not: the last commit failed."""
        return self._save_state.store_is_behind

    @property
    def pid(self) -> int | None:
        return None if self._kernel is None else self._kernel.pid

    @property
    def python(self) -> str:
        """The version of Python that its kernel runs; empty if it has none."""
        return "" if self._kernel is None else self._kernel.python

    @property
    @abstractmethod
    def busy(self) -> bool: ...

    @abstractmethod
    async def hibernate(self, why: str | None = None) -> None: ...

    @abstractmethod
    def _on_begin(self, request: str) -> None: ...

    @abstractmethod
    async def _on_commit(self, commit: Commit) -> None: ...

    @abstractmethod
    def _on_output(self, parent: str, kind: str, content: dict[str, Any]) -> None: ...

    @abstractmethod
    def _on_flood(self, verdict: Verdict) -> None: ...

    @abstractmethod
    def _overrun(self, reason: str, kill: bool) -> None: ...

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _advance(self, event: Event) -> None:
        self.state = advance(self.state, event)

    async def _awake(self, execution: Execution | None = None) -> Kernel:
        """The kernel of this session, started and restored if it has none. execution: what to tell of it."""
        if self._kernel is not None and self._kernel.process.alive():
            return self._kernel
        if self._kernel is not None:
            await self._starter.note_death(KernelDied(self._kernel.process.exit_code, self._kernel.loading))
            await self._drop_kernel()
        await self._services.capacity.enter(self)
        self._advance(Event.START)
        launch = replace(
            self.launch, most_file_bytes=None if self._monitor.over_file_limit is None else FULL_FILE_BYTES
        )
        began = asyncio.get_running_loop().time()
        try:
            kernel, restored = await self._starter.start(launch, self._handlers())
        except BaseException:
            self._services.capacity.leave(self)
            self._advance(Event.DIED)
            raise
        self._take(kernel, kernel.process.how, began, restored)
        if execution is None:
            self._save_state.lose(restored.not_restored)  # the next result tells
        elif restored.names or restored.not_restored:
            execution.take_restored(restored)
        return kernel

    async def adopt(self, kernel: Kernel) -> None:
        """Begin with a kernel that has been started for whoever comes. Raises KernelDied; then it is the caller's."""
        await self._services.capacity.enter(self)
        began = asyncio.get_running_loop().time()
        try:
            await self._starter.adopt(kernel, self._handlers())
        except BaseException:
            self._services.capacity.leave(self)
            raise
        self._advance(Event.START)
        self._take(kernel, "standby", began, Restored(), fresh=True)

    def _handlers(self) -> Handlers:
        return Handlers(
            self._on_begin, self._recorder.stage, self._on_commit, self._on_output, self._recorder, self._on_loaded,
            self._on_flood, lambda reason: self._overrun(reason, True), self._on_message,
        )  # fmt: skip

    def _take(self, kernel: Kernel, how: str, began: float, restored: Restored, *, fresh: bool = False) -> None:
        self._kernel = kernel
        self._advance(Event.READY)
        self._renewed.set()
        self._watches = [
            asyncio.create_task(self._watch_idle_death(kernel)),
            asyncio.create_task(self._monitor.watch(kernel.process, lambda: self.busy, fresh=fresh)),
        ]
        self._services.emit(
            "kernel_started",
            session=self.session_id,
            how=how,
            seconds=asyncio.get_running_loop().time() - began,
            restored=len(restored.names),
            not_restored=len(restored.not_restored),
        )

    async def _watch_idle_death(self, kernel: Kernel) -> None:
        await kernel.ended.wait()
        if self._kernel is kernel and self.state is State.IDLE:
            self._services.emit("kernel_died", session=self.session_id, exit_code=kernel.process.exit_code)
            if kernel.process.out_of_memory:
                self._overrun(self._monitor.memory_reached, True)
            self._tell_restart()

    async def _drop_kernel(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is None:
            return
        for watch in self._watches:
            watch.cancel()
        self._watches = []  # one that was cancelled knows where, and so holds the kernel with all that it had
        # To its end, even if whoever waits here is cancelled: it would leave sockets and directories behind.
        self._ending = asyncio.create_task(kernel.stop())
        await asyncio.shield(self._ending)
        self._services.capacity.leave(self)
        self._save_state.forget()
        await self._recorder.discard_staged()
        if self.state in (State.IDLE, State.BUSY, State.STOPPING):
            self._advance(Event.DIED)

    async def _audit(self) -> None:
        if self._kernel is not None and self.state is State.IDLE:
            await self._kernel.audit()

    async def _stop_kernel(self) -> None:
        if self.state is not State.ASLEEP:
            self._advance(Event.STOP)
            await self._drop_kernel()
            self._advance(Event.STOPPED)

    def _on_message(self, message: dict[str, Any]) -> None:
        if self.observer is not None:
            self.observer.published(message)

    def _tell_restart(self) -> None:
        if self.observer is not None:
            self.observer.restarted()

    def _on_loaded(self, key: int | None, lost: tuple[NotRestored, ...]) -> None:
        """The kernel has loaded what waited until it was needed."""
        self._starter.loaded(key)
        self._save_state.lose(lost)
