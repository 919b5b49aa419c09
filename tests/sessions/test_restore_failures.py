"""What cannot be loaded costs only itself: it is reported, its bytes stay, and its name says why."""

from __future__ import annotations

import functools
import json
import platform

import pytest

from kernelrepl.model import ExecutionResult, Limits
from kernelrepl.store.database import Database
from tests.conftest import Sessions, change

pytestmark = pytest.mark.anyio


LAST_WORDS = {"_exit": "import os; os._exit(9)", "kill -9": "import os; os.kill(os.getpid(), 9)"}


def spared(code: str) -> str:
    """Code whose values can be loaded until the session is armed: what cannot be loaded at once is not saved."""
    unarmed = "if not __import__('os').path.exists('armed'): return self.__dict__.update(state)"
    return code.replace("__(self, state): ", f"__(self, state):\n        {unarmed}\n        ")


async def arm(sessions: Sessions) -> None:
    """From now on loading fails, and the kernel is gone."""
    await sessions.run("open('armed', 'w').close()")
    await sessions.kill()


def not_restored(execution: ExecutionResult) -> dict[str, str]:
    """Why each name did not come back."""
    assert execution.restored is not None
    return {entry.name: entry.reason for entry in execution.restored.not_restored}


async def failure(sessions: Sessions, code: str) -> str:
    """The message of the NameError that code raises. Fails the test if it raises none."""
    execution = await sessions.run(code)
    assert execution.output.error is not None
    assert execution.output.error.name == "NameError"
    return execution.output.error.message


async def write(sessions: Sessions, statement: str) -> None:
    """Change the database behind the keeper's back."""
    await change(sessions.store, lambda db: db.execute(statement))


async def names(sessions: Sessions) -> list[str]:
    return [variable.name for variable in await sessions.manager.list_variables("s")]


# Files that go with the kernel

IN_TEMPORARY = "import os, tempfile; os.chdir(tempfile.gettempdir())\n"


@pytest.mark.parametrize("end", ["kill", "hibernate"])
async def test_temporary_files_that_are_gone_are_told(sessions: Sessions, end: str) -> None:
    """With their count and some names, once; also those of the cell before last, and not those that code removed."""
    await sessions.run(IN_TEMPORARY + "for n in range(7): open(f'out{n}.csv', 'w').close()\nos.mkdir('parts')")
    await sessions.run("for n in (0, 6): os.remove(f'out{n}.csv')\nopen('z.bin', 'w').close()")
    await sessions.run("x = 1")
    for told in (
        "its files went with the kernel, 7 in all: out1.csv, out2.csv, out3.csv, out4.csv, out5.csv, …; "
        "the working directory is what stays",
        None,
    ):
        if end == "kill":
            await sessions.kill()
        else:
            await sessions.manager.loaded()["s"].hibernate()
        execution = await sessions.run("len(os.listdir()), x")
        assert execution.output.result is not None
        assert execution.output.result.endswith(", 1)")
        found = not_restored(execution)
        assert list(found.values()) == ([] if told is None else [told])
    await sessions.run("open('again', 'w').close()")
    await sessions.kill()
    assert list(not_restored(await sessions.run("x")).values()) == [
        "its files went with the kernel, 1 in all: again; the working directory is what stays"
    ]


@pytest.mark.parametrize(
    "code",
    [
        "x = 1",
        f"{IN_TEMPORARY}open('brief', 'w').close(); os.remove('brief')",
        "import tempfile; f = tempfile.NamedTemporaryFile(); f.close(); del f",
        f"{IN_TEMPORARY}os.makedirs('.cache/library', exist_ok=True)",
        "import matplotlib.pyplot as plt; plt.plot([1]); plt.show()",
    ],
)
async def test_temporary_files_that_nobody_misses_are_not_told(sessions: Sessions, code: str) -> None:
    """Neither those that their own cell has removed, nor caches."""
    await sessions.run(code)
    await sessions.kill()
    execution = await sessions.run("1")
    assert execution.restored is None or not_restored(execution) == {}


async def test_temporary_files_of_any_number_and_name(sessions: Sessions) -> None:
    """What is kept and told of them has an end, and is text."""
    await sessions.run(f"{IN_TEMPORARY}open(b'\\xff\\x1b' + b'a' * 200, 'w').close(); open('\\n', 'w').close(); x = 1")
    await sessions.kill()
    [told] = not_restored(await sessions.run("x")).values()
    assert "2 in all: \n, \\udcff\x1b" in told
    assert len(told) < 300
    await sessions.run("for n in range(3000): open(f'{n:04}', 'w').close()")
    await sessions.kill()
    [told] = not_restored(await sessions.run("x")).values()
    assert "1000 or more in all: " in told


