"""Locks, and what threads and tasks wait at, come back as they are; whoever waits for them or holds them does not."""

from __future__ import annotations

import pytest

from kernelrepl.model import ExecutionResult
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


KINDS = {
    "lock": ("threading.Lock()", "v.locked()"),
    "held lock": ("threading.Lock(); v.acquire()", "v.locked(), v.release(), v.locked()"),
    "reentrant lock": ("threading.RLock()", "v._is_owned(), v.acquire(timeout=0), v.release()"),
    "held reentrant lock": (
        "threading.RLock(); v.acquire(); v.acquire()",
        "[(v._is_owned(), v.release()) for _ in range(2)], v._is_owned()",
    ),
    "condition": ("threading.Condition()", "v.acquire(timeout=0), v.notify_all(), v.release()"),
    "condition of a lock": ("threading.Condition(threading.Lock())", "type(v._lock).__name__, v.acquire(timeout=0)"),
    "semaphore": ("threading.Semaphore(3); v.acquire()", "[v.acquire(timeout=0) for _ in range(3)]"),
    "bounded semaphore": ("threading.BoundedSemaphore(2); v.acquire()", "v.release(), v._value, v._initial_value"),
    "event": ("threading.Event()", "v.is_set(), v.wait(0)"),
    "event that is set": ("threading.Event(); v.set()", "v.is_set(), v.wait(0)"),
    "barrier": ("threading.Barrier(2, timeout=3)", "v.parties, v.n_waiting, v.broken, v._timeout"),
    "broken barrier": ("threading.Barrier(2); v.abort()", "v.parties, v.broken"),
    "barrier that a thread waited at": (
        "threading.Barrier(2); t = threading.Thread(target=v.wait, daemon=True); t.start()\n"
        "while not v.n_waiting: pass\n"
        "v.reset(); t.join(5)",
        "v.n_waiting, v.broken",
    ),
    "queue": (
        "queue.Queue(3); v.put('a'); v.put([1])",
        "v.qsize(), v.maxsize, v.unfinished_tasks, v.get(False), v.get(False)",
    ),
    "stack": ("queue.LifoQueue(); v.put(1); v.put(2)", "v.get(False), v.get(False), v.empty()"),
    "queue by priority": ("queue.PriorityQueue()\nfor n in (3, 1, 2): v.put(n)", "[v.get(False) for _ in range(3)]"),
    "simple queue": (
        "queue.SimpleQueue()\nfor n in (0, [1], None): v.put(n)\nv.get()",
        "v.qsize(), v.get(False), v.get(False), v.empty()",
    ),
    "simple queue that is empty": ("queue.SimpleQueue(); v.put(1); v.get()", "v.qsize(), v.put(2), v.get(False)"),
    "simple queue of a list": ("queue.SimpleQueue(); v.put([1, 2])", "v.qsize(), v.get(False)"),
    "task lock": ("asyncio.Lock(); await v.acquire()", "v.locked(), v.release(), v.locked()"),
    "task lock that was waited for": (
        "asyncio.Lock(); await v.acquire()\n"
        "try: await asyncio.wait_for(v.acquire(), 0.01)\n"
        "except TimeoutError: v.release()",
        "v.locked(), await asyncio.wait_for(v.acquire(), 5), v.locked()",
    ),
    "task event": ("asyncio.Event(); v.set()", "v.is_set(), await asyncio.wait_for(v.wait(), 5)"),
    "task condition": ("asyncio.Condition()", "await asyncio.wait_for(v.acquire(), 5), v.notify_all(), v.release()"),
    "task semaphore": ("asyncio.BoundedSemaphore(2); await v.acquire()", "v._value, v.release(), v._value"),
    "task queue": (
        "asyncio.Queue(2); await v.put([1])\n"
        "got = await asyncio.wait_for(v.get(), 5); v.put_nowait(got)",
        "v.qsize(), v.maxsize, await asyncio.wait_for(v.get(), 5)",
    ),
    "task queue that was waited for": (
        "asyncio.Queue()\n"
        "try: await asyncio.wait_for(v.get(), 0.01)\n"
        "except TimeoutError: v.put_nowait(7)",
        "await asyncio.wait_for(v.get(), 5), v.qsize()",
    ),
    "task barrier": ("asyncio.Barrier(2)", "v.parties, v.n_waiting, v.broken"),
    "scheduler": ("sched.scheduler(); v.enter(60, 1, print, ('late',))", "[event.argument for event in v.queue]"),
    "own kind of queue": ("Own(3); v.put(1); v.note = [2]", "v.qsize(), v.maxsize, v.note, type(v) is Own"),
    "own kind of condition": ("Slotted(); v.z = [3]", "v.acquire(timeout=0), v.z, type(v) is Slotted"),
    "handler of logs": ("Kept(); v.handle(logging.makeLogRecord({'msg': 'm'}))", "v.seen, v.lock.acquire(timeout=0)"),
}  # fmt: skip
"""Of each kind, what makes it `v`, and what is to be seen of it: the same without a kill and after one."""
MEANS = """
import asyncio, logging, queue, sched, threading
class Own(queue.Queue): pass
class Slotted(threading.Condition):
    __slots__ = ('z',)
class Kept(logging.Handler):
    def __init__(self): super().__init__(); self.seen = []
    def emit(self, record): self.seen.append(record.getMessage())
"""


