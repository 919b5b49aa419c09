"""SIGINT at any moment stops user code and nothing else: no reply is lost, no commit is torn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kernelrepl.model import ExecutionResult
from tests.conftest import RUN_TIMEOUT_S, Sessions

pytestmark = pytest.mark.anyio

CELLS = 250
SEED = int(os.environ.get("KERNELREPL_TEST_SEED", secrets.randbelow(1 << 32)))
MEAN_CALM_S = 0.025
"""As long as a cell takes: some are hit where they compute, some while they are committed, some not at all."""

SETUP = """
import asyncio, hashlib, time
import numpy as np
total = 0
items = []
table = {}
array = np.zeros(1000)

def digest():
    text = repr((total, items, sorted(table.items()), hashlib.sha256(array.tobytes()).hexdigest()))
    return hashlib.sha256(text.encode()).hexdigest()
"""
KINDS = (
    "for _ in range(200_000): total += 1",
    "time.sleep(0.02); table[{i}] = 'slept'",
    "for k in range(300): items.append(({i}, k))",
    "array = np.sort(np.random.rand(200_000))[:1000] * {i}",
    "array[{i} % 1000] += 1; total += int(array.sum() > 0)",
    "import asyncio; await asyncio.sleep(0.02); table[{i}] = 'awaited'",
    "await asyncio.sleep(0); items.append({i}); await asyncio.sleep(0.01); total += 1",
    "print('line ' * 20, {i}); table[{i}] = 'printed'",
    "[print(k) for k in range(300)]; {i}",
    "try:\n    time.sleep(0.02)\nfinally:\n    table[{i}] = 'at last'",
    "del items[: len(items) // 2]; raise ValueError({i})",
)


def pid_of(sessions: Sessions) -> int:
    """The process of the session's kernel."""
    pid = sessions.manager.loaded()["s"].pid
    assert pid is not None
    return pid


@contextlib.asynccontextmanager
async def storm(pid: int, chance: random.Random) -> AsyncIterator[list[int]]:
    """SIGINT to a process again and again; yields a list with one entry for each."""
    sent: list[int] = []

    async def strike() -> None:
        while True:
            # Not a wait for anything: where in the life of a cell the signal lands is what is tried here.
            await asyncio.sleep(chance.expovariate(1 / MEAN_CALM_S))
            os.kill(pid, signal.SIGINT)
            sent.append(1)

    task = asyncio.create_task(strike())
    try:
        yield sent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def beacon(path: Path) -> Iterator[asyncio.Event]:
    """A fifo, and an event that is set when a cell has written to it."""
    os.mkfifo(path)
    path.chmod(0o666)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_data() -> None:
        if os.read(descriptor, 4096):
            event.set()

    loop.add_reader(descriptor, on_data)
    # A writer of our own keeps the end of the last cell's from looking like data.
    writer = os.open(path, os.O_WRONLY)
    try:
        yield event
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        os.close(writer)


async def workspace_of(sessions: Sessions) -> Path:
    """Where a test and its session both have files."""
    await sessions.run("1")
    return sessions.manager.loaded()["s"].launch.workspace


async def interrupted_at(sessions: Sessions, code: str, event: asyncio.Event, strikes: int = 1) -> ExecutionResult:
    """Run code, send SIGINT when it has lit its beacon, return its outcome."""
    _, job = await sessions.submit(code)
    await asyncio.wait_for(event.wait(), RUN_TIMEOUT_S)
    for _ in range(strikes):
        os.kill(pid_of(sessions), signal.SIGINT)
    return await asyncio.wait_for(asyncio.shield(job.result), RUN_TIMEOUT_S)


