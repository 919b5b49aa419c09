"""How functions, their cells and what wraps them are pickled: bound to a namespace, not to a copy of it.

Runs in the kernel.
"""

from __future__ import annotations

import functools
import sys
import types
from typing import Any

from kernelrepl.guest import recipes

LRU_CACHE = type(functools.lru_cache(len))


def reduce_own(obj: types.FunctionType) -> Any:
    """A function whose globals are the namespace of the session."""
    return _reduce(obj, recipes.function, ())


def reduce_foreign(obj: types.FunctionType) -> Any:
    """A function that has no importable name, and globals of its own: those of a module, or any dict."""
    space = obj.__globals__
    name = space.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) and name != "__main__" else None
    if module is not None and getattr(module, "__dict__", None) is space:
        return _reduce(obj, recipes.function_of, (name,))
    return _reduce(obj, recipes.function_in, (space,))


def _reduce(obj: types.FunctionType, recipe: Any, where: tuple[Any, ...]) -> Any:
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
        recipe,
        (*where, obj.__code__, obj.__name__, obj.__closure__),
        (dict(obj.__dict__), slots),
        None,
        None,
        recipes.function_state,
    )


def reduce_cell(obj: types.CellType) -> Any:
    try:
        contents = obj.cell_contents
    except ValueError:
        return recipes.cell, ()
    return recipes.cell, (), (contents,), None, None, recipes.cell_state


def reduce_lru_cache(obj: Any) -> Any:
    # The cached entries are left out: they are a cache, and may be of any size.
    parameters = obj.cache_parameters()
    state = {key: value for key, value in obj.__dict__.items() if key not in ("__wrapped__", "cache_parameters")}
    return (
        recipes.lru_cache,
        (obj.__wrapped__, parameters["maxsize"], parameters["typed"]),
        state,
        None,
        None,
        recipes.object_state,
    )


def reduce_cached_property(obj: Any) -> Any:
    # Python 3.11 keeps a lock in it, which is made anew.
    state = {key: value for key, value in vars(obj).items() if key not in ("func", "attrname", "lock")}
    return recipes.cached_property, (obj.func, obj.attrname), state, None, None, recipes.object_state
