"""What a keeper counts: each figure is what really happened, and nothing happens that is not counted."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kernelrepl.client import connection
from kernelrepl.errors import StorageFailed
from tests.conftest import Sessions
from tests.support.mcp_hosts import command, host, refusal, run

pytestmark = pytest.mark.anyio


async def test_executions_are_counted_by_their_outcome(sessions: Sessions) -> None:
    """The one that ends with its kernel as well; a commit for each that could have one."""
    for code in ("x = 1", "x", "1/0", "import os; os.kill(os.getpid(), 9)"):
        await sessions.run(code)
    value = sessions.metrics.value
    assert [value("executions_total", status=status) for status in ("ok", "error", "crashed")] == [2, 1, 1]
    assert value("commit_seconds_count") == 3
    assert value("kernel_deaths_total") == 1
    assert value("missed_changes_total") == 0


async def test_what_comes_back_is_counted_and_what_does_not(sessions: Sessions) -> None:
    """By name, at each start that has something to bring back."""
    await sessions.run("a = 1; b = 2; import threading; c = (letter for letter in 'ab')")
    value = sessions.metrics.value
    assert (value("kernel_start_seconds_count", how="fork"), value("restores_total")) == (1, 0)
    await sessions.manager.loaded()["s"].hibernate()
    await sessions.run("a")
    assert (value("kernel_start_seconds_count", how="fork"), value("restores_total")) == (2, 1)
    assert (value("restored_names_total"), value("not_restored_names_total")) == (3, 1)


async def test_written_bytes_are_those_of_what_changed(sessions: Sessions) -> None:
    """Whether they came with the commit or ahead of it."""
    await sessions.run("import os; big = os.urandom(8_000_000)")
    first = sessions.metrics.value("committed_bytes_total")
    assert 8_000_000 <= first < 8_200_000
    await sessions.run("x = 1")
    assert sessions.metrics.value("committed_bytes_total") < first + 2_000


async def test_who_is_put_to_sleep_is_counted_by_the_reason(sessions: Sessions) -> None:
    """For idleness, or to make room."""
    room = sessions.manager.capacity
    room.max_live = 1
    await sessions.run("1", "a")
    await sessions.run("1", "b")
    room.idle_timeout_s = 0
    await sessions.manager.tidy()
    why = {reason: sessions.metrics.value("hibernations_total", why=reason) for reason in ("idle", "max_live")}
    assert why == {"idle": 1, "max_live": 1}


async def test_a_commit_that_fails_is_counted(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a failure, not as a commit."""
    await sessions.run("x = 1")

    async def full(*arguments: object) -> int:
        raise StorageFailed("the disk is full")

    monkeypatch.setattr(sessions.store, "publish", full)
    await sessions.run("x = 2")
    value = sessions.metrics.value
    assert (value("commit_seconds_count"), value("failed_commits_total")) == (1, 1)


async def test_the_status_of_a_keeper_has_them(
    environ: dict[str, str], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a person in words, for a program as JSON; agents do not see them."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = await asyncio.to_thread(command, environ, "status")
    assert (done.returncode, done.stdout) == (0, "no keeper is running; the next call starts one\n")
    assert (await asyncio.to_thread(command, environ, "status", "--json")).stdout == "null\n"
    async with host(environ) as agent:
        await run(agent, "x = 1")
        await run(agent, "1/0")
        await refusal(agent, "python_list_variables", session_id="none")
        await refusal(agent, "python_repl", code="1", sesion_id="s")
        await refusal(agent, "pythom_repl", code="1")
        said = (await asyncio.to_thread(command, environ, "status")).stdout
        async with connection.connect(operator=True, start=False) as operator:
            status = (await operator.call_tool("keeper_status", {})).structured_content
        found = json.loads((await asyncio.to_thread(command, environ, "status", "--json")).stdout)
    assert "Executions that have ended (ok): 1\n" in said
    assert "Calls that were refused (UnknownSession): 1\n" in said
    assert "kernel of s: pid " in said
    assert status is not None
    assert found["kernels"] == status["kernels"]
    samples = {
        (sample["name"].removeprefix("kernelrepl_"), *sample["labels"].values()): sample["value"]
        for metric in found["metrics"].values()
        for sample in metric["samples"]
    }
    assert samples["call_seconds_count", "python_repl"] == 3
    assert samples["call_seconds_count", "unknown"] == 1
    refused = {key[1]: value for key, value in samples.items() if key[0] == "refusals_total"}
    assert refused == {"UnknownSession": 1, "InvalidArgument": 1, "UnknownTool": 1}
    assert samples["executions_total", "ok"] == samples["executions_total", "error"] == 1


_FREED = """
import asyncio, secrets
from kernelrepl.keeper import process

async def main():
    process.RELEASE_S = 0.05
    before = process.resident_bytes()
    task = asyncio.create_task(process.release_memory())
    await asyncio.sleep(0)
    pieces = [secrets.token_bytes(8_000) for _ in range(20_000)]
    kept = pieces[::100]  # the allocator gives back by itself what is at the end
    assert process.resident_bytes() > before + (100 << 20)
    pieces.clear()
    while process.resident_bytes() > before + (64 << 20):
        await asyncio.sleep(0.02)
    assert len(kept) == 200

asyncio.run(main())
"""


def test_memory_that_is_free_goes_back() -> None:
    """What was needed for a while, in pieces that lie between others, is not kept for ever.

    In a process of its own: in one that has freed much before, the pieces take nothing anew.
    """
    done = subprocess.run([sys.executable, "-c", _FREED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
