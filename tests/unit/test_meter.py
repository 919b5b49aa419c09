"""How much a kernel may send: when messages are dropped, when it is interrupted, when it is killed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl.kernel.flood import Amount, FloodLimits, Meter, Verdict

SMALL = FloodLimits(drop=Amount(4, 100), interrupt=Amount(8, 200), kill=Amount(12, 300), drained_a_second=Amount(0, 0))


def verdicts(meter: Meter, *sizes: int, now: float = 0.0) -> list[Verdict]:
    return [meter.count(size, now) for size in sizes]


def test_by_number_messages_are_dropped_then_the_code_is_interrupted_then_the_kernel_is_killed() -> None:
    """Each of the last two is said once."""
    assert verdicts(Meter(SMALL), *[0] * 16) == (
        [Verdict.PASS] * 4
        + [Verdict.DROP] * 4
        + [Verdict.INTERRUPT]
        + [Verdict.DROP] * 3
        + [Verdict.KILL]
        + [Verdict.DROP] * 3
    )


def test_by_bytes_the_same() -> None:
    """Whichever number is reached first."""
    assert verdicts(Meter(SMALL), 100, 1, 98, 2, 99, 1) == [
        Verdict.PASS,
        Verdict.DROP,
        Verdict.DROP,
        Verdict.INTERRUPT,
        Verdict.DROP,
        Verdict.KILL,
    ]


def test_one_message_can_be_too_much_at_once() -> None:
    """The gravest verdict counts."""
    assert verdicts(Meter(SMALL), 301, 1) == [Verdict.KILL, Verdict.DROP]


def test_the_next_execution_starts_with_nothing() -> None:
    """It may be interrupted again; a kernel that is to be killed stays so."""
    meter = Meter(SMALL)
    assert verdicts(meter, 201) == [Verdict.INTERRUPT]
    meter.reset()
    assert verdicts(meter, 50, 151) == [Verdict.PASS, Verdict.INTERRUPT]
    meter.reset()
    assert verdicts(meter, 301) == [Verdict.KILL]
    meter.reset()
    assert verdicts(meter, 1, 301) == [Verdict.DROP, Verdict.DROP]


def test_what_comes_slowly_is_no_flood() -> None:
    """A loop that prints five times a second for a year."""
    limits = FloodLimits(drop=Amount(50, 5000), drained_a_second=Amount(10, 1000))
    meter = Meter(limits)
    assert {meter.count(100, now / 5) for now in range(10_000)} == {Verdict.PASS}


def test_a_clock_that_goes_back_gives_nothing_back() -> None:
    """Nor does it take anything."""
    meter = Meter(FloodLimits(drop=Amount(3, 1000), drained_a_second=Amount(1, 1)))
    assert [meter.count(1, now) for now in (9.0, 5.0, 1.0, 1.0)] == [Verdict.PASS] * 3 + [Verdict.DROP]


@pytest.mark.parametrize("limits", [FloodLimits()])
def test_the_defaults_are_in_order(limits: FloodLimits) -> None:
    """Nothing is killed that was not warned, and what a cell may show (24 MB) passes."""
    assert limits.drop.messages < limits.interrupt.messages < limits.kill.messages
    assert limits.drop.bytes < limits.interrupt.bytes < limits.kill.bytes
    assert Meter(limits).count(24 << 20, 0) is Verdict.PASS


@given(st.lists(st.tuples(st.integers(0, 150), st.floats(0, 100)), max_size=60))
def test_a_verdict_is_never_milder_than_the_amount(messages: list[tuple[int, float]]) -> None:
    """Without draining, whatever the clock says: the sums decide."""
    meter = Meter(SMALL)
    total = 0
    seen = []
    for number, (size, now) in enumerate(messages, 1):
        total += size
        verdict = meter.count(size, now)
        seen.append(verdict)
        assert (verdict is Verdict.PASS) == (number <= 4 and total <= 100)
        assert (Verdict.KILL in seen) == (number > 12 or total > 300)
    assert seen.count(Verdict.KILL) <= 1
    assert seen.count(Verdict.INTERRUPT) <= 1
