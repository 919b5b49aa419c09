"""What a session costs beside a bare kernel: one table from one run.

`python -m tests.benchmarks.session [-n CALLS] [--json FILE] [--directory DIR]`

Calls of ours and of the peer take turns in blocks, so that whatever else the machine does meets both. Wall
times are medians; the ratio of a row is that of the medians, the paired ratio the median over the pairs of
one turn. CPU is user plus system time, which says more than wall time on a machine that is not quiet.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from mcp import Client, StdioServerParameters

from kernelrepl import __version__, discovery

BLOCK = 10
STARTS = 10
COLD_STARTS = 5
APPEND_BYTES = 4096
TIMEOUT_S = 120.0
IMPORTS = "import json, socket, selectors"
Call = Callable[[], Awaitable[None]]


@dataclass
class Row:
    """One line of the table: times of ours in milliseconds and, where there is one, of a peer."""

    name: str
    ours: list[float]
    peer_name: str = ""
    peer: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Ours by the peer's, of the medians."""
        return statistics.median(self.ours) / statistics.median(self.peer) if self.peer and any(self.peer) else None

    @property
    def paired(self) -> float | None:
        """The median of the ratios of calls that were made side by side."""
        pairs = [one / other for one, other in zip(self.ours, self.peer, strict=False) if other]
        return statistics.median(pairs) if len(pairs) > 1 else None

    def as_json(self) -> dict[str, Any]:
        """The row with all its samples."""
        return {
            "name": self.name,
            "median_ms": statistics.median(self.ours),
            "p90_ms": percentile(self.ours, 90),
            "samples_ms": self.ours,
            "peer": self.peer_name or None,
            "peer_median_ms": statistics.median(self.peer) if self.peer else None,
            "peer_samples_ms": self.peer,
            "ratio": self.ratio,
            "paired_ratio": self.paired,
        }


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which this share of the values lies, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


@contextlib.contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Append how long the body took, in milliseconds."""
    began = time.perf_counter()
    yield
    into.append((time.perf_counter() - began) * 1000)


class Cpu:
    """User plus system time of some processes, summed over the stretches between `start` and `stop`."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._began: dict[str, float] = {}
        self.ms = dict.fromkeys(pids, 0.0)

    def _now(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: (spent.user + spent.system) * 1000 for name, spent in times.items()}

    def start(self) -> None:
        self._began = self._now()

    def stop(self) -> None:
        for name, now in self._now().items():
            self.ms[name] += now - self._began[name]


class Place:
    """Directories of one keeper and the environment that leads to it; ended and removed by `close`."""

    def __init__(self, directory: Path) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="kr-bench-", dir=directory))
        self.short = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "IPYTHONDIR": str(self.short / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(self.short / "jupyter"),
            discovery.PREFIX + "DATA_DIR": str(self.data),
            discovery.PREFIX + "RUNTIME_DIR": str(self.short / "run"),
            discovery.PREFIX + "CONFIG": str(self.short / "config.toml"),
        }
        if "PYTHONPATH" in os.environ:
            self.environment["PYTHONPATH"] = os.environ["PYTHONPATH"]

    def keeper_pid(self) -> int:
        found = discovery.read_keeper(self.data)
        assert found is not None
        return int(found["pid"])

    def end(self) -> None:
        """End the keeper, if there is one."""
        found = discovery.read_keeper(self.data)
        if found is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found["pid"], signal.SIGTERM)
                discovery.wait_for_end(found["pid"], TIMEOUT_S)

    def close(self) -> None:
        self.end()
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.short, ignore_errors=True)


def front_command() -> list[str]:
    """What a host starts: the console script if it is installed beside this Python."""
    script = Path(sys.executable).with_name("kernelrepl")
    return [str(script)] if script.exists() and "PYTHONPATH" not in os.environ else [sys.executable, "-m", "kernelrepl"]


# A durable session and its peer, side by side


class Durable:
    """A session through MCP stdio: client, front, keeper and kernel are the real ones."""

    def __init__(self, host: Client) -> None:
        self._host = host

    async def run(self, code: str) -> str | None:
        result = await self._host.call_tool("python_repl", {"code": code, "session_id": "bench"})
        reply: Any = result.structured_content
        if result.is_error or reply["status"] != "ok" or not reply["committed"]:
            raise RuntimeError(f"{code!r} failed: {result.content}")
        shown: str | None = reply["result"]
        return shown


