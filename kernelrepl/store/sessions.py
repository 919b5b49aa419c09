"""What changes the rows of sessions. Runs in the writer thread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    fixed: Mapping[str, Any]
    versions: Versions | None = None


def create(db: Database, row: Row, now: str) -> tuple[int, str | None]:
    """Its key; and when a session that had this id was deleted for its age, if so. That is told once."""
    with db.atomic():
        gone = db.execute(
            "DELETE FROM tombstones WHERE owner = ? AND session_id = ? RETURNING deleted_at",
            [row.owner, row.session_id],
        ).fetchone()
        made = db.execute(
            "INSERT INTO sessions"
            " (owner, session_id, state, created_at, last_used_at, workspace, fixed, python, packages)"
            " VALUES (?, ?, 'active', ?, ?, ?, ?, ?, ?)",
            [row.owner, row.session_id, now, now, row.workspace, json.dumps(row.fixed), *_versions(row.versions)],
        )
        return int(made.lastrowid or 0), None if gone is None else str(gone[0])


def _versions(found: Versions | None) -> tuple[str | None, str | None]:
    """As the table has them."""
    return (None, None) if found is None else (found[0].encode(errors="replace").decode(), json.dumps(dict(found[1])))


def fix(db: Database, session: int, fixed: dict[str, Any]) -> None:
    with db.atomic():
        db.execute("UPDATE sessions SET fixed = ? WHERE id = ?", [json.dumps(fixed), session])


def notebooks(db: Database, owner: str) -> dict[str, tuple[str, list[str]]]:
    """Of each notebook that is known, by its path: the id of its session, and those of its cells."""
    rows = db.execute("SELECT path, session_id, cells FROM notebooks WHERE owner = ?", [owner]).fetchall()
    return {str(path): (str(session_id), json.loads(cells)) for path, session_id, cells in rows}


def bind_notebook(
    db: Database, owner: str, path: str, session_id: str, cells: Sequence[str], before: str | None
) -> None:
    with db.atomic():
        if before is not None:
            db.execute(
                "DELETE FROM notebooks WHERE owner = ? AND path = ? AND session_id = ?", [owner, before, session_id]
            )
        db.execute("INSERT OR REPLACE INTO notebooks VALUES (?, ?, ?, ?)", [owner, path, session_id, json.dumps(cells)])


def note_versions(db: Database, session: int, versions: Versions) -> None:
    with db.atomic():
        db.execute("UPDATE sessions SET python = ?, packages = ? WHERE id = ?", [*_versions(versions), session])


def clear(db: Database, session: int, now: str) -> int:
    """End all variables with a commit; returns how many there were."""
    with db.atomic():
        gone = count_variables(db, session)
        row = db.execute("INSERT INTO commits (session, cause, created_at) VALUES (?, 'clear', ?)", [session, now])
        for table in ("names", "components"):
            db.execute(
                f"UPDATE {table} SET to_commit = ? WHERE session = ? AND to_commit IS NULL", [row.lastrowid, session]
            )
        db.execute(
            "UPDATE sessions SET variable_count = 0, size_bytes = 0, last_used_at = ? WHERE id = ?", [now, session]
        )
    return gone


def mark_inactive(db: Database, unused: Mapping[int, str]) -> None:
    """unused: sessions, and the time since which each has been left alone; one used later stays as it is."""
    with db.atomic():
        for session, since in unused.items():
            db.execute("UPDATE sessions SET state = 'inactive' WHERE id = ? AND last_used_at = ?", [session, since])


def delete(db: Database, session: int, remember: str | None) -> None:
    """remember: the time to keep with its id, for whoever comes for it; None: forget it."""
    with db.atomic():
        if remember is not None:
            db.execute(
                "INSERT OR REPLACE INTO tombstones SELECT owner, session_id, ? FROM sessions WHERE id = ?",
                [remember, session],
            )
        db.execute("DELETE FROM sessions WHERE id = ?", [session])
