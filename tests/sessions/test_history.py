"""Earlier states of sessions: what is kept of them, what that costs, and that no commit waits while the rest goes."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernelrepl.guest.wire import Cuts
from kernelrepl.model import Commit, Limits
from kernelrepl.store import Store
from kernelrepl.store.collecting import Sweep, forget_before
from kernelrepl.store.history import plan
from kernelrepl.store.publish import DIGEST_BYTES
from kernelrepl.store.schema import migrations
from tests.conftest import RUN_TIMEOUT_S, Sessions
from tests.sessions.test_store import MARKER, UNLIMITED, bytes_of, commit, new_session, part, query, traces
from tests.support.database import writer
from tests.support.mcp_hosts import command

pytestmark = pytest.mark.anyio

SIZE = 20_000
"""Of a value that is kept in one chunk."""


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "python_sessions.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., Store]]:
    """Opens the database with a budget, again each time it is called; all are closed in the end."""
    stores: list[Store] = []

    def open_store(max_history_bytes: int | None = None) -> Store:
        while stores:
            stores.pop().close()
        store = Store(path, max_history_bytes=max_history_bytes)
        store.open()
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        store.close()


State = dict[str, bytes]


async def commits(store: Store, session: int) -> list[int]:
    """The numbers of a session's commits, in order."""
    return [row for (row,) in await query(store, "SELECT id FROM commits WHERE session = ? ORDER BY id", session)]


async def state_at(store: Store, session: int, moment: int) -> State:
    """The values of all names after a commit, read from the versions that it belongs to.

    Fails the test if anything is missing that these values are made of or refer to.
    """
    belongs = "session = ? AND from_commit <= ? AND (to_commit IS NULL OR to_commit > ?)"
    rows = await query(
        store, f"SELECT roots, refs, segments, data, digests FROM components WHERE {belongs}", session, moment, moment
    )
    values: dict[int, bytes] = {}
    references: dict[int, list[int]] = {}
    for roots, refs, segments, data, digests in rows:
        if digests is not None:
            pieces = []
            for at, length in enumerate((cuts := Cuts(json.loads(segments))).lengths(0, cuts.count)):
                digest = digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]
                [(piece,)] = await query(store, "SELECT data FROM chunks WHERE digest = ?", digest)
                assert len(piece) == length
                pieces.append(piece)
            data = b"".join(pieces)
        for root in json.loads(roots):
            assert root not in values
            values[root], references[root] = data, json.loads(refs)
    names = await query(
        store, f"SELECT name, root FROM names WHERE root IS NOT NULL AND {belongs}", session, moment, moment
    )
    work = [root for _, root in names]
    seen: set[int] = set()
    while work:
        root = work.pop()
        if root not in seen:
            seen.add(root)
            work += references[root]
    return {name: values[root] for name, root in names}


async def live_bytes(store: Store, session: int) -> int:
    [(size,)] = await query(
        store, "SELECT COALESCE(SUM(size_bytes), 0) FROM components WHERE session = ? AND to_commit IS NULL", session
    )
    return int(size)


async def stored(store: Store) -> set[bytes]:
    """The first byte of each chunk."""
    return {data[:1] for (data,) in await query(store, "SELECT data FROM chunks")}


def value(letter: str, root: int = 1, **changes: Any) -> Commit:
    """A commit of a value of one chunk."""
    return commit(part(0, root, letter.encode() * SIZE), **changes)


async def publish(store: Store, session: int, *some: Commit, limits: Limits = UNLIMITED) -> None:
    for entry in some:
        await store.publish(session, None, entry, limits, None)


# What is kept


