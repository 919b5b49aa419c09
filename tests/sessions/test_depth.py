"""Values that are nested deep come back, whatever the recursion limit of the session; what is too deep is told."""

from __future__ import annotations

import asyncio

import pytest

from kernelrepl.model import Limits, Resources
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


DEEP = 20_000
MEANS = """
import collections, dataclasses, sys
class Node: pass
@dataclasses.dataclass(frozen=True)
class Cons:
    head: object
    tail: object
class Keyed:
    __slots__ = ('next', 'key')
    def __hash__(self): return self.key
class Own(list): pass
def depth(value, step):
    count = 0
    while (value := step(value)): count += 1
    return count
def build(wrap):
    value = None
    for n in range(20_000): value = wrap(value, n)
    return value
def node(value, n):
    made = Node(); made.next, made.kids = value, [value, n]
    return made
def keyed(value, n):
    made = Keyed(); made.next, made.key = value, n
    return made
"""
KINDS = {
    "lists": ("build(lambda value, n: [value])", "lambda v: v[0]"),
    "lists of an own kind": ("build(lambda value, n: Own([value]))", "lambda v: v[0]"),
    "tuples": ("build(lambda value, n: (value, n))", "lambda v: v[0]"),
    "dicts": ("build(lambda value, n: {n: value})", "lambda v: next(iter(v.values()))"),
    "ordered dicts": ("build(lambda value, n: collections.OrderedDict(x=value))", "lambda v: v['x']"),
    "linked nodes": ("build(node)", "lambda v: v.next if v.next is v.kids[0] else 1 / 0"),
    "frozen data": ("build(lambda value, n: Cons(n, value))", "lambda v: v.tail"),
    "objects that can be keys": ("build(keyed)", "lambda v: v.next"),
    "a list of linked nodes": (
        "[Node() for _ in range(20_000)]\n"
        "for a, b in zip(v, v[1:]): a.next, b.before = b, a\n"
        "v[-1].next = None",
        "lambda v: v[0] if type(v) is list else v.next",
    ),
    "a long list of deep lists": (
        "[build(lambda value, n: [value]), *([] for _ in range(5_000))]",
        "lambda v: v[0]",
    ),
}  # fmt: skip
"""What makes `v`, and how to go one level down."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "kinds"), [(1_000, list(KINDS)), (1_000_000, ["lists", "linked nodes", "objects that can be keys"])]
)
async def test_deep_values_come_back(sessions: Sessions, limit: int, kinds: list[str]) -> None:
    """At both ends: neither saving nor the look at what was restored goes deeper than the stack."""
    await sessions.run(f"{MEANS}sys.setrecursionlimit({limit})")
    wrong = []
    for kind in kinds:
        make, step = KINDS[kind]
        execution = await sessions.run(f"v = {make}\ndepth(v, {step})")
        if execution.not_saved or int(execution.output.result or 0) < DEEP - 1:
            wrong.append(f"{kind}: {execution.output.error} {execution.not_saved} {execution.output.result}")
        await sessions.kill()
        again = await sessions.run(f"depth(v, {step})")
        if again.output.result != execution.output.result:
            wrong.append(f"{kind}: {again.output.result} {again.output.error}, not {execution.output.result}")
        if again.restored is None or again.restored.not_restored:
            wrong.append(f"{kind}: {again.restored}")
    assert await sessions.value("sys.getrecursionlimit()") == str(limit)
    assert not wrong, "\n" + "\n".join(wrong)


async def test_aliases_and_changes_in_deep_values_are_kept(sessions: Sessions) -> None:
    """A change at the far end, and a second name for something in the middle."""
    await sessions.run(f"{MEANS}v = build(node); middle = v\nfor _ in range(10_000): middle = middle.next")
    await sessions.kill()
    execution = await sessions.run("end = v\nwhile end.next: end = end.next\nend.mark = 7")
    assert (execution.status, execution.not_saved) == ("ok", ()), execution.output.error
    await sessions.kill()
    await sessions.run("at = v\nfor _ in range(10_000): at = at.next\nsame = at is middle\nwhile at.next: at = at.next")
    assert await sessions.value("same, at.mark") == "(True, 7)"


NOT_SAVED = {
    "deeper than any": ("v = []\nfor _ in range(300_000): v = [v]", "nested too deep"),
    "without end": ("class I:\n    def __reduce__(self): return I, (I(),)\nv = I()", "nested too deep"),
    "computes, deep down": (
        "class C:\n    def __reduce__(self):\n        while True: pass\nv = C(){deep}",
        "took longer",
    ),
    "calls itself in C, deep down": (
        "class C:\n    def __reduce__(self): return sorted([1], key=lambda x: self.__reduce__())\nv = C(){deep}",
        "recursion",
    ),
    "a generator, deep down": ("v = (i for i in 'ab'){deep}", "generator"),
}
"""Code that makes `v`, and a word of the reason."""


@pytest.mark.parametrize("limit", [1_000, 1_000_000])
async def test_what_is_too_deep_or_fails_there_is_told_and_costs_nothing_else(sessions: Sessions, limit: int) -> None:
    """The kernel lives, its limit is what it was, and no thread of ours is left."""
    await sessions.run(f"import sys, threading\nsys.setrecursionlimit({limit})")
    threads = await sessions.value("threading.active_count()")
    for kind, (code, word) in NOT_SAVED.items():
        deep = code.format(deep="\nfor _ in range(5_000): v = [v]")
        seconds = 4 if word == "took longer" else 100
        execution = await sessions.run(f"{deep}\nfine = [1]", limits=Limits(save_deadline_s=seconds))
        assert execution.status == "ok", f"{kind}: {execution.output.error}"
        [entry] = [entry for entry in execution.not_saved if entry.name == "v"]
        assert word in entry.reason, kind
        assert {each.name for each in execution.not_saved} == {"v"}
        await sessions.run("del v")
    look = "threading.active_count(), sys.getrecursionlimit(), threading.stack_size()"
    assert await sessions.value(look) == f"({threads}, {limit}, 0)"
    await sessions.kill()
    assert await sessions.value("fine") == "[1]"


async def test_a_thread_that_is_deep_survives_commits_and_audits(sessions: Sessions) -> None:
    """Python ends the process when the limit falls far below where a thread is."""
    execution = await sessions.run("""
