"""Turn one part of the session into bytes, faithfully.

cloudpickle does most of it. This module changes what it gets wrong for a session that goes on living:
functions refer to the namespace instead of copying what they name, classes and top-level functions are
stored once and referred to by identity, closures share their cells, arrays share their memory.

Runs in the kernel. It only reads; what it calls of the user's code is `__reduce__` and its relatives.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Any, cast

import cloudpickle
from cloudpickle.cloudpickle import _code_reduce, _should_pickle_by_reference

from kernelrepl.guest import code_sources, recipes
from kernelrepl.guest.code_names import EVERYTHING, words_of
from kernelrepl.guest.depth import deeper, is_too_deep
from kernelrepl.guest.neutral import flags_of, is_a, module_of
from kernelrepl.guest.pickling import classes, functions, instances, library, locks, modules, singletons, tables
from kernelrepl.guest.pickling.arrays import ArraySupport
from kernelrepl.guest.pickling.inert import is_inert
from kernelrepl.guest.pickling.proven import Proven, has_state
from kernelrepl.guest.pickling.sharing import shareable
from kernelrepl.guest.pickling.stream import SetAside, Sink, Stream
from kernelrepl.guest.pickling.texts import Texts

PICKLE_PROTOCOL = 5
_HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: the class was made by a class statement, not compiled into the interpreter."""


class PicklingContext:
    """What of the running session the pickler must know: shared by all streams of one pass."""

    def __init__(self, namespace: dict[str, Any], main_module: types.ModuleType, shell: Any) -> None:
        self.namespace = namespace
        self.main_module = main_module
        self.shell = shell
        self.imported: set[str] = set()
        """Submodules that import statements of the session named."""
        self.arrays = ArraySupport()
        self.texts = Texts()
        self.singletons = singletons.Singletons()
        self.tables = tables.Tables(shell)
        self._by_reference: dict[int, tuple[Any, bool]] = {}
        self.shareable_kinds: dict[type, bool] = {}
        self.proven = Proven()
        self.doubtful: set[type] = set()
        """Kinds of which it has yet to be tried whether they can be loaded, as far as this pass has met them."""
        self._reducers: dict[type, Reducer | None] = {}
        self._words: dict[int, tuple[types.CodeType, frozenset[str]]] = {}
        self.others_run: Callable[[], bool] = lambda: False
        """Whether threads or tasks of the session run beside its cells."""

    def words_of(self, code: types.CodeType) -> frozenset[str]:
        """What code names; the code is kept so that its number stays its own."""
        known = self._words.get(id(code))
        if known is None:
            known = self._words[id(code)] = (code, frozenset(words_of(code)))
        return known[1]

    def renewed(self) -> PicklingContext:
        """The same session, looked at anew."""
        context = PicklingContext(self.namespace, self.main_module, self.shell)
        context.imported, context.texts = self.imported, self.texts
        context._words, context.proven, context.others_run = self._words, self.proven, self.others_run
        return context

    def reducer(self, kind: type) -> Reducer | None:
        """How objects of a kind are reduced; None leaves it to cloudpickle."""
        try:
            return self._reducers[kind]
        except KeyError:
            found = self._reducers[kind] = self._find_reducer(kind)
            if (
                found is None
                and not (self.is_own_class(kind) and instances.is_simple(kind))
                and self.proven.doubts(kind)
            ):
                self.doubtful.add(kind)
            if tables.has_some_of(kind):
                found = self._reducers[kind] = functools.partial(tables.reduce, found)
            return found

    def _find_reducer(self, kind: type) -> Reducer | None:
        if issubclass(kind, type):
            return ComponentPickler.reduce_class
        if kind in _REDUCERS:
            return _REDUCERS[kind]
        if (reduce := self.arrays.reducer(kind) or library.reducer(kind) or locks.reducer(kind)) is not None:
            return cast(Reducer, reduce)
        if kind is type(self.shell):
            return _reduce_shell
        if issubclass(kind, types.ModuleType):
            return modules.reduce
        return instances.plan(kind, self) or cast("Reducer | None", library.whole(self.proven.lacks(kind)))

    def forget(self, kind: type) -> None:
        """There is another way to reduce objects of a kind now."""
        self._reducers.pop(kind, None)
        self.doubtful.discard(kind)

    def is_own_class(self, cls: type) -> bool:
        """Whether a class must be stored by value: it was made in the session, or has no importable name."""
        known = self._by_reference.get(id(cls))
        if known is None:
            builtin = not flags_of(cls) & _HEAP_TYPE
            by_reference = builtin or (module_of(cls) != "__main__" and bool(_should_pickle_by_reference(cls)))
            known = self._by_reference[id(cls)] = (cls, by_reference)
        return not known[1]

    def is_own_function(self, function: types.FunctionType) -> bool:
        return function.__globals__ is self.namespace

    def is_entity(self, value: Any) -> bool:
        """Whether other components refer to this object by identity instead of containing it."""
        if is_a(value, types.FunctionType):
            # Methods and inner functions stay with what holds them; sharing one unites its holders.
            return self.is_own_function(value) and "." not in value.__qualname__
        return is_a(value, type) and self.is_own_class(value)


