"""Write one commit. Runs in the writer thread; a commit is there whole or not at all."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import asdict
from typing import Any

from blake3 import blake3

from kernelrepl.errors import StorageFailed
from kernelrepl.guest import wire
from kernelrepl.guest.wire import CHUNK_BYTES
from kernelrepl.model import Commit, Limits, NewComponent, NotSaved, Restored
from kernelrepl.outputs import shortening
from kernelrepl.store import seals
from kernelrepl.store.database import Database, update

DIGEST_BYTES = 32
ROW_COST_BYTES = 60
"""What a row takes beside its texts and blobs: its numbers, its times and its places in the indexes. Measured."""
ROW_CHARS = 200_000
"""What each list in the row of an execution may take."""
MAX_LIVE_ROWS = 100_000
MAX_LIVE_TEXT = 32_000_000
"""What the names and components of a session may take beside their bytes, in rows and bytes of their texts."""

Weight = tuple[int, int]
"""Rows, and bytes of their texts; of those that come characters are counted, until it is too much, and then all."""
Chunks = list[tuple[bytes, int]]
"""Digest and length of each."""
Staged = dict[int, Chunks]
"""Of each component whose bytes came ahead, by its index in the commit: its new chunks."""


_PUT_CHUNK = (
    "INSERT INTO chunks (digest, data) VALUES (?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET data = excluded.data WHERE data IS NOT excluded.data"
)
"""To compare a chunk with one that is there costs less than to store it: 0.1 ms for 256 KiB."""


def chunked(data: memoryview) -> Iterator[memoryview]:
    for start in range(0, data.nbytes, CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def put_chunks(db: Database, pieces: Iterable[memoryview]) -> Chunks:
    """Store what is not there yet, and what is there damaged. Part of the caller's transaction."""
    chunks = []
    for piece in pieces:
        digest = blake3(piece).digest()
        db.execute(_PUT_CHUNK, [digest, piece])
        chunks.append((digest, piece.nbytes))
    return chunks


def write_commit(
    db: Database,
    session: int,
    execution: int | None,
    commit: Commit,
    staged: Staged,
    limits: Limits,
    now: str,
    most: dict[int, Weight],
) -> tuple[int, int]:
    """Insert a commit and everything it changes; returns its id and how many bytes it takes out of the present state
    without putting others in their place. Part of the caller's transaction.

    Its cost follows the commit, not the session. most: what each session has, as far as it is known.
    Raises StorageFailed if the session would pass its limits, or if the commit contradicts itself.
    """
    _refuse_contradictions(commit)
    _refuse_sizes(commit, limits)
    chunks = [None if _is_small(part) else _chunks_of(db, session, part, staged) for part in commit.components]
    row = db.execute(
        "INSERT INTO commits (session, cause, execution, created_at) VALUES (?, ?, ?, ?)",
        [session, commit.cause, execution, now],
    )
    commit_id = int(row.lastrowid or 0)
    ended = _close(db, "components", "key", "size_bytes", session, commit_id, commit.closed)
    keys = [part.roots[0] for part in commit.components]
    replaced = _close(db, "components", "key", "size_bytes", session, commit_id, keys)
    closed = sum(int(size) for size, _ in ended)
    freed = closed + sum(int(size) for size, _ in replaced)
    components = [
        _component_row(session, commit_id, part, commit, its_chunks)
        for part, its_chunks in zip(commit.components, chunks, strict=True)
    ]
    _insert(db, _INSERT_COMPONENT, components)
    seals_of_live: list[Any] = [row[len(seals.COMPONENT)] for row in components]
    gone = _close(db, "names", "name", "name", session, commit_id, [*commit.names, *commit.unsaved, *commit.deleted])
    seals_of_live += (found for _, found in (*ended, *replaced, *gone))

    names: list[list[Any]] = []

    def add_name(name: str, *rest: Any) -> None:
        values = [session, name, commit_id, commit.summaries.get(name, ""), *rest, execution, now]
        names.append([*values, seals.seal(values)])

    for name, (root, kind, size) in commit.names.items():
        add_name(name, root, kind, size, None, None)
    for name, (kind, path, reason) in commit.unsaved.items():
        add_name(name, None, kind, 0, path, reason)
    _insert(db, _INSERT_NAME, names)
    seals_of_live += (row[-1] for row in names)
    added = sum(sum(part.segments) for part in commit.components)
    state = seals.state_of(db, session)
    total = int(state["size_bytes"]) - freed + added
    if limits.session_bytes is not None and total > limits.session_bytes and commit.components:
        raise StorageFailed(
            f"the session would take {total} bytes, over its limit of {limits.session_bytes}; delete variables"
        )
    _refuse_excess(db, session, commit, most)
    state["variable_count"] += sum(map(is_variable, (*commit.names, *commit.unsaved)))
    state["variable_count"] -= sum(is_variable(name) for name, _ in gone)
    state |= {"last_used_at": now, "state": "active", "size_bytes": total}
    state["live"] = seals.joined(state["live"], seals_of_live)
    if commit.outcome is not None:
        state["execution_count"] = int(commit.outcome["execution_count"])
    seals.put_state(db, session, state)
    return commit_id, closed


