"""How classes made in the session, and what belongs to them, are pickled.

A class is made again as it is, attribute by attribute: neither its metaclass nor the hooks of its bases run
a second time. Runs in the kernel.
"""

from __future__ import annotations

import abc
import ctypes
import enum
import operator
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import class_recipes, recipes

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler, PicklingContext

_NOT_STATE = frozenset(
    {"__module__", "__qualname__", "__slotnames__", "__annotate_func__", "__annotations_cache__"}
    | {"_abc_impl", "_abc_cache", "_abc_negative_cache", "_abc_negative_cache_version", "_abc_registry"}
)
"""Given to the constructor, made by pickling, or caches."""
_CODE = (types.FunctionType, classmethod, staticmethod, property)
C_ARRAY = type(ctypes.Array)
_ATOMS = (int, float, complex, bool, str, bytes, type(None))


def attributes_of(cls: type) -> dict[str, Any]:
    """The own attributes of a class, whatever its metaclass says about it."""
    return dict(type.__dict__["__dict__"].__get__(cls))


def is_plain(cls: type) -> bool:
    """Whether the metaclass keeps nothing about a class outside of its attributes, as those of ctypes do."""
    return not any(
        isinstance(vars(metaclass).get("__new__"), types.BuiltinFunctionType)
        for metaclass in type.mro(type(cls))
        if metaclass not in (type, object)
    )


def reduce_class(cls: type) -> Any:
    attributes = attributes_of(cls)
    members = [
        name
        for name, value in attributes.items()
        if isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls
    ]
    made = [
        name
        for name in ("__dict__", "__weakref__")
        if isinstance(value := attributes.get(name), types.GetSetDescriptorType) and value.__objclass__ is cls
    ]
    slots = (*members, *made) if "__slots__" in attributes else None
    left_out = _NOT_STATE.union(members, made)
    state = {name: value for name, value in attributes.items() if name not in left_out}
    code = {name: value for name, value in state.items() if isinstance(value, _CODE)}
    registered: list[Any] = []
    if issubclass(type(cls), abc.ABCMeta):
        found = [ref() for ref in abc._get_dump(cls)[0]]  # type: ignore[attr-defined]
        registered = sorted((sub for sub in found if sub is not None), key=lambda sub: str(sub.__qualname__))
    get = type.__dict__
    arguments = (
        type(cls),
        get["__name__"].__get__(cls),
        get["__qualname__"].__get__(cls),
        attributes.get("__module__", "__main__"),
        get["__bases__"].__get__(cls),
        slots,
    )
    if not any(type(value) not in _ATOMS and name not in (*code, "__slots__") for name, value in state.items()):
        return class_recipes.own_class, arguments, (state, registered), None, None, class_recipes.own_class_state
    # Among the other attributes may be instances, which are made by the methods of the class.
    state_with_code_first = (_Code(cls, code), state, registered)
    return class_recipes.own_class, arguments, state_with_code_first, None, None, class_recipes.own_class_filled


class _Code:
    """The methods of a class, which it gets before anything else."""

    def __init__(self, cls: type, attributes: dict[str, Any]) -> None:
        self.parts = cls, attributes


def _reduce_code(pickler: ComponentPickler, obj: _Code) -> Any:
    return class_recipes.own_class_code, obj.parts


REDUCERS: dict[type, Any] = {_Code: _reduce_code}


def reduce_member(pickler: ComponentPickler, obj: Any) -> Any:
    """A member of an enumeration of the session: with its class if that is stored here, else by its name."""
    cls: Any = type(obj)
    if id(cls) not in pickler.members:
        if cls._member_map_.get(obj._name_) is obj:
            return class_recipes.enum_by_name, (cls, obj._name_)
        return class_recipes.enum_by_value, (cls, obj._value_)
    native = next(base for base in cls.__mro__ if "__new__" in vars(base) and _is_native(pickler.context, base))
    given = getattr(native, "__getnewargs__", None)
    arguments = given(obj) if given is not None else ()
    return class_recipes.enum_member, (cls, native, arguments), dict(vars(obj)), None, None, recipes.object_state


def _is_native(context: PicklingContext, cls: type) -> bool:
    return not context.is_own_class(cls) and cls.__module__ != enum.__name__


def reduce_c_array(cls: Any) -> Any:
    """An array type of ctypes, of which there is one for each kind of item and length."""
    if cls.__bases__ != (ctypes.Array,):
        return NotImplemented
    return operator.mul, (cls._type_, cls._length_)


def reduce_type_parameter(obj: Any) -> Any:
    """`ParamSpec` and `TypeVarTuple` made in the session; cloudpickle knows `TypeVar` only."""
    if _has_name(obj):
        return NotImplemented
    options = {}
    if type(obj) is typing.ParamSpec:
        options = {"bound": obj.__bound__, "covariant": obj.__covariant__, "contravariant": obj.__contravariant__}
    return class_recipes.type_parameter, (type(obj).__name__, obj.__name__, obj.__module__, options)


def reduce_new_type(obj: Any) -> Any:
    if _has_name(obj):
        return NotImplemented
    return class_recipes.bare, (type(obj),), dict(vars(obj)), None, None, recipes.object_state


def _has_name(obj: Any) -> bool:
    """Whether an object can be imported by the name that it says it has."""
    return getattr(sys.modules.get(obj.__module__), obj.__name__, None) is obj
