"""One execution on its way through a session, with its states as one table."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kernelrepl.model import Commit, ExecutionResult, FileChanges, JupyterRequest, Output, Restored, Status
from kernelrepl.outputs import transcript
from kernelrepl.sessions.lifecycle import IllegalTransition
from kernelrepl.workspaces import changes

KEPT_CHARS = 100_000
"""What the outputs of the last execution of a session may take in memory when it is over: as lists of lists a character
takes twenty bytes, and each session has one. The store has them as well."""


class ExecutionState(Enum):
    QUEUED = "queued"
    STARTING = "starting"
    SENT = "sent"
    RUNNING = "running"
    COMMITTED = "committed"
    ANSWERED = "answered"
    OVER = "over"


class ExecutionEvent(Enum):
    START = "start"
    """Its turn has come: it needs a kernel."""
    SEND = "send"
    BEGIN = "begin"
    LOST = "lost"
    """The kernel ended before it had begun to run anything."""
    COMMIT = "commit"
    STOP = "stop"
    """It is asked to stop. That alone moves nothing: its kernel has to do it."""
    ANSWER = "answer"
    """Its result is there."""
    END = "end"
    """Its kernel has come to its end with it, or never will."""


_TABLE: dict[tuple[ExecutionState, ExecutionEvent], ExecutionState] = {
    (ExecutionState.QUEUED, ExecutionEvent.START): ExecutionState.STARTING,
    (ExecutionState.QUEUED, ExecutionEvent.STOP): ExecutionState.QUEUED,
    (ExecutionState.QUEUED, ExecutionEvent.ANSWER): ExecutionState.ANSWERED,
    (ExecutionState.STARTING, ExecutionEvent.SEND): ExecutionState.SENT,
    (ExecutionState.STARTING, ExecutionEvent.COMMIT): ExecutionState.STARTING,  # it was lost with a commit under way
    (ExecutionState.STARTING, ExecutionEvent.STOP): ExecutionState.STARTING,
    (ExecutionState.STARTING, ExecutionEvent.ANSWER): ExecutionState.ANSWERED,
    (ExecutionState.SENT, ExecutionEvent.BEGIN): ExecutionState.RUNNING,
    (ExecutionState.SENT, ExecutionEvent.LOST): ExecutionState.STARTING,
    (ExecutionState.SENT, ExecutionEvent.COMMIT): ExecutionState.COMMITTED,
    (ExecutionState.SENT, ExecutionEvent.STOP): ExecutionState.SENT,
    (ExecutionState.SENT, ExecutionEvent.ANSWER): ExecutionState.ANSWERED,
    (ExecutionState.RUNNING, ExecutionEvent.COMMIT): ExecutionState.COMMITTED,
    (ExecutionState.RUNNING, ExecutionEvent.STOP): ExecutionState.RUNNING,
    (ExecutionState.RUNNING, ExecutionEvent.ANSWER): ExecutionState.ANSWERED,
    (ExecutionState.COMMITTED, ExecutionEvent.STOP): ExecutionState.COMMITTED,
    (ExecutionState.COMMITTED, ExecutionEvent.ANSWER): ExecutionState.ANSWERED,
    (ExecutionState.ANSWERED, ExecutionEvent.STOP): ExecutionState.ANSWERED,
    (ExecutionState.ANSWERED, ExecutionEvent.END): ExecutionState.OVER,
    # A kernel is not trusted: what it says too often or too late is no bug of ours, and moves nothing.
    (ExecutionState.RUNNING, ExecutionEvent.BEGIN): ExecutionState.RUNNING,
    (ExecutionState.COMMITTED, ExecutionEvent.BEGIN): ExecutionState.COMMITTED,
    (ExecutionState.COMMITTED, ExecutionEvent.COMMIT): ExecutionState.COMMITTED,
    (ExecutionState.ANSWERED, ExecutionEvent.BEGIN): ExecutionState.ANSWERED,
    (ExecutionState.ANSWERED, ExecutionEvent.COMMIT): ExecutionState.ANSWERED,
    (ExecutionState.OVER, ExecutionEvent.COMMIT): ExecutionState.OVER,
}


def advance(state: ExecutionState, event: ExecutionEvent) -> ExecutionState:
    """Return the state after `event`. Raises IllegalTransition."""
    try:
        return _TABLE[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


async def _first(*futures: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


@dataclass(frozen=True)
class Question:
    """What only a person can decide, while code waits for it."""

    text: str
    answer: asyncio.Future[bool | None]
    """Whether the person agrees; None: nobody could be asked."""

    def decide(self, agrees: bool | None) -> None:
        """Answer it. The first answer counts."""
        if not self.answer.done():
            self.answer.set_result(agrees)


class Execution:
    """A piece of code that a session runs. Others read its attributes; only its methods change them."""

    def __init__(
        self,
        code: str,
        request_id: str,
        origin: str,
        timeout_s: float | None = None,
        reset: bool = False,
        cell: JupyterRequest | None = None,
        *,
        can_ask: bool = False,
    ) -> None:
        """cell: how a Jupyter client asked for it, if one did. can_ask: whether who wants it run can ask a person."""
        self.code = code
        self.request_id = request_id
        self.origin = origin
        self.timeout_s = timeout_s
        self.reset = reset
        self.cell = cell
        self.can_ask = can_ask
        self.question: Question | None = None
        """What a person is to decide now."""
        self._asked = asyncio.Event()
        self.msg_id = secrets.token_hex(16) if cell is None else cell.msg_id
        self.state = ExecutionState.QUEUED
        self.row: int | None = None
        self.live = transcript.Transcript()
        """What it has shown so far."""
        self.restored: Restored | None = None
        """What came back with the kernel that was started for it."""
        self.began = asyncio.Event()
        """Set when a kernel has begun to run it."""
        self.sent_at = 0
        """When a kernel got it, as `workspaces.changes.now` has it; 0: none has."""
        self.files = FileChanges()
        """What it has written in the workspace, once it has ended."""
        self.commit: Commit | None = None
        self.shown = Output()
        """The outputs of its commit, folded."""
        self.commit_error: str | None = None
        """Why its commit is not in the store, if it is not."""
        self.reply: dict[str, Any] | None = None
        """What the kernel replied."""
        self.stopped_by: Status | None = None
        """"interrupted" or "timeout" once it has been asked to stop."""
        self.stopped_for: str | None = None
        """What it took too much of, if it was asked to stop for that."""
        self.result: asyncio.Future[ExecutionResult] = asyncio.get_running_loop().create_future()
        """Done when it is answered."""
        self.over = asyncio.Event()
        """Set when its kernel has come to its end with it, or never will; its result is there before."""

    def _advance(self, event: ExecutionEvent) -> None:
        self.state = advance(self.state, event)

    # What it is at

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its turn or for a kernel, so that nothing of it has run."""
        return self.state in (ExecutionState.QUEUED, ExecutionState.STARTING)

    @property
    def is_answered(self) -> bool:
        """Whether its result is there."""
        return self.state in (ExecutionState.ANSWERED, ExecutionState.OVER)

    @property
    def may_be_sent_again(self) -> bool:
        """Whether surely nothing of it ran, and nobody wants it stopped, when its kernel has ended."""
        return self.state is ExecutionState.SENT and self.commit is None and self.stopped_by is None

    @property
    def is_heavy(self) -> bool:
        """Whether its outputs take much, and the store has them as well."""
        chars = self.live.chars if self.commit is None else len(self.commit.outputs)
        return self.row is not None and chars > KEPT_CHARS

    @property
    def age_s(self) -> float:
        """How long ago a kernel got it, in seconds; 0 if none has."""
        return max(0, changes.now() - self.sent_at) / 1e9 if self.sent_at else 0.0

    # What happens to it, in this order

    def start(self) -> None:
        """Its turn has come: from now on it waits for a kernel."""
        self._advance(ExecutionEvent.START)

    def take_restored(self, restored: Restored) -> None:
        """Note what came back with the kernel that was started for it."""
        self.restored = restored

    def take_row(self, row: int | None) -> None:
        """Note its row in the store; None: it gets none."""
        self.row = row

    def send(self) -> None:
        """A kernel gets it."""
        self._advance(ExecutionEvent.SEND)
        self.sent_at = changes.now()

    def begin(self) -> None:
        """The kernel says that it has begun to run it."""
        self._advance(ExecutionEvent.BEGIN)
        self.began.set()

    def lose_kernel(self) -> None:
        """Its kernel has ended before it began: another one gets it."""
        self._advance(ExecutionEvent.LOST)

    def show(self, kind: str, content: dict[str, Any]) -> None:
        """Take an output that the kernel has published."""
        self.live.add(kind, content)

    async def ask(self, text: str) -> bool | None:
        """Have a person decide something. Returns None if nobody can be asked, or it has ended meanwhile."""
        if not self.can_ask or self.question is not None:
            return None
        self.question = Question(text, asyncio.get_running_loop().create_future())
        self._asked.set()
        over = asyncio.ensure_future(self.over.wait())
        try:
            await _first(self.question.answer, self.result, over)
            return self.question.answer.result() if self.question.answer.done() else None
        finally:
            over.cancel()
            self.question = None
            self._asked.clear()

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait until it is answered, or a person is to decide something. Returns whether it is answered."""
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await _first(self.result, asked, timeout_s=timeout_s)
        finally:
            asked.cancel()
        return self.result.done()

    def take_commit(self, commit: Commit, shown: Output, restored: Restored | None) -> None:
        """Note what its kernel commits, which is not in the store yet.

        shown: the outputs of the commit, folded. restored: what has come back, as it is known now.
        """
        self._advance(ExecutionEvent.COMMIT)
        self.commit, self.shown, self.restored = commit, shown, restored

    def take_files(self, files: FileChanges) -> None:
        """Note what has happened to the files of the workspace."""
        self.files = files

    def fail_commit(self, reason: str) -> None:
        """Note why its commit could not be stored."""
        self.commit_error = reason

    def take_reply(self, reply: dict[str, Any] | None) -> None:
        """Note what the kernel replied."""
        self.reply = reply

    def stop(self, by: Status = "interrupted", reason: str | None = None) -> None:
        """Note that it has been asked to stop; ending it is the business of who asks.

        by: "interrupted" or "timeout", which counts more. reason: what it took too much of, if it did; the first
        counts.
        """
        self._advance(ExecutionEvent.STOP)
        if self.stopped_by is None or by == "timeout":
            self.stopped_by = by
        self.stopped_for = self.stopped_for or reason

    def answer(self, result: ExecutionResult) -> None:
        """Give it its result."""
        self._advance(ExecutionEvent.ANSWER)
        self.result.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Answer it with an error that is none of its code: it could not be run."""
        self._advance(ExecutionEvent.ANSWER)
        self.result.set_exception(error)
        self.result.exception()  # nobody may be waiting any more

    def end(self) -> None:
        """Let go of it: its kernel has come to its end with it, or never will. It may be said twice."""
        if self.state is not ExecutionState.OVER:
            self._advance(ExecutionEvent.END)
            self.over.set()
        self.commit, self.shown, self.live = None, Output(), transcript.Transcript()
