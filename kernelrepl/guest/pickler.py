"""Turn one part of the session into bytes, faithfully.

cloudpickle does most of it. This module changes what it gets wrong for a session that goes on living:
functions refer to the namespace instead of copying what they name, classes and top-level functions are
stored once and referred to by identity, closures share their cells, arrays share their memory.

Runs in the kernel. It only reads; what it calls of the user's code is `__reduce__` and its relatives.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import logging
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import _should_pickle_by_reference

from kernelrepl.guest import recipes
from kernelrepl.guest.arrays import ArraySupport

PICKLE_PROTOCOL = 5
_HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: the class was made by a class statement, not compiled into the interpreter."""

_LRU_CACHE = type(functools.lru_cache(len))
_SENTINELS = {
    id(value): ("dataclasses", name)
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY")
    if (value := getattr(dataclasses, name, None)) is not None
}


class TooLarge(Exception):
    """The stream passed the limit before it was complete."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class _Sink(io.RawIOBase):
    """Collects the stream and stops it as soon as it is too large."""

    def __init__(self, limit_bytes: int | None) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.limit_bytes = limit_bytes

    def write(self, data: Any) -> int:
        # bytes() copies what is a reused frame; big bytes objects come through as they are.
        part = data if isinstance(data, bytes) else bytes(data)
        self.parts.append(part)
        self.count(len(part))
        return len(part)

    def count(self, size: int) -> None:
        self.size += size
        if self.limit_bytes is not None and self.size > self.limit_bytes:
            raise TooLarge(self.limit_bytes)


class Surroundings:
    """What of the running session the pickler must know: shared by all streams of one pass."""

    def __init__(self, namespace: dict[str, Any], main_module: types.ModuleType, shell: Any) -> None:
        self.namespace = namespace
        self.main_module = main_module
        self.shell = shell
        self.arrays = ArraySupport()
        self._by_reference: dict[int, tuple[Any, bool]] = {}

    def is_own_class(self, cls: type) -> bool:
        """Whether a class must be stored by value: it was made in the session, or has no importable name."""
        known = self._by_reference.get(id(cls))
        if known is None:
            builtin = not cls.__flags__ & _HEAP_TYPE
            by_reference = builtin or (cls.__module__ != "__main__" and bool(_should_pickle_by_reference(cls)))
            known = self._by_reference[id(cls)] = (cls, by_reference)
        return not known[1]

    def is_own_function(self, function: types.FunctionType) -> bool:
        return function.__globals__ is self.namespace

    def is_entity(self, value: Any) -> bool:
        """Whether other components refer to this object by identity instead of containing it."""
        if isinstance(value, types.FunctionType):
            # Methods and inner functions stay with what holds them; sharing one unites its holders.
            return self.is_own_function(value) and "." not in value.__qualname__
        return isinstance(value, type) and self.is_own_class(value)


@dataclasses.dataclass
class Stream:
    """One pickled component: the stream, its out-of-band buffers and what it touches."""

    data: bytes
    buffers: list[memoryview]
    references: list[Any]
    """Entities that the stream refers to instead of containing them."""
    shareable: list[Any]
    """Mutable objects in it; the same object in two streams means an alias."""
    array_roots: list[tuple[Any, Any]]
    """(array, the array that owns its memory) for each array met."""
    has_code: bool

    @property
    def size_bytes(self) -> int:
        return len(self.data) + sum(buffer.nbytes for buffer in self.buffers)


class ComponentPickler(cloudpickle.Pickler):
    """Pickles the members of one component.

    identify: gives the durable identity of an entity. members: ids of the objects that belong to this
    component. shared: ids of arrays whose memory several arrays use.
    """

    def __init__(
        self,
        sink: _Sink,
        around: Surroundings,
        identify: Callable[[Any], int],
        members: frozenset[int],
        shared: frozenset[int],
    ) -> None:
        self.sink = sink
        self.around = around
        self.identify = identify
        self.members = members
        self.shared = shared
        self.references: dict[int, Any] = {}
        self.inline_functions: set[int] = set()
        self.array_roots: list[tuple[Any, Any]] = []
        self.has_code = False
        self.buffers: list[memoryview] = []
        self.inside_frame: Any = None
        super().__init__(sink, protocol=PICKLE_PROTOCOL)

    def set_aside(self, buffer: Any) -> _SetAside:
        """Keep a large buffer out of the stream; the stream says only which one it is."""
        view = memoryview(buffer).cast("B")
        self.sink.count(view.nbytes)
        self.buffers.append(view)
        return _SetAside(len(self.buffers) - 1)

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is types.FunctionType:
            return self._reduce_function(obj)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if kind is types.CellType:
            return _reduce_cell(obj)
        if kind is types.CodeType:
            self.has_code = True
            return NotImplemented
        if kind is _LRU_CACHE:
            return _reduce_lru_cache(obj)
        if kind is memoryview:
            raise pickle.PicklingError("a memoryview cannot be saved; keep the object it looks at instead")
        if isinstance(obj, io.IOBase) and not isinstance(obj, io.BytesIO | io.StringIO):
            return _reduce_file(obj)
        if obj is self.around.main_module:
            return recipes.main_module, ()
        if obj is self.around.shell:
            return recipes.shell, ()
        if (sentinel := _SENTINELS.get(id(obj))) is not None:
            return recipes.attribute, sentinel
        if kind.__name__ == "CallbackRegistry" and kind.__module__ == "matplotlib.cbook":
            return _reduce_callbacks(obj)
        reduced = self.around.arrays.reduce(self, obj, kind)
        if reduced is not NotImplemented:
            return reduced
        return super().reducer_override(obj)

    def _reduce_function(self, obj: types.FunctionType) -> Any:
        if self.around.is_own_function(obj):
            if id(obj) not in self.members and self.around.is_entity(obj):
                return self._refer(obj)
            self.inline_functions.add(id(obj))
            return _own_function(obj)
        reduced = super().reducer_override(obj)
        if reduced is not NotImplemented:
            self.inline_functions.add(id(obj))
        return reduced

    def _reduce_class(self, obj: type) -> Any:
        if self.around.is_own_class(obj):
            if id(obj) not in self.members:
                return self._refer(obj)
            self.has_code = True
            reduced = super().reducer_override(obj)
            # Pickling an instance leaves this cache in its class; the class did not change by that.
            reduced[2][0].pop("__slotnames__", None)
            return reduced
        return super().reducer_override(obj)

    def _refer(self, obj: Any) -> Any:
        self.references[id(obj)] = obj
        return recipes.ref, (self.identify(obj),)

    def nested(self, obj: Any) -> bytes:
        """Pickle `obj` in a stream of its own, so that nothing in it is an alias of anything outside."""
        room = None if self.sink.limit_bytes is None else self.sink.limit_bytes - self.sink.size
        inner = ComponentPickler(_Sink(room), self.around, self.identify, self.members, frozenset())
        inner.buffers = self.buffers
        inner.inside_frame = obj
        inner.dump(obj)
        self.references.update(inner.references)
        self.has_code = self.has_code or inner.has_code
        return b"".join(inner.sink.parts)


class _SetAside:
    """Stands for a buffer that travels beside the stream."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> Any:
        return recipes.buffer, (self.index,)


