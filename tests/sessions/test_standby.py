"""Kernels that are ready before anybody asks: who gets one, and that it is nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kernelrepl.kernel import usage
from kernelrepl.model import Limits
from kernelrepl.sessions import resource_monitor, standby
from kernelrepl.sessions.confinement import Grants
from kernelrepl.sessions.manager import Origin
from kernelrepl.sessions.standby import Standby
from tests.conftest import Sessions
from tests.sessions.test_warm_starts import looks

pytestmark = pytest.mark.anyio


async def always() -> bool:
    return True


@pytest.fixture
async def spares(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Standby]:
    """Two kernels are kept ready."""
    monkeypatch.setattr(standby, "QUIET_S", 0.05)
    manager = sessions.manager
    kept = manager.standby = Standby(
        2,
        manager.data_dir / "workspaces",
        manager.confinement,
        Grants(),
        manager.services,
        always,
        manager.busy,
    )
    task = asyncio.create_task(kept.run())
    yield kept
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await kept.close()


async def ready(spares: Standby, count: int = 2) -> list[int]:
    """Wait until so many are there; their pids."""
    async with asyncio.timeout(30):
        while len(spares.prepared) < count:
            await asyncio.sleep(0.02)
    return [prepared.kernel.pid for prepared in spares.prepared]


async def test_a_new_session_begins_with_a_kernel_that_is_ready(sessions: Sessions, spares: Standby) -> None:
    """Its directory becomes the workspace of the session for good, and others follow."""
    pids = await ready(spares)
    names = {prepared.workspace.name for prepared in spares.prepared}
    execution = await sessions.run("open('mine', 'w').write('1'); x = [1]\n_ = 5")
    assert execution.status == "ok"
    assert execution.execution_count == 1
    assert execution.restored is None
    assert sessions.manager.loaded()["s"].pid in pids
    [[workspace, python, packages]] = await sessions.rows("SELECT workspace, python, packages FROM sessions")
    assert workspace in names
    assert python
    assert "ipykernel" in packages
    again = await ready(spares)
    assert len(set(again) - set(pids)) == 1
    await sessions.kill()
    assert await sessions.value("x, open('mine').read()") == "([1], '1')"
    assert sessions.manager.loaded()["s"].pid not in {*pids, *again}


async def test_nothing_of_it_is_looked_at_while_its_first_cell_begins(
    sessions: Sessions, spares: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's code has run in it or in its directory. The next kernel of the session is looked at at once."""
    looked: list[int] = []
    descendants = usage.descendants

    def noted(pid: int) -> Any:
        looked.append(pid)
        return descendants(pid)

    monkeypatch.setattr(resource_monitor, "BUSY_S", 3600.0)
    monkeypatch.setattr(resource_monitor, "IDLE_S", 3600.0)
    monkeypatch.setattr(usage, "descendants", noted)
    pids = await ready(spares)
    _, job = await sessions.submit("open('file', 'w').write('x')")
    await job.over.wait()
    assert sessions.manager.loaded()["s"].pid in pids
    assert looked == []
    await sessions.kill()
    await sessions.run("1")
    assert len(looked) == 1


async def test_it_is_like_one_that_was_started_for_its_session(sessions: Sessions, spares: Standby) -> None:
    """Nothing can be seen of what it ran while it waited."""
    pids = await ready(spares)
    prepared = await looks(sessions, "spare")
    assert sessions.manager.loaded()["spare"].pid in pids
    sessions.manager.standby = None
    own = await looks(sessions, "own")
    for found in (prepared, own):
        found["status"] = [line for line in found["status"] if not line.startswith(("Uid", "Gid", "NSpid"))]
    assert prepared == own


async def test_two_sessions_get_two_kernels(sessions: Sessions, spares: Standby) -> None:
    """At the same time, too; whoever finds none gets one of its own."""
    await ready(spares)
    executions = await asyncio.gather(*(sessions.run(f"x = {n}\nx", f"s{n}") for n in range(4)))
    assert [execution.output.result for execution in executions] == ["0", "1", "2", "3"]
    assert len({session.pid for session in sessions.manager.loaded().values()}) == 4
    workspaces = await sessions.rows("SELECT DISTINCT workspace FROM sessions")
    assert len(workspaces) == 4


async def test_the_limits_of_who_takes_it_are_its_limits(sessions: Sessions, spares: Standby) -> None:
    """They are told when it is taken."""
    pids = await ready(spares)
    execution = await sessions.run("x = bytes(5000); y = 1", limits=Limits(variable_bytes=1000))
    assert sessions.manager.loaded()["s"].pid in pids
    assert [entry.name for entry in execution.not_saved] == ["x"]


async def test_whoever_gets_something_else_gets_a_kernel_of_its_own(
    sessions: Sessions, spares: Standby, tmp_path: Path
) -> None:
    """What may be read, for instance, is fixed when a kernel is confined."""
    pids = await ready(spares)
    (tmp_path / "given").mkdir()
    await sessions.run("1", read=(str(tmp_path / "given"),))
    assert sessions.manager.loaded()["s"].pid not in pids


