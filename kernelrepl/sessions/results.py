"""This module alone puts results of executions together: from a commit, a crash, a row, or as far as one has come."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from kernelrepl.model import (
    Commit,
    ExecutionResult,
    Failure,
    NotRestored,
    NotSaved,
    Output,
    Resources,
    Restored,
    Saved,
    Status,
)
from kernelrepl.outputs import terminal_text, transcript
from kernelrepl.sessions import endings
from kernelrepl.sessions.execution import Execution
from kernelrepl.store.reading import ExecutionRow

MOST_TOLD = 20
"""So many outcomes that nobody has got yet are told of a session; others are counted."""

DAMAGED = (
    "what is stored of this execution is damaged in the database: its code, its outputs and what it says of them may"
    " not be what they were"
)


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


def with_notes(result: ExecutionResult, notes: Iterable[str]) -> ExecutionResult:
    """Return a result with these notes in place of its own."""
    return replace(result, note="; ".join(notes) or None)


def noted(result: ExecutionResult, before: str | None, after: str | None) -> ExecutionResult:
    """Return a result with these notes beside its own, each of them once."""
    return with_notes(result, dict.fromkeys(note for note in (before, result.note, after) if note))


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


def running(
    execution: Execution, session_id: str | None, sandbox: str, unfinished: Collection[Execution] = ()
) -> ExecutionResult:
    """Return what an execution that is not answered yet has come to so far.

    unfinished: those of its session that are not answered, the earliest first.
    """
    is_behind = execution.is_waiting and next(iter(unfinished), execution) is not execution
    note = "waiting for earlier executions of this session" if is_behind else None
    output = execution.live.output()
    return ExecutionResult(session_id, "running", output, sandbox=sandbox, note=note, request_id=execution.request_id)


def withdrawn(execution: Execution, session_id: str | None, sandbox: str) -> ExecutionResult:
    """Return the result of an execution that was interrupted before a kernel got it."""
    result = running(execution, session_id, sandbox)
    return replace(result, status="interrupted", note="it had not started; nothing ran")


def nothing_ran(last: ExecutionResult, note: str) -> ExecutionResult:
    """Return what an interrupt gives that found nothing to stop: an older outcome would be taken for its own."""
    return ExecutionResult(last.session_id, "ok", Output(), sandbox=last.sandbox, committed=last.committed, note=note)


def committed(
    execution: Execution, session_id: str | None, sandbox: str, resources: Resources | None
) -> ExecutionResult:
    """Return the result of an execution whose kernel has committed, or has replied.

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
        files=execution.files,
    )


def without_reply(result: ExecutionResult, died: str) -> ExecutionResult:
    """Return the result of an execution whose commit is stored, and whose kernel ended before it replied.

    died: how, in words.
    """
    return replace(result, note=f"{died} after this execution was committed; the next call restarts it")


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
        duration_s=execution.age_s,
        sandbox=sandbox,
        restored=execution.restored,
        note=endings.note(died, exit_code, execution.stopped_by, execution.stopped_for),
        request_id=execution.request_id,
        files=execution.files,
    )


def from_row(session_id: str, row: ExecutionRow, sandbox: str, lost_reply: bool) -> ExecutionResult:
    """Return what an execution came to, as its row tells it.

    sandbox: how the session is confined, in words. lost_reply: whoever asks has not got the reply. Others hear of
    nothing but a crash or damage beside the outcome.
    """
    status: Any = row.status
    note = "the reply was lost on the way; this is the committed outcome" if row.committed else None
    if not row.committed:
        status = "crashed" if row.status in ("started", "crashed") else row.status
        note = (
            "the keeper or the kernel ended while this ran; nothing of it was kept, and variables are as they"
            " were before it"
        )
        if status in ("ok", "error", "interrupted"):
            note = "it ran to its end, but what it changed could not be stored with it"
    if row.damaged:
        note = "; ".join([DAMAGED, *([note] if note else [])])
    if not (lost_reply or row.status == "crashed" or row.damaged):
        note = None
    return ExecutionResult(
        session_id,
        status,
        transcript.load(row.outputs),
        execution_count=row.execution_count,
        duration_s=row.duration_s,
        saved=row.saved,
        not_saved=row.not_saved,
        restored=row.restored,
        committed=row.committed,
        sandbox=sandbox,
        note=note,
        request_id=row.request_id,
    )


# What a commit says


def output_of(commit: Commit, output: Output) -> Output:
    """What a commit has shown; an error without a message of its own is made up from the outcome."""
    outcome = commit.outcome or {}
    if outcome.get("error") and output.error is None:
        name, message = terminal_text.field(outcome["error"][0]), transcript.plain(outcome["error"][1])
        output = replace(output, error=Failure(name, message, f"{name}: {message}"))
    if not outcome.get("error") and output.error is not None:
        # Shown by the cell, which went on: a repr that fails, a cell that it ran itself.
        output = replace(output, error=None, stderr=transcript.below(output.stderr, output.error.traceback))
    return output


_OWN = {
    "*environment": "working directory and environment",
    "*long names": "names that are too long",
    "*further names": "further names",
    "*random": "random state",
    "*numpy.random": "random state of numpy",
}


def in_words(name: str) -> str:
    """How people are told of a name of a session: what it keeps under no name of its own, in words."""
    return _OWN.get(name, name)


def unsaved_of(commit: Commit, storage_error: str | None) -> tuple[NotSaved, ...]:
    """What to say of each name whose value is not in the store after a commit."""
    # `_` is IPython's; that the last result was a generator is no loss to tell.
    not_saved = [NotSaved(in_words(name), *entry) for name, entry in commit.unsaved.items() if name != "_"]
    if storage_error is not None:
        not_saved += [
            NotSaved(name, kind, name, f"storage: {storage_error}")
            for name, (_, kind, _) in commit.names.items()
            if not name.startswith("*") and name != "_"
        ]
    if commit.failure is not None:
        not_saved.append(NotSaved("*", "", "*", commit.failure))
    return tuple(not_saved)


def outcome_status(commit: Commit, stopped_by: Status | None) -> Status:
    """ok or error as the kernel says; interrupted or timeout if the error is the one we caused."""
    outcome = commit.outcome or {}
    error = outcome.get("error")
    if error and stopped_by is not None and error[0] in ("KeyboardInterrupt", "CancelledError"):
        return stopped_by
    return "error" if error else "ok"
