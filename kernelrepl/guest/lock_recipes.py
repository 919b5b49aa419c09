"""Functions that make locks and queues again. Pickled values name them: a storage format, as `recipes` is.

Runs in the kernel.
"""

from __future__ import annotations

import _queue
import _thread
import threading
from typing import Any


def lock(held: bool) -> Any:
    result = _thread.allocate_lock()
    if held:
        result.acquire()
    return result


def reentrant_lock(count: int) -> Any:
    """As often acquired as code of cells has acquired it, which runs in the main thread."""
    result: Any = _thread.RLock()
    if count:
        result._acquire_restore((count, threading.main_thread().ident))
    return result


def simple_queue() -> Any:
    return _queue.SimpleQueue()


def simple_queue_items(target: Any, items: list[Any]) -> None:
    for item in items:
        target.put(item)
