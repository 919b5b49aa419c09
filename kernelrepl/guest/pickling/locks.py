"""How locks, and what threads and tasks wait at, are pickled: as they are, without those who wait or hold.

A lock that code of cells has acquired is held again after a restore, because the next cell may release it. What a
thread or a task holds comes back free, and that is told: it ends with the kernel, and nobody would ever release it.
Runs in the kernel.
"""

from __future__ import annotations

import _queue
import _thread
import asyncio
import collections
import concurrent.futures
import copyreg
import gc
import logging
import pickle
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import class_recipes, lock_recipes
from kernelrepl.guest.pickling.singletons import refuse

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler

_WAITED_AT = (
    threading.Condition,
    threading.Barrier,
    threading.BoundedSemaphore,
    asyncio.mixins._LoopBoundMixin,
)
"""Kinds whose attributes tell of threads and tasks. Events, queues and other semaphores are made of these."""
_WAITING = frozenset({"_waiters", "_getters", "_putters"})
_BARRIERS = (threading.Barrier, asyncio.Barrier)
_BROKEN = (-2, "broken")
_BOUNDS = ("_initial_value", "_bound_value")
_HOOKS = ("__reduce__", "__reduce_ex__", "__getstate__")
_HELD = re.compile(r"owner=(\d+) count=(\d+)")
_LISTS_ITS_ITEMS = sys.version_info < (3, 13)
"""Whether a SimpleQueue keeps its items in a list, which the collector can see."""

_OF_THIS_PROCESS = (threading.Thread, subprocess.Popen, concurrent.futures.Future, concurrent.futures.Executor)
"""Kinds that are bound to this process though all their attributes could be saved."""
_CONNECTIONS = "multiprocessing.connection"
"""The module of others."""


def reducer(kind: type) -> Any:
    """How objects of a kind are reduced; None leaves it to others."""
    if kind in REDUCERS:
        return REDUCERS[kind]
    waited_at = issubclass(kind, _WAITED_AT)
    if not (waited_at or issubclass(kind, _OF_THIS_PROCESS) or kind.__module__ == _CONNECTIONS):
        return None
    if kind in copyreg.dispatch_table or any(getattr(kind, hook) is not getattr(object, hook) for hook in _HOOKS):
        return None  # it has a say in it
    return _reduce_waited_at if waited_at else _refuse


_refuse: Any = refuse("it belongs to this process and cannot be saved; make it again")


def _is_taken_by_others(pickler: ComponentPickler) -> bool:
    """Of something that is held: whether it may be by who is gone after a restore. Notes it, then."""
    if not pickler.context.others_run():
        return False
    pickler.freed = True
    return True


def _reduce_lock(pickler: ComponentPickler, obj: Any) -> Any:
    return lock_recipes.lock, (obj.locked() and not _is_taken_by_others(pickler),)


def _reduce_reentrant_lock(pickler: ComponentPickler, obj: Any) -> Any:
    found = _HELD.search(repr(obj))
    owner, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if count and owner != threading.main_thread().ident:
        pickler.freed, count = True, 0
    return lock_recipes.reentrant_lock, (count,)


def _reduce_simple_queue(pickler: ComponentPickler, obj: Any) -> Any:
    size = obj.qsize()
    items: list[Any] = []
    if size:
        lists = [held for held in gc.get_referents(obj) if type(held) is list] if _LISTS_ITS_ITEMS else []
        if len(lists) != 1:
            raise pickle.PicklingError("a SimpleQueue that is not empty cannot be saved; use a queue.Queue")
        items = lists[0][-size:]  # what was taken out may still have a place in front of them
        pickler.kept.append(items)
    return lock_recipes.simple_queue, (), items, None, None, lock_recipes.simple_queue_items


def _reduce_waited_at(pickler: ComponentPickler, obj: Any) -> Any:
    attributes: Any = object.__reduce_ex__(obj, 2)[2]
    slots = None
    if isinstance(attributes, tuple):
        attributes, slots = attributes
    state = dict(attributes)
    state.pop("_loop", None)  # the next one that it is used in is its own
    for name in _WAITING & state.keys():
        if state[name]:
            state[name] = collections.deque()
            pickler.kept.append(state[name])
    if isinstance(obj, _BARRIERS) and state["_count"]:
        state["_count"] = 0
        if getattr(state["_state"], "value", state["_state"]) not in _BROKEN:
            state["_state"] = 0 if type(state["_state"]) is int else type(state["_state"]).FILLING
    if state.get("_locked") is True and _is_taken_by_others(pickler):
        state["_locked"] = False
    bound = next((state[name] for name in _BOUNDS if name in state), None)
    if bound is not None and state["_value"] < bound and _is_taken_by_others(pickler):
        state["_value"] = bound
    whole = state if slots is None else (state, slots)
    return class_recipes.instance, (type(obj), object), (None, whole, None), None, None, class_recipes.instance_state


REDUCERS: dict[type, Any] = {
    type(_thread.allocate_lock()): _reduce_lock,
    _thread.RLock: _reduce_reentrant_lock,
    _queue.SimpleQueue: _reduce_simple_queue,
    logging.StreamHandler: refuse(
        "a handler that writes to a stream cannot be saved, with its lock; a logger that has it gets another one"
    ),
}