# Loading that ends the kernel


@pytest.mark.parametrize("end", LAST_WORDS)
async def test_what_kills_the_kernel_while_it_loads_is_skipped(sessions: Sessions, end: str) -> None:
    """The call that wakes the session gets a kernel with everything else, and is told what is missing and why."""
    await sessions.run(
        spared(
            f"class Bomb:\n    def __setstate__(self, state): {LAST_WORDS[end]}\nbomb = Bomb(); bomb.x = 1\n"
            "a = 1; b = [a]\ndef f(): return b"
        )
    )
    await arm(sessions)
    execution = await sessions.run("a, b, f() is b, Bomb.__name__")
    assert execution.output.result == "(1, [1], True, 'Bomb')"
    assert execution.restored is not None
    assert set(execution.restored.names) == {"a", "b", "f", "Bomb"}
    [entry] = execution.restored.not_restored
    assert (entry.name, entry.type) == ("bomb", "Bomb")
    assert entry.reason.startswith("the kernel died while loading it (it ")
    message = await failure(sessions, "bomb.x")
    assert "name 'bomb' (a Bomb) is stored but could not be restored: " in message
    assert entry.reason in message
    assert sorted(await names(sessions)) == ["Bomb", "a", "b", "bomb", "f"]


async def test_what_killed_a_kernel_is_not_tried_again(sessions: Sessions) -> None:
    """Nor is it forgotten: the next start reports it as well, with the same reason."""
    await sessions.run(
        spared("class Bomb:\n    def __setstate__(self, state): import os; os._exit(9)\nbomb = Bomb(); bomb.x = 1")
    )
    await arm(sessions)
    first = await sessions.run("y = 1")
    await sessions.kill()
    second = await sessions.run("y")
    assert second.output.result == "1"
    assert not_restored(second) == not_restored(first)
    assert [
        reason for (reason,) in await sessions.rows("SELECT blocked FROM components WHERE blocked IS NOT NULL")
    ] == [not_restored(first)["bomb"]]


async def test_two_that_kill_are_both_found(sessions: Sessions) -> None:
    """In one call."""
    await sessions.run(
        spared(
            "class Bomb:\n    def __setstate__(self, state): import os; os._exit(9)\n"
            "one = Bomb(); one.x = 1; two = Bomb(); two.x = 2; rest = 3"
        )
    )
    await arm(sessions)
    execution = await sessions.run("rest")
    assert execution.output.result == "3"
    assert set(not_restored(execution)) == {"one", "two"}


async def test_a_kernel_that_somebody_kills_while_it_loads_costs_nothing(sessions: Sessions) -> None:
    """Once may be bad luck: what it was loading is tried again before it is skipped."""
    await sessions.run(
        "from pathlib import Path\nmark = Path('mark').absolute()\n"
        "class Unlucky:\n    def __setstate__(self, state):\n        import os\n        self.__dict__.update(state)\n"
        "        if not self.mark.exists():\n            self.mark.touch(); os.kill(os.getpid(), 9)\n"
        "unlucky = Unlucky(); unlucky.mark = mark"
    )
    await sessions.run("mark.unlink()")
    await sessions.kill()
    execution = await sessions.run("unlucky.mark == mark, mark.exists()")
    assert execution.output.result == "(True, True)"
    assert not_restored(execution) == {}


# Loading that raises


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("raise ValueError('bad state')", "loading it failed with ValueError: bad state"),
        ("raise SystemExit(3)", "loading it failed with SystemExit: 3"),
        ("raise KeyboardInterrupt", "loading it failed with KeyboardInterrupt"),
        ("raise MemoryError", "loading it failed with MemoryError"),
        ("return self.__setstate__(state)", "loading it failed with RecursionError"),
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "loading it failed with Mute"),
    ],
)
async def test_what_raises_while_it_loads_is_skipped(sessions: Sessions, statement: str, expected: str) -> None:
    """Whatever it raises."""
    await sessions.run(
        spared(
            f"class Thorn:\n    def __setstate__(self, state): {statement}\nthorn = Thorn(); thorn.x = 1; rest = [2]"
        )
    )
    await arm(sessions)
    execution = await sessions.run("rest")
    assert execution.output.result == "[2]"
    assert set(not_restored(execution)) == {"thorn"}
    assert not_restored(execution)["thorn"].startswith(expected)
    assert expected in await failure(sessions, "thorn")