class NamespaceAwarePickler(ComponentPickler):
    """For the rare stream that holds the namespace itself (`[globals()]`): asks about every object."""

    def persistent_id(self, obj: Any) -> str | None:
        return "namespace" if obj is self.around.namespace else None


def _own_function(obj: types.FunctionType) -> Any:
    slots = {
        "__qualname__": obj.__qualname__,
        "__module__": obj.__module__,
        "__defaults__": obj.__defaults__,
        "__kwdefaults__": obj.__kwdefaults__,
        "__doc__": obj.__doc__,
        "__annotations__": obj.__annotations__,
    }
    if type_params := getattr(obj, "__type_params__", ()):
        slots["__type_params__"] = type_params
    return (
        recipes.function,
        (obj.__code__, obj.__name__, obj.__closure__),
        (dict(obj.__dict__), slots),
        None,
        None,
        recipes.function_state,
    )


def _reduce_cell(obj: types.CellType) -> Any:
    try:
        contents = obj.cell_contents
    except ValueError:
        return recipes.cell, ()
    return recipes.cell, (), (contents,), None, None, recipes.cell_state


def _reduce_lru_cache(obj: Any) -> Any:
    # The cached entries are left out: they are a cache, and may be of any size.
    parameters = obj.cache_parameters()
    state = {key: value for key, value in obj.__dict__.items() if key != "__wrapped__"}
    return (
        recipes.lru_cache,
        (obj.__wrapped__, parameters["maxsize"], parameters["typed"]),
        state,
        None,
        None,
        recipes.object_state,
    )