class ComponentPickler(cloudpickle.Pickler):
    """Pickles the members of one component.

    identify: gives the durable identity of an entity. members: ids of the objects that belong to this
    component. shared: ids of arrays whose memory several arrays use.
    """

    def __init__(
        self,
        sink: Sink,
        context: PicklingContext,
        identify: Callable[[Any], int],
        members: frozenset[int],
        shared: frozenset[int],
    ) -> None:
        self.sink = sink
        self.context = context
        self.identify = identify
        self.members = members
        self.shared = shared
        self.references: dict[int, Any] = {}
        self.inline_functions: set[int] = set()
        self.array_roots: list[tuple[Any, Any]] = []
        self.has_code = False
        self.inert = True
        self.freed = False
        self.lost: dict[str, tuple[Any, Exception]] = {}
        """Attributes of what a library has one of that were changed and cannot be saved, and why."""
        self.doubtful: dict[type, Any] = {}
        self.telling: set[type] = set()
        self.words: set[str] = set()
        self.reaches: list[int] = []
        self.buffers: list[memoryview] = []
        self.inside_frame: Any = None
        self.lent: dict[int, Any] | None = None
        """What a stream in another one takes from that, by id; None: it is in no other, or makes it for itself."""
        self.kept: list[Any] = []
        """Temporary objects that must live as long as the stream is written."""
        self.spaces: dict[int, Any] = {}
        """What stands for the globals of functions, by the id of these."""
        self.tables: dict[int, Any] = {}
        """The containers of libraries in it, by id."""
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
            doubtful=self.doubtful,
            freed=self.freed,
            lost=self.lost,
            telling=frozenset(self.telling),
        )

    def reducer_override(self, obj: Any) -> Any:
        self.inert = self.inert and is_inert(obj)
        known = self.context.singletons.find(obj)
        if known is not None and type(obj) is not types.ModuleType:
            return singletons.reduce_one(self, obj, known)
        reduce = self.context.reducer(type(obj))
        return self.reduce_as_usual(obj) if reduce is None else reduce(self, obj)

    def reduce_as_usual(self, obj: Any) -> Any:
        if type(obj) in self.context.doubtful:
            self.doubtful[type(obj)] = obj
            self.telling.update({type(obj)} if has_state(obj) else ())
        return NotImplemented

    def reduce_function(self, obj: types.FunctionType) -> Any:
        if self.context.is_own_function(obj):
            if self.context.is_entity(obj) and (id(obj) not in self.members or self.lent is not None):
                return self._refer(obj)
            self.inline_functions.add(id(obj))
            return functions.reduce_own(obj)
        if _should_pickle_by_reference(obj):
            return self.note_name(obj)
        self.inline_functions.add(id(obj))
        return functions.reduce_foreign(self, obj)

    def note_name(self, obj: Any) -> Any:
        """A function that is saved by its name; there are some by which anything can be reached."""
        if obj.__name__ in EVERYTHING:
            self.words.add(obj.__name__)
        return NotImplemented

    def reduce_class(self, obj: type) -> Any:
        if not self.context.is_own_class(obj):
            return super().reducer_override(obj)
        if id(obj) not in self.members or self.lent is not None:
            return self._refer(obj)
        if type(obj) is classes.C_ARRAY:
            return classes.reduce_c_array(obj)
        self.has_code = True
        if classes.is_plain(obj):
            return classes.reduce_class(obj)
        if self.context.proven.doubts(type(obj)):
            self.doubtful[type(obj)] = obj
            self.telling.add(type(obj))
        reduced = super().reducer_override(obj)
        # Pickling an instance leaves this cache in its class; the class did not change by that.
        reduced[2][0].pop("__slotnames__", None)
        return reduced

    def reduce_code(self, obj: types.CodeType) -> Any:
        self.has_code = True
        self.words |= self.context.words_of(obj)
        source = code_sources.of(obj)
        if source is None:
            return NotImplemented
        _, arguments = _code_reduce(obj)
        # Apart, because a Python that compiles the source must not even look at it.
        return recipes.code, (tuple(source), self.nested(arguments))

    def _refer(self, obj: Any) -> Any:
        if id(obj) in self.members and self.lent is not None:
            self.lent[id(obj)] = obj
            return recipes.lent, (list(self.lent).index(id(obj)),)
        self.references[id(obj)] = obj
        return recipes.ref, (self.identify(obj),)

    def reduce_nested(self, obj: Any) -> tuple[Any, ...]:
        """As `nested`, but for the classes and functions that this stream brings: there is one of each."""
        lent: dict[int, Any] = {}
        data = self.nested(obj, lent)
        return (recipes.nested_lending, (data, tuple(lent.values()))) if lent else (recipes.nested, (data,))

    def nested(self, obj: Any, lent: dict[int, Any] | None = None) -> bytes:
        """Pickle `obj` in a stream of its own, so that nothing in it is an alias of anything outside."""
        budget_bytes = None if self.sink.limit_bytes is None else self.sink.limit_bytes - self.sink.size
        inner = ComponentPickler(Sink(budget_bytes), self.context, self.identify, self.members, frozenset())
        inner.buffers = self.buffers
        inner.inside_frame, inner.lent = obj, lent
        inner.dump(obj)
        self.references.update(inner.references)
        self.has_code = self.has_code or inner.has_code
        self.words |= inner.words
        self.inert = self.inert and inner.inert
        self.doubtful |= inner.doubtful
        self.freed = self.freed or inner.freed
        self.telling |= inner.telling
        return b"".join(inner.sink.parts)