async def test_what_refers_to_something_that_fails_says_so(sessions: Sessions) -> None:
    """A class that cannot be loaded takes its instances and subclasses along, and nobody else."""
    await sessions.run(
        spared(
            "class Thorn:\n    def __setstate__(self, state): raise ValueError('bad state')\n"
            "class Rose: pass\nthorn = Thorn(); thorn.x = 1; Rose.thorn = thorn; del thorn\n"
            "class Tea(Rose): pass\nrose = Rose(); tea = [Tea()]\ndef plant(): return Rose()\nrest = 1"
        )
    )
    await arm(sessions)
    execution = await sessions.run("rest")
    assert execution.output.result == "1"
    lost = not_restored(execution)
    assert set(lost) == {"Rose", "Tea", "rose", "tea"}
    assert lost["Rose"] == "loading it failed with ValueError: bad state"
    for name in ("Tea", "rose", "tea"):
        assert lost[name].startswith("it uses something that could not be restored: ")
        assert lost[name].endswith("ValueError: bad state")
    assert "could not be restored" in await failure(sessions, "plant()")


async def test_what_failed_stays_stored_with_all_it_needs(sessions: Sessions) -> None:
    """Once the cause is gone it comes back, whatever the session did meanwhile."""
    await sessions.run(
        "from pathlib import Path\nsign = Path('sign').absolute(); sign.touch()\n"
        "class Part: kind = 'part'\n"
        "class Fussy:\n    def __setstate__(self, state):\n        self.__dict__.update(state)\n"
        "        if not self.sign.exists(): raise ValueError('no sign')\n"
        "fussy = Fussy(); fussy.sign = sign; fussy.part = Part(); rest = [1]"
    )
    await sessions.run("sign.unlink(); del Part, Fussy")
    await sessions.kill()
    execution = await sessions.run("rest.append(2)")
    assert set(not_restored(execution)) == {"fussy"}
    await sessions.run("rest.append(3); other = 'x' * 20_000")
    await sessions.run("other = 1")
    await sessions.store.collect()
    await sessions.run("sign.touch()")
    await sessions.kill()
    execution = await sessions.run("fussy.part.kind, rest, other")
    assert execution.output.result == "('part', [1, 2, 3], 1)"
    assert not_restored(execution) == {}


async def test_what_a_lost_value_needs_may_become_too_large(sessions: Sessions) -> None:
    """It is dropped as anything else would be; the cell gets its reply and the rest is saved."""
    await sessions.run(
        spared(
            "class Base: pass\nclass Part(Base): pass\n"
            "class Thorn:\n    def __setstate__(self, state): raise ValueError\n"
            "thorn = Thorn(); thorn.part = Part(); rest = 1"
        ),
        limits=Limits(variable_bytes=100_000, session_bytes=None),
    )
    await arm(sessions)
    execution = await sessions.run(
        "import numpy as np\nbig = np.zeros(100_000); Base.left = big[:5]; Base.right = big[3:9]; del big; new = 1"
    )
    assert execution.committed
    assert {entry.name for entry in execution.not_saved} == {"Part", "Base"}
    await sessions.kill()
    execution = await sessions.run("rest, new")
    assert execution.output.result == "(1, 1)"
    assert set(not_restored(execution)) == {"thorn", "Part", "Base"}


async def test_a_lost_name_is_not_counted_as_deleted(sessions: Sessions) -> None:
    """The session did not delete it; it only is not here."""
    await sessions.run(
        spared("class Thorn:\n    def __setstate__(self, state): raise ValueError\nthorn = Thorn(); thorn.x = 1")
    )
    await arm(sessions)
    execution = await sessions.run("y = 1")
    assert execution.saved.deleted == ()
    assert "thorn" in await names(sessions)
    [view] = await sessions.manager.list_sessions()
    assert view.info.variable_count == 3


async def test_a_lost_name_that_is_made_again_replaces_what_could_not_be_loaded(sessions: Sessions) -> None:
    """The old bytes go, and deleting the new value brings nothing back."""
    await sessions.run(
        spared("class Thorn:\n    def __setstate__(self, state): raise ValueError\nthorn = Thorn(); thorn.x = 1")
    )
    await arm(sessions)
    await sessions.run("thorn = 'new'")
    await sessions.kill()
    execution = await sessions.run("thorn")
    assert execution.output.result == "'new'"
    assert not_restored(execution) == {}
    await sessions.run("del thorn")
    await sessions.kill()
    assert await failure(sessions, "thorn") == "name 'thorn' is not defined"
    await sessions.store.collect()
    rows = await sessions.rows(
        "SELECT 1 FROM components WHERE to_commit IS NULL AND has_code = 0 AND key NOT IN"
        " (SELECT root FROM names WHERE to_commit IS NULL AND root IS NOT NULL)"
    )
    assert rows == []


