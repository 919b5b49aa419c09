"""What a session owns besides its variables: working directory, import path, environment, random state.

Kept under names that no variable can have, as plain built-in values. Runs in the kernel.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernelrepl.guest import packages
from kernelrepl.guest.settings.options import Options

ENVIRONMENT = "*environment"
RANDOM = "*random"
NUMPY_RANDOM = "*numpy.random"
TEMPORARY = "*temporary"

_GENERATORS = frozenset({RANDOM, NUMPY_RANDOM})
_NOT_KEPT = frozenset({"PWD", "OLDPWD", "SHLVL", "COLUMNS", "LINES", "MPLBACKEND"})
_MOST_LISTED = 1000
_NAMED = 5
_MOST_CHARS = 60
"""Of the names of temporary files that are told when they are gone."""


class Environment:
    """Compares with what the kernel started with: only the difference belongs to the session."""

    def __init__(self, workspace: str, options: Options, *, confined: bool, packages: str) -> None:
        """packages: where the layers with packages of the session are."""
        self.options = options
        self._workspace = Path(workspace)
        self._packages = packages
        self._path = list(sys.path)
        self._variables = dict(os.environ)
        self._temporary = _Temporary(self._variables.get("TMPDIR") if confined else None)
        self._chance = {name: _chance(name) for name in _GENERATORS}
        """The random states that nobody has used yet: another process may as well begin with others."""

    def give(self, entry: str) -> None:
        """Note an entry of the import path that the session has from its keeper, not from its code."""
        self._path.append(entry)

    def own_values(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            ENVIRONMENT: {"cwd": self._cwd(), "path": self._path_now(), "variables": self._variables_now()},
            **self.options.own_values(),
            **self._temporary.own_values(),
        }
        for name in _GENERATORS:
            now = _chance(name)
            if now is not None and (name not in self._chance or not _same_chance(now, self._chance[name])):
                self._chance.pop(name, None)
                values[name] = now
        return values

    def apply(self, values: dict[str, Any]) -> list[tuple[str, str]]:
        """Bring saved values back. Returns what failed, as (what, why)."""
        failed: list[tuple[str, str]] = []
        environment = values.get(ENVIRONMENT)
        if environment is not None:
            for name, value in environment["variables"].items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            sys.path[:] = packages.arranged(self._merged_path(**environment["path"]), self._packages)
            try:
                os.chdir(self._workspace / environment["cwd"])
            except OSError as error:
                failed.append(("the working directory", f"{environment['cwd']}: {error.strerror}"))
        for name in _GENERATORS & values.keys():
            self._chance.pop(name, None)
        if RANDOM in values:
            random.setstate(values[RANDOM])
        if NUMPY_RANDOM in values:
            try:
                from numpy import random as numpy_random

                numpy_random.set_state(values[NUMPY_RANDOM])
            except BaseException as error:  # noqa: BLE001 - numpy may be gone or of another version
                failed.append(("the random state of numpy", str(error)))
        if TEMPORARY in values:
            failed += self._temporary.restore(values[TEMPORARY])
        return failed + self.options.apply(values)

    def _cwd(self) -> str:
        try:
            now = Path.cwd()
        except OSError:
            return "."
        return str(now.relative_to(self._workspace)) if now.is_relative_to(self._workspace) else str(now)

    def _path_now(self) -> dict[str, list[str]]:
        """The import path, and which of it is not the session's own but what the kernel started with."""
        now = [str(entry) for entry in sys.path]
        return {
            "entries": now,
            "given": [entry for entry in now if entry in self._path],
            "removed": [entry for entry in self._path if entry not in now],
        }

    def _merged_path(self, entries: list[str], given: list[str], removed: list[str]) -> list[str]:
        """The session's own entries in their places; of what kernels start with, what this one did start with."""
        merged = [entry for entry in entries if entry not in given or entry in self._path]
        others = [entry for entry in self._path if entry not in merged and entry not in removed]
        return [*(entry for entry in others if not entry), *merged, *filter(None, others)]  # its own directory first

    def _variables_now(self) -> dict[str, str | None]:
        now = dict(os.environ)
        changed: dict[str, str | None] = {
            name: value
            for name, value in sorted(now.items())
            if self._variables.get(name) != value and name not in _NOT_KEPT
        }
        for name in sorted(self._variables):
            if name not in now and name not in _NOT_KEPT:
                changed[name] = None
        return changed


class _Temporary:
    """The directory for temporary files, which goes with the kernel: the count and some names are kept, to tell of it.

    directory: None where it is not the session's own.
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = None if directory is None else Path(directory)
        self._given = frozenset(_names(self._directory))
        """What is there already: where a workspace or a granted path lies below the host's /tmp, its mount."""
        self._seen: tuple[int, ...] = ()
        """What the system said of it when it was listed: on a tmpfs its size as well, because the clock only ticks."""
        self._listed: tuple[int, tuple[str, ...]] | None = None
        self._stored: Any = None

    def own_values(self) -> dict[str, Any]:
        """What there is, from the first file on."""
        stored, self._stored = self._stored, None
        if stored is not None:
            return {TEMPORARY: stored}  # first what the store has, then what differs from that
        if self._directory is not None:
            with contextlib.suppress(OSError):
                status = self._directory.stat()
                seen = (status.st_mtime_ns, status.st_size, status.st_nlink)
                if seen != self._seen:
                    listed = _listing(self._directory, self._given)
                    if listed[0] or self._listed is not None:
                        self._listed = listed
                    self._seen = seen
        return {} if self._listed is None else {TEMPORARY: self._listed}

    def restore(self, stored: Any) -> list[tuple[str, str]]:
        """Take what was there before; returns what to tell of it."""
        self._stored = self._listed = stored
        count, names = stored
        if not count:
            return []
        shown = ", ".join(names) + (", …" if count > len(names) else "")
        number = f"{_MOST_LISTED} or more" if count == _MOST_LISTED else str(count)
        why = f"its files went with the kernel, {number} in all: {shown}; the working directory is what stays"
        return [(str(self._directory or "the directory for temporary files"), why)]


def _names(directory: Path | None) -> Iterator[str]:
    """The names in a directory. Caches of libraries have a dot."""
    if directory is not None:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith("."))


def _listing(directory: Path, given: frozenset[str]) -> tuple[int, tuple[str, ...]]:
    """How many files there are, as far as they are counted, and some names; `given` are none of the session's."""
    names = sorted(itertools.islice((name for name in _names(directory) if name not in given), _MOST_LISTED))
    printable = (name[:_MOST_CHARS].encode(errors="backslashreplace").decode() for name in names[:_NAMED])
    return len(names), tuple(printable)


def _chance(name: str) -> Any:
    """The state of a global generator; None where its library is not loaded."""
    if name == RANDOM:
        return random.getstate()
    mtrand = sys.modules.get("numpy.random")
    return mtrand.get_state(legacy=False) if mtrand is not None and hasattr(mtrand, "get_state") else None


def _same_chance(now: Any, before: Any) -> bool:
    if type(now) is not dict or type(before) is not dict:
        return bool(now == before)
    here, there = (
        {**state, **state["state"], "state": state["state"]["key"].tobytes(), "key": 0} for state in (now, before)
    )
    return here == there
