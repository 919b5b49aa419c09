"""What cannot be saved is reported with its name, type, path and reason, and costs nothing else."""

from __future__ import annotations

import pytest

from kernelrepl.model import ExecutionResult, Limits, NotSaved
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


VALUES = {
    "socket": ("import socket; v = socket.socket(socket.AF_UNIX)", "connection"),
    "thread": ("import threading; v = threading.Thread(target=print)", "thread"),
    "thread-local": ("v = threading.local()", "_local"),
    "generator": ("v = (i for i in 'ab')", "generator"),
    "map over a generator": ("v = map(str, (i for i in 'ab'))", "generator"),
    "coroutine": ("async def co(): pass\nv = co()", "coroutine"),
    "async generator": ("async def ag(): yield\nv = ag()", "async generator"),
    "open file": ("v = open('f.txt', 'w')", "open file"),
    "buffered file": ("v = open('f.txt', 'rb')", "open file"),
    "directory": ("import tempfile; v = tempfile.TemporaryDirectory()", "finalizer"),
    "temporary file": ("v = tempfile.NamedTemporaryFile()", "open file"),
    "module by hand": ("import types; v = types.ModuleType('m'); v.x = 1", "module made by hand"),
    "registered module by hand": ("import sys; v = sys.modules['own'] = types.ModuleType('own')", "made by hand"),
    "weak reference": ("import weakref\nclass W: pass\nw = W(); v = weakref.ref(w)", "weak reference"),
    "weak proxy": ("v = weakref.proxy(w)", "weak proxy"),
    "weak method": ("W.m = lambda self: 1; v = weakref.WeakMethod(w.m)", "weak reference"),
    "iterator over a dict that has grown": ("d = {1: 2}; v = iter(d); d[2] = 3", "iterator"),
    "iterator over an OrderedDict": ("import collections; v = iter(collections.OrderedDict(a=1))", "iterator"),
    "memoryview": ("v = memoryview(b'ab')", "memoryview"),
    "frame": ("v = sys._getframe()", "frame"),
    "hash": ("import hashlib; v = hashlib.sha256()", "hashlib"),
    "database": ("import sqlite3; v = sqlite3.connect(':memory:')", "connection"),
    "mapped file": ("import numpy as np; v = np.memmap('m.bin', 'u1', 'w+', shape=10)", "mapped file"),
    "shared memory": ("import mmap; v = mmap.mmap(-1, 10)", "mapped file"),
    "view of a mapped file": ("import mmap; v = np.frombuffer(mmap.mmap(-1, 10, mmap.MAP_PRIVATE), 'u1')", "mmap"),
    "context variable": ("import contextvars; v = contextvars.ContextVar('v')", "ContextVar"),
    "future": ("import asyncio; v = asyncio.get_running_loop().create_future()", "Future"),
    "pool": ("import concurrent.futures; v = concurrent.futures.ThreadPoolExecutor()", "cannot be saved"),
    "pool of processes": ("v = concurrent.futures.ProcessPoolExecutor()", "a pool of workers"),
    "timer": ("v = threading.Timer(60, print)", "a thread"),
    "future of a thread": ("v = concurrent.futures.Future()", "a future that is not done"),
    "lock between processes": ("import multiprocessing; v = multiprocessing.Lock()", "several processes (Lock)"),
    "queue between processes": ("v = multiprocessing.Queue()", "several processes (Queue)"),
    "event between processes": ("v = multiprocessing.Event()", "several processes (Event)"),
    "number between processes": ("v = multiprocessing.Value('i', 1)", "several processes (Synchronized)"),
    "pipe between processes": ("v = multiprocessing.Pipe()", "several processes (Connection)"),
    "process": ("v = multiprocessing.Process(target=print)", "several processes (Process)"),
    "structure": ("import ctypes\nclass v(ctypes.Structure): _fields_ = [('x', ctypes.c_int)]", "ctypes"),
    "csv reader": (
        "import csv, io; v = csv.reader(io.StringIO('a'))",
        "a value of type Dialect cannot be saved; keep what it is made from, and make it again",
    ),
    "raises": ("class R:\n    def __reduce__(self): raise ValueError('not me')\nv = R()", "ValueError: not me"),
    "raises anything": ("class A:\n    def __getstate__(self): raise SystemExit('bye')\nv = A()", "SystemExit"),
    "answers nonsense": ("class N:\n    def __reduce__(self): return 5\nv = N()", "__reduce__"),
    "never ends": ("class I:\n    def __reduce__(self): return I, (I(),)\nv = I()", "recursion"),
    "recurses": ("class G:\n    def __getstate__(self): return self.__getstate__()\nv = G()", "recursion"),
    "logging handler": ("import logging; v = logging.StreamHandler()", "lock"),
    "popen": ("import subprocess, sys; v = subprocess.Popen([sys.executable, '-c', '']); v.wait()", "lock"),
}  # fmt: skip
"""Code that makes `v`, and a word of the reason."""


