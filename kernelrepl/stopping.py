"""Stop the code that runs in a session: at its timeout, when somebody asks for it, or when it does not even begin."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from kernelrepl.job import Job
from kernelrepl.kernel import Kernel

INTERRUPT_GRACE_S = 5.0
BEGIN_TIMEOUT_S = 60.0


class Stopper:
    """Of one session. `running`: the kernel and what it runs, as far as there is either."""

    def __init__(self, running: Callable[[], tuple[Kernel | None, Job | None]]) -> None:
        self._running = running

    @contextlib.contextmanager
    def watching(self, job: Job) -> Iterator[None]:
        """Stop it when it takes too long to begin, or to end."""
        watches = [asyncio.create_task(self._enforce_begin(job))]
        if job.timeout_s is not None:
            watches.append(asyncio.create_task(self._enforce_timeout(job, job.timeout_s)))
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()

    async def _enforce_begin(self, job: Job) -> None:
        """A kernel that earlier code broke may not even take the next; another one can."""
        await asyncio.sleep(BEGIN_TIMEOUT_S)
        if not job.began.is_set():
            await self.kill(job)

    async def _enforce_timeout(self, job: Job, seconds: float) -> None:
        await asyncio.sleep(seconds)
        job.stopped_by = "timeout"
        await self.stop(job)

    async def stop(self, job: Job) -> None:
        """Interrupt; a timeout that user code ignores ends the kernel in the end."""
        # A kernel at rest drops an interrupt, and takes one for the code that it has begun with.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(job.began.wait(), INTERRUPT_GRACE_S)
        for _ in range(2):
            kernel, current = self._running()
            if job is not current or kernel is None:
                return
            kernel.interrupt()
            done, _pending = await asyncio.wait({job.result}, timeout=INTERRUPT_GRACE_S)
            if done:
                return
            if job.stopped_by != "timeout" and job.stopped_for is None:
                return
        await self.kill(job)

    async def kill(self, job: Job) -> None:
        """End the kernel, if it runs this."""
        kernel, current = self._running()
        if job is current and kernel is not None:
            await kernel.process.kill()
