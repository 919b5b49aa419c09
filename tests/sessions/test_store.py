"""The database: what a commit makes of it, what deleting leaves of it, and what happens when it cannot be written."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from kernelrepl.errors import DatabaseTooNew, StorageFailed
from kernelrepl.guest.wire import CHUNK_BYTES, ROW_BYTES
from kernelrepl.model import Commit, Limits, NewComponent, NotRestored, NotSaved, Page, PageRequest, Restored, Saved
from kernelrepl.sessions.manager import Origin
from kernelrepl.store import Store
from kernelrepl.store.worker import PAGE_BYTES, Worker
from tests.conftest import RUN_TIMEOUT_S, Sessions, stored_bytes
from tests.support.database import reader, writer

pytestmark = pytest.mark.anyio

UNLIMITED = Limits(None, None)
TABLES = ("sessions", "executions", "commits", "components", "names", "chunks")
MARKER = b"a marker that is long enough to be nobody else's: 0c1f6e5a93d74b28"


class Clock:
    """A clock that goes one second ahead each time it is asked."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "python_sessions.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., Store]]:
    """Opens the database, again each time it is called; all are closed in the end. Without history: see its tests."""
    stores: list[Store] = []

    def open_store(max_history_bytes: int | None = 0) -> Store:
        while stores:
            stores.pop().close()
        store = Store(path, Clock(), max_history_bytes=max_history_bytes)
        store.open()
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    return opened()


async def query(store: Store, statement: str, *parameters: Any) -> list[Any]:
    """Rows, as the thread that writes sees them."""
    return await writer(store).run(lambda db: [tuple(row) for row in db.execute(statement, parameters)])


