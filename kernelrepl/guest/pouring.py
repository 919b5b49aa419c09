"""Pour what a session had made of an object that a library has one of into that of this process. Runs in the kernel."""

from __future__ import annotations

import array
import collections
import copyreg
import pickle
from typing import Any

CONTENTS = ""
"""Stands for what is in a container, among the names of its attributes."""

CONTAINERS = (dict, list, set, collections.deque, bytearray, array.array)

restored: dict[int, tuple[Any, dict[str, bool] | None]] = {}
"""Objects of modules that have been restored, and which parts of them are other than as they come: whether there is
another object in the place of the one that was there. None if it may be any part.
"""


def change(target: Any, copy: Any, filled: dict[str, Any], replaced: dict[str, Any], gone: list[str]) -> None:
    """Make an object what it was: see `recipes.one_state`."""
    changed = {**dict.fromkeys(filled, False), **dict.fromkeys((*replaced, *gone), True)}
    restored[id(target)] = target, None if copy is not None else changed
    if copy is not None:
        bring(copy, target)
    for name in gone:
        _delete(target, name)
    for name, part in filled.items():
        there = target if name == CONTENTS else _get(target, name)
        if isinstance(there, CONTAINERS) and isinstance(part, CONTAINERS):
            pour(part, there)
        elif type(there) is type(part) and has_no_say(type(part)) and hasattr(part, "__dict__"):
            bring(part, there)
        else:
            _put(target, name, part)
    for name, part in replaced.items():
        _put(target, name, part)


def bring(kept: Any, found: Any) -> None:
    """Make an object say what a copy of it says."""
    if found is kept:
        return
    kind: Any = type(kept)
    if full_name(kept) != full_name(found):
        raise TypeError(f"the library has an object of another class there now ({type(found).__name__})")
    whole = has_no_say(kind)  # a copy of another kind may lack what it is not saved with
    pour(kept, found)
    shown = False
    if hasattr(kept, "__dict__"):
        for name in [name for name in vars(found) if name not in vars(kept)] if whole else ():
            _delete(found, name)
        for name, value in vars(kept).items():
            _set(found, name, value)
        shown = True
    for slot in copyreg._slotnames(kind):  # type: ignore[attr-defined]
        if hasattr(kept, slot):
            _set(found, slot, getattr(kept, slot))
        elif whole and hasattr(found, slot):
            _delete(found, slot)
        shown = True
    if not shown and hasattr(kind, "__setstate__"):  # it is written in C
        reduced = kept.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if isinstance(reduced, tuple) and (*reduced, None)[2] is not None:
            found.__setstate__(reduced[2])


def full_name(obj: Any) -> tuple[str, str]:
    """What tells kinds apart, also those of classes that are made for each object."""
    return type(obj).__module__, type(obj).__qualname__


def has_no_say(kind: Any) -> bool:
    """Whether a class leaves it to Python how its objects are pickled."""
    hooks = ("__reduce_ex__", "__reduce__", "__getstate__")
    own = any(getattr(kind, hook, None) is not getattr(object, hook, None) for hook in hooks)
    return not own and not hasattr(kind, "__setstate__")


def _set(target: Any, name: str, value: Any) -> None:
    """Set an attribute, if it says something else; a container that the library knows stays the one that it is."""
    there = _get(target, name)
    if type(there) is type(value) and type(value) in (dict, list, set):
        pour(value, there)
    elif not alike(there, value):
        _put(target, name, value)


def _get(target: Any, name: str) -> Any:
    own = getattr(target, "__dict__", {})
    return own[name] if name in own else getattr(target, name, None) if _is_slot(type(target), name) else None


def _put(target: Any, name: str, value: Any) -> None:
    if _is_slot(type(target), name):
        object.__setattr__(target, name, value)
    else:
        target.__dict__[name] = value


def _delete(target: Any, name: str) -> None:
    own = getattr(target, "__dict__", {})
    if name in own:
        del own[name]
    elif _is_slot(type(target), name) and hasattr(target, name):
        object.__delattr__(target, name)


def _is_slot(kind: type, name: str) -> bool:
    return name in copyreg._slotnames(kind)  # type: ignore[attr-defined]


def contents(obj: Any) -> Any:
    """What is in a container, as one of Python's own kind; methods of its class are not asked."""
    if isinstance(obj, dict):
        native: Any = collections.OrderedDict if isinstance(obj, collections.OrderedDict) else dict
        return dict(native.items(obj))
    if isinstance(obj, set):
        return set(set.__iter__(obj))
    sequence: Any = list if isinstance(obj, list) else collections.deque
    return list(sequence.__iter__(obj))


def pour(kept: Any, found: Any) -> None:
    """Make a container say the same as another; what is alike in it stays the object that it is."""
    if isinstance(found, dict):
        _pour_items(contents(kept), found)
    elif isinstance(found, list):
        items = contents(kept)
        list.__setitem__(found, slice(None), _that_of(list.__iter__(found), items))
    elif isinstance(found, collections.deque):
        items = _that_of(collections.deque.__iter__(found), contents(kept))
        collections.deque.clear(found)
        collections.deque.extend(found, items)
    elif isinstance(found, set):
        items = contents(kept)
        set.intersection_update(found, items)
        set.update(found, items)
    elif isinstance(found, bytearray | array.array):
        found[:] = kept


def _that_of(there: Any, items: list[Any]) -> list[Any]:
    """Items, and for those that are alike at the same place the ones that are there."""
    before = list(there)[: len(items)]
    return [
        *(one if alike(one, item) else item for one, item in zip(before, items, strict=False)),
        *items[len(before) :],
    ]


def _pour_items(items: dict[Any, Any], found: dict[Any, Any]) -> None:
    native: Any = collections.OrderedDict if isinstance(found, collections.OrderedDict) else dict
    there = contents(found)
    for key in there:
        if key not in items:
            native.__delitem__(found, key)
    for key, value in items.items():
        if key in there and alike(there[key], value):
            items[key] = there[key]
        elif key in there and type(value) in (dict, list, set) and type(there[key]) is type(value):
            pour(value, there[key])
            items[key] = there[key]
        else:
            native.__setitem__(found, key, value)
    if list(native.__iter__(found)) != list(items):  # in another order
        native.clear(found)
        for key, value in items.items():
            native.__setitem__(found, key, value)


def alike(one: Any, other: Any) -> bool:
    """Whether two objects have the same bytes."""
    if one is other:
        return True
    try:
        return type(one) is type(other) and pickle.dumps(one, 5) == pickle.dumps(other, 5)
    except Exception:  # noqa: BLE001 - it is code of a library that is asked
        return False
