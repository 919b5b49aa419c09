"""What code may set in libraries: what it assigns to, what it calls, and the same of all code that it can call.

Nothing is run and nothing of a user is asked: names are looked up, and code that is reached through functions, methods,
objects of the session's classes, closures, partials, containers and texts is read. Runs in the kernel.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import itertools
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernelrepl.guest import imports
from kernelrepl.guest.neutral import attributes_of, bases_of, is_a, is_atom, module_of, name_of, space_of
from kernelrepl.guest.pickling.singletons import Singletons, known
from kernelrepl.guest.settings.contents import Path as Place
from kernelrepl.guest.settings.contents import found_at
from kernelrepl.guest.settings.setters import (
    GIVEN_NAMES,
    IMPORT,
    TEXT,
    bound_in,
    missing_in,
    names_set_upon,
    runs_texts,
    sets,
    setters_in,
)

Space = dict[str, Any]

_CLASS_OF = frozenset({"type", "__class__"})
_LONGEST_TEXT = 100_000
_FILE = re.compile(r"[^\s'\"()]+\.i?py\b")
_MOST_ITEMS = 32
"""Of a container, or of the attributes of an object, so many are looked at."""
_MOST_VALUES = 1_000
IN_C = frozenset({"builtin_function_or_method", "cython_function_or_method", "fused_cython_function"})
"""Names of the types of functions that are not written in Python: what they set is in no module."""
_LRU = type(functools.lru_cache(len))
_CALLS = frozenset(number for name, number in dis.opmap.items() if name.startswith("CALL") and "INTRINSIC" not in name)
_BUILD_CLASS = dis.opmap["LOAD_BUILD_CLASS"]
_FUNCTIONS = frozenset((types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial, _LRU))


def _some(values: Iterable[Any]) -> Iterable[Any]:
    return itertools.islice(values, _MOST_ITEMS)


_HOLDERS: dict[type, Callable[[Any], Iterable[Any]]] = {
    list: _some,
    tuple: _some,
    set: _some,
    frozenset: _some,
    dict: lambda value: _some(value.values()),
    types.MethodType: lambda value: (value.__func__, value.__self__),
    _LRU: lambda value: (value.__wrapped__,),
    staticmethod: lambda value: (value.__func__,),
    classmethod: lambda value: (value.__func__,),
    property: lambda value: (value.fget, value.fset, value.fdel),
}
"""Of each kind that holds others, what of it may be called."""


@dataclass
class Said:
    """What code says about libraries, as far as it can be read."""

    tops: set[str] = field(default_factory=set)
    """Libraries that it may set something in."""
    called: list[tuple[types.ModuleType, str]] = field(default_factory=list)
    """Names that it looks up in modules: some are of setters."""
    imported: set[str] = field(default_factory=set)
    """Libraries of which it loads something that is not there yet."""
    setters: set[str] = field(default_factory=set)
    """Names of setters in code that loads something."""
    words: set[str] = field(default_factory=set)
    """All names in it, and in all code that it can call."""
    homes: set[str] = field(default_factory=set)
    """Of each value that it names, the module that its class comes from."""
    bound: dict[str, Place] = field(default_factory=dict)
    """Names that it binds to what modules hold, and where that is."""


def said_by(code: types.CodeType, namespace: Space, held: Mapping[str, Place]) -> Said:
    """What code says, with all that it can call. held: names that earlier code bound to what modules hold."""
    said = Said()
    if _is_plain(code, namespace):
        return said
    seen = {code}
    work: list[tuple[types.CodeType, Space]] = [(code, namespace)]
    values = _Values(said)
    while work:
        one, space = work.pop()
        said.words.update(one.co_names)
        missing = list(missing_in(one))
        if missing:
            said.imported.update(missing)
            said.setters.update(setters_in(one))
        named = [space[name] for name in one.co_names if name in space]
        for name in names_set_upon(one):
            if name[0] == TEXT:
                value = sys.modules.get(name[1:])
            else:
                value = space.get(name, namespace.get(name, sys.modules.get(name)))
            if value is None and name.partition(".")[0] in said.imported:
                said.tops.add(name.partition(".")[0])
            elif name in held and found_at(held[name]) is value:
                said.tops.add(held[name][0].partition(".")[0])
            else:
                _add_home(said, value, one)
        for name in one.co_names:
            function: Any = space.get(name) if name in held else None
            if is_a(function, types.BuiltinFunctionType):
                owner = found_at(held[name][:-1])
                if owner is function.__self__ and sets(function.__name__):
                    said.tops.add(held[name][0].partition(".")[0])
        for name, start, *steps in bound_in(one):
            module: Any = space.get(start, sys.modules.get(start))
            if is_a(module, types.ModuleType):
                said.bound[name] = (module.__name__, *steps)
        for value in named:
            if is_a(value, types.ModuleType):
                said.called += [(value, other) for other in setters_in(one)]
        found: list[Any] = [body for body in one.co_consts if isinstance(body, types.CodeType) and _runs(one, body)]
        if runs_texts(one):
            found += _compiled((*one.co_consts, *named))
        for body, where in itertools.chain(((body, space) for body in found), values.bodies(named, one.co_names)):
            if body not in seen:
                seen.add(body)
                work.append((body, where))
    said.homes = values.homes
    return said


def _add_home(said: Said, value: Any, code: types.CodeType) -> None:
    """The library of something that is assigned to, or of what is called."""
    if is_a(value, types.ModuleType):
        said.tops.add(_home(value).partition(".")[0])
        said.called += [(value, name) for name in setters_in(code)]
    elif is_a(value, type | types.FunctionType | types.BuiltinFunctionType):
        said.tops.add(_home(value).partition(".")[0])
    elif (place := _place_of(value)) is not None:
        said.tops.add(place[0].partition(".")[0])
    elif value is not None and not _CLASS_OF.isdisjoint(code.co_names):
        said.tops.add(module_of(type(value)).partition(".")[0])


def _place_of(value: Any) -> tuple[str, str] | None:
    """Where a library keeps what it has one of: a name of the session may be bound to that."""
    return next((place for one, place in known() if one is value), None) or Singletons.find_one(value)


def _is_plain(code: types.CodeType, namespace: Space) -> bool:
    """Whether code names nothing but atoms and builtins, and runs nothing else."""
    names = code.co_names
    return (
        all(is_atom(namespace.get(name)) for name in names)
        and IMPORT not in code.co_code[::2]
        and not runs_texts(code)
        and types.CodeType not in map(type, code.co_consts)
        and not any(map(sets, names))
    )


def _runs(code: types.CodeType, body: types.CodeType) -> bool:
    """Whether code may run another code in it: it does not by defining a function alone."""
    ops = code.co_code[::2]
    if sum(map(ops.count, _CALLS)) > ops.count(_BUILD_CLASS):
        return True
    return not body.co_flags & inspect.CO_OPTIMIZED  # the body of a class


def _compiled(values: Iterable[Any]) -> Iterator[types.CodeType]:
    """The code in texts: one of them may be run."""
    for value in values:
        if type(value) is types.CodeType:
            yield value
        elif type(value) is str and len(value) <= _LONGEST_TEXT:
            for text in (value, *map(_content, _FILE.findall(value))):
                if (code := _code(text)) is not None:
                    yield code


def _code(text: str) -> types.CodeType | None:
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # it is no code
        warnings.simplefilter("ignore")
        return compile(text, "<text>", "exec", dont_inherit=True)
    return None


def _content(name: str) -> str:
    """The text of a file; none if there is none, or too much of it."""
    try:
        path = Path(name)
        return path.read_text() if path.is_file() and path.stat().st_size <= _LONGEST_TEXT else ""
    except (OSError, ValueError):
        return ""


class _Values:
    """Finds code in values, and functions of libraries that set something, under whatever name."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self._left = _MOST_VALUES
        self._seen: dict[int, Any] = {}
        self.homes: set[str] = set()

    def bodies(self, values: Iterable[Any], names: tuple[str, ...]) -> Iterator[tuple[types.CodeType, Space]]:
        work = [value for value in values if not is_atom(value)]
        while work and self._left:
            value = work.pop()
            if id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            self._left -= 1
            kind = type(value)
            self.homes.add(_home(value))
            if kind is types.FunctionType:
                if value.__module__ == "__main__" or imports.is_own(sys.modules.get(value.__module__)):
                    yield value.__code__, value.__globals__
                else:
                    self._note(value)
                work += _within_function(value)
            elif is_a(value, types.GeneratorType | types.CoroutineType):
                frame = getattr(value, "gi_frame", None) or getattr(value, "cr_frame", None)
                if frame is not None:
                    yield frame.f_code, frame.f_globals
            else:
                work += self._within(value, kind, names)

    def _within(self, value: Any, kind: type, names: tuple[str, ...]) -> list[Any]:
        """What is in a value that may be called."""
        if kind is types.ModuleType:
            own = imports.is_own(value)
            return [space_of(value)[name] for name in names if name in space_of(value)] if own else []
        if kind in _HOLDERS:
            return [one for one in _HOLDERS[kind](value) if not is_atom(one)]
        if name_of(kind) in IN_C:
            self._note(value)
            return [value.__self__] if kind is types.BuiltinFunctionType and is_a(value.__self__, type) else []
        if kind is functools.partial:
            if getattr(value.func, "__name__", "") in GIVEN_NAMES:
                self._said.tops.update(_home(one).partition(".")[0] for one in value.args)
            return [value.func, *value.args, *value.keywords.values()]
        if issubclass(kind, type):
            return _members(value) if _is_own_class(value) else []
        members = _members(kind) if _is_own_class(kind) else []
        try:
            attributes = object.__getattribute__(value, "__dict__")
        except BaseException:  # noqa: BLE001 - it has none
            return members
        if type(attributes) is dict:
            for one in itertools.islice(attributes.values(), _MOST_ITEMS):
                of = type(one)
                if of in _FUNCTIONS or module_of(of) == "__main__":
                    members.append(one)
        return members

    def _note(self, function: Any) -> None:
        """A function of a library is called, it may be: whatever the session calls it."""
        name = str(function.__qualname__)
        home = sys.modules.get(str(function.__module__))
        if home is not None:
            self._said.called.append((home, str(function.__name__)))
            if any(map(sets, name.split("."))):
                self._said.tops.add(home.__name__.partition(".")[0])


def _is_own_class(kind: type) -> bool:
    home = module_of(kind)
    return home == "__main__" or imports.is_own(sys.modules.get(home))


def _members(kind: type) -> list[Any]:
    return [value for base in bases_of(kind) if _is_own_class(base) for value in attributes_of(base).values()]


def _within_function(function: types.FunctionType) -> list[Any]:
    found = [function.__dict__.get("__wrapped__"), *(function.__defaults__ or ())]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # it is empty yet
            continue
    return [value for value in found if not is_atom(value)]


def _home(value: Any) -> str:
    """The module that a value, or its class, comes from."""
    if is_a(value, types.ModuleType):
        return str(space_of(value).get("__name__"))
    if is_a(value, types.FunctionType | types.BuiltinFunctionType):
        return str(value.__module__)
    return module_of(value if is_a(value, type) else type(value))
