"""Why a value cannot be saved: where in it the trouble is, and in which words to say so.

Runs in the kernel, under the deadline of its caller.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kernelrepl.guest.checkpoint.state import Unsaved
from kernelrepl.guest.neutral import bases_of, is_a, module_of, name_of
from kernelrepl.guest.pickling.modules import NotItsName

MAX_DEPTH = 24
MAX_CHILDREN = 2000

_KINDS = {
    "socket": "a network connection cannot be saved; keep its address and connect again",
    "generator": "a generator cannot be saved; keep its source, or its results in a list",
    "coroutine": "a coroutine cannot be saved; keep the function that makes it",
    "async_generator": "an async generator cannot be saved; keep the function that makes it",
    "RLock": "a lock cannot be saved; make it again where it is needed",
    "Connection": "an open connection cannot be saved; keep what opens it and open it again",
    "DuckDBPyConnection": "an open connection cannot be saved; keep what opens it and open it again",
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
}


TOO_DEEP = "it is nested too deep to be saved (pickling is a recursion); keep its parts in a list, links as numbers"

_REFUSED = re.compile(r"can(?:not|'t) pickle '?([\w.]{1,100})'? (?:object|instance)")
"""What the interpreter says of types that come from C."""


_qualified: Callable[[type], str] = type.__dict__["__qualname__"].__get__


def qualified_name(value: type | types.FunctionType) -> str:
    """The qualified name of a class or a function."""
    return _qualified(value) if is_a(value, type) else value.__qualname__  # type: ignore[arg-type]


def stray(name: str, value: Any) -> Unsaved:
    """What to say of something that code of the session has made an attribute of a module."""
    module = name.rpartition(".")[0]
    return Unsaved(type_name(value), name, f"attributes of modules are not saved; set it again on {module}", 0)


def freed(name: str, root: int) -> Unsaved:
    """What to say of a value with a lock that comes back as if nobody held it."""
    reason = "it is held while threads or tasks run, which end with the kernel: after a restore it is free"
    return Unsaved("lock", name, reason, root)


def lost(name: str, parts: Iterable[tuple[str, str, str]], root: int) -> dict[str, Unsaved]:
    """What to say of parts of an object that cannot be saved, by path: of each its name, its type, and why."""
    paths = {f"{name:.300}.{part or 'items':.300}": (kind, why) for part, kind, why in parts}
    return {path: Unsaved(kind, path, why, root) for path, (kind, why) in paths.items()}


def lost_parts(parts: Mapping[str, tuple[Any, Exception]]) -> tuple[tuple[str, str, str], ...]:
    """What `lost` has to be given of parts that were refused with an error each."""
    return tuple((part, type_name(one), reason(why, one)) for part, (one, why) in parts.items())


def label(value: Any) -> str:
    """The name of a class or a function, else that of the value's type."""
    named = is_a(value, type | types.FunctionType)
    return f"{qualified_name(value) if named else type_name(value):.100}"


def type_name(value: Any) -> str:
    """The name of a value's type, never asking the value itself."""
    return name_of(type(value))[:200]


def reason(error: BaseException, culprit: Any) -> str:
    """One sentence that says why `culprit` cannot be saved and what to do."""
    if type(error) is NotItsName:
        return str(error)
    known = _known(culprit)
    if known is not None:
        return known
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - the error may come from user code, whose __str__ may fail as well
        text = "its own error message cannot be read"
    refused = _REFUSED.search(text) if is_a(error, TypeError) else None
    if refused is not None:
        return f"a value of type {refused[1]} cannot be saved; keep what it is made from, and make it again"
    kind = name_of(type(error))[:100]
    return f"{kind}: {text[:300]}" if text else kind


def _known(value: Any) -> str | None:
    """What there is to say about a value of Python's own kinds, or of one based on them."""
    for cls in bases_of(type(value)):
        home = module_of(cls)
        if home == "__main__":
            continue
        name = name_of(cls)
        if home.partition(".")[0] == "multiprocessing":
            return f"what belongs to several processes ({name}) cannot be saved; make it again where it is needed"
        if (found := _KINDS.get(name)) is not None:
            return found
        if (describe := _BY_STATE.get((home, name))) is not None:
            with contextlib.suppress(BaseException):  # one that is half made does not know its state
                return describe(cls, value)
    return None


def _future(cls: Any, value: Any) -> str:
    """A future or a task, as its own class knows it: methods of the session's may do anything."""
    kind = "task" if name_of(cls) == "Task" else "future"
    if not cls.done(value):
        return f"a {kind} that is not done cannot be saved; keep its result when it has one"
    if cls.cancelled(value):
        return f"a {kind} cannot be saved; this one was cancelled"
    return f"a {kind} cannot be saved; this one is done: keep what its result() gives, or its exception()"


def _program(cls: Any, value: Any) -> str:
    if value.returncode is None:
        return "a running program and its pipes cannot be saved (there is a lock in it); start it again"
    return "a program that has ended cannot be saved (there is a lock in it); keep its output and its returncode"


def _thread(cls: Any, value: Any) -> str:
    ended = cls.ident.__get__(value) is not None and not cls.is_alive(value)
    return "a thread cannot be saved; " + ("this one has ended: keep what it made" if ended else "start it again")


_BY_STATE: dict[tuple[str, str], Callable[[Any, Any], str]] = {
    ("_asyncio", "Future"): _future,
    ("_asyncio", "Task"): _future,
    ("asyncio.futures", "Future"): _future,
    ("asyncio.tasks", "Task"): _future,
    ("concurrent.futures._base", "Future"): _future,
    ("subprocess", "Popen"): _program,
    ("threading", "Thread"): _thread,
}
"""What is said of kinds that come to an end, by module and name of the class."""


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
