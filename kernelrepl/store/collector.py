"""When what is removed, and how nobody waits for it.

What to remove is found in a thread of its own, which only reads; the writer removes it in small steps, between which
every commit that waits finds its turn.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from kernelrepl.store import live, reading
from kernelrepl.store.collecting import (
    ROWS_AT_ONCE,
    Sweep,
    close_unreachable,
    drop_outputs,
    drop_versions,
    forget_before,
    forget_history,
)
from kernelrepl.store.database import Database
from kernelrepl.store.history import Plan, plan
from kernelrepl.store.worker import Worker

T = TypeVar("T")
COLLECT_AFTER_BYTES = 32 << 20
SESSIONS_AT_ONCE = 200
COLLECT_AT_ONCE_BYTES = 1 << 30
"""Not left to the next quiet moment: one execution can commit for ever."""


class Collector:
    """Open with `open`, close with `close`; all else is for the event loop.

    max_history_bytes: what the earlier states of one session may take; None: any number. waiting: the digests of
    chunks whose commit is still to come, asked in the writer's thread.
    """

    def __init__(
        self, path: Path, writer: Worker, waiting: Callable[[], Iterator[bytes]], max_history_bytes: int | None
    ) -> None:
        self._writer = writer
        self._reader = Worker(path, "store collector", read_only=True)
        self._waiting = waiting
        self._max_history_bytes = max_history_bytes
        self._written = COLLECT_AFTER_BYTES + 1  # whatever the last keeper left
        self._touched: set[int] | None = None
        """The sessions with new commits since the last collection. None: any may have some."""
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._reader.open()

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._reader.close()

    def touched(self, session: int) -> None:
        """There is a new commit."""
        if self._touched is not None:
            self._touched.add(session)

    async def wrote(self, size: int) -> None:
        """Count bytes that were written, which supersede about as many, now or later, and bytes that were closed.

        Returns at once, unless this goes on faster than what is superseded can be removed: then the disk would fill.
        """
        self._written += size
        if self._written <= COLLECT_AT_ONCE_BYTES:
            return
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task})
        self._written = 0
        self._task = asyncio.create_task(self.collect())
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # the next one tells it

    async def collect_if_due(self) -> None:
        """Collect if enough has piled up. Raises StorageFailed."""
        if self._written > COLLECT_AFTER_BYTES:
            await self.collect()

    async def collect(self) -> None:
        """Remove what is over the budget of history, and what nothing leads to. Raises StorageFailed."""
        async with self._turn:
            self._written = 0
            try:
                await self._close_unreachable()
                await self.tidy()
            except BaseException:
                self._touched = None
                self._written = max(self._written, COLLECT_AFTER_BYTES + 1)
                raise

    async def _close_unreachable(self) -> None:
        """In the sessions that were written to; those that an earlier keeper wrote to are not known."""
        heads = await self._read(reading.heads)
        if self._touched is not None:
            heads = [(session, head) for session, head in heads if session in self._touched]
        self._touched = set()
        for start in range(0, len(heads), SESSIONS_AT_ONCE):
            some = heads[start : start + SESSIONS_AT_ONCE]
            for session, head, rows in await self._read(functools.partial(live.unreachable, heads=some)):
                for at in range(0, len(rows), ROWS_AT_ONCE):
                    of_it = rows[at : at + ROWS_AT_ONCE]
                    await self._writer.run(functools.partial(close_unreachable, session=session, head=head, rows=of_it))

    async def tidy(self) -> None:
        """Remove what is over the budget of history, and chunks without a version. Raises StorageFailed."""
        found: Plan = await self._read(functools.partial(plan, max_history_bytes=self._max_history_bytes))
        for session, oldest in found.oldest.items():
            await self._writer.run(functools.partial(forget_before, session=session, oldest=oldest))
            await self._drop(session)
        for start in range(0, len(found.outputs), ROWS_AT_ONCE):
            rows = found.outputs[start : start + ROWS_AT_ONCE]
            await self._writer.run(functools.partial(drop_outputs, rows=rows))
        sweep = Sweep(found)
        while await self._writer.run(lambda db: sweep.step(db, self._waiting())):
            pass

    async def forget(self, session: int) -> None:
        """Remove all that a session has of earlier states. Its chunks are left to `tidy`. Raises StorageFailed."""
        await self._writer.run(functools.partial(forget_history, session=session))
        await self._drop(session)

    async def _drop(self, session: int) -> None:
        while await self._writer.run(functools.partial(drop_versions, session=session)):
            pass

    async def quiet(self) -> None:
        """Return when nothing that has begun before reads the database any more."""
        await self._reader.run(lambda db: None)

    async def _read(self, job: Callable[[Database], T]) -> T:
        """Run a job that sees the database at one moment."""

        def at_once(db: Database) -> T:
            with db.atomic():
                return job(db)

        return await self._reader.run(at_once)
