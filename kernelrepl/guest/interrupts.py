"""SIGINT and deadlines in a kernel: they stop user code, never the machinery around it.

Python runs signal handlers between any two bytecodes. A KeyboardInterrupt that lands in the kernel's
own code loses a reply or tears a commit, so one handler is installed for good and decides by what the
main thread is doing. Runs in the kernel, main thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

_REPEAT_S = 1.0
_STEP = asyncio.Handle._run.__code__


class DeadlinePassed(BaseException):
    """Saving one component took too long. Not an Exception: user code must not swallow it lightly."""


class Interrupts:
    """Owns SIGINT for the life of the kernel, and SIGALRM while something has a deadline."""

    def __init__(self) -> None:
        self._running = False
        self._task: asyncio.Task[Any] | None = None
        self._accepting = False
        self._pending = False

    def install(self) -> None:
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.signal(signal.SIGALRM, self._on_alarm)

    def expect_cell(self) -> None:
        """From now on an interrupt that comes before user code runs is kept for it. Before `begin` is sent."""
        if signal.getsignal(signal.SIGINT) != self._on_sigint:
            # A cell may have put its own handler there; it is that cell's alone.
            signal.signal(signal.SIGINT, self._on_sigint)
        self._pending = False
        self._accepting = True

    @contextlib.contextmanager
    def cell(self) -> Iterator[None]:
        """Around one execution."""
        try:
            yield
        finally:
            self.finish_cell()

    def finish_cell(self) -> None:
        self._running = False
        self._accepting = False
        self._task = None
        self._pending = False

    @contextlib.contextmanager
    def user_code(self) -> Iterator[None]:
        """Around user code: SIGINT raises KeyboardInterrupt here, and nowhere else."""
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt
        self._running = True
        try:
            yield
        finally:
            self._running = False

    @contextlib.contextmanager
    def awaiting(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """Around a cell that awaits: SIGINT cancels it where it waits, or stops it where it computes."""
        self._task = task
        try:
            yield
        finally:
            self._task = None

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True  # IPython leaves this frame out of the traceback
        task = self._task
        if task is not None and not task.done() and not _computes(task, frame):
            task.get_loop().call_soon_threadsafe(task.cancel)
            return
        if self._running:
            raise KeyboardInterrupt
        if self._accepting:
            self._pending = True

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        """An alarm of user code that set no handler for it: no reason to end the kernel."""
        task = self._task
        if self._running and (task is None or _computes(task, frame)):
            raise TimeoutError("an alarm went off that code had set with signal.alarm or setitimer, without a handler")

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Raise DeadlinePassed in the block after `seconds`, again each second if it is swallowed.

        A timer that the user's own code has running is put back afterwards, less the time taken.
        """
        before = time.monotonic()
        user_handler = signal.signal(signal.SIGALRM, _on_deadline)
        user_delay, user_interval = signal.setitimer(signal.ITIMER_REAL, seconds, _REPEAT_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, user_handler)
            if user_delay:
                left = max(user_delay - (time.monotonic() - before), 1e-6)
                signal.setitimer(signal.ITIMER_REAL, left, user_interval)


def _computes(task: asyncio.Task[Any], frame: FrameType | None) -> bool:
    """Whether the code of a task is what runs, so that an exception raised now arrives in it.

    A task that is about to be scheduled again is the current one still: an exception there would end the loop,
    and the task would never run again.
    """
    if asyncio.current_task(task.get_loop()) is not task:
        return False
    while frame is not None and frame.f_back is not None:
        if frame.f_back.f_code is _STEP:
            return bool(frame.f_code.co_flags & (inspect.CO_COROUTINE | inspect.CO_GENERATOR))
        frame = frame.f_back
    return True


def _on_deadline(signum: int, frame: FrameType | None) -> None:
    raise DeadlinePassed