async def test_clearing_a_session_forgets_what_could_not_be_loaded(sessions: Sessions) -> None:
    """Its stories too."""
    await sessions.run(
        spared("class Thorn:\n    def __setstate__(self, state): raise ValueError\nthorn = Thorn(); thorn.x = 1")
    )
    await arm(sessions)
    await sessions.run("y = 1")
    execution = await sessions.run("'thorn' in globals()", reset=True)
    assert execution.restored is None
    assert await failure(sessions, "thorn") == "name 'thorn' is not defined"


# Another Python, a missing module


OF_ANOTHER = "UPDATE components SET magic = '00', python = '3.99.1' WHERE has_code = 1"

MADE = """
from functools import lru_cache, partial
n = 41
def f(a, b=[1], *, c: int = 2) -> int:
    "its text"
    return n + 1
f.note = 'kept'
def outer(start):
    total = start
    def inner(step=1):
        nonlocal total
        total += step
        return total
    return inner
counter = outer(10); counter()
double = lambda x: x * 2
@lru_cache(maxsize=7)
def cached(x): return x + 1
class Base:
    __secret = 's'
    def who(self): return 'base' + self.__secret
class P(Base):
    made: int = 3
    def __init__(self, v): self.v = v
    def who(self): return super().who() + str(self.v)
    @property
    def twice(self): return self.v * 2
    @staticmethod
    def fixed(): return [i for i in range(3)]
    @classmethod
    def make(cls): return cls(5)
p = P('x')
async def later(): return 7
def generate(k):
    yield from range(k)
table = {'plain': double, 'bound': p.who, 'partial': partial(f, 1)}
"""
LOOK = (
    "(f(0), f.__defaults__, f.__doc__, f.note, f.__annotations__['c'], counter(), double(4), cached(1),"
    " cached.cache_parameters()['maxsize'], p.who(), p.twice, P.fixed(), P.make().v, P.made, list(generate(2)),"
    " table['plain'] is double, table['bound'](), table['partial'](), isinstance(p, P), await later())"
)


async def test_code_of_another_python_is_compiled_anew(sessions: Sessions) -> None:
    """From the statement of the cell that made it; what came before is as it was, and so is what comes after."""
    assert (await sessions.run(MADE)).status == "ok"
    expected = await sessions.value("(counter(0), " + LOOK[1:])
    await sessions.run("counter(-1)")
    for _ in range(2):
        await write(sessions, OF_ANOTHER)
        await sessions.kill()
        execution = await sessions.run("(counter(0), " + LOOK[1:])
        assert execution.output.result == expected, execution.output.error
        assert not_restored(execution) == {}
        await sessions.run("counter(-1)")
    source = await sessions.value("import inspect\ninspect.getsource(f), inspect.getsource(P.twice.fget)")
    assert source is not None
    assert "its text" in source
    assert "return self.v * 2" in source
    execution = await sessions.run("def f(): return 'new'\nf(), counter(0)")
    assert execution.output.result == "('new', 11)"


async def test_the_source_of_restored_code_is_in_its_tracebacks(sessions: Sessions) -> None:
    """As it was before, under any Python."""
    await sessions.run("y = 0\n\ndef fails(x):\n    return x / y  # here\n\nz = 1")
    await sessions.kill()
    execution = await sessions.run("fails(1)")
    assert execution.output.error is not None
    assert "return x / y  # here" in execution.output.error.traceback
    assert "4 " in execution.output.error.traceback


async def test_code_of_another_python_without_source_is_kept_until_that_python_is_back(sessions: Sessions) -> None:
    """Nothing runs that was not compiled for this one; everything else comes back."""
    await sessions.run("exec('def f(): return n + 1')\nn = 41; data = [f, 1]\na, b = lambda x: x + 1, lambda x: x - 1")
    await write(sessions, OF_ANOTHER)
    await sessions.kill()
    execution = await sessions.run("n")
    assert execution.output.result == "41"
    lost = not_restored(execution)
    assert set(lost) == {"f", "data", "a", "b"}
    assert lost["f"] == (
        "it holds code compiled by Python 3.99.1, which this Python cannot run; use Python 3.99.1 for this"
        " session, or define it again"
    )
    assert "2 functions of its name" in lost["a"]
    assert "compiled by Python 3.99.1" in await failure(sessions, "f()")
    await sessions.run("n = 1")
    magic = "(SELECT magic FROM components WHERE magic <> '00' LIMIT 1)"
    await write(sessions, f"UPDATE components SET magic = {magic} WHERE magic = '00'")
    await sessions.kill()
    execution = await sessions.run("f(), data[0] is f, a(1), b(1)")
    assert execution.output.result == "(2, True, 2, 0)"
    assert not_restored(execution) == {}


