"""Lists of sessions and of variables, page by page. Run in the reader thread.

A page begins behind the last entry of the one before, whatever has come or gone meanwhile: numbers of entries would
shift under a reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from kernelrepl.errors import InvalidArgument
from kernelrepl.model import Asked, Page, SessionInfo, Variable
from kernelrepl.store.database import Database

RECENT = 2000
"""So many sessions are looked through for one with a similar id."""
_SESSION = (
    "SELECT id, session_id, created_at, last_used_at, state, variable_count, total_executions, execution_count,"
    " size_bytes, workspace, fixed FROM sessions"
)
_VARIABLE = "FROM names WHERE session = ? AND to_commit IS NULL AND name <> '_' AND name NOT LIKE '*%'"
_PLACE = re.compile(r"(\S+)/(\d{1,18})")


def _session(row: Any) -> SessionInfo:
    return SessionInfo(*row[:10])


def find_session(db: Database, owner: str, session_id: str) -> tuple[SessionInfo, dict[str, Any]] | None:
    row = db.execute(f"{_SESSION} WHERE owner = ? AND session_id = ?", [owner, session_id]).fetchone()
    return None if row is None else (_session(row), json.loads(row[10]))


def granted(db: Database) -> list[tuple[str, dict[str, Any]]]:
    """Of sessions that may write elsewhere or have an interpreter of their own: the workspace, and what is fixed."""
    rows = db.execute(
        "SELECT workspace, fixed FROM sessions WHERE json_array_length(fixed, '$.access.write') > 0"
        " OR json_extract(fixed, '$.python') IS NOT NULL"
    )
    return [(workspace, json.loads(fixed)) for workspace, fixed in rows]


def sessions(db: Database, owner: str, asked: Asked) -> Page[SessionInfo]:
    """The latest used first. A cursor is the time of the last entry's use, and its key."""
    condition, parameters = _narrowed("owner = ?", [owner], "session_id", asked)
    total = _count(db, f"SELECT COUNT(*) FROM sessions WHERE {condition}", parameters)
    if asked.cursor is not None:
        place = _PLACE.fullmatch(asked.cursor)
        if place is None:
            raise _no_cursor(asked.cursor)
        condition += " AND (last_used_at, id) < (?, ?)"
        parameters += [place[1], int(place[2])]
    rows = db.execute(
        f"{_SESSION} WHERE {condition} ORDER BY last_used_at DESC, id DESC LIMIT ?", [*parameters, _one_more(asked)]
    ).fetchall()
    found = [_session(row) for row in rows[: asked.limit]]
    return Page(found, total, f"{found[-1].last_used_at}/{found[-1].key}" if len(rows) > len(found) else None)


def count_sessions(db: Database, owner: str) -> int:
    return _count(db, "SELECT COUNT(*) FROM sessions WHERE owner = ?", [owner])


def recent_ids(db: Database, owner: str) -> list[str]:
    statement = "SELECT session_id FROM sessions WHERE owner = ? ORDER BY last_used_at DESC LIMIT ?"
    return [name for (name,) in db.execute(statement, [owner, RECENT])]


def unused_sessions(db: Database, owner: str, since: str) -> list[SessionInfo]:
    """Those that were last used before, and all that are marked inactive."""
    rows = db.execute(
        f"{_SESSION} WHERE owner = ?1 AND last_used_at <= ?2 UNION {_SESSION} WHERE owner = ?1 AND state = 'inactive'",
        [owner, since],
    )
    return [_session(row) for row in rows]


def variables(db: Database, session: int, asked: Asked) -> Page[Variable]:
    """By name. A cursor is the name of the last entry."""
    condition, parameters = _narrowed(_VARIABLE, [session], "name", asked)
    total = _count(db, f"SELECT COUNT(*) {condition}", parameters)
    if asked.cursor is not None:
        condition += " AND name > ?"
        parameters.append(asked.cursor)
    rows = db.execute(
        f"SELECT name, type, size_bytes, root IS NOT NULL, updated_at, reason, path, summary {condition}"
        " ORDER BY name LIMIT ?",
        [*parameters, _one_more(asked)],
    ).fetchall()
    found = [Variable(row[0], row[1], row[2], bool(row[3]), *row[4:]) for row in rows[: asked.limit]]
    return Page(found, total, found[-1].name if len(rows) > len(found) else None)


def _narrowed(condition: str, parameters: Sequence[Any], column: str, asked: Asked) -> tuple[str, list[Any]]:
    if asked.contains is None:
        return condition, list(parameters)
    return f"{condition} AND instr(lower({column}), lower(?))", [*parameters, asked.contains]


def _one_more(asked: Asked) -> int:
    """Than the page has, to know whether there is another."""
    return -1 if asked.limit is None else asked.limit + 1


def _count(db: Database, statement: str, parameters: Sequence[Any]) -> int:
    return int(db.execute(statement, parameters).fetchone()[0])


def _no_cursor(cursor: str) -> InvalidArgument:
    return InvalidArgument(f"cursor is {cursor[:60]!r}; it must be the next_cursor of a page before, or left out")
