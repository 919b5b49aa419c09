"""What runs beside the cells of a session: threads and tasks that are not the kernel's own. Runs in the kernel.

The kernel's own are known by what they are, never by how many there are: some of them begin late (the one in which
zmq lets go of large messages, the deep one that pickles) and none of them holds a lock of the session's.
"""

from __future__ import annotations

import _thread
import asyncio
import sys
import threading
import weakref
from typing import Any

from zmq.utils import garbage

from kernelrepl.guest import depth


class Beside:
    """The threads and tasks of one session, in the main thread's view."""

    def __init__(self) -> None:
        self._own_threads: tuple[threading.Thread, ...] | None = None
        self._own_tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._had_threads = False
        self._left: set[asyncio.Task[Any]] = set()

    def own(self, task: asyncio.Task[Any]) -> asyncio.Task[Any]:
        """Note a task that the kernel itself has made."""
        self._own_tasks.add(task)
        return task

    def begin(self) -> None:
        """A cell begins. Before the first one no code of the session has run: all that is there is the kernel's."""
        if self._own_threads is None:
            self._own_threads = tuple(threading.enumerate())
            self._own_tasks.update(asyncio.all_tasks())
        self._had_threads = self._threads_run()
        self._left |= self._tasks()

    def has_run(self) -> bool:
        """Whether something has run beside the cell that has just ended."""
        tasks = self._left | self._tasks()
        self._left = {task for task in tasks if not task.done()}
        return bool(tasks) or self._had_threads or self._threads_run()

    def runs(self) -> bool:
        """Whether threads or tasks of the session run between its cells."""
        return self._threads_run() or any(not task.done() for task in self._left)

    def _tasks(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - set(self._own_tasks)

    def _threads_run(self) -> bool:
        if self._own_threads is None:
            return False
        # By the interpreter's own list: `threading` does not know those that `_thread` has started.
        others = set(sys._current_frames()) - {_thread.get_ident(), threading.main_thread().ident}
        own = (*self._own_threads, garbage.gc.thread)
        others.difference_update(thread.ident for thread in own if thread is not None and thread.is_alive())
        return bool(others) and any(not depth.is_deep(sys._current_frames().get(ident)) for ident in others)
