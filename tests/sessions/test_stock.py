"""How much of what kernels have sent is held at a time: a share by itself, more on a seat, and seats come round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl.kernel.commits import Draft
from kernelrepl.kernel.stock import SHARE_BYTES, Holding, Stock
from tests.conftest import RUN_TIMEOUT_S, Sessions
from tests.support.hostile_frames import PREAMBLE

pytestmark = pytest.mark.anyio


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.01)


def taking(holding: Holding, size: int, what: str = "frame") -> asyncio.Task[None]:
    return asyncio.create_task(holding.hold(what, size))


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_share_never_waits_and_more_waits_for_a_seat() -> None:
    """However many have one."""
    stock = Stock(share=100, seats=1)
    large, next_, last = (Holding(stock) for _ in range(3))
    await large.hold("frame", 101)
    await large.hold("draft", 10_000)
    for _ in range(50):
        await Holding(stock).hold("frame", 100)
    waiting = [taking(next_, 101), taking(last, 101)]
    await turns()
    assert not any(task.done() for task in waiting)
    large.let_go("frame")
    await turns()
    assert not waiting[0].done()
    large.let_go("draft")
    await turns()
    assert [task.done() for task in waiting] == [True, False]
    next_.close()
    await waiting[1]


async def test_who_gives_up_waiting_is_passed_over() -> None:
    """Its kernel has ended, and another one's turn comes."""
    stock = Stock(share=1, seats=1)
    first, second, third = (Holding(stock) for _ in range(3))
    await first.hold("frame", 2)
    waiting = [taking(second, 2), taking(third, 2)]
    await turns()
    waiting[0].cancel()
    await turns()
    first.close()
    await asyncio.wait_for(waiting[1], RUN_TIMEOUT_S)


async def test_two_purposes_of_one_kernel_take_one_seat() -> None:
    """Else it would wait for itself."""
    stock = Stock(share=1, seats=1)
    first, second = Holding(stock), Holding(stock)
    await first.hold("frame", 2)
    both = [taking(second, 2, "a"), taking(second, 2, "b")]
    await turns()
    first.close()
    await asyncio.wait_for(asyncio.gather(*both), RUN_TIMEOUT_S)
    assert second.total == 4


async def test_one_that_keeps_its_seat_for_nothing_is_ended_once_another_waits() -> None:
    """And one that is at work is not: that it takes long is not its fault."""
    stock = Stock(share=1, seats=2, patience_s=0)
    idle, works, third = (Holding(stock) for _ in range(3))
    ended: list[Holding] = []
    for one in (idle, works):
        one.overdue = lambda one=one: ended.append(one)  # type: ignore[misc]
        await one.hold("draft", 2)
    with idle.waiting("frame", "draft"):
        await asyncio.wait_for(third.hold("frame", 2), RUN_TIMEOUT_S)
    assert ended == [idle]
    assert (idle.total, works.total) == (0, 2)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.integers(0, 300)), max_size=40))
def test_all_together_hold_no_more_than_shares_and_seats(steps: list[tuple[int, str, int]]) -> None:
    """Whoever takes and lets go, in whatever order; and in the end everybody gets what it waits for."""

    async def run() -> None:
        stock = Stock(share=100, seats=2)
        holdings = [Holding(stock) for _ in range(6)]
        tasks: list[asyncio.Task[None]] = []
        for number, what, size in steps:
            if size:
                tasks.append(taking(holdings[number], size, what))
            else:
                holdings[number].let_go(what)
            await turns()
            assert sum(map(stock.seated, holdings)) <= 2
        for _ in holdings:
            for one in holdings:
                one.close()
            await turns()
        assert all(task.done() for task in tasks)

    asyncio.run(run())


def test_a_draft_counts_what_it_holds() -> None:
    """Each way in which a commit can become large."""
    component = {"roots": [1], "references": [], "segments": [1], "code": False, "inert": True, "staged": True}
    for path, part in (
        (["names"], {f"n{n}": [n, "t", 1, "s" * 500] for n in range(3000)}),
        (["unsaved"], {f"n{n}": ["t", "p", "r" * 500, ""] for n in range(3000)}),
        (["deleted"], [f"{n:0>1000}" for n in range(2000)]),
        (["saved"], {"created": [f"{n:0>1000}" for n in range(2000)]}),
        (["components"], [{**component, "references": [1] * 300_000}]),
    ):
        draft = Draft()
        draft.add(path, part)
        assert draft.held > SHARE_BYTES


async def test_a_kernel_that_says_half_of_something_large_makes_room_for_others(sessions: Sessions) -> None:
    """And is told why it ended."""
    stock = Stock(share=1 << 20, seats=1, patience_s=0)
    for name in ("half", "whole"):
        await sessions.run("1", name)
        kernel = sessions.manager.loaded()[name].slot.kernel
        assert kernel is not None
        kernel.budget.held._stock = stock
    half = PREAMBLE + "_part(['deleted'], ['x' * 1000] * 200)\n" * 8 + "_time.sleep(600)"
    _, job = await sessions.submit(half, "half")
    held = sessions.manager.loaded()["half"].slot.kernel.budget.held  # type: ignore[union-attr]
    await until(lambda: stock.seated(held))
    code = "from IPython.display import display\ndisplay({'text/plain': 'x' * 3_000_000}, raw=True)"
    execution = await sessions.run(code, "whole")
    assert execution.status == "ok"
    assert len(execution.output.displays[0]) == 3_000_000
    ended = await asyncio.wait_for(asyncio.shield(job.result), RUN_TIMEOUT_S)
    assert "half of something large" in (ended.note or "")
    assert held.total == 0
