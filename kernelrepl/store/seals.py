"""Seals tell a row that is as it was written from one that has changed since: a disk may give back other bits.

A seal is no secret and stops nobody who can write to the database. Each row has one over what stays as it is, and a
second one over what is changed later; a session also has one over the set of its live rows, so that none can go or
come back unseen. Whoever reads a row compares; whoever writes one seals it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import xxhash

from kernelrepl.store.database import Database

COMPONENT = (
    "session", "key", "from_commit", "roots", "refs", "segments", "size_bytes", "has_code", "magic", "python", "inert",
    "packages", "digests",
)  # fmt: skip
NAME = (
    "session", "name", "from_commit", "summary", "root", "type", "size_bytes", "path", "reason", "execution",
    "updated_at",
)  # fmt: skip
EXECUTION = ("session", "request_id", "origin", "code", "started_at")
OUTCOME = (
    "id", "status", "execution_count", "finished_at", "duration_s", "outputs", "saved", "not_saved", "restored",
    "commit_id",
)  # fmt: skip
SESSION = ("owner", "session_id", "created_at", "workspace", "fixed")
STATE = (
    "state", "last_used_at", "total_executions", "execution_count", "variable_count", "size_bytes", "oldest_commit",
    "python", "packages", "live",
)  # fmt: skip
NOTEBOOK = ("owner", "path", "session_id", "cells")
TOMBSTONE = ("owner", "session_id", "deleted_at")

SEALED: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("components", COMPONENT, "seal"),
    ("names", NAME, "seal"),
    ("executions", EXECUTION, "seal"),
    ("executions", OUTCOME, "outcome_seal"),
    ("sessions", SESSION, "seal"),
    ("sessions", STATE, "state_seal"),
    ("notebooks", NOTEBOOK, "seal"),
    ("tombstones", TOMBSTONE, "seal"),
)
"""The columns of each table that a seal is over, and the column of that seal."""


def seal(values: Iterable[Any]) -> bytes:
    """The seal of values as SQLite gives them back: none, whole numbers, fractions, text and bytes."""
    shown = repr([value if value.__class__ in _SHORT or len(value) < _LONG else _digest(value) for value in values])
    return xxhash.xxh3_128_digest(shown.encode())


_SHORT = (int, float, type(None))
_LONG = 300
"""What is longer is not shown, which would take its time."""


def _digest(value: str | bytes) -> tuple[str, bytes]:
    """One that no value of a row looks like."""
    piece = value if isinstance(value, bytes) else value.encode(errors="replace")
    return type(value).__name__, xxhash.xxh3_128_digest(piece)


def seal_of_data(data: bytes | None) -> bytes:
    """Of the bytes that a component has in its row."""
    return xxhash.xxh3_128_digest(data or b"")


NOTHING = bytes(16)
"""What a session without live rows has for their set."""


def joined(live: bytes, changes: Iterable[Any]) -> bytes:
    """The seal of a set of rows, when rows with these seals come into it or leave it."""
    found = int.from_bytes(live, "big")
    for change in changes:
        if isinstance(change, bytes) and len(change) == len(NOTHING):
            found ^= int.from_bytes(change, "big")
    return found.to_bytes(len(NOTHING), "big")


def columns(names: Iterable[str], table: str | None = None) -> str:
    return ", ".join(name if table is None else f"{table}.{name}" for name in names)


# Sessions

State = dict[str, Any]
_READ_STATE = f"SELECT {columns(STATE)}, state_seal FROM sessions WHERE id = ?"
_WRITE_STATE = f"UPDATE sessions SET {', '.join(f'{name} = ?' for name in STATE)}, state_seal = ? WHERE id = ?"


def state_of(db: Database, session: int) -> State:
    """What of a session changes with its use; `state_seal` is None if it is not what was written."""
    row = db.execute(_READ_STATE, [session]).fetchone()
    if row is None:
        return {}
    found = dict(zip((*STATE, "state_seal"), row, strict=True))
    if seal(row[:-1]) != row[-1]:
        found["state_seal"] = None
    return found


def put_state(db: Database, session: int, state: State) -> None:
    """Write what `state_of` gave, changed. What was damaged stays so."""
    values = [state[name] for name in STATE]
    db.execute(_WRITE_STATE, [*values, None if state["state_seal"] is None else seal(values), session])


def change_state(db: Database, session: int, change: Callable[[State], None]) -> None:
    state = state_of(db, session)
    if state:
        change(state)
        put_state(db, session, state)


# Executions


def seal_outcome(db: Database, execution: int, change: Callable[[], Any]) -> None:
    """Do what changes the outcome of an execution, and seal that. What was damaged stays so."""
    read = f"SELECT {columns(OUTCOME)}, outcome_seal FROM executions WHERE id = ?"
    before = db.execute(read, [execution]).fetchone()
    change()
    if before is not None and seal(before[:-1]) == before[-1]:
        after = db.execute(read, [execution]).fetchone()
        db.execute("UPDATE executions SET outcome_seal = ? WHERE id = ?", [seal(after[:-1]), execution])


# Databases of earlier versions


def seal_all(db: Database) -> None:
    """Seal every row as it stands."""
    db.execute("UPDATE sessions SET live = ?", [NOTHING])
    for table, sealed, column in SEALED:
        key = "rowid" if table in ("components", "names", "executions", "sessions") else "owner || '/' || path"
        key = "owner || '/' || session_id" if table == "tombstones" else key
        if column != "state_seal":
            _seal_table(db, table, key, sealed, column)
    for row, data in db.execute("SELECT id, data FROM components WHERE digests IS NULL").fetchall():
        db.execute("UPDATE components SET data_seal = ? WHERE id = ?", [seal_of_data(data), row])
    for (session,) in db.execute("SELECT id FROM sessions").fetchall():
        live = joined(NOTHING, live_seals(db, session))
        db.execute("UPDATE sessions SET live = ? WHERE id = ?", [live, session])
    _seal_table(db, "sessions", "rowid", STATE, "state_seal")


def _seal_table(db: Database, table: str, key: str, sealed: Iterable[str], column: str) -> None:
    for (row,) in db.execute(f"SELECT {key} FROM {table}").fetchall():
        values = db.execute(f"SELECT {columns(sealed)} FROM {table} WHERE {key} = ?", [row]).fetchone()
        db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", [seal(values), row])


def live_seals(db: Database, session: int) -> list[Any]:
    """The seals of all live rows of a session."""
    found = []
    for table in ("names", "components"):
        rows = db.execute(f"SELECT seal FROM {table} WHERE session = ? AND to_commit IS NULL", [session])
        found += [row[0] for row in rows]
    return found
