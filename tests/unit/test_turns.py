"""Who has lately taken much of the keeper's time lets others go first."""

from __future__ import annotations

import asyncio
import types

import pytest

from kernelrepl.kernel import turns

pytestmark = pytest.mark.anyio


class Clock:
    """A time that stands still until somebody sleeps, and how long everybody wanted to."""

    def __init__(self) -> None:
        self.now = 1e9  # later than what any other test has noted
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    monkeypatch.setattr(turns, "asyncio", types.SimpleNamespace(sleep=clock.sleep))
    # As at the begin of a process, and put back at its end.
    monkeypatch.setattr(turns, "_others_at", 0.0)
    monkeypatch.setattr(turns, "_free_at", 0.0)
    return clock


async def test_who_is_not_heavy_only_lets_others_have_their_turn(clock: Clock) -> None:
    turns.come()
    await turns.give_way(heavy=False, took_s=5.0)
    assert clock.slept == [0]


async def test_a_heavy_one_rests_only_while_others_are_under_way(clock: Clock) -> None:
    """Alone it gives way, and is as fast as it can."""
    await turns.give_way(heavy=True, took_s=0.01)
    assert set(clock.slept) == {0}
    clock.slept.clear()
    turns.come()
    await turns.give_way(heavy=True, took_s=0.01)
    assert len(clock.slept) == 1
    assert clock.slept[0] >= 5 * 0.01
    clock.slept.clear()
    clock.now += 1.0
    await turns.give_way(heavy=True, took_s=0.01)
    assert set(clock.slept) == {0}


async def test_all_heavy_ones_together_have_one_share(clock: Clock) -> None:
    """One rests behind the other; what took long does not keep it away for long."""
    turns.come()
    for _ in range(3):
        await turns.give_way(heavy=True, took_s=0.001)
    first, second, third = clock.slept
    assert (second, third) == pytest.approx((2 * first, 3 * first))
    clock.slept.clear()
    clock.now += 1.0
    turns.come()
    await turns.give_way(heavy=True, took_s=1000.0)
    assert clock.slept[0] < 1.0


async def test_a_heavy_one_comes_to_its_end_beside_others_that_never_rest() -> None:
    async def others() -> None:
        while True:
            turns.come()
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    for _ in range(20):
        await turns.give_way(heavy=True, took_s=0.0001)
    beside.cancel()
