"""Lists of sessions and of variables, page by page. Run in the reader thread.

A page begins behind the last entry of the one before, whatever has come or gone meanwhile: numbers of entries would
shift under a reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kernelrepl.errors import InvalidArgument
from kernelrepl.guest import wire
from kernelrepl.model import Page, PageRequest, SessionInfo, Variable
from kernelrepl.store import seals
from kernelrepl.store.database import Database

RECENT = 2000
"""So many sessions are looked through for one with a similar id."""
_SESSION = f"SELECT id, {seals.columns(seals.SESSION)}, seal, {seals.columns(seals.STATE)}, state_seal FROM sessions"
_VARIABLE = "FROM names WHERE session = ? AND to_commit IS NULL AND name <> '_' AND name NOT LIKE '*%'"
_PLACE = re.compile(r"(\S+)/(\d{1,18})")


def _session(row: Any) -> SessionInfo:
    fixed, (seal, *state, state_seal) = row[1 : 1 + len(seals.SESSION)], row[1 + len(seals.SESSION) :]
    found = dict(zip((*seals.SESSION, *seals.STATE), (*fixed, *state), strict=True))
    damaged, miscounted = seals.seal(fixed) != seal, seals.seal(state) != state_seal
    if damaged or miscounted:
        found |= {name: str(found[name]) for name in (*seals.SESSION, "state", "last_used_at")}
        found |= {name: found[name] if isinstance(found[name], int) else 0 for name in _COUNTS}
    return SessionInfo(
        row[0], found["session_id"], found["created_at"], found["last_used_at"], found["state"],
        found["variable_count"], found["total_executions"], found["execution_count"], found["size_bytes"],
        found["workspace"], damaged, miscounted,
    )  # fmt: skip


_COUNTS = ("variable_count", "total_executions", "execution_count", "size_bytes")
_FIXED = 1 + seals.SESSION.index("fixed")


def find_session(db: Database, owner: str, session_id: str) -> tuple[SessionInfo, dict[str, Any]] | None:
    row = db.execute(f"{_SESSION} WHERE owner = ? AND session_id = ?", [owner, session_id]).fetchone()
    if row is None:
        return None
    info = _session(row)
    ran = _count(db, "SELECT COUNT(*) FROM executions WHERE session = ?", [info.key])
    if ran != info.total_executions:
        info = replace(info, miscounted=True)  # one that is lost, or another's
    return info, {} if info.damaged else json.loads(row[_FIXED])


def granted(db: Database) -> list[tuple[str, dict[str, Any]]]:
    """Of sessions that may write elsewhere or have an interpreter of their own: the workspace, and what is fixed."""
    rows = db.execute(
        f"SELECT {seals.columns(seals.SESSION)}, seal FROM sessions WHERE CASE WHEN json_valid(fixed) THEN"
        " json_array_length(fixed, '$.access.write') > 0 OR json_extract(fixed, '$.python') IS NOT NULL END"
    ).fetchall()
    # One that is damaged is not opened, and so writes nowhere.
    return [(row[3], json.loads(row[4])) for row in rows if seals.seal(row[:-1]) == row[-1]]


def sessions(db: Database, owner: str, request: PageRequest) -> Page[SessionInfo]:
    """The latest used first. A cursor is the time of the last entry's use, and its key."""
    condition, parameters = _narrowed("owner = ?", [owner], "session_id", request)
    total = _count(db, f"SELECT COUNT(*) FROM sessions WHERE {condition}", parameters)
    if request.cursor is not None:
        place = _PLACE.fullmatch(request.cursor)
        if place is None:
            raise _no_cursor(request.cursor)
        condition += " AND (last_used_at, id) < (?, ?)"
        parameters += [place[1], int(place[2])]
    rows = db.execute(
        f"{_SESSION} WHERE {condition} ORDER BY last_used_at DESC, id DESC LIMIT ?", [*parameters, _one_more(request)]
    ).fetchall()
    found = [_session(row) for row in rows[: request.limit]]
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


def variables(db: Database, session: int, request: PageRequest) -> Page[Variable]:
    """By name. A cursor is the name of the last entry."""
    condition, parameters = _narrowed(_VARIABLE, [session], "name", request)
    total = _count(db, f"SELECT COUNT(*) {condition}", parameters)
    if request.cursor is not None:
        condition += " AND name > ?"
        parameters.append(request.cursor)
    rows = db.execute(
        f"SELECT {seals.columns(seals.NAME)}, seal {condition} ORDER BY name LIMIT ?",
        [*parameters, _one_more(request)],
    ).fetchall()
    found = [_variable(row) for row in rows[: request.limit]]
    return Page(found, total, found[-1].name if len(rows) > len(found) else None)


def _variable(row: Any) -> Variable:
    found = dict(zip(seals.NAME, row[:-1], strict=True))
    saved, reason, size = found["root"] is not None, found["reason"], found["size_bytes"]
    if seals.seal(row[:-1]) != row[-1]:
        found |= {name: str(found[name]) for name in ("name", "type", "updated_at", "path", "summary")}
        saved, reason, size = False, wire.DAMAGED, size if isinstance(size, int) else 0
    return Variable(
        found["name"], found["type"], size, saved, found["updated_at"], reason, found["path"], found["summary"]
    )


def _narrowed(condition: str, parameters: Sequence[Any], column: str, request: PageRequest) -> tuple[str, list[Any]]:
    if request.contains is None:
        return condition, list(parameters)
    return f"{condition} AND instr(lower({column}), lower(?))", [*parameters, request.contains]


def _one_more(request: PageRequest) -> int:
    """Than the page has, to know whether there is another."""
    return -1 if request.limit is None else request.limit + 1


def _count(db: Database, statement: str, parameters: Sequence[Any]) -> int:
    return int(db.execute(statement, parameters).fetchone()[0])


def _no_cursor(cursor: str) -> InvalidArgument:
    return InvalidArgument(f"cursor is {cursor[:60]!r}; it must be the next_cursor of a page before, or left out")