def entry(execution: ExecutionResult, name: str) -> NotSaved | None:
    return next((entry for entry in execution.not_saved if entry.name == name), None)


async def test_each_kind_is_reported_and_costs_nothing_else(sessions: Sessions) -> None:
    """The reason names the kind, what the same cell made is saved, and nothing comes back inert."""
    wrong = []
    await sessions.run("kept = []")
    for count, (kind, (code, word)) in enumerate(VALUES.items(), 1):
        execution = await sessions.run(f"{code}\nkept.append(len(kept)); also = [len(kept)]")
        found = entry(execution, "v")
        if found is None or word.lower() not in found.reason.lower() or execution.status != "ok":
            wrong.append(f"{kind}: {execution.output.error} {found}")
        if {"kept", "also"} & {each.name for each in execution.not_saved} or "kept" not in execution.saved.changed:
            wrong.append(f"{kind}: the rest was not saved, but {execution.saved}")
        if count % 12 == 0:
            await sessions.kill()
            if await sessions.value("(len(kept), also, 'v' in globals())") != f"({count}, [{count}], False)":
                wrong.append(f"{kind}: the rest did not come back")
            await sessions.run("import threading, tempfile, types, sys, weakref, asyncio, io, numpy as np")
            await sessions.run("import concurrent.futures, multiprocessing")
            await sessions.run("class W: pass\nw = W()")
    assert not wrong, "\n" + "\n".join(wrong)


DEEP = {
    "v['a'][2]['link']": "v = {'a': [1, 2, {'link': S()}]}",
    "v.client.link": "class C: pass\nv = C(); v.client = C(); v.client.link = S()",
    "v.<closure link>": "def make():\n    link = S()\n    return lambda: link\nv = make()",
    "v.<default>": "def v(link=S()): pass",
    "v.<default link>": "def v(*, link=S()): pass",
    "v.__self__.link": "class D:\n    def go(self): pass\nd = D(); d.link = S(); v = d.go",
    "v.link": "class v: link = S()",
    "v.keywords['link']": "import functools; v = functools.partial(print, link=S())",
    "v.a": "class T:\n    __slots__ = ('a',)\nv = T(); v.a = S()",
    "v[0].link": "import collections\nv = collections.deque([C()]); v[0].link = S()",
    "v.__wrapped__.<closure link>": "v = functools.lru_cache(make())",
    "v.__cause__.link": "e = KeyError(); e.link = S(); v = ValueError(); v.__cause__ = e",
    "v['x'].link": "v = collections.defaultdict(list, x=C()); v['x'].link = S()",
    "v[1, 0]": "import numpy as np\nv = np.empty((2, 1), dtype=object); v[1, 0] = S()",
    "v['o'][1]": "import pandas as pd\nv = pd.DataFrame({'o': [[1], S()]})",
    "v.steps[0].func.<closure link>": "v = C(); v.steps = [functools.partial(make())]",
}
"""The path to the trouble, and code that makes `v`."""


async def test_the_path_leads_to_the_trouble(sessions: Sessions) -> None:
    """However deep it lies, the first part on the way that explains it is named."""
    await sessions.run("import socket\ndef S(): return socket.socket(socket.AF_UNIX)\nclass C: pass")
    wrong = []
    for path, code in DEEP.items():
        found = entry(await sessions.run(code), "v")
        if found is None or not found.path.startswith(path) or "a network connection" not in found.reason:
            wrong.append(f"{path}: {found}")
    assert not wrong, "\n" + "\n".join(wrong)


