"""Whether code of the session is called, or values of it are reached, by way of what it never names.

Signal handlers, finalizers, callbacks of IPython and of the collector, functions put in the place of a library's,
values kept as attributes of a module. While there is one of them, every cell may have changed anything. Runs in the
kernel.
"""

from __future__ import annotations

import gc
import operator
import signal
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kernelrepl.guest.neutral import is_a, space_of
from kernelrepl.guest.origin import is_of_session
from kernelrepl.guest.originals import Originals
from kernelrepl.guest.settings.options_python import handler_of

_STORES = frozenset({"setattr", "__setattr__", "__dict__", "patch", "register", "register_error", "modules", "reload"})
"""Words by which code puts something onto a module without assigning to an attribute."""

_OF_MODULES = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
_CALLS = frozenset({"setattr", "__setattr__"})
"""Of these, those that are given the name as a text."""
_KEPT = frozenset(
    {("sys", name) for name in ("path", "argv", "stdin", "stdout", "stderr", "displayhook", "excepthook")}
    | {("os", "environ"), ("builtins", "_"), ("logging", "raiseExceptions")}
    | {("sys", "tracebacklimit"), ("sys", "dont_write_bytecode")}
)
"""Attributes that are saved, or put back after each cell."""


class Hooks:
    """Compares with what there was before the session's first code."""

    def __init__(self, shell: Any, is_own: Callable[[Any], bool], originals: Originals) -> None:
        """is_own: whether an object is one of the session's functions, classes or values."""
        self._shell = shell
        self._originals = originals
        self._is_own = is_own
        self._given: tuple[Any, ...] | None = None
        self._marked: set[str] = set()
        """Modules onto which code of the session has put something of its own."""
        self._fresh: set[str] = set()
        """Those of the cell that has just run: its values are known to `is_own` only when they are saved."""
        self._put: set[tuple[str, str]] = set()
        """Modules and attributes of them that code of the session has assigned to."""
        self._registered = False

    def begin(self) -> None:
        """Before code runs."""
        if self._given is None:
            self._given = self._counted()

    def note(self, words: Iterable[str], stored: Iterable[tuple[str, str]]) -> None:
        """Code with these words ran; stored: (name of an object, attribute of it) that it assigned to."""
        known = set(words)
        if "register_error" in known:
            self._registered = True  # no table of these can be asked for
        pairs = set(stored)
        if not pairs and not known & _STORES:
            return
        modules = {word: self._module(word) for word in known}
        self._fresh.update(name for name in modules.values() if name is not None)
        self._put.update((module, key) for word, key in pairs if (module := modules.get(word)) is not None)
        if known & _CALLS:
            named = set(map(id, self._shell.user_ns.values()))
            for module in self._fresh:
                space = space_of(sys.modules[module])
                for key in known & space.keys():
                    # What has a home of its own may have been there before.
                    stray = id(space[key]) in named and not is_a(space[key], _OF_MODULES)
                    if stray or self._is_own(space[key]):
                        self._put.add((module, key))
        self._put -= _KEPT

    def active(self) -> bool:
        """Whether there is any now."""
        self._marked = {name for name in self._marked if self._holds_own(name)} | self._fresh
        self._fresh = set()
        return bool(
            self._registered
            or self._originals
            or self._marked
            or self._has_changed()
            or any(self._is_own(entry) for entry in _finalizers())
        )

    def _module(self, word: str) -> str | None:
        value = self._shell.user_ns.get(word, sys.modules.get(word))
        name = space_of(value).get("__name__")
        known = type(name) is str and name != "__main__" and sys.modules.get(name) is value
        return name if known else None

    def strays(self) -> dict[str, Any]:
        """What code of the session has made attributes of modules, by `module.attribute`."""
        found: dict[str, Any] = {}
        for module, key in sorted(self._put):
            space = space_of(sys.modules.get(module))
            if key in space and not self._originals.stands(space, key):
                found[f"{module}.{key}"] = self._originals.replaced(space, key)
            else:
                self._put.discard((module, key))
        return found

    def _holds_own(self, name: str) -> bool:
        return any(self._is_own(value) for value in list(space_of(sys.modules.get(name)).values()))

    def _has_changed(self) -> bool:
        assert self._given is not None
        (handlers, *now), (known, *before) = self._counted(), self._given
        return now != before or not all(map(operator.is_, handlers, known))  # not by `==`: they are of any class

    def _counted(self) -> tuple[Any, ...]:
        shell = self._shell
        handlers = tuple(map(handler_of, _SIGNALS))
        lists = (*shell.events.callbacks.values(), gc.callbacks, shell.ast_transformers, shell.input_transformers_post)
        # Libraries register some of their own: pyplot does, for its figures.
        own = sum(is_of_session(one) or self._is_own(one) for callbacks in lists for one in callbacks)
        return handlers, own, len(shell.custom_exceptions), id(sys.gettrace()), id(sys.getprofile())


_SIGNALS = sorted(map(int, signal.valid_signals()))


def _finalizers() -> Iterator[Any]:
    """What finalizers will call, and with what."""
    for info in list(weakref.finalize._registry.values()):  # type: ignore[attr-defined]
        yield from (info.func, _bound_to(info.func), *(info.args or ()))


def _bound_to(function: Any) -> Any:
    return function.__self__ if is_a(function, types.MethodType | types.BuiltinFunctionType) else None
