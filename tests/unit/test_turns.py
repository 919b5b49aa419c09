"""Who has lately taken much of the keeper's time lets others go first."""

from __future__ import annotations

import asyncio
import types

import pytest

from kernelrepl.kernel import turns

pytestmark = pytest.mark.anyio


class Clock:
    """A time that stands still, and how long everybody wanted to sleep."""

    def __init__(self) -> None:
        self.now = 1e9  # later than what any other test has noted
        self.slept: list[float] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        if seconds:
            await self.go_on.wait()

    def rests(self) -> list[float]:
        return [seconds for seconds in self.slept if seconds]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    monkeypatch.setattr(turns, "asyncio", types.SimpleNamespace(sleep=clock.sleep))
    monkeypatch.setattr(turns, "_others_at", 0.0)  # put back at the end
    return clock


async def test_who_is_not_heavy_only_lets_others_have_their_turn(clock: Clock) -> None:
    turns.come()
    await turns.give_way(heavy=False, took_s=5.0)
    assert clock.slept == [0]


async def test_a_heavy_one_rests_only_while_others_are_under_way(clock: Clock) -> None:
    """Alone it gives way, and is as fast as it can; and one that may not rest never does."""
    await turns.give_way(heavy=True, took_s=0.001)
    turns.come()
    await turns.give_way(heavy=True)
    assert clock.slept
    assert clock.rests() == []
    await turns.give_way(heavy=True, took_s=0.001)
    assert len(clock.rests()) == 1
    assert clock.rests()[0] >= 5 * 0.001
    clock.slept.clear()
    clock.now += 1.0
    await turns.give_way(heavy=True, took_s=0.001)
    assert clock.rests() == []


async def test_the_more_there_are_the_longer_each_rests_but_never_long(clock: Clock) -> None:
    """None waits for another: one that has taken little goes on soon beside any number that have taken much."""
    turns.come()
    clock.go_on.clear()
    rests = [asyncio.create_task(turns.give_way(heavy=True, took_s=0.0001)) for _ in range(3)]
    for _ in range(30):
        await asyncio.sleep(0)
    first, second, third = clock.rests()
    assert (second, third) == pytest.approx((2 * first, 3 * first))
    rests += [asyncio.create_task(turns.give_way(heavy=True, took_s=1000.0)) for _ in range(100)]
    rests.append(asyncio.create_task(turns.give_way(heavy=True, took_s=0.0001)))
    for _ in range(300):
        await asyncio.sleep(0)
    assert len(clock.rests()) == 104
    assert max(clock.rests()) < 0.1
    clock.go_on.set()
    await asyncio.gather(*rests)
    clock.slept.clear()
    await turns.give_way(heavy=True, took_s=0.0001)
    assert clock.rests() == [first]


async def test_a_heavy_one_comes_to_its_end_beside_others_that_never_rest() -> None:
    async def others() -> None:
        while True:
            turns.come()
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    for _ in range(20):
        await turns.give_way(heavy=True, took_s=0.0001)
    beside.cancel()
