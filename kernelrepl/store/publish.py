"""Write one commit. Runs in the writer thread; a commit is there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from blake3 import blake3

from kernelrepl.errors import StorageFailed
from kernelrepl.model import Commit, Limits, NewComponent, Restored
from kernelrepl.store.database import Database

CHUNK_BYTES = 256 << 10
INLINE_BYTES = 8 << 10
"""Smaller components live in their row; the chunk table would cost more than it shares."""

MAX_LIVE_ROWS = 1_000_000
MAX_LIVE_TEXT = 256 << 20
"""What the names and components of a session may take beside their bytes, in rows and characters."""

Staged = dict[int, tuple[list[bytes], int]]
"""Of each component whose bytes came ahead, by its index in the commit: digests of the chunks, bytes."""


def chunked(data: memoryview) -> Iterator[memoryview]:
    for start in range(0, data.nbytes, CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def put_chunks(db: Database, data: memoryview) -> list[bytes]:
    """Store what is not there yet; returns the digests in order. Part of the caller's transaction."""
    digests = []
    for chunk in chunked(data):
        digest = blake3(chunk).digest()
        db.execute("INSERT OR IGNORE INTO chunks (digest, data) VALUES (?, ?)", [digest, chunk])
        digests.append(digest)
    return digests


def write_commit(
    db: Database,
    session: int,
    execution: int | None,
    commit: Commit,
    staged: Staged,
    limits: Limits,
    now: str,
) -> int:
    """Insert a commit and everything it changes; returns its id. Part of the caller's transaction.

    Raises StorageFailed if the session would pass its limits, or if the commit contradicts itself.
    """
    _refuse_contradictions(commit)
    row = db.execute(
        "INSERT INTO commits (session, cause, execution, created_at) VALUES (?, ?, ?, ?)",
        [session, commit.cause, execution, now],
    )
    commit_id = int(row.lastrowid or 0)
    _close(
        db, "components", "key", session, commit_id, [*commit.closed, *(part.roots[0] for part in commit.components)]
    )
    for part in commit.components:
        _check_size(part, limits)
        _insert_component(db, session, commit_id, part, commit, staged)
    _close(db, "names", "name", session, commit_id, [*commit.names, *commit.unsaved, *commit.deleted])

    def row_of(name: str) -> tuple[int, str, int, str]:
        return session, name, commit_id, commit.summaries.get(name, "")

    for name, (root, kind, size) in commit.names.items():
        db.execute(_INSERT_NAME, [*row_of(name), root, kind, size, None, None, execution, now])
    for name, (kind, path, reason) in commit.unsaved.items():
        db.execute(_INSERT_NAME, [*row_of(name), None, kind, 0, path, reason, execution, now])
    total = _live_bytes(db, session) if commit.components or commit.closed else None
    if total is not None and limits.session_bytes is not None and total > limits.session_bytes and commit.components:
        raise StorageFailed(
            f"the session would take {total} bytes, over its limit of {limits.session_bytes}; delete variables"
        )
    if commit.names or commit.unsaved or commit.components:
        _refuse_excess(db, session)
    _touch_session(db, session, commit, total, now)
    return commit_id


def _refuse_contradictions(commit: Commit) -> None:
    """Whoever made the commit is not trusted to be of one mind."""
    roots = [root for part in commit.components for root in part.roots]
    if len(set(roots)) < len(roots) or any(not part.roots for part in commit.components):
        raise StorageFailed("the kernel sent a commit with one value in two places; nothing of it is stored")
    if not commit.names.keys().isdisjoint(commit.unsaved):
        raise StorageFailed("the kernel sent a commit with a name that is saved and not saved; nothing of it is stored")
    for part in commit.components:
        if part.data is not None and len(part.data) != sum(part.segments):
            raise StorageFailed("the kernel sent a commit with too few bytes; nothing of it is stored")


def _refuse_excess(db: Database, session: int) -> None:
    """A session without bytes can have any number of rows."""
    names, texts = db.execute(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(name) + LENGTH(type) + LENGTH(summary) + LENGTH(COALESCE(path, ''))"
        " + LENGTH(COALESCE(reason, ''))), 0) FROM names WHERE session = ? AND to_commit IS NULL",
        [session],
    ).fetchone()
    parts, lists = db.execute(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(roots) + LENGTH(refs) + LENGTH(segments)), 0) FROM components"
        " WHERE session = ? AND to_commit IS NULL",
        [session],
    ).fetchone()
    if names + parts > MAX_LIVE_ROWS or texts + lists > MAX_LIVE_TEXT:
        raise StorageFailed(f"the session would have {names} names in {parts} parts, too many; delete variables")


