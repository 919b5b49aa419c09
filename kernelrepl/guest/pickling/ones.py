"""What a session has changed in an object that a library has one of: nothing else of it is saved, where that is known.

It is looked at when the library has been loaded, before code that names it, and when it is saved: by identity, so that
nothing is asked of any value. What does not show its parts, as objects in C, may have changed at any time. Runs in the
kernel.
"""

from __future__ import annotations

import array
import collections
import contextlib
import copyreg
import enum
import functools
import gc
import re
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import xxhash

from kernelrepl.guest import pouring
from kernelrepl.guest.neutral import attributes_of
from kernelrepl.guest.origin import is_of_session
from kernelrepl.guest.pouring import CONTENTS

_MOST = 4_000
"""Into a part with more objects than that nobody looks: it may have changed."""
_MOST_BYTES = 1 << 20
_LEAVES = (
    *(int, float, complex, str, bytes, type(None), type, enum.Enum, weakref.ref, re.Pattern, range, slice),
    *(types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.CodeType, types.GenericAlias),
    *(type(functools.lru_cache(len)), type(NotImplemented), type(Ellipsis)),
)
"""What is the same as long as it is the same object, or is code, which is saved by its name."""
_CONTAINERS = (dict, list, set, collections.deque)
_SEEN_THROUGH = frozenset({object, frozenset, tuple, collections.OrderedDict, collections.defaultdict, *_CONTAINERS})
_SEEN_THROUGH |= {types.MethodType, types.MappingProxyType, types.CellType, functools.partial}
_SEEN_THROUGH |= {property, staticmethod, classmethod}
"""Kinds that tell the garbage collector all that they are."""
_bases: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_HEAP_TYPE = 1 << 9
_PASSING = re.compile(r"__|.*(cache|memo|lock|hash|_abc_impl|counter)", re.IGNORECASE)
"""Names of what a library makes again when it is missing."""

Elsewhere = Callable[[Any], bool]
"""Says of an object whether it has a place of its own, so that it is no part of another one."""


class One:
    """An object that a library has one of, and what of it is other than it was."""

    def __init__(self, obj: Any, sure: bool, changed: Mapping[str, bool], elsewhere: Elsewhere) -> None:
        """sure: it is as the library made it, but for what has `changed`."""
        self._obj = obj
        self._elsewhere = elsewhere
        self._before = self._look()
        self.sure = sure
        self.is_copied: bool | None = None
        """Whether a copy of it was made; False if none can be loaded."""
        self.changed = dict(changed)
        """Parts that are other than they were, and whether there is another object: from then on they are saved."""

    def _look(self) -> dict[str, _Seen]:
        return {name: _Seen(part, self._is_elsewhere) for name, part in parts_of(self._obj).items()}

    def _is_elsewhere(self, other: Any) -> bool:
        return other is self._obj or self._elsewhere(other)

    def differs(self) -> bool:
        """Whether anything may be other than as the library made it."""
        now = self._look()
        for name, seen in now.items():
            before = self._before.get(name)
            if name != CONTENTS and (before is None or seen.value is not before.value):
                self.changed[name] = True
            elif before is None or seen.held is None or seen.held != before.held:
                self.changed.setdefault(name, False)
        self.changed.update(dict.fromkeys(self._before.keys() - now.keys(), True))
        return not self.sure or bool(self.changed) or not is_seen_through(type(self._obj))

    def is_made_when_needed(self, name: str, value: Any) -> bool:
        """Whether nobody misses a part: its library makes it again by itself."""
        made = name not in self._before and callable(value) and not is_of_session(value)
        return made or _PASSING.match(name) is not None or (name in self._before and self._before[name].held is None)


_known: dict[int, One] = {}


def known(obj: Any, elsewhere: Elsewhere) -> One:
    """What is known of an object that a library has one of; of one that comes first now, what it is like now."""
    one = _known.get(id(obj))
    if one is None:
        _, changed = pouring.restored.pop(id(obj), (obj, None))
        one = _known[id(obj)] = One(obj, changed is not None, changed or {}, elsewhere)
    return one


def remember(obj: Any, elsewhere: Elsewhere) -> None:
    """An object is as its library has just made it."""
    if id(obj) not in _known:
        _known[id(obj)] = One(obj, True, {}, elsewhere)


def refuse_copy(obj: Any) -> bool:
    """A copy of an object cannot be loaded: from here on only its parts are saved. False if there was none."""
    one = _known.get(id(obj))
    if one is None or not one.is_copied:
        return False
    one.is_copied = False
    return True


def forget_restored() -> None:
    """Code of the session goes on: from here on it may change what has been restored."""
    pouring.restored.clear()


class _Seen:
    """What one part was, down to what does not change."""

    def __init__(self, value: Any, is_other: Elsewhere) -> None:
        self.value = value
        self._kept = [value]  # as long as this lives, no number in it can be taken by another object
        self.held: list[Any] | None = []
        """Numbers of what each object in it holds; None if they do not say all."""
        seen, kinds = {id(value)}, dict[type, bool]()
        for one in self._kept:
            kind = type(one)
            if issubclass(kind, _LEAVES) or (kind not in _SEEN_THROUGH and is_other(one)):
                continue
            through = kinds[kind] if kind in kinds else kinds.setdefault(kind, is_seen_through(kind))
            if not through and (content := _bytes_of(one)) is not None:
                self.held.append(content)
                continue
            if not through or len(self._kept) > _MOST:
                self.held = None
                return
            with contextlib.suppress(Exception):
                object.__getattribute__(one, "__dict__")  # from here on it has one, and would look changed otherwise
            held = gc.get_referents(one)
            self.held.append(tuple(map(id, held)))
            new = [other for other in held if id(other) not in seen]
            seen.update(map(id, new))
            self._kept += new


def is_seen_through(kind: type) -> bool:
    """Whether objects of a kind show the garbage collector all that they are."""
    for base in _bases(kind):
        if base in _SEEN_THROUGH:
            return True
        if not base.__flags__ & _HEAP_TYPE or isinstance(attributes_of(base).get("__new__"), types.BuiltinFunctionType):
            return False  # it is written in C, and may keep more than it shows
    return False


def _bytes_of(one: Any) -> bytes | None:
    """A checksum of what lies in memory as bytes, and can be changed there."""
    if isinstance(one, bytearray | array.array) or type(one).__module__ == "numpy":
        with contextlib.suppress(Exception):
            view = memoryview(one).cast("B")
            return xxhash.xxh3_128_digest(view) if view.nbytes <= _MOST_BYTES else None
    return None


def parts_of(obj: Any) -> dict[str, Any]:
    """Attributes of an object, and what is in it as a container."""
    parts: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # it has none
        parts.update(object.__getattribute__(obj, "__dict__"))
    for slot in copyreg._slotnames(type(obj)):  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):  # it is empty
            parts[slot] = object.__getattribute__(obj, slot)
    if isinstance(obj, _CONTAINERS):
        parts[CONTENTS] = pouring.contents(obj)
    return parts


def is_plain(kind: Any) -> bool:
    """Whether a kind has no say in how its objects are pickled, so that their parts are all there is."""
    return is_seen_through(kind) and pouring.has_no_say(kind) and kind not in copyreg.dispatch_table
