"""Code that replaces what a kernel works with: the next cell is answered and saved, and finds its own where it may."""

from __future__ import annotations

import builtins
import json
import sys
import types
from typing import Any

import pytest

from kernelrepl.guest import dict_versions
from kernelrepl.guest.originals import MODULES, Originals
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


NAMES = f"""
import importlib, json
found = []
for module in {MODULES!r}:
    for name, value in vars(importlib.import_module(module)).items():
        if callable(value) and (not name.startswith("_") or name == "__import__"):
            found.append((module, name))
print(json.dumps(found))
"""
SETUP = """
import importlib
kept, before, count = [], [], 0
def broken(*args, **kwargs): raise OSError('broken by the test')
def replace(*names):
    global before, count
    for space, name, value in before: space[name] = value
    before = [(space := importlib.import_module(module).__dict__, name, space[name]) for module, name in names]
    for space, name, _ in before:
        space[name] = broken
        count += 1
"""
PARTS = 4
AT_ONCE = 4
"""A kernel that needs one of these fails, whether or not the others are replaced."""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
async def test_whatever_is_replaced_the_next_cell_is_answered_and_saved(sessions: Sessions, part: int) -> None:
    """Everything public that can be called in the modules that a kernel works with, a few at a time."""
    execution = await sessions.run(NAMES)
    assert execution.status == "ok", execution.output.error
    found = json.loads(execution.output.stdout)
    assert len(found) > 1000
    await sessions.run(SETUP)
    mine = found[part::PARTS]
    replaced = [mine[first : first + AT_ONCE] for first in range(0, len(mine), AT_ONCE)]
    for number, names in enumerate(replaced):
        execution = await sessions.run(f"replace(*{names!r})")
        assert execution.committed, (names, execution.note)
        execution = await sessions.run(f"kept.append({number}); kept[-1]")
        assert execution.output.result == str(number), (names, execution.output.error, execution.note)
        assert (execution.committed, execution.restored) == (True, None), names
    await sessions.kill()
    counted = await sessions.value("kept == list(range(len(kept))) and (len(kept), count)")
    assert counted == f"({len(replaced)}, {len(mine)})"


@pytest.mark.parametrize(
    ("code", "check", "expected"),
    [
        ("import time\ntime.time = lambda: 12345", "time.time()", "12345"),
        ("import time\ntime.perf_counter = time.monotonic = lambda: 0", "time.monotonic()", "0"),
        ("import json\njson.dumps = lambda *a, **k: 'mine'", "json.dumps([])", "'mine'"),
        ("import os\nos.getpid = lambda: 1", "os.getpid(), print('shown')", "(1, None)"),
        ("import pickle\npickle.dumps = pickle.loads = None", "pickle.loads(pickle.dumps(3))", "3"),
        ("import hashlib\nhashlib.sha256 = lambda *a: 'mine'", "hashlib.sha256()", "'mine'"),
        ("import builtins\nbuiltins.print = lambda *a: 'mine'", "print()", "'mine'"),
        ("import builtins\nbuiltins.len = lambda *a: 7", "len([])", "0"),
        ("import builtins\ndel builtins.isinstance", "isinstance(1, int)", "True"),
        ("import threading\nthreading.Lock = None", "threading.Lock().locked()", "False"),
        ("import datetime\ndatetime.datetime = int", "datetime.datetime", "int"),
    ],
)
async def test_code_finds_its_own_until_the_kernel_is_another(
    sessions: Sessions, code: str, check: str, expected: str
) -> None:
    """What people replace on purpose, in every later cell; what the kernel cannot lend is put back, and told."""
    for _ in range(2):
        execution = await sessions.run(code)
        assert (execution.status, execution.committed) == ("ok", True)
        told = {entry.name for entry in execution.not_saved}
        for _ in range(2):
            assert await sessions.value(check) == expected
        assert bool(told) is ("put back" not in execution.output.stderr)
        failed = await sessions.run("1 / 0")
        assert failed.output.error is not None
        assert failed.output.error.name == "ZeroDivisionError"
        await sessions.kill()