def _reduce_callbacks(obj: Any) -> Any:
    # matplotlib draws a number from the registry's counter to save it, so that every figure would look changed
    # by having been looked at. The counter is put back.
    reduced = obj.__reduce_ex__(PICKLE_PROTOCOL)
    number = reduced[2].get("_cid_gen") if isinstance(reduced[2], dict) else None
    if isinstance(number, int):
        obj._cid_gen = itertools.count(number)
    return reduced


def _reduce_file(obj: Any) -> Any:
    for name in ("stdin", "stdout", "stderr"):
        if obj is getattr(sys, name) or obj is getattr(sys, f"__{name}__"):
            return recipes.attribute, ("sys", name)
    raise pickle.PicklingError("an open file cannot be saved; keep its path and open it again")


_NEVER_ALIASED: tuple[type, ...] = ()


def _never_aliased() -> tuple[type, ...]:
    """Types whose identity nobody can observe through a change: they never unite two components."""
    import datetime
    import decimal
    import enum
    import fractions
    import pathlib
    import re
    import uuid

    return (
        str, bytes, int, float, complex, type(None), tuple, frozenset, range, slice, type,
        types.BuiltinFunctionType, types.ModuleType, types.CodeType, types.MethodType,
        types.GenericAlias, types.UnionType, property, staticmethod, classmethod,
        datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, decimal.Decimal,
        fractions.Fraction, uuid.UUID, pathlib.PurePath, re.Pattern, enum.Enum, logging.Logger,
        pickle.PickleBuffer, type(Ellipsis), type(NotImplemented),
    )  # fmt: skip


def _shareable(memo: dict[int, tuple[int, Any]], pickler: ComponentPickler) -> Iterator[Any]:
    global _NEVER_ALIASED
    if not _NEVER_ALIASED:
        _NEVER_ALIASED = _never_aliased()
    skip = _NEVER_ALIASED + pickler.around.arrays.never_aliased
    cell_or_function = (types.FunctionType,)
    sentinels = _SENTINELS
    around = pickler.around
    for _, value in memo.values():
        if isinstance(value, skip):
            continue
        if isinstance(value, cell_or_function) and id(value) not in pickler.inline_functions:
            continue
        if value is around.main_module or value is around.shell or id(value) in sentinels:
            continue
        yield value


def dump(
    values: Any,
    around: Surroundings,
    identify: Callable[[Any], int],
    members: frozenset[int],
    shared: frozenset[int] = frozenset(),
    limit_bytes: int | None = None,
) -> tuple[Stream, Any]:
    """Pickle `values` as one component.

    Returns the stream and an opaque keeper of the temporary objects that were pickled: as long as it
    lives, no id in `shareable` can be taken by another object. Raises TooLarge, or whatever the
    user's reducers raise.
    """
    sink = _Sink(limit_bytes)
    pickler = ComponentPickler(sink, around, identify, members, shared)
    try:
        pickler.dump(values)
    except Exception:
        if id(around.namespace) not in pickler.memo.copy():
            raise
    memo = pickler.memo.copy()
    if id(around.namespace) in memo:
        sink = _Sink(limit_bytes)
        pickler = NamespaceAwarePickler(sink, around, identify, members, shared)
        pickler.dump(values)
        memo = pickler.memo.copy()
    stream = Stream(
        data=b"".join(sink.parts),
        buffers=pickler.buffers,
        references=list(pickler.references.values()),
        shareable=list(_shareable(memo, pickler)),
        array_roots=pickler.array_roots,
        has_code=pickler.has_code,
    )
    return stream, memo