async def everything(store: Store) -> dict[str, list[Any]]:
    """All rows of all tables."""
    return {table: await query(store, f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES}


async def new_session(store: Store, session_id: str = "s") -> int:
    key, _ = await store.create_session(session_id, f"workspace-of-{session_id}", {"limits": {}})
    return key


def part(
    index: int, root: int, data: bytes | None, *, references: tuple[int, ...] = (), **changes: Any
) -> NewComponent:
    """A component of one root; without data it is one that was staged, of `size` bytes."""
    size = changes.pop("size", len(data or b""))
    settings = {"roots": (root,), "segments": (size,), "has_code": False, "inert": False, **changes}
    return NewComponent(index=index, references=references, data=data, **settings)


def commit(*components: NewComponent, **changes: Any) -> Commit:
    """A commit in which each component is the value of a name: root 1 of `n1`, and so on."""
    settings: dict[str, Any] = {
        "cause": "execution",
        "request": "message",
        "names": {f"n{entry.roots[0]}": (entry.roots[0], "bytes", sum(entry.segments)) for entry in components},
        "unsaved": {},
        "deleted": (),
        "summaries": {},
        "components": components,
        "closed": (),
        "magic": "a70d",
        "python": "3.11.7",
        "packages": "{}",
        "saved": Saved(created=tuple(f"n{entry.roots[0]}" for entry in components)),
        "outcome": None,
        "outputs": "[]",
    }
    return Commit(**{**settings, **changes})


def outcome(count: int = 1, status: str = "ok") -> dict[str, Any]:
    return {"status": status, "execution_count": count, "duration_s": 0.5, "error": None}


async def bytes_of(store: Store, session: int, root: int) -> bytes:
    """What the store holds of a component."""
    [found] = [entry for entry in (await store.manifest(session)).components if root in entry.roots]
    return await stored_bytes(store, found)


def threads() -> list[str]:
    """The threads of stores that are open."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("store ")]


def traces(directory: Path, marker: bytes = MARKER) -> list[str]:
    """The files that have the marker in them, in their contents or their names."""
    return [
        file.name
        for file in directory.rglob("*")
        if marker in os.fsencode(file.name) or (file.is_file() and marker in file.read_bytes())
    ]


# The file


async def test_a_fresh_file_gets_its_tables_and_is_ours_alone(store: Store, path: Path) -> None:
    """All migrations are applied and noted; nobody else may read it."""
    assert {name for (name,) in await query(store, "SELECT name FROM sqlite_master WHERE type = 'table'")} >= set(
        TABLES
    )
    assert await query(store, "SELECT name FROM _sqlite_migrations WHERE migration_set = 'kernelrepl' ORDER BY id") == [
        ("create_tables",),
        ("describe_values_and_remember_expired_sessions",),
        ("keep_the_chunks_of_a_component_in_its_row",),
        ("note_what_may_be_loaded_at_any_time",),
        ("keep_earlier_states",),
        ("find_sessions_by_their_last_use",),
        ("remember_the_sessions_of_notebooks",),
        ("seal_rows",),
    ]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_what_a_start_notes_waits_for_no_disk(store: Store) -> None:
    """The next commit syncs it, in order: what takes the power before that takes the kernel as well."""
    said: list[str] = []
    await writer(store).run(lambda db: db.conn.set_trace_callback(said.append))
    key, _ = await store.create_session("s", "w", {})
    await store.start_execution(key, "r", "test", "1")
    await store.note_versions(key, "3.11.7", {"numpy": "2.0"})
    synced = [text for text in said if text.startswith(("COMMIT", "PRAGMA synchronous"))]
    assert synced == 3 * ["PRAGMA synchronous = NORMAL", "COMMIT", "PRAGMA synchronous = FULL"]


async def test_the_writer_is_durable_and_the_reader_only_reads(store: Store) -> None:
    """Write-ahead log, flushed at each commit; references are kept and deleted bytes overwritten."""
    assert await query(store, "PRAGMA journal_mode") == [("wal",)]
    assert await query(store, "PRAGMA synchronous") == [(2,)]
    assert await query(store, "PRAGMA foreign_keys") == [(1,)]
    assert await query(store, "PRAGMA secure_delete") == [(1,)]
    assert await query(store, "PRAGMA integrity_check") == [("ok",)]
    with pytest.raises(StorageFailed, match="make it writable"):
        await reader(store).run(lambda db: db.execute("DELETE FROM sessions"))


async def test_small_jobs_pass_large_ones_of_other_sessions_only(path: Path) -> None:
    """Each session finds its own in their order; what concerns more than one session is passed by nobody."""
    worker = Worker(path, "writer", read_only=False)
    worker.open()
    done: list[str] = []
    go_on = threading.Event()

    def note(name: str) -> Callable[[Database], None]:
        return lambda db: done.append(name)

    try:
        worker.submit(lambda db: go_on.wait(RUN_TIMEOUT_S))
        futures = [
            worker.submit(note(name), session, is_large=name.startswith("large"))
            for name, session in [
                ("large 1", 1), ("large 2", 2), ("small 3", 3), ("small 1", 1), ("small 2", 2), ("of all", None),
                ("large 3", 3), ("small 4", 4), ("large 4", 4),
            ]
        ]  # fmt: skip
        go_on.set()
        for future in futures:
            future.result(RUN_TIMEOUT_S)
        assert done == [
            "small 3", "large 1", "small 1", "large 2", "small 2", "of all", "small 4", "large 3", "large 4",
        ]  # fmt: skip
        done.clear()
        go_on.clear()
        worker.submit(lambda db: go_on.wait(RUN_TIMEOUT_S))
        large = worker.submit(lambda db: done.append("large"), 1, is_large=True)
        many = [worker.submit(lambda db: done.append("small"), 2) for _ in range(1000)]
        go_on.set()
        large.result(RUN_TIMEOUT_S)
        many[-1].result(RUN_TIMEOUT_S)
        assert 0 < done.index("large") < 500  # it waits for many, not for all
    finally:
        worker.close()


async def test_a_database_keeps_the_size_of_its_pages(
    path: Path, opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one has ours; one that was made with others is used as it is."""
    monkeypatch.setattr("kernelrepl.store.worker.PAGE_BYTES", 8192)
    store = opened()
    session = await new_session(store)
    await store.publish(session, None, commit(part(0, 1, b"x" * 300_000)), UNLIMITED, None)
    monkeypatch.undo()
    store = opened()
    assert await query(store, "PRAGMA page_size") == [(8192,)]
    assert await bytes_of(store, session, 1) == b"x" * 300_000
    other = Store(path.with_name("other.db"))
    other.open()
    assert await query(other, "PRAGMA page_size") == [(PAGE_BYTES,)]
    other.close()


async def test_everything_is_there_after_reopening(store: Store, opened: Callable[..., Store]) -> None:
    """Migrations are not applied twice, and no row is touched."""
    session = await new_session(store)
    execution = await store.start_execution(session, "r1", "test", "x = 1")
    await store.publish(session, execution, commit(part(0, 1, b"one"), outcome=outcome()), UNLIMITED, None)
    before = await everything(store)
    store = opened()
    assert await everything(store) == before
    assert await bytes_of(store, session, 1) == b"one"


async def test_a_database_of_a_newer_version_is_not_touched(
    store: Store, path: Path, opened: Callable[..., Store]
) -> None:
    """What it means is not known here; the way out is in the message."""
    await query(
        store, "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('kernelrepl', 'later', 'now')"
    )
    before = await everything(store)
    with pytest.raises(DatabaseTooNew, match="upgrade with `pip install -U kernelrepl`") as caught:
        opened()
    assert caught.value.path == str(path)
    assert threads() == []
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM sessions").fetchall() == before["sessions"]
    connection.close()


@pytest.mark.parametrize(
    "content", [b"this is no database, it only has the name of one" * 50, b"SQLite format 3\0" * 300]
)
async def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    """And it is said what to do."""
    path.write_bytes(content)
    with pytest.raises(StorageFailed, match="move it away to start anew"):
        Store(path).open()
    assert path.read_bytes() == content
    assert threads() == []


async def test_a_folder_that_is_not_there_is_named(path: Path) -> None:
    """The keeper makes it; if it is gone, nothing can be stored."""
    with pytest.raises(StorageFailed, match="make its folder writable"):
        Store(path.parent / "gone" / "python_sessions.db").open()


# Commits


@pytest.mark.parametrize("size", [0, 1, ROW_BYTES, ROW_BYTES + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
async def test_bytes_come_back_as_they_were_stored(store: Store, size: int) -> None:
    """In the row or in chunks, however they are divided."""
    session = await new_session(store)
    data = bytes(number % 251 for number in range(size))
    await store.publish(session, None, commit(part(0, 1, data)), UNLIMITED, None)
    assert await bytes_of(store, session, 1) == data
    in_chunks = await query(store, "SELECT LENGTH(COALESCE(digests, '')) / 32 FROM components")
    assert in_chunks == [(0 if size <= ROW_BYTES else -(-size // CHUNK_BYTES),)]


async def test_a_component_keeps_its_segments_roots_and_references(store: Store) -> None:
    """A kernel gets them as another one sent them; small components come first."""
    session = await new_session(store)
    large = part(0, 5, b"a" * 300_000 + b"b" * 10, roots=(5, 8), segments=(300_000, 10), references=(2,), has_code=True)
    await store.publish(session, None, commit(large, part(1, 2, b"x")), UNLIMITED, None)
    small, big = (await store.manifest(session)).components
    assert (small.key, small.roots, small.references, small.segments, small.has_code) == (2, (2,), (), (1,), False)
    assert (big.key, big.roots, big.references, big.segments) == (5, (5, 8), (2,), (300_000, 10))
    assert (big.has_code, big.magic, big.python, big.blocked) == (True, "a70d", "3.11.7", None)
    assert await bytes_of(store, session, 8) == b"a" * 300_000 + b"b" * 10


async def test_a_new_version_replaces_the_old_one(store: Store) -> None:
    """In the manifest and in the list; of a name and of its component."""
    session = await new_session(store)
    await store.publish(session, None, commit(part(0, 1, b"old"), part(1, 2, b"two")), UNLIMITED, None)
    await store.publish(session, None, commit(part(0, 1, b"newer")), UNLIMITED, None)
    manifest = await store.manifest(session)
    assert manifest.names == {"n1": (1, "bytes", 5), "n2": (2, "bytes", 3)}
    assert await bytes_of(store, session, 1) == b"newer"
    assert [(entry.name, entry.size_bytes) for entry in await store.variables(session)] == [("n1", 5), ("n2", 3)]
    [info] = await store.list_sessions()
    assert (info.variable_count, info.size_bytes) == (2, 8)


async def test_what_is_deleted_or_closed_is_gone(store: Store) -> None:
    """Its name from the list, its bytes from the next restore."""
    session = await new_session(store)
    await store.publish(session, None, commit(part(0, 1, b"one"), part(1, 2, b"two")), UNLIMITED, None)
    await store.publish(session, None, commit(deleted=("n1",), closed=(1,)), UNLIMITED, None)
    manifest = await store.manifest(session)
    assert (list(manifest.names), [entry.key for entry in manifest.components]) == (["n2"], [2])
    [info] = await store.list_sessions()
    assert (info.variable_count, info.size_bytes) == (1, 3)


@pytest.mark.parametrize("count", [1, 8, 9, 500, 501, 1203])
async def test_a_commit_of_many_rows_replaces_and_removes_as_one_of_few_does(store: Store, count: int) -> None:
    """However many are written in one statement; whatever is in a name, no row of another session is touched."""
    ours, other = await new_session(store), await new_session(store, "other")
    names = [f"n{number},\0 '{chr(0xE0 + number)}" for number in range(count)]
    for turn in range(3):
        parts = [part(k, k + 1, bytes([turn]) * (k % 90 + turn + 1)) for k in range(count)]
        values = {name: (k + 1, f"kind {turn}", k % 90 + turn + 1) for k, name in enumerate(names)}
        gone = {f"u{name}": ("socket", "", f"reason {turn}") for name in names}
        whole = commit(*parts, names=values, unsaved=gone, summaries=dict.fromkeys(names, "words"))
        for session in (ours, other) if turn == 0 else (ours,):
            await store.publish(session, None, whole, UNLIMITED, None)
    for session, turn in ((ours, 2), (other, 0)):
        manifest = await store.manifest(session)
        assert manifest.names == {name: (k + 1, f"kind {turn}", k % 90 + turn + 1) for k, name in enumerate(names)}
        assert {entry.key: entry.size_bytes for entry in manifest.components} == {
            k + 1: k % 90 + turn + 1 for k in range(count)
        }
        unsaved = {entry.name: entry.reason for entry in await store.variables(session) if not entry.saved}
        assert unsaved == {f"u{name}": f"reason {turn}" for name in names}
    sizes = {info.session_id: (info.variable_count, info.size_bytes) for info in await store.list_sessions()}
    assert sizes["s"] == (2 * count, sum(k % 90 + 3 for k in range(count)))
    removed = commit(deleted=(*names, *[f"u{name}" for name in names]), closed=tuple(range(1, count + 1)))
    await store.publish(ours, None, removed, UNLIMITED, None)
    left = await store.manifest(ours)
    assert (left.names, left.components, left.damaged) == ({}, (), ())
    assert len((await store.manifest(other)).names) == count


@pytest.mark.parametrize(
    ("limits", "components", "message"),
    [
        (Limits(None, 1000), [part(0, 1, b"x" * 300), part(1, 2, b"y" * 600)], "the session would take 1200 bytes"),
        (Limits(500, None), [part(0, 1, b"x"), part(1, 2, b"y" * 501)], "over the limit of 500 a variable"),
        (UNLIMITED, [part(0, 1, b"x"), part(1, 2, None, size=700)], "could not be stored ahead of its commit"),
        (UNLIMITED, [part(0, 1, b"x"), part(1, 1, b"y")], "one value in two places"),
    ],
    ids=["session limit", "variable limit", "pieces missing", "two of one key"],
)
async def test_a_commit_is_there_whole_or_not_at_all(
    store: Store, limits: Limits, components: list[NewComponent], message: str
) -> None:
    """Names, components, chunks, the row of the execution: after a failure all is as before."""
    session = await new_session(store)
    execution = await store.start_execution(session, "r1", "test", "x = 1")
    await store.publish(session, None, commit(part(0, 7, b"z" * 300)), UNLIMITED, None)
    before = await everything(store)
    with pytest.raises(StorageFailed, match=message):
        await store.publish(session, execution, commit(*components, outcome=outcome()), limits, None)
    assert await everything(store) == before
    await store.publish(session, execution, commit(part(0, 1, b"small"), outcome=outcome()), limits, None)
    assert await bytes_of(store, session, 1) == b"small"


async def test_a_full_session_can_still_shrink(store: Store) -> None:
    """A commit that only closes is taken whatever the limit says."""
    session = await new_session(store)
    await store.publish(session, None, commit(part(0, 1, b"x" * 600), part(1, 2, b"y" * 600)), UNLIMITED, None)
    limits = Limits(None, 500)
    with pytest.raises(StorageFailed):
        await store.publish(session, None, commit(part(0, 3, b"z")), limits, None)
    await store.publish(session, None, commit(deleted=("n1",), closed=(1,)), limits, None)
    await store.publish(session, None, commit(deleted=("n2",), closed=(2,)), limits, None)
    await store.publish(session, None, commit(part(0, 3, b"z")), limits, None)
    assert list((await store.manifest(session)).names) == ["n3"]


async def test_sessions_do_not_see_each_other(store: Store) -> None:
    """The same names and keys in two of them are different ones."""
    one, two = await new_session(store, "one"), await new_session(store, "two")
    await store.publish(one, None, commit(part(0, 1, b"of one")), UNLIMITED, None)
    await store.publish(two, None, commit(part(0, 1, b"of two")), UNLIMITED, None)
    await store.publish(two, None, commit(deleted=("n1",), closed=(1,)), UNLIMITED, None)
    assert await bytes_of(store, one, 1) == b"of one"
    assert (await store.manifest(two)).names == {}


# Large components


async def test_a_component_that_came_ahead_in_pieces_is_published_with_its_commit(store: Store) -> None:
    """Several at a time, their pieces mixed; before the commit nothing of it is seen."""
    session = await new_session(store)
    pieces = {0: [b"a" * (2 * CHUNK_BYTES), b"b" * 100_000], 1: [b"c" * 500_000]}
    for component, piece in ((0, pieces[0][0]), (1, pieces[1][0]), (0, pieces[0][1])):
        await store.stage(session, component, piece)
    assert (await store.manifest(session)).components == ()
    await store.publish(
        session,
        None,
        commit(part(0, 1, None, size=2 * CHUNK_BYTES + 100_000), part(1, 2, None, size=500_000)),
        UNLIMITED,
        None,
    )
    assert await bytes_of(store, session, 1) == b"a" * (2 * CHUNK_BYTES) + b"b" * 100_000
    assert await bytes_of(store, session, 2) == b"c" * 500_000


async def test_pieces_of_a_commit_that_does_not_come_are_forgotten(store: Store) -> None:
    """They are not mistaken for those of a later one, and go with the next collection."""
    session = await new_session(store)
    await store.stage(session, 0, b"a" * 300_000)
    await store.discard_staged(session)
    with pytest.raises(StorageFailed, match="ahead of its commit"):
        await store.publish(session, None, commit(part(0, 1, None, size=300_000)), UNLIMITED, None)
    await store.collect()
    assert await query(store, "SELECT COUNT(*) FROM chunks") == [(0,)]


async def test_pieces_of_one_session_are_not_another_sessions(store: Store) -> None:
    """Each has its own."""
    one, two = await new_session(store, "one"), await new_session(store, "two")
    await store.stage(one, 0, b"1" * 20_000)
    await store.stage(two, 0, b"2" * 20_000)
    await store.publish(two, None, commit(part(0, 1, None, size=20_000)), UNLIMITED, None)
    await store.publish(one, None, commit(part(0, 1, None, size=20_000)), UNLIMITED, None)
    assert await bytes_of(store, one, 1) == b"1" * 20_000
    assert await bytes_of(store, two, 1) == b"2" * 20_000


async def test_equal_content_is_stored_once(store: Store) -> None:
    """Across versions, components, sessions, and within one component; staged or not."""
    one, two = await new_session(store, "one"), await new_session(store, "two")
    data = bytes(range(256)) * (CHUNK_BYTES // 256)
    await store.publish(one, None, commit(part(0, 1, data * 3 + b"end")), UNLIMITED, None)
    await store.publish(one, None, commit(part(0, 1, data * 3 + b"END"), part(1, 2, data)), UNLIMITED, None)
    await store.stage(two, 0, data)
    await store.publish(two, None, commit(part(0, 1, None, size=len(data))), UNLIMITED, None)
    sizes = await query(store, "SELECT length(data) FROM chunks ORDER BY 1")
    assert sizes == [(3,), (3,), (CHUNK_BYTES,)]
    assert await bytes_of(store, one, 1) == data * 3 + b"END"
    assert await bytes_of(store, two, 1) == data


async def test_a_segment_that_did_not_change_is_not_stored_again(store: Store) -> None:
    """Whatever precedes it in its component: segments are cut on their own."""
    session = await new_session(store)
    array = bytes(range(256)) * 2000
    for header in (b"h" * 100, b"longer header" * 30):
        data = header + array
        entry = part(0, 1, data, segments=(len(header), len(array)))
        await store.publish(session, None, commit(entry), UNLIMITED, None)
        assert await bytes_of(store, session, 1) == data
    assert await query(store, "SELECT COUNT(*) FROM chunks") == [(4,)]


# Collecting and deleting


async def test_collecting_removes_what_nothing_leads_to(store: Store) -> None:
    """Superseded versions, closed components, their chunks and unreachable ones; all that lives stays."""
    session = await new_session(store)
    old, new, held = b"o" * 20_000, b"n" * 20_000, b"h" * 20_000
    await store.publish(session, None, commit(part(0, 1, old), part(1, 2, held, references=(3,))), UNLIMITED, None)
    entity = commit(part(0, 3, b"e" * 20_000), part(1, 4, b"u" * 20_000), names={})
    await store.publish(session, None, entity, UNLIMITED, None)
    await store.publish(session, None, commit(part(0, 1, new)), UNLIMITED, None)
    assert await query(store, "SELECT COUNT(*) FROM chunks") == [(5,)]
    before = await store.manifest(session)
    await store.collect()
    after = await store.manifest(session)
    assert {entry.key for entry in before.components} - {entry.key for entry in after.components} == {4}
    assert after.names == before.names
    chunks = {data for (data,) in await query(store, "SELECT data FROM chunks")}
    assert chunks == {new, held, b"e" * 20_000}
    assert await query(store, "SELECT COUNT(*) FROM components WHERE to_commit IS NOT NULL") == [(0,)]
    assert await query(store, "SELECT COUNT(*) FROM names WHERE to_commit IS NOT NULL") == [(0,)]


async def test_collecting_keeps_pieces_that_are_waiting_for_their_commit(store: Store) -> None:
    """The commit may come the moment after."""
    session = await new_session(store)
    await store.stage(session, 0, b"p" * 20_000)
    await store.collect()
    await store.publish(session, None, commit(part(0, 1, None, size=20_000)), UNLIMITED, None)
    assert await bytes_of(store, session, 1) == b"p" * 20_000


async def test_enough_garbage_is_collected_by_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before."""
    monkeypatch.setattr("kernelrepl.store.collector.COLLECT_AFTER_BYTES", 50_000)
    await store.collect_if_due()  # as each keeper does when it starts
    session = await new_session(store)
    for number in range(2):
        await store.publish(session, None, commit(part(0, 1, bytes([number]) * 20_000)), UNLIMITED, None)
    await store.collect_if_due()
    assert await query(store, "SELECT COUNT(*) FROM chunks") == [(2,)]
    await store.publish(session, None, commit(part(0, 1, b"x" * 20_000)), UNLIMITED, None)
    await store.collect_if_due()
    assert await query(store, "SELECT data FROM chunks") == [(b"x" * 20_000,)]


async def test_after_reopening_a_collection_is_due(store: Store, opened: Callable[..., Store]) -> None:
    """Pieces of a commit that the last keeper died over are found; opening itself waits for nothing."""
    session = await new_session(store)
    await store.publish(session, None, commit(part(0, 1, b"o" * 20_000)), UNLIMITED, None)
    await store.publish(session, None, commit(part(0, 1, b"n" * 20_000)), UNLIMITED, None)
    await store.stage(session, 0, b"p" * 20_000)
    store = opened()
    await store.collect_if_due()
    assert await query(store, "SELECT data FROM chunks") == [(b"n" * 20_000,)]


async def test_only_the_latest_outputs_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each session; older rows keep code and status."""
    monkeypatch.setattr("kernelrepl.store.history.KEPT_OUTPUTS", 2)
    session = await new_session(store)
    for number in range(4):
        execution = await store.start_execution(session, f"r{number}", "test", f"code {number}")
        await store.publish(session, execution, commit(outcome=outcome(number), outputs=f"[{number}]"), UNLIMITED, None)
    await store.collect()
    rows = await query(store, "SELECT code, status, outputs FROM executions ORDER BY id")
    assert rows == [("code 0", "ok", None), ("code 1", "ok", None), ("code 2", "ok", "[2]"), ("code 3", "ok", "[3]")]


async def test_executions_of_other_sessions_cost_a_session_no_outputs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are numbered through, so that a busy neighbour would use up what is kept of a quiet session."""
    monkeypatch.setattr("kernelrepl.store.history.KEPT_OUTPUTS", 2)
    quiet, busy = await new_session(store, "quiet"), await new_session(store, "busy")
    for number, session in enumerate([quiet, *[busy] * 5, quiet]):
        execution = await store.start_execution(session, f"r{number}", "test", "1")
        await store.publish(session, execution, commit(outcome=outcome(number), outputs=f"[{number}]"), UNLIMITED, None)
    await store.collect()
    kept = await query(store, "SELECT session, outputs FROM executions WHERE outputs IS NOT NULL ORDER BY id")
    assert kept == [(quiet, "[0]"), (busy, "[4]"), (busy, "[5]"), (quiet, "[6]")]


async def test_a_deleted_session_leaves_no_byte(store: Store, data_dir: Path, opened: Callable[..., Store]) -> None:
    """Not in a row, not in a freed page, not in the write-ahead log; the other session has lost nothing."""
    other, session = await new_session(store, "other"), await new_session(store, MARKER.decode())
    text = MARKER.decode()
    for number in range(3):
        execution = await store.start_execution(session, f"{text}{number}", text, f"x = {text!r}")
        small, large = MARKER + bytes([number]), (MARKER + bytes([number])) * 9000
        entries = (part(0, 1, small), part(1, 2, large), part(2, 3, None, size=len(large) - 1))
        await store.stage(session, 2, large[1:])
        unsaved = {f"{text}-lost": (text, text, text)}
        restored = Restored((text,), (NotRestored(text, text, text),))
        content = commit(*entries, outcome=outcome(), outputs=f'["{text}"]', unsaved=unsaved)
        await store.publish(session, execution, content, UNLIMITED, restored)
    await store.block_component(session, 1, text)
    await store.note_versions(session, "3.11.7", {text: "1"})
    await store.publish(other, None, commit(part(0, 1, b"kept" * 9000)), UNLIMITED, None)
    assert traces(data_dir)
    await store.delete_session(session)
    assert traces(data_dir) == []
    assert await bytes_of(store, other, 1) == b"kept" * 9000
    assert [info.session_id for info in await store.list_sessions()] == ["other"]
    opened()
    assert traces(data_dir) == []


async def test_clearing_keeps_the_session_and_its_history(store: Store) -> None:
    """Variables and their bytes go."""
    session = await new_session(store)
    execution = await store.start_execution(session, "r1", "test", "x = 1")
    content = commit(part(0, 1, MARKER * 2000), outcome=outcome(3), unsaved={"lost": ("socket", "lost", "no")})
    await store.publish(session, execution, content, UNLIMITED, None)
    assert await store.clear_session(session) == 2
    manifest = await store.manifest(session)
    assert (manifest.names, manifest.components, manifest.stories, manifest.execution_count) == ({}, (), {}, 3)
    assert await store.variables(session) == []
    assert await query(store, "SELECT COUNT(*) FROM chunks") == [(0,)]
    [info] = await store.list_sessions()
    assert (info.variable_count, info.size_bytes, info.total_executions) == (0, 0, 1)
    assert await store.clear_session(session) == 0


# Executions


async def test_an_execution_is_noted_before_it_runs_and_closed_by_its_commit(store: Store) -> None:
    """Everything a lost reply had is in its row."""
    session = await new_session(store)
    execution = await store.start_execution(session, "r1", "test", "x = open_socket()")
    started = await store.execution("r1")
    assert started is not None
    assert (started.status, started.committed, started.outputs, started.code) == (
        "started", False, "[]", "x = open_socket()",
    )  # fmt: skip
    restored = Restored(("a",), (NotRestored("b", "Bomb", "it died"),))
    content = commit(
        outcome=outcome(7, "error"),
        outputs='[{"type": "stream"}]',
        unsaved={"x": ("socket", "x.sock", "a network connection")},
        saved=Saved(("c",), ("d",), ("e",)),
    )
    await store.publish(session, execution, content, UNLIMITED, restored)
    row = await store.execution("r1")
    assert row is not None
    assert (row.id, row.session, row.status, row.execution_count, row.duration_s) == (
        execution,
        session,
        "error",
        7,
        0.5,
    )
    assert (row.saved, row.restored, row.outputs, row.committed) == (
        Saved(("c",), ("d",), ("e",)), restored, '[{"type": "stream"}]', True,
    )  # fmt: skip
    assert row.not_saved == (NotSaved("x", "socket", "x.sock", "a network connection"),)
    assert await store.last_execution(session) == row
    assert await store.execution("r2") is None


async def test_an_execution_that_died_is_closed_without_a_commit(store: Store) -> None:
    """With what it had printed."""
    session = await new_session(store)
    execution = await store.start_execution(session, "r1", "test", "crash()")
    await store.finish_execution(execution, "crashed", '["partial"]', Restored(("a",)))
    row = await store.execution("r1")
    assert row is not None
    assert (row.status, row.outputs, row.restored, row.committed) == ("crashed", '["partial"]', Restored(("a",)), False)


async def test_an_execution_that_nobody_closed_has_crashed(store: Store, opened: Callable[..., Store]) -> None:
    """Found when the next keeper opens the database."""
    session = await new_session(store)
    done = await store.start_execution(session, "r1", "test", "1")
    await store.publish(session, done, commit(outcome=outcome()), UNLIMITED, None)
    await store.start_execution(session, "r2", "test", "2")
    store = opened()
    rows = await query(store, "SELECT request_id, status FROM executions ORDER BY id")
    assert rows == [("r1", "ok"), ("r2", "crashed")]


async def test_a_request_id_that_comes_again_is_another_execution(store: Store) -> None:
    """A client may count from 1 again; both run, both are in the history."""
    session = await new_session(store)
    first = await store.start_execution(session, "1", "test", "a")
    second = await store.start_execution(session, "1", "test", "b")
    assert first != second
    assert [code for (code,) in await query(store, "SELECT code FROM executions ORDER BY id")] == ["a", "b"]


# Lists


async def test_sessions_are_listed_by_their_last_use(store: Store) -> None:
    """Running code is a use; each is found by its id, with what was fixed for it."""
    for name in ("a", "b", "c"):
        await new_session(store, name)
    found = await store.find_session("a")
    assert found is not None
    assert found[1] == {"limits": {}}
    await store.start_execution(found[0].key, "r1", "test", "1")
    listed = await store.list_sessions()
    assert [info.session_id for info in listed] == ["a", "c", "b"]
    assert (listed[0].total_executions, listed[0].workspace) == (1, "workspace-of-a")
    assert listed[0].created_at < listed[0].last_used_at
    assert await store.find_session("d") is None


async def pages(listing: Callable[[PageRequest], Awaitable[Page[Any]]], asked: PageRequest) -> list[Page[Any]]:
    """All pages of a list, from the first on."""
    found = [await listing(asked)]
    while found[-1].next_cursor is not None:
        found.append(await listing(replace(asked, cursor=found[-1].next_cursor)))
    return found


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 7, None])
async def test_pages_of_sessions_have_each_once(store: Store, limit: int | None) -> None:
    """Also those of the same millisecond; the last page says that it is the last."""
    store._now = lambda: "2026-01-01T00:00:00.000Z"  # type: ignore[method-assign]
    for number in range(6):
        await new_session(store, f"s{number}")
    found = await pages(store.list_sessions, PageRequest(limit))
    assert [info.session_id for page in found for info in page] == ["s5", "s4", "s3", "s2", "s1", "s0"]
    assert {page.total for page in found} == {6}
    assert all(len(page) == (limit or 6) for page in found[:-1])


async def test_a_session_that_is_used_while_somebody_reads_shifts_no_page(store: Store) -> None:
    """What comes after the cursor is what was used before."""
    keys = [await new_session(store, f"s{number}") for number in range(5)]
    first = await store.list_sessions(PageRequest(2))
    await store.start_execution(keys[0], "r1", "test", "1")
    await store.delete_session(keys[4])
    second = await store.list_sessions(PageRequest(2, first.next_cursor))
    assert [info.session_id for info in [*first, *second]] == ["s4", "s3", "s2", "s1"]
    assert second.next_cursor is None


@pytest.mark.parametrize(
    ("contains", "ids"),
    [("a", ["data", "Alpha"]), ("ALPHA", ["Alpha"]), ("_", ["x_1"]), ("%", []), ("", ["x_1", "data", "Alpha"])],
)
async def test_sessions_are_found_by_a_part_of_their_name(store: Store, contains: str, ids: list[str]) -> None:
    """No character has a meaning of its own."""
    for name in ("Alpha", "data", "x_1"):
        await new_session(store, name)
    found = await pages(store.list_sessions, PageRequest(1, contains=contains))
    assert [info.session_id for page in found for info in page] == ids
    assert {page.total for page in found} == {len(ids)}


async def test_lists_of_many_sessions_are_read_by_their_index(store: Store) -> None:
    """No list sorts all sessions to show a few of them."""
    statements: list[str] = []
    await reader(store).run(lambda db: db.conn.set_trace_callback(statements.append))
    page = await store.list_sessions(PageRequest(10))
    await store.list_sessions(PageRequest(10, "2026-01-01T00:00:00.000Z/5"))
    await store.unused_sessions(datetime(2026, 1, 1, tzinfo=UTC))
    await store.similar_ids("x")
    assert page.total == 0
    await reader(store).run(lambda db: db.conn.set_trace_callback(None))
    assert len(statements) >= 5
    for statement in statements:
        plan = " ".join(str(row[3]) for row in await query(store, f"EXPLAIN QUERY PLAN {statement}"))
        assert "TEMP B-TREE FOR ORDER BY" not in plan
        assert "SCAN sessions" not in plan


async def test_pages_of_variables_have_each_once(store: Store) -> None:
    """By name, from where the page before ended."""
    session = await new_session(store)
    names = dict.fromkeys(("b", "a_1", "B", "é", "a%", "_", "*random"), (1, "int", 28))
    await store.publish(session, None, commit(part(0, 1, b"x"), names=names), UNLIMITED, None)
    found = await pages(lambda asked: store.variables(session, asked), PageRequest(2))
    assert [entry.name for page in found for entry in page] == ["B", "a%", "a_1", "b", "é"]
    assert [(len(page), page.total) for page in found] == [(2, 5), (2, 5), (1, 5)]
    assert [entry.name for entry in await store.variables(session, PageRequest(5, contains="A"))] == ["a%", "a_1"]


async def test_variables_are_listed_by_name_with_what_is_known_of_them(store: Store) -> None:
    """Saved or not; `_` and the session's own values are not variables."""
    session = await new_session(store)
    names = {"zoo": (1, "list", 80), "_": (1, "list", 80), "*random": (1, "tuple", 9), "_private": (1, "list", 80)}
    unsaved = {"conn": ("socket", "conn.sock", "a network connection")}
    await store.publish(session, None, commit(part(0, 1, b"x"), names=names, unsaved=unsaved), UNLIMITED, None)
    listed = await store.variables(session)
    assert [(entry.name, entry.type, entry.size_bytes, entry.saved) for entry in listed] == [
        ("_private", "list", 80, True),
        ("conn", "socket", 0, False),
        ("zoo", "list", 80, True),
    ]
    assert [(entry.path, entry.reason) for entry in listed if not entry.saved] == [
        ("conn.sock", "a network connection")
    ]
    [info] = await store.list_sessions()
    assert info.variable_count == 3


async def test_a_lost_name_has_its_story(store: Store) -> None:
    """Which type, when, by which line of which execution, where in it the trouble is, and why."""
    session = await new_session(store)
    execution = await store.start_execution(
        session, "r1", "test", "import socket\nconn = connect('example')\nconnected = 1"
    )
    unsaved = {
        "conn": ("Client", "conn.sock", "a network connection cannot be saved"),
        "other": ("lock", "other", "a lock cannot be saved"),
    }
    await store.publish(session, execution, commit(unsaved=unsaved, outcome=outcome(4)), UNLIMITED, None)
    await store.publish(session, None, commit(unsaved={"comm": ("lock", "comm", "no")}), UNLIMITED, None)
    stories = (await store.manifest(session)).stories
    made = {entry.name: entry.updated_at for entry in await store.variables(session)}
    assert stories["conn"] == (
        f"name 'conn' was not saved: it was a Client, made at {made['conn']} by execution 4"
        " (`conn = connect('example')`); the trouble is conn.sock: a network connection cannot be saved"
    )
    assert stories["other"] == (
        f"name 'other' was not saved: it was a lock, made at {made['other']} by execution 4"
        " (`import socket`): a lock cannot be saved"
    )
    assert stories["comm"] == f"name 'comm' was not saved: it was a lock, made at {made['comm']}: no"


async def test_a_name_that_is_saved_again_has_no_story(store: Store) -> None:
    """And one that is lost has no value."""
    session = await new_session(store)
    lost = {"n1": ("lock", "n1", "no")}
    await store.publish(session, None, commit(part(0, 1, b"x")), UNLIMITED, None)
    await store.publish(session, None, commit(unsaved=lost, closed=(1,)), UNLIMITED, None)
    manifest = await store.manifest(session)
    assert (list(manifest.names), list(manifest.stories), manifest.components) == ([], ["n1"], ())
    await store.publish(session, None, commit(part(0, 2, b"y"), names={"n1": (2, "bytes", 1)}), UNLIMITED, None)
    manifest = await store.manifest(session)
    assert (list(manifest.names), list(manifest.stories)) == (["n1"], [])


async def test_a_blocked_component_keeps_its_bytes(store: Store) -> None:
    """Until it is replaced: a new version is not blocked."""
    one, two = await new_session(store, "one"), await new_session(store, "two")
    for session in (one, two):
        await store.publish(session, None, commit(part(0, 1, b"bomb")), UNLIMITED, None)
    await store.block_component(one, 1, "the kernel died")
    assert [entry.blocked for entry in (await store.manifest(one)).components] == ["the kernel died"]
    assert [entry.blocked for entry in (await store.manifest(two)).components] == [None]
    assert await bytes_of(store, one, 1) == b"bomb"
    await store.publish(one, None, commit(part(0, 1, b"tame")), UNLIMITED, None)
    assert [entry.blocked for entry in (await store.manifest(one)).components] == [None]


# Trouble


async def limit_pages(store: Store, spare: int | None) -> None:
    """Make the disk end a few pages behind the database, or not at all."""

    def job(db: Database) -> None:
        [count] = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {count + spare if spare is not None else 1 << 30}").fetchall()

    await writer(store).run(job)


async def test_a_full_disk_fails_one_commit_and_is_named(store: Store) -> None:
    """Nothing of the commit is there, small ones still fit, and with space all goes on."""
    session = await new_session(store)
    await store.publish(session, None, commit(part(0, 1, b"before")), UNLIMITED, None)
    await limit_pages(store, 4)
    before = await everything(store)
    with pytest.raises(StorageFailed, match="the disk is full; free some space"):
        await store.publish(session, None, commit(part(0, 2, os.urandom(200_000))), UNLIMITED, None)
    assert await everything(store) == before
    await store.publish(session, None, commit(part(0, 1, b"during")), UNLIMITED, None)
    await limit_pages(store, None)
    await store.publish(session, None, commit(part(0, 2, b"x" * 200_000)), UNLIMITED, None)
    assert await bytes_of(store, session, 1) == b"during"
    assert await bytes_of(store, session, 2) == b"x" * 200_000
    assert await query(store, "PRAGMA integrity_check") == [("ok",)]


async def test_pieces_that_do_not_fit_fail_their_commit(store: Store) -> None:
    """It is never published with a part missing."""
    session = await new_session(store)
    await limit_pages(store, 4)
    with pytest.raises(StorageFailed, match="the disk is full"):
        await store.stage(session, 0, os.urandom(200_000))
    await limit_pages(store, None)
    await store.stage(session, 0, b"y" * 200_000)
    with pytest.raises(StorageFailed, match="is the disk full"):
        await store.publish(session, None, commit(part(0, 1, None, size=400_000)), UNLIMITED, None)
    assert (await store.manifest(session)).components == ()


async def test_a_job_that_fails_leaves_no_transaction_open(store: Store) -> None:
    """The next one starts anew, and what it raised reaches its caller as it was."""

    def job(db: Database) -> None:
        db.execute("BEGIN")
        db.execute("DELETE FROM sessions")
        raise ZeroDivisionError("ours")

    await new_session(store)
    with pytest.raises(ZeroDivisionError, match="ours"):
        await writer(store).run(job)
    assert len(await store.list_sessions()) == 1
    await new_session(store, "next")
    assert len(await store.list_sessions()) == 2


# Seen from a session


class FailsOnce(Store):
    """A store whose first commits that have `x` fail, as if the disk were full."""

    failures = 1

    async def publish(self, session: int, execution: int | None, commit: Commit, *rest: Any) -> int:
        if self.failures and "x" in {*commit.names, *commit.unsaved, *commit.deleted}:
            self.failures -= 1
            raise StorageFailed("the disk is full; free some space")
        return await super().publish(session, execution, commit, *rest)


@pytest.mark.parametrize("make_store", [FailsOnce])
async def test_a_commit_that_fails_is_told_and_made_up_for(sessions: Sessions) -> None:
    """The reply comes, names everything that is not stored, and the next execution stores it."""
    await sessions.run("old = [1]")
    failed = await sessions.run("x = 1; y = [x]; old.append(2); print('printed'); x + 1")
    assert (failed.status, failed.output.result, failed.output.stdout) == ("ok", "2", "printed\n")
    assert not failed.committed
    assert failed.saved == Saved()
    assert {entry.name: entry.reason for entry in failed.not_saved} == dict.fromkeys(
        ("x", "y", "old"), "storage: the disk is full; free some space"
    )
    execution = await sessions.run("z = 3")
    assert execution.committed
    assert execution.not_saved == ()
    assert set(execution.saved.created) == {"x", "y", "z"}
    assert execution.saved.changed == ("old",)
    await sessions.kill()
    assert await sessions.value("x, y, old, z") == "(1, [1], [1, 2], 3)"


@pytest.mark.parametrize("make_store", [FailsOnce])
async def test_a_kernel_with_changes_that_could_not_be_stored_is_not_put_to_sleep(sessions: Sessions) -> None:
    """Stopping it would lose them; after the next commit it may sleep."""
    await sessions.run("x = 1")
    sessions.manager.capacity.idle_timeout_s = 0
    await sessions.manager.tidy()
    assert sessions.manager.live() == 1
    await sessions.run("y = 2")
    await sessions.manager.tidy()
    assert sessions.manager.live() == 0
    assert await sessions.value("x, y") == "(1, 2)"


async def test_a_kernel_that_lost_what_could_not_be_saved_may_sleep(sessions: Sessions) -> None:
    """While it has it, it stays awake; a kernel that died has nothing to keep awake for."""
    await sessions.run("held = (letter for letter in 'ab')")
    sessions.manager.capacity.idle_timeout_s = 0
    await sessions.manager.tidy()
    assert sessions.manager.live() == 1
    await sessions.kill()
    await sessions.run("x = 1")
    await sessions.manager.tidy()
    assert sessions.manager.live() == 0


@pytest.mark.parametrize("make_store", [FailsOnce])
async def test_a_deletion_that_could_not_be_stored_is_stored_with_the_next_commit(sessions: Sessions) -> None:
    """The name does not come back from the dead."""
    sessions.store.failures = 0  # type: ignore[attr-defined]
    await sessions.run("x = 1; y = 2")
    sessions.store.failures = 1  # type: ignore[attr-defined]
    failed = await sessions.run("del x")
    assert not failed.committed
    execution = await sessions.run("y = 3")
    assert execution.saved.deleted == ("x",)
    await sessions.kill()
    assert await sessions.value("'x' in globals(), y") == "(False, 3)"


@pytest.mark.parametrize("make_store", [FailsOnce])
async def test_an_execution_whose_commit_failed_is_closed_in_the_history(sessions: Sessions) -> None:
    """It ran to its end: the next keeper must not take it for one that crashed."""
    failed = await sessions.run("x = 1")
    await sessions.run("y = 2")
    row = await sessions.store.execution(failed.request_id)
    assert row is not None
    assert (row.status, row.committed) == ("ok", False)


async def test_a_real_full_disk_is_told_in_the_reply(sessions: Sessions) -> None:
    """By every name that changed; when there is space again they are stored."""
    await sessions.run("small = 1")
    await limit_pages(sessions.store, 20)
    failed = await sessions.run("import os\nlarge = os.urandom(3_000_000); small = 2")
    assert failed.status == "ok"
    assert not failed.committed
    assert {entry.name for entry in failed.not_saved} == {"os", "large", "small"}
    assert all(entry.reason.startswith("storage: ") and "full" in entry.reason for entry in failed.not_saved)
    await limit_pages(sessions.store, None)
    execution = await sessions.run("digest = hash(large)")
    assert execution.committed
    await sessions.kill()
    assert await sessions.value("small, len(large)") == "(2, 3000000)"


async def test_a_deleted_session_leaves_nothing_of_what_it_ran(sessions: Sessions, data_dir: Path) -> None:
    """Code, output, values in their row and in chunks, names that are not saved, files: all of it."""
    marker = MARKER.decode()
    await sessions.run("kept = 1", "other")
    await sessions.run(
        f"text = {marker!r}; large = [text + str(n) for n in range(9000)]; print(text)\n"
        "held = [text, (letter for letter in text)]; Path = __import__('pathlib').Path\n"
        "Path(text).write_text(text); text"
    )
    await sessions.run("large.append(1); big = text.encode() * 50_000")
    await sessions.run(f"raise ValueError({marker!r})")
    assert traces(data_dir)
    await sessions.manager.delete("s", Origin())
    assert traces(data_dir) == []
    assert await sessions.value("kept", "other") == "1"


# Chunks that are there already


def patterned(chunks: str) -> bytes:
    """One chunk for each letter."""
    return b"".join(letter.encode() * CHUNK_BYTES for letter in chunks)


async def test_a_version_takes_over_chunks_by_place(store: Store) -> None:
    """Of its own last version and of others; only what is new comes along."""
    session = await new_session(store)
    await store.publish(session, None, commit(part(0, 1, patterned("abc") + b"tail")), UNLIMITED, None)
    await store.publish(session, None, commit(part(0, 2, patterned("xyz"))), UNLIMITED, None)
    size = 4 * CHUNK_BYTES + 4
    mixed = part(
        0, 1, patterned("n"), segments=(size,), runs=((1, 0, 1), (-1, 0, 1), (2, 1, 2), (1, 3, 1))
    )  # fmt: skip
    await store.publish(session, None, commit(mixed), UNLIMITED, None)
    assert await bytes_of(store, session, 1) == patterned("anyz") + b"tail"
    assert await query(store, "SELECT COUNT(*) FROM chunks") == [(8,)]
    await store.clear_session(session)
    assert await query(store, "SELECT COUNT(*) FROM chunks") == [(0,)]


@pytest.mark.parametrize(
    ("runs", "segments", "data"),
    [
        (((9, 0, 1),), (CHUNK_BYTES,), b""),
        (((1, 3, 1),), (CHUNK_BYTES,), b""),
        (((1, 2, 2),), (2 * CHUNK_BYTES,), b""),
        (((1, 0, 4),), (4 * CHUNK_BYTES,), b""),
        (((7, 0, 1),), (CHUNK_BYTES,), b""),
        (((1, 0, 1), (-1, 0, 1)), (2 * CHUNK_BYTES,), b"short"),
    ],
)
async def test_chunks_that_a_session_has_not_are_refused(
    store: Store, runs: tuple[tuple[int, int, int], ...], segments: tuple[int, ...], data: bytes
) -> None:
    """Another session's, a place beyond the end, another length, too few bytes: nothing of the commit is stored."""
    session, other = await new_session(store), await new_session(store, "other")
    await store.publish(other, None, commit(part(0, 7, patterned("q"))), UNLIMITED, None)
    await store.publish(session, None, commit(part(0, 1, patterned("abc") + b"tail")), UNLIMITED, None)
    with pytest.raises(StorageFailed):
        await store.publish(session, None, commit(part(0, 1, data, segments=segments, runs=runs)), UNLIMITED, None)
    assert await bytes_of(store, session, 1) == patterned("abc") + b"tail"
