"""A few words about each variable, without ever asking the value itself."""

from __future__ import annotations

from typing import Any

import pytest

from kernelrepl.guest.checkpoint.summary import summarize
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


VALUES = """
import collections, dataclasses, enum, functools, re, types
import numpy as np, pandas as pd
import matplotlib.pyplot as plt
n = 42
big = 10 ** 100
huge = 2 ** 100000
pi = 3.5
nothing = None
short = 'hello'
long = 'ab' * 500
raw = bytes(3000)
numbers = [1, 2, 3]
mixed = [1, 'a', None, []]
nested = {'a': 1, 'b': [2], 3: 'c'}
wide = {str(i): i for i in range(20)}
empty = {}
counted = collections.Counter('aab')
span = range(0, 10, 3)
array = np.zeros((100, 4))
scalar = np.float64(2.5)
frame = pd.DataFrame({'id': range(1000), 'age': 1.5, 'name': 'x'})
broad = pd.DataFrame(np.zeros((2, 50)), columns=[f'column_{i}' for i in range(50)])
series = pd.Series([1.5, 2.5], name='price')
day = pd.Categorical(['a', 'b'])
figure, axes = plt.subplots(1, 2, figsize=(6.4, 4.8))
plt.close(figure)
def f(n): return n
def g(a, /, b, *rest, c, d=1, **options): return a
def h(*, key=None): return key
square = lambda x: x * x
class P:
    def __init__(self): self.x, self.y = 1, 2
class Q(P): pass
p = P()
bare = object()
@dataclasses.dataclass
class D:
    name: str
    size: int = 0
d = D('n')
"""

SUMMARIES = {
    "n": "42",
    "big": "an integer of 333 bits",
    "huge": "an integer of 100001 bits",
    "pi": "3.5",
    "nothing": "None",
    "short": "'hello'",
    "long": f"'{'ab' * 20}…', 1000 characters",
    "raw": "3000 bytes",
    "numbers": "3 items: int",
    "mixed": "4 items: int, str, NoneType, list",
    "nested": "3 keys: 'a', 'b', 3",
    "wide": "20 keys: '0', '1', '2', '3', '4', '5', '6', '7', …",
    "empty": "0 keys",
    "counted": "2 keys: 'a', 'b'",
    "span": "range(0, 10, 3)",
    "array": "ndarray (100, 4) float64",
    "scalar": "2.5 float64",
    "frame": "DataFrame 1000 x 3: id int64, age float64, name str",
    "series": "Series of 2: float64, name price",
    "figure": "Figure 640 x 480 pixels with 2 axes",
    "f": "function f(n)",
    "g": "function g(a, /, b, *rest, c, d=…, **options)",
    "h": "function h(*, key=…)",
    "square": "function <lambda>(x)",
    "P": "class P",
    "Q": "class Q(P)",
    "p": "with x, y",
    "bare": "",
    "d": "with name, size",
}


async def summaries(sessions: Sessions) -> dict[str, str]:
    return {entry.name: entry.summary for entry in await sessions.manager.list_variables("s")}


async def test_every_kind_of_value_has_its_words(sessions: Sessions) -> None:
    """Also after a restore, and while the session sleeps."""
    execution = await sessions.run(VALUES)
    assert execution.status == "ok", execution.output.error
    found = await summaries(sessions)
    # pandas 2 and older keep texts as objects
    assert {**found, "frame": found["frame"].replace("name object", "name str")}.items() >= SUMMARIES.items()
    assert found["pd"].startswith("module pandas ")
    assert found["broad"].startswith("DataFrame 2 x 50: column_0 float64, column_1 float64")
    assert found["broad"].endswith("…")
    assert all(len(text) <= 200 for text in found.values())
    await sessions.kill()
    await sessions.run("1")
    assert await summaries(sessions) == found


async def test_a_summary_follows_its_value(sessions: Sessions) -> None:
    """In place or bound anew; what cannot be saved has one as well."""
    await sessions.run("a = [1]; g = [n for n in a].__iter__(); lines = {'x': (n for n in a)}")
    assert await summaries(sessions) == {"a": "1 item: int", "g": "", "lines": "1 key: 'x'"}
    await sessions.run("a.append('x'); lines['y'] = 2")
    assert await summaries(sessions) == {"a": "2 items: int, str", "g": "", "lines": "2 keys: 'x', 'y'"}


HOSTILE = """
called = []
def loud(*args): called.append(args); raise SystemExit
class Meta(type):
    __name__ = property(loud)
    __repr__ = __str__ = __len__ = loud
class Loud(metaclass=Meta):
    __repr__ = __str__ = __len__ = __iter__ = __getattr__ = __getitem__ = __bool__ = loud
    def __reduce__(self): return int, ()
class LoudList(list):
    __repr__ = __str__ = __len__ = __iter__ = loud
class LoudText(str):
    __repr__ = __str__ = __len__ = __iter__ = loud
class Key:
    __hash__ = object.__hash__
    __repr__ = loud
one, several, text, keyed = Loud(), LoudList([1, 2]), LoudText('x'), {Key(): 1}
inside = [one, several]
import pandas as pd
class Frame(pd.DataFrame):
    shape = property(loud)
    __repr__ = loud
frame = Frame({'a': [1]})
odd = pd.DataFrame([[1]], columns=pd.Index([Key()], dtype=object))
"""


def test_no_code_of_the_user_runs_for_it() -> None:
    """Whatever they override."""
    names: dict[str, Any] = {"__name__": "hostile"}
    exec(HOSTILE, names)
    names["called"].clear()
    found = {name: summarize(value) for name, value in names.items() if name != "__builtins__"}
    assert names["called"] == []
    assert (found["keyed"], found["inside"]) == ("1 key: …", "2 items: Loud, LoudList")
    assert (found["odd"], found["Loud"]) == ("DataFrame 1 x 1: … int64", "class Loud")


async def test_a_value_of_hostile_classes_costs_nothing_else(sessions: Sessions) -> None:
    """Saving has to run their code; that must not end the kernel."""
    execution = await sessions.run(HOSTILE + "\nkept = 1")
    assert (execution.status, "kept" in execution.saved.created) == ("ok", True)
    assert await sessions.value("kept") == "1"
    await sessions.kill()
    assert await sessions.value("kept") == "1"