def written_bytes(commit: Commit) -> int:
    """About what a commit adds to the database, beside the pieces that were staged."""
    data = sum(len(part.data) for part in commit.components if part.data is not None)
    digests = sum(DIGEST_BYTES * wire.Cuts(part.segments).count for part in commit.components)
    return data + digests + ROW_COST_BYTES * (len(commit.names) + len(commit.unsaved) + len(commit.components))


_MANY_ROWS, _MANY_RUNS, _MANY_BYTES = 300, 10_000, 1 << 20
"""Each takes some ten milliseconds."""


def is_large(commit: Commit) -> bool:
    """Whether to write a commit takes longer than the commits of other sessions should wait."""
    parts: tuple[Sized, ...] = (commit.names, commit.unsaved, commit.deleted, commit.components, commit.closed)
    runs = sum(len(part.runs or ()) for part in commit.components)
    return sum(len(part) for part in parts) > _MANY_ROWS or runs > _MANY_RUNS or written_bytes(commit) > _MANY_BYTES


def _refuse_contradictions(commit: Commit) -> None:
    """Whoever made the commit is not trusted to be of one mind."""
    roots = [root for part in commit.components for root in part.roots]
    if len(set(roots)) < len(roots) or any(not part.roots for part in commit.components):
        raise StorageFailed("the kernel sent a commit with one value in two places; nothing of it is stored")
    if not commit.names.keys().isdisjoint(commit.unsaved):
        raise StorageFailed("the kernel sent a commit with a name that is saved and not saved; nothing of it is stored")
    for part in commit.components:
        if part.data is not None and len(part.data) != wire.Cuts(part.segments).new_bytes(part.runs):
            raise StorageFailed("the kernel sent a commit with too few bytes; nothing of it is stored")


def _refuse_excess(db: Database, session: int, commit: Commit, most: dict[int, Weight]) -> None:
    """A session without bytes can have any number of rows."""
    known = most.get(session)
    if known is not None:
        texts = sum(map(len, (*commit.names, *commit.unsaved, *commit.summaries.values())))
        texts += sum(map(len, itertools.chain.from_iterable(commit.unsaved.values())))
        texts += sum(len(kind) for _, kind, _ in commit.names.values())
        lists = 20 * sum(len(part.roots) + len(part.references) + len(part.segments) for part in commit.components)
        rows = len(commit.names) + len(commit.unsaved) + len(commit.components)
        known = most[session] = (known[0] + rows, known[1] + texts + lists)
    if known is None or known[0] > MAX_LIVE_ROWS or known[1] > MAX_LIVE_TEXT:
        rows, texts = most[session] = _weight(db, session)
        if rows > MAX_LIVE_ROWS or texts > MAX_LIVE_TEXT:
            raise StorageFailed(f"the session would have {rows} names and parts, too many; delete variables")


