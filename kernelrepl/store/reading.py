"""Queries. Run in the reader thread on a read-only connection; they return types of `model`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blake3 import blake3

from kernelrepl import bounded_json
from kernelrepl.guest import wire
from kernelrepl.model import NotRestored, NotSaved, Portion, Restored, Saved, StoredComponent, Write
from kernelrepl.outputs.shortening import MOST_STORED
from kernelrepl.store import seals
from kernelrepl.store.database import Database
from kernelrepl.store.history import split
from kernelrepl.store.live import MOST_NUMBERS
from kernelrepl.store.publish import DIGEST_BYTES


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
    damaged: bool
    """It is not what was written."""


_EXECUTION = (
    f"SELECT {seals.columns(seals.EXECUTION)}, {seals.columns(seals.OUTCOME)}, seal, outcome_seal FROM executions"
)
MOST_READ_BYTES = 64 << 20
"""Of executions, to list the latest ones."""
_OUTPUTS = len(seals.EXECUTION) + seals.OUTCOME.index("outputs")
_CODE = seals.EXECUTION.index("code")


def execution(db: Database, condition: str, parameters: list[Any]) -> ExecutionRow | None:
    row = db.execute(f"{_EXECUTION} WHERE {condition}", parameters).fetchone()
    return None if row is None else _execution(row)


def executions(db: Database, session: int, after: int, budget_bytes: int) -> list[ExecutionRow]:
    """Executions of a session in their order, from the first behind `after` on: as many as take `budget_bytes`."""
    found: list[ExecutionRow] = []
    for row in db.execute(f"{_EXECUTION} WHERE session = ? AND id > ? ORDER BY id", [session, after]):
        budget_bytes -= len(str(row[_CODE])) + len(row[_OUTPUTS] or "")
        if found and budget_bytes < 0:
            break
        found.append(_execution(row))
    return found


def latest_executions(db: Database, session: int, count: int) -> list[ExecutionRow]:
    """The last executions of a session in their order, without their outputs, which are read to check the rows."""
    found: list[ExecutionRow] = []
    budget_bytes = MOST_READ_BYTES
    for row in db.execute(f"{_EXECUTION} WHERE session = ? ORDER BY id DESC LIMIT ?", [session, count]):
        budget_bytes -= len(str(row[_CODE])) + len(row[_OUTPUTS] or "")
        if found and budget_bytes < 0:
            break
        found.append(replace(_execution(row), outputs="[]"))
    return found[::-1]


def inputs(db: Database, session: int, most: int) -> list[tuple[int, str]]:
    """Count and code of the last executions that a kernel took, in their order."""
    condition = "session = ? AND execution_count > 0 ORDER BY id DESC LIMIT ?"
    rows = [_execution(row) for row in db.execute(f"{_EXECUTION} WHERE {condition}", [session, most])]
    return [(row.execution_count, row.code) for row in reversed(rows) if not row.damaged]


def _execution(row: Any) -> ExecutionRow:
    fixed, outcome = row[: len(seals.EXECUTION)], row[len(seals.EXECUTION) : -2]
    damaged = (seals.seal(fixed), seals.seal(outcome)) != tuple(row[-2:])
    found = dict(zip((*seals.EXECUTION, *seals.OUTCOME), (*fixed, *outcome), strict=True))
    if damaged:
        texts = ("request_id", "origin", "code", "started_at", "status", "outputs", "saved", "not_saved", "restored")
        found |= {name: None if found[name] is None else str(found[name]) for name in texts}
        found |= {name: found[name] if isinstance(found[name], int | float) else 0 for name in _NUMBERS}
    saved: Saved = (
        _told(found["saved"], lambda found: Saved(**{key: tuple(names[:MOST_STORED]) for key, names in found.items()}))
        or Saved()
    )
    restored: Restored | None = _told(
        found["restored"],
        lambda found: Restored(
            tuple(found["names"][:MOST_STORED]),
            tuple(NotRestored(**entry) for entry in found["not_restored"][:MOST_STORED]),
        ),
    )
    not_saved: tuple[NotSaved, ...] = (
        _told(found["not_saved"], lambda found: tuple(NotSaved(**entry) for entry in found[:MOST_STORED])) or ()
    )
    return ExecutionRow(
        found["id"],
        found["session"],
        found["request_id"] or "",
        found["code"] or "",
        found["status"] or "",
        int(found["execution_count"]),
        found["started_at"] or "",
        found["duration_s"],
        outputs=found["outputs"] or "[]",
        saved=saved,
        not_saved=not_saved,
        restored=restored,
        committed=found["commit_id"] is not None,
        origin=found["origin"] or "",
        kept=found["outputs"] is not None,
        damaged=damaged,
    )


_NUMBERS = ("session", "execution_count", "duration_s")


def _told(stored: str | None, make: Callable[[Any], Any]) -> Any:
    """What a row tells beside its outputs; None for nothing, and for what is of no form that was ever written."""
    try:
        return make(bounded_json.loads(stored.encode(), items=MOST_NUMBERS)) if stored else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


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


def pour(db: Database, parts: Sequence[StoredComponent], write: Write, budget_bytes: int) -> Iterator[Portion]:
    """Write the bytes of components, one after the other, in portions of at most `budget_bytes`; tells of each.

    None of it is missing. What is not what was stored goes as zeros, in portions of its own.
    """
    used = 0
    for data, length in bytes_of(db, parts):
        if data is None and used:
            yield used, True
            used = 0
        left = length
        while left:
            size = min(left, budget_bytes - used)
            if data is None:
                write(memoryview(bytes(size)), 0)
                yield size, False
            else:
                write(memoryview(data)[length - left :][:size], used)
                used += size
            left -= size
            if used == budget_bytes:
                yield used, True
                used = 0
    if used:
        yield used, True


def bytes_of(db: Database, parts: Sequence[StoredComponent]) -> Iterator[tuple[bytes | None, int]]:
    """Piece by piece the bytes of components, or None for what is not what was stored, and their number."""
    for part in parts:
        statement = "SELECT data, digests, data_seal FROM components WHERE id = ?"
        data, digests, seal = db.execute(statement, [part.row]).fetchone()
        if digests is None:
            intact = isinstance(data, bytes | None) and seals.seal_of_data(data) == seal
            yield (data or b"" if intact else None), part.size_bytes
            continue
        cuts = wire.Cuts(part.segments)
        for digest, length in zip(split(digests), cuts.lengths(0, cuts.count), strict=True):
            (chunk,) = db.execute("SELECT data FROM chunks WHERE digest = ?", [digest]).fetchone() or (None,)
            yield (chunk if is_chunk(chunk, digest) else None), length


def is_chunk(data: Any, digest: bytes) -> bool:
    """Whether bytes are those that were stored under a digest."""
    return isinstance(data, bytes) and blake3(data).digest() == digest


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
