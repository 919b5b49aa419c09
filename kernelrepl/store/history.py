"""What is kept of the earlier states of sessions, and what it costs. Only reads, on one snapshot.

A version is a row with the interval of commits that it belongs to, [from_commit, to_commit). To keep the commits of a
session from one on means to keep the rows that end after it: then each of these commits can be read whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Set
from dataclasses import dataclass

from kernelrepl.store.database import Database
from kernelrepl.store.publish import DIGEST_BYTES, ROW_COST_BYTES

KEPT_OUTPUTS = 200
"""Executions of a session whose outputs are kept; older rows keep their code and status."""

_SUPERSEDED = f"""
    SELECT to_commit, {ROW_COST_BYTES} + LENGTH(CAST(
        name || type || summary || COALESCE(path, '') || COALESCE(reason, '') AS BLOB)), NULL, NULL
    FROM names WHERE session = ?1 AND to_commit > ?2
    UNION ALL
    SELECT to_commit, {ROW_COST_BYTES} + LENGTH(roots) + LENGTH(refs) + LENGTH(segments)
        + COALESCE(LENGTH(data), 0) + COALESCE(LENGTH(digests), 0), key, digests
    FROM components WHERE session = ?1 AND to_commit > ?2
    ORDER BY 1 DESC
"""


@dataclass(frozen=True)
class Plan:
    """What may go, as one snapshot shows it."""

    oldest: dict[int, int]
    """Of sessions with versions to drop: the oldest commit that stays."""
    unused: list[int]
    """Rows of chunks that no version uses, once those have been dropped."""
    last_component: int
    """The last row of `components` that was looked at."""
    outputs: list[int]
    """Rows of executions whose outputs are too old."""


def plan(db: Database, max_history_bytes: int | None) -> Plan:
    """What goes so that the history of each session keeps to so many bytes; None: all of it is kept."""
    live: set[bytes] = set()
    for (digests,) in db.execute("SELECT digests FROM components WHERE to_commit IS NULL AND digests IS NOT NULL"):
        live.update(split(digests))
    used = set(live)
    oldest = {}
    for session, before in db.execute("SELECT id, oldest_commit FROM sessions").fetchall():
        now, kept = oldest_within(db, session, before, live, max_history_bytes)
        used |= kept
        if _drops(db, session, now):
            oldest[session] = now
    unused = [row for row, digest in db.execute("SELECT rowid, digest FROM chunks") if digest not in used]
    (last,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM components").fetchone()
    return Plan(oldest, unused, last, _old_outputs(db))


def oldest_within(
    db: Database, session: int, oldest: int, live: Set[bytes], max_bytes: int | None
) -> tuple[int, set[bytes]]:
    """The oldest commit of a session whose state can be kept for so many bytes, and the chunks that only history has.

    What is counted is what would be free without the history: superseded rows with their texts, digests and inline
    data, and each chunk once that is not among the live ones (of any session).
    """
    newer: dict[int, bytes] = dict(
        db.execute(
            "SELECT key, digests FROM components WHERE session = ? AND to_commit IS NULL AND digests IS NOT NULL",
            [session],
        ).fetchall()
    )
    kept: set[bytes] = set()
    spent = 0
    rows = db.execute(_SUPERSEDED, [session, oldest])
    for end, ending in itertools.groupby(rows, key=lambda row: row[0]):
        only_here: set[bytes] = set()
        for _, cost, key, digests in ending:
            spent += cost
            if digests is not None:
                # Newest first: what the next version of the same key has in the same place is counted already.
                only_here.update(_differing(newer.get(key, b""), digests))
                newer[key] = digests
        only_here -= live
        only_here -= kept
        for digest in only_here if max_bytes is not None else ():
            found = db.execute("SELECT LENGTH(data) FROM chunks WHERE digest = ?", [digest]).fetchone()
            spent += found[0] if found is not None else 0
        if max_bytes is not None and spent > max_bytes:
            rows.close()
            return int(end), kept
        kept |= only_here
    return oldest, kept


def _drops(db: Database, session: int, oldest: int) -> bool:
    """Whether there are versions that ended before a commit."""
    statement = "SELECT EXISTS (SELECT 1 FROM {} WHERE session = ? AND to_commit <= ?)"
    return any(
        db.execute(statement.format(table), [session, oldest]).fetchone()[0] for table in ("components", "names")
    )


def _old_outputs(db: Database) -> list[int]:
    # Counted, not told from the numbers: those go through all sessions.
    rows = db.execute(
        "WITH ends AS MATERIALIZED (SELECT id AS session, (SELECT of_it.id FROM executions of_it"
        " WHERE of_it.session = sessions.id ORDER BY of_it.id DESC LIMIT 1 OFFSET ?) AS last FROM sessions)"
        " SELECT executions.id FROM ends JOIN executions"
        " ON executions.session = ends.session AND executions.id <= ends.last WHERE outputs IS NOT NULL",
        [KEPT_OUTPUTS],
    )
    return [row for (row,) in rows]


def split(digests: bytes) -> list[bytes]:
    """The digests in the row of a component, one by one."""
    return [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]


def _differing(known: bytes, digests: bytes) -> Iterator[bytes]:
    """The digests that another version has not in the same place.

    Halved while something differs: two versions of a gigabyte mostly differ in one place of four thousand.
    """
    parts = [(0, len(digests))]
    while parts:
        start, end = parts.pop()
        part = digests[start:end]
        if part == known[start:end]:
            continue
        if end - start <= DIGEST_BYTES:
            yield part
        elif start >= len(known):
            yield from split(part)
        else:
            middle = start + (end - start) // DIGEST_BYTES // 2 * DIGEST_BYTES
            parts += ((start, middle), (middle, end))
