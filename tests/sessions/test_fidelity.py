"""What a session holds comes back as it was: values, aliases, functions, classes, arrays, frames."""

from __future__ import annotations

import itertools
import random
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Case:
    """make: run first. check: expressions that are true from then on. change and after: the same, one kill later."""

    name: str
    make: str
    check: tuple[str, ...]
    change: str
    after: tuple[str, ...]


def read_cases(group: str) -> list[Case]:
    """The cases of a file in `fidelity/`: `=== name`, then code, then sections that start with `--- title`."""
    cases = []
    for part in (Path(__file__).parent / "fidelity" / f"{group}.txt").read_text().split("=== ")[1:]:
        name, _, body = part.partition("\n")
        make, *sections = body.split("--- ")
        titled = {title: text.strip() for title, _, text in (section.partition("\n") for section in sections)}
        check, after = (tuple(titled.get(title, "").splitlines()) for title in ("check", "after"))
        cases.append(Case(name, make, check, titled.get("change", ""), after))
    return cases


async def failures(sessions: Sessions, cases: list[Case], changed: bool) -> list[str]:
    """The expressions that are not true as they must be, with the names of their cases."""
    wrong = []
    for case in cases:
        expressions = case.after if changed and case.change else case.check
        execution = await sessions.run(f"[{', '.join(f'bool({each})' for each in expressions)}]")
        if execution.output.error is not None:
            wrong.append(f"{case.name}: {execution.output.error.name}: {execution.output.error.message}")
        else:
            results = str(execution.output.result).strip("[]").split(", ")
            wrong += [
                f"{case.name}: {each}" for each, is_true in zip(expressions, results, strict=True) if is_true != "True"
            ]
    return wrong


async def run_all(sessions: Sessions, codes: dict[str, str]) -> list[str]:
    """What went wrong while the codes ran: errors, and values that were not saved."""
    wrong = []
    for name, code in codes.items():
        execution = await sessions.run(code)
        wrong += [f"{name}: {execution.output.error}"] * (execution.status != "ok")
        wrong += [f"{name}: {entry.path} was not saved: {entry.reason}" for entry in execution.not_saved]
    return wrong


async def kill_and_restore(sessions: Sessions) -> list[str]:
    """What did not come back, or was stored again though only restored."""
    stored = set(await sessions.rows("SELECT id, key FROM components WHERE to_commit IS NULL"))
    await sessions.kill()
    execution = await sessions.run("0")
    assert execution.restored is not None
    wrong = [f"not restored: {entry.name}: {entry.reason}" for entry in execution.restored.not_restored]
    now = set(await sessions.rows("SELECT id, key FROM components WHERE to_commit IS NULL"))
    wrong += [f"stored again: {key}" for _, key in now - stored]
    return wrong + [f"changed by being restored: {name}" for name in execution.saved.changed]


@pytest.mark.slow
@pytest.mark.parametrize("group", ["aliases", "functions", "classes", "arrays", "library"])
async def test_values_come_back_as_they_were(sessions: Sessions, group: str) -> None:
    """Made, killed, changed, killed: what is true of each stays true, all is saved, and nothing is stored twice."""
    cases = read_cases(group)
    wrong = await run_all(sessions, {case.name: case.make for case in cases})
    wrong += [f"before: {failure}" for failure in await failures(sessions, cases, False)]
    wrong += await kill_and_restore(sessions)
    wrong += [f"restored: {failure}" for failure in await failures(sessions, cases, False)]
    wrong += await run_all(sessions, {case.name: case.change for case in cases if case.change})
    wrong += [f"changed: {failure}" for failure in await failures(sessions, cases, True)]
    wrong += await kill_and_restore(sessions)
    wrong += [f"restored again: {failure}" for failure in await failures(sessions, cases, True)]
    assert not wrong, "\n" + "\n".join(wrong)


# Histories


async def test_a_class_and_its_instances_through_a_long_history(sessions: Sessions) -> None:
    """Redefined, changed, aliased and unnamed, with a kill between any two steps."""
    await sessions.run("class P:\n    n = 0\n    def who(self): return 'first', self.n\np = P(); ps = [p]")
    await sessions.kill()
    await sessions.run("old = P.who; P.n = 1")
    await sessions.kill()
    await sessions.run("class P(P):\n    def who(self): return 'second', super().who()\nq = P()")
    await sessions.kill()
    await sessions.run("type(p).n = 2; del old; ps.append(q)")
    await sessions.kill()
    assert await sessions.value(
        "p.who(), q.who(), ps[0] is p, ps[1] is q, isinstance(q, type(p)), isinstance(p, P)"
    ) == ("(('first', 2), ('second', ('first', 2)), True, True, True, False)")
    await sessions.run("del P, p, q")
    await sessions.kill()
    assert await sessions.value("[x.who() for x in ps], ps[1].__class__.__mro__[1] is ps[0].__class__") == (
        "([('first', 2), ('second', ('first', 2))], True)"
    )


