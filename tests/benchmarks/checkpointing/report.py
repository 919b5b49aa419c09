"""The tables, and the same as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from tests.benchmarks.checkpointing.series import Series, Side, interval
from tests.benchmarks.checkpointing.states import State
from tests.benchmarks.session import percentile

LEGEND = """\
call: a whole call of ours through the Python API, from asking to the durable reply. over empty: that call without
the call `x += 1` of an empty session beside it, pair by pair. cell: the time in the cell itself as the kernel says,
plain: the same in an IPython that saves nothing meanwhile. part: what a checkpoint costs, the whole without the cell
itself; of ours it holds the way to the kernel and back, which peers in their own process do not have. (3.0x): a peer's
part by ours. build, mixed: sums over all cells, compared over those that both sides did in their time. *: see below.
Peers: dill.dump_module and cloudpickle of all names into a new file with fdatasync; Kishu's own hooks with its own
settings, into its SQLite. What is stored of ours is the database with its log, and holds the rows of the empty session.
In a restore files are in the page cache, and to load values imports their libraries, on every side. Every call counts,
the first of its kind too. Figures are ms where nothing is said, medians where nothing is said."""

SUMMED = ("build", "mixed")


def _ms(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f}" if values else "-"


def _p90(values: Sequence[float]) -> str:
    return f"{percentile(values, 90):.1f}" if values else "-"


def _times(peer: float, ours: float) -> str:
    return f"({peer / ours:.2g}x)" if ours > 0 and peer / ours < 100 else f"({peer / ours:.0f}x)" if ours > 0 else ""


def _peer(kind: str, series: Series | None, ours: Series | None) -> str:
    """A peer's part, how often, and how it compares."""
    if series is None:
        return "not tried"
    if not series.part:
        return "failed, see below" if series.trouble else "-"
    star = "*" if series.trouble else ""
    if kind in SUMMED:
        both = min(len(series.part), len(ours.part) if ours else 0)
        ratio = _times(sum(series.part[:both]), sum(ours.part[:both]) if ours else 0.0)
        return f"{sum(series.part):.1f} n{len(series.part)}{star} {ratio}"
    spent = statistics.median(series.part)
    own = statistics.median(ours.part) if ours and ours.part else 0.0
    return f"{spent:.1f} n{len(series.part)}{star} {_times(spent, own)}"


def _rows(sides: dict[str, Side], peers: Sequence[str]) -> Iterator[list[str]]:
    ours = sides.get("ours", Side("ours")).cells
    kinds = list(dict.fromkeys(kind for side in sides.values() for kind in side.cells))
    plain = sides["cloudpickle"].cells if "cloudpickle" in sides else sides["dill"].cells if "dill" in sides else {}
    for kind in kinds:
        series = ours.get(kind, Series())
        beside = plain.get(kind, Series()).cell
        if kind in SUMMED:
            sums = [f"{sum(v):.1f}" if v else "-" for v in (series.total, series.over_empty, series.cell, series.part)]
            both = f"{sum(beside):.1f}" if beside and len(beside) == len(series.cell) else "-"
            row = [kind, str(len(series.total)), sums[0], "sum", sums[1], sums[2], both, sums[3], "sum"]
        else:
            row = [
                kind, str(len(series.total)), _ms(series.total), _p90(series.total), _ms(series.over_empty),
                _ms(series.cell), _ms(beside), _ms(series.part), _p90(series.part),
            ]  # fmt: skip
        yield [*row, *(_peer(kind, sides[name].cells.get(kind), series) for name in peers if name in sides)]


def _layout(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]


def _cells(sides: dict[str, Side], peers: Sequence[str]) -> list[str]:
    head = ["  cell", "n", "call", "p90", "over empty", "cell", "plain", "part", "p90"]
    head += [f"{name} part" for name in peers if name in sides]
    return _layout(head, [["  " + row[0], *row[1:]] for row in _rows(sides, peers)])


