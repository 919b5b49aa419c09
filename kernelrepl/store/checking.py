"""Read all of a database and compare it with what was written: for a person who wants to know.

Only reads, on a connection of its own, so that a keeper may serve meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kernelrepl.store import seals
from kernelrepl.store.database import Database
from kernelrepl.store.live import manifest
from kernelrepl.store.reading import bytes_of, is_chunk, missing
from kernelrepl.store.worker import Worker

_MOST_LINES = 20
"""Of what SQLite says by itself."""


@dataclass
class Report:
    """What was read, and what is wrong with it, a line each."""

    sessions: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def check(path: Path) -> Report:
    """Raises StorageFailed for what cannot be opened."""
    worker = Worker(path, "store check", read_only=True)
    worker.open()
    try:
        return worker.submit(_check).result()
    finally:
        worker.close()


def workspaces(path: Path) -> list[str]:
    """The names of the directories of all sessions; none where there is no database. Raises StorageFailed."""
    if not path.exists() or not path.stat().st_size:
        return []
    worker = Worker(path, "store check", read_only=True)
    worker.open()
    try:
        return worker.submit(lambda db: [row[0] for row in db.execute("SELECT workspace FROM sessions")]).result()
    finally:
        worker.close()


def _check(db: Database) -> Report:
    report = Report()
    for look in (_look_at_pages, _look_at_rows, _look_at_chunks, _look_at_sessions):
        try:
            report.problems += look(db, report)
        except sqlite3.DatabaseError as error:
            report.problems.append(f"some of it cannot be read: {error}")
    return report


def _look_at_pages(db: Database, report: Report) -> Iterator[str]:
    rows = db.execute(f"PRAGMA integrity_check({_MOST_LINES})").fetchall()
    yield from (f"SQLite says: {line}" for (line,) in rows if line != "ok")


def _look_at_rows(db: Database, report: Report) -> Iterator[str]:
    for table, sealed, column in seals.SEALED:
        rows = db.execute(f"SELECT {seals.columns(sealed)}, {column} FROM {table}")
        if count := sum(seals.seal(row[:-1]) != row[-1] for row in rows):
            yield f"{count} rows of the table {table} are not what was written"


def _look_at_chunks(db: Database, report: Report) -> Iterator[str]:
    count = 0
    for digest, data in db.execute("SELECT digest, data FROM chunks"):
        report.size_bytes += len(data or b"")
        count += not is_chunk(data, digest)
    if count:
        yield f"{count} pieces of values are not what was stored"


def _look_at_sessions(db: Database, report: Report) -> Iterator[str]:
    for session, session_id in db.execute("SELECT id, session_id FROM sessions ORDER BY session_id").fetchall():
        report.sessions += 1
        found = manifest(db, session)
        yield from (f"session {session_id}: {entry.name}: {entry.reason}" for entry in found.damaged)
        gone = missing(db, found.components)
        for part in found.components:
            names = sorted(name for name, (root, *_) in found.names.items() if root in part.roots)
            what = f"session {session_id}: the value of {', '.join(names) or 'what its names refer to'}"
            if part.blocked is not None:
                yield f"{what} is not restored: {part.blocked}"
            elif part.row in gone:
                yield f"{what} is missing"
            elif any(data is None for data, _ in bytes_of(db, [part])):
                yield f"{what} is damaged"