class SingletonAwarePickler(ComponentPickler):
    """For the rare stream that holds `globals()`, `sys.path`, or a table of a library: asks about every object."""

    def persistent_id(self, obj: Any) -> Any:
        if obj is self.context.namespace:
            return "namespace"
        known = self.context.singletons.find(obj) if type(obj) in (dict, list) else None
        return known or tables.persistent(self, obj)


def _reduce_shell(pickler: ComponentPickler, obj: Any) -> Any:
    return (recipes.shell, ()) if obj is pickler.context.shell else NotImplemented


Reducer = Callable[[ComponentPickler, Any], Any]
_REDUCERS: dict[type, Reducer] = {
    **singletons.REDUCERS,
    **instances.REDUCERS,
    **classes.REDUCERS,
    types.ModuleType: modules.reduce,
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


def holds_singleton(memo: dict[int, tuple[int, Any]], context: PicklingContext) -> bool:
    """Whether a stream holds a dict or list that must not come back as a copy."""
    if id(context.namespace) in memo:
        return True
    return context.singletons.among(memo) or context.tables.among(memo)


def component_pickler(
    context: PicklingContext,
    identify: Callable[[Any], int],
    members: frozenset[int],
    shared: frozenset[int] = frozenset(),
    limit_bytes: int | None = None,
    kind: type[ComponentPickler] = ComponentPickler,
) -> ComponentPickler:
    """A pickler for one component; see `dump`."""
    return kind(Sink(limit_bytes), context, identify, members, shared)


def dump(
    values: Any,
    context: PicklingContext,
    identify: Callable[[Any], int],
    members: frozenset[int],
    shared: frozenset[int] = frozenset(),
    limit_bytes: int | None = None,
    plain: bool = False,
) -> tuple[Stream, Any]:
    """Pickle `values` as one component.

    plain: nothing in it is a singleton, and what it shares with others need not be found out.

    Returns the stream and an opaque keeper of the temporary objects that were pickled: as long as it
    lives, no id in `shareable` can be taken by another object. Raises TooLarge, or whatever the
    user's reducers raise.
    """

    def attempt(kind: type[ComponentPickler], deep: bool) -> tuple[ComponentPickler, Exception | None]:
        pickler = component_pickler(context, identify, members, shared, limit_bytes, kind)
        try:
            if deep:
                deeper(lambda: pickler.dump(values))
            else:
                pickler.dump(values)
        except Exception as error:  # noqa: BLE001 - raised again if another attempt has no better chance
            return pickler, error
        return pickler, None

    pickler, failed = attempt(ComponentPickler, deep=False)
    deep = failed is not None and is_too_deep(failed)
    if deep:
        pickler, failed = attempt(ComponentPickler, deep)
    memo = {} if plain and failed is None else pickler.memo.copy()
    special = holds_singleton(memo, context)
    if special:
        pickler, failed = attempt(SingletonAwarePickler, deep)
        memo = pickler.memo.copy()
    if failed is not None:
        raise failed
    memo.pop(id(values), None)  # ours, and gone in a moment
    found = [*shareable(memo, pickler), *pickler.tables.values()]
    return pickler.stream(b"".join(pickler.sink.parts), pickler.buffers, found, not special), memo
