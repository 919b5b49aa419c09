"""What was reported as saved can be loaded: where it cannot, the reply says so before anything was lost."""

from __future__ import annotations

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


CANNOT = {
    "raises as it is filled": "class v0:\n    def __setstate__(self, s): raise ValueError('not me')\nv = v0(); v.x = 1",
    "is made by a function that raises": (
        "import os\ndef make(): raise OSError('gone')\nclass M:\n    def __reduce__(self): return make, ()\nv = M()"
    ),
    "takes arguments that are not kept": (
        "class E(Exception):\n    def __init__(self, a, b): super().__init__(a)\n"
        "    def __reduce__(self): return E, self.args\nv = E(1, 2)"
    ),
    "ends the process": "class Q:\n    def __setstate__(self, s): os.abort()\nimport os\nv = Q(); v.x = 1",
    "ends at once": "import os\nclass X:\n    def __setstate__(self, s): os._exit(1)\nv = X(); v.x = 1",
    "leaves": "class L:\n    def __setstate__(self, s): raise SystemExit\nv = L(); v.x = 1",
    "a mock that was called": "from unittest import mock\nv = mock.Mock(); v(1)",
    "a call of a mock": "from unittest import mock\nv = mock.call(1)",
    "in a list": "class I:\n    def __setstate__(self, s): raise ValueError('not me')\nv = [1, I()]; v[1].x = 1",
    "in a long list": (
        "class H:\n    def __setstate__(self, s): raise ValueError('not me')\n"
        "v = list(range(9000)); v[5000] = H(); v[5000].x = 1"
    ),
    "in a closure": (
        "class K:\n    def __setstate__(self, s): raise ValueError('not me')\n"
        "def outer():\n    k = K(); k.x = 1\n    return lambda: k\nv = outer()"
    ),
    "of a class with its own reduction in copyreg": (
        "import copyreg\nclass C: pass\ndef back(): raise KeyError('no')\n"
        "copyreg.pickle(C, lambda c: (back, ()))\nv = C()"
    ),
    "a library of C": "import ctypes\nv = ctypes.CDLL(None)",
    "asks the frames of its caller": (
        "import sys\nclass F:\n"
        "    def __setstate__(self, s): self.__dict__ = s; eval(self.name, sys._getframe(1).f_locals)\n"
        "here = 1\nv = F(); v.name = 'here + local'"
    ),
}


@pytest.mark.parametrize("code", CANNOT.values(), ids=CANNOT)
async def test_what_cannot_be_loaded_is_told_before_it_is_lost(sessions: Sessions, code: str) -> None:
    """The reply to the cell that made it says so; what stands beside it is saved."""
    execution = await sessions.run(f"beside = {{'a': [1]}}\n{code}")
    assert execution.status == "ok", execution.output.error
    told = {entry.name: entry.reason for entry in execution.not_saved}
    assert "v" in told, told
    assert "loaded again" in told["v"]
    assert "beside" in execution.saved.created
    await sessions.kill()
    assert await sessions.value("beside") == "{'a': [1]}"
    lost = await sessions.run("v")
    assert lost.status == "error"
    assert lost.output.error is not None
    assert "'v'" in lost.output.error.message


async def test_what_a_value_that_cannot_be_loaded_shares_is_kept_alone(sessions: Sessions) -> None:
    """It does not take along the list that it refers to."""
    code = "class S:\n    def __setstate__(self, s): raise ValueError('not me')\nrows = [1, 2]\nv = S(); v.rows = rows"
    execution = await sessions.run(code)
    assert [entry.name for entry in execution.not_saved] == ["v"]
    await sessions.kill()
    assert await sessions.value("rows") == "[1, 2]"


async def test_a_value_that_becomes_one_that_cannot_be_loaded_is_told(sessions: Sessions) -> None:
    """It was saved when it could be."""
    first = await sessions.run("from unittest import mock\nv = mock.Mock()")
    assert not first.not_saved
    then = await sessions.run("_ = v(1)")
    assert [entry.name for entry in then.not_saved] == ["v"]
    again = await sessions.run("n = 1")
    assert "n" in again.saved.created
    back = await sessions.run("v = mock.Mock()")
    assert not back.not_saved
    await sessions.kill()
    assert await sessions.value("v.called") == "False"


LATER = {
    "by its state": "class P:\n    def __setstate__(self, s):\n        if s['x'] < 0: raise ValueError('too cold')\n"
    "        self.__dict__ = s\n",
    "by its arguments": "class P:\n    def __init__(self, x=1):\n        self.x = x\n        assert x >= 0\n"
    "    def __reduce__(self): return P, (self.x,)\n",
    "by a base of it": "class Q:\n    def __setstate__(self, s):\n        if s['x'] < 0: os._exit(3)\n"
    "        self.__dict__ = s\nclass P(Q): pass\n",
}