@pytest.mark.parametrize("budget", [0, 30_000, 100_000, 200_000, None])
async def test_every_commit_that_is_kept_can_be_read_whole(opened: Callable[..., Store], budget: int | None) -> None:
    """Whatever was made, changed, shared, deleted and cleared; what is older is gone to the last row."""
    store = opened(budget)
    chance = random.Random(7)
    keys = [await new_session(store, name) for name in "ab"]
    now: dict[int, State] = {key: {} for key in keys}
    expected: dict[int, dict[int, State]] = {key: {} for key in keys}
    for number in range(120):
        session = chance.choice(keys)
        state = now[session]
        act = chance.random()
        if act < 0.02:
            await store.clear_session(session)
            state.clear()
        elif act < 0.15 and state:
            name = chance.choice(sorted(state))
            del state[name]
            await publish(store, session, commit(deleted=(name,)))  # what nothing leads to then, is found
        else:
            root = chance.randrange(1, 9)
            size = chance.choice([50, SIZE, 3 * SIZE])
            data = bytes([chance.choice([1, 2, 3, number])]) * size
            references = tuple(int(name[1:]) for name in chance.sample(sorted(state), min(len(state), 2)))
            state[f"n{root}"] = data
            await publish(store, session, commit(part(0, root, data, references=references)))
        expected[session][(await commits(store, session))[-1]] = dict(state)
        if number % 17 == 0:
            await store.collect()
    await store.collect()
    for session in keys:
        oldest = await store.oldest_commit(session)
        assert oldest is not None
        for moment, state in expected[session].items():
            if moment >= oldest:
                assert await state_at(store, session, moment) == state
        for table in ("components", "names"):
            gone = f"SELECT id FROM {table} WHERE session = ? AND to_commit <= ?"
            assert await query(store, gone, session, oldest) == []
        made = list(expected[session])
        assert (oldest == made[0]) == (budget is None)
        assert (await query(store, "SELECT size_bytes FROM sessions WHERE id = ?", session)) == [
            (await live_bytes(store, session),)
        ]
    if budget == 0:
        assert await query(store, "SELECT COUNT(*) FROM components WHERE to_commit IS NOT NULL") == [(0,)]


async def test_the_newest_commits_are_kept_and_the_oldest_go_first(opened: Callable[..., Store]) -> None:
    """As many as the budget has room for."""
    store = opened(3 * (SIZE + 1000))
    session = await new_session(store)
    await publish(store, session, *map(value, "abcdef"))
    made = await commits(store, session)
    assert await store.oldest_commit(session) == made[0]
    await store.collect()
    assert await store.oldest_commit(session) == made[2]
    assert await stored(store) == {b"c", b"d", b"e", b"f"}
    assert [await state_at(store, session, moment) for moment in made[2:]] == [
        {"n1": letter * SIZE} for letter in (b"c", b"d", b"e", b"f")
    ]


async def test_a_version_that_a_kept_commit_has_is_kept_however_old(opened: Callable[..., Store]) -> None:
    """A large value that did not change for long and was deleted last costs what it costs: it is too much here, and
    then nothing from before its end can be read."""
    store = opened(2 * SIZE)
    session = await new_session(store)
    await publish(store, session, commit(part(0, 9, b"L" * 3 * SIZE)), *map(value, "abc"))
    await store.collect()
    made = await commits(store, session)
    assert await store.oldest_commit(session) == made[2]
    assert (await state_at(store, session, made[2]))["n9"] == b"L" * 3 * SIZE
    await publish(store, session, commit(deleted=("n9",), closed=(9,)))
    await store.collect()
    assert await store.oldest_commit(session) == (await commits(store, session))[-1]
    assert await stored(store) == {b"c"}


async def test_what_a_commit_closes_together_goes_together(opened: Callable[..., Store]) -> None:
    """There is no half of a commit."""
    store = opened(SIZE + 10_000)
    session = await new_session(store)
    both = [commit(part(0, 1, letter * SIZE), part(1, 2, letter.lower() * SIZE)) for letter in (b"A", b"B", b"C")]
    await publish(store, session, *both, value("D"))
    await store.collect()
    made = await commits(store, session)
    assert await store.oldest_commit(session) == made[2]
    assert await state_at(store, session, made[2]) == {"n1": b"C" * SIZE, "n2": b"c" * SIZE}
    assert await stored(store) == {b"C", b"c", b"D"}