def _weight(db: Database, session: int) -> Weight:
    """How many live rows a session has, and how many bytes are in them."""
    # Of a text, LENGTH counts no further than to its first zero, wherever the kernel has put that.
    parts_of_it = " + ".join(f"LENGTH(CAST({column} AS BLOB))" for column in ("name", "type", "summary"))
    why = " + ".join(f"COALESCE(LENGTH(CAST({column} AS BLOB)), 0)" for column in ("path", "reason"))
    names, texts = db.execute(
        f"SELECT COUNT(*), COALESCE(SUM({parts_of_it} + {why}), 0) FROM names WHERE session = ? AND to_commit IS NULL",
        [session],
    ).fetchone()
    parts, lists = db.execute(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(roots) + LENGTH(refs) + LENGTH(segments)), 0) FROM components"
        " WHERE session = ? AND to_commit IS NULL",
        [session],
    ).fetchone()
    return names + parts, texts + lists


_INSERT_NAME = f"INSERT INTO names ({seals.columns(seals.NAME)}, seal) VALUES"
_INSERT_COMPONENT = f"INSERT INTO components ({seals.columns(seals.COMPONENT)}, seal, data, data_seal) VALUES"
_ROWS_AT_ONCE = 500
"""In one statement: after each the thread waits for the event loop, which may be busy, to give way. A statement may
have 32,766 values."""