@pytest.mark.parametrize("kind", LATER.values(), ids=LATER)
async def test_one_that_can_be_loaded_says_nothing_of_others_that_the_session_decides_on(
    sessions: Sessions, kind: str
) -> None:
    """It is told, and what shares with it comes back; when it can be loaded again, it is saved again."""
    assert not (await sessions.run(f"import os\n{kind}good = P(); good.x = 1; shared = [good]")).not_saved
    execution = await sessions.run("bad = P(); bad.x = -1; beside = [shared]")
    assert [entry.name for entry in execution.not_saved] == ["bad"]
    execution = await sessions.run("good.x = -2")
    assert {"good", "shared"} <= {entry.name for entry in execution.not_saved}
    await sessions.run("good.x = 5; shared, beside")
    for _ in range(2):
        await sessions.kill()
        assert await sessions.value("good.x, shared[0] is good, beside[0] is shared") == "(5, True, True)"
        execution = await sessions.run("worse = P(); worse.x = -3")
        assert [entry.name for entry in execution.not_saved] == ["worse"]
        await sessions.run("del worse")


EMPTY = {
    "attributes": "v.x = shared",
    "an attribute in a slot": "v.slot = shared",
    "attributes of another one": "w = B(); w.x = shared; del v; v = w",
}


@pytest.mark.parametrize("change", EMPTY.values(), ids=EMPTY)
async def test_one_that_has_nothing_to_load_yet_says_nothing_of_its_kind(sessions: Sessions, change: str) -> None:
    """Python does not call `__setstate__` then. What it gets later is tried, and nothing else is lost with it."""
    await sessions.run(
        "class A: __slots__ = ('slot',)\n"
        "class B(A):\n    def __setstate__(self, s): raise ValueError('not me')\nv = B(); shared = [1]"
    )
    execution = await sessions.run(change)
    assert "v" in [entry.name for entry in execution.not_saved]
    await sessions.kill()
    assert await sessions.value("shared") == "[1]"


async def test_trying_leaves_no_trace(sessions: Sessions) -> None:
    """What loading does, it does elsewhere: nothing is printed, counted or left running here."""
    code = (
        "import os, threading\nmade = []\nclass T:\n    def __init__(self): self.x = 1\n"
        "    def __setstate__(self, s): made.append(1); print('loading'); os.write(1, b'low'); self.x = 2\n"
        "v = T()\nbefore = (len(os.listdir('/proc/self/fd')), threading.active_count())"
    )
    execution = await sessions.run(code)
    assert not execution.not_saved
    assert execution.output.stdout == ""
    after = await sessions.run("(made, v.x, before == (len(os.listdir('/proc/self/fd')), threading.active_count()))")
    assert after.output.result == "([], 1, True)"
    assert after.output.stdout == ""
    with_children = await sessions.run("os.waitpid(-1, os.WNOHANG)")
    assert with_children.status == "error"  # no child is left
    await sessions.kill()
    assert await sessions.value("(made, v.x)") == "([1], 2)"


async def test_one_that_never_comes_back_keeps_no_reply(sessions: Sessions) -> None:
    """Nothing is known of it then; it is saved, as it was pickled."""
    code = "class W:\n    def __setstate__(self, s):\n        while True: pass\nv = W(); v.x = 1"
    execution = await sessions.run(code)
    assert execution.committed
    assert not execution.not_saved
    again = await sessions.run("v.x = 2\nw = W(); w.x = 3")
    assert again.committed
    assert await sessions.value("v.x, w.x") == "(2, 3)"


COME_BACK = {
    "limits of floats": ("import numpy as np\nv = np.finfo(float)", "(v.eps, v.dtype)"),
    "limits of integers": ("import numpy as np\nv = np.iinfo('i2')", "(v.max, v.min)"),
    "the version of Python": ("import sys\nv = sys.version_info", "(v[:2], v is sys.version_info)"),
    "flags of Python": ("import sys\nv = [sys.flags]", "v[0] is sys.flags"),
    "what a float is": ("import sys\nv = {'f': sys.float_info}", "v['f'].max"),
    "numbers of C": ("import ctypes\nv = ctypes.c_int(7)", "v.value"),
    "an array of C": ("import ctypes\nv = (ctypes.c_double * 3)(1, 2, 3)", "list(v)"),
    "a structured array of C": (
        "import ctypes\nv = ((ctypes.c_short * 2) * 2)((1, 2), (3, 4))",
        "[list(r) for r in v]",
    ),
}


@pytest.mark.parametrize(("code", "look"), COME_BACK.values(), ids=COME_BACK)
async def test_what_can_come_back_does(sessions: Sessions, code: str, look: str) -> None:
    """Nothing is told of it, and it is there."""
    execution = await sessions.run(code)
    assert not execution.not_saved
    before = await sessions.value(look)
    await sessions.kill()
    assert await sessions.value(look) == before


ATTRS = """
import attrs
import numpy as np
big = np.zeros(400_000)
def double(x): return 2 * x
@attrs.define
class Point:
    x: int = attrs.field(default=1, converter=double, validator=attrs.validators.instance_of(int))
    rest: "list[Other]" = attrs.Factory(list)
@attrs.frozen(order=True, cache_hash=True)
class Other:
    p: Point = attrs.field(eq=False, order=False)
    n: int = 0
class Child(Point):
    pass
p, o, c = Point(3), Other(Point(2), 5), Child(7)
p.rest.append(o)
table = {o: "here"}
"""


