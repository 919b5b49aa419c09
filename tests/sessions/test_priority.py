"""The keeper, and whoever waits for it, goes before what sessions compute."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from kernelrepl.guest.wire import NICENESS
from kernelrepl.kernel import usage
from kernelrepl.kernel.priority import Background
from tests.conftest import RUN_TIMEOUT_S, Sessions

pytestmark = pytest.mark.anyio

APART = """
import os, time
child = os.fork()
if not child:
    os.setsid()
    time.sleep(60)
    os._exit(0)
"""
"""Code that has a process in a group of its own."""


def groups(sessions: Sessions) -> dict[int, str]:
    """What Linux says of the groups of all processes of the session."""
    kernel = sessions.manager.loaded()["s"].slot.kernel
    assert kernel is not None
    told = {}
    for pid in usage.descendants(kernel.process.pid):
        told[os.getsid(pid)] = Path(f"/proc/{pid}/autogroup").read_text().rstrip()
    return told


def all_nicer(sessions: Sessions) -> bool:
    return all(text.endswith(f"nice {NICENESS}") for text in groups(sessions).values())


async def test_whatever_a_session_starts_is_nicer_than_the_keeper(sessions: Sessions) -> None:
    """Kernel, child and grandchild, and nothing takes it back."""
    await sessions.run("import os, subprocess, sys, contextlib")
    inside = "[os.getpriority(os.PRIO_PROCESS, 0), int(subprocess.check_output([sys.executable, '-c', {!r}]))]"
    asked = inside.format("import os; print(os.getpriority(os.PRIO_PROCESS, 0))")
    expected = str([os.getpriority(os.PRIO_PROCESS, 0) + NICENESS] * 2)
    assert await sessions.value(asked) == expected
    await sessions.run("with contextlib.suppress(OSError): os.setpriority(os.PRIO_PROCESS, 0, 0)")
    await sessions.run("with contextlib.suppress(OSError): os.nice(-5)")
    assert await sessions.value(asked) == expected


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="Linux was built without autogroups")
async def test_groups_of_processes_are_nicer_as_well(sessions: Sessions) -> None:
    """Those that a session makes itself too, soon after it has, and one cannot change that itself."""
    await sessions.run(APART)
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while len(found := groups(sessions)) < 2 or not all(
            text.endswith(f"nice {NICENESS}") for text in found.values()
        ):
            await asyncio.sleep(0.05)
    told = await sessions.run("open('/proc/self/autogroup', 'w').write('0')")
    assert told.status == "error"
    assert all_nicer(sessions)


LOADED = """
import time
def look():
    until = time.monotonic() + 20
    while not (told := open('/proc/self/autogroup').read().rstrip()).endswith('nice {niceness}'):
        if time.monotonic() > until:
            break
        time.sleep(0.02)
    return told
class Loaded:
    def __reduce__(self):
        return look, ()
loaded = Loaded()
"""
"""Code that runs when the session is brought back, for as long as it goes before the keeper."""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="Linux was built without autogroups")
async def test_what_is_brought_back_goes_behind_the_keeper_as_well(sessions: Sessions) -> None:
    """It may run code of the session for a long time, before the kernel is ready."""
    await sessions.run(LOADED.replace("{niceness}", str(NICENESS)))
    await sessions.kill()
    told = await sessions.value("loaded")
    assert told is not None
    assert told.strip("'").endswith(f"nice {NICENESS}")


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="Linux was built without autogroups")
@pytest.mark.skipif(os.geteuid() != 0, reason="without rights Linux takes ten changes a second, from all together")
async def test_a_kernel_goes_behind_the_keeper_while_it_starts(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does that itself: a session that ends again and again does little else than start."""
    monkeypatch.setattr(Background, "look", lambda self, pids, heavy=False: None)
    await sessions.run("x = 1")
    assert all_nicer(sessions)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="Linux was built without autogroups")
async def test_who_floods_the_keeper_goes_behind_other_sessions_for_a_while(sessions: Sessions) -> None:
    """And then beside them again."""
    await sessions.run("x = 1")
    flood = "from IPython.display import display\nfor n in range(3000): display({'a': 'x' * 1000})"
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while not any(text.endswith(f"nice {2 * NICENESS}") for text in groups(sessions).values()):
            await sessions.run(flood)
        while not all_nicer(sessions):
            await asyncio.sleep(0.05)
