"""What was measured, the same for ours and for peers."""

from __future__ import annotations

import contextlib
import os
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.session import percentile

RESAMPLES = 2000


class Trouble(Exception):
    """One side could not do what was asked of it; the text is printed in its place."""


@dataclass
class Series:
    """Times of one kind of cell in milliseconds: the whole, the cell alone, and what saving took."""

    total: list[float] = field(default_factory=list)
    cell: list[float] = field(default_factory=list)
    part: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    """Of ours: a cheap cell in an empty session, call by call beside the others."""
    commits_ms: float | None = None
    """Of ours: the sum of what the kernel's commits took, from the end of the code until the store had them."""
    mb_after: float | None = None
    mb_grown: float | None = None
    trouble: str = ""

    @property
    def over_empty(self) -> list[float]:
        """The whole without that of the call in an empty session beside it."""
        return [one - other for one, other in zip(self.total, self.empty, strict=True)] if self.empty else []

    def as_json(self) -> dict[str, Any]:
        """With all samples."""
        found: dict[str, Any] = {"n": len(self.total), "trouble": self.trouble or None}
        for name in ("total", "cell", "part", "empty", "over_empty"):
            values = getattr(self, name)
            if values:
                found[name] = {
                    "median_ms": statistics.median(values),
                    "p90_ms": percentile(values, 90),
                    "sum_ms": sum(values),
                    "samples_ms": values,
                }
        return {**found, "commits_ms": self.commits_ms, "mb_after": self.mb_after, "mb_grown": self.mb_grown}


@dataclass
class Side:
    """What one side, ours or a peer, did with one state."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    cells: dict[str, Series] = field(default_factory=dict)
    restore: dict[str, list[float]] = field(default_factory=dict)
    loops: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of the loop, of this side and of what it is compared with."""
    notes: list[str] = field(default_factory=list)
    """What is to be said beside the figures: what was not saved, what came back wrong, why it ended."""
    took_s: float = 0.0

    def note(self, text: str) -> None:
        """Say it once."""
        if text not in self.notes:
            self.notes.append(text)

    def as_json(self) -> dict[str, Any]:
        """With all samples."""
        return {
            "versions": self.versions,
            "cells": {kind: series.as_json() for kind, series in self.cells.items()},
            "restore_ms": self.restore,
            "loop_s": self.loops,
            "notes": self.notes,
            "took_s": self.took_s,
        }


@contextlib.contextmanager
def growth(series: Series, size: Callable[[], float]) -> Iterator[None]:
    """Note what is stored after the body, and how much more that is."""
    before = size()
    try:
        yield
    finally:
        series.mb_after = size()
        series.mb_grown = series.mb_after - before


def megabytes(directory: Path, without: str = "") -> float:
    """What the files below a directory take, without one of its folders."""
    found = 0
    for path, folders, files in os.walk(directory):
        if without in folders and path == str(directory):
            folders.remove(without)
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                found += (Path(path) / name).lstat().st_size
    return found / 1e6


def enough(series: Series, repeats: int, budget_s: float) -> bool:
    """Whether a kind of cell was measured often or long enough; once it always is."""
    return len(series.total) >= repeats or sum(series.total) / 1000 >= budget_s


def interval(ours: Sequence[float], other: Sequence[float], *, paired: bool) -> tuple[float, float, float]:
    """The median ratio and its 95 % bootstrap interval; pairs are drawn together, else each side by itself."""
    chosen = random.Random(1)

    def ratio(one: Sequence[float], two: Sequence[float]) -> float:
        if paired:
            return statistics.median(a / b for a, b in zip(one, two, strict=True))
        return statistics.median(one) / statistics.median(two)

    found = []
    for _ in range(RESAMPLES):
        at = chosen.choices(range(len(ours)), k=len(ours))
        to = at if paired else chosen.choices(range(len(other)), k=len(other))
        found.append(ratio([ours[i] for i in at], [other[i] for i in to]))
    return ratio(ours, other), percentile(found, 2), percentile(found, 97)
