"""One execution on its way through a session, and what a commit says about it."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field, replace
from typing import Any

from kernelrepl.model import Commit, ExecutionResult, Failure, JupyterRequest, NotSaved, Output, Restored, Status
from kernelrepl.outputs import terminal_text, transcript

KEPT_CHARS = 100_000
"""What the outputs of the last execution of a session may take in memory when it is over: as lists of lists a character
takes twenty bytes, and each session has one. The store has them as well."""


@dataclass
class Job:
    """One execution on its way. `result` is set once, when it is over."""

    code: str
    request_id: str
    origin: str
    timeout_s: float | None = None
    reset: bool = False
    cell: JupyterRequest | None = None
    """How a Jupyter client asked for it, if one did."""
    reply: dict[str, Any] | None = None
    """What the kernel replied."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its kernel has come to its end, or never will; its result is there before."""
    msg_id: str = field(default_factory=lambda: secrets.token_hex(16))
    row: int | None = None
    live: transcript.Transcript = field(default_factory=transcript.Transcript)
    commit: Commit | None = None
    shown: Output = field(default_factory=Output)
    """The outputs of its commit, folded."""
    commit_error: str | None = None
    restored: Restored | None = None
    stopped_by: Status | None = None
    """"interrupted" or "timeout" once it has been asked to stop."""
    stopped_for: str | None = None
    """What it took too much of, if it was asked to stop for that."""
    started: bool = False
    """It has been sent to a kernel."""
    began: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a kernel has begun to run it."""
    result: asyncio.Future[ExecutionResult] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def heavy(self) -> bool:
        """Whether its outputs take much, and the store has them as well."""
        chars = self.live.chars if self.commit is None else len(self.commit.outputs)
        return self.row is not None and chars > KEPT_CHARS

    def forget(self) -> None:
        """Let go of what the result was made of, when it is there."""
        if self.result.done():
            self.commit, self.shown, self.live = None, Output(), transcript.Transcript()


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
