"""How fast sessions begin and wake, and how many there can be: one table from one run.

`python -m tests.benchmarks.starts [-n STARTS] [--parts PART ...] [--live COUNT ...] [--json FILE] [--directory DIR]`

Everything goes through MCP stdio to a keeper with the sandbox on; a first reply is durable when it comes. The peer of
starts is a cold ipykernel that runs the same cell, unconfined, in turn with ours. Memory is of all processes of a
session together, by what the kernel says of each: `private` is what would be free without them, `PSS` shares the rest
among those that have it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from mcp import Client, StdioServerParameters

from tests.benchmarks.session import (
    Bare,
    Place,
    Row,
    bare_kernel,
    front_command,
    machine,
    measure_calls,
    table,
    timed,
)

FIRST = "import pandas as pd; pd.DataFrame({'a':[1]}).shape"
STACK = "import numpy as np, pandas as pd, matplotlib.pyplot as plt; pd.DataFrame({'a':[1]}).shape; x = 1"
REFILL_S = 1.0
"""After a start, until kernels stand ready again."""
CALLS = 300
RATE = 120
SECONDS = 10
SESSIONS = 10_000
CLIENTS = 32
NEIGHBOURS = {
    "that spins in 8 processes": (
        "import os, time\nfor _ in range(7):\n    if not os.fork():\n        break\n"
        "end = time.time() + {seconds}\nwhile time.time() < end: pass\nos.getpid() == 2 or os._exit(0)"
    ),
    "that writes without end": "import time\nend = time.time() + {seconds}\nwhile time.time() < end: print('x' * 200)",
    "that commits 100 MB a call": "import numpy as np; a = np.random.default_rng().random(12_500_000)",
}
Ask = Callable[..., Awaitable[dict[str, Any]]]


@contextlib.asynccontextmanager
async def keeper(place: Place, **settings: object) -> AsyncIterator[Client]:
    """A client of the keeper of a place, which has these settings."""
    environment = place.environment | {f"KERNELREPL_{name.upper()}": str(value) for name, value in settings.items()}
    command, *arguments = front_command()
    async with Client(StdioServerParameters(command=command, args=arguments, env=environment)) as host:
        yield host


async def ask(host: Client, code: str, session_id: str | None = None, **arguments: Any) -> dict[str, Any]:
    """Run code, which must end well, confined, and durably if it has a session."""
    session = {} if session_id is None else {"session_id": session_id}
    result = await host.call_tool("python_repl", {"code": code, **session, **arguments})
    reply: dict[str, Any] = result.structured_content or {}
    if result.is_error or reply["status"] != "ok" or reply["sandbox"] == "off":
        raise RuntimeError(f"{code!r} failed: {result.content}")
    if session_id is not None and not reply["committed"]:
        raise RuntimeError(f"{code!r} is not durable")
    return reply


async def warm(host: Client) -> None:
    """Wait until kernels start fast, and files that all of them read have been read."""
    await ask(host, STACK, "warm")
    await asyncio.sleep(3 * REFILL_S)
    await ask(host, STACK, "warm-2")
    for name in ("warm", "warm-2"):
        await host.call_tool("python_delete_session", {"session_id": name})
    await asyncio.sleep(REFILL_S)


async def cold_peer(place: Place, into: list[float]) -> None:
    began = time.perf_counter()
    async with bare_kernel(place, "cold") as (_, client):
        client.execute(FIRST)
        await Bare(client).reply()
        into.append((time.perf_counter() - began) * 1000)


async def measure_starts(directory: Path, times: int) -> list[Row]:
    """First replies: of new sessions, with kernels that stand ready and without; of one that sleeps; without any."""
    peer = f"cold ipykernel, {FIRST[:16]}…"
    standby, stateless = Row("new session, standby", [], peer), Row("call without a session", [])
    fork, asleep = Row("new session, by fork", [], peer), Row("session that slept", [])
    ready, forking = Place(directory), Place(directory)
    try:
        async with keeper(ready, standby=2) as with_spares, keeper(forking, standby=0) as without:
            for host in (with_spares, without):
                await warm(host)
            for turn in range(times):
                for host, row in ((with_spares, standby), (without, fork)):
                    with timed(row.ours):
                        await ask(host, FIRST, f"s{turn}")
                    await cold_peer(ready, row.peer)
                    await asyncio.sleep(REFILL_S)
                with timed(stateless.ours):
                    await ask(with_spares, "1+1")
                await without.call_tool("python_interrupt", {"session_id": f"s{turn}", "force": True})
                with timed(asleep.ours):
                    reply = await ask(without, "pd.DataFrame({'a': [1]}).shape", f"s{turn}")
                assert reply["restored"] is not None
                for host in (with_spares, without):
                    await host.call_tool("python_delete_session", {"session_id": f"s{turn}"})
                await asyncio.sleep(REFILL_S)
    finally:
        ready.close()
        forking.close()
    return [standby, fork, asleep, stateless]


async def measure_bare(directory: Path) -> list[Row]:
    """A durable `1+1` and `x += 1` beside a bare kernel."""
    place = Place(directory)
    try:
        return [row for row in await measure_calls(place, CALLS) if row.name.startswith("durable")]
    finally:
        place.close()


# Many


def memory(kernels: dict[str, int]) -> tuple[list[float], list[float]]:
    """Private and proportional memory of each session, in MB: of all its processes."""
    private, shared = [], []
    for pid in kernels.values():
        process = psutil.Process(pid)
        found = [each.memory_full_info() for each in _of_session(process)]
        private.append(sum(each.uss for each in found) / 1e6)
        shared.append(sum(each.pss for each in found) / 1e6)
    return private, shared


def _of_session(process: psutil.Process) -> list[psutil.Process]:
    """The process that holds a kernel's world with all in it, and the one that waits for it outside."""
    parent = process.parent()
    return ([parent] if parent is not None and "zygote" not in " ".join(_words(parent)) else []) + [
        process,
        *process.children(recursive=True),
    ]


