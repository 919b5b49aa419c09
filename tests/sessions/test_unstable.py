"""Values that pickle to other bytes each time: they are not stored again for nothing, and never missed."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from kernelrepl.errors import StorageFailed
from kernelrepl.model import Commit
from kernelrepl.store import Store
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

NOISY = """
import os
class Noisy:
    v = 1
    def __getstate__(self): return {'v': self.v, 'noise': os.urandom(8)}
noisy = Noisy()
"""


async def settle(sessions: Sessions) -> None:
    """Make a value that pickles to other bytes each time, and let that be noticed."""
    await sessions.run(NOISY)
    for _ in range(3):
        await sessions.run("1")


async def test_a_noisy_value_is_not_stored_again_while_nothing_touches_it(sessions: Sessions) -> None:
    """Its bytes differ, it does not."""
    await settle(sessions)
    before = await sessions.rows("SELECT COUNT(*) FROM components")
    for code in ("1 + 1", "n = 3", "print(n, 'x' * 2)", "n += len('abc')"):
        execution = await sessions.run(code)
        assert "noisy" not in execution.saved.changed
    await sessions.run("del n")
    after = await sessions.rows(
        "SELECT COUNT(*) FROM components WHERE key IN (SELECT root FROM names WHERE name = 'noisy')"
    )
    assert after[0][0] <= before[0][0]
    await sessions.kill()
    assert await sessions.value("noisy.v") == "1"


@pytest.mark.parametrize(
    "code",
    [
        "noisy.v = 2",
        "exec('noisy.v = 2')",
        "eval('setattr(noisy, \"v\", 2)')",
        "globals()['noisy'].v = 2",
        "vars()['noisy'].v = 2",
        "locals()['noisy'].v = 2",
        "__import__('__main__').noisy.v = 2",
        "from touch import *",
        "import touch",
        "__import__('touch')",
        "%timeit -n1 -r1 noisy.v += 1",
        "get_ipython().user_ns['noisy'].v = 2",
        "(lambda: globals()['noi' 'sy'])().v = 2",
        "[o for o in __import__('gc').get_objects() if type(o).__name__ == 'Noisy'][0].v = 2",
    ],
)
async def test_a_change_is_stored_by_whichever_way_it_came(sessions: Sessions, code: str) -> None:
    """Code need not name a value to change it."""
    await sessions.run("open('touch.py', 'w').write('import __main__; __main__.noisy.v = 2')")
    await sessions.run("import sys, os; sys.path.insert(0, os.getcwd())")
    await settle(sessions)
    execution = await sessions.run(code)
    assert execution.status == "ok", execution.output.error
    await sessions.kill()
    assert await sessions.value("noisy.v") == "2"


LATER = """
import asyncio
async def later():
    loop, gate = asyncio.get_running_loop(), asyncio.Event()
    go = os.open('go', os.O_RDONLY | os.O_NONBLOCK)
    loop.add_reader(go, lambda: (loop.remove_reader(go), gate.set()))
    await gate.wait()
    noisy.v = 2
    open('done', 'w').close()
"""


async def test_a_change_by_a_task_between_cells_is_stored_with_the_next_one(sessions: Sessions) -> None:
    """The task ran when no cell did."""
    await sessions.run(LATER)
    await settle(sessions)
    [view] = await sessions.manager.list_sessions()
    workspace = await sessions.manager.workspace(view.info.session_id)
    go, done = (workspace / name for name in ("go", "done"))
    for path in (go, done):
        os.mkfifo(path)
        path.chmod(0o666)
    await sessions.run("asyncio.get_running_loop().create_task(later()); None")
    await asyncio.to_thread(go.write_bytes, b"go")
    await asyncio.to_thread(done.read_bytes)
    await sessions.run("1")
    await sessions.kill()
    assert await sessions.value("noisy.v") == "2"


class FailsOnDemand(Store):
    """A store that refuses commits while it is told to."""

    refuse = False

    async def publish(self, session: int, execution: int | None, commit: Commit, *rest: Any) -> int:
        if self.refuse:
            raise StorageFailed("the disk is full; free some space")
        return await super().publish(session, execution, commit, *rest)


@pytest.mark.parametrize("make_store", [FailsOnDemand])
async def test_a_change_whose_commit_failed_is_stored_with_the_next_one(sessions: Sessions) -> None:
    """Even if that one names nothing."""
    await settle(sessions)
    assert isinstance(sessions.store, FailsOnDemand)
    sessions.store.refuse = True
    execution = await sessions.run("noisy.v = 2")
    assert [entry.name for entry in execution.not_saved] == ["noisy"]
    sessions.store.refuse = False
    await sessions.run("1")
    await sessions.kill()
    assert await sessions.value("noisy.v") == "2"
