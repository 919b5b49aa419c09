"""The moment at which a library has been loaded, in the middle of the statement that loads it and goes on to use it.

Runs in the kernel, and only while code runs that names a library which is not there yet.
"""

from __future__ import annotations

import importlib.machinery as machinery
import sys
import types
from collections.abc import Callable, Collection, Sequence
from typing import Any


class Arrivals:
    """Tells when modules of libraries have been loaded that are expected: how they come can be seen then alone."""

    def __init__(self, arrived: Callable[[types.ModuleType], None]) -> None:
        """arrived: called with each module that was asked for, when it has been loaded with all that it asks for."""
        self._arrived = arrived
        self._expected: set[str] = set()
        self._depth = 0

    def expect(self, tops: Collection[str]) -> None:
        """A statement begins that may load these libraries."""
        if tops and self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        self._expected.update(tops)

    def rest(self) -> None:
        """The cell has ended."""
        if self._expected:
            self._expected.clear()
            while self in sys.meta_path:
                sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> machinery.ModuleSpec | None:
        """As all others together find it, with a loader that tells."""
        if name.partition(".")[0] not in self._expected:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Telling(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None

    def load(self, loader: Any, module: types.ModuleType) -> None:
        """Load a module; the first one that was asked for is told, when all that it asks for is there."""
        module.__loader__ = loader
        if module.__spec__ is not None:
            module.__spec__.loader = loader
        self._depth += 1
        try:
            loader.exec_module(module)
        finally:
            self._depth -= 1
        if not self._depth:
            self._arrived(module)


class _Telling:
    """A loader in the place of another one, until the module is made."""

    def __init__(self, loader: Any, arrivals: Arrivals) -> None:
        self._loader = loader
        self._arrivals = arrivals

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: types.ModuleType) -> None:
        self._arrivals.load(self._loader, module)