async def test_a_frozen_clock_stays_frozen_for_code_alone(sessions: Sessions) -> None:
    """Over several cells, also where a library has put its own function there and no code names it."""
    code = """
import datetime, time
class Frozen:
    real = time.time, time.monotonic, time.perf_counter, datetime.datetime
    def start(self):
        class Then(datetime.datetime):
            @classmethod
            def now(cls, tz=None): return datetime.date(2020, 1, 1)
        for name in ('time', 'monotonic', 'perf_counter'): setattr(time, name, lambda: 0.0)
        datetime.datetime = Then
    def stop(self):
        time.time, time.monotonic, time.perf_counter, datetime.datetime = self.real
frozen = Frozen()
"""
    await sessions.run(code)
    await sessions.run("frozen.start()")
    for _ in range(2):
        assert await sessions.value("str(datetime.datetime.now()), time.monotonic()") == "('2020-01-01', 0.0)"
    execution = await sessions.run("frozen.stop(); time.monotonic() > 0")
    assert execution.output.result == "True"
    assert execution.committed


async def test_event_loops_that_were_nested_stay_nested(sessions: Sessions) -> None:
    """What replaces parts of asyncio does so for the code that asked for it."""
    await sessions.run(
        "import asyncio\nreal = asyncio.run\nasyncio.run = lambda coroutine: (coroutine.close(), 'mine')[1]"
    )
    assert await sessions.value("asyncio.run(asyncio.sleep(0))") == "'mine'"
    assert await sessions.value("await asyncio.sleep(0, 'slept')") == "'slept'"


@pytest.mark.parametrize("counted", [dict_versions.COUNTED, False], ids=["as here", "without versions"])
def test_what_is_replaced_is_set_aside_and_put_back(counted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Python does not count the changes of a dict, and however often it is looked at in between."""
    monkeypatch.setattr(dict_versions, "COUNTED", counted)
    module = types.ModuleType("module_of_the_test")
    module.__dict__.update(one=lambda: 1, two=lambda: 2, three=lambda: 3, number=4)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    space, first = vars(module), dict(vars(module))
    originals = Originals([module.__name__])

    def other() -> None: ...

    def look() -> None:
        """Three times: what is the same is not looked at again."""
        for _ in range(3):
            originals.set_aside()
        assert {**space, **first} == space

    look()
    space["one"] = other
    look()
    originals.put_back()
    assert space["one"] is other
    for change in (
        lambda: space.__delitem__("two"),
        lambda: space.update(one=other, three=None, more=1),
        lambda: setattr(module, "two", other),
        lambda: (space.pop("one"), space.update(new=1), space.setdefault("one", other)),
    ):
        look()
        originals.drop()
        change()
        look()
    broken, needed = originals.drop()
    assert (broken, needed, bool(originals)) == ([], ["module_of_the_test.one"], False)


def test_a_builtin_that_says_yes_to_everything_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks for it uses none by its name."""
    originals, real = Originals(["builtins"]), bool
    monkeypatch.setattr("builtins.bool", lambda *_: True)
    originals.set_aside()
    assert vars(builtins)["bool"] is real


@pytest.mark.skipif(not dict_versions.COUNTED, reason="this Python counts no changes of a dict")
def test_a_dict_that_nobody_changes_has_one_version() -> None:
    """Reading, calling and copying what is in it is no change; one that is made anew differs from its past."""
    space: dict[str, Any] = {"one": len, "two": 2}
    version = dict_versions.of(space)
    assert version is not None
    before = version.value
    assert (space["one"]([]), space.get("none"), list(space.items()), space.copy()["two"]) == (
        0, None, [("one", len), ("two", 2)], 2,
    )  # fmt: skip
    assert version.value == before
    space["two"] = 3
    assert version.value != before
    space["two"] = 2
    assert version.value != before
