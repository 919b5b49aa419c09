"""The states of an execution on its way through a session."""

from __future__ import annotations

import asyncio

import pytest

from kernelrepl.model import Commit, ExecutionResult, Output, Saved
from kernelrepl.sessions.execution import Execution, ExecutionEvent, ExecutionState, advance
from kernelrepl.sessions.lifecycle import IllegalTransition
from kernelrepl.store import Store
from tests.conftest import RUN_TIMEOUT_S, Sessions

pytestmark = pytest.mark.anyio

LEGAL = """
queued     start   starting
queued     stop    queued
queued     answer  answered
starting   send    sent
starting   commit  starting
starting   stop    starting
starting   answer  answered
sent       begin   running
sent       lost    starting
sent       commit  committed
sent       stop    sent
sent       answer  answered
running    begin   running
running    commit  committed
running    stop    running
running    answer  answered
committed  begin   committed
committed  commit  committed
committed  stop    committed
committed  answer  answered
answered   begin   answered
answered   commit  answered
answered   stop    answered
answered   end     over
over       commit  over
"""
TABLE = {(row.split()[0], row.split()[1]): row.split()[2] for row in LEGAL.strip().splitlines()}
DONE = ExecutionResult("s", "ok", Output())


@pytest.mark.parametrize("event", ExecutionEvent)
@pytest.mark.parametrize("state", ExecutionState)
def test_an_event_leads_to_its_state_or_is_a_bug(state: ExecutionState, event: ExecutionEvent) -> None:
    """The table as it stands here is the one that is followed."""
    if (state.value, event.value) in TABLE:
        assert advance(state, event) is ExecutionState(TABLE[state.value, event.value])
        return
    with pytest.raises(IllegalTransition) as caught:
        advance(state, event)
    assert (caught.value.state, caught.value.event) == (state, event)


def test_from_every_state_an_execution_can_come_to_its_end() -> None:
    """None gets stuck, and it is answered before it is over."""
    for state in ExecutionState:
        if state is ExecutionState.OVER:
            continue
        at = state if state is ExecutionState.ANSWERED else advance(state, ExecutionEvent.ANSWER)
        assert advance(at, ExecutionEvent.END) is ExecutionState.OVER


def commit() -> Commit:
    return Commit("execution", "r", {}, {}, (), {}, (), (), "", "", Saved(), "{}", None, "[]")


async def test_an_execution_goes_its_way() -> None:
    """Each step is seen from outside, and what the result was made of is let go of in the end."""
    execution = Execution("x", "r", "test")
    assert execution.is_waiting
    execution.start()
    assert execution.is_waiting
    execution.send()
    assert not execution.is_waiting
    assert execution.may_be_sent_again
    execution.lose_kernel()
    assert execution.is_waiting
    execution.send()
    execution.begin()
    assert execution.began.is_set()
    assert not execution.may_be_sent_again
    execution.take_commit(commit(), Output(stdout="shown"), None)
    assert execution.state is ExecutionState.COMMITTED
    execution.answer(DONE)
    assert execution.is_answered
    assert not execution.over.is_set()
    execution.end()
    execution.end()
    assert execution.over.is_set()
    assert (execution.commit, execution.shown) == (None, Output())
    assert await execution.result is DONE


async def test_an_execution_is_answered_once() -> None:
    """A second answer would be another outcome of the same request."""
    execution = Execution("x", "r", "test")
    execution.answer(DONE)
    with pytest.raises(IllegalTransition):
        execution.answer(DONE)
    with pytest.raises(IllegalTransition):
        execution.fail(ValueError())


async def test_one_that_is_to_stop_is_not_sent_again() -> None:
    """Of the reasons the first counts, and a timeout more than an interrupt."""
    execution = Execution("x", "r", "test")
    execution.start()
    execution.send()
    execution.stop(reason="too much memory")
    assert not execution.may_be_sent_again
    execution.stop("timeout", "too many files")
    execution.stop()
    assert (execution.stopped_by, execution.stopped_for) == ("timeout", "too much memory")


class SlowToStart(Store):
    """A store that takes until `go_on` to note that an execution has started."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def start_execution(self, session: int, request_id: str, origin: str, code: str) -> int:
        row = await super().start_execution(session, request_id, origin, code)
        self.asked.set()
        await self.go_on.wait()
        return row


@pytest.mark.parametrize("make_store", [SlowToStart])
async def test_code_that_was_interrupted_before_it_was_sent_does_not_run(sessions: Sessions) -> None:
    """Its answer says that nothing ran; not even its row may be on its way then."""
    store = sessions.store
    assert isinstance(store, SlowToStart)
    session, execution = await sessions.submit("x = 1")
    await asyncio.wait_for(store.asked.wait(), RUN_TIMEOUT_S)
    await session.interrupt(execution)
    store.go_on.set()
    told = await asyncio.wait_for(asyncio.shield(execution.result), RUN_TIMEOUT_S)
    assert (told.status, told.note) == ("interrupted", "it had not started; nothing ran")
    assert await sessions.value("'x' in globals()") == "False"
    rows = await sessions.rows("SELECT status FROM executions ORDER BY id")
    assert [status for (status,) in rows] == ["interrupted", "ok"]


async def test_only_what_is_behind_other_code_says_that_it_waits_for_it(sessions: Sessions) -> None:
    """What is about to begin, or whose kernel is about to start, waits for nobody."""
    session, first = await sessions.submit("import time; time.sleep(1.5)")
    _, second = await sessions.submit("2")
    notes = set()
    while not first.is_answered:
        notes.add(session.running(first).note)
        assert first.is_answered or session.running(second).note == "waiting for earlier executions of this session"
        await asyncio.sleep(0.01)
    assert notes == {None}
    await asyncio.wait_for(asyncio.shield(second.result), 100)
