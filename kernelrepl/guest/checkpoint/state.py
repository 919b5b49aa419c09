"""What a capture of the namespace is made of: plain values. Runs in the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kernelrepl.guest.pickling.segments import Segment
from kernelrepl.guest.pickling.stream import Stream

PLACED = "*at "
"""What the name begins with under which something is kept that the session has put elsewhere than under a name."""


@dataclass(frozen=True)
class CaptureLimits:
    """Bytes; None lifts a limit. The keeper checks them again."""

    variable_bytes: int | None
    session_bytes: int | None
    deadline_s: float = 10.0


@dataclass(frozen=True)
class Name:
    root: int
    type: str
    size_bytes: int
    summary: str = ""


@dataclass(frozen=True)
class Unsaved:
    type: str
    path: str
    reason: str
    root: int
    summary: str = ""


@dataclass(slots=True)
class RootScan:
    """What pickling one root alone has shown. Ids are of objects that the root keeps alive."""

    print: bytes = b""
    size_bytes: int = 0
    touched: tuple[int, ...] = ()
    """Ids of the mutable objects in it and of the arrays whose memory it uses: what may tie it to other roots."""
    views: tuple[tuple[int, int], ...] = ()
    """For each array in it, its id and that of the array which owns its memory."""
    references: tuple[int, ...] = ()
    words: frozenset[str] = frozenset()
    """What code in it names."""
    reaches: tuple[int, ...] = ()
    """Ids of objects that it can change though they are not saved with it."""
    may_change_anything: bool = False
    """Whether using it may change anything at all."""
    has_code: bool = False
    plain: bool = True
    """Whether there is no singleton in it."""
    segments: tuple[Segment, ...] = ()
    """Of a long container that was pickled in segments."""
    freed: bool = False
    """Whether a lock in it is held, and comes back free."""
    lost: tuple[tuple[str, str, str], ...] = ()
    """Attributes that were changed and cannot be saved, of what a library has one of: name, type, and why."""
    error: BaseException | None = None
    stream: Stream | None = None
    """During the pass that made it."""

    def same_as(self, other: RootScan | None) -> bool:
        """Whether the value is the same, and tied to the same objects."""
        return (
            other is not None
            and self.error is None
            and other.error is None
            and self.print == other.print
            and self.references == other.references
            and self.touched == other.touched
            and self.freed == other.freed
            and self.lost == other.lost
        )


@dataclass(frozen=True)
class Component:
    """One version of a component. `stream` is None for one that was loaded or committed before."""

    roots: tuple[int, ...]
    references: tuple[int, ...]
    fingerprint: bytes
    size_bytes: int
    has_code: bool
    stream: Stream | None = None

    @property
    def key(self) -> int:
        return self.roots[0]


@dataclass
class Delta:
    """What one commit changes, and what the snapshot becomes when it has been committed."""

    names: dict[str, Name] = field(default_factory=dict)
    unsaved: dict[str, Unsaved] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    components: list[Component] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    regrouped: set[int] = field(default_factory=set)
    """Roots that have new looks, or are in other components than before."""
    bound: dict[str, Any] = field(default_factory=dict)
    """What each name is bound to; of a quick delta, each that is bound anew."""
    after: CommittedState | None = None
    quick: bool = False
    """Whether only plain values are in it. Then there is no `after`; what changes is in `names` and in `looks`."""
    scans: dict[int, RootScan] = field(default_factory=dict)

    @property
    def saved(self) -> dict[str, list[str]]:
        """Names, as a reply tells them."""
        deleted = [
            name for name in self.deleted if "." not in name and name[:1] != "*"
        ]  # an attribute of a module is not a variable
        return {"created": self.created, "changed": self.changed, "deleted": deleted}

    @property
    def empty(self) -> bool:
        return not (self.names or self.unsaved or self.deleted or self.components or self.closed)


@dataclass
class CommittedState:
    """What is known to be in the store, and what is known of each root."""

    names: dict[str, Name] = field(default_factory=dict)
    unsaved: dict[str, Unsaved] = field(default_factory=dict)
    live: dict[int, Component] = field(default_factory=dict)
    objects: dict[int, Any] = field(default_factory=dict)
    scans: dict[int, RootScan] = field(default_factory=dict)

    def roots(self, name: str) -> int | None:
        """The root that a name is bound to, saved or not."""
        known = self.names.get(name) or self.unsaved.get(name)
        return None if known is None else known.root
