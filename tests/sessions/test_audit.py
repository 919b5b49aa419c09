"""What code changes without naming it: stored at once where that is known, by an audit where it is not."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


async def missed(sessions: Sessions) -> int:
    """How many names audits had to store."""
    return int(sessions.metrics.value("missed_changes_total"))


async def audits(sessions: Sessions) -> int:
    """How many commits came from audits."""
    [[count]] = await sessions.rows("SELECT COUNT(*) FROM commits WHERE cause = 'audit'")
    return int(count)


async def until_audited(sessions: Sessions, count: int) -> None:
    """Wait for the commit of an audit."""
    async with asyncio.timeout(30):
        while await audits(sessions) < count:
            await asyncio.sleep(0.05)


HIDDEN = """
class Keeper:
    def __init__(self, target): self.target = target
    def __getstate__(self): return {}
    def __setstate__(self, state): self.target = None
    def poke(self): self.target.append(len(self.target))
a = []
k = Keeper(a)
"""


@pytest.mark.parametrize(
    ("before", "code", "expression", "expected"),
    [
        ("a = [1]\ndef f(): a.append(2)", "f()", "a", "[1, 2]"),
        ("a = [1]\ndef f(): a.append(2)\ndef g(): f()\nd = {'g': g}", "d['g']()", "a", "[1, 2]"),
        ("a = [1]\nclass P:\n    def go(self): a.append(2)\np = P(); del P", "p.go()", "a", "[1, 2]"),
        ("a = [1]\nclass P:\n    def __del__(self): a.append(2)\np = P()", "del p", "a", "[1, 2]"),
        ("a = [1]; b = a", "b.append(2); del b", "a", "[1, 2]"),
        ("a = [1]; m = a.append", "m(2)", "a", "[1, 2]"),
        ("a = [1]\ndef gen():\n    while True:\n        a.append(2)\n        yield\ng = gen()",
         "next(g)", "a", "[1, 2]"),
        ("a = [1]\ndef gen(x):\n    while True:\n        x.append(2)\n        yield\ng = gen(a)",
         "next(g)", "a", "[1, 2]"),
        ("a = [1]; u = [open('f', 'w'), a]", "u[1].append(2)", "a", "[1, 2]"),
        ("import functools\na = [1]\nf = functools.partial(list.append, a)", "f(2)", "a", "[1, 2]"),
        ("a = [1]", "eval('a.append(2)')", "a", "[1, 2]"),
        ("a = [1]", "globals()['a'].append(2)", "a", "[1, 2]"),
        ("a = [1]", "[x for x in [0] if a.append(2)]", "a", "[1, 2]"),
        ("a = [1]", "try:\n    a.append(2); 1/0\nexcept ZeroDivisionError: pass", "a", "[1, 2]"),
        ("a = [1]\n[a]", "_[0].append(2)", "a", "[1, 2]"),
        ("a = [1]\n[a]", "Out[2][0].append(2)", "a", "[1, 2]"),
        ("a = [1]", "%time a.append(2)", "a", "[1, 2]"),
        ("import logging\nseen = []\nclass H(logging.Handler):\n    def emit(self, r): seen.append(1)\n"
         "logging.getLogger().addHandler(H())", "logging.warning('x')", "seen", "[1]"),
        ("open('m.py', 'w').write('kept = []\\ndef poke(): kept[0].append(2)')\nimport sys; sys.path.insert(0, '.')\n"
         "import m; a = [1]; m.kept.append(a)", "m.poke()", "a", "[1, 2]"),
        ("a = [1]\nimport sys\nframe = lambda: sys._getframe(1)", "frame().f_globals['a'].append(2)", "a", "[1, 2]"),
        ("a = [1]\ndef f(b=a): b.append(2)", "f()", "a", "[1, 2]"),
        ("a = [1]\ndef make(x):\n    return lambda: x.append(2)\nf = make(a)", "f()", "a", "[1, 2]"),
        ("class C: n = 0\nc = C()", "type(c).n = 5", "C.n", "5"),
        ("import numpy as np\na = np.zeros(3); v = a[1:]", "v[0] = 7", "a.tolist()", "[0.0, 7.0, 0.0]"),
        ("def deco(f):\n    def inner(): inner.n += 1\n    inner.n = 0\n    return inner\n@deco\ndef f(): pass", "f()",
         "f.n", "1"),
        ("import numpy as np\na = np.zeros(2); it = a.flat", "it[0] = 7", "a.tolist()", "[7.0, 0.0]"),
        ("a = bytearray(b'xy'); view = memoryview(a)", "view[0] = 65", "a", "bytearray(b'Ay')"),
        ("a = [1]\nasync def f(x): x.append(2)\nc = f(a)", "await c", "a", "[1, 2]"),
        ("a = []\ndef note(*_): a.append(1)\nget_ipython().events.register('pre_run_cell', note)", "1", "a", "[1, 1]"),
        ("import functools\na = [1]\nf = functools.partial(eval, 'a.append(2)', None)", "f()", "a", "[1, 2]"),
        ("a = [1]; m = map(eval, ['a.append(2)'])", "next(m)", "a", "[1, 2]"),
        ("a = [1]; d = {'f': eval, 't': 'a.append(2)'}", "d['f'](d['t'])", "a", "[1, 2]"),
        ("import operator\na = [1]; operator.box = a", "import operator\noperator.box.append(2)", "a", "[1, 2]"),
        ("import math\na = [1]\ndef f(): a.append(2)\nmath.hook = f", "import math\nmath.hook()", "a", "[1, 2]"),
        ("import math\na = [1]\ndef f(): a.append(2)\nsetattr(math, 'hook', f)", "import math\nmath.hook()", "a",
         "[1, 2]"),
        ("import builtins\na = [1]\ndef p(*_): a.append(2)\nbuiltins.print = p", "print(3)", "a", "[1, 2]"),
        ("import warnings\na = [1]\ndef f(*_, **__): a.append(2)\nwarnings.showwarning = f", "warnings.warn('x')", "a",
         "[1, 2]"),
        ("import codecs\na = [1]\ndef f(error): a.append(2); return '', error.end\ncodecs.register_error('mine', f)",
         "b'\\xff'.decode('utf8', 'mine')", "a", "[1, 2]"),
        ("import weakref\nclass C: pass\na = [1]; x = C(); weakref.finalize(x, a.append, 2)", "del x", "a", "[1, 2]"),
        ("import signal, os\na = [1]\nsignal.signal(signal.SIGUSR1, lambda *_: a.append(2))",
         "import os\nos.kill(os.getpid(), 10)", "a", "[1, 2]"),
        ("import gc\na = []\ngc.callbacks.append(lambda *_: a or a.append(1))", "import gc\ngc.collect()", "a", "[1]"),
        ("a = [1]\nget_ipython().set_custom_exc((KeyError,), lambda *_, **__: a.append(2))", "{}[1]", "a", "[1, 2]"),
        ("import threading, time\na = [1]\ndef f(): time.sleep(0.5); a.append(2)\nthreading.Thread(target=f).start()",
         "import time\ntime.sleep(1)", "a", "[1, 2]"),
    ],
)  # fmt: skip
async def test_a_change_by_way_of_other_names_is_in_the_commit_of_the_cell(
    sessions: Sessions, before: str, code: str, expression: str, expected: str
) -> None:
    """No audit has a chance: the kill comes with the reply."""
    await sessions.run("1")
    execution = await sessions.run(before)
    assert execution.status == "ok", execution.output.error
    execution = await sessions.run(code)
    assert execution.status == ("error" if "custom_exc" in before else "ok"), execution.output.error
    await sessions.kill()
    assert await sessions.value(expression) == expected
    assert await missed(sessions) == 0


async def test_what_no_analysis_can_know_is_found_by_an_audit_and_counted(sessions: Sessions) -> None:
    """An object that holds another and does not say so when it is saved."""
    await sessions.run(HIDDEN)
    execution = await sessions.run("k.poke()")
    assert "a" not in execution.saved.changed
    await until_audited(sessions, 1)
    async with asyncio.timeout(30):
        while not await missed(sessions):  # counted after the store has it
            await asyncio.sleep(0.05)
    assert await missed(sessions) == 1
    await sessions.kill()
    assert await sessions.value("a") == "[0]"


async def test_threads_and_tasks_are_covered_between_cells_and_not_counted(sessions: Sessions) -> None:
    """They change state when no cell runs."""
    await sessions.run("import threading, time, asyncio; a, b = [], []; go = threading.Event()")
    await sessions.run(
        "t = threading.Thread(target=lambda: (time.sleep(1), a.append(1), time.sleep(60)), daemon=True); t.start()"
    )
    await until_audited(sessions, 1)
    await sessions.kill()
    assert await sessions.value("a") == "[1]"
    await sessions.run("async def later():\n    await asyncio.sleep(1)\n    b.append(2)")
    before = await audits(sessions)
    await sessions.run("task = asyncio.get_running_loop().create_task(later()); None")
    await until_audited(sessions, before + 1)
    await sessions.kill()
    assert await sessions.value("b") == "[2]"
    assert await missed(sessions) == 0


async def test_a_session_is_audited_before_it_is_put_to_sleep(sessions: Sessions) -> None:
    """At once, without waiting for quiet."""
    await sessions.run(HIDDEN)
    await sessions.run("k.poke()")
    await sessions.manager.loaded()["s"].hibernate()
    assert await sessions.value("a") == "[0]"
    assert await missed(sessions) == 1


async def test_binding_a_name_to_a_value_of_another_is_told_as_a_change(sessions: Sessions) -> None:
    """The value is saved already, the name is not."""
    await sessions.run("a, b = [1], [2]")
    execution = await sessions.run("b = a")
    assert execution.saved.changed == ("b",)
    await sessions.run("c = open('f', 'w')")
    execution = await sessions.run("c = a")
    assert [*execution.saved.created, *execution.saved.changed] == ["c"]


async def test_an_audit_that_a_cell_breaks_off_begins_again(sessions: Sessions) -> None:
    """What it had found by then is not forgotten."""
    await sessions.run(HIDDEN)
    await sessions.run("big = {n: [n] for n in range(300_000)}")
    await sessions.run("k.poke()")
    for _ in range(5):
        await asyncio.sleep(0.27)  # about when an audit begins
        await sessions.run("1")
    await until_audited(sessions, 1)
    await sessions.kill()
    assert await sessions.value("a") == "[0]"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import operator\na = [1]\noperator.box = a", "operator.box"),
        ("import math as m\nm.count = 5", "math.count"),
        ("import math\ndef f(): pass\nsetattr(math, 'hook', f)", "math.hook"),
    ],
)
async def test_an_attribute_of_a_module_is_told_to_be_not_saved(sessions: Sessions, code: str, name: str) -> None:
    """When it is set, and once more after it has been lost; not with every cell, and for no other attribute."""
    await sessions.run("from math import pi, sin")
    execution = await sessions.run(code)
    [entry] = execution.not_saved
    assert (entry.name, entry.path) == (name, name)
    assert "attributes of modules are not saved" in entry.reason
    assert not (await sessions.run("1")).not_saved
    await sessions.kill()
    execution = await sessions.run("x = 1")
    assert execution.restored is not None
    assert [entry.name for entry in execution.restored.not_restored] == [name]
    assert not execution.saved.deleted
    await sessions.kill()
    execution = await sessions.run("x")
    assert execution.restored is not None
    assert not execution.restored.not_restored


async def test_an_attribute_that_is_deleted_again_is_forgotten(sessions: Sessions) -> None:
    """And what a session sets that is kept anyway is not told."""
    await sessions.run("import math, sys, os")
    assert (await sessions.run("math.count = [5]")).not_saved
    await sessions.run("del math.count")
    assert not (await sessions.run("sys.path = [*sys.path, 'x']; os.environ['A'] = 'b'; sys.stdout = None")).not_saved
    await sessions.kill()
    execution = await sessions.run("sys.path[-1]")
    assert execution.restored is not None
    assert not execution.restored.not_restored
