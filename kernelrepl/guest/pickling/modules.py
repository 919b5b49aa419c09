"""How modules are saved: by name, if importing the name gives the same one, with the class that the session gave them.

Runs in the kernel.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import types
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import imports, table_recipes
from kernelrepl.guest.pickling import singletons

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler


class NotItsName(pickle.PicklingError):
    """A module is not what importing its name gives; the text says why."""


def reduce(pickler: ComponentPickler, obj: types.ModuleType) -> Any:
    if getattr(obj, "__spec__", None) is not None and sys.modules.get(obj.__name__) is not obj:
        raise NotItsName("a module whose name is that of another by now, or of none, cannot be saved")
    reduced = singletons.reduce_module(pickler, obj)
    if obj is not pickler.context.main_module and is_another_file(obj):
        raise NotItsName(
            f"importing {obj.__name__} would not give the file that this module was loaded from; "
            "put its directory first on sys.path, or load it again"
        )
    kind = type(obj)
    if kind is types.ModuleType or not pickler.context.is_own_class(kind):
        return reduced
    return (*reduced, kind, None, None, table_recipes.module_class)


def is_another_file(module: types.ModuleType) -> bool:
    """Whether an import of the module's name, if it was not there yet, would look into another file."""
    spec = getattr(module, "__spec__", None)
    name, file = getattr(spec, "name", None), getattr(spec, "origin", None)
    if not (isinstance(name, str) and isinstance(file, str) and getattr(spec, "has_location", False)):
        return False
    package, _, tail = name.rpartition(".")
    places = getattr(sys.modules.get(package), "__path__", None) if package else None
    if imports.is_own(module):
        # Finders answer the kernel otherwise than code of the session.
        found = _file_of(tail, sys.path if places is None else places)
        return found is not None and not _is_one_file(found, file)
    root = _without_suffix(file).removesuffix("/" + name.replace(".", "/"))
    if root in sys.path or (package and places is None):
        return False
    with contextlib.suppress(Exception):  # finders may come from anywhere
        for finder in sys.meta_path:
            known = finder.find_spec(name, places, None)
            if known is not None:
                return known.origin is None or not _is_one_file(known.origin, file)
        return True
    return False


def _without_suffix(file: str) -> str:
    directory, _, last = file.rpartition("/")
    return directory if last == "__init__.py" else f"{directory}/{last.partition('.')[0]}"


def _file_of(tail: str, places: Iterable[str]) -> str | None:
    for place in places:
        for file in (os.path.join(place, tail, "__init__.py"), os.path.join(place, f"{tail}.py")):  # noqa: PTH118
            if os.path.exists(file):  # noqa: PTH110
                return file
    return None


def _is_one_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