async def test_a_component_that_no_name_leads_to_becomes_history(opened: Callable[..., Store]) -> None:
    """It leaves the size of the session, and the commits that had it can be read."""
    store = opened()
    session = await new_session(store)
    held = commit(part(0, 1, b"x", references=(2,)), part(1, 2, b"h" * SIZE), names={"n1": (1, "bytes", 1)})
    await publish(store, session, held, commit(part(0, 1, b"y")))
    assert await live_bytes(store, session) == SIZE + 1
    await store.collect()
    [info] = await store.list_sessions()
    assert info.size_bytes == await live_bytes(store, session) == 1
    assert [entry.key for entry in (await store.manifest(session)).components] == [1]
    first, second = await commits(store, session)
    assert (await state_at(store, session, first), await stored(store)) == ({"n1": b"x"}, {b"h"})
    assert await state_at(store, session, second) == {"n1": b"y"}


async def test_a_session_that_was_changed_meanwhile_keeps_what_seemed_unreachable(opened: Callable[..., Store]) -> None:
    """Between looking and closing a commit may have given it a name."""
    store = opened()
    session = await new_session(store)
    await publish(store, session, commit(part(0, 2, b"h" * SIZE), names={}))
    with held(store._collector._reader, "SELECT id, blocked, session, key") as reached:
        collecting = asyncio.create_task(store.collect())
        await reached()
        await publish(store, session, commit(names={"n2": (2, "bytes", SIZE)}))
    await collecting
    assert await bytes_of(store, session, 2) == b"h" * SIZE


async def test_clearing_keeps_history(opened: Callable[..., Store]) -> None:
    """The session has nothing, what it had can be read."""
    store = opened()
    session = await new_session(store)
    await publish(store, session, value("a"), value("b"))
    await store.clear_session(session)
    first, second, cleared = await commits(store, session)
    assert await store.oldest_commit(session) == first
    assert [await state_at(store, session, moment) for moment in (first, second, cleared)] == [
        {"n1": b"a" * SIZE},
        {"n1": b"b" * SIZE},
        {},
    ]
    [info] = await store.list_sessions()
    assert info.size_bytes == 0


async def test_deleting_takes_the_history_along(opened: Callable[..., Store], data_dir: Path) -> None:
    """All at once, and no byte of it is left; that of others is."""
    store = opened()
    session, other = await new_session(store), await new_session(store, "other")
    for number in range(1200):  # more rows than one step takes
        await publish(store, session, commit(part(0, 1, MARKER + b"%d" % number)))
    await publish(store, session, commit(part(0, 1, MARKER * 1000)), value("s"), value("x"))
    await publish(store, other, value("s"), value("y"))
    await store.delete_session(session)
    assert traces(data_dir) == []
    assert await store.oldest_commit(session) is None
    assert await stored(store) == {b"s", b"y"}
    made = await commits(store, other)
    assert await store.oldest_commit(other) == made[0]
    assert await state_at(store, other, made[0]) == {"n1": b"s" * SIZE}


async def test_a_smaller_budget_holds_from_the_next_start(opened: Callable[..., Store]) -> None:
    """For sessions that are there already; a larger one brings nothing back."""
    store = opened()
    session = await new_session(store)
    await publish(store, session, *map(value, "abcd"))
    store = opened(0)
    await store.collect_if_due()
    made = await commits(store, session)
    assert (await store.oldest_commit(session), await stored(store)) == (made[3], {b"d"})
    store = opened()
    await publish(store, session, value("e"))
    await store.collect()
    assert await store.oldest_commit(session) == made[3]


# What it costs


