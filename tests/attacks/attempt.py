"""What an attempt is, and what may come of it: pure data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernelrepl.model import Resources

if TYPE_CHECKING:
    from tests.attacks.arena import Arena

THROUGH = "done"
"""The outcome of what went through."""
HARNESS = "the harness failed"
NO_KERNEL = "no kernel"
"""How an outcome begins when there is nothing to tell of the attempt."""
ALL = ("x86_64", "aarch64")
Scenario = Callable[["Arena"], Awaitable[str]]


@dataclass(frozen=True)
class Attempt:
    """One thing that a session must not be able to do."""

    name: str
    code: str | Scenario
    """What runs in the session, ending in an expression that is the outcome; or what the outside does with sessions."""
    tier_1: str
    """The outcome that is right, there; several, with | between, where machines differ."""
    tier_2: str | None = None
    """The same in tier 2; None: no different."""
    group: str = ""
    leaks_metadata: bool = False
    """In tier 2 it learns of a file of the host that it exists, and no more."""
    machines: tuple[str, ...] = ALL
    tiers: tuple[int, ...] = (1, 2)
    resources: Resources = field(default_factory=Resources)
    control: bool = False
    """Harmless enough to show, without a sandbox, that it would work."""

    def expected(self, tier: int) -> str:
        """The right outcome in a tier."""
        return self.tier_1 if tier == 1 or self.tier_2 is None else self.tier_2


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt."""

    attempt: str
    said: str
    """What the session says of it, or what ended it."""
    disturbed: tuple[str, ...] = ()
    """What changed outside."""

    @property
    def leaked(self) -> bool:
        """Whether it got through, by its own account or by what is seen outside."""
        return self.said.split(":")[0] == THROUGH or bool(self.disturbed)

    def wrong(self, attempt: Attempt, tier: int) -> str:
        """How it differs from what is right; empty if it does not."""
        found = []
        if self.said not in attempt.expected(tier).split("|"):
            found.append(f"it came to {self.said!r}, not {attempt.expected(tier)!r}")
        found += [f"outside: {what}" for what in self.disturbed]
        return "; ".join(found)
