"""What saved sessions call by name when they are loaded.

The streams in the database refer to `kernelrepl.guest.recipes.<name>`. These functions are therefore
a storage format: they may be added to, but never renamed, moved, or given other arguments.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from kernelrepl.guest import code_sources, pouring


class Session(Protocol):
    """What a load needs to know of the session it restores into."""

    @property
    def namespace(self) -> dict[str, Any]: ...

    @property
    def main_module(self) -> types.ModuleType: ...

    @property
    def shell(self) -> Any: ...

    @property
    def compiler(self) -> str | None:
        """The Python that compiled the code in what is being loaded, if that is not this one."""

    @property
    def imported(self) -> set[str]:
        """Submodules that import statements named."""

    def resolve(self, root: int) -> Any:
        """The object with this identity, which another component holds."""

    def buffer(self, index: int) -> Any:
        """An out-of-band buffer of the component that is being loaded."""

    def load_nested(self, stream: Any, lent: tuple[Any, ...] = ()) -> Any: ...

    def lent(self, index: int) -> Any:
        """What the stream that another one is in has lent to it."""


_current: Session | None = None


@contextlib.contextmanager
def restoring(session: Session) -> Iterator[None]:
    """Make `session` the one that recipes refer to."""
    global _current
    previous, _current = _current, session
    try:
        yield
    finally:
        _current = previous


def _session() -> Session:
    if _current is None:
        raise RuntimeError("a saved component can be loaded only while its session is restored")
    return _current


def ref(root: int) -> Any:
    return _session().resolve(root)


def main_module() -> types.ModuleType:
    return _session().main_module


def namespace() -> dict[str, Any]:
    return _session().namespace


def shell() -> Any:
    return _session().shell


def attribute(module: str, name: str) -> Any:
    found = getattr(importlib.import_module(module), name)
    pouring.restored.setdefault(id(found), (found, {}))
    return found


def one(module: str, name: str, state: bytes) -> Any:
    """What a module has one of, as the session had it: what is in it as in a copy that was saved."""
    found, kept = attribute(module, name), _session().load_nested(state)
    if found is not kept and pouring.full_name(found) != pouring.full_name(kept):
        return kept
    pouring.change(found, kept, {}, {}, [])
    return found


def one_state(target: Any, state: tuple[Any, dict[str, Any], dict[str, Any], list[str]]) -> None:
    """state: (a copy or None, parts that say something else, parts that are others, attributes that are gone)."""
    pouring.change(target, *state)


def code(source: tuple[Any, ...], arguments: Any) -> types.CodeType:
    """Code of a cell: as it was compiled, or by another Python from its source."""
    known, session = code_sources.Source(*source), _session()
    code_sources.remember(known)
    if session.compiler is not None:
        return code_sources.compiled(known)
    return types.CodeType(*session.load_nested(arguments)).replace(co_filename=known.file)


def function(code: types.CodeType, name: str, closure: tuple[types.CellType, ...] | None) -> Any:
    return types.FunctionType(code, _session().namespace, name, None, closure)


def function_state(target: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    attributes, slots = state
    target.__dict__.update(attributes)
    for name, value in slots.items():
        setattr(target, name, value)


def cell() -> types.CellType:
    return types.CellType()


def cell_state(target: types.CellType, state: tuple[Any]) -> None:
    target.cell_contents = state[0]


def lru_cache(wrapped: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize=maxsize, typed=typed)(wrapped)


def object_state(target: Any, state: dict[str, Any]) -> None:
    target.__dict__.update(state)


def array(data: Any, dtype: Any, shape: tuple[int, ...], order: str, writeable: bool) -> Any:
    np = sys.modules.get("numpy") or importlib.import_module("numpy")
    result = np.empty(shape, dtype, order=order)
    put(data, memoryview(result.reshape(-1, order="A").view("u1")))
    if not writeable:
        result.flags.writeable = False
    return result


def view(root: Any, offset: int, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], writeable: bool) -> Any:
    np = sys.modules.get("numpy") or importlib.import_module("numpy")
    flat = np.asarray(root).ravel(order="K")
    readonly = not flat.flags.writeable
    if readonly and writeable:
        # A view may be older than the flag of the array that it looks at.
        root.flags.writeable = True
        flat = np.asarray(root).ravel(order="K")
    if dtype.kind == "T":  # these texts lie elsewhere, and only the array's own slices find them
        step, first = strides[0] // dtype.itemsize, offset // dtype.itemsize
        last = first + step * shape[0]
        result = flat[first : last if last >= 0 else None : step]
    else:
        memory = flat if root.dtype.hasobject else flat.view("u1")
        result = np.ndarray(shape, dtype, memory, offset, strides)
    if readonly and writeable:
        root.flags.writeable = False
    if not writeable:
        result.flags.writeable = False
    return result


def buffer(index: int) -> Any:
    return _session().buffer(index)


def put(data: Any, target: memoryview) -> None:
    """Bring a buffer to its place in memory."""
    if hasattr(data, "into"):
        data.into(target)
    else:
        target[:] = memoryview(data).cast("B")


def whole(data: Any) -> Any:
    """A buffer as bytes."""
    if not hasattr(data, "into"):
        return data
    found = bytearray(data.nbytes)
    data.into(memoryview(found))
    return found


def nested(stream: bytes) -> Any:
    return _session().load_nested(stream)


def nested_lending(stream: bytes, lent: tuple[Any, ...]) -> Any:
    return _session().load_nested(stream, lent)


def lent(index: int) -> Any:
    return _session().lent(index)


def segments(kind: type, first: int, count: int) -> Any:
    """A long list or dict, from so many buffers of its component."""
    session = _session()
    whole = kind()
    add = whole.extend if kind is list else whole.update
    for index in range(first, first + count):
        add(session.load_nested(session.buffer(index)))
    return whole


def made(kind: type) -> Any:
    """An object without a state of its own."""
    return kind()


def match(pattern: Any, text: Any, how: str, start: int, end: int) -> Any:
    """What a pattern finds in a text once more: match, search or fullmatch, from where to where."""
    return getattr(pattern, how)(text, start, end)


def sentinels(obj: Any, state: dict[str, Any]) -> None:
    """Attributes of a part of an argument parser, which knows one text by its identity."""
    suppress = importlib.import_module("argparse").SUPPRESS
    obj.__dict__.update({key: suppress if value == suppress else value for key, value in state.items()})


# Functions whose globals are not the namespace


def function_of(
    module: str, code: types.CodeType, name: str, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    return types.FunctionType(code, vars(importlib.import_module(module)), name, None, closure)


def function_in(
    space: dict[str, Any], code: types.CodeType, name: str, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    return types.FunctionType(code, space, name, None, closure)


def space(name: str) -> dict[str, Any]:
    """Globals of their own for functions."""
    return {"__name__": name, "__builtins__": builtins}


def function_state_in(target: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]) -> None:
    """The state of a function, and what it needs of its globals."""
    attributes, slots, used = state
    function_state(target, (attributes, slots))
    target.__globals__.update(used)


def cached_property(wrapped: Callable[..., Any], name: str | None) -> Any:
    result: Any = functools.cached_property(wrapped)
    result.attrname = name
    return result


# Modules and what every process has one of


def module(name: str, submodules: tuple[str, ...]) -> types.ModuleType:
    result = importlib.import_module(name)
    for submodule in submodules:
        importlib.import_module(submodule)
    _session().imported.update(submodules)
    return result


def namespace_of(module: str) -> dict[str, Any]:
    return vars(importlib.import_module(module))


# What looks at another object


def dict_view(mapping: Any, kind: str) -> Any:
    base: Any = collections.OrderedDict if isinstance(mapping, collections.OrderedDict) else dict
    return getattr(base, kind)(mapping)


def dict_iterator(mapping: Any, kind: str, order: str, taken: int) -> Any:
    """An iterator over a dict that has given so many items."""
    found = getattr(builtins, order)(dict_view(mapping, kind))
    for _ in range(taken):
        next(found)
    return found


def proxy(mapping: Any) -> Any:
    return types.MappingProxyType(mapping)


def class_namespace(cls: type) -> Any:
    return vars(cls)


def weak_container_state(target: Any, state: list[Any]) -> None:
    target.update(state)


# Arrays and frames


def memory(
    source: Any, offset: int, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], writeable: bool
) -> Any:
    """An array in the memory of an object that is no array."""
    np = sys.modules.get("numpy") or importlib.import_module("numpy")
    result = np.ndarray(shape, dtype, source, offset, strides)
    if not writeable:
        result.flags.writeable = False
    return result


def array_of_kind(data: Any, kind: type) -> Any:
    return data.view(kind)


def permuted_array(data: Any, dtype: Any, shape: tuple[int, ...], axes: tuple[int, ...], writeable: bool) -> Any:
    """axes: those of the array in the order of its memory."""
    in_memory = array(data, dtype, tuple(shape[axis] for axis in axes), "C", True)
    result = in_memory.transpose(sorted(range(len(axes)), key=axes.__getitem__))
    if not writeable:
        result.flags.writeable = False
    return result


def arrow_buffer(data: Any) -> Any:
    result = importlib.import_module("pyarrow").allocate_buffer(data.nbytes if hasattr(data, "nbytes") else len(data))
    put(data, memoryview(result).cast("B"))
    return result


def empty_array(dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    np = sys.modules.get("numpy") or importlib.import_module("numpy")
    return np.empty(shape, dtype, order=order)


def array_items(target: Any, state: tuple[list[Any], bool]) -> None:
    items, writeable = state
    if items:
        target.ravel(order="A" if target.flags.forc else "K")[...] = _column(items)
    if not writeable:
        target.flags.writeable = False


def texts(parts: list[Any], dtype: Any, shape: tuple[int, ...], order: str, writeable: bool) -> Any:
    result = empty_array(dtype, shape, order)
    array_items(result, ([item for part in parts for item in _session().load_nested(part)], writeable))
    return result


def _column(items: list[Any]) -> Any:
    """An array of objects that holds each item as it is; assigning them would unpack arrays."""
    np = sys.modules.get("numpy") or importlib.import_module("numpy")
    column = np.empty(0, dtype=object)
    column.__setstate__((1, (len(items),), column.dtype, False, items))
    return column


def frame_state(target: Any, state: tuple[dict[int, list[Any]], dict[Any, Any]]) -> None:
    """state: the cells of columns of objects by position, and the attributes."""
    cells, attributes = state
    for position, items in cells.items():
        if target.ndim == 1:
            target.iloc[:] = _column(items)
        else:
            pandas = sys.modules["pandas"]
            target.isetitem(position, pandas.Series(_column(items), index=target.index, dtype=object, copy=False))
    target._attrs = attributes
