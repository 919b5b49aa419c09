"""Numbers that lie: whatever a kernel says of sizes and counts costs little and raises what is documented."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import secrets
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernelrepl import bounded_json
from kernelrepl.errors import StorageFailed
from kernelrepl.guest import wire
from kernelrepl.kernel.commits import parse_commit
from kernelrepl.kernel.flood import Budget
from kernelrepl.kernel.window import Window
from kernelrepl.model import Limits
from kernelrepl.store import Store
from kernelrepl.store.database import Database
from tests.benchmarks.hostile import peak
from tests.conftest import RUN_TIMEOUT_S, Sessions, change
from tests.support.database import writer
from tests.support.hostile_frames import PAYLOADS
from tests.unit.test_wire import JSON, VALID

NUMBERS = (
    st.integers(-2, 6)
    | st.integers(wire.CHUNK_BYTES - 1, 3 * wire.CHUNK_BYTES + 1)
    | st.sampled_from([2**31, 2**45, 2**48, 2**61, 2**62, 2**63, 2**64, 10**400, 1.5, float("nan"), True, None, "7"])
)
RUNS = st.none() | st.lists(st.lists(NUMBERS, min_size=3, max_size=3) | JSON, max_size=4)
COMPONENT = st.fixed_dictionaries(
    {
        "roots": st.lists(NUMBERS, max_size=3),
        "references": st.lists(NUMBERS, max_size=3),
        "segments": st.lists(NUMBERS, max_size=3),
        "code": st.booleans(),
        "inert": st.booleans(),
    },
    optional={"staged": st.booleans(), "runs": RUNS},
)
MOST_GROWTH = 64 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all examples."""
    opened = Store(tmp_path_factory.mktemp("store") / "python_sessions.db")
    opened.open()
    yield opened
    opened.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(COMPONENT, max_size=3), NUMBERS, st.lists(NUMBERS, max_size=3), st.booleans())
def test_lengths_that_lie_cost_nothing(
    store: Store, components: list[Any], outputs: Any, closed: list[Any], limited: bool
) -> None:
    """Neither when they are read nor when they are stored, with limits and without."""
    header = {**VALID, "names": {}, "unsaved": {}, "components": components, "outputs_bytes": outputs, "closed": closed}
    tracemalloc.start()
    try:
        try:
            commit = parse_commit(header, b"[]" + b"x" * 3000, "3.12")
        except wire.WireError:
            return
        asyncio.run(published(store, commit, Limits() if limited else Limits(None, None)))
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MOST_GROWTH


async def published(store: Store, commit: Any, limits: Limits) -> None:
    session, _ = await store.create_session(secrets.token_hex(8), "w", {})
    await store.stage(session, 0, b"x" * 100, limits)
    with contextlib.suppress(StorageFailed):
        await store.publish(session, None, commit, limits, None)
    await store.manifest(session)


@given(st.lists(st.integers(0, 3 * wire.CHUNK_BYTES + 1), max_size=6), st.data())
def test_chunks_by_arithmetic_are_those_that_are_cut(sizes: list[int], data: st.DataObject) -> None:
    """In number, in length and in place."""
    cut = [min(wire.CHUNK_BYTES, size - at) for size in sizes for at in range(0, size, wire.CHUNK_BYTES)]
    cuts = wire.Cuts(sizes)
    start = data.draw(st.integers(0, len(cut)))
    stop = data.draw(st.integers(start, len(cut)))
    assert cuts.count == len(cut)
    assert cuts.lengths(start, stop) == cut[start:stop]
    assert cuts.before(stop) - cuts.before(start) == sum(cut[start:stop])


@pytest.mark.anyio
async def test_a_component_of_the_store_is_looked_up_once(store: Store) -> None:
    """However many runs of a commit take chunks of it."""
    session, _ = await store.create_session("runs", "w", {})
    entry = {"roots": [1], "references": [], "segments": [wire.CHUNK_BYTES], "code": False, "inert": True}
    empty = {**VALID, "names": {}, "unsaved": {}, "closed": [], "outputs_bytes": 0}
    first = parse_commit({**empty, "components": [entry]}, b"r" * wire.CHUNK_BYTES, "3.12")
    await store.publish(session, None, first, Limits(None, None), None)
    count = 10_000
    many = {**entry, "segments": [wire.CHUNK_BYTES] * count, "staged": True, "runs": [[1, 0, 1]] * count}
    commit = parse_commit({**empty, "components": [many]}, b"", "3.12")
    statements: list[str] = []
    await writer(store).run(lambda db: db.conn.set_trace_callback(statements.append))
    await store.publish(session, None, commit, Limits(None, None), None)
    await writer(store).run(lambda db: db.conn.set_trace_callback(None))
    assert sum("SELECT digests" in statement for statement in statements) == 1
    assert len(statements) < 40
    with pytest.raises(wire.WireError):
        parse_commit({**empty, "components": [{**many, "runs": [[1, 0, 1]] * 160_000}]}, b"", "3.12")


