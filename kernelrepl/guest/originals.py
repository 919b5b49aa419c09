"""What the machinery of a kernel works with, kept from what code of the session puts in its place.

Code may replace a function of the standard library: to freeze the time, to count calls, by mistake. Where people do so
on purpose it finds its own as long as it runs, and whatever runs between cells, from the commit to the event loop,
finds what there was at the start. All others are put back, and that is told. Runs in the kernel.
"""

from __future__ import annotations

import builtins
import operator
import sys
from collections.abc import Iterable
from typing import Any

from kernelrepl.guest import dict_versions

REPLACED_BY_PEOPLE = (
    "time", "datetime", "random", "os", "json", "pickle", "uuid", "socket", "hashlib", "hmac", "tempfile", "platform",
    "pathlib", "logging", "copy", "io", "asyncio", "asyncio.events", "asyncio.tasks", "asyncio.futures",
    "asyncio.base_events", "concurrent.futures",
)  # fmt: skip
"""To freeze the time or chance, to feign a system, to nest event loops."""
MODULES = (
    *REPLACED_BY_PEOPLE,
    "builtins", "sys", "posixpath", "json.decoder", "json.encoder", "copyreg", "threading", "signal", "select",
    "selectors", "struct", "codecs", "traceback", "linecache", "tokenize", "ast", "inspect", "types", "functools",
    "itertools", "collections", "contextlib", "re", "warnings", "gc", "weakref", "queue", "contextvars", "array",
    "mmap", "fcntl", "dis", "bisect", "heapq", "abc", "enum", "dataclasses", "resource", "importlib",
    "xxhash", "cloudpickle",
)  # fmt: skip
_BUILTINS_REPLACED_BY_PEOPLE = frozenset({"print", "open", "help", "breakpoint"})
_FOR_CODE = frozenset(
    {"displayhook", "excepthook", "breakpointhook", "unraisablehook", "showwarning", "formatwarning"}
    | {"exit", "quit", "input"}
)
"""What code of the session is to replace, or the kernel replaces for it: it is asked for while that code runs."""
_ABSENT = object()


Space = dict[str, Any]


class Originals:
    """Remembers the functions and classes of modules, and sets aside what has come in their place."""

    def __init__(self, modules: Iterable[str] = MODULES) -> None:
        self._kept = [kept for name in dict.fromkeys(modules) if (kept := _kept(name)) is not None]
        self._aside: list[tuple[Space, str, Any]] = []
        """What code has put there, while it does not run."""

    # These use no builtin by its name: that may be what was replaced.

    def set_aside(
        self, together: Any = zip, missing: type[BaseException] = BaseException, absent: object = _ABSENT
    ) -> None:
        """User code has stopped."""
        for kept in self._kept:
            if kept.stands(missing):
                continue
            space = kept.space
            for name, value in together(kept.names, kept.values):
                now = space.get(name, absent)
                if now is not value:
                    self._aside.append((space, name, now))
                    space[name] = value

    def put_back(self) -> None:
        """User code goes on."""
        for space, name, value in self._aside:
            space[name] = value
        self._aside.clear()

    def drop(self) -> tuple[list[str], list[str]]:
        """Let code find the original again of what nobody can call, and of what it does not replace on purpose.

        Returns the names of both.
        """
        broken, needed, left = [], [], []
        for space, name, value in self._aside:
            label = name if space is vars(builtins) else f"{space['__name__']}.{name}"
            if not callable(value):
                broken.append(label)
            elif space["__name__"] in REPLACED_BY_PEOPLE or label in _BUILTINS_REPLACED_BY_PEOPLE:
                left.append((space, name, value))
            else:
                needed.append(label)
        self._aside = left
        return broken, needed

    def replaced(self, space: Space, name: str) -> Any:
        """What code has under this name of a module, which may be set aside."""
        return next((value for of, key, value in self._aside if of is space and key == name), space.get(name))

    def stands(self, space: Space, name: str) -> bool:
        """Whether this name of a module is what it was at the start, for code as well."""
        for kept in self._kept:
            if kept.space is space and name in kept.names:
                return self.replaced(space, name) is kept.values[kept.names.index(name)]
        return False

    def __bool__(self) -> bool:
        """Whether anything is set aside."""
        return bool(self._aside)


class _Kept:
    """The functions and classes of one module, as they were at the start."""

    def __init__(self, space: Space, found: Space) -> None:
        self.space = space
        self.names, self.values = tuple(found), tuple(found.values())
        self._find = operator.itemgetter(*found)
        self._version = dict_versions.of(space)
        self._stood_at = -1
        """The version at which all of them stood in their places."""

    def stands(self, missing: type[BaseException]) -> bool:
        """Whether all of them stand in their places. Uses no builtin by its name."""
        now = None if self._version is None else self._version.value
        if now == self._stood_at:
            return True
        try:
            stands: bool = self._find(self.space) == self.values
        except missing:  # a name is gone, or what stands there cannot be compared
            return False
        if stands and now is not None:
            self._stood_at = now
        return stands


def _kept(name: str) -> _Kept | None:
    space = getattr(sys.modules.get(name), "__dict__", None)
    if space is None:
        return None
    found = {
        key: value
        for key, value in space.items()
        if callable(value) and key not in _FOR_CODE and (key == "__import__" or not key.startswith("_"))
    }
    return _Kept(space, found) if len(found) > 1 else None
