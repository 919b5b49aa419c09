"""How many kernels there are at a time, and which of them is stopped when another one needs its place.

A kernel that runs something is never stopped for another. Of those at rest the one goes that has been so for longest;
one that has names which could not be saved only when there is no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from kernelrepl.kernel import usage
from kernelrepl.model import amount
from kernelrepl.sessions import policy
from kernelrepl.sessions.policy import Resting

_SHARE = 20
"""Measuring memory takes at most this part of the time."""

Emit = Callable[..., None]


class Occupant(Protocol):
    """A session, as far as it matters for its place."""

    idle_since: float

    @property
    def unsaved(self) -> set[str]: ...

    @property
    def store_is_behind(self) -> bool: ...

    @property
    def session_id(self) -> str | None: ...

    @property
    def busy(self) -> bool: ...

    @property
    def pid(self) -> int | None: ...

    async def hibernate(self, why: str | None = None) -> None: ...


class KernelCapacity:
    """The places for the kernels of one keeper."""

    def __init__(
        self,
        emit: Emit,
        *,
        idle_timeout_s: float = 900.0,
        max_live: int | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self.idle_timeout_s = idle_timeout_s
        self._emit = emit
        self.max_live = max_live
        self.memory_bytes = memory_bytes
        self._inside: set[Any] = set()
        self._resident: dict[Any, int] = {}
        self._queue = asyncio.Lock()
        self._changed = asyncio.Event()
        self._relieving: asyncio.Task[None] | None = None
        self._measured_until = 0.0

    async def enter(self, session: Occupant) -> None:
        """Wait until there is a place for the kernel of a session, in the order of those who wait."""
        if session in self._inside:
            return
        async with self._queue:
            while self.max_live is not None and len(self._inside) >= self.max_live:
                victim = self._next_to_go()
                if victim is None:
                    self._changed.clear()
                    await self._changed.wait()
                else:
                    await self._hibernate(victim, f"max_live = {self.max_live}")
                    self._inside.discard(victim)  # it cannot have come back: that waits in line as well
            self._inside.add(session)

    def leave(self, session: Occupant) -> None:
        """Its kernel has ended."""
        self._inside.discard(session)
        self._resident.pop(session, None)
        self._changed.set()

    def rest(self) -> None:
        """Some session has come to rest."""
        self._changed.set()

    def weigh(self, session: Occupant, resident_bytes: int) -> None:
        """What the kernel of a session takes, what it shares with others included."""
        if session not in self._inside:
            return
        self._resident[session] = resident_bytes
        if self.memory_bytes is None or sum(self._resident.values()) <= self.memory_bytes:
            return
        now = asyncio.get_running_loop().time()
        if (self._relieving is None or self._relieving.done()) and now >= self._measured_until:
            self._relieving = asyncio.create_task(self._relieve(self.memory_bytes))

    async def _relieve(self, most: int) -> None:
        """Stop kernels until all together take what they may, or none is at rest."""
        clock = asyncio.get_running_loop().time
        began = clock()
        pids = {session: session.pid for session in self._inside if session.pid is not None}
        taken = await asyncio.to_thread(lambda: {one: _memory(pid) for one, pid in pids.items()})
        total = sum(taken.values())
        self._measured_until = clock() + _SHARE * (clock() - began)
        while total > most and (victim := self._next_to_go()) is not None:
            total -= taken.get(victim, 0)
            await self._hibernate(victim, f"max_live_bytes = {amount(most)}")

    def _next_to_go(self) -> Any:
        return policy.next_to_go(self._at_rest())

    def _at_rest(self) -> list[Resting]:
        return [
            Resting(session, session.idle_since, bool(session.unsaved or session.store_is_behind))
            for session in self._inside
            if not session.busy and session.pid is not None
        ]

    async def _hibernate(self, session: Occupant, why: str | None = None) -> None:
        await session.hibernate(why)
        self._emit("hibernated", session=session.session_id, why=why or "idle")

    async def hibernate_idle(self) -> float | None:
        """Stop kernels that have idled long enough; returns the seconds until the next one may be due."""
        now = asyncio.get_running_loop().time()
        over, due = policy.idle(self._at_rest(), now, self.idle_timeout_s)
        for session in over:
            if not session.busy:
                await self._hibernate(session)
        return due

    def close(self) -> None:
        """Nothing is stopped any more but by who closes all."""
        if self._relieving is not None:
            self._relieving.cancel()


def _memory(pid: int) -> int:
    return usage.proportional(list(usage.descendants(pid))).total
