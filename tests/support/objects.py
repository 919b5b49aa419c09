"""Kinds of objects: how each is made of others, changed in place, and looked at without changing it.

Each line is `name :: setup :: make :: change :: look`, with `;;` for a new line. `v` is the object, `a` and `b` are
other objects or atoms, `n` a number. What a look gives is compared after a kill: atoms, built-in containers, and which
of the other objects it is.
"""

from __future__ import annotations

from dataclasses import dataclass

TABLE = r"""
list ::  :: [{a}, {b}] :: {v}.append({n}) :: {v}
list of lists ::  :: [[{a}], [{b}], [{a}]] :: {v}[0].append({b}) :: {v}
dict ::  :: {{'k': {a}, 'l': {b}}} :: {v}['m'] = {a} :: {v}
dict of tuples ::  :: {{(1, 'x'): {a}, (2,): ({b}, {a})}} :: {v}[{n},] = {b} :: {v}
tuple with a list ::  :: ([{n}], {a}, {b}) :: {v}[0].append({b}) :: {v}
set ::  :: {{{n}, 'x', (1, 2)}} :: {v}.add(({n}, 'z')) :: sorted(map(repr, {v}))
frozenset in a list ::  :: [frozenset({{{n}, 'y'}}), {a}] :: {v}[1:] = [{b}] :: [sorted(map(repr, {v}[0])), {v}[1]]
bytearray ::  :: bytearray(b'abc') :: {v}.extend(b'de') :: bytes({v})
memoryview of a bytearray ::  :: (lambda b: [b, memoryview(b)])(bytearray(b'abcd')) :: {v}[1][0] = 90 :: [bytes({v}[0]), bytes({v}[1])]
list in itself ::  :: (lambda l: (l.append(l), l)[1])([{a}]) :: {v}.append({b}) :: [{v}[0], {v}[1] is {v}, {v}[2:]]
deque :: import collections :: collections.deque([{a}, {b}], maxlen=4) :: {v}.rotate(); {v}.append({n}) :: [list({v}), {v}.maxlen]
defaultdict :: import collections :: collections.defaultdict(list, k=[{a}]) :: {v}['q'].append({b}) :: [dict({v}), {v}.default_factory is list]
OrderedDict :: import collections :: collections.OrderedDict(k={a}, l={b}) :: {v}.move_to_end('k') :: list({v}.items())
Counter :: import collections :: collections.Counter('abca') :: {v}.update('zz') :: sorted({v}.items())
ChainMap :: import collections :: collections.ChainMap({{'k': {a}}}, {{'k': {b}, 'z': {n}}}) :: {v}['n'] = {n} :: list({v}.maps)
UserDict :: import collections :: collections.UserDict(k={a}) :: {v}['z'] = {b} :: {v}.data
UserList :: import collections :: collections.UserList([{a}]) :: {v}.append({b}) :: {v}.data
SimpleNamespace :: import types :: types.SimpleNamespace(p={a}, q={b}) :: {v}.r = {n} :: vars({v})
namedtuple :: import collections;;Point = collections.namedtuple('Point', 'x y') :: Point([{a}], {b}) :: {v}.x.append({n}) :: [{v}.x, {v}.y, type({v}) is Point]
array :: import array :: array.array('d', [1.5, {n}]) :: {v}.append(2.5) :: [{v}.typecode, list({v})]
heap :: import heapq :: [1, 3, 2, {n}] :: heapq.heapify({v}); heapq.heappush({v}, 0) :: {v}
queue :: import queue :: queue.Queue() :: {v}.put({a}); {v}.put({n}) :: list({v}.queue)
lock :: import threading :: threading.Lock() :: pass :: {v}.locked()
event :: import threading :: threading.Event() :: {v}.set() :: {v}.is_set()
thread-local :: import threading :: threading.local() :: {v}.p = {a} :: {v}.p
datetime :: import datetime :: [datetime.datetime(2020, 1, {n} + 1, tzinfo=datetime.timezone.utc), {a}] :: {v}.append(datetime.timedelta({n})) :: [*map(str, {v}[::2]), {v}[1]]
Decimal :: import decimal :: [decimal.Decimal('1.50'), {a}] :: {v}[1] = decimal.Decimal({n}) :: list(map(str, {v}))
Fraction :: import fractions :: {{'f': fractions.Fraction(1, 3)}} :: {v}['f'] += {n} :: str({v}['f'])
Path :: import pathlib :: [pathlib.PurePosixPath('/a/b'), {a}] :: {v}[0] /= 'c' :: [str({v}[0]), {v}[1]]
pattern :: import re :: [re.compile('a(b)?', re.I), {a}] :: {v}.append(re.match('x', 'xy')) :: [{v}[0].pattern, {v}[0].flags, {v}[2].span()]
StringIO :: import io :: io.StringIO('abc') :: {v}.read(1); {v}.write('Z') :: [{v}.getvalue(), {v}.tell()]
BytesIO :: import io :: io.BytesIO(b'abc') :: {v}.read(2) :: [{v}.getvalue(), {v}.tell()]
Random :: import random :: random.Random({n}) :: {v}.random() :: str({v}.getstate())
count :: import itertools :: itertools.count({n}) :: next({v}) :: repr({v})
iterator over a list ::  :: iter([1, {a}, {b}]) :: next({v}) :: {v}.__reduce__()[1:]
enumerate ::  :: enumerate([{a}, {b}], {n}) :: next({v}) :: {v}.__reduce__()[1][1]
zip ::  :: zip([1, 2], [{a}, {b}]) :: next({v}) :: [one.__reduce__()[2] for one in {v}.__reduce__()[1]]
generator ::  :: (x for x in [1, 2, {n}]) :: next({v}) :: {v}.gi_frame.f_lasti
generator function in a list :: def counting(n):;;    while True: n += 1; yield n :: [counting({n})] :: next({v}[0]) :: {v}[0].gi_frame.f_locals['n']
partial :: import functools;;def added(*a, **k): return a, k :: functools.partial(added, {a}, k={b}) :: {v}.note = {n} :: [{v}.func is added, {v}.args, {v}.keywords, vars({v})]
partial of a method :: import functools :: functools.partial([{a}].append, {b}) :: {v}() :: {v}.func.__self__
cached function :: import functools :: functools.cache(lambda x, seen=[{a}]: seen.append(x)) :: {v}({n}) :: {v}.__wrapped__.__defaults__
itemgetter :: import operator :: [operator.itemgetter(1, 'k'), operator.attrgetter('x'), {a}] :: {v}.append(operator.methodcaller('pop', 1)) :: list(map(repr, {v}[:2]))
slices ::  :: [slice(1, {n}), range({n}), Ellipsis, NotImplemented, {a}] :: {v}.append(slice({n})) :: list(map(repr, {v}[:4])) + {v}[5:]
proxy of a dict :: import types :: (lambda d: [d, types.MappingProxyType(d)])({{'k': {a}}}) :: {v}[0]['z'] = {b} :: [{v}[0], dict({v}[1])]
weak reference :: import weakref;;class Target: pass :: (lambda t: [t, weakref.ref(t)])(Target()) :: {v}[0].p = {a} :: [{v}[1]() is {v}[0], vars({v}[0])]
weak dictionary :: import weakref;;class Kept: pass :: (lambda t: [t, weakref.WeakValueDictionary(k=t)])(Kept()) :: {v}[0].p = {a}; {v}[1]['z'] = {v}[0] :: [sorted({v}[1]), {v}[1]['k'] is {v}[0]]
weak keys :: import weakref;;class Key: pass :: (lambda t: [t, weakref.WeakKeyDictionary({{t: {a}}})])(Key()) :: {v}[1][{v}[0]] = {b} :: list({v}[1].values())
weak set :: import weakref;;class Member: pass :: (lambda t: [t, weakref.WeakSet([t])])(Member()) :: {v}[0].q = {n} :: [{v}[0] in {v}[1], {v}[0].q]
exception ::  :: ValueError({a}, {n}) :: {v}.add_note('noted'); {v}.extra = {b} :: [{v}.args, {v}.__notes__, {v}.extra]
caused exception ::  :: (lambda e, c: (setattr(e, '__cause__', c), e)[1])(KeyError({n}), OSError(2, 'no')) :: {v}.__cause__.p = {a} :: [{v}.args, {v}.__cause__.errno, {v}.__cause__.p]
group of exceptions ::  :: ExceptionGroup('g', [ValueError({n}), TypeError('t')]) :: {v}.add_note('x') :: [{v}.message, [e.args for e in {v}.exceptions], {v}.__notes__]
instance :: class Plain:;;    def __init__(self, p): self.p = p :: Plain({a}) :: {v}.q = [{v}.p, {b}] :: [vars({v}), type({v}) is Plain]
slots :: class Slots:;;    __slots__ = ('p', 'q');;    def __init__(self, p): self.p = p :: Slots({a}) :: {v}.q = {b} :: [{v}.p, {v}.q]
slots and a dict :: class Half:;;    __slots__ = ('p', '__dict__') :: Half() :: {v}.p = {a}; {v}.free = {b} :: [{v}.p, {v}.free]
slots by inheritance :: class Base:;;    __slots__ = ('p',);;class Derived(Base):;;    __slots__ = ('q', '__weakref__') :: Derived() :: {v}.p, {v}.q = {a}, {b} :: [{v}.p, {v}.q]
dataclass :: import dataclasses;;@dataclasses.dataclass;;class Data:;;    p: object;;    q: list = dataclasses.field(default_factory=list) :: Data({a}) :: {v}.q.append({b}) :: [{v}.p, {v}.q, [f.name for f in dataclasses.fields({v})]]
frozen dataclass :: import dataclasses;;@dataclasses.dataclass(frozen=True, slots=True);;class Frozen:;;    p: list :: Frozen([{a}]) :: {v}.p.append({b}) :: {v}.p
ordered dataclass :: import dataclasses;;@dataclasses.dataclass(order=True);;class Ordered:;;    p: int;;    q: object = dataclasses.field(compare=False) :: [Ordered(2, {a}), Ordered(1, {b})] :: {v}.sort(key=lambda o: o.p) :: [[o.p, o.q] for o in {v}]
enumeration :: import enum;;class Colour(enum.Enum):;;    RED = 1;;    BLUE = 'b' :: [Colour.RED, {a}] :: {v}.append(Colour.BLUE) :: [{v}[0] is Colour.RED, {v}[1], [c.name for c in {v}[2:]]]
flags :: import enum;;class Mode(enum.Flag):;;    R = 1;;    W = 2 :: {{'m': Mode.R}} :: {v}['m'] |= Mode.W :: [{v}['m'].value, isinstance({v}['m'], Mode)]
named tuple of a class :: import typing;;class Pair(typing.NamedTuple):;;    p: object;;    q: int = 3 :: Pair([{a}]) :: {v}.p.append({n}) :: [{v}.p, {v}.q]
property :: class Guarded:;;    _p = None;;    @property;;    def p(self): return self._p;;    @p.setter;;    def p(self, value): self._p = [value] :: Guarded() :: {v}.p = {a} :: [{v}.p, vars({v})]
descriptor :: class Typed:;;    def __set_name__(self, owner, name): self.name = '_' + name;;    def __get__(self, o, t): return self if o is None else o.__dict__[self.name];;    def __set__(self, o, value): o.__dict__[self.name] = value;;class Field:;;    p = Typed() :: Field() :: {v}.p = {a} :: [{v}.p, sorted(vars({v}))]
cached property :: import functools;;class Lazy:;;    @functools.cached_property;;    def p(self): return [1] :: Lazy() :: {v}.p.append({a}) :: {v}.p
metaclass :: class Meta(type):;;    made = [];;    def __call__(cls, *a): o = super().__call__(*a); cls.made.append(len(cls.made)); return o;;class Counted(metaclass=Meta):;;    pass :: [Counted(), Counted] :: {v}[1]() :: [Meta.made, type({v}[0]) is {v}[1]]
attribute of a class :: class Shared:;;    all = [] :: Shared() :: {v}.all.append({n}); Shared.more = {n} :: [{v}.all is Shared.all, {v}.all, Shared.more]
subclass of list :: class Stack(list):;;    note = None :: Stack([{a}]) :: {v}.append({b}); {v}.note = {n} :: [list({v}), {v}.note]
subclass of dict :: class Attrs(dict):;;    def __getattr__(self, name):;;        if name in self: return self[name];;        raise AttributeError(name);;    def __setattr__(self, name, value): self[name] = value :: Attrs(p={a}) :: {v}.q = {b} :: dict({v})
subclass of int :: class Tagged(int): pass :: Tagged({n}) :: {v}.tag = {a} :: [int({v}), {v}.tag]
subclass of str :: class Text(str): pass :: Text('t') :: {v}.tag = {a} :: [str({v}), {v}.tag]
callable :: class Adder:;;    def __init__(self): self.seen = [];;    def __call__(self, x): self.seen.append(x) :: Adder() :: {v}({a}) :: {v}.seen
hashed by itself :: class Hashed:;;    def __init__(self, k): self.k = k;;    def __hash__(self): return hash(self.k);;    def __eq__(self, o): return self.k == o.k :: {{Hashed('h'): {a}}} :: {v}[Hashed('i')] = {b} :: [{v}[Hashed('h')], {v}[Hashed('i')]]
with state of its own :: class Stated:;;    def __init__(self): self.p, self.open = [], lambda: 0;;    def __getstate__(self): return self.p;;    def __setstate__(self, p): self.p, self.open = p, lambda: 0 :: Stated() :: {v}.p.append({a}) :: {v}.p
reduced :: class Reduced:;;    def __init__(self, p): self.p = p;;    def __reduce__(self): return Reduced, (self.p,) :: Reduced([{a}]) :: {v}.p.append({b}) :: {v}.p
cannot be loaded :: class Broken:;;    p = 0;;    def __setstate__(self, s): raise ValueError('no') :: Broken() :: {v}.p = {a} :: {v}.p
becomes what cannot be saved ::  :: [{a}] :: {v}.append(x for x in [1]) :: len({v})
closure :: def counter():;;    seen = [];;    def add(x): nonlocal seen; seen = [*seen, x]; return seen;;    return add :: counter() :: {v}({a}) :: {v}.__closure__[0].cell_contents
two closures :: def sharing():;;    box = [0];;    total = 0;;    def add(): nonlocal total; total += 1; box.append(total);;    def get(): return total, box;;    return [add, get] :: sharing() :: {v}[0]() :: {v}[1]()
lambda ::  :: lambda x=[{a}], *, y={b}: (x, y) :: {v}.__defaults__[0].append({n}); {v}.note = {a} :: [{v}(), {v}.note]
function of a text :: exec('def textual(x): return [x]') :: textual :: {v}.note = {a} :: {v}.note
bound method :: class Holder:;;    def __init__(self): self.kept = [];;    def keep(self, x): self.kept.append(x) :: Holder().keep :: {v}({a}) :: {v}.__self__.kept
method of a list ::  :: [{a}].append :: {v}({b}) :: {v}.__self__
class made by type ::  :: type('Made', (), {{'p': [{n}], 'f': lambda self: self.p}})() :: {v}.p.append({n}) :: [{v}.f(), type({v}).__name__]
generic class :: import typing;;T = typing.TypeVar('T');;class Box(typing.Generic[T]):;;    def __init__(self, p): self.p = p :: Box[int]({a}) :: {v}.p = [{v}.p] :: {v}.p
annotations :: import typing :: [typing.Optional[int], list[int], int|None, {a}] :: {v}.append(typing.Callable[[int], str]) :: list(map(str, [*{v}[:3], *{v}[4:]]))
variable of the context :: import contextvars :: contextvars.ContextVar('cv') :: {v}.set({n}) :: {v}.get()
future :: import asyncio :: asyncio.Queue() :: {v}.put_nowait({a}) :: {v}.qsize()
module by hand :: import types :: types.ModuleType('hand') :: {v}.p = {a} :: {v}.p
element of a tree :: import xml.etree.ElementTree as ET :: ET.fromstring('<a><b x="1"/></a>') :: {v}.append(ET.Element('c')); {v}[0].set('x', '2') :: ET.tostring({v}).decode()
message :: import email.message :: email.message.EmailMessage() :: {v}['Subject'] = 'x'; {v}.set_content('text') :: {v}.as_string()
configuration :: import configparser :: configparser.ConfigParser() :: {v}.read_string('[s]\nk = 1'); {v}['s']['l'] = '2' :: [dict({v}['s'])]
parser of arguments :: import argparse :: argparse.ArgumentParser(prog='p') :: {v}.add_argument('--x', type=int) :: vars({v}.parse_args(['--x', '3']))
struct :: import struct :: [struct.Struct('<ih'), {a}] :: {v}[1] = {v}[0].pack(1, 2) :: [{v}[0].format, {v}[1]]
hash :: import hashlib :: hashlib.sha256(b'a') :: {v}.update(b'b') :: {v}.hexdigest()
compressor :: import zlib :: zlib.compressobj() :: {v}.compress(b'x') :: len({v}.copy().flush())
zone :: import zoneinfo, datetime :: [zoneinfo.ZoneInfo('UTC'), {a}] :: {v}.append(datetime.datetime(2024, 7, 1, tzinfo={v}[0])) :: [str({v}[0]), {v}[2].isoformat()]
mock :: from unittest import mock :: mock.MagicMock(return_value={n}) :: {v}.attr.return_value = {n}; {v}(1) :: [{v}.call_count, {v}.attr()]
iterator of the session :: class Steps:;;    def __init__(self): self.i = 0;;    def __iter__(self): return self;;    def __next__(self): self.i += 1; return self.i :: Steps() :: next({v}) :: {v}.i
map over a function :: def doubled(x): return [x, x] :: map(doubled, [1, {a}, 3]) :: next({v}) :: [{v}.__reduce__()[1][0] is doubled, {v}.__reduce__()[1][1].__reduce__()[2]]
long list ::  :: [[i] for i in range(5000)] :: {v}[4321].append({a}) :: [len({v}), {v}[4321]]
long dict ::  :: {{i: [i] for i in range(5000)}} :: {v}[99].append({b}); del {v}[98] :: [len({v}), {v}[99]]
deep nesting ::  :: (lambda l: [l := [l] for _ in range(200)][-1])([{a}]) :: {v}.append({n}) :: [len({v}), str({v}).count('[')]
array of numpy :: import numpy as np :: np.arange(6.0) :: {v}[2] = {n} :: [{v}.tolist(), str({v}.dtype)]
views of numpy :: import numpy as np :: (lambda x: [x, x[1:4], x.reshape(2, 3)])(np.arange(6)) :: {v}[1][0] = 77 :: [x.tolist() for x in {v}] + [np.shares_memory({v}[0], {v}[2])]
objects in numpy :: import numpy as np :: np.array([{a}, None, {b}, [1]], dtype=object) :: {v}[3].append({n}) :: [{v}[0], {v}[1], {v}[2], {v}[3]]
structured array :: import numpy as np :: np.zeros(2, dtype=[('p', 'i4'), ('q', 'U3')]) :: {v}['q'][1] = 'xy' :: {v}.tolist()
masked array :: import numpy as np :: np.ma.array([1, 2, 3], mask=[0, 1, 0]) :: {v}[0] = np.ma.masked :: [{v}.mask.tolist(), {v}.filled(9).tolist()]
read-only array :: import numpy as np :: np.arange(3) :: {v}.flags.writeable = False :: [{v}.flags.writeable, {v}.tolist()]
Fortran array :: import numpy as np :: np.ones((2, 3), order='F') :: {v}[1, 2] = {n} :: [{v}.flags.f_contiguous, {v}.tolist()]
dates in numpy :: import numpy as np :: np.array(['2020-01-01', 'NaT'], 'M8[D]') :: {v}[1] = '2021-02-03' :: {v}.astype(str).tolist()
generator of numpy :: import numpy as np :: np.random.default_rng({n}) :: {v}.random() :: str({v}.bit_generator.state)
two users of one generator :: import numpy as np :: (lambda g: [np.random.Generator(g), g])(np.random.PCG64({n})) :: {v}[0].random() :: [str({v}[1].state), {v}[0].bit_generator is {v}[1]]
scalar of numpy :: import numpy as np :: [np.float32(1.5), np.int8({n}), {a}] :: {v}[0] += 1 :: [str({v}[0].dtype), float({v}[0])]
polynomial :: import numpy as np :: np.poly1d([1, 2]) :: {v}[3] = {n} :: {v}.coeffs.tolist()
subclass of an array :: import numpy as np;;class Unit(np.ndarray):;;    unit = None :: np.arange(3).view(Unit) :: {v}.unit = 'm'; {v}[0] = {n} :: [{v}.tolist(), {v}.unit]
frame :: import pandas as pd :: pd.DataFrame({{'n': [1, {n}], 's': ['x', 'y']}}) :: {v}['z'] = 1.5; {v}.loc[0, 'n'] = 7 :: [{v}.to_dict('list'), {v}.dtypes.astype(str).tolist()]
frame with objects :: import pandas as pd :: pd.DataFrame({{'o': pd.Series([[1], {{'k': 2}}], dtype=object)}}) :: {v}['o'][0].append({n}) :: {v}['o'].tolist()
attributes of a frame :: import pandas as pd :: pd.DataFrame({{'n': [1]}}) :: {v}.attrs['k'] = {n}; {v}.index.name = 'i' :: [{v}.attrs, {v}.index.name]
frame with an index :: import pandas as pd :: pd.DataFrame({{'n': [1, 2]}}, index=pd.MultiIndex.from_tuples([(1, 'x'), (2, 'y')], names=['p', 'q'])) :: {v}.drop((1, 'x'), inplace=True) :: [{v}.index.tolist(), {v}.index.names == ['p', 'q'], {v}['n'].tolist()]
series of categories :: import pandas as pd :: pd.Series(['x', 'y'], dtype='category') :: {v}.iloc[0] = 'y' :: [{v}.tolist(), {v}.cat.categories.tolist()]
series of times :: import pandas as pd :: pd.Series(pd.date_range('2020', periods=2, tz='UTC', freq='D')) :: {v}.iloc[0] = pd.Timestamp('2021', tz='UTC') :: [str({v}.dtype), {v}.astype(str).tolist()]
nullable series :: import pandas as pd :: pd.Series([1, None], dtype='Int64') :: {v}.iloc[0] = {n} :: [{v}.astype(str).tolist(), str({v}.dtype)]
groups :: import pandas as pd :: (lambda f: [f, f.groupby('k')])(pd.DataFrame({{'k': [1, 1, 2], 'n': [1, 2, 3]}})) :: {v}.append({a}) :: [{v}[1]['n'].sum().tolist(), {v}[2:]]
periods and intervals :: import pandas as pd :: [pd.Period('2020-01'), pd.Interval(0, 1), pd.NaT, pd.NA, {a}] :: {v}[0] += {n} :: list(map(str, {v}[:4]))
sparse matrix :: import scipy.sparse as sp :: sp.lil_matrix((2, 2)) :: {v}[0, 1] = {n} :: {v}.toarray().tolist()
estimator :: import sklearn.linear_model as lm :: lm.LinearRegression() :: {v}.fit([[0], [1]], [0, 2]) :: {v}.coef_.round(6).tolist()
pipeline :: import sklearn.pipeline, sklearn.preprocessing as pre :: sklearn.pipeline.make_pipeline(pre.StandardScaler()) :: {v}.fit([[0.0], [2.0]]) :: {v}[0].mean_.tolist()
figure :: import matplotlib.figure :: matplotlib.figure.Figure() :: {v}.subplots().plot([1, {n}]) :: [line.get_ydata().tolist() if hasattr(line.get_ydata(), 'tolist') else line.get_ydata() for axes in {v}.axes for line in axes.lines]
table of arrow :: import pyarrow as pa :: [pa.table({{'n': [1, 2]}}), {a}] :: {v}[0] = {v}[0].append_column('m', pa.array([3, 4])) :: {v}[0].to_pydict()
figure of plotly :: import plotly.graph_objects as go :: go.Figure(go.Scatter(y=[1, 2])) :: {v}.update_layout(title='t') :: [{v}.layout.title.text, list({v}.data[0].y)]
image :: import PIL.Image :: PIL.Image.new('L', (2, 2)) :: {v}.putpixel((0, 1), 200) :: list({v}.tobytes())
expression of sympy :: import sympy :: [sympy.Symbol('x', positive=True), {a}] :: {v}.append({v}[0] ** 2 + 1) :: [str({v}[2]), {v}[0].is_positive]
graph :: import networkx as nx :: nx.Graph([(1, 2)]) :: {v}.add_edge(2, 3, weight={n}) :: sorted({v}.edges(data=True))
frame of polars :: import polars as pl :: [pl.DataFrame({{'n': [1, 2]}}), {a}] :: {v}[0] = {v}[0].with_columns(m=pl.col('n') * 2) :: {v}[0].to_dict(as_series=False)
dataset of xarray :: import xarray as xr :: xr.DataArray([1, 2], dims='x', attrs={{'k': 1}}) :: {v}[0] = {n}; {v}.attrs['l'] = 2 :: [{v}.values.tolist(), {v}.attrs]
"""  # noqa: E501 - one kind a line