async def cost(store: Store, session: int) -> int:
    """The smallest budget with which all commits of a session are kept: found by asking."""
    [oldest] = await query(store, "SELECT oldest_commit FROM sessions WHERE id = ?", session)
    low, high = -1, 1 << 30
    while high - low > 1:
        middle = (low + high) // 2
        found = (await writer(store).run(functools.partial(plan, max_history_bytes=middle))).oldest.get(
            session, oldest[0]
        )
        low, high = (low, middle) if found == oldest[0] else (middle, high)
    return high


async def test_history_costs_what_only_history_holds(opened: Callable[..., Store]) -> None:
    """Each chunk once, none that is live anywhere, and the bytes in rows."""
    store = opened()
    session, other = await new_session(store), await new_session(store, "other")
    await publish(store, session, value("a"))
    assert await cost(store, session) == 0
    await publish(store, session, value("b"))
    first = await cost(store, session)
    assert SIZE < first < SIZE + 400
    await publish(store, session, value("a"), value("b"), value("c"))
    assert 2 * SIZE < await cost(store, session) < 2 * SIZE + 4 * 400
    await publish(store, other, value("a", 5))
    assert SIZE < await cost(store, session) < SIZE + 4 * 400
    assert await cost(store, other) == 0
    await publish(store, other, commit(deleted=("n5",), closed=(5,)))
    assert SIZE < await cost(store, other) < SIZE + 400, "each has its own history of what both had"
    assert 2 * SIZE < await cost(store, session) < 2 * SIZE + 4 * 400


async def test_rows_without_chunks_cost_too(opened: Callable[..., Store]) -> None:
    """Small values, names that are not saved, and long lists of digests: none of it piles up for ever."""
    store = opened()
    session = await new_session(store)
    for number in range(20):
        await publish(store, session, commit(part(0, 1, bytes([number]) * 1000)))
    assert 19 * 1000 < await cost(store, session) < 19 * 1400
    lost = await new_session(store, "lost")
    for number in range(20):
        await publish(store, lost, commit(unsaved={"n1": ("lock", "n1", f"{number:0500}")}))
    assert 19 * 500 < await cost(store, lost) < 19 * 700


async def test_history_is_no_part_of_the_size_and_the_limit_of_a_session(opened: Callable[..., Store]) -> None:
    """The limit is on the present state, however much was there before."""
    store = opened()
    session = await new_session(store)
    limits = Limits(None, 2 * SIZE)
    await publish(store, session, *map(value, "abcdefgh"), limits=limits)
    for _ in range(2):
        [info] = await store.list_sessions()
        assert info.size_bytes == SIZE
        await store.collect()
    store = opened(0)
    await store.collect()
    [info] = await store.list_sessions()
    assert info.size_bytes == SIZE


# Between the steps


class held:
    """Hold a worker's thread where it first runs a statement that begins so, until the block ends."""

    def __init__(self, worker: Any, statement: str, events: list[str] | None = None) -> None:
        self._worker = worker
        self._statement = statement
        self._reached = threading.Event()
        self._go = threading.Event()
        self.events = [] if events is None else events

    def _note(self, statement: str) -> None:
        self.events.append(" ".join(statement.split()[:3]))
        if statement.startswith(self._statement) and not self._reached.is_set():
            self._reached.set()
            assert self._go.wait(RUN_TIMEOUT_S)

    def __enter__(self) -> Callable[[], Any]:
        self._worker.submit(lambda db: db.conn.set_trace_callback(self._note)).result()
        return lambda: asyncio.to_thread(self._reached.wait, RUN_TIMEOUT_S)

    def __exit__(self, *_: object) -> None:
        self._go.set()


