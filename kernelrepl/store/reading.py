"""Queries. Run in the reader thread on a read-only connection; they return types of `model`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kernelrepl import bounded_json
from kernelrepl.guest import wire
from kernelrepl.model import (
    Manifest,
    NotRestored,
    NotSaved,
    Restored,
    Saved,
    StoredComponent,
    Write,
)
from kernelrepl.shortening import MOST_STORED
from kernelrepl.store.database import Database
from kernelrepl.store.publish import DIGEST_BYTES

_CODE_SHOWN_CHARS = 80
_WORD = re.compile(r"\w+")
_MOST_NUMBERS = 1_000_000
"""In the list of a component: earlier versions wrote longer ones than this one."""


@dataclass(frozen=True)
class ExecutionRow:
    """One row of the table of executions."""

    id: int
    session: int
    request_id: str
    code: str
    status: str
    execution_count: int
    started_at: str
    duration_s: float
    outputs: str
    saved: Saved
    not_saved: tuple[NotSaved, ...]
    restored: Restored | None
    committed: bool
    origin: str
    kept: bool
    """Its outputs are still there, or are yet to come."""


_EXECUTION = (
    "SELECT id, session, request_id, code, status, execution_count, started_at, duration_s, outputs, saved,"
    " not_saved, restored, commit_id, origin FROM executions"
)


def execution(db: Database, condition: str, parameters: list[Any]) -> ExecutionRow | None:
    row = db.execute(f"{_EXECUTION} WHERE {condition}", parameters).fetchone()
    return None if row is None else _execution(row)


def executions(db: Database, session: int, after: int, room: int) -> list[ExecutionRow]:
    """Executions of a session in their order, from the first behind `after` on: as many as take `room` bytes."""
    found: list[ExecutionRow] = []
    for row in db.execute(f"{_EXECUTION} WHERE session = ? AND id > ? ORDER BY id", [session, after]):
        room -= len(row[3]) + len(row[8] or "")
        if found and room < 0:
            break
        found.append(_execution(row))
    return found


def inputs(db: Database, session: int, most: int) -> list[tuple[int, str]]:
    """Count and code of the last executions that a kernel took, in their order."""
    condition = "session = ? AND execution_count > 0 ORDER BY id DESC LIMIT ?"
    rows = db.execute(f"SELECT execution_count, code FROM executions WHERE {condition}", [session, most]).fetchall()
    return [(int(count), str(code)) for count, code in reversed(rows)]


def _execution(row: Any) -> ExecutionRow:
    saved: Saved = (
        _told(row[9], lambda found: Saved(**{key: tuple(names[:MOST_STORED]) for key, names in found.items()}))
        or Saved()
    )
    restored: Restored | None = _told(
        row[11],
        lambda found: Restored(
            tuple(found["names"][:MOST_STORED]),
            tuple(NotRestored(**entry) for entry in found["not_restored"][:MOST_STORED]),
        ),
    )
    not_saved: tuple[NotSaved, ...] = (
        _told(row[10], lambda found: tuple(NotSaved(**entry) for entry in found[:MOST_STORED])) or ()
    )
    key, session, request, code, status, count, started, duration = row[:8]
    return ExecutionRow(
        key,
        session,
        request,
        code,
        status,
        count,
        started,
        duration,
        outputs=row[8] or "[]",
        saved=saved,
        not_saved=not_saved,
        restored=restored,
        committed=row[12] is not None,
        origin=row[13],
        kept=row[8] is not None,
    )


def _told(stored: str | None, make: Callable[[Any], Any]) -> Any:
    """What a row tells beside its outputs; None for nothing, and for what is of no form that was ever written."""
    try:
        return make(bounded_json.loads(stored.encode(), items=_MOST_NUMBERS)) if stored else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def manifest(db: Database, session: int) -> Manifest:
    """What a kernel needs to take the session up again."""
    names: dict[str, tuple[int, str, int]] = {}
    stories: dict[str, str] = {}
    lines: dict[int, dict[str, str]] = {}
    """Of each execution that made names: its words, and the first line with each."""
    rows = db.execute(
        "SELECT n.name, n.root, n.type, n.size_bytes, n.path, n.reason, n.updated_at, e.id, e.execution_count, e.code"
        " FROM names n LEFT JOIN executions e ON e.id = n.execution"
        " WHERE n.session = ? AND n.to_commit IS NULL",
        [session],
    )
    for name, root, kind, size, path, reason, made, execution, count, code in rows:
        if root is not None:
            names[name] = (root, kind, size)
        else:
            origin = None
            if code is not None:
                if execution not in lines:
                    lines[execution] = _first_mentions(code)
                first = lines[execution]
                origin = f"execution {count} (`{first.get(name, first[''])[:_CODE_SHOWN_CHARS]}`)"
            stories[name] = _story(name, kind, path, reason, made, origin)
    count = db.execute("SELECT execution_count FROM sessions WHERE id = ?", [session]).fetchone()
    return Manifest(names, tuple(_components(db, session)), stories, int(count[0]) if count else 0)


def _first_mentions(code: str) -> dict[str, str]:
    """For each word of code the first line that has it, and the first line of all for the empty word."""
    lines = [line.strip() for line in code.splitlines()]
    found = {"": lines[0] if lines else ""}
    for line in lines:
        for word in _WORD.findall(line):
            found.setdefault(word, line)
    return found


def _story(name: str, kind: str, path: str, reason: str, made: str, origin: str | None) -> str:
    where = f"; the trouble is {path}" if path and path != name else ""
    by = "" if origin is None else f" by {origin}"
    return f"name {name!r} was not saved: it was a {kind}, made at {made}{by}{where}: {reason}"


def _components(db: Database, session: int) -> list[StoredComponent]:
    rows = db.execute(
        "SELECT id, key, roots, refs, segments, has_code, magic, python, blocked, inert, packages FROM components"
        " WHERE session = ? AND to_commit IS NULL ORDER BY size_bytes, key",
        [session],
    )
    return [part for row in rows if (part := _component(row)) is not None]


def _component(row: Any) -> StoredComponent | None:
    """A row as a component; None for one whose numbers are none: what it held counts as missing."""
    try:
        roots, references, segments = (_numbers(row[column]) for column in (2, 3, 4))
        packages = bounded_json.loads(row[10].encode())
    except (ValueError, AttributeError):
        return None
    if not roots or not isinstance(packages, dict):
        return None
    return StoredComponent(
        row[0], row[1], roots, references, segments, bool(row[5]), row[6], row[7], row[8], bool(row[9]), packages
    )  # fmt: skip


def _numbers(stored: str) -> tuple[int, ...]:
    """Raises ValueError for anything but a list of them."""
    found = bounded_json.loads(stored.encode(), items=_MOST_NUMBERS, depth=1)
    if not isinstance(found, list) or not all(type(number) is int and 0 <= number < 1 << 62 for number in found):
        raise ValueError("not a list of numbers")
    return tuple(found)


def missing(db: Database, parts: Sequence[StoredComponent]) -> set[int]:
    """The rows of components of which something is not in the store."""
    return {part.row for part in parts if not all(_lengths_fit(db, part))}


def _lengths_fit(db: Database, part: StoredComponent) -> Iterator[bool]:
    statement = "SELECT LENGTH(data), digests FROM components WHERE id = ?"
    size, digests = db.execute(statement, [part.row]).fetchone() or (-1, None)
    if digests is None:
        yield (size or 0) == part.size_bytes
        return
    cuts = wire.Cuts(part.segments)
    yield len(digests) == cuts.count * DIGEST_BYTES
    for index, length in enumerate(cuts.lengths(0, cuts.count)):
        digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        found = db.execute("SELECT LENGTH(data) FROM chunks WHERE digest = ?", [digest]).fetchone()
        yield found is not None and found[0] == length


def pour(db: Database, parts: Sequence[StoredComponent], write: Write, room: int) -> Iterator[int]:
    """Write the bytes of components, one after the other, in portions of `room` bytes; yields the size of each.

    None of it is missing.
    """
    used = 0
    for data in _bytes_of(db, parts):
        rest = memoryview(data)
        while rest.nbytes:
            piece = rest[: room - used]
            write(piece, used)
            used += piece.nbytes
            rest = rest[piece.nbytes :]
            if used == room:
                yield used
                used = 0
    if used:
        yield used


def _bytes_of(db: Database, parts: Sequence[StoredComponent]) -> Iterator[bytes]:
    for part in parts:
        data, digests = db.execute("SELECT data, digests FROM components WHERE id = ?", [part.row]).fetchone()
        if digests is None:
            yield data or b""
            continue
        for at in range(0, len(digests), DIGEST_BYTES):
            digest = digests[at : at + DIGEST_BYTES]
            (chunk,) = db.execute("SELECT data FROM chunks WHERE digest = ?", [digest]).fetchone()
            yield chunk


def heads(db: Database) -> list[tuple[int, int]]:
    """Each session with its last commit."""
    return [(session, head) for session, head in db.execute("SELECT session, MAX(id) FROM commits GROUP BY session")]


def oldest_commit(db: Database, session: int) -> int | None:
    """The oldest commit of a session that can still be read whole; None if it has none at all."""
    (found,) = db.execute(
        "SELECT MIN(id) FROM commits WHERE session = ?1 AND id >= (SELECT oldest_commit FROM sessions WHERE id = ?1)",
        [session],
    ).fetchone()
    return None if found is None else int(found)


def unreachable(db: Database, heads: Sequence[tuple[int, int]]) -> list[tuple[int, int, list[int]]]:
    """Of each of these sessions that has some, itself, its last commit and its unreachable components."""
    found = ((session, head, unreachable_components(db, session)) for session, head in heads)
    return [entry for entry in found if entry[2]]


def unreachable_components(db: Database, session: int) -> list[int]:
    """Rows of live components that no live name leads to: left when a name that could not be loaded was replaced."""
    parts = _components(db, session)
    holder = {root: part for part in parts for root in part.roots}
    wanted = db.execute(
        "SELECT root FROM names WHERE session = ? AND to_commit IS NULL AND root IS NOT NULL", [session]
    ).fetchall()
    work = [root for (root,) in wanted]
    seen: set[int] = set()
    while work:
        part = holder.get(work.pop())
        if part is not None and part.row not in seen:
            seen.add(part.row)
            work.extend(part.references)
    return [part.row for part in parts if part.row not in seen]
