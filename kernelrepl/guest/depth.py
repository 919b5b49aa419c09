"""How deep values may be nested: pickling recurses in C, and must end before the stack does. Runs in the kernel.

What is too deep for the ordinary limit is pickled once more in a thread that has a stack for it. The limit always comes
first: code of the session that is called there, and recurses, meets it as well.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from kernelrepl.guest.neutral import is_a

_LEVEL_BYTES = 5_800
"""What a level of recursion may take of the stack. Measured: 150 for pickling, up to 1,700 for other code in C."""
_STACKS = (1 << 30, 1 << 28, 1 << 26)
"""The first is tried first. It takes addresses; memory only as far as it is used, until the thread ends."""
_LIMIT = sys.getrecursionlimit()
_OWN_FRAMES = 40
"""Pickling itself recurses without frames of Python; user code that recurses has one for each call."""
_cause: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__cause__"].__get__

_users_limits: list[int] = []


def users_limit() -> int:
    """The recursion limit that code of the session has set or found."""
    return _users_limits[0] if _users_limits else sys.getrecursionlimit()


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Around what recurses in C: code of the session may have raised the limit as it likes."""
    users = sys.getrecursionlimit()
    _users_limits.append(users)
    if users > _LIMIT:
        sys.setrecursionlimit(min(users, max(_LIMIT, 2 * _deepest())))
    try:
        yield
    finally:
        sys.setrecursionlimit(users)
        _users_limits.pop()


def _deepest() -> int:
    """How many calls deep the deepest thread is: a limit that is far below ends the process."""
    return max(sum(1 for _ in traceback.walk_stack(frame)) for frame in sys._current_frames().values())


def is_too_deep(error: BaseException) -> bool:
    """Whether a value is nested too deep for the ordinary limit, though not by code of the user that recurses."""
    cause = error if is_a(error, RecursionError) else _cause(error)
    if cause is None or not is_a(cause, RecursionError):
        return False
    return sum(1 for _ in traceback.walk_tb(cause.__traceback__)) <= _OWN_FRAMES


def deeper(call: Callable[[], None]) -> None:
    """Call in a thread with a large stack, and wait for it. Raises what the call raises, or what a signal raised in it.

    Raises RecursionError if there is no room for such a stack.
    """
    outcome: list[BaseException | None] = []
    begun, done = _thread.allocate_lock(), _thread.allocate_lock()
    begun.acquire()
    done.acquire()
    limit, size = sys.getrecursionlimit(), threading.stack_size()
    try:
        thread = _start(call, outcome, begun, done)
        # From here to the block nothing looks for signals: the thread is never left behind, since the limit must not be
        # lowered while it is deep. And the lock says nothing: a signal may arrive when it has been acquired.
        while not outcome:
            try:
                done.acquire()
            except BaseException as error:
                if outcome:
                    raise
                _raise_in(thread, type(error))
    finally:
        _put_back(size, limit)
    if outcome[0] is not None:
        raise outcome[0]


def _run(
    call: Callable[[], None], outcome: list[BaseException | None], begun: _thread.LockType, done: _thread.LockType
) -> None:
    try:
        try:
            begun.release()
            call()
        finally:
            # Whoever asks for the current thread gets a stand-in, which would stay in the session's list for good.
            threading._active.pop(_thread.get_ident(), None)  # type: ignore[attr-defined]
        outcome.append(None)
    except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
        outcome.append(error)
    finally:
        done.release()  # before anything else: what is raised from outside may arrive after any call


def is_deep(frame: FrameType | None) -> bool:
    """Whether a thread with this frame is a deep one, which outlasts its call a little, or has come to its end."""
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame is None or frame.f_code is _run.__code__


def _start(
    call: Callable[[], None], outcome: list[BaseException | None], begun: _thread.LockType, done: _thread.LockType
) -> int:
    """Start a thread, which is where it can be told to stop when this returns."""
    for size in _STACKS:
        threading.stack_size(size)
        sys.setrecursionlimit(size // _LEVEL_BYTES)
        with contextlib.suppress(RuntimeError):
            thread = _thread.start_new_thread(_run, (call, outcome, begun, done))
            begun.acquire()
            return thread
    raise RecursionError("nested too deep, and there is no room for a larger stack")


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


def _put_back(size: int, limit: int) -> None:
    threading.stack_size(size)
    sys.setrecursionlimit(limit)


UNINTERRUPTED = frozenset(each.__code__ for each in (_start, _raise_in, _put_back))
"""What a signal must not leave half done; it is handled after it."""