async def test_each_kind_comes_back_as_it_was(sessions: Sessions) -> None:
    """What is seen in a session that was not killed, is the judge."""
    for name in ("s", "unharmed"):
        execution = await sessions.run(MEANS, name)
        assert execution.status == "ok", execution.output.error
    wrong = []
    names = {kind: f"v{number}" for number, kind in enumerate(KINDS)}
    for kind, (make, _) in KINDS.items():
        code = f"v = {make}\n{names[kind]} = v\ndel v"
        for session in ("s", "unharmed"):
            execution = await sessions.run(code, session)
            if execution.status != "ok" or {each.name for each in execution.not_saved} - {"t"}:
                wrong.append(f"{kind}: {execution.output.error} {execution.not_saved}")
    await sessions.kill()
    for kind, (_, see) in KINDS.items():
        code = f"v = {names[kind]}\n({see})"
        expected, found = [await sessions.run(code, session) for session in ("unharmed", "s")]
        if found.output.result != expected.output.result or expected.output.result is None:
            wrong.append(f"{kind}: {found.output.result} {found.output.error}, without a kill {expected.output.result}")
    assert not wrong, "\n" + "\n".join(wrong)


SHARED = """
import asyncio, functools, queue, threading
class Account:
    everybody = threading.Lock()
    __slots__ = ('lock', 'rows', 'ready')
    def __init__(self):
        self.lock, self.rows = threading.Lock(), [1]
        self.ready = threading.Condition(self.lock)
def make():
    lock = threading.Lock()
    def counted(): return lock
    return counted, lock
account = Account()
lock, every, (counted, inner) = account.lock, Account.everybody, make()
by_default = lambda lock=lock: lock
bound = functools.partial(dict, lock=lock)
@functools.lru_cache
def cached(n, lock=inner): return lock
jobs, done = queue.Queue(), queue.SimpleQueue()
jobs.put(account); done.put(account.rows)
tasks = asyncio.Queue(); tasks.put_nowait(account)
nested = {'locks': [lock, (inner, every)]}
acquire = lock.acquire
"""
SEEN = """(
    account.lock is lock, Account.everybody is every, counted() is inner, by_default() is lock, bound()['lock'] is lock,
    cached(1) is inner, jobs.get(False) is account, done.get(False) is account.rows, tasks.get_nowait() is account,
    nested['locks'][0] is lock, nested['locks'][1][0] is inner, nested['locks'][1][1] is every,
    account.ready._lock is lock, acquire.__self__ is lock, lock.acquire(timeout=0), account.ready.notify() is None,
    jobs.not_empty._lock is jobs.mutex,
)"""


