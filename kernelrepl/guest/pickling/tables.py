"""What libraries keep for themselves comes back as theirs: their containers, their markers, what functions hand out.

A container is saved with what is in it, as any other is, and comes back in the place of the library's. Runs in the
kernel.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.machinery
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kernelrepl.guest import imports, loaded, table_recipes
from kernelrepl.guest.pickling.singletons import _NO_LIBRARIES, Place, _fixed_names

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler

_KINDS = frozenset({dict, list, set, collections.OrderedDict, collections.defaultdict, object})
"""A bare object is a marker, as of what is missing: it is known by its identity alone."""
_OF_THE_PROCESS = frozenset(
    {"sys", "gc", "importlib", "_frozen_importlib", "_frozen_importlib_external", "threading", "weakref", "atexit"}
    | {"signal", "multiprocessing", "concurrent", "asyncio", "encodings", "linecache", "site", "sysconfig", "logging"}
    | {"platform", "copyreg", "sqlite3", "_sqlite3", "warnings", "_warnings", "zipimport", "posix", "os", "builtins"}
)
"""What these keep is of this process, or comes back with the settings."""
_HANDED_OUT = {
    "decimal.Context": ("decimal", "getcontext()", "DefaultContext", "BasicContext", "ExtendedContext"),
    "logging.Manager": ("logging", "Logger.manager"),
    "numpy.random._mt19937.MT19937": ("numpy.random.mtrand", "_rand._bit_generator"),
    "threading._MainThread": ("threading", "main_thread()"),
    "multiprocessing.process._MainProcess": ("multiprocessing.process", "current_process()"),
    "asyncio.unix_events._UnixDefaultEventLoopPolicy": ("asyncio.events", "_event_loop_policy"),
}
"""Kinds of which some objects are the library's: in which module, and how they are reached there."""
_OF_SHELL = ("IPython.", "ipykernel.", "traitlets.", "kernelrepl.guest.figures", "kernelrepl.guest.interrupts")
_OPEN_FIGURES = "matplotlib._pylab_helpers"


class Tables:
    """Which objects are kept by a library where its code has put them when it was loaded, or in one of its classes.

    The index is taken over from the pass before, and what it says is checked when it is used: a number may belong to
    another object by then.
    """

    _latest: ClassVar[loaded.Mark] = loaded.NONE
    _places: ClassVar[dict[int, list[Place]]] = {}
    _looked: ClassVar[dict[str, int]] = {}

    def __init__(self, shell: Any) -> None:
        self._of_shell = {id(value): (value, steps) for value, steps in _containers_of(shell)}
        mark = loaded.mark()
        if self._latest != mark:
            names = loaded.since(self._latest)
            Tables._latest = mark
            for name in list(sys.modules) if names is None else names:
                self._look_into(name)

    @classmethod
    def _look_into(cls, name: str) -> None:
        module = sys.modules.get(name)
        space = getattr(module, "__dict__", None)
        if module is None or type(space) is not dict or cls._looked.get(name) == id(space):
            return
        cls._looked[name] = id(space)
        if name.partition(".")[0] in _NO_LIBRARIES or imports.is_own(module):
            return
        for attribute, value in list(space.items()):
            kind = type(value)
            if kind in _KINDS:
                cls._note(value, name, attribute)
            elif issubclass(kind, type) and type.__dict__["__module__"].__get__(value) == name:
                for inner, part in list(type.__dict__["__dict__"].__get__(value).items()):
                    if type(part) in _KINDS:
                        cls._note(part, name, f"{attribute}.{inner}")

    @classmethod
    def _note(cls, value: Any, module: str, path: str) -> None:
        if not path.rpartition(".")[2].startswith("__"):
            cls._places.setdefault(id(value), []).append((module, path))

    def find(self, obj: Any) -> Place | None:
        """Module and attribute, or class and attribute of it, where a library keeps an object of these kinds.

        For what IPython keeps, the module is an empty text.
        """
        known = self._of_shell.get(id(obj))
        if known is not None and known[0] is obj:
            return known[1]
        for module, path in self._places.get(id(obj), ()):
            if table_recipes.found_at(module, path) is obj and ("." in path or _is_fixed(module, path)):
                return module, path
        return None

    def among(self, memo: Mapping[int, tuple[int, Any]]) -> bool:
        """Whether a pickler's memo has one of them."""
        keys = (self._places.keys() & memo.keys()) | (self._of_shell.keys() & memo.keys())
        return any(self.find(memo[key][1]) is not None for key in keys)


