"""What a capture of the namespace is made of: plain values. Runs in the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kernelrepl.guest.pickler import Stream


@dataclass(frozen=True)
class Limits:
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
    after: State | None = None

    @property
    def empty(self) -> bool:
        return not (self.names or self.unsaved or self.deleted or self.components or self.closed)


@dataclass
class State:
    """What is known to be in the store."""

    names: dict[str, Name] = field(default_factory=dict)
    unsaved: dict[str, Unsaved] = field(default_factory=dict)
    live: dict[int, Component] = field(default_factory=dict)
    prints: dict[int, bytes] = field(default_factory=dict)
    objects: dict[int, Any] = field(default_factory=dict)