import sys, threading
sys.setrecursionlimit(1_000_000)
threading.stack_size(256 << 20)
go, there, rows = threading.Event(), threading.Event(), []
def wait(): return go.wait(0.001)
def down(n):
    if n: return down(n - 1)
    there.set()
    while not wait(): rows.append(len(rows))
thread = threading.Thread(target=down, args=(20_000,), daemon=True); thread.start(); there.wait()
""")
    assert execution.status == "ok", execution.output.error
    kernel = await sessions.value("__import__('os').getpid(), __import__('time').sleep(0.1)")
    execution = await sessions.run("import asyncio\nfor _ in range(3): await asyncio.sleep(0.4)\nx = [1]")
    assert execution.status == "ok", execution.output.error
    await asyncio.sleep(1)  # audits, while the thread runs
    assert await sessions.value("__import__('os').getpid(), __import__('time').sleep(0.1)") == kernel
    await sessions.run("go.set(); thread.join()")
    assert await sessions.value("sys.getrecursionlimit()") == "1000000"


async def test_code_that_asks_for_its_thread_deep_down_leaves_none(sessions: Sessions) -> None:
    """A stand-in for the thread that had the large stack would count as one of the session's, for good."""
    code = "class T:\n    def __reduce__(self): threading.current_thread(); return T, ()"
    await sessions.run(f"import threading\n{code}\nv = T()\nfor _ in range(5_000): v = [v]")
    assert await sessions.value("'Dummy' in str(threading.enumerate())") == "False"
    await sessions.kill()
    assert await sessions.value("len(v)") == "1"


async def test_where_there_is_no_room_for_a_large_stack_it_is_told(sessions: Sessions) -> None:
    """A session of little memory saves what a smaller one takes."""
    await sessions.run("x = 1", resources=Resources(memory_bytes=200_000_000))
    execution = await sessions.run("v, w = [], []\nfor _ in range(40_000): v = [v]\nfor _ in range(4_000): w = [w]")
    assert [entry.name for entry in execution.not_saved] == ["v"]
    assert "nested too deep" in execution.not_saved[0].reason
    await sessions.kill()
    assert await sessions.value("x, len(w)") == "(1, 1)"