@dataclass(frozen=True)
class Kind:
    """One kind of object, as templates."""

    name: str
    setup: str
    make: str
    change: str
    look: str


def _kind(line: str) -> Kind:
    name, setup, make, change, look = (part.strip() for part in line.split(" :: ", 4))
    return Kind(name, setup.replace(";;", "\n"), make, change, look)


KINDS = [_kind(line) for line in TABLE.strip().splitlines()]

DESCRIBE = """
def _describe(looks):
    named, found = {}, {}
    def walk(value, depth=0):
        kind = type(value)
        if kind in (int, float, complex, bool, str, bytes, type(None)):
            return repr(value)
        if id(value) in named and depth:
            return named[id(value)]
        if depth > 8:
            return '...'
        if kind in (list, tuple):
            return f"{kind.__name__}({', '.join(walk(one, depth + 1) for one in value)})"
        if kind is dict:
            return '{' + ', '.join(f'{walk(k, depth + 1)}: {walk(v, depth + 1)}' for k, v in value.items()) + '}'
        return f'<{kind.__name__}>'
    for name, (value, _) in looks.items():
        named.setdefault(id(value), name)
    for name, (value, look) in looks.items():
        try:
            seen = look()
            found[name] = walk(seen, 0 if seen is value else 1) if id(seen) in named else walk(seen)
        except Exception as error:
            found[name] = f'{type(error).__name__}: {error}'
    return found
"""
"""What each object says of itself, and which of the others it holds."""
