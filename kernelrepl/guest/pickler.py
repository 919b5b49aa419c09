"""Turn one part of the session into bytes, faithfully.

cloudpickle does most of it. This module changes what it gets wrong for a session that goes on living:
functions refer to the namespace instead of copying what they name, classes and top-level functions are
stored once and referred to by identity, closures share their cells, arrays share their memory.

Runs in the kernel. It only reads; what it calls of the user's code is `__reduce__` and its relatives.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import pickle
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, cast

import cloudpickle
from cloudpickle.cloudpickle import _code_reduce, _should_pickle_by_reference

from kernelrepl.guest import classes, functions, instances, landmarks, library, recipes, sources
from kernelrepl.guest.arrays import ArraySupport
from kernelrepl.guest.depth import deeper, is_too_deep
from kernelrepl.guest.inert import is_inert
from kernelrepl.guest.sharing import shareable
from kernelrepl.guest.stream import SetAside, Stream
from kernelrepl.guest.texts import Texts
from kernelrepl.guest.words import EVERYTHING, words_of

PICKLE_PROTOCOL = 5
_HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: the class was made by a class statement, not compiled into the interpreter."""


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
        self.imported: set[str] = set()
        """Submodules that import statements of the session named."""
        self.arrays = ArraySupport()
        self.texts = Texts()
        self.landmarks = landmarks.Landmarks()
        self._by_reference: dict[int, tuple[Any, bool]] = {}
        self.shareable_kinds: dict[type, bool] = {}
        self._reducers: dict[type, Reducer | None] = {}
        self._words: dict[int, tuple[types.CodeType, frozenset[str]]] = {}

    def words_of(self, code: types.CodeType) -> frozenset[str]:
        """What code names; the code is kept so that its number stays its own."""
        known = self._words.get(id(code))
        if known is None:
            known = self._words[id(code)] = (code, frozenset(words_of(code)))
        return known[1]

    def renewed(self) -> Surroundings:
        """The same session, looked at anew."""
        around = Surroundings(self.namespace, self.main_module, self.shell)
        around.imported, around.texts = self.imported, self.texts
        around._words = self._words
        return around

    def reducer(self, kind: type) -> Reducer | None:
        """How objects of a kind are reduced; None leaves it to cloudpickle."""
        try:
            return self._reducers[kind]
        except KeyError:
            found = self._reducers[kind] = self._find_reducer(kind)
            return found

    def _find_reducer(self, kind: type) -> Reducer | None:
        if issubclass(kind, type):
            return ComponentPickler.reduce_class
        if kind in _REDUCERS:
            return _REDUCERS[kind]
        if (reduce := self.arrays.reducer(kind) or library.reducer(kind)) is not None:
            return cast(Reducer, reduce)
        if kind is type(self.shell):
            return _reduce_shell
        if issubclass(kind, types.ModuleType):
            return landmarks.reduce_module
        if issubclass(kind, io.IOBase) and not issubclass(kind, io.BytesIO | io.StringIO):
            return _reduce_file
        if kind.__name__ == "CallbackRegistry" and kind.__module__ == "matplotlib.cbook":
            return _reduce_callbacks
        return instances.plan(kind, self)

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
        self.inert = True
        self.words: set[str] = set()
        self.reaches: list[int] = []
        self.buffers: list[memoryview] = []
        self.inside_frame: Any = None
        self.kept: list[Any] = []
        """Temporary objects that must live as long as the stream is written."""
        self.owned: set[int] = set()
        """Temporary arrays that stand for the array whose memory they use."""
        super().__init__(sink, protocol=PICKLE_PROTOCOL)

    def set_aside(self, buffer: Any) -> SetAside:
        """Keep a large buffer out of the stream; the stream says only which one it is."""
        view = memoryview(buffer).cast("B")
        self.sink.count(view.nbytes)
        self.buffers.append(view)
        return SetAside(len(self.buffers) - 1)

    def stream(self, data: bytes, buffers: list[memoryview], shareable: list[Any], plain: bool = True) -> Stream:
        """What has been pickled."""
        return Stream(
            data=data,
            buffers=buffers,
            references=list(self.references.values()),
            shareable=shareable,
            array_roots=self.array_roots,
            has_code=self.has_code,
            words=frozenset(self.words),
            reaches=tuple(self.reaches),
            plain=plain,
            inert=self.inert and plain and not (self.references or self.has_code or self.words or self.reaches),
        )

    def reducer_override(self, obj: Any) -> Any:
        self.inert = self.inert and is_inert(obj)
        known = self.around.landmarks.find(obj)
        if known is not None and type(obj) is not types.ModuleType:
            return recipes.attribute, known
        reduce = self.around.reducer(type(obj))
        return NotImplemented if reduce is None else reduce(self, obj)

    def reduce_function(self, obj: types.FunctionType) -> Any:
        if self.around.is_own_function(obj):
            if id(obj) not in self.members and self.around.is_entity(obj):
                return self._refer(obj)
            self.inline_functions.add(id(obj))
            return functions.reduce_own(obj)
        if _should_pickle_by_reference(obj):
            return self.note_name(obj)
        self.inline_functions.add(id(obj))
        return functions.reduce_foreign(obj)

    def note_name(self, obj: Any) -> Any:
        """A function that is saved by its name; there are some by which anything can be reached."""
        if obj.__name__ in EVERYTHING:
            self.words.add(obj.__name__)
        return NotImplemented

    def reduce_class(self, obj: type) -> Any:
        if not self.around.is_own_class(obj):
            return super().reducer_override(obj)
        if id(obj) not in self.members:
            return self._refer(obj)
        self.has_code = True
        if classes.is_plain(obj):
            return classes.reduce_class(obj)
        reduced = super().reducer_override(obj)
        # Pickling an instance leaves this cache in its class; the class did not change by that.
        reduced[2][0].pop("__slotnames__", None)
        return reduced

    def reduce_code(self, obj: types.CodeType) -> Any:
        self.has_code = True
        self.words |= self.around.words_of(obj)
        source = sources.of(obj)
        if source is None:
            return NotImplemented
        _, arguments = _code_reduce(obj)
        # Apart, because a Python that compiles the source must not even look at it.
        return recipes.code, (tuple(source), self.nested(arguments))

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
        self.words |= inner.words
        self.inert = self.inert and inner.inert
        return b"".join(inner.sink.parts)