async def test_a_lost_function_can_be_defined_again(sessions: Sessions) -> None:
    """Under the new Python; from then on that is the one there is."""
    await sessions.run("def f(): return 'old'\nn = 1")
    await write(sessions, "UPDATE components SET magic = '00' WHERE has_code = 1")
    await sessions.kill()
    await sessions.run("def f(): return 'new'")
    await sessions.kill()
    execution = await sessions.run("f(), n")
    assert execution.output.result == "('new', 1)"
    assert not_restored(execution) == {}


async def test_a_component_says_which_python_made_it(sessions: Sessions) -> None:
    """The version of the kernel, not of the keeper's settings."""
    await sessions.run("def f(): pass\nn = 1")
    rows = await sessions.rows("SELECT DISTINCT python, length(magic) FROM components")
    assert [tuple(row) for row in rows] == [(platform.python_version(), 8)]


async def test_a_module_that_is_gone_costs_what_needs_it(sessions: Sessions) -> None:
    """It is named in the reason, and once it is back everything is."""
    await sessions.run(
        "import os, sys\nfrom pathlib import Path\n"
        "Path('garden.py').write_text('class Rose:\\n    colour = \"red\"\\n')\n"
        "sys.path.insert(0, os.getcwd())\nimport garden\nrose = garden.Rose(); roses = [rose]; rest = 1"
    )
    await sessions.kill()
    assert await sessions.value("rose.colour, roses[0] is rose, rest") == "('red', True, 1)"
    await sessions.run("Path('garden.py').rename('hidden.py')")
    await sessions.kill()
    execution = await sessions.run("rest")
    assert execution.output.result == "1"
    lost = not_restored(execution)
    assert set(lost) == {"garden", "rose", "roses"}
    assert all(
        reason == "loading it failed with ModuleNotFoundError: No module named 'garden'" for reason in lost.values()
    )
    assert "No module named 'garden'" in await failure(sessions, "rose")
    await sessions.run("Path('hidden.py').rename('garden.py')")
    await sessions.kill()
    assert await sessions.value("rose.colour, roses[0] is rose, rest") == "('red', True, 1)"


# Damage


async def test_bytes_that_are_damaged_cost_only_their_component(sessions: Sessions) -> None:
    """A stream that is no pickle, one that is cut, one that asks for something unknown."""
    await sessions.run("a = [1]; b = [2]; c = [3]; rest = [4]")
    roots = dict(await sessions.rows("SELECT name, root FROM names WHERE to_commit IS NULL"))
    for name, replacement in (("a", b"nonsense"), ("b", b""), ("c", b"\x80\x05]\x94Q.")):
        damage = functools.partial(
            Database.execute,
            sql="UPDATE components SET data = ?, segments = ? WHERE key = ? AND to_commit IS NULL",
            parameters=[replacement, json.dumps([len(replacement)]), roots[name]],
        )
        await change(sessions.store, damage)
    await sessions.kill()
    execution = await sessions.run("rest")
    assert execution.output.result == "[4]"
    assert set(not_restored(execution)) == {"a", "b", "c"}
    assert all(reason.startswith("loading it failed with ") for reason in not_restored(execution).values())


async def test_bytes_that_are_missing_cost_only_their_component(sessions: Sessions) -> None:
    """A row that somebody deleted."""
    await sessions.run("a = [1]; rest = [4]")
    await write(sessions, "DELETE FROM components WHERE key = (SELECT root FROM names WHERE name = 'a')")
    await sessions.kill()
    execution = await sessions.run("rest")
    assert execution.output.result == "[4]"
    assert set(not_restored(execution)) == {"a"}
    assert "missing from the store" in await failure(sessions, "a")


async def test_the_outcome_of_a_restore_is_in_the_row_of_its_execution(sessions: Sessions) -> None:
    """A client that lost the reply gets it from there."""
    await sessions.run(
        spared("class Thorn:\n    def __setstate__(self, state): raise ValueError\nthorn = Thorn(); thorn.x = 1")
    )
    await arm(sessions)
    execution = await sessions.run("1")
    row = await sessions.store.execution(execution.request_id)
    assert row is not None
    assert row.restored == execution.restored
    assert row.restored is not None
    assert [entry.name for entry in row.restored.not_restored] == ["thorn"]
