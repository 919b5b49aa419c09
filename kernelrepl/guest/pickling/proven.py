"""Of which kinds it is known that their values can be loaded again, and which have yet to be tried.

`checkpoint/proving.py` tries them. Runs in the kernel, main thread only.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from typing import Any

from kernelrepl.guest.neutral import module_of

_VOUCHED = frozenset(
    {"builtins", "collections", "datetime", "decimal", "fractions", "pathlib", "uuid", "ipaddress", "zoneinfo"}
    | {"array", "re", "operator", "itertools", "functools", "types", "typing", "string", "random", "enum", "abc"}
    | {"threading", "queue", "asyncio.locks", "asyncio.queues"}
    | {"kernelrepl.guest.pickling.segments", "kernelrepl.guest.pickling.stream", "pathlib._local"}
)
"""Modules of whose kinds the tests of fidelity load all that can be pickled."""
_VOUCHED_KINDS = frozenset(
    {"pandas.core.frame.DataFrame", "pandas.core.series.Series", "numpy.random._generator.Generator"}
    | {"pandas._libs.tslibs.timestamps.Timestamp", "pandas._libs.tslibs.timedeltas.Timedelta"}
    | {"numpy.dtype", "numpy.ndarray", "argparse.Namespace", "types.SimpleNamespace", "logging.Logger"}
)


_SAY = frozenset({"__setstate__", "__reduce__", "__reduce_ex__", "__new__", "__getnewargs__", "__getnewargs_ex__"})


class CannotLoad(Exception):
    """A value can be pickled, and its bytes cannot be loaded."""


class Proven:
    """The kinds of which a value was loaded once, and the values that could not be."""

    def __init__(self) -> None:
        self._kinds: weakref.WeakSet[type] = weakref.WeakSet()
        self._slow: weakref.WeakSet[type] = weakref.WeakSet()
        self._lacks: weakref.WeakKeyDictionary[type, frozenset[str]] = weakref.WeakKeyDictionary()
        self._failed: dict[int, tuple[bytes, str]] = {}
        """Of each root that could not be loaded, the fingerprint it had, and why."""

    def doubts(self, kind: type) -> bool:
        """Whether a kind that is pickled in its own way has yet to be tried."""
        if kind not in self._kinds:
            return not _is_vouched(kind)
        return kind not in self._slow and is_up_to_the_session(kind)

    def knows(self, kinds: Iterable[type]) -> bool:
        """Whether values of all of these have been loaded: one that has not changed since need not be tried again."""
        return all(kind in self._kinds for kind in kinds)

    def trust(self, kinds: Iterable[type]) -> None:
        """Values of these kinds have been loaded."""
        self._kinds.update(kinds)

    def give_up(self, kinds: Iterable[type]) -> None:
        """Nobody waits for values of these a second time."""
        self._slow.update(kinds)

    def lack(self, kind: type, names: frozenset[str]) -> None:
        """Values of a kind come back without these attributes, if nothing is done about it."""
        self._lacks[kind] = names

    def lacks(self, kind: type) -> frozenset[str]:
        return self._lacks.get(kind, frozenset())

    def fail(self, root: int, fingerprint: bytes, reason: str) -> None:
        self._failed[root] = fingerprint, reason

    def failure(self, root: int, fingerprint: bytes) -> CannotLoad | None:
        """Why a root cannot be loaded, if it is as it was when that was tried."""
        known = self._failed.get(root)
        return None if known is None or known[0] != fingerprint else CannotLoad(known[1])

    def forget_missing(self) -> list[int]:
        """Forget the failures for want of a name, which may be bound by now. Returns the roots, to be tried again."""
        roots = [root for root, (_, reason) in self._failed.items() if "NameError" in reason]
        for root in roots:
            del self._failed[root]
        return roots


def is_up_to_the_session(kind: type) -> bool:
    """Whether code of the session has a say in the loading of a kind: one value proves nothing of others then."""
    return any(module_of(base) == "__main__" and not _SAY.isdisjoint(vars(base)) for base in kind.__mro__)


def has_state(obj: Any) -> bool:
    """Whether loading it says how its kind is loaded: one without attributes is loaded without `__setstate__`."""
    kind: Any = type(obj)
    own = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    if not own or getattr(kind, "__getstate__", None) is not getattr(object, "__getstate__", None):
        return True
    try:
        return bool(object.__reduce_ex__(obj, 2)[2])
    except Exception:  # noqa: BLE001 - it cannot be pickled, which is another matter
        return True


def _is_vouched(kind: type) -> bool:
    if kind.__module__ in _VOUCHED:
        return True
    if f"{kind.__module__}.{kind.__qualname__}" in _VOUCHED_KINDS:
        return True
    np: Any = sys.modules.get("numpy")
    generic, dtype = getattr(np, "generic", None), getattr(np, "dtype", None)
    return generic is not None and dtype is not None and issubclass(kind, (generic, dtype))
