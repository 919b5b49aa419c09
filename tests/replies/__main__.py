"""What a model sees of the replies to typical cells, in the conversions of six hosts. No model is called.

`python -m tests.replies [--json FILE] [--tree PATH] [--cache DIR] [--only HOST]`

Each library runs in an environment of its own, which is made when this runs; the Python SDK of version 2 is the one
that is installed here. As a client over stdio it starts the `kernelrepl` of a checkout with a new data directory, and
calls `python_repl` with the cells. A tap between the two notes what the server sent, so that it is seen what of it a
library does not hand out, whatever differs from one run of a cell to the next.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.session import Place
from tests.replies.cells import calls
from tests.replies.comparison import Column, outcome, table
from tests.support import environments

ROOT = Path(__file__).resolve().parents[2]
TAP = Path(__file__).with_name("tap.py")
PROGRAMS = Path(__file__).with_name("hosts")
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Host:
    """A library, and the program that uses it as a host does."""

    name: str
    program: str
    wanted: str = ""
    """What its environment has; empty for what is installed here."""


HOSTS = (
    Host("Python SDK 1", "python_sdk_1.py", "mcp<2"),
    Host("Python SDK 2", "python_sdk_2.py"),
    Host("TypeScript SDK", "typescript_sdk.mjs", "@modelcontextprotocol/sdk"),
    Host("fastmcp", "fastmcp_client.py", "fastmcp"),
    Host("langchain", "langchain_adapters.py", "langchain-mcp-adapters"),
    Host("openai-agents", "openai_agents.py", "openai-agents"),
)


class Trouble(Exception):
    """A host could not be asked. The message says why."""


def command_of(host: Host, cache: Path) -> list[str]:
    """What runs the program of a host, in an environment that is made in the cache if it is not there."""
    place = cache / f"{Path(host.program).stem}-{environments.key_of(host.wanted)}"
    if host.program.endswith(".mjs"):
        folder = environments.npm_folder_with([host.wanted], place)
        return ["node", shutil.copy(str(PROGRAMS / host.program), str(folder))]
    python = environments.python_with([host.wanted], place) if host.wanted else Path(sys.executable)
    return [str(python), "-m", f"tests.replies.hosts.{Path(host.program).stem}"]


def ask(host: Host, server: Path, cache: Path) -> Column:
    """Run all cells in a host; its column has what came of them, or what the trouble was."""
    try:
        command = command_of(host, cache)
        with _place() as (place, record):
            environ = place.environment | {"KERNELREPL_STANDBY": "0"}
            plan = {
                "command": sys.executable,
                "arguments": [str(TAP), str(record), str(server)],
                "environ": environ,
                "calls": [call for _, call in calls()],
            }
            said = _run(command, plan)
            replies = [json.loads(line) for line in record.read_text().splitlines()]
    except (Trouble, environments.NotInstalled) as error:
        return Column(host.name, trouble=str(error))
    return column_of(host.name, said, replies)


def column_of(host: str, said: dict[str, Any], replies: Sequence[dict[str, Any]]) -> Column:
    """What the program of a host said, compared with what the tap noted."""
    found = Column(host, version=said["version"], client=replies[0]["client"])
    for (cell, call), noted, seen in zip(calls(), replies, said["seen"], strict=True):
        assert noted["tool"] == call["tool"]
        if cell is not None:
            found.outcomes.append(outcome(cell.name, noted["reply"], seen))
            found.seen.append(seen)
    return found


@contextlib.contextmanager
def _place() -> Iterator[tuple[Place, Path]]:
    """A new data directory, with a file for the tap; the keeper and all of it are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kr-replies-") as directory:
        place = Place(Path(directory))
        try:
            yield place, Path(directory) / "record"
        finally:
            place.close()


def _run(command: list[str], plan: dict[str, Any]) -> dict[str, Any]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KERNELREPL_")}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environ,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise Trouble(str(error)[:200]) from None
    if done.returncode:
        raise Trouble(f"its program failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask every host and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.replies", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what each model gets here as well")
    parser.add_argument("--tree", type=Path, metavar="PATH", help="a checkout whose .venv/bin/kernelrepl is the server")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the environments here for the next time")
    parser.add_argument("--only", default="", metavar="WORD", help="hosts whose name contains this")
    options = parser.parse_args(arguments)
    bin_of_server = Path(sys.executable).parent if options.tree is None else options.tree.absolute() / ".venv" / "bin"
    with contextlib.ExitStack() as stack:
        made = options.cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kr-hosts-")))
        columns = []
        for host in HOSTS:
            if options.only.lower() in host.name.lower():
                print(f"asking {host.name} ...", file=sys.stderr, flush=True)
                columns.append(ask(host, bin_of_server / "kernelrepl", made.absolute()))
    print(table(columns))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(column) for column in columns], indent=1))
    return int(any(column.trouble for column in columns))


if __name__ == "__main__":
    sys.exit(main())