_INSERT_NAME = (
    "INSERT INTO names (session, name, from_commit, summary, root, type, size_bytes, path, reason, execution,"
    " updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _close(db: Database, table: str, column: str, session: int, commit_id: int, values: Sequence[Any]) -> None:
    statement = f"UPDATE {table} SET to_commit = ? WHERE session = ? AND {column} = ? AND to_commit IS NULL"
    for value in values:
        db.execute(statement, [commit_id, session, value])


def _check_size(part: NewComponent, limits: Limits) -> None:
    size = sum(part.segments)
    if limits.variable_bytes is not None and size > limits.variable_bytes * len(part.roots):
        raise StorageFailed(f"a component of {size} bytes is over the limit of {limits.variable_bytes} a variable")


def _insert_component(
    db: Database, session: int, commit_id: int, part: NewComponent, commit: Commit, staged: Staged
) -> None:
    size = sum(part.segments)
    inline = part.data if part.data is not None and size <= INLINE_BYTES else None
    row = db.execute(
        "INSERT INTO components (session, key, from_commit, roots, refs, segments, size_bytes, has_code,"
        " magic, python, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            session, part.roots[0], commit_id, json.dumps(part.roots), json.dumps(part.references),
            json.dumps(part.segments), size, part.has_code, commit.magic, commit.python, inline,
        ],
    )  # fmt: skip
    if inline is not None:
        return
    component = row.lastrowid
    digests = _staged_digests(part, staged) if part.data is None else _chunk_segments(db, part)
    for position, digest in enumerate(digests):
        db.execute("INSERT INTO component_chunks VALUES (?, ?, ?)", [component, position, digest])


def _staged_digests(part: NewComponent, staged: Staged) -> list[bytes]:
    digests, size = staged.get(part.index, ([], 0))
    if size != sum(part.segments):
        raise StorageFailed("a part of the data could not be stored ahead of its commit; is the disk full?")
    return digests


def _chunk_segments(db: Database, part: NewComponent) -> list[bytes]:
    # Segment by segment: an array that did not change gives the same chunks whatever precedes it.
    view, at, digests = memoryview(part.data or b""), 0, []
    for size in part.segments:
        digests.extend(put_chunks(db, view[at : at + size]))
        at += size
    return digests


def _live_bytes(db: Database, session: int) -> int:
    row = db.execute(
        "SELECT COALESCE(SUM(size_bytes), 0) FROM components WHERE session = ? AND to_commit IS NULL", [session]
    ).fetchone()
    return int(row[0])


def _touch_session(db: Database, session: int, commit: Commit, size: int | None, now: str) -> None:
    changes: dict[str, Any] = {"last_used_at": now, "state": "active"}
    if commit.names or commit.unsaved or commit.deleted:
        changes["variable_count"] = count_variables(db, session)
    if size is not None:
        changes["size_bytes"] = size
    if commit.outcome is not None:
        changes["execution_count"] = int(commit.outcome["execution_count"])
    columns = ", ".join(f"{column} = ?" for column in changes)
    db.execute(f"UPDATE sessions SET {columns} WHERE id = ?", [*changes.values(), session])


def dump_restored(value: Restored | None) -> str | None:
    return None if value is None else json.dumps(asdict(value))


def finish_row(
    db: Database, execution: int, commit_id: int, commit: Commit, restored: Restored | None, now: str
) -> None:
    """Close the row of an execution together with its commit. Part of the caller's transaction."""
    outcome = commit.outcome or {}
    not_saved = [
        {"name": name, "type": kind, "path": path, "reason": reason}
        for name, (kind, path, reason) in commit.unsaved.items()
    ]
    db.execute(
        "UPDATE executions SET status = ?, execution_count = ?, finished_at = ?, duration_s = ?, outputs = ?,"
        " saved = ?, not_saved = ?, restored = ?, commit_id = ? WHERE id = ?",
        [
            outcome["status"], outcome["execution_count"], now, outcome["duration_s"], commit.outputs,
            json.dumps(asdict(commit.saved)), json.dumps(not_saved), dump_restored(restored), commit_id, execution,
        ],
    )  # fmt: skip


def count_variables(db: Database, session: int) -> int:
    row = db.execute(
        "SELECT COUNT(*) FROM names WHERE session = ? AND to_commit IS NULL AND name <> '_' AND name NOT LIKE '*%'",
        [session],
    ).fetchone()
    return int(row[0])


def digests_in_use(db: Database, keep: Iterable[bytes]) -> int:
    """Delete chunks that no component uses and that are not in `keep`; returns how many went."""
    db.execute("CREATE TEMP TABLE IF NOT EXISTS pinned (digest BLOB PRIMARY KEY)")
    db.execute("DELETE FROM pinned")
    for digest in keep:
        db.execute("INSERT OR IGNORE INTO pinned VALUES (?)", [digest])
    row = db.execute(
        "DELETE FROM chunks WHERE digest NOT IN (SELECT digest FROM component_chunks)"
        " AND digest NOT IN (SELECT digest FROM pinned)"
    )
    return int(row.rowcount)