async def test_what_shares_a_lock_shares_it_afterwards(sessions: Sessions) -> None:
    """Names, attributes, classes, closures, defaults, wrappers and items of queues."""
    execution = await sessions.run(SHARED)
    assert (execution.status, execution.not_saved) == ("ok", ()), execution.output.error
    for _ in range(2):
        await sessions.kill()
        seen = await sessions.value(SEEN)
        assert seen is not None
        assert seen.split() == ["(True,", *["True,"] * 15, "True)"]
        await sessions.run("lock.release(); jobs.put(account); done.put(account.rows); tasks.put_nowait(account)")


def told(execution: ExecutionResult) -> dict[str, str]:
    return {entry.name: entry.reason for entry in execution.not_saved}


async def test_what_a_thread_holds_comes_back_free_and_is_told(sessions: Sessions) -> None:
    """The object it is in keeps its data; when the thread has let go of it, there is nothing to tell any more."""
    await sessions.run("""
import threading
class Shared:
    def __init__(self): self.lock, self.again, self.rows = threading.Lock(), threading.RLock(), [1]
shared, few, go, there = Shared(), threading.BoundedSemaphore(2), threading.Event(), threading.Event()
free = threading.Lock()
def work():
    with shared.lock, shared.again, few:
        there.set()
        go.wait()
""")
    holds = (
        "go.clear(); there.clear(); t = threading.Thread(target=work); t.start(); there.wait(); shared.rows.append(2)"
    )
    execution = await sessions.run(holds)
    assert told(execution).keys() == {"t", "shared.locked", "few.locked"}
    assert "after a restore it is free" in told(execution)["shared.locked"]
    execution = await sessions.run("go.set(); t.join(); del t")
    assert execution.not_saved == ()
    assert (await sessions.run("shared.rows")).not_saved == ()
    await sessions.run(holds)
    await sessions.kill()
    execution = await sessions.run("shared.rows, free.locked()")
    assert execution.output.result == "([1, 2, 2], False)"
    assert execution.restored is not None
    assert {entry.name for entry in execution.restored.not_restored} == {"t", "shared.locked", "few.locked"}
    free = "shared.lock.acquire(timeout=0), shared.again.acquire(timeout=0), few._value"
    assert await sessions.value(free) == "(True, True, 2)"
    assert (await sessions.run("1")).restored is None


async def test_what_a_task_holds_comes_back_free_and_is_told(sessions: Sessions) -> None:
    """Those who wait for it are gone like the task; what cells hold while nothing else runs is held again."""
    await sessions.run("import asyncio\nlock, few = asyncio.Lock(), asyncio.BoundedSemaphore(1)")
    execution = await sessions.run("""
async def hold():
    async with lock, few:
        await asyncio.sleep(600)
async def wait():
    async with lock: pass
tasks = [asyncio.create_task(hold()), asyncio.create_task(wait())]
await asyncio.sleep(0.01)
""")
    assert told(execution).keys() == {"tasks", "lock.locked", "few.locked"}
    await sessions.kill()
    assert await sessions.value("lock.locked(), few.locked()") == "(False, False)"
    assert await sessions.value("await asyncio.wait_for(lock.acquire(), 5)") == "True"
    await sessions.kill()
    assert await sessions.value("lock.locked()") == "True"


async def test_a_thread_that_was_not_seen_to_let_go_is_seen_by_an_audit(sessions: Sessions) -> None:
    """What was told while it held the lock is not told for ever."""
    await sessions.run("""
import os, threading
lock, there = threading.Lock(), threading.Event()
def work():
    with lock:
        there.set()
        while not os.path.exists('go'): go.wait(0.01)
go = threading.Event()
t = threading.Thread(target=work); t.start(); there.wait()
""")
    assert "lock.locked" in {entry.name for entry in await sessions.manager.list_variables("s")}
    execution = await sessions.run("open('go', 'w').close(); t.join(); del t")
    assert told(execution) == {}
    assert "lock.locked" not in {entry.name for entry in await sessions.manager.list_variables("s")}


HANDLER = "import logging; h = logging.StreamHandler(); logging.getLogger('a').addHandler(h)"


