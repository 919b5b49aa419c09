"""What sessions hold while checkpoints are measured, and the cells that run on it: code as text, for every side."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

CELLS = ("add", "read", "write", "append", "column", "function", "mixed", "restore", "loop")
MIXED_SEED = 20240607
SMALL = 109
NAMES = 2000
FUNCTION = "def f(v):\n    return v + $n"
ADD = "x += 1"
LOOP = """import time
t = 0
began = time.perf_counter()
for i in range(3_000_000): t += i
spent = time.perf_counter() - began
spent"""
"""Takes its own time, so that nothing around the cell counts."""


@dataclass(frozen=True)
class State:
    """A state by the cells that make it, the cells that are measured on it, and an expression that needs its bulk."""

    name: str
    about: str
    build: tuple[str, ...]
    cells: dict[str, str]
    needs: str
    repeats: int
    size_bytes: int = 0
    mixed: int = 0
    """How many cells the mixed sequence has."""
    loop: int = 0
    """How many pairs of loops."""
    checks: tuple[str, ...] = field(default=("x", "f(1)"))

    def codes(self, cell: str, start: int = 1) -> Iterator[str]:
        """The code of a kind of cell, each time with another number."""
        number = start
        while True:
            yield self.cells[cell].replace("$n", str(number))
            number += 1

    def sequence(self) -> list[tuple[str, str]]:
        """The mixed sequence: kind and code, the same at every side. Small things are done more often than large."""
        chosen = random.Random(MIXED_SEED)
        kinds = list(self.cells)
        weights = [{"add": 4, "read": 3, "function": 2}.get(kind, 1) for kind in kinds]
        picked = chosen.choices(kinds, weights, k=self.mixed)
        return [(kind, self.cells[kind].replace("$n", str(1000 + at))) for at, kind in enumerate(picked)]


def _cells(**bulk: str) -> dict[str, str]:
    return {"add": ADD, **bulk, "function": FUNCTION}


_END = ("x = 0", FUNCTION.replace("$n", "0"))
_LIBRARIES = "import numpy as np, pandas as pd"
_SMALL_KINDS = (
    "{i}", "{i} / 7", "'text {i}'", "b'bytes {i}'", "[{i}, {i} + 1, 'x']", "({i}, None, True)",
    "{{'a': {i}, 'b': [1, 2]}}", "{{{i}, 1, 2}}", "frozenset([{i}])", "complex({i}, 1)", "range({i})",
    "bytearray({i} % 50)",
)  # fmt: skip


def small(scale: float) -> State:
    """Many small values of the builtin kinds."""
    del scale
    lines = [f"v{i:03} = {_SMALL_KINDS[i % len(_SMALL_KINDS)].format(i=i)}" for i in range(SMALL - 2)]
    lines += ["table = {f'k{i}': i for i in range(20)}", "items = list(range(20))"]
    return State(
        "small",
        f"{SMALL} small variables of builtin kinds",
        ("\n".join(lines), *_END),
        _cells(read="seen = sum(table.values())", write="table['k5'] = $n", append="items.append($n)"),
        "table['k5'] + len(items)",
        30,
        mixed=200,
        loop=20,
    )


def names(scale: float) -> State:
    """Many names."""
    count = max(int(NAMES * scale), 100)
    kinds = ("{i}", "'text {i}'", "[{i}]", "{i} / 7")
    lines = [f"n{i:04} = {kinds[i % len(kinds)].format(i=i)}" for i in range(count)]
    return State(
        "names",
        f"{count} names with a small value each",
        ("\n".join(lines), *_END),
        _cells(read="seen = n0004 + n0008", write="n0004 = $n", append="n0006.append($n)"),
        "n0004 + len(n0006)",
        20,
        mixed=200,
    )


def records(scale: float) -> State:
    """A list of dicts, the hard case for whoever pickles."""
    count = int(100_000 * scale)
    record = "{'a': i, 'b': i / 3, 'c': f'name {i}', 'd': i % 2 == 0, 'e': f'city {i % 50}', 'f': -i, 'g': None}"
    extra = "{'a': $n, 'b': $n / 3, 'c': 'name $n', 'd': True, 'e': 'city 1', 'f': -$n, 'g': None}"
    return State(
        "records",
        f"a list of {count:,} dicts with 7 fields, about {7 * count:,} objects",
        (f"records = [{record} for i in range({count})]", *_END),
        _cells(
            read="seen = sum(r['a'] for r in records)", write="records[5]['a'] = $n", append=f"records.append({extra})"
        ),
        "records[5]['a'] + len(records)",
        10,
        size_bytes=int(40e6 * scale),
        mixed=200,
        loop=20,
    )


_READ = "seen = float(big.sum(numeric_only=True).sum())"
_WRITE = "big.iloc[5, 0] = float($n)"
_APPEND = "more_$n = pd.DataFrame({'a': [float($n)] * 20, 'b': range(20)})"
_COLUMN = "big['new'] = float($n)"
_NEEDS = "float(big.iloc[5, 0])"


def _frame(rows: int, floats: int, integers: int) -> str:
    """A cell that makes `big`: one block of floats and one of integers."""
    return (
        f"rng = np.random.default_rng(7)\n"
        f"big = pd.DataFrame({{**{{f'a{{i}}': rng.random({rows}) for i in range({floats})}},"
        f" **{{f'b{{i}}': rng.integers(0, 10**12, {rows}) for i in range({integers})}}}})"
    )


def mixed_100(scale: float) -> State:
    """Arrays and frames, as an analysis has them."""
    size = 100e6 * scale
    return State(
        "100mb",
        f"numpy arrays and pandas frames of {size / 1e6:.0f} MB, the largest frame of {size / 2e6:.0f} MB",
        (
            _LIBRARIES,
            _frame(int(size / 2 / 80), 6, 4),
            f"signal = rng.random({int(size / 5 / 8)})\nimage = rng.random((4, {int(size / 5 / 32)}))",
            f"other = pd.DataFrame(rng.random(({int(size / 10 / 80)}, 10)))",
            *_END,
        ),
        _cells(read=_READ, write=_WRITE, append=_APPEND, column=_COLUMN),
        _NEEDS,
        10,
        size_bytes=int(size),
        mixed=200,
        loop=20,
    )


def frame_512(scale: float) -> State:
    """One frame, for a value written in it and a column more."""
    size = 512e6 * scale
    return State(
        "512mb",
        f"one frame of {size / 1e6:.0f} MB, 10 columns of floats and 6 of integers",
        (_LIBRARIES, _frame(int(size / 128), 10, 6), *_END),
        {"write": _WRITE, "column": _COLUMN},
        _NEEDS,
        5,
        size_bytes=int(size),
    )


def frame_1gb(scale: float) -> State:
    """One large frame of numbers."""
    size = 1e9 * scale
    return State(
        "1gb",
        f"one frame of {size / 1e6:.0f} MB, 10 columns of floats and 6 of integers",
        (_LIBRARIES, _frame(int(size / 128), 10, 6), *_END),
        _cells(read=_READ, write=_WRITE, append=_APPEND),
        _NEEDS,
        5,
        size_bytes=int(size),
    )


def strings_1gb(scale: float) -> State:
    """One large frame, nearly a third of it text."""
    size = 1e9 * scale
    rows = int(size / 80)
    words = "pd.Series([f'customer {i:07}' for i in range(200_000)])"
    return State(
        "1gb_strings",
        f"one frame of {size / 1e6:.0f} MB: 7 columns of numbers and one of strings (30 %)",
        (
            _LIBRARIES,
            _frame(rows, 4, 3)
            + f"\nbig['text'] = {words}.take(rng.integers(0, 200_000, {rows})).reset_index(drop=True)",
            *_END,
        ),
        _cells(read=_READ, write=_WRITE, append=_APPEND),
        _NEEDS,
        5,
        size_bytes=int(size),
    )


STATES: dict[str, Callable[[float], State]] = {
    "small": small,
    "names": names,
    "records": records,
    "100mb": mixed_100,
    "512mb": frame_512,
    "1gb": frame_1gb,
    "1gb_strings": strings_1gb,
}
