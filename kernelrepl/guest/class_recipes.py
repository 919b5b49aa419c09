"""What saved classes, enumerations and instances call by name when they are loaded.

A storage format like `recipes`: these functions may be added to, but never renamed, moved, or given other arguments.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import typing
from collections.abc import Iterator
from typing import Any


def own_class(
    metaclass: type,
    name: str,
    qualname: str,
    module: str,
    bases: tuple[type, ...],
    slots: tuple[str, ...] | None,
) -> type:
    space: dict[str, Any] = {"__module__": module, "__qualname__": qualname}
    if slots is not None:
        space["__slots__"] = slots
    # The hooks of metaclasses and bases ran when the class was made; what they did is in its attributes.
    native: Any = abc.ABCMeta if issubclass(metaclass, abc.ABCMeta) else type
    with _without_hooks(bases):
        result: type = native.__new__(metaclass, name, bases, space)
    return result


@contextlib.contextmanager
def _without_hooks(bases: tuple[type, ...]) -> Iterator[None]:
    hooks = [
        (cls, vars(cls)["__init_subclass__"])
        for cls in dict.fromkeys(cls for base in bases for cls in base.__mro__)
        if cls is not object and "__init_subclass__" in vars(cls)
    ]
    try:
        for cls, _ in hooks:
            type.__setattr__(cls, "__init_subclass__", classmethod(_no_hook))
        yield
    finally:
        for cls, hook in hooks:
            type.__setattr__(cls, "__init_subclass__", hook)


def _no_hook(cls: Any, /, **options: Any) -> None:
    """Stands for `__init_subclass__` while a class is made again."""


def own_class_state(target: Any, state: tuple[dict[str, Any], list[type]]) -> None:
    attributes, registered = state
    for name, value in attributes.items():
        type.__setattr__(target, name, value)
    if "__firstlineno__" in attributes:  # setting `__module__` or `__doc__` removes it
        type.__setattr__(target, "__firstlineno__", attributes["__firstlineno__"])
    for cls in registered:
        abc.ABCMeta.register(target, cls)


def own_class_code(target: Any, attributes: dict[str, Any]) -> tuple[str, ...]:
    for name, value in attributes.items():
        type.__setattr__(target, name, value)
    return tuple(attributes)


def own_class_filled(target: Any, state: tuple[tuple[str, ...], dict[str, Any], list[type]]) -> None:
    """state: (what `own_class_code` returned, all attributes, registered classes)."""
    early, *rest = state
    for name in early:
        type.__delattr__(target, name)  # they are set again in their order
    own_class_state(target, tuple(rest))  # type: ignore[arg-type]


def enum_member(cls: type, native: Any, arguments: tuple[Any, ...]) -> Any:
    return native.__new__(cls, *arguments)


def enum_by_name(cls: Any, name: str) -> Any:
    return cls._member_map_[name]


def enum_by_value(cls: Any, value: Any) -> Any:
    return cls(value)


def type_parameter(kind: str, name: str, module: str, options: dict[str, Any]) -> Any:
    result = getattr(typing, kind)(name, **options)
    result.__module__ = module
    return result


def bare(cls: Any) -> Any:
    return object.__new__(cls)


# Instances of classes that would not be made again by their own constructors


def instance(cls: type, native: Any) -> Any:
    return native.__new__(cls)


def value(cls: type, native: Any, arguments: tuple[Any, ...]) -> Any:
    return native.__new__(cls, *arguments)


def instance_early(target: Any, attributes: dict[str, Any], slots: dict[str, Any]) -> None:
    if attributes:
        object.__getattribute__(target, "__dict__").update(attributes)
    for name, item in slots.items():
        object.__setattr__(target, name, item)


def instance_state(target: Any, state: tuple[Any, Any, Any]) -> None:
    """state: (what `instance_early` returned, attributes as `object.__getstate__` gives them, contents)."""
    _, attributes, contents = state
    if contents is not None:
        _fill(target, *contents)
    slots: dict[str, Any] = {}
    if isinstance(attributes, tuple):
        attributes, slots = attributes
    if attributes:
        own = object.__getattribute__(target, "__dict__")
        own.clear()  # some may be there early, in another order
        own.update(attributes)
    for name, item in (slots or {}).items():
        object.__setattr__(target, name, item)


def _fill(target: Any, kind: str, items: Any, extra: Any) -> None:
    if kind == "list":
        list.extend(target, items)
    elif kind == "set":
        set.update(target, items)
    elif kind == "deque":
        collections.deque.__init__(target, items, extra)
    elif kind == "OrderedDict":
        for key, item in items.items():
            collections.OrderedDict.__setitem__(target, key, item)
    else:
        if kind == "defaultdict":
            collections.defaultdict.__init__(target, extra)
        dict.update(target, items)


def exception(cls: type, native: Any, arguments: tuple[Any, ...]) -> Any:
    result = native.__new__(cls, *arguments)
    native.__init__(result, *arguments)
    return result


def exception_state(target: BaseException, state: tuple[dict[str, Any], Any, Any, bool]) -> None:
    attributes, cause, context, suppress = state
    for name, item in attributes.items():
        object.__setattr__(target, name, item)
    target.__cause__, target.__context__, target.__suppress_context__ = cause, context, suppress