async def test_what_two_names_share_is_kept_when_one_of_them_goes(sessions: Sessions) -> None:
    """Joined, parted, joined with others: components follow."""
    await sessions.run("a = [[1]]; b = [a[0]]; c = [2]")
    await sessions.kill()
    await sessions.run("b[0].append(c); del a")
    await sessions.kill()
    await sessions.run("c.append(3); d = b[0]; b = None")
    await sessions.kill()
    await sessions.run("d[1].append(4)")
    await sessions.kill()
    assert await sessions.value("c, d, d[1] is c, b, 'a' in globals()") == (
        "([2, 3, 4], [1, [2, 3, 4]], True, None, False)"
    )


async def test_values_that_become_saveable_and_cease_to_be(sessions: Sessions) -> None:
    """A socket comes and goes in a shared part; what is in the store is never an older state."""
    await sessions.run("import socket; part = {}; one, two = [part], [part]; lone = [1]")
    execution = await sessions.run("part['link'] = socket.socket(socket.AF_UNIX); lone.append(2)")
    assert {entry.name: entry.path for entry in execution.not_saved} == {
        "part": "part['link']",
        "one": "one[0]['link']",
        "two": "two[0]['link']",
    }
    execution = await sessions.run("part['link'] = (i for i in 'ab')")
    reasons = {entry.name: entry.reason.split(" cannot")[0] for entry in execution.not_saved}
    assert reasons == dict.fromkeys(("part", "one", "two"), "a generator")
    execution = await sessions.run("part.pop('link'); part['x'] = 1")
    assert execution.not_saved == ()
    await sessions.kill()
    assert await sessions.value("one[0] is two[0] is part, part, lone") == "(True, {'x': 1}, [1, 2])"
    await sessions.run("two.append(socket.socket(socket.AF_UNIX)); part['x'] = 2")
    await sessions.kill()
    assert await sessions.value("one[0] is part, part, 'two' in globals()") == "(True, {'x': 2}, False)"


async def test_code_that_runs_while_loading_finds_the_names_it_uses(sessions: Sessions) -> None:
    """Modules, helpers and classes that a `__setstate__` or a hash names, in whatever order they were made."""
    first = await sessions.run(
        "class S:\n    def __init__(self): self.x = 1\n"
        "    def __setstate__(self, s): self.__dict__.update(s); self.y = helper(json.dumps(s))\n"
        "class K:\n    def __hash__(self): return salt\n    def __eq__(self, o): return True\n"
        "s = S(); salt = 3; k = {K(): 1}"
    )
    assert [entry.name for entry in first.not_saved] == ["s"]  # what it names is not there yet
    then = await sessions.run("import json\ndef helper(v): return v.upper() + suffix\nsuffix = '!'")
    assert not then.not_saved
    await sessions.kill()
    assert await sessions.value("s.y, s.x, k[K()]") == "('{\"X\": 1}!', 1, 1)"


# Random programs against an uninterrupted run

DESCRIBE = textwrap.dedent("""
    def describe(space, names):
        import types, numpy as np
        seen, arrays = {}, []
        def number(value):
            known = id(value) in seen
            seen.setdefault(id(value), (len(seen), value))
            return known, seen[id(value)][0]
        def walk(value):
            if isinstance(value, tuple): return "tuple", [walk(item) for item in value]
            if value is None or isinstance(value, (int, float, str, np.generic)): return repr(value)
            known, label = number(value)
            if known: return label
            if isinstance(value, list): return label, [walk(item) for item in value]
            if isinstance(value, dict): return label, [(key, walk(item)) for key, item in value.items()]
            if isinstance(value, np.ndarray):
                arrays.append(value)
                cells = [walk(item) for item in value.ravel().tolist()] if value.dtype == object else value.tolist()
                return label, str(value.dtype), value.shape, value.flags.writeable, cells
            if isinstance(value, types.FunctionType):
                cells = [(number(cell), walk(cell.cell_contents)) for cell in value.__closure__ or ()]
                return label, value.__name__, cells, walk(value.__defaults__ or ()), walk(vars(value))
            if isinstance(value, types.MethodType): return "method", walk(value.__func__), walk(value.__self__)
            if isinstance(value, type):
                bases = [walk(base) for base in value.__bases__ if base is not object]
                return label, value.__name__, value.mark, walk(value.shared), bases
            return label, walk(type(value)), [(key, walk(item)) for key, item in vars(value).items()]
        found = [(name, walk(space[name])) for name in names]
        shares = [np.shares_memory(a, b) for a in arrays for b in arrays]
        return repr((found, shares))
""")

