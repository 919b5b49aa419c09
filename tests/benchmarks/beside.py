"""What honest sessions notice of hostile ones beside them: one table from one run.

`python -m tests.benchmarks.beside [--minutes M] [--honest N] [--hostile N] [--json FILE] [--directory DIR]`

Honest sessions make calls at a fixed rate, whether or not earlier ones are answered, through MCP stdio to one keeper
with the sandbox on. Stretches with and without hostile sessions take turns. Hostile sessions run the payloads of
`tests.support.hostile_frames` and some plain Python, one after the other, again and again; their calls may end as they
like. Printed are the median and the 99th percentile of both, and the memory of the keeper over time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from mcp import Client

from tests.benchmarks.session import Place, Row, machine, percentile, table
from tests.benchmarks.starts import ask, keeper, warm
from tests.support import hostile_frames

RATE = 16
"""Honest calls a second, of all sessions together: what leaves this much room on two processors."""
QUIET_S, HOSTILE_S = 30.0, 60.0
SAMPLE_S = 2.0
CELLS = (
    "1+1",
    "x += 1",
    "rows.append(x)",
    "table = {n: str(n) for n in range(500)}",
    "print(sum(rows))",
)
PLAIN = {
    "20,000 names that cannot be saved": (
        "globals().update({f'n{n}': (letter for letter in 'ab') for n in range(20_000)})"
    ),
    "3,000 displays": "from IPython.display import display\nfor n in range(3_000): display({'a': 'x' * 1_000})",
    "a class name of 3 M characters": "raise type('E' * 3_000_000, (Exception,), {})('x')",
    "output without end": "import time\nend = time.time() + 5\nwhile time.time() < end: print('x' * 2_000)",
    "deep nesting": "a = []\nfor _ in range(100_000): a = [a]",
}


@dataclass
class Samples:
    """Milliseconds of honest calls, and the keeper's memory while they were made."""

    quiet: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    keeper_mb: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    attacks: Counter[str] = field(default_factory=Counter)


async def honest(host: Client, names: Sequence[str], seconds: float, into: list[float], failures: Counter[str]) -> None:
    """Make calls at the rate, each in another session and of another kind."""

    async def one(name: str, code: str, due: float) -> None:
        await asyncio.sleep(due - time.perf_counter())
        try:
            await ask(host, code, name)
        except Exception as error:  # noqa: BLE001 - counted, and told in the end
            failures[f"{code}: {error!r:.200}"] += 1
        into.append((time.perf_counter() - due) * 1000)

    began = time.perf_counter() + 0.1
    sessions, cells = itertools.cycle(names), itertools.cycle(CELLS)
    async with asyncio.TaskGroup() as group:
        for number in range(int(RATE * seconds)):
            group.create_task(one(next(sessions), next(cells), began + number / RATE))


async def hostile(host: Client, name: str, payloads: Iterator[tuple[str, str]], done: Counter[str]) -> None:
    """Send one payload after the other, until cancelled."""
    for title, code in payloads:
        with contextlib.suppress(Exception):
            await host.call_tool("python_repl", {"code": code, "session_id": name, "wait": 20, "timeout": 15})
        done[title] += 1


async def measure(directory: Path, minutes: float, honest_count: int, hostile_count: int) -> Samples:
    """Run quiet and hostile stretches in turn, until both together have taken so many minutes."""
    samples = Samples()
    place = Place(directory)
    names = [f"honest-{number}" for number in range(honest_count)]
    payloads = [*((name, hostile_frames.PAYLOADS[name]) for name in hostile_frames.BESIDE), *PLAIN.items()]
    try:
        async with keeper(place) as host, keeper(place) as other:
            await warm(host)
            for name in names:
                await ask(host, "x, rows = 0, []", name)
            process = psutil.Process(place.keeper_pid())
            sampling = asyncio.create_task(_sample(process, samples.keeper_mb))
            # Each hostile session begins elsewhere in the list, and goes on where it was in the next stretch.
            lines = [
                itertools.cycle(payloads[(shift := n * len(payloads) // hostile_count) :] + payloads[:shift])
                for n in range(hostile_count)
            ]
            until = time.monotonic() + minutes * 60
            while time.monotonic() < until:
                await honest(host, names, QUIET_S, samples.quiet, samples.failures)
                attacks = [
                    asyncio.create_task(hostile(other, f"hostile-{n}", line, samples.attacks))
                    for n, line in enumerate(lines)
                ]
                await honest(host, names, HOSTILE_S, samples.beside, samples.failures)
                for attack in attacks:
                    attack.cancel()
                await asyncio.gather(*attacks, return_exceptions=True)
                for n in range(hostile_count):
                    with contextlib.suppress(Exception):
                        await other.call_tool("python_interrupt", {"session_id": f"hostile-{n}", "force": True})
            sampling.cancel()
    finally:
        place.close()
    return samples


async def _sample(process: psutil.Process, into: list[float]) -> None:
    while True:
        into.append(process.memory_info().rss / 1e6)
        await asyncio.sleep(SAMPLE_S)


def rows(samples: Samples) -> list[Row]:
    """The table: times with hostile sessions beside those without; memory late beside memory early."""
    fifth = max(len(samples.keeper_mb) // 5, 1)
    p99 = [percentile(samples.beside, 99)], [percentile(samples.quiet, 99)]
    return [
        Row("honest call beside hostile ones", samples.beside, "without them", samples.quiet),
        Row("the same, p99", p99[0], "without them, p99", p99[1]),
        Row(
            "keeper's MB, last fifth", samples.keeper_mb[-fifth:], "second fifth", samples.keeper_mb[fifth : 2 * fifth]
        ),
        Row("keeper's MB, most", [max(samples.keeper_mb)], "median", [statistics.median(samples.keeper_mb)]),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.beside", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long in all (default: 10)")
    parser.add_argument("--honest", type=int, default=32, metavar="N", help="honest sessions (default: 32)")
    parser.add_argument("--hostile", type=int, default=4, metavar="N", help="hostile sessions (default: 4)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all samples here as well")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), metavar="DIR", help="where to measure")
    options = parser.parse_args(arguments)
    before = machine()
    samples = asyncio.run(
        measure(options.directory.absolute(), options.minutes, max(options.honest, 1), max(options.hostile, 1))
    )
    found = rows(samples)
    print(before)
    print(table(found))
    print(f"{len(samples.quiet)} quiet calls, {len(samples.beside)} beside {sum(samples.attacks.values())} attacks")
    for title, count in sorted(samples.attacks.items()):
        print(f"  {count:>4} x {title}")
    for failure, count in samples.failures.items():
        print(f"FAILED {count} x {failure}")
    if options.json is not None:
        content = {"machine": before, "rows": [row.as_json() for row in found], "keeper_mb": samples.keeper_mb}
        options.json.write_text(json.dumps(content, indent=2))
    return 1 if samples.failures else 0


if __name__ == "__main__":
    sys.exit(main())
