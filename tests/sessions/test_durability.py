"""What the origin of this project lost must survive here."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import psutil
import pytest

from kernelrepl.sessions.confinement import Grants
from kernelrepl.sessions.manager import Origin
from tests.conftest import COLD, Sessions

pytestmark = pytest.mark.anyio


async def test_variables_survive_kill_9_of_the_kernel(sessions: Sessions) -> None:
    """The next call starts a new kernel, restores and says so."""
    await sessions.run("x = 41; y = {'a': [1, 2]}")
    await sessions.kill()
    execution = await sessions.run("x + 1, y")
    assert execution.output.result == "(42, {'a': [1, 2]})"
    assert execution.restored is not None
    assert set(execution.restored.names) == {"x", "y"}


async def test_functions_and_classes_survive(sessions: Sessions) -> None:
    """Functions, lambdas, closures, decorators, recursion and methods work after a restore."""
    await sessions.run(
        """
import functools
def twice(f):
    @functools.wraps(f)
    def inner(*args): return f(f(*args))
    return inner
@twice
def add(n): return n + step
step = 5
square = lambda v: v * v
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def counter():
    count = 0
    def up():
        nonlocal count
        count += 1
        return count
    return up
tick = counter(); tick(); tick()
class Base:
    def hello(self): return "base"
class Child(Base):
    def hello(self): return super().hello() + " child"
c = Child()
"""
    )
    await sessions.kill()
    assert await sessions.value("add(0), square(7), fib(15), tick(), c.hello(), isinstance(c, Base)") == (
        "(10, 49, 610, 3, 'base child', True)"
    )
    await sessions.run("step = 1")
    assert await sessions.value("add(0)") == "2"


async def test_effects_before_an_error_survive(sessions: Sessions) -> None:
    """An exception does not undo what ran before it, here or in the store."""
    execution = await sessions.run("done = 1\nraise ValueError('no')\nnever = 2")
    assert execution.status == "error"
    assert execution.saved.created == ("done",)
    await sessions.kill()
    assert await sessions.value("done, 'never' in globals()") == "(1, False)"


async def test_effects_before_a_timeout_survive(sessions: Sessions) -> None:
    """A timeout interrupts and keeps."""
    execution = await sessions.run("done = 1\nwhile True: pass", timeout_s=0.5)
    assert execution.status == "timeout"
    await sessions.kill()
    assert await sessions.value("done") == "1"


async def test_aliases_survive(sessions: Sessions) -> None:
    """Two names of one list, an array and its view, a handler and its function stay one."""
    await sessions.run(
        """