STEPS = (
    "{x} = {y}",
    "{x} = [{y}, {z}]",
    "{x} = {{'k': {y}, 'l': [{z}]}}",
    "{x} = ({y}, {z})",
    "{x} = np.arange({n}.)",
    "{x} = np.arange(12).reshape(3, 4)",
    "{x} = np.array([{y}, [{z}], None], dtype=object)[:2] if 1 else 0",
    "if isinstance({y}, np.ndarray) and {y}.ndim: {x} = {y}[1:]",
    "if isinstance({y}, np.ndarray) and {y}.ndim: {x} = {y}.T[::-1]",
    "if isinstance({y}, np.ndarray) and {y}.dtype != object and {y}.flags.writeable: {y}[...] = {n}",
    "if isinstance({y}, np.ndarray) and {y}.dtype != object and {y}.size: {y}.flat[0] = {n}",
    "if isinstance({y}, np.ndarray): {y}.flags.writeable = False",
    "if isinstance({x}, list): {x}.append({y})",
    "if isinstance({x}, list) and {x}: {x}.pop(0)",
    "if isinstance({x}, dict): {x}['m{n}'] = {y}",
    "class C:\n    mark = {n}\n    shared = []\n    def get(self): return self\n{x} = C()",
    "class C(C): mark = {n}",
    "{x} = C(); {x}.own = {y}",
    "if isinstance({x}, C): {x}.more = {y}; {y} = {x}.get",
    "type({x}).mark = {n}",
    "C.shared.append({n})",
    "C.shared = {x} if isinstance({x}, list) else []",
    "def f(a={y}): return a\n{x} = f",
    "if callable({x}) and not isinstance({x}, type): hooks = [{x}, *hooks[:2]]",
    "def make(v):\n    def put(w):\n        nonlocal v; v = w\n    return put, lambda: v\n{x}, {y} = make({z})",
    "if getattr({x}, '__name__', '') == 'put': {x}({y})",
    "f.note = {x}",
    "del {x}",
)
START = """
import numpy as np
class C:
    mark = 0
    shared = []
    def get(self): return self
def f(): pass
hooks = []
"""


def random_program(seed: int, length: int) -> list[tuple[str, list[str]]]:
    """Cells, each with the names that are there after it."""
    rng = random.Random(seed)
    cells: list[tuple[str, list[str]]] = []
    names = {"C", "f", "hooks"}
    for index in itertools.count():
        if index == length:
            return cells
        known = sorted(names - {"C", "f", "hooks"}) or ["hooks"]
        step = rng.choice(STEPS)
        fill = {"x": rng.choice("abcde"), "y": rng.choice(known), "z": rng.choice(known), "n": str(rng.randint(1, 9))}
        if not step.startswith(("{x} =", "class C:", "def ")) and fill["x"] not in names:
            fill["x"] = rng.choice(known)
        if step == "del {x}" and (fill["x"] == "hooks" or len(known) < 3):
            step = "{x} = {y}"
        if step.startswith("type({x})"):
            step = "if isinstance({x}, C): " + step
        if "put, lambda" in step:
            fill["y"] = rng.choice("abcde")
            names.add(fill["y"])
        if step == "del {x}":
            names.discard(fill["x"])
        elif fill["x"] != "hooks":
            if step.startswith("if") and "{x} =" in step and fill["x"] not in names:
                step = "{x} = None\n" + step
            names.add(fill["x"])
        cells.append((step.format(**fill), sorted(names)))
    raise AssertionError


@pytest.mark.parametrize("seed", range(6))
async def test_random_programs_do_not_notice_kills(sessions: Sessions, seed: int) -> None:
    """Aliases, views, closures, classes: every few cells a kill -9, and all is as in a run without."""
    space: dict[str, Any] = {"__name__": "program"}
    exec(START, space)
    exec(DESCRIBE, describing := {})  # type: ignore[var-annotated]
    await sessions.run(START)
    await sessions.run(DESCRIBE)
    done = []
    for count, (code, names) in enumerate(random_program(seed, 40), 1):
        done.append(code)
        try:
            exec(code, space)
            status = "ok"
        except (ValueError, TypeError, IndexError):
            status = "error"
        execution = await sessions.run(code)
        assert execution.status == status, (execution.output.error, done)
        assert not execution.not_saved, (execution.not_saved, done)
        if count % 5 == 0:
            await sessions.kill()
        if count % 5 in (0, 2):
            here = describing["describe"](space, names)
            there = await sessions.run(f"print(describe(globals(), {names}))")
            assert there.output.stdout.strip() == here, "\n" + "\n".join(done)