def _words(process: psutil.Process) -> list[str]:
    return process.cmdline() if process.ppid() == os.getpid() else []


async def status(place: Place) -> dict[str, Any]:
    command, *arguments = front_command()
    process = await asyncio.create_subprocess_exec(
        command, *arguments, "status", "--json", env=place.environment, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    found: dict[str, Any] = json.loads(printed)
    return found


async def at_a_rate(host: Client, names: Sequence[str], into: list[float]) -> None:
    """`1+1` in one session after the other, so many a second, whether or not earlier ones are answered."""

    async def one(name: str, due: float) -> None:
        await asyncio.sleep(due - time.perf_counter())
        await ask(host, "1+1", name)
        into.append((time.perf_counter() - due) * 1000)

    began = time.perf_counter() + 0.1
    async with asyncio.TaskGroup() as group:
        for number in range(RATE * SECONDS):
            group.create_task(one(names[number % len(names)], began + number / RATE))


async def measure_many(directory: Path, live: int) -> list[Row]:
    """Sessions that are all awake: what each takes, and how they answer."""
    place = Place(directory)
    names = [f"s{number}" for number in range(live)]
    try:
        async with keeper(place, max_live=live + 10, max_live_bytes="unlimited", idle_timeout_s=3600) as host:
            await warm(host)
            for name in names:
                await ask(host, STACK, name)
                await ask(host, "x += 1", name)
            kernels = {name: pid for name, pid in (await status(place))["kernels"].items() if name in names}
            assert len(kernels) == live
            private, shared = await asyncio.to_thread(memory, kernels)
            tree = [psutil.Process(place.keeper_pid())]
            tree += tree[0].children(recursive=True)
            total = sum(process.memory_full_info().pss for process in tree if process.is_running()) / 1e6
            alone, many = Row("", []), Row(f"{live} live, 1+1 at {RATE}/s", [], f"one session at {RATE}/s")
            for _ in range(2):
                await at_a_rate(host, names[:1], alone.ours)
                await at_a_rate(host, names, many.ours)
            many.peer = alone.ours
    finally:
        place.close()
    one, all_ = (sorted(values)[len(values) * 95 // 100] for values in (many.peer, many.ours))
    return [
        Row(f"{live} live, private MB of one", private),
        Row(f"{live} live, PSS MB of one", shared),
        Row(f"{live} live, PSS MB of everything", [total]),
        many,
        Row(f"{live} live, p95 of 1+1 at {RATE}/s", [all_], f"one session at {RATE}/s", [one]),
    ]


async def measure_lists(directory: Path) -> list[Row]:
    """The first page of very many sessions, and one in the middle."""
    place = Place(directory)
    first, later = Row(f"first page of {SESSIONS:,} sessions", []), Row("a page in the middle", [])
    try:
        async with keeper(place) as host:
            await ask(host, "1", "first")
        place.end()
        _insert(place.data / "python_sessions.db")
        async with keeper(place) as host:
            cursor: str | None = None
            for turn in range(60):
                with timed(first.ours if cursor is None else later.ours):
                    page = (await host.call_tool("python_list_sessions", {"cursor": cursor})).structured_content
                assert page is not None
                assert (page["session_count"], len(page["sessions"])) == (SESSIONS + 1, 100)
                cursor = page["next_cursor"] if turn % 2 == 0 else None
    finally:
        place.close()
    return [first, later]


def _insert(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(sessions)") if row[1] not in ("id",)]
        others = [name for name in columns if name not in ("session_id", "workspace")]
        for number in range(SESSIONS):
            connection.execute(
                f"INSERT INTO sessions (session_id, workspace, {', '.join(others)})"
                f" SELECT ?, ?, {', '.join(others)} FROM sessions WHERE session_id = 'first'",
                [f"session-{number}", f"{number:016x}"],
            )


async def measure_neighbours(directory: Path) -> list[Row]:
    """`1+1` in one session, in turn with and without a neighbour that takes what it can."""
    rows = []
    place = Place(directory)
    try:
        async with keeper(place, max_variable_bytes="unlimited", max_session_bytes="unlimited") as host:
            await warm(host)
            await ask(host, "1", "s")
            for name, code in NEIGHBOURS.items():
                row = Row(f"1+1 beside a session {name}", [], "alone")
                for _ in range(3):
                    await _calls(host, row.peer, lambda: False)
                    work = asyncio.create_task(_neighbour(host, code.replace("{seconds}", "4")))
                    await asyncio.sleep(0.5)
                    await _calls(host, row.ours, work.done)
                    await work
                rows.append(row)
    finally:
        place.close()
    return rows


async def _neighbour(host: Client, code: str) -> None:
    until = time.monotonic() + 4
    while time.monotonic() < until:
        await host.call_tool("python_repl", {"code": code, "session_id": "neighbour", "wait": 60})


async def _calls(host: Client, into: list[float], over: Callable[[], bool]) -> None:
    for _ in range(CALLS // 3):
        if over():
            return
        with timed(into):
            await ask(host, "1+1", "s")
        await asyncio.sleep(0.01)


async def measure_clients(directory: Path) -> list[Row]:
    """One call after the other in each of many clients at once, beside the same number of calls of one client."""
    place = Place(directory)
    row = Row(f"1+1, {CLIENTS} clients: per call", [], "one client")
    try:
        async with contextlib.AsyncExitStack() as stack:
            hosts = [await stack.enter_async_context(keeper(place)) for _ in range(CLIENTS)]
            await warm(hosts[0])
            for number, host in enumerate(hosts):
                await ask(host, "1", f"s{number}")
            each = 10
            for _ in range(5):
                began = time.perf_counter()
                for _ in range(each * CLIENTS):
                    await ask(hosts[0], "1+1", "s0")
                row.peer.append((time.perf_counter() - began) * 1000 / (each * CLIENTS))
                began = time.perf_counter()
                await asyncio.gather(*(_sequence(host, f"s{n}", each) for n, host in enumerate(hosts)))
                row.ours.append((time.perf_counter() - began) * 1000 / (each * CLIENTS))
    finally:
        place.close()
    return [row]


async def _sequence(host: Client, name: str, count: int) -> None:
    for _ in range(count):
        await ask(host, "1+1", name)


PARTS = ("starts", "calls", "many", "lists", "neighbours", "clients")


async def measure(directory: Path, starts: int, parts: Sequence[str], live: Sequence[int]) -> list[Row]:
    """All rows, in the order of the table."""
    rows: list[Row] = []
    if "starts" in parts:
        rows += await measure_starts(directory, starts)
    if "calls" in parts:
        rows += await measure_bare(directory)
    for count in live if "many" in parts else ():
        rows += await measure_many(directory, count)
    if "lists" in parts:
        rows += await measure_lists(directory)
    if "neighbours" in parts:
        rows += await measure_neighbours(directory)
    if "clients" in parts:
        rows += await measure_clients(directory)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.starts", description=__doc__)
    parser.add_argument("-n", type=int, default=15, metavar="STARTS", help="starts of each kind (default: 15)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument(
        "--live", nargs="+", type=int, default=[50, 200], metavar="COUNT", help="sessions that are awake at once"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all samples here as well")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), metavar="DIR", help="a place on the disk to measure on"
    )
    options = parser.parse_args(arguments)
    before = machine()
    rows = asyncio.run(measure(options.directory.absolute(), max(options.n, 1), options.parts, options.live))
    print(before)
    print(table(rows))
    if options.json is not None:
        content = {"machine": before, "rows": [row.as_json() for row in rows]}
        options.json.write_text(json.dumps(content, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