def _is_fixed(module: str, attribute: str) -> bool:
    """Whether a module's own code binds a variable when it is loaded, and none of its functions does later."""
    loader = getattr(getattr(sys.modules[module], "__spec__", None), "loader", None)
    if loader is importlib.machinery.BuiltinImporter or isinstance(loader, importlib.machinery.ExtensionFileLoader):
        return module.partition(".")[0] in sys.stdlib_module_names
    return attribute in _fixed_names(module)


def persistent(pickler: ComponentPickler, obj: Any) -> tuple[Any, ...] | None:
    """What a stream says instead of an object that a library keeps: where it is, and once what is in it."""
    place = pickler.context.tables.find(obj) if type(obj) in _KINDS else None
    if place is None:
        return None
    kept = None
    if id(obj) not in pickler.tables and type(obj) is not object and not _is_of_the_process(*place):
        pickler.tables[id(obj)] = obj
        kept = obj.copy()
        pickler.kept.append(kept)
    return (*place, table_recipes.version(place[0]), kept)


def _is_of_the_process(module: str, path: str) -> bool:
    return (
        not module or module.partition(".")[0] in _OF_THE_PROCESS or module == _OPEN_FIGURES or "cache" in path.lower()
    )


def has_some_of(kind: type) -> bool:
    """Whether some objects of a kind are a library's, or the kernel's."""
    home = kind.__module__ if isinstance(kind.__module__, str) else ""
    return home.startswith(_OF_SHELL) or f"{home}.{kind.__qualname__}" in _HANDED_OUT


def reduce(otherwise: Any, pickler: ComponentPickler, obj: Any) -> Any:
    """An object of such a kind. otherwise: how others of it are reduced, if not as pickle does it."""
    kind = type(obj)
    module, *paths = _HANDED_OUT.get(f"{kind.__module__}.{kind.__qualname__}", ("",))
    for path in paths:
        if module in sys.modules and table_recipes.part(module, path) is obj:
            if kind.__module__ == "decimal":
                return table_recipes.part, (module, path), obj.__reduce__()[1], None, None, table_recipes.context_state
            return table_recipes.part, (module, path)
    for value, steps in () if module else _parts_of(pickler.context.shell):
        if value is obj:
            return table_recipes.part_of_shell, steps
    return otherwise(pickler, obj) if otherwise is not None else pickler.reduce_as_usual(obj)


_SHELL_KEEPS = ("input_transformers_post", "user_ns.In", "user_ns.Out", "user_ns._dh", "display_formatter.formatters")


def _containers_of(shell: Any) -> Iterator[tuple[Any, Place]]:
    for path in _SHELL_KEEPS:
        with contextlib.suppress(Exception):  # code may have taken it away
            yield table_recipes.kept_by_shell(shell, path), ("", path)


def _parts_of(shell: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """What hangs on IPython's shell, and how it is reached from there."""
    for space in (vars(shell), getattr(shell, "_trait_values", {})):
        yield from ((value, (name,)) for name, value in list(space.items()))
    kernel = getattr(shell, "kernel", None)
    yield kernel, ("kernel",)
    yield getattr(kernel, "interrupts", None), ("kernel", "interrupts")
    formatters = getattr(getattr(shell, "display_formatter", None), "formatters", {})
    yield from ((one, ("display_formatter", "formatters", (key,))) for key, one in list(formatters.items()))
