"""What changes the rows of sessions. Runs in the writer thread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernelrepl.errors import SessionExists
from kernelrepl.store import seals
from kernelrepl.store.database import Database
from kernelrepl.store.publish import count_variables

Versions = tuple[str, Mapping[str, str]]
"""Of Python, and of its packages."""


@dataclass(frozen=True)
class Row:
    """A session that is to be made."""

    owner: str
    session_id: str
    workspace: str
    spec: Mapping[str, Any]
    versions: Versions | None = None


_INSERT = (
    f"INSERT INTO sessions ({seals.columns(seals.SESSION)}, seal, {seals.columns(seals.STATE)}, state_seal)"
    f" VALUES ({', '.join('?' * (len(seals.SESSION) + len(seals.STATE) + 2))})"
)


def create(db: Database, row: Row, now: str) -> tuple[int, str | None]:
    """Its key; and when a session that had this id was deleted for its age, if so. That is told once."""
    with db.atomic():
        gone = db.execute(
            "DELETE FROM tombstones WHERE owner = ? AND session_id = ? RETURNING deleted_at",
            [row.owner, row.session_id],
        ).fetchone()
        spec = [row.owner, row.session_id, now, row.workspace, json.dumps(row.spec)]
        state = ["active", now, 0, 0, 0, 0, 0, *_versions(row.versions), seals.NOTHING]
        made = db.execute(_INSERT, [*spec, seals.seal(spec), *state, seals.seal(state)])
        return int(made.lastrowid or 0), None if gone is None else str(gone[0])


def _versions(found: Versions | None) -> tuple[str | None, str | None]:
    """As the table has them."""
    return (None, None) if found is None else (found[0].encode(errors="replace").decode(), json.dumps(dict(found[1])))


def fix(db: Database, session: int, spec: dict[str, Any]) -> None:
    with db.atomic():
        row = db.execute(f"SELECT {seals.columns(seals.SESSION)} FROM sessions WHERE id = ?", [session]).fetchone()
        values = [*row[:-1], json.dumps(spec)]
        db.execute("UPDATE sessions SET fixed = ?, seal = ? WHERE id = ?", [values[-1], seals.seal(values), session])


def rename(db: Database, session: int, session_id: str) -> None:
    """Its notebooks go with it. Raises SessionExists."""
    with db.atomic():
        fixed = f"SELECT {seals.columns(seals.SESSION)} FROM sessions WHERE id = ?"
        row = dict(zip(seals.SESSION, db.execute(fixed, [session]).fetchone(), strict=True))
        owner, before = row["owner"], row["session_id"]
        taken = "SELECT EXISTS (SELECT 1 FROM sessions WHERE owner = ? AND session_id = ?)"
        if db.execute(taken, [owner, session_id]).fetchone()[0]:
            raise SessionExists(session_id)
        values = row | {"session_id": session_id}
        db.execute(
            "UPDATE sessions SET session_id = ?, seal = ? WHERE id = ?",
            [session_id, seals.seal(values.values()), session],
        )
        for path, (of, cells) in notebooks(db, owner).items():
            if of == before:
                bind_notebook(db, owner, path, session_id, cells, None)


def notebooks(db: Database, owner: str) -> dict[str, tuple[str, list[str]]]:
    """Of each notebook that is known, by its path: the id of its session, and those of its cells."""
    rows = db.execute(f"SELECT {seals.columns(seals.NOTEBOOK)}, seal FROM notebooks WHERE owner = ?", [owner])
    intact = [row[1:4] for row in rows if seals.seal(row[:-1]) == row[-1]]
    return {str(path): (str(session_id), json.loads(cells)) for path, session_id, cells in intact}


def bind_notebook(
    db: Database, owner: str, path: str, session_id: str, cells: Sequence[str], before: str | None
) -> None:
    with db.atomic():
        if before is not None:
            db.execute(
                "DELETE FROM notebooks WHERE owner = ? AND path = ? AND session_id = ?", [owner, before, session_id]
            )
        values = [owner, path, session_id, json.dumps(cells)]
        db.execute(
            f"INSERT OR REPLACE INTO notebooks ({seals.columns(seals.NOTEBOOK)}, seal) VALUES (?, ?, ?, ?, ?)",
            [*values, seals.seal(values)],
        )


def note_versions(db: Database, session: int, versions: Versions) -> None:
    python, packages = _versions(versions)
    with db.atomic():
        seals.change_state(db, session, lambda state: state.update(python=python, packages=packages))


def clear(db: Database, session: int, now: str) -> int:
    """End all variables with a commit; returns how many there were."""
    with db.atomic():
        gone = count_variables(db, session)
        row = db.execute("INSERT INTO commits (session, cause, created_at) VALUES (?, 'clear', ?)", [session, now])
        for table in ("names", "components"):
            db.execute(
                f"UPDATE {table} SET to_commit = ? WHERE session = ? AND to_commit IS NULL", [row.lastrowid, session]
            )
        empty = {"variable_count": 0, "size_bytes": 0, "last_used_at": now, "live": seals.NOTHING}
        seals.change_state(db, session, lambda state: state.update(empty))
    return gone


def mark_inactive(db: Database, unused: Mapping[int, str]) -> None:
    """unused: sessions, and the time since which each has been left alone; one used later stays as it is."""
    with db.atomic():
        for session, since in unused.items():
            state = seals.state_of(db, session)
            if state and state["last_used_at"] == since:
                seals.put_state(db, session, state | {"state": "inactive"})


def delete(db: Database, session: int, remember: str | None) -> None:
    """remember: the time to keep with its id, for whoever comes for it; None: forget it."""
    with db.atomic():
        if remember is not None:
            for owner, session_id in db.execute("SELECT owner, session_id FROM sessions WHERE id = ?", [session]):
                values = [owner, session_id, remember]
                db.execute(
                    f"INSERT OR REPLACE INTO tombstones ({seals.columns(seals.TOMBSTONE)}, seal) VALUES (?, ?, ?, ?)",
                    [*values, seals.seal(values)],
                )
        db.execute("DELETE FROM sessions WHERE id = ?", [session])


def recount(db: Database, session: int, now: str) -> None:
    """Make anew from its rows what of a session was damaged. Of its history nothing is known any more."""
    count = "SELECT COUNT(*), COALESCE(MAX(execution_count), 0) FROM executions WHERE session = ?"
    with db.atomic():
        total, last = db.execute(count, [session]).fetchone()
        (size,) = db.execute(
            "SELECT COALESCE(SUM(size_bytes), 0) FROM components WHERE session = ? AND to_commit IS NULL", [session]
        ).fetchone()
        (head,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM commits WHERE session = ?", [session]).fetchone()
        state = ["active", now, total, last, count_variables(db, session), size, head, None, None]
        values = [*state, seals.joined(seals.NOTHING, seals.live_seals(db, session))]
        seals.put_state(db, session, dict(zip((*seals.STATE, "state_seal"), (*values, b""), strict=True)))


def damaged(db: Database, owner: str) -> list[str]:
    """What of the lists of sessions and notebooks is not what was written, in words."""
    found = []
    for table, sealed in (("sessions", seals.SESSION), ("notebooks", seals.NOTEBOOK), ("tombstones", seals.TOMBSTONE)):
        rows = db.execute(f"SELECT {seals.columns(sealed)}, seal FROM {table}")
        count = sum(seals.seal(row[:-1]) != row[-1] or row[0] != owner for row in rows)
        found += [f"{count} of its {_ROWS[table]}"] if count else []
    return found


_ROWS = {"sessions": "sessions", "notebooks": "notebooks", "tombstones": "notes of deleted sessions"}