def _bytes(sides: dict[str, Side]) -> list[str]:
    kinds = list(dict.fromkeys(kind for side in sides.values() for kind in side.cells))
    rows = []
    for name, side in sides.items():
        row = [f"  {name}"]
        for kind in kinds:
            series = side.cells.get(kind, Series())
            count = max(len(series.total), 1)
            known = series.mb_after is not None and series.mb_grown is not None
            row.append(f"{series.mb_after:.2f} {series.mb_grown / count:+.2f}" if known else "-")  # type: ignore[operator]
        rows.append(row)
    return _layout(["  MB stored after, growth a cell", *kinds], rows)


def _commits(sides: dict[str, Side], peers: Sequence[str]) -> Iterator[str]:
    own = sides.get("ours", Side("ours")).cells.get("mixed", Series())
    if not own.commits_ms:
        return
    one = own.commits_ms / len(own.total)
    others = []
    for name in peers:
        part = sides[name].cells.get("mixed", Series()).part if name in sides else []
        if part:
            both = min(len(part), len(own.total))
            others.append(f"{name} {_times(sum(part[:both]), one * both)}")
    yield (
        f"  mixed, ours: {own.commits_ms:.1f} ms of the parts are in the commits themselves, from the end of the code"
        f" until the store has it; the rest is the way there and back. Peers' parts by that: {', '.join(others)}"
    )


def _restores(sides: dict[str, Side]) -> Iterator[str]:
    for name, side in sides.items():
        if name == "ours" and side.restore:
            found = side.restore
            stored = (
                f"; its {statistics.median(found['stored MB']):.1f} MB from SQLite into memory:"
                f" {_ms(found['stored bytes'])}"
                if "stored MB" in found
                else ""
            )
            yield (
                f"  restore, ours after kill -9 (n{len(found['first'])}): first cell 1 + 1: {_ms(found['first'])}"
                f" (of the empty session: {_ms(found['empty'])}), then one that needs the bulk: {_ms(found['needs'])},"
                f" again: {_ms(found['again'])}{stored}"
            )
        elif side.restore:
            yield (
                f"  restore, {name} (n{len(side.restore['first'])}): start of a process, load and first cell:"
                f" {_ms(side.restore['first'])}, load alone: {_ms(side.restore['load'])}"
            )


def _loops(sides: dict[str, Side]) -> Iterator[str]:
    def line(name: str, own: list[float], other_name: str, other: list[float], *, paired: bool) -> str:
        ratio, low, high = interval(own, other, paired=paired)
        how = f"{len(own)} pairs" if paired else f"n{len(own)}, not paired"
        return (
            f"  loop of 3 million, {name}: {statistics.median(own):.3f} s, {other_name} {statistics.median(other):.3f}"
            f" s: ratio {ratio:.3f} [{low:.3f}, {high:.3f}] ({how}, 95 %)"
        )

    plain = sides["cloudpickle"].loops.get("own", []) if "cloudpickle" in sides else []
    for name, side in sides.items():
        own, bare = side.loops.get("own", []), side.loops.get("bare ipykernel", [])
        if own and bare:
            count = min(len(own), len(bare))
            yield line(name, own[:count], "bare ipykernel", bare[:count], paired=True)
        elif own and plain and name != "cloudpickle":
            yield line(name, own, "plain IPython", plain, paired=False)


def _notes(sides: dict[str, Side]) -> Iterator[str]:
    for name, side in sides.items():
        for note in side.notes:
            yield f"  ! {name}: {note}"
        for kind, series in side.cells.items():
            if series.trouble:
                yield f"  ! {name}, {kind}: {series.trouble}"


def text(state: State, sides: dict[str, Side], peers: Sequence[str], load: str) -> str:
    """One state, as text."""
    took = ", ".join(f"{name} {side.took_s:.0f} s" for name, side in sides.items())
    lines = [f"{state.name}: {state.about} (load {load}; took {took})"]
    lines += _cells(sides, peers)
    lines += _bytes(sides)
    lines += [*_commits(sides, peers), *_restores(sides), *_loops(sides), *_notes(sides)]
    return "\n".join(lines)


def as_json(state: State, sides: dict[str, Side], load: str) -> dict[str, Any]:
    """One state, with all samples."""
    return {
        "state": state.name,
        "about": state.about,
        "load": load,
        "sides": {name: side.as_json() for name, side in sides.items()},
    }
