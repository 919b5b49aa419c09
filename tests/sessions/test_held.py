"""What the keeper still holds of what kernels have sent, when it has dealt with it: nothing that takes much."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl import bounded_json
from kernelrepl.keeper import process
from kernelrepl.kernel.client import JupyterClient
from kernelrepl.kernel.commits import parse_commit
from kernelrepl.model import ExecutionResult, Limits
from kernelrepl.outputs import passing, transcript
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.results import MOST_TOLD, Uncollected
from kernelrepl.store import Store
from kernelrepl.store.worker import Worker
from tests.conftest import RUN_TIMEOUT_S, Sessions
from tests.sandbox.test_hostile_kernel import Peer, peer  # noqa: F401 - a fixture
from tests.support.hostile_frames import PREAMBLE
from tests.unit.test_wire import PAYLOAD, VALID

pytestmark = pytest.mark.anyio
MUCH = 12 << 20


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """How many bytes are held more than before."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    yield lambda: tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "python_sessions.db")
    opened.open()
    yield opened
    opened.close()


class Blocks(ctypes.Structure):
    """What the C library tells of its blocks."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "a", "b", "c", "mapped", "d", "e", "used", "free", "f")]


def in_use() -> int:
    """How many bytes of the C library's memory are in use, whoever has asked for them."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Blocks
    found = ask()
    return int(found.used + found.mapped)


class Bytes:
    """Stands for what a commit brings."""


async def test_the_thread_of_the_store_holds_nothing_of_a_job_that_is_done(tmp_path: Path) -> None:
    """The next one may be long in coming."""
    worker = Worker(tmp_path / "db", "writer", read_only=False)
    worker.open()
    try:
        brought, given_back = Bytes(), Bytes()
        held = [weakref.ref(brought), weakref.ref(given_back)]
        results = [given_back]
        del given_back
        await worker.run(lambda db, brought=brought: results.pop())  # type: ignore[misc]
        del brought
        await until(lambda: not any(ref() for ref in held))
    finally:
        worker.close()


