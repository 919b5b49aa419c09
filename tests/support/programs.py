"""Random programs over a few names, with much aliasing and many ways to change a value.

The generator runs what it makes, so that it knows what each name is bound to and most statements do something.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import operator
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

POOL = "abcdefgh"
NAMES = (*POOL, *"CDLN", "Guard", "deco", "error", "guard", "make", "noisy", "v")
"""All names that a program may bind, modules aside."""

START = """
import bisect, collections, contextlib, copy, functools, heapq, itertools, operator, os, types
class C:
    mark, shared = 0, []
    def __init__(self, *own): self.own = [*own]
    def bump(self, by=1):
        self.own.append(by); self.mark += 1; self.shared.append(by)
        return self
class D(C): __slots__ = ('slot',)
class L(list):
    def bump(self): self.append(len(self)); self.note = self[:1]
class N(C):
    def __reduce__(self): return noisy, (type(self), os.urandom(4)), vars(self)
def noisy(kind, noise): return kind.__new__(kind)
a, b = [1], {'k': []}
def h(): a.append(len(a))
e = {'k': lambda: b['k'].append(1)}
"""
LIBRARIES = ("", "", "import numpy as np", "import numpy as np", "import numpy as np, pandas as pd")

# {x} {w}: a name to bind. {y} {z}: any value. Else a value of one kind: {l} {q} list, {d} dict, {t} tuple, {s} set,
# {o} instance, {c} class, {r} {p} array, {m} frame, {f} called with nothing, {j} with one argument, {i} iterator,
# {u} bytearray. {n}: a small number.
MAKE = r"""
{x} = [1, 2, 3]
{x} = [{y}, {z}]
{x} = [[]] * 3
{x} = [[v] for v in range(4100)]
{x} = {{v: [v] for v in range(4100)}}
{x} = [{y}] * 2
{x} = ({y}, {n})
{x} = ([{n}], {y})
{x} = {{'k': {y}, 'l': [{z}], 1: {n}}}
{x} = dict.fromkeys('kl', {y})
{x} = {{{n}, 'p', (2, 'q')}}
{x} = frozenset(({n}, 2))
{x} = bytearray(b'ab')
{x} = collections.deque([{y}, {n}], maxlen=3)
{x} = collections.defaultdict(list, k={y})
{x} = collections.OrderedDict(k={y}, l={n})
{x} = types.SimpleNamespace(p={y})
{x} = C({y})
{x} = D(); {x}.slot = {y}
{x} = L([{y}])
{x} = N({n})
{x} = N({y})
{x} = {c}()
{x} = {n}
{x} = 'text'
{x} = np.arange({n}.0 + 4)
{x} = np.arange(6).reshape(2, 3)
{x} = np.array([{y}, None], dtype=object)
{x} = np.zeros(3, dtype=[('p', 'i4'), ('q', 'f8')])
{x} = pd.DataFrame({{'n': [1, {n}], 'o': pd.Series([{y}, None], dtype=object)}})
class C:\n    mark, shared = {n}, []\n    def __init__(self, *own): self.own = [*own, {n}]
class C:\n    shared = {l}\n    def bump(self): self.shared.append({n}); return self
class D(C):\n    def bump(self): {l}.append({n}); return super().bump()
class {x}:\n    kept = {y}\n    @property\n    def p(self): return self.kept\n    @staticmethod\n    def put(): {l}.append({n})
def {x}(): return {y}
"""  # noqa: E501 - one statement a line
ALIAS = r"""
{x} = {y}
{x} = {w} = {y}
{y}, {z} = {z}, {y}
{x} = {l}[0]
{x} = {l}[-1]
{x} = {l}[len({l}) // 2]
{x} = {l}[:]
{x} = {d}['k']
{x} = {t}[0]
{x} = {o}.own
{x} = {o}.p
{x} = {c}.shared
{x} = {o}.bump
{x} = {l}.append
{x} = {l}.pop
{x} = {d}.keys()
{x} = {d}.items()
{x} = type({o})
{x} = copy.copy({y})
{x} = copy.deepcopy({y})
{x} = {r}[2:5]
{x} = {r}[::-1]
{x} = {r}.T
{x} = {r}.reshape(-1)
{x} = {r}.view('u1')
{x} = {r}['p']
{x} = {r}.copy()
{x} = np.frombuffer({u}, 'u1')
{x} = {m}['n']
{x} = {m}['o'][0]
{x} = {m}.copy()
{x} = [{r}, {r}[1:]]
{x} = iter({l})
{x} = iter({d})
{x} = iter({s})
{x} = enumerate({l})
{x} = zip({l}, {q})
{x} = map({j}, {l})
{x} = (v for v in {l})
{l}.append({y})
{l}[0] = {y}
{l} += [{y}]
{l}.extend({q}[:2])
{d}['k'] = {y}
{d}[{n}] = {y}
{d}.update(l={y})
{o}.p = {y}
{o}.own = {l}
{o}.shared = {l}
{c}.shared = {l}
{c}.extra = {y}
{f}.note = {y}
{m}.attrs['k'] = {y}
globals()['{x}'] = {y}
globals().update({x}={y})
exec('{x} = {y}')
"""
MUTATE = r"""
{l}.append({n})
{l}.insert(0, {n})
{l}.reverse()
{l}.sort()
{l}.sort(key=lambda v: type(v).__name__)
{l}.pop()
del {l}[0]
{l}[:] = ({l} * 2)[:6]
{l}[0].append({n})
{l}[-1].clear()
{l}[len({l}) // 2] = {y}
{l}[len({l}) // 2].append({n})
del {l}[len({l}) // 2:]
{d}['k'].append({n})
{d}.setdefault('s', []).append({y})
{d}.pop('k', None)
{d}.clear()
{d} |= {{'u': {n}}}
del {d}['l']
{d}.move_to_end('k')
{t}[0].append({n})
{t}[0] += [{n}]
{s}.add({n})
{s}.discard({n})
{s} |= {{{n}, 'r'}}
{u}[0] = {n}
{o}.bump()
{o}.own.append({n})
{o}.p.append({n})
{o}.mark = {n}
{o}.__init__({y})
del {o}.p
del {o}.own
{o}.__class__ = D
{c}.mark = {n}
{c}.shared.append({n})
{c}.bump = lambda self: self.own.append({n})
{r}[1] = 7
{r} += 1
{r}[...] = {n}
{r}.flat[0] = {n}
{r}.sort()
{r}[:] = {p}
{r}.flags.writeable = False
{m}.loc[0, 'n'] = {n}
{m}['n'] += 1
{m}['e'] = {n}
{m}['o'][0].append({n})
"""
CALL = r"""
{j}({y})
{x} = {j}({y})
{l}[-1]({n})
{x} = next({i}, None)
{l}.extend(itertools.islice({i}, 2))
def {x}(): {l}.append({n})\n{x}()
def {x}(): {d}['k'] = {y}\n{x}()
def {x}(v): {l}.append(v); return v
def {x}(v): v.append({l}); return {l}
def {x}(acc=[]):\n    acc.append({n})\n    return acc
def {x}(*, acc={y}): acc.append({n}); return acc
def {x}():\n    global {l}\n    {l} = [*{l}[:3], {n}]\n{x}()
def {x}():\n    global {w}\n    {w} = {y}
def {x}():\n    for v in (1, 2):\n        {l}.append(v)\n        yield v
def make(v):\n    count = 0\n    def tick():\n        nonlocal count\n        count += 1; v.append(count)\n        return count\n    return tick, lambda: (count, v)\n{x}, {w} = make({l})
def make(v):\n    def put(w):\n        nonlocal v\n        v = w\n    return put, lambda: v\n{x}, {w} = make({y})
def deco(fn):\n    calls = []\n    @functools.wraps(fn)\n    def inner(*args):\n        calls.append(len(calls)); {l}.append({n})\n        return fn(*args)\n    inner.calls = calls\n    return inner\n{x} = deco({f})
{x} = [lambda v=v: {l}.append(v) for v in (1, 2)]
{x} = {{'k': lambda: {l}.append({n}), 'go': {f}}}
{x} = functools.partial({j}, {y})
{x} = functools.partial(list.append, {l})
{x} = functools.partial({f})
{x} = functools.partial(eval, '{l}.append({n})', None)
{x} = functools.partial(exec, '{l}.append({n})', None)
{x} = C.bump
operator.hook = {f}
operator.hook = {l}
operator.hook()
operator.hook.append({n})
"""  # noqa: E501 - one statement a line
ACT = r"""
{f}()
{f}()
{f}()
{x} = {f}()
{j}({n})
{d}['k']()
{l}[0]()
{l}[0].bump()
{o}.bump()
{c}.bump()
{x} = {c}()
next({i})
"""
"""What may change values without naming them. Some cells are only that."""
ODD = r"""
eval('{l}.append({n})')
exec('{l}.append({n})')
exec('def {x}(): {l}.append({n})'); {x}()
globals()['{l}'].append({n})
vars()['{x}'] = {y}
getattr({l}, 'app' 'end')({n})
operator.iadd({l}, [{n}])
operator.methodcaller('append', {n})({l})
list.append({l}, {y})
heapq.heappush({l}, {n})
bisect.insort({l}, {n})
[{l}.append(v) for v in (1, 2)]
any({l}.append(v) for v in (1, 2))
for v in (1, 2): {l}.append(v)
if (v := {l}): v.append({n})
match {l}:\n    case [_, *v]: v.append({n})
class Guard:\n    def __enter__(self): {l}.append('in'); return {l}\n    def __exit__(self, *args): {l}.append('out'); return True\nwith Guard() as {x}:\n    {x}.append({n}); raise ValueError
@contextlib.contextmanager\ndef guard():\n    {l}.append('in')\n    yield {l}\n    {l}.append('out')\nwith guard() as {x}: {x}.append({n})
with contextlib.suppress(Exception): {l}.append({n}); {l}.no
{l}.append({n}); raise ValueError('half way')
{l}.append({n}); {x} = nothing
assert {l}.append({n})
try:\n    {l}.append({n}); 1 / 0\nfinally: {l}.append('f')
try: raise KeyError({y})\nexcept KeyError as error: {x} = error
1 / 0
{n} + {n}
print({n})
del {y}
del {y}, {z}
"""  # noqa: E501 - one statement a line
OPEN = r"""
{x} = reversed({l})
{x} = {o}.__dict__
{u}.append({n})
{u} += b'z'
class {x}:\n    def __del__(self): {l}.append({n})\n{x} = {x}()
"""
"""What a session does not do as a plain namespace does, or not yet: only with KERNELREPL_OPEN=1."""
WITH_OPEN = os.environ.get("KERNELREPL_OPEN") == "1"
KINDS = tuple(
    [line.replace(r"\n", "\n") for line in lines.strip().splitlines()]
    for lines in (MAKE, ALIAS, MUTATE, CALL, ACT, ODD, OPEN)
)
WEIGHTS = tuple(itertools.chain(*map(itertools.repeat, KINDS, (3, 5, 5, 4, 2, 3, 3 * WITH_OPEN))))
ACTS = KINDS[4]

Choose = Callable[[Sequence[Any]], Any]


def program(choose: Choose, most_cells: int = 12) -> list[str]:
    """Cells of one to four statements; the first one is START."""
    reference = Reference()
    cells = [START + choose(LIBRARIES)]
    reference.run(cells[0])
    for _ in range(choose(range(3, most_cells + 1))):
        statements = []
        acts = choose(range(3)) == 0
        for _ in range(1 if acts else choose(range(1, 5))):
            statements.append(statement(choose, reference.space, ACTS if acts else choose(WEIGHTS)))
            if reference.run(statements[-1]):
                statements.append("v = 'never'")
                break
        cells.append("\n".join(statements))
    return cells


def statement(choose: Choose, space: Mapping[str, Any], texts: Sequence[str]) -> str:
    """One statement for which there is a value of every kind that it names."""
    fits = {kind: [] for kind in "ldtsocrmfjiuy"}  # type: dict[str, list[str]]
    for name in (*POOL, *"CDLN"):
        if name in space:
            for kind in kinds_of(space[name]):
                fits[kind].append(name)
    fits |= {"q": fits["l"], "z": fits["y"], "p": fits["r"], "x": list(POOL), "w": list(POOL), "n": list("34567")}
    usable = [
        text
        for text in texts
        if all(fits[hole] for hole in holes(text))
        and all(f"{lib}." not in text or lib in space for lib in ("np", "pd"))
    ]
    text: str = choose(usable) if usable else "{x} = []"
    return text.format(**{hole: choose(fits[hole]) for hole in holes(text)})


def holes(text: str) -> list[str]:
    return sorted({text[at + 1] for at in range(len(text) - 2) if text[at] == "{" and text[at + 2] == "}"} - {"{"})


def kinds_of(value: Any) -> Iterator[str]:
    """What a value may be used as."""
    if isinstance(value, Iterator):
        yield "i"  # in a list that it goes over it would begin again
        if not WITH_OPEN:
            return
    yield "y"
    kinds = {"l": list, "d": dict, "t": tuple, "s": set, "c": type, "u": bytearray}
    yield from (kind for kind, base in kinds.items() if isinstance(value, base))
    if type(value).__name__ == "ndarray":
        yield "r"
    if type(value).__name__ == "DataFrame":
        yield "m"
    if type(value).__module__ == "__main__":
        yield "o"
    if callable(value) and not isinstance(value, type):
        for kind, arguments in (("f", ()), ("j", (0,))):
            with contextlib.suppress(TypeError, ValueError):
                inspect.signature(value).bind(*arguments)
                yield kind


# The same program without a session


class Reference:
    """A plain namespace."""

    def __init__(self) -> None:
        self.space: dict[str, Any] = {"__name__": "__main__"}
        self.kill([])

    def kill(self, unsaved: Iterable[str]) -> None:
        """What a kernel takes with it: names that could not be saved, and what modules were given."""
        for name in unsaved:
            self.space.pop(name, None)
        vars(operator).pop("hook", None)

    def run(self, code: str) -> str:
        """Run code; returns the name of the error that it ended with, if any."""
        try:
            with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, "<cell>", "exec"), self.space)
        except Exception as error:  # noqa: BLE001 - it is compared with the one of the session
            return type(error).__name__
        return ""
