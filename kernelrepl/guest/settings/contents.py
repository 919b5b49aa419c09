"""What the modules of a library hold: attributes, those of its classes and objects, entries of its tables.

Copied before code that may change it, and compared afterwards: by identity, so that nothing is asked of any value.
Runs in the kernel.
"""

from __future__ import annotations

import importlib
import sys
import threading
import types
from collections.abc import Collection, Iterator
from operator import is_
from typing import Any

from kernelrepl.guest.neutral import attributes_of, is_a, module_of
from kernelrepl.guest.settings.options_table import is_plain

Step = Any
"""The name of an attribute, or a key of a dict (an element of a list or a set) in a tuple of its own."""
Path = tuple[Step, ...]
Parts = dict[Any, Any] | list[Any] | set[Any]
Copied = tuple[Path, Any, Parts]
"""Where something is, the thing itself, and a copy of what is in it."""

ABSENT = object()
REPLACED = "replaced"
"""Beside the index of an element of a list: there was another one in its place."""
_DEPTH = 3
_MOST = 30_000
_LONG = 5_000
_CONTAINERS = (dict, list, set, threading.local)


def loaded(tops: Collection[str]) -> dict[str, list[str]]:
    """The names of all modules of these libraries that are loaded, those in C among them (`_name`)."""
    found: dict[str, list[str]] = {top: [] for top in tops}
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if top in found or (top := top.removeprefix("_")) in found:
            found[top].append(name)
    return found


def copied(top: str, names: Collection[str], passed_over: Collection[str]) -> Iterator[Copied]:
    """Everything that these modules of a library hold, but for attributes and keys that are passed over."""
    homes = (top, f"_{top}")
    kinds: dict[int, bool | None] = {}  # by number: a class may have a say in what its hash is
    seen: set[int] = set()
    left = _MOST
    for name in names:
        module = sys.modules.get(name)
        if not is_a(module, types.ModuleType):
            continue
        work: list[tuple[Path, Any]] = [((name,), module)]
        while work and left:
            path, one = work.pop()
            if id(one) in seen:
                continue
            found = parts(one)
            if found is None or len(found) > _LONG:
                continue
            seen.add(id(one))
            left -= 1
            yield path, one, found
            if len(path) > _DEPTH or not isinstance(found, dict):
                continue
            attributes = not is_a(one, dict)
            for key, value in found.items():
                if attributes and _is_passing(key, value):
                    continue
                kind = type(value)
                held = kinds[id(kind)] if id(kind) in kinds else kinds.setdefault(id(kind), _holds(kind, homes))
                if held is None:  # it is a class
                    held = _is_at_home(value, homes)
                if held and id(value) not in seen and (attributes or is_plain(key)) and key not in passed_over:
                    work.append(((*path, key if attributes else (key,)), value))


def _is_passing(key: Any, value: Any) -> bool:
    """Whether an attribute holds what is not the library's own, or is made again when it is missing."""
    return is_a(key, str) and is_a(value, dict) and (key == "__builtins__" or "cache" in key)


def _holds(kind: type, homes: tuple[str, str]) -> bool | None:
    """Whether objects of a kind are looked into; None for classes, which have homes of their own."""
    if issubclass(kind, type):
        return None
    return issubclass(kind, _CONTAINERS) or (not issubclass(kind, types.ModuleType) and _is_at_home(kind, homes))


def _is_at_home(kind: type, homes: tuple[str, str]) -> bool:
    return module_of(kind).partition(".")[0] in homes


def parts(one: Any) -> Parts | None:
    """A copy of what is in something, or of its attributes."""
    if is_a(one, dict | list | set):
        return dict(one) if is_a(one, dict) else list(one) if is_a(one, list) else set(one)
    if is_a(one, type):
        return dict(attributes_of(one))
    try:
        return dict(one.__dict__ if is_a(one, threading.local) else object.__getattribute__(one, "__dict__"))
    except BaseException:  # noqa: BLE001 - it has none
        return None


def differences(live: Any, before: Any) -> Iterator[tuple[Step, Any]]:
    """What is other in something than in an earlier copy of it, and where."""
    if _has_the_same(live, before):
        return
    now = parts(live)
    if now is None:
        return
    if isinstance(now, dict):
        attributes = not is_a(live, dict)
        for key, value in now.items():
            if before.get(key, ABSENT) is not value and (not attributes or is_a(key, str)):
                yield (key if attributes else (key,)), value
    else:
        known = set(map(id, before))
        how = (REPLACED,) if isinstance(now, list) and len(now) == len(before) else ()
        yield from (((index, *how), value) for index, value in enumerate(now) if id(value) not in known)


def _has_the_same(live: Any, before: Any) -> bool:
    """Whether nothing is other, without a copy; what is changed while it is looked at counts as other."""
    now: Any = attributes_of(live) if is_a(live, type) else live
    kind = type(now)
    try:
        if kind is list:
            return len(now) == len(before) and all(map(is_, now, before))
        if kind is not dict and kind is not types.MappingProxyType:
            now = object.__getattribute__(now, "__dict__") if module_of(kind) != "builtins" else {}
        if type(now) not in (dict, types.MappingProxyType) or len(now) != len(before):
            return False
        return all(map(is_, now.values(), before.values())) and all(map(is_, now, before))
    except BaseException:  # noqa: BLE001 - it has none
        return False


def found_at(path: Path) -> Any:
    """What is there now; ABSENT if there is no such place."""
    try:
        found: Any = sys.modules.get(path[0]) or importlib.import_module(path[0])
        for step in path[1:]:
            if is_a(step, str):
                found = vars(found)[step]
            elif is_a(found, set):
                found = list(found)[step[0]]
            else:
                found = found[step[0]]
    except BaseException:  # noqa: BLE001 - of another version, or taken away
        return ABSENT
    return found