@pytest.mark.parametrize("whole", [False, True], ids=["crashed", "committed"])
async def test_the_database_holds_no_outputs_that_are_stored(store: Store, whole: bool) -> None:
    """Of what is bound to a statement SQLite has a copy until that is used again."""
    session, _ = await store.create_session("s", "w", {})
    for count in (1, MUCH):
        row = await store.start_execution(session, str(count), "test", "x")
        before = in_use()
        text = json.dumps(["x" * count])
        if whole:
            outcome = {"status": "ok", "execution_count": 1, "duration_s": 0.1, "error": None}
            commit = replace(parse_commit(VALID, PAYLOAD, "3.12"), components=(), names={}, unsaved={}, summaries={})
            commit = replace(commit, outputs=text, outcome=outcome)
            await store.publish(session, row, commit, Limits(), None)
            del commit
        else:
            await store.finish_execution(row, "crashed", text, None)
    del text
    await until(lambda: in_use() < before + MUCH // 2)
    found = await store.last_execution(session)
    assert found is not None
    assert len(found.outputs) > MUCH


async def test_a_message_is_not_held_until_the_next_one(
    peer: Peer,  # noqa: F811
    traced: Callable[[], int],
) -> None:
    """A kernel that shows no more after it would have the keeper hold 18 MB for each of its sockets."""
    client: JupyterClient = peer.client
    client.published.limits = type(client.published.limits)()
    await peer.publish("stream", {"name": "stdout", "text": "x" * MUCH})
    await peer.until(lambda: bool(peer.seen))
    peer.seen.clear()
    await until(lambda: traced() < MUCH // 4)


async def test_a_frame_is_not_held_until_the_next_one(sessions: Sessions, traced: Callable[[], int]) -> None:
    """Fifty kernels that say nothing more would have it hold 28 MB each."""
    await sessions.run("1")
    session, _ = await sessions.submit(
        PREAMBLE + f"_frame({{'type': 'stage', 'component': 0}}, b'x' * {MUCH})\n_time.sleep(600)"
    )
    await until(lambda: bool(sessions.store._staged_bytes))
    await until(lambda: traced() < MUCH // 4)
    await sessions.kill()
    assert session.session_id == "s"


async def test_what_a_kernel_had_begun_to_say_ends_with_it(sessions: Sessions) -> None:
    """80 MB at most would stay until somebody looks for garbage."""
    await sessions.run("1")
    kernel = weakref.ref(sessions.manager.loaded()["s"].slot.kernel)
    gc.collect()
    gc.disable()
    try:
        code = PREAMBLE + "_part(['deleted'], ['x' * 900] * 100)\nimport os; os.kill(os.getpid(), 9)"
        assert (await sessions.run(code)).status == "crashed"
        await until(lambda: (found := kernel()) is None or not found._draft._deleted)
        readers = [found for found in gc.get_objects() if isinstance(found, asyncio.StreamReader)]
        assert not any(reader._buffer for reader in readers)  # type: ignore[attr-defined]
    finally:
        gc.enable()


# What nobody has got yet


def ended(job: Execution, text: str) -> None:
    job.answer(ExecutionResult("s", "ok", transcript.load(json.dumps([])), note=text))


def told(execution: ExecutionResult) -> str:
    return f"told: {execution.note}"


async def test_of_outcomes_that_nobody_has_got_only_words_are_held() -> None:
    """Each may have shown 20 MB, and a call need not wait for any."""
    left = Uncollected()
    held = []
    for number in range(3):
        job = Execution("x", str(number), "test")
        left.add(job, told)
        ended(job, str(number))
        held.append(weakref.ref(job))
    last = Execution("x", "last", "test")
    await asyncio.sleep(0)
    del job
    assert [ref() for ref in held] == [None] * 3
    assert left
    assert left.take(last) == ["told: 0", "told: 1", "told: 2"]
    assert not left
    assert left.take(last) == []


async def test_outcomes_without_end_are_counted() -> None:
    """The last ones are told."""
    left = Uncollected()
    for number in range(MOST_TOLD + 7):
        job = Execution("x", str(number), "test")
        left.add(job, told)
        left.add(job, told)
        ended(job, str(number))
    await asyncio.sleep(0)
    found = left.take(Execution("x", "last", "test"))
    assert found[0] == "7 other pieces of code that calls left running have ended before"
    assert found[1:] == [f"told: {number}" for number in range(7, MOST_TOLD + 7)]


async def test_a_job_is_not_told_beside_itself_nor_one_without_an_outcome() -> None:
    """Who asks for one gets it whole."""
    left = Uncollected()
    job, failed, running = (Execution("x", name, "test") for name in ("job", "failed", "running"))
    for one in (job, failed, running):
        left.add(one, told)
    assert job in left
    ended(job, "itself")
    failed.fail(ValueError())
    await asyncio.sleep(0)
    assert job in left
    assert failed not in left
    assert left.take(job) == []
    assert running in left
    ended(running, "later")
    await asyncio.sleep(0)
    assert left.take(Execution("x", "last", "test")) == ["told: later"]


# What takes long


@pytest.fixture
def folded_in(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each fold, whether it held up the event loop."""
    found: list[bool] = []
    fold = transcript.fold

    def watched(messages: Any) -> Any:
        found.append(threading.current_thread() is threading.main_thread())
        return fold(messages)

    monkeypatch.setattr(transcript, "fold", watched)
    return found


@pytest.mark.parametrize("end", ["", "\nimport os, time; time.sleep(0.5); os.kill(os.getpid(), 9)"], ids=["ok", "died"])
async def test_large_outputs_are_made_readable_beside_the_event_loop(
    sessions: Sessions, folded_in: list[bool], end: str
) -> None:
    """Looking through what a cell shows takes a fifth of a second for 20 MB, in which no other session is answered."""
    code = "from IPython.display import display\ndisplay({'text/plain': '\\x1b[1mé' * 200_000}, raw=True)" + end
    session, job = await sessions.submit(code)
    execution = await asyncio.wait_for(asyncio.shield(job.result), RUN_TIMEOUT_S)
    await asyncio.wait_for(job.over.wait(), RUN_TIMEOUT_S)
    assert len(execution.output.displays[0]) >= 200_000
    assert session.latest is None
    await sessions.manager.latest("s")
    assert folded_in
    assert not any(folded_in)


SPACES = st.text(" \t\n\r", max_size=2)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5)


@given(st.lists(VALUES, max_size=5), SPACES, SPACES, st.sampled_from(["", "]", ",", " ,1", "[", "x", "1"]), st.data())
def test_a_long_list_is_decoded_as_a_whole_one(
    values: list[Any], before: str, after: str, more: str, data: st.DataObject
) -> None:
    """Entry by entry, so that others get their turn: the same values, and the same texts are none."""
    text = before + json.dumps(values, separators=(f"{after},{before}", ":")) + after + more
    text = text[: data.draw(st.integers(0, len(text)))]
    body = text.encode()

    def outcome(decode: Callable[[], Any]) -> Any:
        try:
            return decode()
        except ValueError:
            return ValueError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_json, "_LONG_CHARS", 0)
        assert outcome(lambda: bounded_json.loads(body)) == outcome(lambda: json.loads(text))
    assert passing.dumps(values) == json.dumps(values)


# What is free


async def test_memory_that_is_freed_after_a_first_try_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was held when it was looked for must not be taken for what is needed."""
    looks: list[int] = []
    resident = process.resident_bytes

    def watched() -> int:
        looks.append(resident())
        return looks[-1]

    monkeypatch.setattr(process, "RELEASE_S", 0.02)
    monkeypatch.setattr(process, "MOST_RELEASE_S", 0.1)
    monkeypatch.setattr(process, "resident_bytes", watched)
    task = asyncio.create_task(process.release_memory())
    await until(lambda: bool(looks))
    before = looks[-1]
    pieces: list[Any] = [bytes(8_000) + bytes([number % 256]) for number in range(20_000)]
    kept = pieces[::100]
    known = len(looks)
    await until(lambda: len(looks) > known + 4)
    pieces.append(pieces)  # nobody holds it, and only who looks for garbage finds it
    del pieces
    await until(lambda: looks[-1] < before + (64 << 20))
    assert len(kept) == 200
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
