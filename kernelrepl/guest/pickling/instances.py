"""How instances of the session's classes are pickled when their own constructors would not make them again.

pickle calls constructors with arguments of its own, `__setitem__` and `__setattr__` of the class, and asks for
hashes of half-made objects. Classes with hooks for pickling keep their way. Runs in the kernel.
"""

from __future__ import annotations

import collections
import copyreg
import enum
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import class_recipes
from kernelrepl.guest.pickling.classes import attributes_of, reduce_member

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler, PicklingContext

_HEAP_TYPE = 1 << 9
_HOOKS = frozenset({"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__"}) | {
    "__getnewargs_ex__"
}
_CONTAINERS: dict[type, str] = {
    collections.Counter: "dict",
    collections.OrderedDict: "OrderedDict",
    collections.defaultdict: "defaultdict",
    collections.deque: "deque",
    dict: "dict",
    list: "list",
    set: "set",
}
_CALLED: dict[type, set[str]] = {
    collections.OrderedDict: {"__init__", "__setitem__"},
    collections.deque: {"__init__", "append", "extend"},
    dict: {"__setitem__"},
    list: {"append", "extend"},
    set: {"__init__"},
}
"""Methods that pickle calls to make a container again. Those that are not here lose the attributes of their kinds."""
_VALUES = (int, float, complex, str, bytes, tuple, frozenset)
_NATIVE = (*_CONTAINERS, *_VALUES, object)
_IN_THE_WAY = frozenset({"__new__", "__getattr__", "__getattribute__", "__setattr__"})
_ATOMS = (int, float, complex, bool, str, bytes, type(None))
_SIMPLE = (list, tuple, dict, set, frozenset)
_AT_A_GLANCE = 16

Reducer = Callable[["ComponentPickler", Any], Any]


def plan(kind: type, context: PicklingContext) -> Reducer | None:
    """How to reduce the instances of a class; None leaves it to pickle."""
    if issubclass(kind, BaseException):
        return _reduce_exception if _plain_exception(kind) else None
    if not context.is_own_class(kind):
        return None
    if issubclass(kind, enum.Enum):
        return reduce_member
    defined = _defined(kind)
    if defined is None:
        return None
    native = next(base for base in kind.__mro__ if base in _NATIVE)
    if native in _CONTAINERS:
        called = _CALLED.get(native)
        in_the_way = called is None or defined & (_IN_THE_WAY | called | {"__hash__"})
        return _Container(native, kind, "__hash__" in defined) if in_the_way else None
    if native in _VALUES:
        return _Value(native) if native is frozenset or defined & _IN_THE_WAY else None
    hashed = "__hash__" in defined
    return _Plain(hashed) if hashed or defined & _IN_THE_WAY else None


def is_simple(kind: type) -> bool:
    """Whether instances of a class come back without any code of it: it has no say in how they are pickled."""
    return not issubclass(kind, BaseException) and _defined(kind) is not None


def _defined(kind: type) -> set[str] | None:
    """What a class and its bases define; None if they have a say in how instances are pickled."""
    if kind in copyreg.dispatch_table:
        return None
    defined: set[str] = set()
    for base in kind.__mro__:
        if base in _NATIVE:
            continue
        attributes = attributes_of(base)
        if not base.__flags__ & _HEAP_TYPE or isinstance(attributes.get("__new__"), types.BuiltinFunctionType):
            return None  # made by an extension module, which may keep more than attributes
        named_tuple = "_fields" in attributes and "_make" in attributes
        defined.update(set(attributes) - ({"__new__", "__getnewargs__"} if named_tuple else set()))
        if attributes.get("__hash__", 0) is None:
            defined.discard("__hash__")
    return None if defined & _HOOKS else defined


def _attributes(obj: Any) -> Any:
    """Attributes and slots, in the form of `object.__getstate__`."""
    return object.__reduce_ex__(obj, 2)[2]


class _Plain:
    """Objects with attributes only."""

    def __init__(self, hashed: bool) -> None:
        self.hashed = hashed

    def __call__(self, pickler: ComponentPickler, obj: Any) -> Any:
        state = _attributes(obj)
        early = _early(obj, state) if self.hashed and not _is_simple(state) else None
        return (
            class_recipes.instance,
            (type(obj), object),
            (early, state, None),
            None,
            None,
            class_recipes.instance_state,
        )