@pytest.mark.slow
async def test_250_cells_in_a_storm_of_interrupts(sessions: Sessions) -> None:
    """Each cell gives one result; what the kernel holds at the end is what the store holds."""
    chance = random.Random(SEED)
    await sessions.run(SETUP)
    pid = pid_of(sessions)
    results = []
    async with storm(pid, chance) as sent:
        for i in range(CELLS):
            results.append(await sessions.run(chance.choice(KINDS).format(i=i)))
    where = f"KERNELREPL_TEST_SEED={SEED}"
    unexpected = [r for r in results if r.status not in ("ok", "error", "interrupted") or not r.committed]
    assert not unexpected, f"{unexpected[:3]} ({where})"
    names = {r.output.error.name for r in results if r.output.error is not None}
    assert names <= {"KeyboardInterrupt", "CancelledError", "ValueError"}, f"{names} ({where})"
    assert "KeyboardInterrupt" in names, f"none of {len(sent)} signals hit a cell ({where})"
    assert any(r.status == "ok" for r in results), f"every cell was hit ({where})"
    assert pid_of(sessions) == pid, f"the kernel ended ({where})"

    before = await sessions.value("digest()")
    await sessions.kill()
    after = await sessions.run("digest()")
    assert after.restored is not None
    assert not after.restored.not_restored, where
    assert after.output.result == before, where

    statuses = dict(await sessions.rows("SELECT status, COUNT(*) FROM executions GROUP BY status"))
    assert sum(statuses.values()) == CELLS + 3, f"{statuses} ({where})"
    assert set(statuses) <= {"ok", "error", "interrupted"}, f"{statuses} ({where})"
    assert await sessions.rows("SELECT id FROM executions WHERE commit_id IS NULL") == [], where


async def test_sigint_stops_an_await(sessions: Sessions) -> None:
    """A cell that sleeps in an await is cancelled there; what it did before is kept."""
    with beacon(await workspace_of(sessions) / "beacon") as lit:
        code = """
import asyncio, pathlib
done = 1
asyncio.get_running_loop().call_soon(pathlib.Path("beacon").write_text, "x")
await asyncio.sleep(30)
done = 2
"""
        execution = await interrupted_at(sessions, code, lit)
    assert execution.output.error is not None
    assert execution.output.error.name in ("CancelledError", "KeyboardInterrupt")
    assert execution.committed
    await sessions.kill()
    assert await sessions.value("done") == "1"


async def test_sigint_stops_a_loop_after_an_await(sessions: Sessions) -> None:
    """A cell that awaited first and computes now is stopped where it computes."""
    with beacon(await workspace_of(sessions) / "beacon") as lit:
        code = """
import asyncio, pathlib
await asyncio.sleep(0.01)
done = 1
pathlib.Path("beacon").write_text("x")
while True: pass
"""
        execution = await interrupted_at(sessions, code, lit)
    assert execution.output.error is not None
    assert execution.output.error.name == "KeyboardInterrupt"
    assert execution.committed
    assert await sessions.value("done") == "1"


async def test_sigint_while_idle_does_nothing(sessions: Sessions) -> None:
    """Nothing is interrupted, now or in the next cell, and the kernel lives on."""
    await sessions.run("x = 1")
    pid = pid_of(sessions)
    for _ in range(20):
        for _ in range(3):
            os.kill(pid, signal.SIGINT)
        execution = await sessions.run("x += 1")
        assert execution.status == "ok", execution.output.error
    assert pid_of(sessions) == pid
    assert await sessions.value("x") == "21"


async def test_sigint_during_a_commit_loses_neither_reply_nor_value(sessions: Sessions) -> None:
    """A value whose own saving code is slow is saved whole, however often the signal comes meanwhile."""
    with beacon(await workspace_of(sessions) / "beacon") as lit:
        code = """
import pathlib, time
class Slow:
    def __init__(self): self.value = "whole"
    def __getstate__(self):
        pathlib.Path("beacon").write_text("x")
        time.sleep(0.5)
        return dict(self.__dict__)
slow = Slow()
other = [1, 2, 3]
"""
        execution = await interrupted_at(sessions, code, lit, strikes=5)
        assert execution.status == "ok", execution.output.error
        assert execution.committed
        assert not execution.not_saved
        assert {"slow", "other"} <= set(execution.saved.created)
        await sessions.kill()
        assert await sessions.value("slow.value, other") == "('whole', [1, 2, 3])"


async def test_an_interrupted_display_does_not_fail_the_next_cell(sessions: Sessions) -> None:
    """What a display that broke off leaves in IPython belongs to its own cell."""
    await sessions.run("import asyncio\nclass Shy:\n    def __repr__(self): raise KeyboardInterrupt")
    assert (await sessions.run("Shy()")).status == "error"
    assert (await sessions.run("await asyncio.sleep(0); x = 1")).status == "ok"
    assert (await sessions.run("1 / 0")).status == "error"
    assert (await sessions.run("await asyncio.sleep(0); x = 2")).status == "ok"
