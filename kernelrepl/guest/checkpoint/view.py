"""What a pass over the namespace sees of the snapshot that it is made for. Runs in the kernel, main thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, NamedTuple

from kernelrepl.guest.checkpoint.state import CaptureLimits, CommittedState, Unsaved
from kernelrepl.guest.interrupts import Interrupts
from kernelrepl.guest.pickling.pickler import PicklingContext


class Changes(NamedTuple):
    """What has become of the user's names since the last commit."""

    new: dict[str, Any]
    """Names that are bound to other values."""
    gone: list[str]
    has_long: bool
    """Whether a name that is too long to be saved was bound."""


class Habits:
    """How values have behaved while they were pickled. It is remembered whether a pass is committed or not."""

    def __init__(self) -> None:
        self._slow: dict[int, Any] = {}
        self._unstable: set[int] = set()

    def is_slow(self, value: Any) -> bool:
        """Whether pickling a value took too long the last time."""
        return id(value) in self._slow

    def note_slow(self, value: Any, *, slow: bool) -> None:
        if slow:
            self._slow[id(value)] = value
        else:
            self._slow.pop(id(value), None)

    def is_unstable(self, roots: Iterable[int]) -> bool:
        """Whether a component with one of these roots pickles to other bytes each time."""
        return not self._unstable.isdisjoint(roots)

    def note_unstable(self, roots: Iterable[int]) -> None:
        self._unstable.update(roots)

    def forget_all_but(self, roots: Set[int]) -> None:
        """Only these roots are in components now."""
        self._unstable.intersection_update(roots)


class View(NamedTuple):
    """The snapshot as a pass sees it. A pass writes nothing to it: what is to be written, it returns as a delta."""

    context: PicklingContext
    interrupts: Interrupts
    limits: CaptureLimits
    state: CommittedState
    holders: Mapping[int, int]
    """Ids of the objects that may tie roots together, and for each a root that has it."""
    part_of: Mapping[int, int]
    """The component of each saved root, by key."""
    bound: Mapping[str, Any]
    """What each of the user's names was bound to at the last commit."""
    unloaded: Set[str]
    """Names in the store whose value is not here. Absent from the namespace, yet not deleted."""
    pinned: Mapping[int, Any]
    """Objects that components which could not be loaded refer to."""
    frozen_bytes: int
    """The size of the components in the store whose value is not here."""
    own_roots: Mapping[str, int]
    strays: Mapping[str, Any]
    """Values of the session that are attributes of modules, by `module.attribute`: they are not saved."""
    placed: Mapping[str, Any]
    """What the session has put where no name leads to, by a name that no variable can have."""
    kept: Mapping[str, Any]
    """What of it was there at the last commit."""
    told: Mapping[str, Unsaved]
    """What else is not saved, though it is no variable."""
    habits: Habits
    identify: Callable[[Any], int]
    """Gives the durable identity of an object."""
    own_root: Callable[[str], int]
    """Gives the identity of one of the session's own values, by its name."""
    user_names: Callable[[], dict[str, Any]]
    """The names that belong to the user, `_` included, and their values."""
    changes: Callable[[], Changes]
