"""What changes the rows of executions, beside their commits. Runs in the writer thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernelrepl.store import seals
from kernelrepl.store.database import Database, update

_NOTHING_YET = (0, None, 0.0, None, None, None, None, None)
"""The outcome of an execution that has none, behind its status."""
_SET_SEAL = "UPDATE executions SET status = ?, outcome_seal = ? WHERE id = ?"


@dataclass(frozen=True)
class Past:
    """An execution of another program, over before it came here. request_id: its name here, which no other has."""

    request_id: str
    origin: str
    code: str
    status: str
    at: str
    duration_s: float
    outputs: str


_INSERT_PAST = (
    f"INSERT INTO executions ({seals.columns(seals.EXECUTION)}, seal, status, finished_at, duration_s, outputs)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def insert_past(db: Database, session: int, past: Sequence[Past]) -> None:
    """Insert executions of another program. Those that are there already stay as they are."""
    with db.atomic():
        known = "SELECT 1 FROM executions WHERE request_id = ?"
        new = [one for one in past if db.execute(known, [one.request_id]).fetchone() is None]
        for one in new:
            fixed = (session, one.request_id, one.origin, one.code, one.at)
            ended = (one.status, one.at, one.duration_s, one.outputs)
            row = db.execute(_INSERT_PAST, [*fixed, seals.seal(fixed), *ended]).lastrowid
            # No kernel here has counted it, and it has no commit.
            outcome = (row, one.status, 0, one.at, one.duration_s, one.outputs, None, None, None, None)
            db.execute("UPDATE executions SET outcome_seal = ? WHERE id = ?", [seals.seal(outcome), row])
        count = len(new)
        seals.change_state(db, session, lambda s: s.update(total_executions=s["total_executions"] + count))


def insert_started(db: Database, values: Sequence[Any]) -> int:
    """Insert one that is about to run, with the values of `seals.EXECUTION`; returns its row."""
    session, *_, now = values
    with db.atomic():
        row = db.execute(
            f"INSERT INTO executions ({seals.columns(seals.EXECUTION)}, seal, status) VALUES (?, ?, ?, ?, ?, ?, '')",
            [*values, seals.seal(values)],
        )
        _set_status(db, int(row.lastrowid or 0), "started")
        state = seals.state_of(db, session)
        state |= {"total_executions": state["total_executions"] + 1, "last_used_at": now, "state": "active"}
        seals.put_state(db, session, state)
        return int(row.lastrowid or 0)


def finish(db: Database, execution: int, outcome: Sequence[Any]) -> None:
    """outcome: status, outputs, what was restored, and the time; what is there already of the others stays."""
    now = outcome[-1]

    def write() -> None:
        update(
            db,
            "UPDATE executions SET status = ?, outputs = COALESCE(outputs, ?), restored = COALESCE(restored, ?),"
            " finished_at = COALESCE(finished_at, ?), duration_s = CASE WHEN finished_at IS NULL"
            " THEN COALESCE(MAX(0, ROUND((JULIANDAY(?) - JULIANDAY(started_at)) * 86400, 3)), 0) ELSE duration_s END"
            " WHERE id = ?",
            [*outcome, now, execution],
        )

    with db.atomic():
        seals.seal_outcome(db, execution, write)


def note_crashes(db: Database) -> None:
    """What an earlier keeper has started has not ended."""
    for row, seal in db.execute("SELECT id, outcome_seal FROM executions WHERE status = 'started'").fetchall():
        if seal == seals.seal((row, "started", *_NOTHING_YET)):
            _set_status(db, row, "crashed")


def _set_status(db: Database, row: int, status: str) -> None:
    db.execute(_SET_SEAL, [status, seals.seal((row, status, *_NOTHING_YET)), row])