@pytest.mark.anyio
async def test_rows_of_earlier_versions_that_lie_are_skipped(store: Store) -> None:
    """A session with one of them still comes back."""
    session, _ = await store.create_session("rows", "w", {})
    entry = {"roots": [1], "references": [], "segments": [3], "code": False, "inert": True}
    empty = {**VALID, "names": {"x": [1, "int", 3, ""]}, "unsaved": {}, "closed": [], "outputs_bytes": 0}
    await store.publish(session, None, parse_commit({**empty, "components": [entry]}, b"abc", "3"), Limits(), None)
    for column, stored in (("segments", "[35184372088832"), ("roots", "{}"), ("refs", '["a"]'), ("packages", "[]")):
        await change(
            store,
            functools.partial(
                Database.execute,
                sql=f"UPDATE components SET {column} = ? WHERE session = ?",
                parameters=[stored, session],
            ),
        )
        found = await store.manifest(session)
        assert found.names
        assert found.components == ()
    await change(
        store,
        lambda db: db.execute(
            "UPDATE components SET segments = ?, roots = '[1]', refs = '[]', packages = '{}' WHERE session = ?",
            [json.dumps([2**45]), session],
        ),
    )
    found = await store.manifest(session)
    assert await store.missing(found.components) == {found.components[0].row}


@given(st.lists(JSON | NUMBERS, max_size=8))
def test_slots_that_it_had_not_got_are_refused(slots: list[Any]) -> None:
    """Nothing was handed out."""
    window = Window()
    assert not any(window.emptied(slot) for slot in slots)


def test_a_kernel_gets_its_share_of_the_keeper_and_no_more() -> None:
    """A little at once; then it waits, and what it waited for is forgotten."""
    budget = Budget(burst_s=1.0, share=0.1)
    budget.spend(0.9)
    assert budget.delay(0.0) == 0
    budget.spend(0.4)
    assert budget.delay(0.0) == pytest.approx(3.0)
    assert budget.delay(3.0) == pytest.approx(0.0)
    assert budget.delay(100.0) == 0


def test_a_text_of_few_marks_is_not_searched_for_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure of 20 MB costs a look at its bytes."""
    monkeypatch.setattr(bounded_json, "_STRING", None)
    assert bounded_json.check(b'{"data":"' + b"A" * 2_000_000 + b'"}') < 10


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("segments of 2**45 bytes", "more than 100000 chunks"),
        ("many segments of 2**45 bytes", "more than 100000 chunks"),
        ("a header of 1,900,000 objects", "frame too large: header 5700041"),
        ("a commit that deletes 190,000 names", "frame too large"),
        ("parts of a commit of 190,000 names", "more names, or more about them, than a session may have"),
        ("parts of a component without end", "more than 400000 roots, references and segments"),
    ],
)
async def test_a_kernel_that_lies_is_ended_and_told_why(sessions: Sessions, name: str, why: str) -> None:
    """Another session keeps its kernel, and memory is not blamed."""
    await sessions.run("y = 7", "other")
    await sessions.run("x = 42")
    told = await sessions.run(PAYLOADS[name])
    assert told.status == "crashed"
    assert told.note is not None
    assert why in told.note
    assert "memory" not in told.note
    assert await sessions.value("x") == "42"
    assert (await sessions.run("y", "other")).restored is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name",
    [
        "110,000 names that are lost, again and again",
        "a message of 30 parts of 10 MB that never ends",
        "parts of a component without end",
        "parts of names with all that may be said of them",
        "outputs of 7,000,000 lists in a commit",
        "metadata of 7,000,000 lists",
    ],
)
async def test_what_a_kernel_sends_takes_little_of_the_keeper(sessions: Sessions, name: str) -> None:
    """At no moment, whatever becomes of the cell."""
    await sessions.run("x = 42")
    before = peak(reset=True)
    await sessions.submit(PAYLOADS[name], timeout_s=20)
    session = sessions.manager.loaded()["s"]
    assert session.latest is not None
    await asyncio.wait_for(session.latest.over.wait(), RUN_TIMEOUT_S)
    assert peak() - before < MOST_GROWTH


@pytest.mark.anyio
async def test_names_that_do_not_fit_are_told_and_the_session_goes_on(sessions: Sessions) -> None:
    """Long ones, and more than a session may have."""
    told = await sessions.run(PAYLOADS["2,000 names of 9,000 characters"] + "\nx = 42")
    assert told.committed
    assert ["at most 1000 characters; these 2000" in entry.reason for entry in told.not_saved] == [True]
    assert await sessions.value("x") == "42"
    told = await sessions.run("for _n in range(30_000): globals()[f'name_{_n}'] = _n", "crowd")
    assert told.committed
    assert "more are not saved" in told.not_saved[0].reason
    assert await sessions.value("name_7", "crowd") == "7"