async def test_classes_that_a_library_gave_a_copy_of_the_namespace_come_back_small(sessions: Sessions) -> None:
    """Their methods hold what they name, not all that the session had."""
    await sessions.run("x = list(range(1000)); lock_like = 5")
    execution = await sessions.run(ATTRS)
    assert execution.status == "ok", execution.output.error
    assert not execution.not_saved
    sizes = await sessions.rows("SELECT name, size_bytes FROM names WHERE name IN ('Point', 'Other', 'Child')")
    assert all(size < 50_000 for _, size in sizes), sizes
    await sessions.kill()
    look = (
        "(p.x, c.x, o.n, p.rest[0] is o, table[Other(Point(1), 5)], Other(p, 1) < Other(p, 2), Point(4).x, big.shape)"
    )
    assert await sessions.value(look) == "(6, 14, 5, True, 'here', True, 8, (400000,))"
    wrong = await sessions.run("Point(2.5)")
    assert wrong.output.error is not None
    assert wrong.output.error.name == "TypeError"
    await sessions.run("@attrs.define\nclass Later(Point):\n    y: int = 0\nlater = Later(1, [], 9)")
    await sessions.kill()
    assert await sessions.value("(later.y, later.x, o.n)") == "(9, 2, 5)"


async def test_globals_that_the_session_keeps_stay_those_of_their_function(sessions: Sessions) -> None:
    """A dict that a name is bound to is not a copy that nobody knows."""
    await sessions.run(
        "g = dict(globals()); exec('n = 1\\ndef f():\\n    global n\\n    n += 1\\n    return n', g); f = g['f']"
    )
    await sessions.kill()
    assert await sessions.value("(f(), g['n'], f.__globals__ is g)") == "(2, 2, True)"


async def test_what_a_restore_has_loaded_is_not_tried_again(sessions: Sessions) -> None:
    """But a value that has changed is, if code of the session decides whether it can be loaded."""
    counted = (
        "class T:\n    def __setstate__(self, s): self.__dict__ = s; open('log', 'a').write('x')\nv = T(); v.x = 1"
    )
    await sessions.run(counted)
    assert await sessions.value("open('log').read()") == "'x'"  # the trial
    await sessions.kill()
    assert await sessions.value("open('log').read()") == "'xx'"  # the restore, and no trial
    await sessions.run("v.x = 2")
    assert await sessions.value("open('log').read()") == "'xxx'"
    assert await sessions.value("v.x, open('log').read()") == "(2, 'xxx')"
    await sessions.run("w = T()")
    assert await sessions.value("open('log').read()") == "'xxx'"


async def test_what_is_pickled_without_its_attributes_comes_back_with_them(sessions: Sessions) -> None:
    """A class may be pickled by what it was made of alone; what it had beside that is kept, if it can be."""
    source = (
        "class Bare:\n"
        "    def __new__(cls, size):\n"
        "        self = object.__new__(cls)\n"
        "        self.size = size\n"
        "        return self\n"
        "    def __init__(self, size):\n"
        "        self.log = []\n"
        "    def __getnewargs__(self):\n"
        "        return self.size,\n"
        "    def __getstate__(self):\n"
        "        return None\n"
        "class Busy(Bare):\n"
        "    def __init__(self, size):\n"
        "        self.work = (i for i in range(size))\n"
    )
    await sessions.run(f"open('bare.py', 'w').write({source!r})")
    execution = await sessions.run("import bare; b = bare.Bare(3); log = b.log; busy = bare.Busy(2)")
    assert not execution.not_saved
    await sessions.run("log.append(1)")
    await sessions.kill()
    assert await sessions.value("b.size, b.log, b.log is log, busy.size") == "(3, [1], True, 2)"
    await sessions.run("b.log.append(2); other = bare.Bare(4)")
    await sessions.kill()
    assert await sessions.value("b.log, log, other.log") == "([1, 2], [1, 2], [])"


async def test_what_is_evaluated_when_it_is_loaded_finds_the_names_of_the_session(sessions: Sessions) -> None:
    """As a formula of a model does, that looks for its functions in the frame of whoever loads it."""
    source = (
        "import sys\n"
        "class Model:\n"
        "    def __init__(self, formula, data):\n"
        "        self.formula, self.data = formula, data\n"
        "    def __setstate__(self, state):\n"
        "        self.__dict__.update(state)\n"
        "        self.result = eval(self.formula, sys._getframe(1).f_globals, {'data': self.data})\n"
    )
    await sessions.run(f"open('model.py', 'w').write({source!r})")
    await sessions.run("import model; data = [1, 2]; plain = model.Model('len(data)', data)")
    execution = await sessions.run("fit = model.Model('list(map(squared, data))', data)\ndef squared(x): return x * x")
    assert not execution.not_saved
    await sessions.kill()
    assert await sessions.value("fit.result, plain.result, data is fit.data is plain.data") == "([1, 4], 2, True)"