def _early(obj: Any, state: Any) -> Any:
    """What a hash is likely to need is set before anything that may hold the object as a key."""
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    attributes, slots = attributes or {}, slots or {}
    first = [{name: value for name, value in part.items() if type(value) in _ATOMS} for part in (attributes, slots)]
    then = [
        {
            name: value
            for name, value in part.items()
            if name not in atoms and not isinstance(value, dict | list | set | collections.deque)
        }
        for part, atoms in zip((attributes, slots), first, strict=True)
    ]
    return [_Early(obj, *parts) for parts in (first, then) if any(parts)]


def _is_simple(state: Any) -> bool:
    parts = state if isinstance(state, tuple) else (state,)
    return all(_leads_nowhere(value) for part in parts if part for value in part.values())


def _leads_nowhere(value: Any) -> bool:
    """Whether a value can be seen at a glance not to lead back to the object that has it."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind not in _SIMPLE or len(value) > _AT_A_GLANCE:
        return False
    items = (*value, *value.values()) if kind is dict else value
    return all(type(item) in _ATOMS for item in items)


class _Early:
    __slots__ = ("parts",)

    def __init__(self, *parts: Any) -> None:
        self.parts = parts


def reduce_early(pickler: ComponentPickler, obj: _Early) -> Any:
    return class_recipes.instance_early, obj.parts


REDUCERS: dict[type, Reducer] = {_Early: reduce_early}


class _Container:
    """Containers of the session's own kind, filled by the methods of the kind they are based on."""

    def __init__(self, native: Any, cls: type, hashed: bool) -> None:
        self.native = native
        self.hashed = hashed
        self.kind = _CONTAINERS[native]
        self.slots = copyreg._slotnames(cls)  # type: ignore[attr-defined]

    def __call__(self, pickler: ComponentPickler, obj: Any) -> Any:
        items: Any
        extra = None
        if self.kind == "list":
            items = list.__getitem__(obj, slice(None))
        elif self.kind == "set":
            items = list(set.__iter__(obj))
        elif self.kind == "deque":
            items, extra = list(collections.deque.__iter__(obj)), obj.maxlen
        elif self.kind == "OrderedDict":
            items = dict(collections.OrderedDict.items(obj))
        else:
            items = dict.copy(obj)
            if self.kind == "defaultdict":
                extra = obj.default_factory
        base = dict if self.kind == "dict" else self.native
        attributes = self._attributes(obj)
        state = (_early(obj, attributes) if self.hashed else None, attributes, (self.kind, items, extra))
        return class_recipes.instance, (type(obj), base), state, None, None, class_recipes.instance_state

    def _attributes(self, obj: Any) -> Any:
        slots = {}
        for name in self.slots:
            try:
                slots[name] = object.__getattribute__(obj, name)
            except AttributeError:
                continue
        try:
            attributes = object.__getattribute__(obj, "__dict__")
        except AttributeError:
            attributes = None
        return (attributes or None, slots) if slots else attributes or None


class _Value:
    """Numbers, texts and tuples of the session's own kind."""

    def __init__(self, native: Any) -> None:
        self.native = native

    def __call__(self, pickler: ComponentPickler, obj: Any) -> Any:
        given = (list(frozenset.__iter__(obj)),) if self.native is frozenset else self.native.__getnewargs__(obj)
        state = getattr(obj, "__dict__", None) or None
        arguments = (type(obj), self.native, given)
        if state is None:
            return class_recipes.value, arguments
        return class_recipes.value, arguments, (None, dict(state), None), None, None, class_recipes.instance_state


def _plain_exception(kind: type) -> bool:
    """Whether an exception is saved the way of Python's own ones, so that its constructor may be left out."""
    native = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    upper = kind.__mro__[: kind.__mro__.index(native)]
    return all(_HOOKS.isdisjoint(attributes_of(base)) for base in upper)


def _reduce_exception(pickler: ComponentPickler, obj: Any) -> Any:
    # The traceback is left out: it holds frames, which belong to this process.
    kind = type(obj)
    native: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    reduced = native.__reduce__(obj)
    attributes = dict(reduced[2]) if len(reduced) > 2 and isinstance(reduced[2], dict) else {}
    state = (attributes, obj.__cause__, obj.__context__, obj.__suppress_context__)
    return class_recipes.exception, (kind, native, reduced[1]), state, None, None, class_recipes.exception_state
