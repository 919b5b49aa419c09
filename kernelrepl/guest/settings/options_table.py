"""What a table of settings is, and when a setting is plain data. Runs in the kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kernelrepl.guest.neutral import is_a

_ATOMS = (str, int, float, bool, type(None), bytes, complex)
_MOST_PARTS = 10_000


@dataclass(frozen=True)
class Options:
    """Some settings of one library. `read` gives all by key, `write` sets one again."""

    name: str
    module: str
    """They are looked at while this module is loaded."""
    read: Callable[[], dict[Any, Any]]
    write: Callable[[Any, Any], Any] | None
    """None for what does not come back, but is told."""
    defaults: Callable[[], dict[Any, Any]] | None = None
    """How the library comes; None for one that was loaded before any code of the session ran."""
    of_shell: bool = False
    """Whether it can only change when code names IPython's shell: then it is looked at, and only then."""


def is_plain(value: Any) -> bool:
    """Whether a value is made of texts, numbers and built-in containers alone."""
    work, left = [value], _MOST_PARTS
    while work:
        one = work.pop()
        kind = type(one)
        if kind in (list, tuple, set, frozenset):
            work.extend(one)
        elif kind is dict:
            work.extend(one)
            work.extend(one.values())
        elif kind not in _ATOMS:
            return False
        left -= 1
        if left < len(work):
            return False
    return True


def detached(value: Any, within: frozenset[int] = frozenset()) -> Any:
    """A copy of dicts, lists and sets in one another; what else is in them is the same.

    within: those that it is in; one that holds itself stays there as it is.
    """
    if is_a(value, dict | list) and id(value) not in within:
        within |= {id(value)}
        if is_a(value, dict):
            return {key: detached(one, within) for key, one in dict.items(value)}
        return [detached(one, within) for one in value] if type(value) is list else value
    return set(value) if type(value) is set else value


def remembered(state: Callable[[], Any], read: Callable[[], dict[Any, Any]]) -> Callable[[], dict[Any, Any]]:
    """Read again only what differs from the last time: `state` gives what is read from, to be compared with a copy."""
    known: Any = None
    found: dict[Any, Any] = {}

    def again() -> dict[Any, Any]:
        nonlocal known, found
        now = state()
        if known is None or known != now:
            found, known = read(), detached(now)
        return found

    return again


def same(one: Any, other: Any) -> bool:
    """Whether two values say the same, as far as they answer."""
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except BaseException:  # noqa: BLE001 - an array, or an object of a user
        return False