async def test_a_session_that_wakes_gets_a_kernel_of_its_own(sessions: Sessions, spares: Standby) -> None:
    """One that is ready has another workspace."""
    await sessions.run("x = 1")
    await sessions.manager.loaded()["s"].hibernate()
    pids = await ready(spares)
    assert await sessions.value("x") == "1"
    assert sessions.manager.loaded()["s"].pid not in pids


async def test_one_that_has_died_is_not_given_away(sessions: Sessions, spares: Standby) -> None:
    """Neither one that died long ago nor one that dies right now."""
    pids = await ready(spares)
    os.kill(spares.prepared[0].kernel.process.pid, signal.SIGKILL)
    await spares.prepared[0].kernel.ended.wait()
    assert await sessions.value("1 + 1") == "2"
    assert sessions.manager.loaded()["s"].pid == pids[1]
    await ready(spares)
    for prepared in spares.prepared:
        # The one that would run the code: those below a first process live on until that one has had its turn to end.
        os.kill(prepared.kernel.pid, signal.SIGKILL)
    assert await sessions.value("1 + 1", "t") == "2"


async def test_a_call_without_a_session_leaves_nothing(sessions: Sessions, spares: Standby) -> None:
    """Its kernel was ready, its directory goes with it, and nothing is stored."""
    pids = await ready(spares)
    handle = await sessions.manager.execute_once("open('f', 'w').write('x'); x = 1\nx", Origin(), timeout_s=None)
    session = handle.session
    assert await handle.wait()
    assert handle.result().output.result == "1"
    assert session is not None
    assert session.pid in pids
    workspace = session.launch.workspace
    assert (workspace / "f").exists()
    await sessions.manager.discard(handle)
    assert not workspace.exists()
    assert not list(workspace.parent.glob("*.once"))
    assert await sessions.rows("SELECT * FROM executions") == []
    assert await sessions.rows("SELECT * FROM commits") == []


async def test_what_a_cell_says_reaches_the_session_that_took_the_kernel(sessions: Sessions, spares: Standby) -> None:
    """Output as it comes, floods, interrupts and commits: all of it."""
    await ready(spares)
    session, job = await sessions.submit("print('now', flush=True)\nimport time; time.sleep(60)")
    async with asyncio.timeout(20):
        while "now" not in job.live.output().stdout:
            await asyncio.sleep(0.02)
    await session.interrupt(job)
    assert (await job.result).status == "interrupted"
    execution = await sessions.run("for n in range(10**9): print('x' * 1000)", timeout_s=2)
    assert execution.status == "timeout"


async def test_nobody_takes_one_that_is_not_wanted(sessions: Sessions, spares: Standby) -> None:
    """They end with their keeper, and their directories with them."""
    pids = await ready(spares)
    workspaces = [prepared.workspace for prepared in spares.prepared]
    await spares.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not any(workspace.exists() for workspace in workspaces)


async def test_none_is_made_while_code_runs(sessions: Sessions, spares: Standby) -> None:
    """It would take the time of whoever waits for a reply."""
    await ready(spares)
    _, job = await sessions.submit("import time; time.sleep(1.5)")
    await asyncio.wait_for(job.began.wait(), 20)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(job.result), 1)
    assert len(spares.prepared) == 1
    await job.result
    await ready(spares)


async def test_none_is_made_while_a_session_is_created(
    sessions: Sessions, spares: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code is about to run. On a busy disk, its row takes longer than nothing has to run before one is made."""
    await ready(spares)
    create, begun, go_on = sessions.store.create_session, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await create(*arguments)

    monkeypatch.setattr(sessions.store, "create_session", slow)
    running = asyncio.create_task(sessions.run("1"))
    await begun.wait()
    busy = sessions.manager.busy()
    go_on.set()
    assert (await running).status == "ok"
    assert busy


def test_a_keeper_keeps_kernels_ready_and_leaves_none(environ: dict[str, str]) -> None:
    """Through the command line: a new session gets one of them, and nothing of the others is left."""
    environ = {**environ, "KERNELREPL_STANDBY": "2", "KERNELREPL_WARM_START": "on", "KERNELREPL_PRELOAD": "json"}
    workspaces = Path(environ["KERNELREPL_DATA_DIR"]) / "workspaces"

    def kernelrepl(*arguments: str) -> str:
        program = str(Path(sys.executable).parent / "kernelrepl")
        done = subprocess.run(
            [program, *arguments], env=environ, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    assert kernelrepl("exec", "-s", "first", "1 + 1") == "2"
    deadline = time.monotonic() + 30
    while len(list(workspaces.iterdir())) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    ready = {path.name for path in workspaces.iterdir()}
    assert len(ready) == 3
    time.sleep(1)  # the directory is made before its kernel is ready
    assert kernelrepl("exec", "-s", "second", "open('mine', 'w').write('x')") == "1"
    [taken] = [path.parent.name for path in workspaces.glob("*/mine")]
    assert taken in ready
    kernelrepl("stop")
    assert len(list(workspaces.iterdir())) == 2
    assert kernelrepl("exec", "-s", "second", "open('mine').read()") == "'x'"
