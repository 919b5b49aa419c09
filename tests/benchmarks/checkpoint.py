"""What checkpoints cost: our sessions beside dill, cloudpickle and Kishu, on the same states, in one run.

`python -m tests.benchmarks.checkpoint [--states NAME ...] [--cells KIND ...] [--peers NAME ...] [--repeats N]
[--budget S] [--quick] [--json FILE] [--directory DIR]`

State by state, ours first and the peers one after the other, each in a process of its own, so that large
states are in memory once. Peers that want packages which we have not get an environment in the temporary
directory, with the versions of IPython, numpy and pandas that we have; it is kept for the next run. Who fails or takes
too long stands in the table with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.benchmarks.checkpointing import ours, peers, report
from tests.benchmarks.checkpointing.options import Options
from tests.benchmarks.checkpointing.series import Side, Trouble
from tests.benchmarks.checkpointing.states import CELLS, STATES, State
from tests.benchmarks.session import machine, measure_disk, percentile

DISK_TIMES = 100
QUICK_SCALE = 1 / 50
QUICK_STATES = ("small", "records", "100mb")
QUICK_MIXED = 20
QUICK_LOOPS = 4
ROOM = 7
"""So many times its size a state may take while it is pickled, hashed and written."""
SPARE_BYTES = 10**9


def short_of_memory(state: State) -> str:
    """Why a state is not tried now; empty if there is room for it."""
    wanted, found = ROOM * state.size_bytes + SPARE_BYTES, psutil.virtual_memory().available
    return "" if found >= wanted else f"not tried: {found / 1e9:.1f} GB of memory are free, not {wanted / 1e9:.1f}"


def measure(state: State, names: Sequence[str], options: Options, directory: Path) -> dict[str, Side]:
    """All sides of one state."""
    sides = {}
    for name in ("ours", *names):
        side = Side(name)
        began = time.monotonic()
        if short := short_of_memory(state):
            side.note(short)
        elif name == "ours":
            side = asyncio.run(ours.measure(state, options, directory))
        else:
            try:
                python = Path(sys.executable) if name in peers.OURS else peers.environment()
                side = peers.measure(name, python, state, options, directory)
            except Trouble as trouble:
                side.note(str(trouble))
        side.took_s = time.monotonic() - began
        sides[name] = side
    return sides


def load() -> str:
    """How busy the machine is."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def versions(found: dict[str, str]) -> str:
    """Of the packages that matter, ours and what peers said of theirs."""
    known = {name: version(name) for name in ("ipython", "numpy", "pandas", "cloudpickle")}
    theirs = {name: said for name, said in found.items() if known.get(name) != said}
    ours_text = ", ".join(f"{name} {said}" for name, said in known.items())
    return f"{ours_text}; of peers otherwise: {', '.join(f'{n} {v}' for n, v in theirs.items()) or 'nothing'}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.checkpoint", description=__doc__)
    parser.add_argument("--states", nargs="+", choices=STATES, default=None, metavar="NAME", help=", ".join(STATES))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS, metavar="KIND", help=", ".join(CELLS))
    parser.add_argument(
        "--peers", nargs="*", choices=peers.PEERS, default=peers.PEERS, metavar="NAME", help=", ".join(peers.PEERS)
    )
    parser.add_argument("--repeats", type=int, default=None, metavar="N", help="calls of each kind (by state)")
    parser.add_argument(
        "--budget", type=float, default=4.0, metavar="S", help="a kind of cell is not begun again after this (4 s)"
    )
    parser.add_argument("--quick", action="store_true", help="small states only, to see that it works")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all samples here as well")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), metavar="DIR", help="a place on the disk to measure on"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, a state at a time."""
    chosen = parse(arguments)
    options = Options(frozenset(chosen.cells), chosen.repeats, chosen.budget, 2.5 * chosen.budget)
    scale = 1.0
    if chosen.quick:
        scale = QUICK_SCALE
        options = replace(options, repeats=chosen.repeats or 3, restores=1, budget_s=1, mixed_budget_s=2)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that whoever ends this leaves no keeper and no files
    directory = chosen.directory.absolute()
    before = machine()
    disk = measure_disk(directory, DISK_TIMES)
    print(before)
    print(f"{disk.name}: {statistics.median(disk.ours):.2f} ms, p90 {percentile(disk.ours, 90):.2f}")
    print(report.LEGEND, flush=True)
    states = []
    found: dict[str, str] = {}
    for name in chosen.states or (QUICK_STATES if chosen.quick else STATES):
        state = STATES[name](scale)
        if chosen.quick:
            loops = min(state.loop, QUICK_LOOPS) if name == QUICK_STATES[0] else 0
            state = replace(state, mixed=min(state.mixed, QUICK_MIXED), loop=loops)
        sides = measure(state, chosen.peers, options, directory)
        print(f"\n{report.text(state, sides, chosen.peers, load())}", flush=True)
        states.append(report.as_json(state, sides, load()))
        for side in sides.values():
            found |= side.versions
        if chosen.json is not None:  # after each state, so that a run that is ended has left what it measured
            content = {
                "machine": before, "versions": versions(found), "disk": disk.as_json(), "quick": chosen.quick,
                "states": states,
            }  # fmt: skip
            chosen.json.write_text(json.dumps(content, indent=2))
    print(f"\n{versions(found)}; load at the end {load()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
