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
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from kernelrepl.guest.depth import UNINTERRUPTED
from kernelrepl.guest.originals import Originals

_signal: Any = sys.modules["_signal"]
"""Without the frames and enumerations of `signal`, in which a signal could arrive."""
_NONE = Originals(())
_REPEAT_S = 1.0
_SOON_S = 0.0001
_STEP = asyncio.Handle._run.__code__


class DeadlinePassed(BaseException):
    """Saving one component took too long. Not an Exception: user code must not swallow it lightly."""


def _tell_unraisable(found: sys.UnraisableHookArgs) -> None:
    """Tell of an exception that nobody can catch; not of a deadline, which is raised again until somebody does.

    A deadline that passes in a finalizer, or when a weak reference dies, is dropped there, and is no error of the cell.
    """
    if found.exc_type is not DeadlinePassed:
        sys.__unraisablehook__(found)


class UserCode:
    """While user code runs. No generator, whose end would need builtins: code may have replaced them."""

    def __init__(self, interrupts: Interrupts, originals: Originals) -> None:
        self._interrupts = interrupts
        self._originals = originals
        self._before = False

    def __enter__(self) -> None:
        interrupts = self._interrupts
        self._before, interrupts._running = interrupts._running, True
        self._originals.put_back()
        if interrupts._pending:
            self.__exit__()
            interrupts._pending = False
            raise KeyboardInterrupt

    def __exit__(self, *error: object) -> None:
        self._interrupts._running = self._before
        if not self._before:
            self._originals.set_aside()


class Interrupts:
    """Owns SIGINT for the life of the kernel, and SIGALRM while something has a deadline."""

    def __init__(self) -> None:
        self.originals = _NONE
        """What user code finds replaced by itself, and nothing else does."""
        self._running = False
        self._task: asyncio.Task[Any] | None = None
        self._accepting = False
        self._pending = False

    def install(self) -> None:
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.signal(signal.SIGALRM, self._on_alarm)
        sys.unraisablehook = _tell_unraisable

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

    def user_code(self) -> UserCode:
        """Around user code: SIGINT raises KeyboardInterrupt here, and nowhere else."""
        return UserCode(self, self.originals)

    def interruptible(self) -> UserCode:
        """Around what asks values of the session but is none of its code."""
        return UserCode(self, _NONE)

    @contextlib.contextmanager
    def masked(self) -> Iterator[None]:
        """Around work of the kernel's own that code of the session asks for: an interrupt is raised at its end."""
        before, self._running = self._running, False
        try:
            yield
        finally:
            self._running = before
            self.raise_deferred()

    def awaits(self) -> bool:
        """Whether what runs is the task of a cell that awaits."""
        return self._task is not None and self._task is asyncio.current_task()

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
        if self._running and not _is_at_an_end(frame):
            raise KeyboardInterrupt
        if self._running or self._accepting:
            self._pending = True

    def raise_deferred(self) -> None:
        """Raise the interrupt that came while a block was entered or left."""
        if self._pending and self._running:
            self._pending = False
            raise KeyboardInterrupt

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        """An alarm of user code that set no handler for it: no reason to end the kernel."""
        task = self._task
        if self._running and (task is None or _computes(task, frame)):
            raise TimeoutError("an alarm went off that code had set with signal.alarm or setitimer, without a handler")

    def deadline(self, seconds: float) -> Deadline:
        """Around what may take `seconds`: DeadlinePassed is raised in the block then, and each second if swallowed."""
        return Deadline(self, seconds)


class Deadline:
    """Raises DeadlinePassed in its block when the time is over, and nowhere else, however the signal falls.

    No generator: an exception that lands in one before its `try`, or in what resumes it, leaves the timer running, and
    that goes off in code of the user. A timer that this code has running is put back afterwards, less the time taken.
    """

    def __init__(self, interrupts: Interrupts, seconds: float) -> None:
        self._interrupts = interrupts
        self._seconds = seconds
        self._is_on = False
        self._has_ended = False

    def __enter__(self) -> None:
        self._began = time.monotonic()
        self._due = self._began + self._seconds
        self._users_timer = _signal.setitimer(signal.ITIMER_REAL, 0)  # before its handler goes: it may be due now
        self._users_handler = _signal.signal(signal.SIGALRM, self._on_alarm)
        _signal.setitimer(signal.ITIMER_REAL, self._seconds, _REPEAT_S)
        self._is_on = True  # from here to the block nothing looks for signals

    def __exit__(self, *error: object) -> None:
        self._has_ended = True
        _signal.setitimer(signal.ITIMER_REAL, 0)
        _signal.signal(signal.SIGALRM, self._users_handler)
        delay, interval = self._users_timer
        if delay or interval:  # no delay: it went off when it was taken away
            left = (delay or interval) - (time.monotonic() - self._began)
            _signal.setitimer(signal.ITIMER_REAL, left if left > 0 else interval, interval)
            if left <= 0:
                _signal.raise_signal(signal.SIGALRM)
        self._interrupts.raise_deferred()

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        if self._has_ended:
            return
        is_due = self._is_on and not _is_at_an_end(frame) and time.monotonic() >= self._due
        _signal.setitimer(signal.ITIMER_REAL, _REPEAT_S if is_due else _SOON_S, _REPEAT_S)
        if is_due:
            raise DeadlinePassed


_ENDS = {end.__code__ for block in (UserCode, Deadline) for end in (block.__enter__, block.__exit__)} | UNINTERRUPTED


def _is_at_an_end(frame: FrameType | None) -> bool:
    """Whether a block is being entered or left where a signal arrives: raised there, it would leave it half done."""
    while frame is not None:
        if frame.f_code in _ENDS:
            return True
        frame = frame.f_back
    return False


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
