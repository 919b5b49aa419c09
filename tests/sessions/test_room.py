"""How many kernels there are: who waits, who makes room, and what that costs."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from pathlib import Path

import pytest

from kernelrepl.sessions import policy
from kernelrepl.sessions.capacity import KernelCapacity
from kernelrepl.sessions.manager import Origin
from kernelrepl.sessions.policy import Resting
from kernelrepl.workspaces import directories
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

UNSAVABLE = "held = (letter for letter in 'ab')"


@pytest.fixture
def room(sessions: Sessions) -> KernelCapacity:
    """Of two kernels."""
    room = sessions.manager.capacity
    room.max_live = 2
    return room


def awake(sessions: Sessions) -> set[str]:
    return {name for name, session in sessions.manager.loaded().items() if session.pid is not None}


async def test_the_one_at_rest_for_longest_makes_room(sessions: Sessions, room: KernelCapacity) -> None:
    """And comes back as it was when it is asked for."""
    for name in ("a", "b"):
        await sessions.run(f"x = {name!r}", name)
    await sessions.run("1", "a")
    await sessions.run("x = 'c'", "c")
    assert awake(sessions) == {"a", "c"}
    execution = await sessions.run("x", "b")
    assert execution.output.result == "'b'"
    assert execution.restored is not None
    assert execution.note is None
    assert awake(sessions) == {"b", "c"}


async def test_a_session_is_used_when_it_has_answered(sessions: Sessions, room: KernelCapacity) -> None:
    """Not when its kernel has come to its end, which may take a while longer: others are used in the meantime."""
    for _ in range(5):
        asked = asyncio.get_running_loop().time()
        session, job = await sessions.submit("1", "a")
        await job.result
        used = session.idle_since
        assert used > asked
        await job.over.wait()
        assert session.idle_since == used


async def test_a_session_that_would_lose_something_goes_last_and_says_so(
    sessions: Sessions, room: KernelCapacity
) -> None:
    """Not for idleness, only when there is no other."""
    await sessions.run(UNSAVABLE, "a")
    await sessions.run("x = 1", "b")
    await sessions.run("x = 1", "c")
    assert awake(sessions) == {"a", "c"}
    room.idle_timeout_s = 0
    await sessions.manager.tidy()
    assert awake(sessions) == {"a"}
    await sessions.run(UNSAVABLE, "b")
    await sessions.run("x = 1", "c")
    assert awake(sessions) == {"b", "c"}
    execution = await sessions.run("1", "a")
    assert "max_live = 2" in (execution.note or "")
    assert "held" in (execution.note or "")
    assert execution.restored is not None
    assert "held" in {entry.name for entry in execution.restored.not_restored}


async def test_a_kernel_that_runs_something_is_not_stopped(sessions: Sessions, room: KernelCapacity) -> None:
    """Whoever finds no room waits until something has ended, in the order of coming."""
    _, first = await sessions.submit("import time; time.sleep(1.5); x = 1", "a")
    busy, second = await sessions.submit("import time; time.sleep(300); x = 2", "b")
    await asyncio.wait_for(asyncio.gather(first.began.wait(), second.began.wait()), 20)
    _, third = await sessions.submit("x = 3", "c")
    await asyncio.sleep(0.3)
    assert third.is_waiting
    execution = await asyncio.wait_for(asyncio.shield(third.result), 20)
    assert execution.status == "ok"
    assert first.result.done()
    assert not second.result.done()
    await busy.interrupt(second)
    assert (await second.result).status == "interrupted"
    assert await sessions.value("x", "a") == "1"


async def test_who_waits_for_room_can_be_interrupted(sessions: Sessions, room: KernelCapacity) -> None:
    """It has not begun, and nothing of it runs."""
    for name in ("a", "b"):
        _, job = await sessions.submit("import time; time.sleep(2)", name)
        await asyncio.wait_for(job.began.wait(), 20)
    session, waiting = await sessions.submit("x = 3", "c")
    await asyncio.sleep(0.2)
    await session.interrupt(waiting)
    assert (await waiting.result).status == "interrupted"
    execution = await sessions.run("'x' in globals()", "c")
    assert execution.output.result == "False"


async def test_calls_without_a_session_take_their_turn(sessions: Sessions, room: KernelCapacity) -> None:
    """They are kernels as well."""
    for name in ("a", "b"):
        await sessions.run("x = 1", name)
    handle = await sessions.manager.execute_once("1 + 1", Origin(), timeout_s=None)
    assert await handle.wait()
    assert handle.result().output.result == "2"
    assert len(awake(sessions)) == 1
    await sessions.manager.discard(handle)
    await sessions.run("x = 1", "a")
    await sessions.run("x = 1", "b")
    assert awake(sessions) == {"a", "b"}


async def test_kernels_that_take_too_much_together_make_room(sessions: Sessions, room: KernelCapacity) -> None:
    """What they share is counted once; the one at rest for longest goes first."""
    room.max_live = None
    for name in ("a", "b", "c"):
        await sessions.run("x = bytearray(2_000_000)", name)
    room.memory_bytes = 60_000_000
    async with asyncio.timeout(30):
        while "a" in awake(sessions):
            await asyncio.sleep(0.1)
    await room._relieving  # type: ignore[misc]
    assert awake(sessions) <= {"b", "c"}
    assert await sessions.value("len(x)", "a") == "2000000"


async def test_many_sessions_share_few_places(sessions: Sessions, room: KernelCapacity) -> None:
    """In any order, at the same time: every reply is right, and there are never more kernels than places."""
    counts = dict.fromkeys("abcd", 0)
    most = 0

    async def use(name: str, times: int) -> None:
        nonlocal most
        for _ in range(times):
            counts[name] += 1
            execution = await sessions.run("n = globals().get('n', 0) + 1; n", name)
            most = max(most, len(awake(sessions)))
            assert execution.output.result == str(counts[name]), (name, execution)

    await asyncio.gather(*(use(name, 2) for name in counts))
    assert most <= 2


def test_who_goes_is_decided_by_rest_and_by_what_would_be_lost() -> None:
    """Pure."""
    assert policy.next_to_go([]) is None
    assert policy.next_to_go([Resting("a", 1.0, True), Resting("b", 3.0, False), Resting("c", 2.0, False)]) == "c"
    assert policy.next_to_go([Resting("a", 2.0, True), Resting("b", 1.0, True)]) == "b"
    resting = [Resting("a", 0.0, False), Resting("b", 5.0, False), Resting("c", 0.0, True)]
    assert policy.idle(resting, 10.0, 8.0) == (["a"], 3.0)
    assert policy.idle(resting, 20.0, 8.0) == (["a", "b"], None)


def test_what_a_killed_keeper_left_is_removed(tmp_path: Path) -> None:
    """Directories of single calls and empty ones; never what may be somebody's."""
    for name in ("known", "empty", "full", "once"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "once" / "file").touch()
    directories.mark_temporary(tmp_path / "once")
    directories.sweep_workspaces(tmp_path, ["known"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "known"]


# What is forgotten of sessions that sleep


async def forgotten(sessions: Sessions) -> set[str]:
    """The sessions of which nothing but their rows is left, after a look."""
    await sessions.manager.tidy()
    gc.collect()
    known = {info.info.session_id for info in await sessions.manager.list_sessions()}
    return known - set(sessions.manager.loaded())


async def test_a_session_that_sleeps_is_in_the_store_only(sessions: Sessions) -> None:
    """There may be ten thousand of them; what it was is all there when it is asked for."""
    await sessions.run("x = 1; print('seen')")
    assert await forgotten(sessions) == set()
    await sleep(sessions)
    assert await forgotten(sessions) == {"s"}
    handle = await sessions.manager.latest("s")
    assert handle.is_stored
    execution = handle.result()
    assert (execution.output.stdout, execution.note) == ("seen\n", None)
    assert await sessions.value("x") == "1"


async def test_what_nobody_has_got_yet_is_not_forgotten(sessions: Sessions) -> None:
    """Code whose call has returned, and what the next reply has to say."""
    session, job = await sessions.submit("x = 1", "uncollected")
    session.uncollected.add(job, lambda execution: execution.status)
    await job.result
    await sessions.run(UNSAVABLE, "greeting")
    for name in ("uncollected", "greeting"):
        await sessions.manager.loaded()[name].hibernate("max_live = 1")
    del session
    assert await forgotten(sessions) == set()
    assert "not saved, and gone" in ((await sessions.run("1", "greeting")).note or "")
    sessions.manager.loaded()["uncollected"].uncollected.take(job)
    assert await forgotten(sessions) == {"uncollected"}


async def test_a_session_that_somebody_holds_has_no_second(sessions: Sessions) -> None:
    """Whoever found it before it was forgotten and whoever asks later have the same kernel."""
    await sessions.run("x = 1")
    await sleep(sessions)
    held = sessions.manager.loaded()["s"]
    assert await forgotten(sessions) == set()
    session, job = await sessions.submit("x")
    assert session is held
    assert (await job.result).output.result == "1"


async def sleep(sessions: Sessions) -> None:
    for session in list(sessions.manager.loaded().values()):
        await session.hibernate()


async def test_sessions_beyond_a_thousand_descriptors_are_like_any_other(sessions: Sessions) -> None:
    """Fifty kernels take more than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert await sessions.value("x = 1; x") == "1"
        assert await sessions.value("x") == "1"
        await sessions.manager.loaded()["s"].hibernate()
        assert await sessions.value("x") == "1"
        await sessions.manager.close()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
