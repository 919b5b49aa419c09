"""How functions, their cells and what wraps them are pickled: bound to a namespace, not to a copy of it.

Runs in the kernel.
"""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import recipes
from kernelrepl.guest.code_names import words_of_text

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler

LRU_CACHE = type(functools.lru_cache(len))


def reduce_own(obj: types.FunctionType) -> Any:
    """A function whose globals are the namespace of the session."""
    return _reduce(obj, recipes.function, ())


def reduce_foreign(pickler: ComponentPickler, obj: types.FunctionType) -> Any:
    """A function that has no importable name, and globals of its own: those of a module, or any dict."""
    space = obj.__globals__
    if _is_copy(space, pickler.context.namespace):
        return _reduce_in_copy(pickler, obj)
    name = space.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) and name != "__main__" else None
    if module is not None and getattr(module, "__dict__", None) is space:
        return _reduce(obj, recipes.function_of, (name,))
    return _reduce(obj, recipes.function_in, (space,))


def _is_copy(space: dict[str, Any], namespace: dict[str, Any]) -> bool:
    """Whether globals are a copy of the session's namespace, made by a library and known to nobody else.

    attrs gives one to the methods that it generates. Saved whole it would take all of the session along.
    """
    history = namespace.get("_ih")
    if history is None or space.get("_ih") is not history:
        return False
    return not any(value is space for value in list(namespace.values()))


def _reduce_in_copy(pickler: ComponentPickler, obj: types.FunctionType) -> Any:
    space = obj.__globals__
    stand_in = pickler.spaces.get(id(space))
    if stand_in is None:
        stand_in = pickler.spaces[id(space)] = _Space()
        pickler.kept.append(stand_in)
    words = set(pickler.context.words_of(obj.__code__))
    for annotation in obj.__annotations__.values():
        if isinstance(annotation, str):
            words.update(words_of_text(annotation))
    used = {name: space[name] for name in sorted(words & space.keys() - _EVERY_SPACE_HAS)}
    recipe, arguments, state, *_ = _reduce(obj, recipes.function_in, (stand_in,))
    return recipe, arguments, (*state, used), None, None, recipes.function_state_in


_EVERY_SPACE_HAS = frozenset({"__builtins__", "__name__"})


class _Space:
    """Stands for the globals that several functions share; each brings what its own code names."""

    def __reduce__(self) -> Any:
        return recipes.space, ("__main__",)


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
