"""Tell whether a dict has changed since it was looked at, without looking at what is in it.

CPython up to 3.12 gives each dict a number that differs after every change. No function of Python reads it, so it is
read from memory, and only by an interpreter that has proved at the start that it is found there. Runs in the kernel.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_OFFSET = object.__basicsize__ + ctypes.sizeof(ctypes.c_ssize_t)
"""Behind the head of every object and the count of items."""


def of(space: dict[Any, Any]) -> ctypes.c_uint64 | None:
    """A view whose `value` is another number after each change of the dict; None if this Python counts no changes.

    Whoever holds the view has to hold the dict.
    """
    return ctypes.c_uint64.from_address(id(space) + _OFFSET) if COUNTED else None


def _is_counted() -> bool:
    if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 12):
        return False
    space: dict[Any, Any] = {"one": 1, "two": 2}
    number = ctypes.c_uint64.from_address(id(space) + _OFFSET)
    seen = [number.value]
    for change in (
        lambda: space.update(one=3),
        lambda: space.__setitem__("one", 4),
        lambda: space.__setitem__("three", 3),
        lambda: space.pop("two"),
        lambda: space.__delitem__("three"),
        lambda: space.setdefault("five", 5),
        space.popitem,
        space.clear,
    ):
        change()
        seen.append(number.value)
    space.get("one"), len(space), list(space)
    return len(set(seen)) == len(seen) and number.value == seen[-1]


COUNTED = _is_counted()