def _insert(db: Database, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows, which all have as many values."""
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        batch = rows[at : at + _ROWS_AT_ONCE]
        row = f"({', '.join('?' * len(batch[0]))})"
        db.execute(f"{statement} {', '.join([row] * len(batch))}", list(itertools.chain.from_iterable(batch)))


def _close(
    db: Database, table: str, column: str, wanted: str, session: int, commit_id: int, values: Sequence[Any]
) -> list[tuple[Any, Any]]:
    """End the present versions of these; returns what is wanted of each that there was, and its seal."""
    found: list[tuple[Any, Any]] = []
    for at in range(0, len(values), _ROWS_AT_ONCE):
        batch = values[at : at + _ROWS_AT_ONCE]
        where = f"session = ? AND {column} IN ({', '.join('?' * len(batch))}) AND to_commit IS NULL"
        update = f"UPDATE {table} SET to_commit = ? WHERE {where}"
        if len(batch) <= _FEW:
            found += db.execute(f"{update} RETURNING {wanted}, seal", [commit_id, session, *batch]).fetchall()
            continue
        # All in one row: each that is fetched would be waited for like a statement.
        text = db.execute(
            f"SELECT GROUP_CONCAT(HEX({wanted}) || ' ' || HEX(COALESCE(seal, ''))) FROM {table} WHERE {where}",
            [session, *batch],
        ).fetchone()[0]
        if text is not None:
            found += (_unpacked(row) for row in text.split(","))
            db.execute(update, [commit_id, session, *batch])
    return found


_FEW = 8


def _unpacked(row: str) -> tuple[Any, bytes]:
    """A text or a number, and the seal that stands behind it."""
    wanted, seal = map(bytes.fromhex, row.split(" "))
    return wanted.decode(errors="replace"), seal


def _refuse_sizes(commit: Commit, limits: Limits) -> None:
    """Before anything is made or looked up that follows what a commit says of its lengths."""
    added = 0
    for part in commit.components:
        size = sum(part.segments)
        added += size
        if limits.variable_bytes is not None and size > limits.variable_bytes * len(part.roots):
            raise StorageFailed(f"a component of {size} bytes is over the limit of {limits.variable_bytes} a variable")
    if limits.session_bytes is not None and added > limits.session_bytes:
        raise StorageFailed(
            f"the session would take {added} bytes, over its limit of {limits.session_bytes}; delete variables"
        )
    if sum(wire.Cuts(part.segments).count for part in commit.components) > wire.MAX_CHUNKS:
        raise StorageFailed(f"the kernel sent a commit of more than {wire.MAX_CHUNKS} chunks; nothing of it is stored")


def _is_small(part: NewComponent) -> bool:
    """Whether a component is kept in its row: the table of chunks would cost more than it shares."""
    return part.data is not None and part.runs is None and sum(part.segments) <= wire.ROW_BYTES


def _chunks_of(db: Database, session: int, part: NewComponent, staged: Staged) -> bytes:
    """The digests of all chunks of a component, those that come with it and those that the session has already."""
    lengths = wire.Cuts(part.segments).new_lengths(part.runs)
    if part.data is None:
        new = staged.get(part.index, [])
        if [length for _, length in new] != lengths:
            raise StorageFailed("a part of the data could not be stored ahead of its commit; is the disk full?")
    else:
        view, pieces = memoryview(part.data), []
        for length in lengths:
            pieces.append(view[:length])
            view = view[length:]
        new = put_chunks(db, pieces)
    fresh = [digest for digest, _ in new]
    if part.runs is None:
        return b"".join(fresh)
    return _joined(db, session, part, fresh)


def _joined(db: Database, session: int, part: NewComponent, fresh: list[bytes]) -> bytes:
    """The digests of a component, some of them from components that are there; each of those is looked up once."""
    cuts = wire.Cuts(part.segments)
    found: dict[int, tuple[bytes, wire.Cuts]] = {}
    digests: list[bytes] = []
    at = used = 0
    for key, start, count in part.runs or ():
        if key < 0:
            digests += fresh[used : used + count]
            used += count
        else:
            if key not in found:
                found[key] = _known_chunks(db, session, key)
            stored, known = found[key]
            if start + count > known.count or known.lengths(start, start + count) != cuts.lengths(at, at + count):
                raise StorageFailed(
                    "the kernel sent a commit with chunks that the session has not; nothing of it is stored"
                )
            digests.append(stored[start * DIGEST_BYTES : (start + count) * DIGEST_BYTES])
        at += count
    return b"".join(digests)


def _known_chunks(db: Database, session: int, key: int) -> tuple[bytes, wire.Cuts]:
    """The digests of the chunks that a live component of a session has in the store, and their lengths."""
    row = db.execute(
        "SELECT digests, segments FROM components WHERE session = ? AND key = ? AND to_commit IS NULL",
        [session, key],
    ).fetchone()
    if row is None or row[0] is None:
        return b"", wire.Cuts(())
    cuts = wire.Cuts(json.loads(row[1]))
    return row[0], cuts if cuts.count * DIGEST_BYTES == len(row[0]) else wire.Cuts(())


def _component_row(
    session: int, commit_id: int, part: NewComponent, commit: Commit, digests: bytes | None
) -> list[Any]:
    """The values of its row, with its seal behind those that it is over."""
    values = [
        session, part.roots[0], commit_id, json.dumps(part.roots), json.dumps(part.references),
        json.dumps(part.segments), sum(part.segments), int(part.has_code), commit.magic, commit.python,
        int(part.inert), commit.packages, digests,
    ]  # fmt: skip
    data = (part.data, seals.seal_of_data(part.data)) if digests is None else (None, None)
    return [*values, seals.seal(values), *data]


_FINISH = (
    f"UPDATE executions SET {', '.join(f'{name} = ?' for name in seals.OUTCOME[1:])}, outcome_seal = ? WHERE id = ?"
)


def dump_restored(value: Restored | None) -> str | None:
    bounded = shortening.restored(value, shortening.MOST_STORED, ROW_CHARS)
    return None if bounded is None else json.dumps(asdict(bounded))


def finish_row(
    db: Database, execution: int, commit_id: int, commit: Commit, restored: Restored | None, now: str
) -> None:
    """Close the row of an execution together with its commit. Part of the caller's transaction."""
    outcome = commit.outcome or {}
    unsaved = [NotSaved(name, *entry) for name, entry in commit.unsaved.items()]
    not_saved = [asdict(entry) for entry in shortening.not_saved(unsaved, shortening.MOST_STORED, ROW_CHARS)]
    saved = shortening.saved(commit.saved, shortening.MOST_STORED, ROW_CHARS)
    values = [
        str(outcome["status"]), int(outcome["execution_count"]), now, float(outcome["duration_s"]), commit.outputs,
        json.dumps(asdict(saved)), json.dumps(not_saved), dump_restored(restored), commit_id,
    ]  # fmt: skip
    update(db, _FINISH, [*values, seals.seal((execution, *values)), execution])


def is_variable(name: str) -> bool:
    """Whether a name is one that lists show."""
    return name != "_" and not name.startswith("*")


def count_variables(db: Database, session: int) -> int:
    row = db.execute(
        "SELECT COUNT(*) FROM names WHERE session = ? AND to_commit IS NULL AND name <> '_' AND name NOT LIKE '*%'",
        [session],
    ).fetchone()
    return int(row[0])