ENDED = {
    "task": ("t = asyncio.create_task(asyncio.sleep({s}, 7))", "await t", "is done"),
    "future": ("t = asyncio.get_running_loop().create_future()", "t.set_result(7)", "is done"),
    "failed future": ("t = asyncio.get_running_loop().create_future()", "t.set_exception(KeyError(7))", "is done"),
    "cancelled task": (
        "t = asyncio.create_task(asyncio.sleep(600))",
        "t.cancel()\nawait asyncio.wait([t])",
        "cancelled",
    ),
    "task in Python": ("t = asyncio.tasks._PyTask(asyncio.sleep({s}, 7))", "await t", "is done"),
    "future of a thread": ("t = concurrent.futures.Future()", "t.set_result(7)", "is done"),
    "own kind": ("class Own(asyncio.Future):\n    def done(self): 1 / 0\nt = Own()", "t.set_result(7)", "is done"),
    "program": (
        "t = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)",
        "t.stdin.close(); _ = t.wait()",
        "has ended",
    ),
    "thread": (
        "e = threading.Event(); t = threading.Thread(target=e.wait); t.start()",
        "e.set(); t.join()",
        "has ended",
    ),
}
"""Code that makes what comes to an end as `t`, code that ends it, and how that is said."""


async def test_what_has_ended_is_not_called_running(sessions: Sessions) -> None:
    """Nor the other way round; and what is half made breaks nothing."""
    await sessions.run("import asyncio, concurrent.futures, subprocess, sys, threading")
    wrong = []
    for kind, (begin, end, word) in ENDED.items():
        before = entry(await sessions.run(begin.format(s=600)), "t")
        after = entry(await sessions.run(f"{begin.format(s=0)}\n{end}"), "t")
        if before is None or word in before.reason or before.path != "t":
            wrong.append(f"{kind}: {before}")
        if after is None or word not in after.reason or "running" in after.reason or after.path != "t":
            wrong.append(f"{kind}: {after}")
    for half in ("threading.Thread", "subprocess.Popen", "concurrent.futures.Future"):
        made = await sessions.run(f"class Half({half}):\n    def __init__(self): self.s = sys._getframe()\nt = Half()")
        if (found := entry(made, "t")) is None or "stack frame" not in found.reason:
            wrong.append(f"{half}: {found}")
    assert not wrong, "\n" + "\n".join(wrong)


async def test_a_value_that_hangs_is_stopped_and_costs_nothing_else(sessions: Sessions) -> None:
    """Whether it sleeps, computes, or catches what should stop it."""
    code = """
import time
class Sleeps:
    def __reduce__(self): time.sleep(3600)
class Computes:
    def __getstate__(self):
        while True: pass
class Catches:
    tries = 0
    def __getstate__(self):
        while True:
            try: time.sleep(3600)
            except BaseException: pass
            if (n := globals()['count'].append(1)) or len(count) > 1: raise ValueError
count = []
"""
    await sessions.run(code, limits=Limits(save_deadline_s=0.5))
    execution = await sessions.run("s, c, k = Sleeps(), Computes(), Catches(); fine = [1]")
    assert execution.status == "ok"
    assert {each.name for each in execution.not_saved} == {"s", "c", "k"}
    assert "took longer than 0.5 s" in entry(execution, "s").reason  # type: ignore[union-attr]
    assert "fine" in execution.saved.created
    await sessions.kill()
    assert await sessions.value("fine") == "[1]"


@pytest.mark.parametrize("limit", [1000, 1_000_000])
async def test_deep_structures_are_saved_or_reported(sessions: Sessions, limit: int) -> None:
    """Whatever the recursion limit of the session: the kernel never dies of them, and nothing else is lost."""
    await sessions.run(f"import sys; sys.setrecursionlimit({limit})\nclass Node: pass")
    code = """
deep, nodes, keyed, far = [], Node(), {}, []
for i in range(5000): deep = [deep]
for i in range(5000): n = Node(); n.next = nodes; nodes = n
for i in range(400): keyed = {i: keyed}
for i in range(100_000): far = [far]
del n
fine = [1]
"""
    execution = await sessions.run(code)
    assert execution.status == "ok"
    assert {each.name for each in execution.not_saved} == {"far"}
    assert all("nested too deep" in each.reason for each in execution.not_saved)
    for _ in range(2):
        await sessions.kill()
        execution = await sessions.run("0")
        lost = {each.name for each in execution.not_saved}
        assert await sessions.value("fine, len(keyed), hasattr(nodes.next.next, 'next')") == "([1], 1, True)"
        assert await sessions.value("len(deep)") == "1"
        assert lost == set()
