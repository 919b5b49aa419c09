"""How much a kernel sends, and what to do about too much. Pure: the time is given.

Nothing that user code prints comes near the limits: the kernel itself bounds it before. What passes them
is a kernel whose code sends around that, by mistake or to drown the keeper, which serves all sessions.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from kernelrepl.kernel.stock import Holding


@dataclass(frozen=True)
class Amount:
    """So many messages, and so many bytes in them."""

    messages: float
    bytes: float


@dataclass(frozen=True)
class FloodLimits:
    """What a kernel may send for one execution. Reaching either number of an amount is reaching it.

    `drained_a_second` is forgotten again: a training run that shows its progress for days is no flood.
    """

    drop: Amount = Amount(100_000, 64 << 20)
    interrupt: Amount = Amount(1_000_000, 1 << 30)
    kill: Amount = Amount(2_000_000, 4 << 30)
    drained_a_second: Amount = Amount(1_000, 4 << 20)


_NEVER = Amount(float("inf"), float("inf"))

REPLY_LIMITS = FloodLimits(
    drop=_NEVER, interrupt=_NEVER, kill=Amount(10_000, 256 << 20), drained_a_second=Amount(100, 4 << 20)
)
"""For replies, of which each execution has one: none may be lost, and nobody needs many."""

CHANNEL_LIMITS = FloodLimits(
    drop=_NEVER, interrupt=_NEVER, kill=Amount(500_000, 512 << 20), drained_a_second=Amount(2_000, 8 << 20)
)
"""For frames and the bytes of their headers. A restore sends two for each component, a commit names everything."""


_EVERYDAY_S = 0.02
"""What some dozen everyday cells take, one right after the other."""


class Budget:
    """How much of the keeper's time one kernel may take: a little at once, and a share of it in the long run.

    held: what the keeper holds of what it has sent.
    """

    def __init__(self, burst_s: float = 1.0, share: float = 0.05) -> None:
        self.held = Holding()
        self._burst_s = burst_s
        self._share = share
        self._debt_s = self._turn_s = 0.0
        self._last: float | None = None

    @property
    def is_heavy(self) -> bool:
        """Whether the kernel has lately taken more than everyday cells do, and is to let others go first."""
        return self._debt_s > _EVERYDAY_S

    def was_heavy(self, now: float) -> bool:
        """The same for one of which nothing may have been heard for a while, at `now` of the clock of its delays."""
        self.delay(now)
        return self.is_heavy

    def spend(self, seconds: float) -> None:
        """Note that a kernel has taken so much, by an estimate that follows what it sent, not the clock."""
        self._debt_s += seconds
        self._turn_s += seconds

    def turn(self) -> float:
        """Begin a turn; returns how many seconds the last one took."""
        took, self._turn_s = self._turn_s, 0.0
        return took

    def delay(self, now: float) -> float:
        """How many seconds the kernel has to wait until it is heard again, at `now` of any clock."""
        if self._last is not None:
            self._debt_s = max(self._debt_s - max(now - self._last, 0.0) * self._share, 0.0)
        self._last = now
        return max(self._debt_s - self._burst_s, 0.0) / self._share


class Verdict(enum.Enum):
    """What to do about a message."""

    PASS = enum.auto()
    DROP = enum.auto()
    INTERRUPT = enum.auto()
    """Drop it, and interrupt the execution. Said once for each execution."""
    KILL = enum.auto()
    """Drop it, and end the kernel. Said once."""


class Meter:
    """Counts what one kernel sends on one way."""

    def __init__(self, limits: FloodLimits) -> None:
        self.limits = limits
        self._messages = 0.0
        self._bytes = 0.0
        self._last: float | None = None
        self._interrupted = False
        self._killed = False

    def reset(self) -> None:
        """A new execution begins, with nothing on its account."""
        self._messages = self._bytes = 0.0
        self._interrupted = False

    def count(self, size: int, now: float) -> Verdict:
        """Take note of a message of `size` bytes that came at `now`, in seconds of any clock."""
        elapsed = 0.0 if self._last is None else max(now - self._last, 0.0)
        self._last = now
        drained = self.limits.drained_a_second
        self._messages = max(self._messages - elapsed * drained.messages, 0.0) + 1
        self._bytes = max(self._bytes - elapsed * drained.bytes, 0.0) + size
        if self._killed:
            return Verdict.DROP
        if self._over(self.limits.kill):
            self._killed = True
            return Verdict.KILL
        if self._over(self.limits.interrupt) and not self._interrupted:
            self._interrupted = True
            return Verdict.INTERRUPT
        return Verdict.DROP if self._over(self.limits.drop) else Verdict.PASS

    def _over(self, limit: Amount) -> bool:
        return self._messages > limit.messages or self._bytes > limit.bytes
