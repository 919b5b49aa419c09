"""Which values code may have changed: those it names, and all that can be reached through them.

Nothing is traced and nothing is slowed down: the names in compiled code are compared with what is known of each
value since it was last looked at. Runs in the kernel.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kernelrepl.guest import loaded
from kernelrepl.guest.checkpoint.state import CommittedState, RootScan
from kernelrepl.guest.code_names import names_everything, words_of
from kernelrepl.guest.neutral import ATOMS, attributes_of, flags_of, is_a, module_of, space_of

_MOST_OBJECTS = 2000
_METHODS = (staticmethod, classmethod, types.MethodType)
_COLLECTED = 1 << 14
"""Py_TPFLAGS_HAVE_GC: objects of the type tell the garbage collector what they hold."""
_HOLD_NOTHING = frozenset({"builtins", "_thread", "_hashlib", "_blake2", "_io", "_socket", "_struct", "datetime"})
"""Modules whose types that do not tell are known to hold no other objects."""


def reach(value: Any, namespace: dict[str, Any]) -> tuple[frozenset[str], tuple[int, ...], bool]:
    """What an object that cannot be saved may change: the words of code in it, ids, and whether that is not all."""
    words: set[str] = set()
    seen: dict[int, Any] = {id(value): value}
    level = [value]
    while level:
        found: list[Any] = []
        for one in level:
            if is_a(one, types.FunctionType):
                words.update(words_of(one.__code__))
                found += [one.__closure__, one.__defaults__, one.__kwdefaults__, one.__dict__]
            elif is_a(one, type):
                for member in attributes_of(one).values():
                    function = member.__func__ if is_a(member, _METHODS) else member
                    if is_a(function, types.FunctionType):
                        words.update(words_of(function.__code__))
            elif is_a(one, types.CodeType):
                words.update(words_of(one))
            elif not is_a(one, types.ModuleType) and one is not namespace:
                if _keeps_silent(type(one)):
                    return frozenset(words), (), True
                found += gc.get_referents(one)
        level = [one for one in found if id(one) not in seen and not is_a(one, ATOMS)]
        seen.update((id(one), one) for one in level)
        if len(seen) > _MOST_OBJECTS:
            return frozenset(words), (), True
    return frozenset(words), tuple(seen), False


def _keeps_silent(kind: type) -> bool:
    """Whether objects of a type may hold others and nobody can know: an iterator over an array is one."""
    if flags_of(kind) & _COLLECTED or module_of(kind) in _HOLD_NOTHING:
        return False
    numpy = sys.modules.get("numpy")
    return numpy is None or not issubclass(kind, (numpy.generic, numpy.dtype))


class Reach:
    """Everything that code may have changed, from the names in it."""

    def __init__(
        self, state: CommittedState, holders: Mapping[int, int], namespace: dict[str, Any], part_of: Mapping[int, int]
    ) -> None:
        self._state = state
        self._holders = holders
        self._namespace = namespace
        self._part_of = part_of
        self._roots: set[int] = set()
        self._words: set[str] = set()
        self._work: list[int] = []
        self._own_modules = _workspace_modules()
        self.everything = False

    def add_words(self, words: Iterable[str]) -> None:
        """What code named, before or after it ran: a name may have meant both."""
        if names_everything(words):
            self.everything = True
            return
        for word in words:
            if word in self._words:
                continue
            self._words.add(word)
            if word in self._own_modules:
                self.everything = True
            root = self._state.roots(word)
            if root is not None:
                self.add_root(root)
            if word in self._namespace:
                self._add_value(self._namespace[word])

    def words(self) -> frozenset[str]:
        """Every word of code that can be reached."""
        return frozenset(self._words)

    def add_ids(self, ids: Iterable[int]) -> None:
        for key in ids:
            root = self._holders.get(key)
            if root is not None:
                self.add_root(root)

    def add_held(self, objects: Iterable[Any]) -> None:
        """What modules hold: it, and what its class names if that is one of the session."""
        for held in objects:
            self.add_ids((id(held),))
            if module_of(type(held)) == "__main__":
                self.add_words(reach(type(held), self._namespace)[0])

    def add_root(self, root: int) -> None:
        if root not in self._roots:
            self._roots.add(root)
            self._work.append(root)

    def _add_value(self, value: Any) -> None:
        if self._own_modules and _home(value) in self._own_modules:
            self.everything = True  # it may keep what it was given, and change it

    def roots(self) -> set[int] | None:
        """The roots to look at, closed over what they are tied to and what their code names; None for all."""
        while self._work and not self.everything:
            root = self._work.pop()
            value = self._state.objects.get(root)
            if is_a(value, ATOMS):
                continue
            self._add_value(value)
            part = self._state.live.get(self._part_of.get(root, 0))
            if part is not None:
                for other in (*part.roots, *part.references):
                    self.add_root(other)
            scan = self._state.scans.get(root)
            if scan is None:
                continue
            self._follow(scan)
        if self.everything:
            return None
        self._add_failing()
        return self._roots

    def _add_failing(self) -> None:
        """What could not be saved may be able to, now that something in it has changed."""
        scans = self._state.scans
        failing = [(root, scan) for root, scan in scans.items() if scan.error is not None and root not in self._roots]
        if not failing:
            return
        changed: set[int] = set()
        for root in self._roots:
            scan = scans.get(root)
            if scan is not None:
                changed.update(scan.touched, scan.reaches)
        self._roots.update(
            root for root, scan in failing if scan.may_change_anything or not changed.isdisjoint(scan.reaches)
        )

    def _follow(self, scan: RootScan) -> None:
        if scan.may_change_anything:
            self.everything = True
            return
        for other in scan.references:
            self.add_root(other)
        self.add_ids(scan.reaches)
        self.add_words(scan.words)


def held_by_modules() -> Iterator[Any]:
    """Objects that well-known modules change though no code names them: open figures, handlers of logs."""
    pyplot = sys.modules.get("matplotlib._pylab_helpers")
    for manager in list(getattr(getattr(pyplot, "Gcf", None), "figs", {}).values()):
        yield getattr(getattr(manager, "canvas", None), "figure", None)
    logging = sys.modules.get("logging")
    for handler in list(getattr(logging, "_handlerList", ())):
        yield handler()


_known_modules: tuple[loaded.Mark, frozenset[str]] = (loaded.NONE, frozenset())


def _workspace_modules() -> frozenset[str]:
    """Modules of files that the session itself has: they may hold its values in their own."""
    global _known_modules
    mark = loaded.mark()
    if _known_modules[0] != mark:
        names, found = loaded.since(_known_modules[0]), _known_modules[1]
        if names is None:
            names, found = list(sys.modules), frozenset()
        own = {name for name in names if name != "__main__" and _is_own(sys.modules.get(name))}
        _known_modules = (mark, found | own)
    return _known_modules[1]


_LIBRARIES = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})


def _is_own(module: Any) -> bool:
    path = space_of(module).get("__file__")
    if type(path) is not str:
        return False
    return not path.startswith(_LIBRARIES) and not any(part in path for part in ("/site-packages/", "/dist-packages/"))


def _home(value: Any) -> str | None:
    """The module that a value, or its class, comes from."""
    if is_a(value, types.ModuleType):
        name = space_of(value).get("__name__")
    elif is_a(value, types.FunctionType):
        name = value.__module__
    else:
        name = module_of(value if is_a(value, type) else type(value))
    return name if type(name) is str else None