@pytest.mark.parametrize("statement", ["DELETE FROM chunks", "DELETE FROM components"])
async def test_a_commit_that_waits_goes_between_two_steps(
    opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """It waits for the step that has begun, and no other."""
    monkeypatch.setattr("kernelrepl.store.collecting.BYTES_AT_ONCE", 1)
    store = opened(0)
    session = await new_session(store)
    await publish(store, session, *map(value, "abcdefgh"))
    events: list[str] = []
    with held(writer(store), statement, events) as reached:
        collecting = asyncio.create_task(store.collect())
        assert await reached()
        publishing = asyncio.create_task(publish(store, session, value("z")))
        await asyncio.sleep(0)  # it stands in the queue now
    await asyncio.gather(collecting, publishing)
    rest = events[events.index(statement) + 1 :]
    committed = rest.index("INSERT INTO commits")
    assert rest[:committed].count("COMMIT") == 1, "the step that had begun"
    assert rest[committed:].count(statement) >= 6
    assert await bytes_of(store, session, 1) == b"z" * SIZE


async def test_looking_for_what_may_go_holds_nobody_up(opened: Callable[..., Store]) -> None:
    """A commit and a list come and go while it looks; what was committed meanwhile stays."""
    store = opened(0)
    session = await new_session(store)
    await publish(store, session, value("a"), value("b"))
    with held(store._collector._reader, "SELECT rowid, digest FROM chunks") as reached:
        collecting = asyncio.create_task(store.collect())
        assert await reached()
        await publish(store, session, value("a"))  # the old chunk again
        [info] = await store.list_sessions()
        assert info.size_bytes == SIZE
        assert not collecting.done()
    await collecting
    assert await bytes_of(store, session, 1) == b"a" * SIZE
    await store.collect()
    assert await stored(store) == {b"a"}


@pytest.mark.parametrize("staged", [False, True])
async def test_a_chunk_that_is_taken_up_between_two_steps_stays(opened: Callable[..., Store], staged: bool) -> None:
    """By a commit, or by pieces whose commit is still to come; what nobody takes up goes."""
    store = opened(0)
    session = await new_session(store)
    await publish(store, session, value("a"), value("b"), value("c"))
    await writer(store).run(lambda db: db.execute("DELETE FROM components WHERE to_commit IS NOT NULL"))
    sweep = Sweep(await writer(store).run(lambda db: plan(db, 0)))
    if staged:
        await store.stage(session, 0, b"a" * SIZE)
    else:
        await publish(store, session, value("a", 2))
    while await writer(store).run(lambda db: sweep.step(db, store._waiting())):
        pass
    assert await stored(store) == {b"a", b"c"}
    if staged:
        await publish(store, session, commit(part(0, 2, None, size=SIZE)))
    assert await bytes_of(store, session, 2) == b"a" * SIZE


async def test_a_step_takes_a_bounded_amount(opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bytes, and of rows where there are no bytes."""
    monkeypatch.setattr("kernelrepl.store.collecting.BYTES_AT_ONCE", 2 * SIZE)
    monkeypatch.setattr("kernelrepl.store.collecting.ROWS_AT_ONCE", 10)
    store = opened(0)
    session = await new_session(store)
    await publish(store, session, *map(value, "abcdefgh"))
    for number in range(50):
        await publish(store, session, commit(unsaved={"lost": ("lock", "lost", str(number))}))
    events: list[str] = []
    with held(writer(store), "nothing", events):
        pass
    await store.collect()
    steps = " ".join("#" if event == "COMMIT" else event for event in events).split("#")
    assert max(step.count("DELETE FROM chunks") for step in steps) == 2
    assert max(step.count("DELETE FROM") for step in steps) == 10
    assert await stored(store) == {b"h"}


async def test_a_collection_that_was_cut_short_is_taken_up_again(opened: Callable[..., Store]) -> None:
    """What cannot be read any more is not read, and goes with the next one."""
    store = opened()
    session = await new_session(store)
    await publish(store, session, *map(value, "abc"))
    made = await commits(store, session)
    await writer(store).run(lambda db: forget_before(db, session, made[1]))
    store = opened()
    assert await store.oldest_commit(session) == made[1]
    await store.collect_if_due()
    assert await store.oldest_commit(session) == made[1]
    assert await stored(store) == {b"b", b"c"}


# Databases that are there already


async def test_what_an_older_version_left_is_no_history(path: Path, opened: Callable[..., Store]) -> None:
    """It removed superseded versions from time to time: what there is of them has gaps."""
    store = opened()
    session = await new_session(store)
    await publish(store, session, *map(value, "abc"))
    made = await commits(store, session)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE sessions DROP COLUMN oldest_commit")
        for table in ("components", "names"):
            connection.execute(f"DROP INDEX {table}_of_session")
            connection.execute(f"CREATE INDEX {table}_of_session ON {table} (session)")
            connection.execute(f"CREATE INDEX closed_{table} ON {table} (to_commit) WHERE to_commit IS NOT NULL")
        for index in ("sessions_by_use", "inactive_sessions"):
            connection.execute(f"DROP INDEX {index}")
        connection.execute("DROP TABLE notebooks")
        for column in ("seal", "state_seal", "live"):
            connection.execute(f"ALTER TABLE sessions DROP COLUMN {column}")
        for table, column in (("components", "data_seal"), ("executions", "outcome_seal")):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        for table in ("components", "names", "executions", "tombstones"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN seal")
        names = [migration.name for migration in migrations._migrations]
        for name in names[names.index("keep_earlier_states") :]:
            connection.execute("DELETE FROM _sqlite_migrations WHERE name = ?", [name])
    connection.close()
    store = opened()
    assert await store.oldest_commit(session) == made[-1]
    await publish(store, session, value("d"))
    await store.collect()
    assert await store.oldest_commit(session) == made[-1]
    assert await stored(store) == {b"c", b"d"}
    assert await state_at(store, session, made[-1]) == {"n1": b"c" * SIZE}


# Seen from a session


async def test_what_a_session_did_can_be_read_back_and_does_not_count_for_its_limit(sessions: Sessions) -> None:
    """Values of real cells, changed in place and deleted."""
    await sessions.run("x = [1]; large = list(range(9000))")
    await sessions.run("x.append(2); large[5] = 'five'")
    await sessions.run("del large")
    await sessions.store.collect()
    [info] = await sessions.store.list_sessions()
    assert info.size_bytes < 10_000
    oldest = await sessions.store.oldest_commit(info.key)
    made = await commits(sessions.store, info.key)
    assert oldest == made[0]
    states = [await state_at(sessions.store, info.key, moment) for moment in made]
    assert ["large" in state for state in states][-3:] == [True, True, False]
    assert states[-3]["x"] != states[-2]["x"] == states[-1]["x"]
    await sessions.kill()
    assert await sessions.value("x") == "[1, 2]"


def superseded(data_dir: Path) -> int:
    """How many versions of names are history, as the file says."""
    with sqlite3.connect(data_dir / "python_sessions.db") as connection:
        [(count,)] = connection.execute("SELECT COUNT(*) FROM names WHERE to_commit IS NOT NULL").fetchall()
    connection.close()
    return int(count)


async def test_a_keeper_keeps_what_its_settings_say(environ: dict[str, str], data_dir: Path) -> None:
    """By default a history; without one what is there goes after the next start, and the session stays."""
    for number in range(6):
        await asyncio.to_thread(command, environ, "exec", "-s", "s", f"x = {number}")
    await asyncio.to_thread(command, environ, "stop")
    assert superseded(data_dir) >= 5
    none = {**environ, "KERNELREPL_MAX_HISTORY_BYTES": "0"}
    assert (await asyncio.to_thread(command, none, "exec", "-s", "s", "x")).stdout.splitlines()[-1] == "5"
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while superseded(data_dir) > 2:  # what that cell itself superseded may be there until the next time
            await asyncio.sleep(0.1)
    assert (await asyncio.to_thread(command, none, "exec", "-s", "s", "x")).stdout.splitlines()[-1] == "5"