class LandmarkAwarePickler(ComponentPickler):
    """For the rare stream that holds `globals()`, `sys.path`, or the namespace of a module: asks about every object."""

    def persistent_id(self, obj: Any) -> Any:
        if obj is self.around.namespace:
            return "namespace"
        return self.around.landmarks.find(obj) if type(obj) in (dict, list) else None


def _reduce_shell(pickler: ComponentPickler, obj: Any) -> Any:
    return (recipes.shell, ()) if obj is pickler.around.shell else NotImplemented


def _reduce_callbacks(pickler: ComponentPickler, obj: Any) -> Any:
    # matplotlib draws a number from the registry's counter to save it, so that every figure would look changed
    # by having been looked at. The counter is put back.
    reduced = obj.__reduce_ex__(PICKLE_PROTOCOL)
    number = reduced[2].get("_cid_gen") if isinstance(reduced[2], dict) else None
    if isinstance(number, int):
        obj._cid_gen = itertools.count(number)
    return reduced


def _reduce_file(pickler: ComponentPickler, obj: Any) -> Any:
    for name in ("stdin", "stdout", "stderr"):
        if obj is getattr(sys, name) or obj is getattr(sys, f"__{name}__"):
            return recipes.attribute, ("sys", name)
    raise pickle.PicklingError("an open file cannot be saved; keep its path and open it again")


Reducer = Callable[[ComponentPickler, Any], Any]
_REDUCERS: dict[type, Reducer] = {
    **landmarks.REDUCERS,
    **instances.REDUCERS,
    **classes.REDUCERS,
    types.FunctionType: ComponentPickler.reduce_function,
    types.CodeType: ComponentPickler.reduce_code,
    types.BuiltinFunctionType: ComponentPickler.note_name,
    types.CellType: lambda pickler, obj: functions.reduce_cell(obj),
    functions.LRU_CACHE: lambda pickler, obj: functions.reduce_lru_cache(obj),
    functools.cached_property: lambda pickler, obj: functions.reduce_cached_property(obj),
    typing.ParamSpec: lambda pickler, obj: classes.reduce_type_parameter(obj),
    typing.TypeVarTuple: lambda pickler, obj: classes.reduce_type_parameter(obj),
    typing.NewType: lambda pickler, obj: classes.reduce_new_type(obj),
}


def holds_landmark(memo: dict[int, tuple[int, Any]], around: Surroundings) -> bool:
    """Whether a stream holds a dict or list that must not come back as a copy."""
    if id(around.namespace) in memo:
        return True
    return around.landmarks.among(memo)


def start(
    around: Surroundings,
    identify: Callable[[Any], int],
    members: frozenset[int],
    shared: frozenset[int] = frozenset(),
    limit_bytes: int | None = None,
    kind: type[ComponentPickler] = ComponentPickler,
) -> ComponentPickler:
    """A pickler for one component; see `dump`."""
    return kind(_Sink(limit_bytes), around, identify, members, shared)


def dump(
    values: Any,
    around: Surroundings,
    identify: Callable[[Any], int],
    members: frozenset[int],
    shared: frozenset[int] = frozenset(),
    limit_bytes: int | None = None,
    plain: bool = False,
) -> tuple[Stream, Any]:
    """Pickle `values` as one component.

    plain: nothing in it is a landmark, and what it shares with others need not be found out.

    Returns the stream and an opaque keeper of the temporary objects that were pickled: as long as it
    lives, no id in `shareable` can be taken by another object. Raises TooLarge, or whatever the
    user's reducers raise.
    """

    def begin(kind: type[ComponentPickler]) -> ComponentPickler:
        return start(around, identify, members, shared, limit_bytes, kind)

    pickler = begin(ComponentPickler)
    failed: Exception | None = None
    try:
        pickler.dump(values)
    except Exception as error:  # noqa: BLE001 - raised again if another attempt has no better chance
        failed = error
    deep = failed is not None and is_too_deep(failed)
    memo = {} if plain and failed is None else pickler.memo.copy()
    special = holds_landmark(memo, around)
    if deep or special:
        pickler = begin(LandmarkAwarePickler if special else ComponentPickler)
        with deeper() if deep else contextlib.nullcontext():
            pickler.dump(values)
        memo = pickler.memo.copy()
    elif failed is not None:
        raise failed
    memo.pop(id(values), None)  # ours, and gone in a moment
    found = list(shareable(memo, pickler))
    return pickler.stream(b"".join(pickler.sink.parts), pickler.buffers, found, not special), memo
