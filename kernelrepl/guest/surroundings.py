"""What a session owns besides its variables: working directory, import path, environment, random state.

Kept under names that no variable can have, as plain built-in values. Runs in the kernel.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

from kernelrepl.guest.options import Options

ENVIRONMENT = "*environment"
RANDOM = "*random"
NUMPY_RANDOM = "*numpy.random"

_GENERATORS = frozenset({RANDOM, NUMPY_RANDOM})
_NOT_KEPT = frozenset({"PWD", "OLDPWD", "SHLVL", "COLUMNS", "LINES", "MPLBACKEND"})


class Environment:
    """Compares with what the kernel started with: only the difference belongs to the session."""

    def __init__(self, workspace: str, options: Options) -> None:
        self._options = options
        self._workspace = Path(workspace)
        self._path = list(sys.path)
        self._variables = dict(os.environ)
        self._chance = {name: _chance(name) for name in _GENERATORS}
        """The random states that nobody has used yet: another process may as well begin with others."""

    def own_values(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            ENVIRONMENT: {"cwd": self._cwd(), "path": self._path_now(), "variables": self._variables_now()},
            **self._options.own_values(),
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
            sys.path[:] = self._merged_path(**environment["path"])
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
            except Exception as error:  # noqa: BLE001 - numpy may be gone or of another version
                failed.append(("the random state of numpy", str(error)))
        return failed + self._options.apply(values)

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
        return merged + [entry for entry in self._path if entry not in merged and entry not in removed]

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
