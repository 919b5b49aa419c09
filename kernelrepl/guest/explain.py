"""Why a value cannot be saved: where in it the trouble is, and in which words to say so.

Runs in the kernel, under the deadline of its caller.
"""

from __future__ import annotations

import collections
import functools
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from kernelrepl.guest.state import Unsaved

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
    "ReferenceType": "a weak reference cannot be saved; keep the object, and refer to it again",
    "weakproxy": "a weak proxy cannot be saved; keep the object, and make the proxy again",
    "weakcallableproxy": "a weak proxy cannot be saved; keep the object, and make the proxy again",
    "finalize": "a finalizer cannot be saved; what it cleans up belongs to this kernel",
    "memoryview": "a memoryview cannot be saved; keep the object it looks at instead",
    "CField": "a structure of ctypes cannot be saved; put its class into a file and import that",
    "memmap": "an array on a mapped file cannot be saved; keep its path and map it again",
    "mmap": "a mapped file cannot be saved; keep its path and map it again",
    "Executor": "a pool of workers cannot be saved; make it again",
    "SimpleQueue": "a queue between threads cannot be saved; keep what is in it in a list",
    "Popen": "a running program and its pipes cannot be saved (there is a lock in it); start it again",
}


class_name: Callable[[type], str] = type.__dict__["__name__"].__get__
"""The name of a class as the interpreter knows it: `__name__` may be a property of its metaclass."""


def stray(name: str, value: Any) -> Unsaved:
    """What to say of something that code of the session has made an attribute of a module."""
    module = name.rpartition(".")[0]
    return Unsaved(type_name(value), name, f"attributes of modules are not saved; set it again on {module}", 0)


def type_name(value: Any) -> str:
    """The name of a value's type, never asking the value itself."""
    return class_name(type(value))[:200]


def reason(error: BaseException, culprit: Any) -> str:
    """One sentence that says why `culprit` cannot be saved and what to do."""
    known = _known(culprit)
    if known is not None:
        return known
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the error may come from user code, whose __str__ may fail as well
        text = "its own error message cannot be read"
    kind = class_name(type(error))[:100]
    return f"{kind}: {text[:300]}" if text else kind


def _known(value: Any) -> str | None:
    """What there is to say about a value of Python's own kinds, or of one based on them."""
    for cls in type.mro(type(value)):
        if cls.__module__ != "__main__" and (found := _KINDS.get(class_name(cls))) is not None:
            return found
    return None


def find_culprit(
    value: Any, name: str, fails: Callable[[Any], BaseException | None]
) -> tuple[str, Any, BaseException | None]:
    """Follow the first part that fails on its own, down to the smallest.

    fails: pickles a value alone and returns the error, or None. Returns the path, the part, its error.
    """
    path, error = name, None
    seen = {id(value)}
    for _ in range(MAX_DEPTH):
        if _known(value) is not None:
            break
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
    elif isinstance(value, list | tuple | collections.deque):
        for index, item in enumerate(itertools.islice(value, MAX_CHILDREN)):
            yield f"[{index}]", item
    elif isinstance(value, set | frozenset):
        for item in list(value)[:MAX_CHILDREN]:
            yield "{…}", item
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, BaseException):
        yield from ((".args", value.args), (".__cause__", value.__cause__), (".__context__", value.__context__))
    else:
        yield from _cells(value)
    if isinstance(value, type):
        attributes: Any = vars(value)
    else:
        yield from _slots(value)
        try:
            attributes = object.__getattribute__(value, "__dict__")
        except AttributeError:
            return
    if isinstance(attributes, dict | types.MappingProxyType):
        for key, item in list(attributes.items())[:MAX_CHILDREN]:
            if isinstance(key, str) and not (isinstance(value, type) and key.startswith("__")):
                yield f".{key}", item


def _parts_of_function(value: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
        try:
            yield f".<closure {variable}>", cell.cell_contents
        except ValueError:
            continue
    for default in value.__defaults__ or ():
        yield ".<default>", default
    for name, default in (value.__kwdefaults__ or {}).items():
        yield f".<default {name}>", default


def _slots(value: Any) -> Iterator[tuple[str, Any]]:
    for cls in type.mro(type(value)):
        for name, member in list(vars(cls).items()):
            if isinstance(member, types.MemberDescriptorType) and cls.__module__ != "builtins":
                try:
                    yield f".{name}", member.__get__(value)
                except AttributeError:
                    continue


def _cells(value: Any) -> Iterator[tuple[str, Any]]:
    """What arrays and frames hold of objects."""
    np: Any = sys.modules.get("numpy")
    pandas: Any = sys.modules.get("pandas")
    if np is not None and issubclass(type(value), getattr(np, "ndarray", ())) and value.dtype == object:
        for index, item in itertools.islice(np.ndenumerate(value), MAX_CHILDREN):
            yield f"[{', '.join(map(str, index))}]", item
    elif pandas is not None and issubclass(type(value), getattr(pandas, "Series", ())) and value.dtype == object:
        for index, item in itertools.islice(enumerate(value), MAX_CHILDREN):
            yield f"[{index}]", item
    elif pandas is not None and issubclass(type(value), getattr(pandas, "DataFrame", ())):
        for index, column in itertools.islice(enumerate(value.columns), MAX_CHILDREN):
            yield f"[{_key(column)}]", value.iloc[:, index]


def _key(key: Any) -> str:
    return repr(key)[:60] if isinstance(key, str | int | float | bool | bytes | type(None)) else "…"