class Bare:
    """An ipykernel as jupyter_client starts it, over ipc."""

    def __init__(self, client: AsyncKernelClient) -> None:
        self._client = client

    async def run(self, code: str) -> None:
        """From execute_request to idle."""
        request = self._client.execute(code)
        while True:
            message = await self._client.get_iopub_msg(timeout=TIMEOUT_S)
            ours = message["parent_header"].get("msg_id") == request
            if ours and message["content"].get("execution_state") == "idle":
                return

    async def reply(self) -> dict[str, Any]:
        """The execute_reply, which has been sent before idle."""
        message: dict[str, Any] = await self._client.get_shell_msg(timeout=TIMEOUT_S)
        if message["content"]["status"] != "ok":
            raise RuntimeError(str(message["content"]))
        return message


@contextlib.asynccontextmanager
async def bare_kernel(place: Place, name: str) -> AsyncIterator[tuple[AsyncKernelManager, AsyncKernelClient]]:
    """A bare kernel that has been started and, as the peer of a cold start, not been waited for."""
    manager = AsyncKernelManager(
        kernel_name="python3",
        transport="ipc",
        ip=str(place.short / name),
        connection_file=str(place.short / f"{name}.json"),
    )
    await manager.start_kernel(env=place.environment, cwd=str(place.data))
    client = manager.client()
    client.start_channels(stdin=False, hb=False)
    try:
        yield manager, client
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


async def measure_calls(place: Place, calls: int) -> list[Row]:
    """`1+1` and `x += 1`, durable and bare in turns, with the CPU time that each side spends."""
    command = front_command()
    server = StdioServerParameters(command=command[0], args=command[1:], env=place.environment, cwd="/")
    rows = []
    cpu_rows = []
    async with (
        Client(server, read_timeout_seconds=TIMEOUT_S) as host,
        bare_kernel(place, "bare") as (manager, client),
    ):
        durable, bare = Durable(host), Bare(client)
        await client.wait_for_ready(timeout=TIMEOUT_S)
        for code in ("x = 0", "1+1", "import os", "x += 1"):
            await durable.run(code)
            await bare.run(code)
            await bare.reply()
        kernel = int(await durable.run("os.getpid()") or 0)
        bare_pid = manager.provisioner.pid  # type: ignore[union-attr]
        front = next(child.pid for child in psutil.Process().children() if child.pid != bare_pid)
        ours = {"client": os.getpid(), "front": front, "keeper": place.keeper_pid(), "kernel": kernel}
        for code in ("1+1", "x += 1"):
            row = Row(f"durable {code}", [], f"bare ipykernel {code}", [])
            cpu, peer_cpu = Cpu(ours), Cpu({"client": os.getpid(), "kernel": bare_pid})
            while len(row.ours) < calls:
                block = min(BLOCK, calls - len(row.ours))
                cpu.start()
                for _ in range(block):
                    with timed(row.ours):
                        await durable.run(code)
                cpu.stop()
                peer_cpu.start()
                for _ in range(block):
                    with timed(row.peer):
                        await bare.run(code)
                    await bare.reply()
                peer_cpu.stop()
            rows.append(row)
            cpu_rows += _cpu_rows(code, calls, cpu.ms, peer_cpu.ms)
    return rows + cpu_rows


def _cpu_rows(code: str, calls: int, ours: dict[str, float], peer: dict[str, float]) -> list[Row]:
    """Per call, for each process and for all."""
    found = []
    for name, spent in {"all": sum(ours.values()), **ours}.items():
        other = {"all": sum(peer.values()), **peer}.get(name)
        label, peer_label = f"CPU {code}, {name}", f"CPU bare {code}, {name}"
        if other is None:
            found.append(Row(label, [spent / calls]))
        else:
            found.append(Row(label, [spent / calls], peer_label, [other / calls]))
    return found


def measure_disk(directory: Path, times: int) -> Row:
    """What the disk takes to make an append of a page durable."""
    row = Row("fdatasync of a 4 KB append", [])
    path = directory / "fdatasync"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(times):
            with timed(row.ours):
                os.write(descriptor, b"\0" * APPEND_BYTES)
                os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
        path.unlink()
    return row


# Starts