async def test_a_handler_that_writes_is_made_anew_by_its_logger_alone(sessions: Sessions) -> None:
    """A second one under the name would not be the one that the logger has."""
    execution = await sessions.run(HANDLER)
    assert told(execution).keys() == {"h"}
    await sessions.kill()
    assert (
        await sessions.value("[type(one).__name__ for one in logging.getLogger('a').handlers]") == "['StreamHandler']"
    )
    assert await sessions.value("'h' in globals()") == "False"


HELD = """
import threading
class Node:
    def __init__(self, tail): self.tail, self.thread = tail, None
    def __getstate__(self):
        if self.tail is None: self.__dict__['thread'] = threading.current_thread().ident is not None
        return self.__dict__
head = None
for _ in range(20_000): head = Node(head)
lock, again, ready, few = threading.Lock(), threading.RLock(), threading.Condition(), threading.Semaphore(3)
lock.acquire(); again.acquire(); again.acquire(); ready.acquire(); few.acquire(); few.acquire()
every = [lock, again, ready, few, head]
"""
SHOWS = {
    "nothing": "every",
    "much": "for _ in range(500): print('x' * 100_000)\nevery",
    "much at once": "display('x' * 3_000_000); every",
    "much by descriptor": "import os\nfor _ in range(50): os.write(1, b'x' * 1_000_000)\nevery",
    "much while it awaits": "import asyncio\nprint('x' * 10_000_000); await asyncio.sleep(0); every",
    "errors": "import sys; print('x' * 10_000_000, file=sys.stderr); every; 1 / 0",
}
STILL_HELD = (
    "lock.locked(), [again._is_owned() and again.release() for _ in range(2)], again._is_owned(), "
    "ready.notify_all(), few._value"
)


@pytest.mark.slow
async def test_what_cells_hold_is_held_whatever_the_kernel_itself_does_meanwhile(sessions: Sessions) -> None:
    """Threads in which it sends large outputs or pickles deep values are none of the session's."""
    assert (await sessions.run(HELD)).not_saved == ()
    for _ in range(2):
        for name, code in SHOWS.items():
            execution = await sessions.run(f"every.append({name!r}); head.seen = {name!r}\n{code};")
            assert execution.not_saved == (), name
        assert (await sessions.run("head.seen")).not_saved == ()
        await sessions.kill()
        execution = await sessions.run(STILL_HELD)
        assert execution.output.result == "(True, [None, None], False, None, 1)"
        assert execution.restored is None or execution.restored.not_restored == ()
        await sessions.run("again.acquire(); again.acquire()")


async def test_large_outputs_leave_detection_as_it_was(sessions: Sessions) -> None:
    """A cell that names one value has another looked at only if something of the session runs beside it."""
    await sessions.run(
        "looks = []\nclass Seen:\n    def __reduce__(self): looks.append(1); return (Seen, ())\nseen = Seen()"
    )
    await sessions.run("print('x' * 10_000_000)")
    await sessions.run("before = len(looks)")
    await sessions.run("n = [1]")
    assert await sessions.value("len(looks) - before") == "0"


STARTED = {
    "a thread": "threading.Thread(target=hold).start()",
    "a thread without an object": "_thread.start_new_thread(hold, ())",
    "a pool": "concurrent.futures.ThreadPoolExecutor(1).submit(hold)",
    "a timer": "threading.Timer(0, hold).start()",
}


@pytest.mark.parametrize("start", STARTED.values(), ids=STARTED)
async def test_what_a_thread_of_the_session_holds_is_told_however_it_began(sessions: Sessions, start: str) -> None:
    """Also while the kernel's own threads come and go."""
    execution = await sessions.run(f"""
import threading, _thread, concurrent.futures
lock, there, go = threading.Lock(), threading.Event(), threading.Event()
def hold():
    with lock:
        there.set()
        go.wait()
deep = []
for _ in range(20_000): deep = [deep]
print('x' * 10_000_000)
{start}; there.wait()
""")
    assert told(execution).keys() == {"lock.locked"}
    await sessions.run("lock, deep.append(1);")
    assert "lock.locked" in {entry.name for entry in await sessions.manager.list_variables("s")}
    await sessions.kill()
    assert await sessions.value("lock.locked(), lock.acquire()") == "(False, True)"
    await sessions.kill()
    assert await sessions.value("lock.locked()") == "True"
