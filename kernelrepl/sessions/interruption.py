"""Stop the code that runs in a session: at its timeout, when somebody asks for it, or when its kernel gets stuck."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from kernelrepl.kernel import Kernel
from kernelrepl.sessions.execution import Execution

INTERRUPT_GRACE_S = 5.0
BEGIN_TIMEOUT_S = 60.0
REPLY_TIMEOUT_S = 60.0
"""How long a kernel may take to say that it has come to the end, after it has told what came out."""

QUICK = ("complete_request", "inspect_request", "is_complete_request", "comm_info_request")
QUICK_S = 25.0
"""How long a kernel may take for these: a first completion in a kernel that started cold parses for seconds, and for
more than ten on a busy machine."""


class Interrupter:
    """Of one session. `running`: the kernel and what it runs, as far as there is either."""

    def __init__(
        self,
        running: Callable[[], tuple[Kernel | None, Execution | None]],
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        self._running = running
        self._spawn = spawn

    @contextlib.contextmanager
    def watching(self, execution: Execution) -> Iterator[None]:
        """Stop it when it takes too long to begin or to end."""
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(BEGIN_TIMEOUT_S, self._look, execution)]
        if execution.timeout_s is not None:
            timers.append(loop.call_later(execution.timeout_s, self._time_out, execution))

        def answered(result: asyncio.Future[Any]) -> None:
            timers.append(loop.call_later(REPLY_TIMEOUT_S, lambda: self._spawn(self.kill(execution))))

        execution.result.add_done_callback(answered)
        try:
            yield
        finally:
            execution.result.remove_done_callback(answered)
            for timer in timers:
                timer.cancel()

    @contextlib.contextmanager
    def soon(self, kernel: Kernel, kind: str) -> Iterator[None]:
        """Interrupt a question of a Jupyter client that takes too long, and end the kernel if that does not help.

        It keeps everybody else waiting, and asks objects of the session.
        """
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []
        if kind in QUICK:
            timers.append(loop.call_later(QUICK_S, kernel.interrupt))
            timers.append(loop.call_later(QUICK_S + INTERRUPT_GRACE_S, lambda: self._spawn(kernel.process.kill())))
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()

    def _look(self, execution: Execution) -> None:
        """A kernel that earlier code broke may not even take the next; another one can."""
        if not execution.began.is_set():
            self._spawn(self.kill(execution))

    def _time_out(self, execution: Execution) -> None:
        execution.stop("timeout")
        self._spawn(self.stop(execution))

    async def stop(self, execution: Execution) -> None:
        """Interrupt; a timeout that user code ignores ends the kernel in the end."""
        # A kernel at rest drops an interrupt, and takes one for the code that it has begun with.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(execution.began.wait(), INTERRUPT_GRACE_S)
        for _ in range(2):
            kernel, current = self._running()
            if execution is not current or kernel is None or execution.is_answered:
                return
            kernel.interrupt()
            done, _pending = await asyncio.wait({execution.result}, timeout=INTERRUPT_GRACE_S)
            if done:
                return
            if execution.stopped_by != "timeout" and execution.stopped_for is None:
                return
        await self.kill(execution)

    async def kill(self, execution: Execution) -> None:
        """End the kernel, if it runs this."""
        kernel, current = self._running()
        if execution is current and kernel is not None:
            await kernel.process.kill()