class Lines:
    """A front as a process, spoken to in raw JSON lines."""

    def __init__(self, place: Place) -> None:
        environ = {"KERNELREPL_STRUCTURED": "on", **place.environment}
        self._process = subprocess.Popen(
            front_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", env=environ
        )
        self._number = 0

    def tell(self, method: str, **params: Any) -> None:
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method: str, **params: Any) -> int:
        self._number += 1
        self._write({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        return self._number

    def initialize(self) -> None:
        info = {"name": "benchmark", "version": "1"}
        self.ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=info)
        self.tell("notifications/initialized")

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, number: int) -> dict[str, Any]:
        """The result of a request; earlier answers and notifications are passed over."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            message = json.loads(line)
            if message.get("id") == number:
                result: dict[str, Any] = message["result"]
                return result
        raise RuntimeError("the front ended before it answered")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT_S)
        self._process.stdout.close()


def measure_front_start(place: Place, times: int) -> list[Row]:
    """Spawn to the answer of tools/list with the keeper up, and bare Python starts in turn with it."""
    front: list[float] = []
    bare: list[float] = []
    imports: list[float] = []
    for _ in range(times):
        with timed(front):
            lines = Lines(place)
            lines.initialize()
            tools = lines.answer(lines.ask("tools/list"))["tools"]
        lines.close()
        assert tools
        for code, into in (("pass", bare), (IMPORTS, imports)):
            with timed(into):
                subprocess.run([sys.executable, "-c", code], check=True, cwd="/", env=place.environment)
    name = "front start to tools/list"
    return [
        Row(name, front, "python -c pass", bare),
        Row(f'python -c "{IMPORTS}"', imports, "python -c pass", bare),
        Row("share of python -c pass", bare, name, front),
        Row(f"share of {IMPORTS}", imports, name, front),
    ]


async def measure_cold_start(directory: Path, times: int) -> Row:
    """No keeper, no kernel: spawn to the first reply, durable and bare in turn."""
    row = Row("cold start to durable 1+1", [], "cold ipykernel to 1+1", [])
    for _ in range(times):
        place = Place(directory)
        try:
            with timed(row.ours):
                lines = Lines(place)
                lines.initialize()
                number = lines.ask("tools/call", name="python_repl", arguments={"code": "1+1", "session_id": "cold"})
                reply = lines.answer(number)["structuredContent"]
            lines.close()
            assert reply["result"] == "2"
            assert reply["committed"]
            began = time.perf_counter()
            async with bare_kernel(place, "cold") as (_, client):
                client.execute("1+1")
                await Bare(client).reply()
                row.peer.append((time.perf_counter() - began) * 1000)
        finally:
            place.close()
    return row


# The table


def measure(directory: Path, calls: int) -> list[Row]:
    """All rows, in the order of the table."""
    place = Place(directory)
    try:
        rows = asyncio.run(measure_calls(place, calls))
        rows.insert(2, measure_disk(place.data, calls))
        with _keeper_up(place):
            rows += measure_front_start(place, min(STARTS, calls))
    finally:
        place.close()
    rows.append(asyncio.run(measure_cold_start(directory, min(COLD_STARTS, calls))))
    return rows


@contextlib.contextmanager
def _keeper_up(place: Place) -> Iterator[None]:
    """A connection that keeps the keeper from ending while it is needed."""
    lines = Lines(place)
    lines.initialize()
    lines.answer(lines.ask("tools/list"))
    try:
        yield
    finally:
        lines.close()


def table(rows: list[Row]) -> str:
    """The rows as text."""
    head = f"{'what':<44} {'n':>4} {'median ms':>10} {'p90 ms':>9}   {'peer':<30} {'median ms':>10}"
    lines = [f"{head} {'ratio':>7} {'paired':>7}"]
    for row in rows:
        peer = f"{statistics.median(row.peer):10.3f}" if row.peer else " " * 10
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        paired = "" if row.paired is None else f"{row.paired:.2f}"
        lines.append(
            f"{row.name:<44} {len(row.ours):>4} {statistics.median(row.ours):>10.3f} {percentile(row.ours, 90):>9.3f}"
            f"   {row.peer_name:<30} {peer} {ratio:>7} {paired:>7}".rstrip()
        )
    return "\n".join(lines)


def machine() -> str:
    """What the figures were taken on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("ipykernel", "jupyter_client", "mcp"))
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"kernelrepl {__version__}, {packages}, Python {platform.python_version()}, {os.cpu_count()} CPUs,"
        f" {platform.platform()}, load {load}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.session", description=__doc__)
    parser.add_argument("-n", type=int, default=200, metavar="CALLS", help="calls of each kind (default: 200)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all samples here as well")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), metavar="DIR", help="a place on the disk to measure on"
    )
    options = parser.parse_args(arguments)
    before = machine()
    rows = measure(options.directory.absolute(), max(options.n, 1))
    print(before)
    print(table(rows))
    if options.json is not None:
        content = {"machine": before, "calls": options.n, "rows": [row.as_json() for row in rows]}
        options.json.write_text(json.dumps(content, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
