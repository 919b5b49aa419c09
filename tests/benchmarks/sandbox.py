"""What the sandbox costs: confined sessions beside unconfined ones, through MCP stdio, in one run.

`python -m tests.benchmarks.sandbox [-n CALLS] [--starts N] [--json FILE] [--directory DIR]`

Two keepers serve the same code, one as it comes and one whose config file switches the sandbox off. First
replies are of new sessions on a keeper that runs; they and the calls take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from mcp import Client, StdioServerParameters

from tests.benchmarks.session import BLOCK, Durable, Place, Row, front_command, machine, table, timed

CODES = ("1+1", "x += 1")
FIRSTS = ("1+1", "import numpy, pandas", "import matplotlib.pyplot as plt")


@contextlib.asynccontextmanager
async def keeper(directory: Path, config: str) -> AsyncIterator[Client]:
    """A client of a keeper of its own, with this config file."""
    place = Place(directory)
    (place.short / "config.toml").write_text(config)
    command, *arguments = front_command()
    try:
        async with Client(StdioServerParameters(command=command, args=arguments, env=place.environment)) as host:
            yield host
    finally:
        place.close()


async def first_reply(host: Client, code: str, into: list[float], sandbox: str) -> None:
    """The time from a call that makes a session to its reply."""
    with timed(into):
        result = await host.call_tool("python_repl", {"code": code, "session_id": "first"})
    reply = result.structured_content
    if result.is_error or reply is None or reply["status"] != "ok" or not reply["sandbox"].startswith(sandbox):
        raise RuntimeError(f"{code!r} failed: {result.content}")
    await host.call_tool("python_delete_session", {"session_id": "first"})


async def measure(directory: Path, calls: int, starts: int) -> list[Row]:
    """All rows, in the order of the table."""
    rows = []
    async with keeper(directory, "") as on, keeper(directory, 'sandbox = "off"\n') as off:
        for code in FIRSTS:
            row = Row(f"first reply of a session: {code}", [], "sandbox off")
            for turn in range(starts + 1):
                sides = [(on, row.ours, "tier"), (off, row.peer, "off")]
                for host, into, sandbox in sides if turn % 2 else reversed(sides):
                    await first_reply(host, code, into, sandbox)
                if not turn:  # files are read and caches are made
                    row.ours.clear()
                    row.peer.clear()
            rows.append(row)
        confined, free = Durable(on), Durable(off)
        for session in (confined, free):
            await session.run("x = 0")
        for code in CODES:
            row = Row(f"durable {code}", [], "sandbox off")
            done = 0
            while done < calls:
                for session, into in ((confined, row.ours), (free, row.peer)):
                    for _ in range(min(BLOCK, calls - done)):
                        with timed(into):
                            await session.run(code)
                done += BLOCK
            rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sandbox", description=__doc__)
    parser.add_argument("-n", type=int, default=500, metavar="CALLS", help="calls of each kind (default: 500)")
    parser.add_argument("--starts", type=int, default=15, metavar="N", help="first replies of each kind (default: 15)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all samples here as well")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), metavar="DIR", help="a place on the disk to measure on"
    )
    options = parser.parse_args(arguments)
    before = machine()
    rows = asyncio.run(measure(options.directory.absolute(), max(options.n, 1), max(options.starts, 1)))
    print(before)
    print(table(rows))
    if options.json is not None:
        content = {"machine": before, "calls": options.n, "rows": [row.as_json() for row in rows]}
        options.json.write_text(json.dumps(content, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
