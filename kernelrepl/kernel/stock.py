"""How much of what kernels have sent the keeper holds at a time, for all of them together.

What one kernel may send at a time is bounded, but there may be fifty. So each may have a share by itself, and what
needs more waits for one of a few seats, with which it may have as much as any kernel may. Whoever has a seat never
waits for another, so nobody waits in a circle; and one that keeps its seat while others wait, because it has said half
of something and says no more, is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Iterator

SHARE_BYTES = 4 << 20
"""A piece of a large value has 2 MB, a commit of an everyday cell some KB: those never wait."""
SEATS = 3
PATIENCE_S = 20.0
"""How long the keeper waits for one that has a seat to go on, in all, while others wait for the seat."""
_LOOK_S = 0.5
_EVERYDAY = 64
"""So small a part of a share is not worth counting: what all kernels have of it under way is less than one share."""
_NOTHING = contextlib.nullcontext()


class Stock:
    """Of one keeper."""

    def __init__(self, share: int = SHARE_BYTES, seats: int = SEATS, patience_s: float = PATIENCE_S) -> None:
        self.share = share
        self._seats = seats
        self._patience_s = patience_s
        self._seated: weakref.WeakSet[Holding] = weakref.WeakSet()
        self._waiting: deque[asyncio.Event] = deque()

    def seated(self, holding: Holding) -> bool:
        """Return whether it may have more than its share."""
        return holding in self._seated

    async def enter(self, holding: Holding) -> None:
        """Wait for a seat, in the order in which it was asked for."""
        clock = asyncio.get_running_loop().time
        turn = asyncio.Event()
        self._waiting.append(turn)
        began = clock()
        try:
            while len(self._seated) >= self._seats or self._waiting[0] is not turn:
                turn.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(turn.wait(), _LOOK_S)
                for other in list(self._seated):
                    if min(clock() - began, other.idle(clock())) > self._patience_s:
                        other.end()
            self._seated.add(holding)
            holding.sit_down()
        finally:
            self._waiting.remove(turn)
            self._wake()

    def leave(self, holding: Holding) -> None:
        """Give a seat back, if it has one."""
        if holding in self._seated:
            self._seated.discard(holding)
            self._wake()

    def _wake(self) -> None:
        if self._waiting:
            self._waiting[0].set()


_of_this_process = Stock()


class Holding:
    """What the keeper holds of one kernel."""

    def __init__(self, stock: Stock | None = None) -> None:
        self._stock = stock or _of_this_process
        self._bytes: dict[str, int] = {}
        self._entering = asyncio.Lock()
        self._since: dict[tuple[str, ...], float] = {}
        self._idle_s = 0.0
        self.overdue: Callable[[], object] = lambda: None
        """Called when it has held much for too long: what it is of is to be ended."""

    @property
    def total(self) -> int:
        return sum(self._bytes.values())

    @property
    def is_seated(self) -> bool:
        """Whether it has one of the seats, for which others may wait."""
        return self._stock.seated(self)

    async def hold(self, what: str, size: int) -> None:
        """Note that so much is, or is about to be, held for this purpose; waits if that is more than a share."""
        if size <= self._stock.share // _EVERYDAY and what not in self._bytes:
            return
        self._bytes[what] = size
        while self.total > self._stock.share and not self._stock.seated(self):
            async with self._entering:
                if self.total > self._stock.share and not self._stock.seated(self):
                    await self._stock.enter(self)
            if self.total <= self._stock.share:
                self._stock.leave(self)  # it was let go meanwhile

    def let_go(self, what: str) -> None:
        """Note that nothing is held for this purpose any more."""
        if self._bytes.pop(what, None) is not None and self.total <= self._stock.share:
            self._stock.leave(self)

    def waiting(self, *purposes: str) -> contextlib.AbstractContextManager[None]:
        """Count the time as idle in which one waits for the rest of what is held for one of these purposes."""
        return _NOTHING if self._bytes.keys().isdisjoint(purposes) else self._counted(purposes)

    @contextlib.contextmanager
    def _counted(self, purposes: tuple[str, ...]) -> Iterator[None]:
        clock = asyncio.get_running_loop().time
        self._since[purposes] = clock()
        try:
            yield
        finally:
            self._idle_s += clock() - self._since.pop(purposes)

    def idle(self, now: float) -> float:
        """Return for how many seconds others have waited for it since it has a seat."""
        return self._idle_s + sum(now - since for since in self._since.values())

    def sit_down(self) -> None:
        """Note that it has a seat from now on."""
        self._idle_s = 0.0

    def end(self) -> None:
        """Have what this is of ended, and go on without it."""
        self.close()
        self.overdue()

    def close(self) -> None:
        """Note that nothing is held any more."""
        self._bytes.clear()
        self._stock.leave(self)
