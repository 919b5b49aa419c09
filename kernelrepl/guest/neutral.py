"""What the interpreter itself knows of an object, its class or a module: no code of the session is asked for it.

`isinstance` asks for `__class__`, and a metaclass may answer for `__module__`, `__mro__` or `==` with anything, or
raise SystemExit. Outside of what is guarded the kernel asks here. Runs in the kernel.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

ATOMS = (int, float, complex, bool, str, bytes, type(None))
_ATOMS = frozenset(map(id, ATOMS))
_module: Callable[[type], Any] = type.__dict__["__module__"].__get__
_space: Callable[[types.ModuleType], Any] = vars(types.ModuleType)["__dict__"].__get__

name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
attributes_of: Callable[[type], types.MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__
bases_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
flags_of: Callable[[type], int] = type.__dict__["__flags__"].__get__


def is_atom(value: Any) -> bool:
    """Whether a value is a plain one. By number: `in` compares classes, and a metaclass may have a say in that."""
    return id(type(value)) in _ATOMS


def is_a(value: Any, kinds: Any) -> bool:
    """As `isinstance`, for kinds that are no one's own: what a value says of its class does not count."""
    return bool(issubclass(type(value), kinds))


def module_of(kind: type) -> str:
    """The module of a class; empty if that is no text."""
    try:
        found = _module(kind)
    except AttributeError:
        return ""
    return found if type(found) is str else ""


def space_of(module: Any) -> dict[str, Any]:
    """What a module holds; nothing if it is none."""
    return (_space(module) or {}) if is_a(module, types.ModuleType) else {}
