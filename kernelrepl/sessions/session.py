"""One session: its kernel (none or one), its rows, its queue of executions.

An execution belongs to the session, not to the call that asked for it: it goes on when the caller stops
waiting. Executions of one session run one after the other, in the order they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from kernelrepl.errors import KernelStartFailed, SessionDeleted
from kernelrepl.kernel import Kernel, KernelDied, Launch
from kernelrepl.kernel.kernel import START_TIMEOUT_S
from kernelrepl.model import Commit, ExecutionResult, JupyterRequest, Limits
from kernelrepl.outputs import beside, shortening
from kernelrepl.sessions import results
from kernelrepl.sessions.confinement import OFF
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.interruption import Interrupter
from kernelrepl.sessions.kernel_slot import KernelSlot
from kernelrepl.sessions.lifecycle import State
from kernelrepl.sessions.observer import SessionObserver
from kernelrepl.sessions.recorder import Recorder
from kernelrepl.sessions.resource_monitor import ROOM_AGAIN
from kernelrepl.sessions.services import Services
from kernelrepl.sessions.starting import STARTS_PER_CALL
from kernelrepl.workspaces import directories


class Session:
    """A session queues executions and has them run, one after the other, by the kernel in its slot."""

    def __init__(
        self,
        session_id: str | None,
        launch: Launch,
        limits: Limits,
        recorder: Recorder,
        services: Services,
        *,
        sandbox: str,
    ) -> None:
        self.session_id = session_id
        self.sandbox = sandbox
        self.slot = KernelSlot(self, launch, limits, recorder, services)
        self.observer: SessionObserver | None = None
        self.current: Execution | None = None
        """What the kernel runs."""
        self.latest: Execution | None = None
        self.waiting = 0
        self.unfinished: dict[str, Execution] = {}
        """Executions by request id, queued or running; no answered ones."""
        self.uncollected = results.Uncollected()
        self.asked: JupyterRequest | None = None
        """What a Jupyter client has asked the kernel beside its executions, and is not answered yet."""
        self.greeting: str | None = None
        """What the first result says about how this session came to be."""
        self.idle_since: float = asyncio.get_running_loop().time()
        self._recorder = recorder
        self._services = services
        self._tasks: set[asyncio.Task[Any]] = set()
        self._interrupter = Interrupter(lambda: (self.slot.kernel, self.current), self._spawn)
        self._turn = asyncio.Lock()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What others see

    @property
    def state(self) -> State:
        """The state of its kernel."""
        return self.slot.state

    @property
    def pid(self) -> int | None:
        """The process of its kernel, if it has one."""
        return self.slot.pid

    @property
    def python(self) -> str:
        """The version of Python that its kernel runs; empty if it has none."""
        return self.slot.python

    @property
    def unsaved(self) -> set[str]:
        """The names whose values only the kernel has."""
        return self.slot.save_state.unsaved

    @property
    def store_is_behind(self) -> bool:
        """Whether the kernel has changes that the store has not: the last commit failed."""
        return self.slot.save_state.store_is_behind

    @property
    def launch(self) -> Launch:
        """How the next kernel is started."""
        return self.slot.launch

    @launch.setter
    def launch(self, launch: Launch) -> None:
        self.slot.launch = launch

    @property
    def busy(self) -> bool:
        """Whether it has something to do. What is left to do after an answer keeps nobody waiting."""
        answered = self.current is not None and self.current.is_answered
        return self.waiting > 0 or (self._turn.locked() and not answered)

    @property
    def kernel_state(self) -> str:
        """What lists say of its kernel."""
        return (State.IDLE if self.state is State.BUSY and not self.busy else self.state).value

    @property
    def dispensable(self) -> bool:
        """Whether all of it is in the store: another one can take its place."""
        at_rest = self.slot.is_as_new and not self.busy
        return self.state is State.DELETED or (at_rest and not self.uncollected and self.greeting is None)

    def running(self, execution: Execution) -> ExecutionResult:
        """The execution as far as it has come."""
        return results.running(execution, self.session_id, self.sandbox, self.unfinished.values())

    # Executions

    def submit(self, execution: Execution) -> Execution:
        """Queue an execution. Its result arrives in `execution.result`, whether or not anybody waits."""
        self.waiting += 1
        self.latest = execution
        self.unfinished[execution.request_id] = execution
        # Answered, its id may come again, even before its kernel has come to its end.
        execution.result.add_done_callback(lambda _: self.unfinished.pop(execution.request_id))
        self._spawn(self._run(execution))
        return execution

    async def _run(self, execution: Execution) -> None:
        try:
            async with self._turn:
                self.waiting -= 1
                if execution.is_answered:
                    return
                self._refuse_deleted()
                execution.start()
                result = await self._execute(execution)
                self._services.emit("executed", session=self.session_id, status=result.status)
                await self.slot.monitor.look_again()
                self._answer(execution, result)
                await self._leave_limits()
        except BaseException as error:
            self.idle_since = asyncio.get_running_loop().time()
            if not execution.is_answered:
                execution.fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            if self.latest is execution and execution.is_heavy:
                self.latest = None  # whoever asks for it gets it from the store
            execution.end()
            if self.observer is not None:
                self.observer.ended(execution)
            self._services.capacity.rest()

    async def _execute(self, execution: Execution) -> ExecutionResult:
        if execution.reset:
            await self._clear()
        for _ in range(STARTS_PER_CALL):
            kernel = await self.slot.awake(execution)
            if execution.row is None and not execution.is_answered:
                execution.take_row(await self._recorder.record_start(execution))
            if execution.is_answered:  # interrupted while the kernel started: nothing of it runs
                await self._recorder.finish(execution, "interrupted")
                return execution.result.result()
            try:
                await self._run_in(kernel, execution)
            except KernelDied as error:
                if not execution.may_be_sent_again:
                    return await self._crashed(execution, error)
                execution.lose_kernel()
                await self.slot.drop()
                continue
            return execution.result.result() if execution.is_answered else self._result(execution)
        raise KernelStartFailed(f"the kernel ended {STARTS_PER_CALL} times before it could run the code")

    def _answer(self, execution: Execution, result: ExecutionResult) -> None:
        if not execution.is_answered:
            greeting, self.greeting = self.greeting, None
            # Now, and not again when its kernel has come to its end: others may have been used in the meantime.
            self.idle_since = asyncio.get_running_loop().time()
            execution.answer(results.noted(result, greeting, self.slot.monitor.over_file_limit))

    async def _leave_limits(self) -> None:
        """End a kernel that may write no large files, now that there is room: before anything else runs in it."""
        if self.slot.has_outlived_limit:
            await self.slot.audit()
            await self.slot.stop()
            self.greeting = f"{ROOM_AGAIN}: the kernel was ended between two calls"
            self.on_restart()

    def _answer_early(self, execution: Execution) -> None:
        """All is known and stored: that the kernel has yet to come to its end need keep nobody waiting."""
        commit = execution.commit
        if commit is not None and commit.outcome is not None and self.slot.monitor.over_file_limit is None:
            self._answer(execution, self._result(execution))

    async def _run_in(self, kernel: Kernel, execution: Execution) -> None:
        self.current = execution
        execution.send()
        if self.observer is not None:
            self.observer.began(execution)
        try:
            with self.slot.working(), self._interrupter.watching(execution):
                if execution.cell is None:
                    execution.take_reply(await kernel.execute(execution.msg_id, execution.code))
                else:
                    execution.take_reply(await kernel.ask(execution.cell))
        finally:
            self.current = None

    async def interrupt(self, execution: Execution, *, force: bool = False) -> None:
        """Stop one execution: where it runs, or before it starts. `force` ends the kernel at once."""
        if execution.is_answered and execution is not self.current:
            return
        execution.stop()
        if execution is self.current:
            await (self._interrupter.kill(execution) if force else self._interrupter.stop(execution))
        elif execution.is_waiting:
            execution.answer(results.withdrawn(execution, self.session_id, self.sandbox))
            execution.end()

    # Results

    def _result(self, execution: Execution) -> ExecutionResult:
        resources = None if self.sandbox == OFF else self.launch.resources
        return results.committed(execution, self.session_id, self.sandbox, resources)

    async def _crashed(self, execution: Execution, error: KernelDied) -> ExecutionResult:
        self._services.emit("kernel_died", session=self.session_id, exit_code=error.exit_code)
        if self.slot.ran_out_of_memory:
            execution.stop(reason=self.slot.monitor.memory_reached)
        if execution.stopped_by is None:
            await self.slot.note_death(error)
        await self.slot.drop()
        self.on_restart()
        if execution.commit is not None and execution.commit_error is None:  # it is stored; only the reply is missing
            return results.without_reply(self._result(execution), str(error))
        await self.slot.save_state.look(execution)
        await self._recorder.finish(execution, results.crash_status(execution))
        how = (execution, self.session_id, self.sandbox, str(error), error.exit_code)
        return await beside.large(execution.live.chars, results.crashed, *how)

    # What the kernel tells, by way of its slot

    def on_overrun(self, reason: str, kill: bool) -> None:
        """It takes too much: stop what runs, or end its kernel."""
        execution = self.current
        if execution is not None and not (kill and execution.is_answered):  # what has its answer tells nothing any more
            execution.stop(reason=reason)
            self._spawn(self._interrupter.kill(execution) if kill else self._interrupter.stop(execution))
        elif kill and self.slot.kernel is not None:
            self.greeting = f"{reason}: the kernel was ended between two calls"
            self._spawn(self.slot.kernel.process.kill())

    async def ask_person(self, text: str) -> bool | None:
        """What runs wants a person to decide something. Returns None if nobody can be asked."""
        return None if self.current is None else await self.current.ask(text)

    def on_begin(self, request: str) -> None:
        if self.current is not None and self.current.msg_id == request:
            self.current.begin()

    async def on_commit(self, commit: Commit) -> None:
        execution = self.current if self.current is not None and self.current.msg_id == commit.request else None
        await self.slot.save_state.commit(execution, commit, self._answer_early)

    def on_output(self, parent: str, kind: str, content: dict[str, Any]) -> None:
        execution = self.current
        if execution is not None and execution.msg_id == parent and kind != "status":
            execution.show(kind, content)

    def on_message(self, message: dict[str, Any]) -> None:
        """Whoever observes the session sees what its kernel publishes."""
        if self.observer is not None:
            self.observer.published(message)

    def on_restart(self) -> None:
        """What only the kernel had is lost: whoever observes the session is told."""
        if self.observer is not None:
            self.observer.restarted()

    # What is asked of the session beside executions

    def _refuse_deleted(self) -> None:
        if self.state is State.DELETED:
            raise SessionDeleted(self.session_id or "")

    async def clear(self) -> None:
        """Forget all variables, in turn with the executions."""
        async with self._turn:
            self._refuse_deleted()
            await self._clear()

    async def _clear(self) -> None:
        await self.slot.stop()
        await self._recorder.clear()
        self.on_restart()

    async def hibernate(self, why: str | None = None) -> None:
        """Stop the kernel and keep the session. why: what it has to make room for, if it has."""
        async with self._turn:
            await self.slot.audit()
            lost = sorted(map(results.in_words, self.unsaved))
            await self.slot.stop()
            if why and lost:
                self.greeting = (
                    f"the kernel was stopped to make room ({why}); not saved, and gone: {shortening.listed(lost)}"
                )

    async def restart(self) -> None:
        """A new process with all that is stored. Stops what runs in the one that there is."""
        stopped = self.current is not None or self.asked is not None
        self.slot.renewed.clear()
        await self._kill_running()
        if stopped and self.waiting:
            # Whoever is next in the queue gets the new one, and need not end first.
            await asyncio.wait_for(self.slot.renewed.wait(), START_TIMEOUT_S)
            return
        async with self._turn:
            self._refuse_deleted()
            await self.slot.audit()
            lost = sorted(map(results.in_words, self.unsaved))
            await self.slot.stop()
            if lost:
                self.greeting = f"the kernel was restarted; not saved, and gone: {shortening.listed(lost)}"
            await self.slot.awake()

    async def _kill_running(self) -> None:
        """End the kernel if it is at something."""
        if self.current is not None:
            await self.interrupt(self.current, force=True)
        elif self.asked is not None:
            await self.slot.kill()

    async def wake(self) -> None:
        """Have a kernel, so that the next to ask need not wait for one."""
        async with self._turn:
            self._refuse_deleted()
            await self.slot.awake()

    async def ask(self, request: JupyterRequest) -> dict[str, Any] | None:
        """Pass on what a Jupyter client asks, in turn with the executions. Raises KernelDied and what a start raises.

        Returns the reply, if its kind has one.
        """
        async with self._turn:
            self._refuse_deleted()
            kernel = await self.slot.awake()
            self.asked = request
            try:
                with self._interrupter.soon(kernel, request.kind):
                    return await kernel.ask(request)
            finally:
                self.asked = None
                self.idle_since = asyncio.get_running_loop().time()
                self._services.capacity.rest()

    def interrupt_asked(self, request: JupyterRequest) -> None:
        """Stop what a client has asked, if that is what the kernel is at."""
        if self.asked is request and self.slot.kernel is not None:
            self.slot.kernel.interrupt()

    def answer(self, value: str) -> None:
        """What a person typed, for code that waits for it."""
        if self.slot.kernel is not None:
            self.slot.kernel.answer(value)

    async def delete(self) -> None:
        """End everything at once, a running execution too, and remove the workspace."""
        if self.current is not None:
            self.current.stop()
        if self.current or self.asked:
            await self.slot.kill()
        async with self._turn:
            await self.slot.stop()
            self.slot.retire()
            await asyncio.to_thread(directories.remove, self.launch.workspace)

    async def close(self) -> None:
        """End the kernel: the keeper stops."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.slot.stopped()
        if self.asked is None:
            await self.slot.audit()
        await self.slot.drop()
