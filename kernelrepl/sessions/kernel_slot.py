"""The place of one session's kernel: started with all that the session has, watched, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from kernelrepl.errors import PackagesNotInstalled
from kernelrepl.kernel import Kernel, KernelDied, Launch
from kernelrepl.kernel.flood import Verdict
from kernelrepl.kernel.kernel import Handlers
from kernelrepl.model import Commit, Limits, NotRestored, Restored
from kernelrepl.packages import Installed, layers
from kernelrepl.sessions.capacity import Occupant
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.lifecycle import Event, State, advance
from kernelrepl.sessions.recorder import Recorder
from kernelrepl.sessions.resource_monitor import FULL_FILE_BYTES, ResourceMonitor
from kernelrepl.sessions.save_state import SaveState
from kernelrepl.sessions.services import Services
from kernelrepl.sessions.starting import Starter


class SlotOwner(Occupant, Protocol):
    """The session that has a slot. It hears from the slot what its kernel says, and what becomes of it."""

    def on_begin(self, request: str) -> None:
        """The kernel has begun to run a request."""

    async def on_commit(self, commit: Commit) -> None:
        """The kernel commits. Returns when that is in the store. Raises StorageFailed."""

    def on_output(self, parent: str, kind: str, content: dict[str, Any]) -> None:
        """The kernel shows something that belongs to the outputs of a request."""

    def on_message(self, message: dict[str, Any]) -> None:
        """The kernel publishes a message of the Jupyter protocol, as it came."""

    async def ask_person(self, text: str) -> bool | None:
        """What runs wants a person to decide something. Returns None if nobody can be asked."""

    def on_overrun(self, reason: str, kill: bool) -> None:
        """The kernel takes too much. kill: it has to end; else it is enough that its code stops."""

    def on_restart(self) -> None:
        """The kernel is gone, without having been at rest: what only the kernel had is lost."""


class KernelSlot:
    """This object has the kernel of a session, or none. It starts the kernel, watches it and ends it."""

    def __init__(
        self, owner: SlotOwner, launch: Launch, limits: Limits, recorder: Recorder, services: Services
    ) -> None:
        self.launch = launch
        """How the next kernel is started."""
        self.state = State.ASLEEP
        self.kernel: Kernel | None = None
        self.renewed = asyncio.Event()
        """Set when there is another kernel than before."""
        self.save_state = SaveState(recorder, services.emit, owner, launch.workspace)
        self.monitor = ResourceMonitor(
            launch.resources, launch.workspace, owner.on_overrun, lambda size: services.capacity.weigh(owner, size)
        )
        self._owner = owner
        self._recorder = recorder
        self._services = services
        self._starter = Starter(recorder, services, limits, durable=owner.session_id is not None)
        self._watches: list[asyncio.Task[None]] = []
        self._ending: asyncio.Task[None] | None = None

    # What others see

    @property
    def pid(self) -> int | None:
        return None if self.kernel is None else self.kernel.pid

    @property
    def python(self) -> str:
        """The version of Python that its kernel runs; empty if it has none."""
        return "" if self.kernel is None else self.kernel.python

    @property
    def is_as_new(self) -> bool:
        """Whether nothing is known here that another slot for the same session would not find out."""
        return self.kernel is None and not self._starter.has_suspect and self.monitor.over_file_limit is None

    @property
    def has_outlived_limit(self) -> bool:
        """Whether its kernel may write no large files, although there is room for them again."""
        limited = self.kernel is not None and self.kernel.process.launch.most_file_bytes is not None
        return limited and self.monitor.over_file_limit is None

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the system has ended its kernel for the memory that it took."""
        return self.kernel is not None and self.kernel.process.out_of_memory

    # The beginning of a kernel

    async def awake(self, execution: Execution | None = None) -> Kernel:
        """Return the kernel, started and restored if there is none. execution: it is told what came back.

        Raises KernelStartFailed, SandboxUnavailable, AccessRefused.
        """
        if self.kernel is not None and self.kernel.process.alive():
            return self.kernel
        if self.kernel is not None:
            await self.note_death(KernelDied(self.kernel.process.exit_code, self.kernel.loading))
            await self.drop()
        await self._services.capacity.enter(self._owner)
        self._advance(Event.START)
        launch = replace(self.launch, most_file_bytes=None if self.monitor.over_file_limit is None else FULL_FILE_BYTES)
        began, known = asyncio.get_running_loop().time(), {*self._layers()}
        try:
            kernel, restored = await self._starter.start(launch, self._handlers())
        except BaseException:
            self._services.capacity.leave(self._owner)
            self._advance(Event.DIED)
            raise
        self._take(kernel, kernel.process.how, began, restored)
        for number in sorted({*self._layers()} - known):  # they have come while it started
            await kernel.tell_installed(Installed(number))
        if execution is None:
            self.save_state.lose(restored.not_restored)  # the next result tells
        elif restored.names or restored.not_restored:
            execution.take_restored(restored)
        return kernel

    async def adopt(self, kernel: Kernel) -> None:
        """Begin with a kernel that has been started for whoever comes. Raises KernelDied; then it is the caller's."""
        await self._services.capacity.enter(self._owner)
        began = asyncio.get_running_loop().time()
        try:
            await self._starter.adopt(kernel, self._handlers())
        except BaseException:
            self._services.capacity.leave(self._owner)
            raise
        self._advance(Event.START)
        self._take(kernel, "standby", began, Restored(), fresh=True)

    def _handlers(self) -> Handlers:
        owner = self._owner
        return Handlers(
            owner.on_begin,
            self._recorder.stage,
            owner.on_commit,
            owner.on_output,
            self._recorder,
            self._on_loaded,
            lambda verdict: owner.on_overrun("the code wrote too much", verdict is Verdict.KILL),
            lambda reason: owner.on_overrun(reason, True),
            owner.on_message,
            self._on_install,
        )

    def _take(self, kernel: Kernel, how: str, began: float, restored: Restored, *, fresh: bool = False) -> None:
        self.kernel = kernel
        self._advance(Event.READY)
        self.renewed.set()
        self._watches = [
            asyncio.create_task(self._watch_idle_death(kernel)),
            asyncio.create_task(self.monitor.watch(kernel, lambda: self._owner.busy, fresh=fresh)),
        ]
        self._services.emit(
            "kernel_started",
            session=self._owner.session_id,
            how=how,
            seconds=asyncio.get_running_loop().time() - began,
            restored=len(restored.names),
            not_restored=len(restored.not_restored),
        )

    # Its work

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Mark the kernel as busy until code has come to its end in it. If it raises, the kernel has to be dropped."""
        self.monitor.begin()
        self._advance(Event.RUN)
        yield
        self._advance(Event.DONE)

    async def audit(self) -> None:
        """Let a kernel at rest commit what its commits have missed."""
        if self.kernel is not None and self.state is State.IDLE:
            await self.kernel.audit()

    def _on_loaded(self, key: int | None, lost: tuple[NotRestored, ...]) -> None:
        """The kernel has loaded what waited until it was needed."""
        self._starter.loaded(key)
        self.save_state.lose(lost)

    # Packages of its session

    async def install(self, names: Sequence[str]) -> Installed:
        """Install packages that a person wants, and let a kernel that lives have them. Raises KernelReplError."""
        found = await self._services.packages.add(*await self._for_packages(), names)
        if self.kernel is not None:
            await self.kernel.tell_installed(found)
        return found

    async def _on_install(self, names: list[str]) -> Installed:
        """Install packages that code asks for. Raises KernelReplError."""
        if self._owner.session_id is None:
            raise PackagesNotInstalled(names, "a call without session_id keeps nothing; give one")
        return await self._services.packages.request(*await self._for_packages(), names, self._owner.ask_person)

    def _layers(self) -> list[int]:
        """Return the numbers of the layers that its session has."""
        return layers.numbers(layers.home(self.launch.workspace))

    async def _for_packages(self) -> tuple[str, Path, str]:
        """Return session, workspace and interpreter. Raises what a start raises if the interpreter may not be run."""
        launch = await self.launch.planned()
        python = shutil.which(launch.python, path=launch.environment.get("PATH")) or launch.python
        return self._owner.session_id or "", launch.workspace, python

    # Its end

    async def _watch_idle_death(self, kernel: Kernel) -> None:
        await kernel.ended.wait()
        if self.kernel is kernel and self.state is State.IDLE:
            self._services.emit("kernel_died", session=self._owner.session_id, exit_code=kernel.process.exit_code)
            if self.ran_out_of_memory:
                self._owner.on_overrun(self.monitor.memory_reached, True)
            self._owner.on_restart()

    async def note_death(self, error: KernelDied) -> None:
        """Note that its kernel has ended by itself: what it was loading then is suspected of that."""
        await self._starter.note_death(error)

    async def kill(self) -> None:
        """End the process of its kernel, if there is one. The slot has the kernel until it is dropped."""
        if self.kernel is not None:
            await self.kernel.process.kill()

    async def drop(self) -> None:
        """Have no kernel any more: end it at once, with all that only it has."""
        kernel, self.kernel = self.kernel, None
        if kernel is None:
            return
        for watch in self._watches:
            watch.cancel()
        self._watches = []  # one that was cancelled knows where, and so holds the kernel with all that it had
        # To its end, even if whoever waits here is cancelled: it would leave sockets and directories behind.
        self._ending = asyncio.create_task(kernel.stop())
        await asyncio.shield(self._ending)
        self._services.capacity.leave(self._owner)
        self.save_state.forget()
        await self._recorder.discard_staged()
        if self.state in (State.IDLE, State.BUSY, State.STOPPING):
            self._advance(Event.DIED)

    async def stop(self) -> None:
        """Have no kernel any more, on purpose."""
        if self.state is not State.ASLEEP:
            self._advance(Event.STOP)
            await self.drop()
            self._advance(Event.STOPPED)

    async def stopped(self) -> None:
        """Wait for the end of a kernel that is being dropped."""
        if self._ending is not None:
            await self._ending

    def retire(self) -> None:
        """Never have a kernel again: the session is deleted. It may be said twice."""
        if self.state is State.ASLEEP:
            self._advance(Event.DELETE)

    def _advance(self, event: Event) -> None:
        self.state = advance(self.state, event)
