"""Why a value cannot be saved: where in it the trouble is, and in which words to say so.

Runs in the kernel, under the deadline of its caller.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

MAX_DEPTH = 24
MAX_CHILDREN = 2000

_KINDS = {
    "socket": "a network connection cannot be saved; keep its address and connect again",
    "generator": "a generator cannot be saved; keep its source, or its results in a list",
    "coroutine": "a coroutine cannot be saved; keep the function that makes it",
    "async_generator": "an async generator cannot be saved; keep the function that makes it",
    "lock": "a lock cannot be saved; make it again where it is needed",
    "RLock": "a lock cannot be saved; make it again where it is needed",
    "Thread": "a thread cannot be saved; start it again",
    "Connection": "an open connection cannot be saved; keep what opens it and open it again",
    "Task": "a running task cannot be saved",
    "frame": "a stack frame cannot be saved",
    "traceback": "a traceback cannot be saved",
    "module": "a module made by hand cannot be saved",
    "HASH": "a hashlib object cannot be saved; keep the bytes or the digest",
}


class_name: Callable[[type], str] = type.__dict__["__name__"].__get__
"""The name of a class as the interpreter knows it: `__name__` may be a property of its metaclass."""


def type_name(value: Any) -> str:
    """The name of a value's type, never asking the value itself."""
    return class_name(type(value))[:200]


def reason(error: BaseException, culprit: Any) -> str:
    """One sentence that says why `culprit` cannot be saved and what to do."""
    known = _KINDS.get(type_name(culprit))
    if known is not None:
        return known
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the error may come from user code, whose __str__ may fail as well
        text = "its own error message cannot be read"
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def find_culprit(
    value: Any, name: str, fails: Callable[[Any], BaseException | None]
) -> tuple[str, Any, BaseException | None]:
    """Follow the first part that fails on its own, down to the smallest.

    fails: pickles a value alone and returns the error, or None. Returns the path, the part, its error.
    """
    path, error = name, None
    seen = {id(value)}
    for _ in range(MAX_DEPTH):
        for label, child in _children(value):
            if id(child) in seen:
                continue
            seen.add(id(child))
            child_error = fails(child)
            if child_error is not None:
                path, value, error = path + label, child, child_error
                break
        else:
            break
    return path, value, error


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in list(value.items())[:MAX_CHILDREN]:
            yield f"[{_key(key)}]", item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value[:MAX_CHILDREN]):
            yield f"[{index}]", item
    elif isinstance(value, set | frozenset):
        for item in list(value)[:MAX_CHILDREN]:
            yield "{…}", item
    elif isinstance(value, types.FunctionType):
        for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            try:
                yield f".<closure {variable}>", cell.cell_contents
            except ValueError:
                continue
        for default in value.__defaults__ or ():
            yield ".<default>", default
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    if isinstance(value, type):
        attributes: Any = vars(value)
    else:
        try:
            attributes = object.__getattribute__(value, "__dict__")
        except AttributeError:
            return
    if isinstance(attributes, dict | types.MappingProxyType):
        for key, item in list(attributes.items())[:MAX_CHILDREN]:
            if isinstance(key, str) and not (isinstance(value, type) and key.startswith("__")):
                yield f".{key}", item


def _key(key: Any) -> str:
    return repr(key)[:60] if isinstance(key, str | int | float | bool | bytes | type(None)) else "…"
