"""One session: its kernel (none or one), its rows, its queue of executions.

An execution belongs to the session, not to the call that asked for it: it goes on when the caller stops
waiting. Executions of one session run one after the other, in the order they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from kernelrepl import outcomes, trees
from kernelrepl.confinement import OFF
from kernelrepl.errors import KernelStartFailed, SessionDeleted, StorageFailed
from kernelrepl.job import Job
from kernelrepl.kernel import Kernel, KernelDied, Launch
from kernelrepl.kernel.kernel import Handlers
from kernelrepl.kernel.meter import Verdict
from kernelrepl.lifecycle import Event, State, advance
from kernelrepl.means import Means
from kernelrepl.model import Commit, Execution, Limits, NotRestored, Restored, Status
from kernelrepl.overseer import FULL_FILE_BYTES, Overseer
from kernelrepl.recorder import Recorder
from kernelrepl.starting import STARTS_PER_CALL, Starter
from kernelrepl.stopping import Stopper


class Session:
    """Conducts one kernel."""

    def __init__(
        self, session_id: str | None, launch: Launch, limits: Limits, recorder: Recorder, means: Means, *, sandbox: str
    ) -> None:
        self.session_id = session_id
        self.launch = launch
        self.limits = limits
        self.sandbox = sandbox
        self.state = State.ASLEEP
        self.current: Job | None = None
        self.latest: Job | None = None
        self.waiting = 0
        self.unfinished: dict[str, Job] = {}
        """Jobs by request id, queued or running; no answered ones."""
        self.uncollected: list[Job] = []
        """Jobs whose calls returned before they had ended, and whose outcome nobody has got yet."""
        self.greeting: str | None = None
        """What the first result says about how this session came to be."""
        self.unsaved: set[str] = set()
        self.behind = False  # the last commit failed: the kernel has changes that the store has not
        self.idle_since: float = asyncio.get_running_loop().time()
        self._recorder = recorder
        self._means = means
        self._starter = Starter(recorder, means, limits, durable=session_id is not None)
        self._kernel: Kernel | None = None
        self._stopper = Stopper(lambda: (self._kernel, self.current), self._spawn)
        self._lost: tuple[NotRestored, ...] = ()  # what could not be loaded, and no result has told yet
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watches: list[asyncio.Task[None]] = []
        self._ending: asyncio.Task[None] | None = None
        self._overseer = Overseer(
            launch.resources, launch.workspace, self._overrun, lambda size: means.room.weigh(self, size)
        )

    # What others see

    @property
    def busy(self) -> bool:
        """Whether it has something to do. What is left to do after an answer keeps nobody waiting."""
        return self.waiting > 0 or (self._turn.locked() and not self._answered)

    @property
    def _answered(self) -> bool:
        return self.current is not None and self.current.result.done()

    @property
    def kernel_state(self) -> str:
        """What lists say of its kernel."""
        return (State.IDLE if self.state is State.BUSY and not self.busy else self.state).value

    @property
    def pid(self) -> int | None:
        return None if self._kernel is None else self._kernel.pid

    @property
    def dispensable(self) -> bool:
        """Whether all of it is in the store: another one can take its place."""
        at_rest = self._kernel is None and not self.busy and self._starter.calm and self._overseer.full is None
        return self.state is State.DELETED or (at_rest and not self.uncollected and self.greeting is None)

    def running(self, job: Job) -> Execution:
        """The execution as far as it has come."""
        note = None if job.started else "waiting for earlier executions of this session"
        return Execution(
            self.session_id, "running", job.live.output(), sandbox=self.sandbox, note=note, request_id=job.request_id
        )

    # Executions

    def submit(self, job: Job) -> Job:
        """Queue an execution. Its result arrives in `job.result`, whether or not anybody waits."""
        self.waiting += 1
        self.latest = job
        self.unfinished[job.request_id] = job
        # Answered, its id may come again, even before its kernel has come to its end.
        job.result.add_done_callback(lambda _: self.unfinished.pop(job.request_id))
        self._spawn(self._run(job))
        return job

    async def _run(self, job: Job) -> None:
        try:
            async with self._turn:
                self.waiting -= 1
                if job.result.done():
                    return
                self._refuse_deleted()
                execution = await self._execute(job)
                self._means.emit("executed", session=self.session_id, status=execution.status)
                self._answer(job, execution)
        except BaseException as error:
            if not job.result.done():
                job.result.set_exception(error)
                job.result.exception()  # nobody may be waiting any more
            if not isinstance(error, Exception):
                raise
        finally:
            self.idle_since = asyncio.get_running_loop().time()
            self._means.room.rest()

    async def _execute(self, job: Job) -> Execution:
        if job.reset:
            await self._clear()
        for _ in range(STARTS_PER_CALL):
            kernel = await self._awake(job)
            if job.result.done():
                return job.result.result()  # interrupted while the kernel started
            if job.row is None:
                job.row = await self._recorder.start(job)
            try:
                await self._run_in(kernel, job)
            except KernelDied as error:
                if job.began.is_set() or job.commit is not None or job.stopped_by is not None:
                    return await self._crashed(job, error)
                # It died before it had begun: nothing ran, so the next kernel may run it.
                await self._drop_kernel()
                continue
            return self._result(job)
        raise KernelStartFailed(f"the kernel ended {STARTS_PER_CALL} times before it could run the code")

    def _answer(self, job: Job, execution: Execution) -> None:
        if not job.result.done():
            greeting, self.greeting = self.greeting, None
            job.result.set_result(outcomes.noted(execution, greeting, self._overseer.full))

    def _answer_early(self, job: Job) -> None:
        """All is known and stored: that the kernel has yet to come to its end need keep nobody waiting."""
        if job.commit is not None and job.commit.outcome is not None:
            self._answer(job, self._result(job))

    async def _run_in(self, kernel: Kernel, job: Job) -> None:
        self.current = job
        job.started = True
        self._overseer.begin()
        self._advance(Event.RUN)
        try:
            with self._stopper.watching(job):
                await kernel.execute(job.msg_id, job.code)
            self._advance(Event.DONE)
        finally:
            self.current = None

    async def interrupt(self, job: Job, *, reason: Status = "interrupted", force: bool = False) -> None:
        """Stop one execution: where it runs, or before it starts. `force` ends the kernel at once."""
        if job.result.done() and job is not self.current:
            return
        job.stopped_by = job.stopped_by or reason
        if job is not self.current:
            if not job.started:
                job.result.set_result(
                    replace(self.running(job), status="interrupted", note="it had not started; nothing ran")
                )
            return
        await (self._stopper.kill(job) if force else self._stopper.stop(job))

    # Results

    def _result(self, job: Job) -> Execution:
        resources = None if self.sandbox == OFF else self.launch.resources
        return outcomes.committed(job, self.session_id, self.sandbox, resources)

    async def _crashed(self, job: Job, error: KernelDied) -> Execution:
        self._means.emit("kernel_died", session=self.session_id, exit_code=error.exit_code)
        if job.stopped_by is None:
            await self._starter.note_death(error)
        await self._drop_kernel()
        if job.commit is not None and job.commit_error is None:
            # The commit was stored; only the reply is missing.
            return replace(
                self._result(job), note=f"{error} after this execution was committed; the next call restarts it"
            )
        await self._recorder.finish(job, outcomes.crash_status(job))
        return outcomes.crashed(job, self.session_id, self.sandbox, str(error), error.exit_code)

    def _overrun(self, reason: str, kill: bool) -> None:
        """It takes too much: stop what runs, or end its kernel."""
        job = self.current
        if job is not None:
            job.stopped_for = job.stopped_for or reason
            job.stopped_by = job.stopped_by or "interrupted"
            self._spawn(self._stopper.kill(job) if kill else self._stopper.stop(job))
        elif kill and self._kernel is not None:
            self.greeting = f"{reason}: the kernel was ended between two calls"
            self._spawn(self._kernel.process.kill())

    def _on_flood(self, verdict: Verdict) -> None:
        self._overrun("the code wrote too much", verdict is Verdict.KILL)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The kernel

    def _advance(self, event: Event) -> None:
        self.state = advance(self.state, event)

    async def _awake(self, job: Job) -> Kernel:
        """The kernel of this session, started and restored if it has none."""
        if self._kernel is not None and self._kernel.process.alive():
            return self._kernel
        if self._kernel is not None:
            await self._starter.note_death(KernelDied(self._kernel.process.exit_code, self._kernel.loading))
            await self._drop_kernel()
        await self._means.room.enter(self)
        self._advance(Event.START)
        launch = replace(self.launch, most_file_bytes=None if self._overseer.full is None else FULL_FILE_BYTES)
        began = asyncio.get_running_loop().time()
        try:
            kernel, restored = await self._starter.start(launch, self._handlers())
        except BaseException:
            self._means.room.leave(self)
            self._advance(Event.DIED)
            raise
        self._take(kernel, kernel.process.how, began, restored)
        if restored.names or restored.not_restored:
            job.restored = restored
        return kernel

    async def adopt(self, kernel: Kernel) -> None:
        """Begin with a kernel that has been started for whoever comes. Raises KernelDied; then it is the caller's."""
        await self._means.room.enter(self)
        began = asyncio.get_running_loop().time()
        try:
            await self._starter.adopt(kernel, self._handlers())
        except BaseException:
            self._means.room.leave(self)
            raise
        self._advance(Event.START)
        self._take(kernel, "standby", began, Restored())

    def _handlers(self) -> Handlers:
        return Handlers(
            self._on_begin, self._recorder.stage, self._on_commit, self._on_output, self._recorder, self._on_loaded,
            self._on_flood,
        )  # fmt: skip

    def _take(self, kernel: Kernel, how: str, began: float, restored: Restored) -> None:
        self._kernel = kernel
        self._advance(Event.READY)
        self._watches = [
            asyncio.create_task(self._watch_idle_death(kernel)),
            asyncio.create_task(self._overseer.watch(kernel.process, lambda: self.current is not None)),
        ]
        self._means.emit(
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
            self._means.emit("kernel_died", session=self.session_id, exit_code=kernel.process.exit_code)

    async def _drop_kernel(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is None:
            return
        for watch in self._watches:
            watch.cancel()
        # To its end, even if whoever waits here is cancelled: it would leave sockets and directories behind.
        self._ending = asyncio.create_task(kernel.stop())
        await asyncio.shield(self._ending)
        self._means.room.leave(self)
        self.unsaved.clear()
        self.behind, self._lost = False, ()
        await self._recorder.discard_staged()
        if self.state in (State.IDLE, State.BUSY, State.STOPPING):
            self._advance(Event.DIED)

    def _on_begin(self, request: str) -> None:
        if self.current is not None and self.current.msg_id == request:
            self.current.began.set()

    async def _on_commit(self, commit: Commit) -> None:
        job = self.current if self.current is not None and self.current.msg_id == commit.request else None
        if job is not None:
            job.commit = commit
            job.restored, self._lost = outcomes.without(job.restored, self._lost), ()
        self.behind = True
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            size = await self._recorder.publish(job, commit)
        except Exception as error:
            self._means.emit("commit_failed", session=self.session_id, reason=str(error))
            if job is not None:
                job.commit_error = str(error) if isinstance(error, StorageFailed) else f"internal error: {error!r}"
                self._answer_early(job)
            raise
        if job is not None:
            self._answer_early(job)
        self.behind = commit.failure is not None
        self._means.emit(
            "committed", session=self.session_id, seconds=clock() - began, bytes=size, missed=commit.missed
        )
        self.unsaved.difference_update(commit.names, commit.deleted)
        self.unsaved.update(commit.unsaved)

    def _on_output(self, parent: str, kind: str, content: dict[str, Any]) -> None:
        job = self.current
        if job is not None and job.msg_id == parent and kind != "status":
            job.live.add(kind, content)

    def _on_loaded(self, key: int | None, lost: tuple[NotRestored, ...]) -> None:
        """The kernel has loaded what waited until it was needed."""
        self._starter.loaded(key)
        self._lost += lost
        if lost:
            self._means.emit("lost", session=self.session_id, names=len(lost))

    def _refuse_deleted(self) -> None:
        if self.state is State.DELETED:
            raise SessionDeleted(self.session_id or "")

    async def clear(self) -> None:
        """Forget all variables, in turn with the executions."""
        async with self._turn:
            self._refuse_deleted()
            await self._clear()

    async def _clear(self) -> None:
        await self._stop_kernel()
        await self._recorder.clear()

    async def hibernate(self, why: str | None = None) -> None:
        """Stop the kernel and keep the session. why: what it has to make room for, if it has."""
        async with self._turn:
            await self._audit()
            lost = sorted(self.unsaved)
            await self._stop_kernel()
            if why and lost:
                self.greeting = f"the kernel was stopped to make room ({why}); not saved, and gone: {', '.join(lost)}"

    async def _audit(self) -> None:
        if self._kernel is not None and self.state is State.IDLE:
            await self._kernel.audit()

    async def _stop_kernel(self) -> None:
        if self.state is not State.ASLEEP:
            self._advance(Event.STOP)
            await self._drop_kernel()
            self._advance(Event.STOPPED)

    async def delete(self) -> None:
        """End everything at once, a running execution too, and remove the workspace."""
        if self.current is not None and self._kernel is not None:
            self.current.stopped_by = "interrupted"
            await self._kernel.process.kill()
        async with self._turn:
            await self._stop_kernel()
            if self.state is State.ASLEEP:
                self._advance(Event.DELETE)
            await asyncio.to_thread(trees.remove, self.launch.workspace)

    async def close(self) -> None:
        """End the kernel: the keeper stops."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ending is not None:
            await self._ending
        await self._audit()
        await self._drop_kernel()
