"""How often and how long things are measured."""

from __future__ import annotations

from dataclasses import dataclass

LARGE_BYTES = 300_000_000


@dataclass(frozen=True)
class Options:
    """What the command line says, the same for ours and for peers."""

    cells: frozenset[str]
    repeats: int | None = None
    """Calls of each kind; None: as the state says."""
    budget_s: float = 4.0
    """A kind of cell is not begun again after this."""
    mixed_budget_s: float = 10.0
    limit_s: float = 60.0
    """A cell that takes longer is ended."""
    restores: int = 3

    def restores_of(self, size_bytes: int) -> int:
        """How often a state of this size is restored."""
        return self.restores if size_bytes < LARGE_BYTES else min(self.restores, 2)

    @property
    def build_limit_s(self) -> float:
        """Cells that make a large state take their time on every side."""
        return 3 * self.limit_s
