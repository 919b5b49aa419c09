"""Arrays of Python's own texts and numbers, as columns of strings are, pickled in segments and only where they changed.

Such objects never change, so a segment with the same objects in it has the same bytes as before: comparing where they
lie takes a hundredth of the time of pickling them. Runs in the kernel.
"""

from __future__ import annotations

import ctypes
import pickle
import weakref
from dataclasses import dataclass
from typing import Any

LONG = 4096
"""How many items an array has at least, so that it is worth the trouble."""
_SEGMENT_ITEMS = 1 << 14
_KINDS = frozenset({str, int, float, bool, bytes, type(None)})


@dataclass
class _Column:
    items: Any
    """A copy of the array. It keeps the objects alive, so that no other can be where one of them was."""
    parts: list[bytes]
    array: weakref.ref[Any]


class Texts:
    """What is known of such arrays since they were pickled last."""

    def __init__(self) -> None:
        self._known: dict[int, _Column] = {}

    def parts(self, array: Any, order: str) -> list[bytes] | None:
        """The pickled segments of an array of objects; None if it is short, or other objects are in it."""
        if array.size < LONG:
            return None
        flat = array.ravel(order=order)
        key = id(array)
        known = self._known.get(key)
        if known is not None and (known.array() is not array or len(known.items) != len(flat)):
            known = None
        parts = []
        for number, at in enumerate(range(0, len(flat), _SEGMENT_ITEMS)):
            items = flat[at : at + _SEGMENT_ITEMS]
            if known is not None and _places(items) == _places(known.items[at : at + _SEGMENT_ITEMS]):
                parts.append(known.parts[number])
                continue
            values = items.tolist()
            if not _KINDS.issuperset(map(type, values)):
                self._known.pop(key, None)
                return None
            parts.append(pickle.dumps(values, 5))
        self._known[key] = _Column(flat.copy(), parts, weakref.ref(array, lambda _: self._known.pop(key, None)))
        return parts


def _places(items: Any) -> bytes:
    """Where the objects of an array lie in memory."""
    return ctypes.string_at(items.ctypes.data, items.nbytes)
