"""What an execution came to, from what the kernel committed or how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kernelrepl.model import ExecutionResult, Failure, NotRestored, Resources, Restored, Saved, Status
from kernelrepl.sessions import endings
from kernelrepl.sessions.execution import Execution, outcome_status, output_of, unsaved_of

MOST_TOLD = 20
"""So many outcomes that nobody has got yet are told of a session; others are counted."""


class Uncollected:
    """What calls of one session left running, until a later one has told of it.

    Of what has ended only the words are kept: each may have shown 20 MB, and code may leave behind any number.
    """

    def __init__(self) -> None:
        self._running: dict[str, Execution] = {}
        self._told: dict[str, str] = {}
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._running or self._told or self._more)

    def __contains__(self, execution: Execution) -> bool:
        return execution.msg_id in self._running or execution.msg_id in self._told

    def add(self, execution: Execution, tell: Callable[[ExecutionResult], str]) -> None:
        """Note that a call has returned before its execution ended. tell: what a later call says of it."""
        if execution not in self:
            self._running[execution.msg_id] = execution
            execution.result.add_done_callback(lambda _: self._end(execution, tell))

    def _end(self, execution: Execution, tell: Callable[[ExecutionResult], str]) -> None:
        known, result = self._running.pop(execution.msg_id, None) is not None, execution.result
        if not known or result.cancelled() or result.exception():
            return
        self._told[execution.msg_id] = tell(result.result())
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
            self._more += 1

    def take(self, execution: Execution) -> list[str]:
        """Return, once, what is to be said of all that has ended, but of this one, which is told as a whole."""
        self._running = {name: other for name, other in self._running.items() if other is not execution}
        self._told.pop(execution.msg_id, None)
        more = f"{self._more} other pieces of code that calls left running have ended before" if self._more else ""
        found = [*([more] if more else []), *self._told.values()]
        self._told, self._more = {}, 0
        return found


def noted(result: ExecutionResult, before: str | None, after: str | None) -> ExecutionResult:
    """A result with these notes beside its own."""
    notes = dict.fromkeys(note for note in (before, result.note, after) if note)
    return replace(result, note="; ".join(notes) or None)


def without(restored: Restored | None, lost: tuple[NotRestored, ...]) -> Restored | None:
    """What has been restored, as far as these names were not lost after all."""
    if not lost:
        return restored
    before = restored or Restored((), ())
    gone = {entry.name for entry in lost}
    names = tuple(name for name in before.names if name not in gone)
    return replace(before, names=names, not_restored=(*before.not_restored, *lost))


def deadly(error: Exception) -> str:
    """Why a component is not loaded any more."""
    return f"the kernel died while loading it ({error}); it is skipped since then, its bytes are kept"


def running(execution: Execution, session_id: str | None, sandbox: str) -> ExecutionResult:
    """Return what an execution that is not answered yet has come to so far."""
    note = "waiting for earlier executions of this session" if execution.is_waiting else None
    output = execution.live.output()
    return ExecutionResult(session_id, "running", output, sandbox=sandbox, note=note, request_id=execution.request_id)


def committed(
    execution: Execution, session_id: str | None, sandbox: str, resources: Resources | None
) -> ExecutionResult:
    """The result of an execution whose kernel replied.

    resources: what the session may use, where errors of the code may come from it; None where nothing confines it.
    """
    commit = execution.commit
    if commit is None or commit.outcome is None:
        # Only a kernel that breaks the protocol replies without having committed.
        return ExecutionResult(
            session_id, "crashed", execution.live.output(), sandbox=sandbox, restored=execution.restored,
            note="the kernel replied without committing; its changes are not stored", request_id=execution.request_id,
        )  # fmt: skip
    output = output_of(commit, execution.shown)
    note = execution.stopped_for
    if note is None and output.error is not None and resources is not None:
        note = endings.hint(output.error, resources)
    return ExecutionResult(
        session_id,
        outcome_status(commit, execution.stopped_by),
        output,
        execution_count=int(commit.outcome["execution_count"]),
        duration_s=float(commit.outcome["duration_s"]),
        saved=commit.saved if execution.commit_error is None else Saved(),
        not_saved=unsaved_of(commit, execution.commit_error),
        restored=execution.restored,
        committed=execution.commit_error is None and commit.failure is None and session_id is not None,
        sandbox=sandbox,
        note=note,
        request_id=execution.request_id,
    )


def crash_status(execution: Execution) -> Status:
    return "timeout" if execution.stopped_by == "timeout" else "crashed"


def crashed(
    execution: Execution, session_id: str | None, sandbox: str, died: str, exit_code: int | None
) -> ExecutionResult:
    """The result of an execution whose kernel ended. `died`: how, in words."""
    output = execution.live.output()
    if output.error is None:
        output = replace(output, error=Failure("KernelDied", died, f"KernelDied: {died}"))
    return ExecutionResult(
        session_id,
        crash_status(execution),
        output,
        sandbox=sandbox,
        restored=execution.restored,
        note=endings.note(died, exit_code, execution.stopped_by, execution.stopped_for),
        request_id=execution.request_id,
    )
