"""What a caller gets of an execution, whether it waits, runs, or is a row in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kernelrepl.model import ExecutionResult
from kernelrepl.sessions import results
from kernelrepl.sessions.execution import Execution, Question
from kernelrepl.sessions.session import Session
from kernelrepl.store.reading import ExecutionRow


class ExecutionHandle:
    """A caller uses this object to wait for an execution, to stop it, and to take what it came to."""

    def __init__(self, execution: Execution, session: Session | None) -> None:
        """session: where it runs or has run; None: only its row is left, so that it is done."""
        self.execution = execution
        self.session = session

    @classmethod
    def of_row(cls, row: ExecutionRow, result: ExecutionResult) -> ExecutionHandle:
        """Return the handle of an execution that is over, from its row and the result that was made of that."""
        execution = Execution(row.code, row.request_id, row.origin)
        execution.answer(result)
        execution.end()
        return cls(execution, None)

    @property
    def is_done(self) -> bool:
        """Whether its result is there."""
        return self.execution.is_answered

    @property
    def is_stored(self) -> bool:
        """Whether only its row is left."""
        return self.session is None

    @property
    def is_uncollected(self) -> bool:
        """Whether a call has returned before it was done, and no later call has told of it."""
        return self.session is not None and self.execution in self.session.uncollected

    @property
    def last_line(self) -> str:
        """The last line that it has printed so far."""
        return self.execution.live.last_line()

    @property
    def python(self) -> str:
        """The version of Python that runs it; empty if there is no kernel."""
        return "" if self.session is None else self.session.python

    async def wait(self, timeout_s: float | None = None, *, or_question: bool = False) -> bool:
        """Wait until its result is there, at most for `timeout_s`. Returns whether it is.

        or_question: return also when a person is to decide something.
        """
        if or_question:
            return await self.execution.wait(timeout_s)
        done, _ = await asyncio.wait({self.execution.result}, timeout=timeout_s)
        return bool(done)

    @property
    def question(self) -> Question | None:
        """What a person is to decide before it goes on."""
        return self.execution.question

    def result(self) -> ExecutionResult:
        """Return its result, or what it has come to so far. Raises what kept it from being run."""
        if self.session is None or self.is_done:
            return self.execution.result.result()
        return self.session.running(self.execution)

    def collect(self, tell: Callable[[ExecutionResult], str], remark: str | None = None) -> ExecutionResult:
        """Return its result for a call that returns now, with outcomes of earlier code that no call has received.

        If it is not done, a later call gets its outcome. tell: how such an outcome is put into a note of a later
        result. remark: a note for the result, if it is done.
        """
        if self.session is None:
            return self.result()
        if not self.is_done:
            self.session.uncollected.add(self.execution, tell)
            return self.result()
        result = self.result()
        notes = (remark, result.note, *self.session.uncollected.take(self.execution))
        return results.with_notes(result, filter(None, notes))

    async def interrupt(self, *, force: bool = False) -> None:
        """Stop it, where it runs or before it starts. force: end its kernel at once."""
        if self.session is not None:
            await self.session.interrupt(self.execution, force=force)

    async def end_kernel(self) -> bool:
        """End the kernel of its session although it is done: the kernel may be stuck behind the answer.

        Returns whether there was one.
        """
        had_one = self.session is not None and self.session.pid is not None
        if self.session is not None:
            await self.session.interrupt(self.execution, force=True)
            await self.session.hibernate()
        return had_one

    def answer(self, value: str) -> None:
        """Pass on what a person typed, for code that waits for it."""
        if self.session is not None:
            self.session.answer(value)
