"""What a hostile session costs the keeper and another session. `python -m tests.benchmarks.hostile [--only WORDS]`.

For each payload of `hostile_frames` a process of its own has a manager, a session that runs `1+1` again and again, and
one that attacks. Printed are the growth of the process's resident memory at its peak, and the times of `1+1` beside the
attack as multiples of the same before it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kernelrepl.errors import KernelReplError
from kernelrepl.keeper.metrics import Metrics
from kernelrepl.model import ExecutionResult
from kernelrepl.sessions.capacity import KernelCapacity
from kernelrepl.sessions.confinement import Confinement, base_environment
from kernelrepl.sessions.manager import Manager
from kernelrepl.sessions.services import Services
from kernelrepl.store import Store
from tests.conftest import Sessions, this_tier
from tests.support.forking import forking
from tests.support.hostile_frames import PAYLOADS

QUIET_CALLS = 150
MOST_S = 90.0
"""How long an attack may take before it is ended."""


def peak(*, reset: bool = False) -> int:
    """The most resident memory of this process in bytes, since it was reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


async def attack(sessions: Sessions, name: str, repeat: int) -> dict[str, Any]:
    """Run a payload in one session beside another one."""
    for session_id in ("victim", "hostile"):
        await sessions.run("x = 1", session_id)

    async def call() -> float:
        began = time.perf_counter()
        await sessions.run("1+1", "victim")
        return time.perf_counter() - began

    quiet = [await call() for _ in range(QUIET_CALLS)]
    before = peak(reset=True)
    told: list[str] = []

    async def attacking() -> None:
        for _ in range(repeat):
            try:
                execution = await sessions.run(PAYLOADS[name], "hostile", timeout_s=MOST_S)
            except (KernelReplError, TimeoutError) as error:
                told.append(f"{type(error).__name__}: {error}"[:100])
            else:
                told.append(told_of(execution))

    running = asyncio.create_task(attacking())
    beside = []
    while not running.done():
        beside.append(await call())
    await running
    return {
        "growth": peak() - before,
        "median": statistics.median(beside) / statistics.median(quiet),
        "worst_s": max(beside),
        "quiet_s": statistics.median(quiet),
        "told": told[-1],
    }


def told_of(execution: ExecutionResult) -> str:
    """What the attacker is told."""
    note = execution.note or ""
    if execution.not_saved:
        note += f" [{len(execution.not_saved)} not saved: {execution.not_saved[0].reason}]"
    return f"{execution.status}: {note}"


@contextlib.asynccontextmanager
async def manager(base: Path) -> Any:
    """In this process, with forked kernels."""
    data_dir, runtime_dir = base / "data", Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
    data_dir.mkdir(mode=0o700)
    store = Store(data_dir / "python_sessions.db")
    store.open()
    metrics = Metrics()
    environment = base_environment(os.environ, base / "cache")
    confinement = Confinement(this_tier(), sys.executable, runtime_dir, (data_dir, runtime_dir), environment)
    async with forking() as launcher:
        made = Manager(data_dir, confinement, Services(launcher, store, metrics, KernelCapacity(metrics)))
        try:
            yield Sessions(made, store, metrics)
        finally:
            await made.close()
    store.close()
    runtime_dir.rmdir()


async def one(name: str, repeat: int) -> dict[str, Any]:
    """One payload, in this process."""
    with tempfile.TemporaryDirectory() as base:
        async with manager(Path(base)) as sessions:
            return await attack(sessions, name, repeat)


def main() -> int:
    """Returns 1 if a payload ended the keeper."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hostile", description=__doc__)
    parser.add_argument("--only", default="", help="only payloads whose name has these words")
    parser.add_argument("--repeat", type=int, default=1, help="how often each is sent")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asyncio.run(one(options.one, options.repeat))))
        return 0
    print(f"{'sent by a kernel':<46} {'growth MB':>9} {'median x':>9} {'worst s':>8}  told")
    ended = 0
    for name in PAYLOADS:
        if options.only not in name:
            continue
        command = [sys.executable, "-m", __spec__.name, "--one", name, "--repeat", str(options.repeat)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=4 * MOST_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            ended += 1
            print(f"{name:<46} ended the keeper: {str(error.stderr)[-300:]!r}", flush=True)
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{name:<46} {row['growth'] / 1e6:>9.0f} {row['median']:>9.1f} {row['worst_s']:>8.2f}  {row['told'][:160]}",
            flush=True,
        )
    return 1 if ended else 0


if __name__ == "__main__":
    sys.exit(main())
