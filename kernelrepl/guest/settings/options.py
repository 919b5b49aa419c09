"""What a session has set in its process: in Python itself, in libraries, in IPython. Runs in the kernel.

The tables say what is looked at. Only what differs from how a library comes belongs to the session. Plain data is kept
as such; a function or an object of the session that was registered somewhere is kept as a value of its own, so that
it is the same object after a restore.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterable
from typing import Any

from kernelrepl.guest.neutral import name_of
from kernelrepl.guest.pickling.singletons import Singletons
from kernelrepl.guest.settings import callees, options_python
from kernelrepl.guest.settings.arrivals import Arrivals
from kernelrepl.guest.settings.contents import found_at
from kernelrepl.guest.settings.meddling import Meddling
from kernelrepl.guest.settings.options_ipython import count_printers, ipython_tables
from kernelrepl.guest.settings.options_libraries import LIBRARIES
from kernelrepl.guest.settings.options_logging import LOGGING
from kernelrepl.guest.settings.options_python import PYTHON
from kernelrepl.guest.settings.options_table import Options as Table
from kernelrepl.guest.settings.options_table import detached, is_plain, same
from kernelrepl.guest.settings.setters import loaded_by

SETTINGS = "*settings"
EXTENSIONS = "*extensions"
_EARLIER = {"*matplotlib": "matplotlib", "*pandas": "pandas"}
"""Names under which sessions of earlier versions have the same."""
_OF_SHELL = ("IPython", "ipykernel", "kernelrepl", "traitlets")
_ABSENT = object()


class Options:
    """Compares with how libraries come, or with what there was when the kernel started."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        tables = (*PYTHON, *LOGGING, *LIBRARIES, *ipython_tables(shell))
        self.meddling = Meddling(frozenset(table.module.partition(".")[0] for table in tables))
        others = Table("", "sys", self.meddling.read, self.meddling.put, dict)
        self._tables = {table.name: table for table in (*tables, others)}
        self._arrivals = Arrivals(self._arrived)
        self._given: dict[str, dict[Any, Any]] = {}
        """Of each table what is no setting of the session."""
        self._given_extensions: frozenset[str] = frozenset(self._extensions())
        self._told: set[str] = set()
        """Of what there was something to tell once: that there is nothing any more has to be told as well."""
        self.placed: dict[str, tuple[Any, ...]] = {}
        """What is no plain data, by a name for people: (table, key, value)."""
        self.told: dict[str, str] = {}
        """What does not come back, by a name for people, and why."""
        self._loaded = 0
        self._words: frozenset[str] = frozenset()
        """What the code that runs names."""
        self._loads: list[str] = []
        """Modules that it loads, and does nothing with."""
        self._shell_named = False
        self._printers = count_printers(shell)
        self._found: dict[str, dict[Any, Any]] = {}
        """The differences of each table, when it was looked at last."""
        self._read: dict[str, dict[Any, Any]] = {}
        """What was read then: a table that has not changed since gives the same again."""
        self._look_around()

    def notice(self, code: types.CodeType, words: frozenset[str], namespace: dict[str, Any]) -> None:
        """Code with these words is about to run."""
        self._look_around()
        self._words |= words  # nothing has run since they were loaded
        self._settle()
        self._loads = []
        try:
            said = callees.said_by(code, namespace, self.meddling.bound)
        except BaseException:  # noqa: BLE001 - modules and classes can be of any kind, and no cell may fail for that
            said = callees.Said()
        self._arrivals.expect(said.imported)
        self._words, self._loads = words | said.words, loaded_by(code)
        bound = [found_at(path) for path in said.bound.values() if path[0] in sys.modules]
        Singletons.named([namespace.get(word) for word in words] + bound)
        self.meddling.notice(said)
        if not self._shell_named and _names_shell(said):
            self._shell_named = True
            for table in self._tables.values():
                if table.of_shell:
                    self._notice(table)
        if not words.isdisjoint(options_python.REGISTER):
            options_python.note(code, words, {word: namespace[word] for word in words & namespace.keys()})

    def _look_around(self) -> None:
        """Remember how libraries came that have been loaded since."""
        if self._loaded != len(sys.modules):
            self._loaded = len(sys.modules)
            for table in self._tables.values():
                if table.module in sys.modules and not table.of_shell:
                    self._notice(table)

    def _arrived(self, module: types.ModuleType) -> None:
        """Something has been loaded by the statement that runs, which may go on to set something in it."""
        self._look_around()
        Singletons.arrived(module, self._words)
        self.meddling.arrived(module)

    def _settle(self) -> None:
        """Code that did nothing but load modules has run."""
        for name in self._loads:
            if isinstance(module := sys.modules.get(name), types.ModuleType):
                Singletons.arrived(module, self._words)

    def _notice(self, table: Table) -> dict[Any, Any]:
        if table.name not in self._given:
            with contextlib.suppress(BaseException):
                self._given[table.name] = detached((table.defaults or table.read)())
        return self._given.get(table.name, {})

    def own_values(self) -> dict[str, Any]:
        """What is plain data, by names that no variable can have. What is not, is in `placed` then."""
        self._arrivals.rest()
        self._settle()
        plain: dict[str, dict[Any, Any]] = {}
        placed: dict[str, tuple[Any, ...]] = {}
        told: dict[str, str] = {}
        printers = count_printers(self._shell)
        self._shell_named, self._printers = self._shell_named or printers != self._printers, printers
        for table in self._tables.values():
            found = self._differences(table)
            for key, value in found.items() if found else ():
                if table.write is None:
                    told[_told(table.name, key)] = "it is not saved; set it again"
                elif is_plain(key) and is_plain(value):
                    plain.setdefault(table.name, {})[key] = value
                else:
                    self._place(placed, table, key, value)
        self.placed, self.told, self._shell_named = placed, self.meddling.told | told, False
        values = {SETTINGS: plain, EXTENSIONS: sorted(set(self._extensions()) - self._given_extensions)}
        self._told.update(name for name, found in values.items() if found)
        return {name: found for name, found in values.items() if name in self._told}

    def _differences(self, table: Table) -> dict[Any, Any]:
        if table.module not in sys.modules or (table.of_shell and not self._shell_named):
            return self._found.get(table.name, {})
        try:
            now = table.read()
        except BaseException:  # noqa: BLE001 - a library of another version, or half imported
            return {}
        try:
            if now == self._read.get(table.name):
                return self._found[table.name]
        except BaseException:  # noqa: BLE001 - an array, or an object of a user
            pass
        given = self._notice(table)
        found = {key: value for key, value in now.items() if not same(value, given.get(key, _ABSENT))}
        self._read[table.name], self._found[table.name] = detached(now), found
        return found

    def _place(self, placed: dict[str, tuple[Any, ...]], table: Table, key: Any, value: Any) -> None:
        name = _told(table.name, key)
        while name in placed:
            name += "'"
        before = self.placed.get(name)
        # The same object as long as it says the same: it is saved like a variable.
        known = before is not None and before[1] == key and same(before[2], value)
        placed[name] = before if before is not None and known else (table.name, key, value)

    def apply(self, values: dict[str, Any]) -> list[tuple[str, str]]:
        """Set plain values again. Returns what failed, as (what, why)."""
        failed: list[tuple[str, str]] = []
        self._told.update(values.keys() & {EXTENSIONS}, {SETTINGS} if values.keys() & {SETTINGS, *_EARLIER} else ())
        for name in values.get(EXTENSIONS, ()):
            _try(failed, f"the IPython extension {name}", self._load, name)
        earlier = {name: values[old] for old, name in _EARLIER.items() if values.get(old)}
        for name, found in values.get(SETTINGS, earlier).items():
            for key, value in found.items():
                self._set(failed, name, key, value)
        return failed

    def place(self, records: Iterable[tuple[Any, ...]]) -> list[tuple[str, str]]:
        """Set again what was in `placed`. Returns what failed, as (what, why)."""
        failed: list[tuple[str, str]] = []
        for name, key, value in records:
            self._set(failed, name, key, value)
        return failed

    def _set(self, failed: list[tuple[str, str]], name: str, key: Any, value: Any) -> None:
        table = self._tables.get(name)
        if table is None or table.write is None:
            failed.append((_told(name, key), "this version does not know such a setting"))
        else:
            _try(failed, _told(name, key), self._write, table, key, value)

    def _write(self, table: Table, key: Any, value: Any) -> None:
        self._shell_named = self._shell_named or table.of_shell
        importlib.import_module(table.module)
        self._notice(table)
        if table.write is not None:
            table.write(key, value)

    def _extensions(self) -> set[str]:
        return set(getattr(getattr(self._shell, "extension_manager", None), "loaded", ()))

    def _load(self, name: str) -> None:
        said = self._shell.extension_manager.load_extension(name)
        if said == "no load function":
            raise ImportError("it is no extension any more")


def _try(failed: list[tuple[str, str]], what: str, act: Any, *arguments: Any) -> None:
    try:
        act(*arguments)
    except BaseException as error:  # noqa: BLE001 - another version may have other settings
        failed.append((what, f"{type(error).__name__}: {str(error)[:200]}"))


def _names_shell(said: callees.Said) -> bool:
    """Whether code may reach IPython's shell, or what hangs on it."""
    if "get_ipython" in said.words or "InteractiveShell" in said.words:
        return True
    return any(home.startswith(_OF_SHELL) for home in said.homes)


def _told(table: str, key: Any) -> str:
    return f"{table}.{_word(key)}".removeprefix(".")


def _word(key: Any) -> str:
    """A key as a person would name it."""
    if isinstance(key, type):
        return name_of(key)
    if isinstance(key, tuple):
        return ".".join(map(_word, key))
    return str(key)[:100] if is_plain(key) else type(key).__name__