import numpy as np
a = b = []
arr = np.arange(1000.0); view = arr[10:20]
def f(): pass
handlers = [f]
shared = {}
left, right = [shared], [shared]
"""
    )
    await sessions.kill()
    await sessions.run("a.append(1); arr[10] = -1; left[0]['k'] = 1")
    assert await sessions.value("b, view[0], handlers[0] is f, right[0], np.shares_memory(arr, view)") == (
        "([1], np.float64(-1.0), True, {'k': 1}, True)"
    )


async def test_old_instances_keep_their_class(sessions: Sessions) -> None:
    """A class that no name holds any more lives on with its instances; class attributes stay changed."""
    await sessions.run("class P:\n    n = 0\n    def who(self): return 'old'\np = P()")
    await sessions.run("P.n = 7")
    await sessions.run("class P:\n    def who(self): return 'new'\nq = P()")
    await sessions.kill()
    assert await sessions.value("p.who(), p.n, q.who(), isinstance(p, P), type(p) is type(p)") == (
        "('old', 7, 'new', False, True)"
    )


async def test_a_deleted_name_stays_deleted(sessions: Sessions) -> None:
    """Deleting is a change like any other."""
    await sessions.run("x = 1; y = 2")
    execution = await sessions.run("del x")
    assert execution.saved.deleted == ("x",)
    await sessions.kill()
    assert await sessions.value("'x' in globals(), y") == "(False, 2)"


async def test_a_deleted_session_comes_back_empty(sessions: Sessions) -> None:
    """Its id is free again, nothing of it is left."""
    await sessions.run("x = 1")
    await sessions.manager.delete("s", Origin())
    assert await sessions.value("'x' in globals()") == "False"


async def test_concurrent_calls_on_one_session_lose_nothing(sessions: Sessions) -> None:
    """Eight callers at once: each increment counts, in some order."""
    await sessions.run("n = 0; order = []")
    await asyncio.gather(*(sessions.run(f"n += 1; order.append({i})") for i in range(8)))
    await sessions.kill()
    assert await sessions.value("n, sorted(order)") == "(8, [0, 1, 2, 3, 4, 5, 6, 7])"


async def test_the_surroundings_survive(sessions: Sessions) -> None:
    """Execution count, `_`, working directory, import path, environment and random state come back."""
    await sessions.run("import os, sys, random; import numpy as np")
    await sessions.run("os.mkdir('sub'); os.chdir('sub'); sys.path.insert(0, '/nowhere'); os.environ['COLOUR'] = 'red'")
    await sessions.run("random.seed(5); np.random.seed(5)")
    await sessions.run("40 + 2")
    before = await sessions.run("_")
    await sessions.run("(random.getstate()[1][:3], np.random.get_state()[1][:3].tolist())")
    expected = await sessions.value("_")
    await sessions.kill()
    assert await sessions.value("_") == expected
    after = await sessions.run("os.path.basename(os.getcwd()), sys.path[0], os.environ['COLOUR']")
    assert after.output.result == "('sub', '/nowhere', 'red')"
    assert after.execution_count == before.execution_count + 4
    state = await sessions.value("(random.getstate()[1][:3], np.random.get_state()[1][:3].tolist())")
    assert state == expected


@COLD
async def test_the_import_path_follows_the_installation(sessions: Sessions, tmp_path: Path) -> None:
    """What a kernel starts with may change between two starts; what the session added and removed stays so."""
    await sessions.run("import sys; sys.path.insert(0, '/mine'); before = list(sys.path); gone = sys.path.pop()")
    await sessions.kill()
    session = sessions.manager.loaded()["s"]
    confinement = sessions.manager.confinement
    environment = {**confinement.environment, "PYTHONPATH": str(tmp_path)}
    confinement = dataclasses.replace(confinement, environment=environment)
    session.launch = confinement.launch(session.launch.workspace, confinement.fix(Grants()))
    assert (
        await sessions.value(
            f"sys.path[0], gone in sys.path, set(before[:-1]) <= set(sys.path), {str(tmp_path)!r} in sys.path"
        )
        == "('/mine', False, True, True)"
    )


async def test_what_did_not_change_is_not_stored_again(sessions: Sessions) -> None:
    """Rows are written for what changed only."""
    await sessions.run("import numpy as np; big = np.zeros(500_000); words = ['a'] * 1000; n = 0")
    before = await sessions.rows("SELECT id FROM components WHERE to_commit IS NULL")
    await sessions.run("n += 1")
    after = await sessions.rows("SELECT id FROM components WHERE to_commit IS NULL")
    assert len(set(after) - set(before)) == 1


async def test_what_did_not_change_is_not_stored_again_after_a_restore(sessions: Sessions) -> None:
    """A restored session is clean: nothing is written twice because it was loaded."""
    await sessions.run(
        "import numpy as np, pandas as pd\nclass P: pass\np = P(); arr = np.arange(9)"
        "\nframe = pd.DataFrame({'a': [1.5]})\ndef f(): return p\nnames = {'x', 'y'}; n = 0"
    )
    before = await sessions.rows("SELECT id FROM components WHERE to_commit IS NULL")
    await sessions.kill()
    execution = await sessions.run("n += 1")
    after = await sessions.rows("SELECT id FROM components WHERE to_commit IS NULL")
    assert execution.saved.changed == ("n",)
    assert len(set(after) - set(before)) == 1


async def test_a_kernel_that_has_ended_leaves_no_socket_open(sessions: Sessions) -> None:
    """After some hundred kernels the keeper would have none left, and wait for ever."""
    keeper = psutil.Process()

    async def start_and_end(times: int) -> None:
        for _ in range(times):
            await sessions.run("1")
            await sessions.kill()
        await sessions.run("1")

    await start_and_end(4)
    before = keeper.num_fds()
    await start_and_end(8)
    async with asyncio.timeout(10):
        # A timer or a log may be open at the moment, and libzmq closes sockets in a thread of its own.
        while keeper.num_fds() > before + 2:
            await asyncio.sleep(0.05)
