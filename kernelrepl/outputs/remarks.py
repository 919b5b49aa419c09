"""What is to be said of an execution beside its output, line by line. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kernelrepl.model import ChangedFile, ExecutionResult, Restored, amount, counted
from kernelrepl.outputs.terminal_text import field, said


def remarks(execution: ExecutionResult) -> list[str]:
    """What is to be said of an execution beside its output."""
    restored = [] if execution.restored is None else [describe_restored(execution.restored)]
    return restored + endings(execution)


MISCOUNTED = (
    "the counts of this session were damaged in the database, and have been made anew from what it has: some of what"
    " ran in it may be missing in its history"
)


def greeting(session_id: str, expired_at: str | None, losses: str) -> str | None:
    """What the first result of a new session says of one that may have been there before it.

    expired_at: when one with its name was deleted for its age. losses: what the database has lost.
    """
    if expired_at is not None:
        return (
            f"an older session {session_id!r} had not been used for a long time and was deleted at {expired_at}; "
            "this one is new and empty"
        )
    return (
        f"{losses}; if {session_id!r} was there before, it is one of what is lost: this one is new" if losses else None
    )


def endings(execution: ExecutionResult) -> list[str]:
    """How it ended, what it has written, and what could not be saved."""
    lines = _files(execution)
    if execution.session_id is None and execution.status == "timeout":
        lines.append(said("timeout", _ENDED_ONCE))
    elif execution.status not in ("ok", "error"):
        error = execution.output.error
        died = error is not None and error.name == "KernelDied"  # then the note tells what is kept
        lines.append(said(execution.status, "" if died else _STATUS_HINT.get(execution.status, "")))
    lines.extend(
        said("not saved", f"{field(entry.name)} ({field(entry.type)}): {field(entry.reason)}")
        for entry in execution.not_saved
    )
    lines.extend(said("note", text) for text in execution.output.left_out)
    if execution.note:
        lines.append(said("note", execution.note))
    if execution.execution_count == 1 and execution.sandbox != _WHOLE:
        lines.append(said("sandbox", f"{execution.sandbox}{_SANDBOX_HINT.get(execution.sandbox, '')}"))
    return lines


def _files(execution: ExecutionResult) -> list[str]:
    """What happened to the files of the workspace."""
    found, lines = execution.files, []
    put = _listed(found.put, found.put_left_out)
    if put:
        lines.append(said("files", f"put by a person: {put}"))
    written = _listed(found.written, found.written_left_out)
    if written and execution.session_id is None:
        lines.append(said("files", f"gone with this call: {written}; a session_id keeps files"))
    elif written or found.may_be_more:
        more = ["there may be more: the directory has too many files to look at all"] if found.may_be_more else []
        lines.append(said("files", "; ".join([*([f"wrote {written}"] if written else []), *more])))
    return lines


def _listed(files: Sequence[ChangedFile], left_out: int) -> str:
    """Files with their sizes, and how many others there are; empty if there are none at all."""
    shown = [f"{_named(file.path)} ({amount(file.size)})" for file in files]
    return ", ".join([*shown, *([f"{left_out:,} {'more' if shown else 'with long names'}"] if left_out else [])])


def _named(path: str) -> str:
    """A path in a line of ours: in quotes, unless it is as plain as most are, so that no words of it pass for ours."""
    name = field(path)
    return name if _PLAIN_NAME.fullmatch(name) else "'" + name.replace("'", "\\'") + "'"


_PLAIN_NAME = re.compile(r"[\w./+@=-]+")
_WHOLE = "tier 1"
"""What needs no word: the whole sandbox, as the documentation describes it."""
_SANDBOX_HINT = {
    "off": ", by config.toml: this code runs with all rights of the person who started it",
    "tier 2": ": no multiprocessing; that a file of the host exists can be seen, what is in it cannot",
}


_ENDED_ONCE = (
    "without a session_id code is ended after `wait` or `timeout` seconds, and nothing of it is kept; "
    "give a session_id to code that takes longer"
)
_STATUS_HINT = {
    "running": "it goes on; python_wait collects the result, python_interrupt stops it",
    "timeout": "it was stopped at its timeout; what it had changed until then is kept",
    "interrupted": "it was stopped; what it had changed until then is kept",
}


def describe_restored(restored: Restored) -> str:
    """What came back with a kernel, in a line."""
    text = said("restored", f"{counted(len(restored.names), 'name')} came back")
    if restored.not_restored:
        lost = "; ".join(f"{field(entry.name)}: {field(entry.reason)}" for entry in restored.not_restored)
        text += f"; not restored: {lost}"
    return text


def for_notebook(execution: ExecutionResult) -> list[str]:
    """The same for somebody who sees the cell: that names came back is no news there."""
    lines = endings(execution) if execution.status not in ("interrupted", "timeout") else endings(execution)[1:]
    lost = () if execution.restored is None else execution.restored.not_restored
    return [said("not restored", f"{field(entry.name)}: {field(entry.reason)}") for entry in lost] + lines
