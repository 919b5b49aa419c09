"""Remove what nothing leads to any more, in steps. Runs in the writer thread; each step is a short transaction.

What goes was found on a snapshot, by a thread of its own. A commit may have come in between, so each step makes sure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kernelrepl.store import seals
from kernelrepl.store.database import Database
from kernelrepl.store.history import Plan, split

ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 1 << 20
"""How much one step removes: it is overwritten, and a commit may be waiting."""


def close_unreachable(db: Database, session: int, head: int, rows: Sequence[int]) -> None:
    """End components that no name led to at the commit `head`, unless there has been a later one.

    They belong to the history from then on, and no more to what the session has.
    """
    with db.atomic():
        if db.execute("SELECT MAX(id) FROM commits WHERE session = ?", [session]).fetchone()[0] != head:
            return
        state = seals.state_of(db, session)
        for row in rows:
            ended = db.execute(
                "UPDATE components SET to_commit = ? WHERE id = ? AND to_commit IS NULL RETURNING size_bytes, seal",
                [head, row],
            ).fetchall()
            for size, found in ended:
                state["size_bytes"] -= size
                state["live"] = seals.joined(state["live"], [found])
            db.execute("DELETE FROM components WHERE id = ? AND to_commit <= from_commit", [row])
        seals.put_state(db, session, state)


def forget_before(db: Database, session: int, oldest: int) -> None:
    """From now on no commit before this one can be read. Its versions are left to `drop_versions`."""
    with db.atomic():
        seals.change_state(db, session, lambda state: _raise_oldest(state, oldest))


def _raise_oldest(state: seals.State, oldest: int) -> None:
    state["oldest_commit"] = max(state["oldest_commit"], oldest)


def forget_history(db: Database, session: int) -> None:
    """From now on only the present state of a session can be read."""
    with db.atomic():
        (head,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM commits WHERE session = ?", [session]).fetchone()
        seals.change_state(db, session, lambda state: state.update(oldest_commit=head))


def drop_versions(db: Database, session: int) -> bool:
    """Delete some of the versions that no commit has which can be read; whether there are more."""
    rows = bytes_ = 0
    with db.atomic():
        for table, size in (
            ("components", "COALESCE(LENGTH(data), 0) + COALESCE(LENGTH(digests), 0)"),
            ("names", "LENGTH(CAST(summary AS BLOB))"),
        ):
            found = db.execute(
                f"SELECT id, {size} FROM {table} WHERE session = ?1"
                " AND to_commit <= (SELECT oldest_commit FROM sessions WHERE id = ?1) LIMIT ?2",
                [session, ROWS_AT_ONCE],
            ).fetchall()
            for row, weight in found:
                if rows >= ROWS_AT_ONCE or bytes_ >= BYTES_AT_ONCE:
                    return True
                db.execute(f"DELETE FROM {table} WHERE id = ?", [row])
                rows += 1
                bytes_ += weight
    return rows >= ROWS_AT_ONCE


_DROP_OUTPUTS = "UPDATE executions SET outputs = NULL WHERE id = ?"


def drop_outputs(db: Database, rows: Sequence[int]) -> None:
    with db.atomic():
        for row in rows:
            seals.seal_outcome(db, row, lambda row=row: db.execute(_DROP_OUTPUTS, [row]))  # type: ignore[misc]


class Sweep:
    """Deletes the unused chunks of a plan.

    Chunks are taken up by new rows of components only, and the numbers of these only rise: whoever comes back needs
    to look at nothing else. A later way to bring back an old version must make new rows, too.
    """

    def __init__(self, plan: Plan) -> None:
        self._rows = plan.unused
        self._last = plan.last_component
        self._taken: set[bytes] = set()

    def step(self, db: Database, waiting: Iterable[bytes]) -> bool:
        """Delete some; whether there are more. waiting: chunks whose commit is still to come."""
        size = looked = 0
        with db.atomic():
            self._look_at_new_components(db)
            spared = self._taken.union(waiting)
            while self._rows and size < BYTES_AT_ONCE and looked < ROWS_AT_ONCE:
                row = self._rows.pop()
                looked += 1
                found = db.execute("SELECT digest, LENGTH(data) FROM chunks WHERE rowid = ?", [row]).fetchone()
                if found is not None and found[0] not in spared:
                    db.execute("DELETE FROM chunks WHERE rowid = ?", [row])
                    size += found[1]
        return bool(self._rows)

    def _look_at_new_components(self, db: Database) -> None:
        rows = db.execute("SELECT id, digests FROM components WHERE id > ? ORDER BY id", [self._last])
        for row, digests in rows.fetchall():
            self._last = row
            self._taken.update(split(digests or b""))


def empty_log(db: Database) -> bool:
    """Whether the write-ahead log could be moved into the database and cut to nothing."""
    busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
