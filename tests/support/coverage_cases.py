"""Classes of the standard library and of scientific ones: how to make one, how to change it, what to see of it.

`V` stands for the name. A case says what is promised: nothing means that it comes back equal, a text that the reply
names it as not saved, with that text in the reason.
"""

# ruff: noqa: E501 (one case a line)

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One class."""

    kind: str
    make: str
    change: str
    see: str = "V"
    not_saved: str = ""


STANDARD = {
    "builtins": """
        int | V = 5 | V += 1 | V
        big int | V = 10**400 | V += 1 | V
        float | V = float('nan') | V = -0.0 | repr(V)
        complex | V = 1+2j | V *= 2 | V
        bool | V = True | V = not V | V
        str | V = 'ä\\ud800' | V += 'z' | ascii(V)
        bytes | V = b'ab' * 9000 | V += b'c' | len(V), V[-1]
        bytearray | V = bytearray(b'ab') | V.append(3) | V
        list | V = [1, [2]] | V[1].append(3) | V
        tuple | V = (1, [2]) | V[1].append(3) | V
        dict | V = {1: [2]} | V[1].append(3) | V
        set | V = {1, 2} | V.add(3) | V
        frozenset | V = frozenset({1}) | V |= {2} | V
        range | V = range(3) | V = range(4) | V
        slice | V = slice(1, 2) | V = slice(1, 3) | V
        NoneType | V = None | V = [None] | V
        ellipsis | V = ... | V = [V] | V
        NotImplementedType | V = NotImplemented | V = [V] | V
        object | V = object() | V = [V, V] | type(V).__name__, type(V) is list and V[0] is V[1]
        type | V = type('T', (), {'n': 1}) | V.n = 2 | V.n
        property | V = property(lambda self: 1, doc='d') | V = V.getter(lambda self: 2) | V.fget(None), V.__doc__
        staticmethod | V = staticmethod(len) | V = staticmethod(max) | V([1, 2])
        classmethod | V = classmethod(lambda cls: 1) | V = classmethod(lambda cls: 2) | V.__func__(None)
        function | V = lambda x: x + 1 | V.note = 'n' | V(1), V.__dict__
        method | V = [1].append | V(2) | V.__self__
        builtin function | V = len | V = max | V([3, 4])
        module | import json.decoder as V | V = [V] | str(V)[:30]
        dict_keys | _d = {1: 2}; V = _d.keys() | V = {1: 2, 3: 4}.keys() | V
        dict_values | V = {1: 2}.values() | V = {1: 2, 3: 4}.values() | list(V)
        dict_items | V = {1: 2}.items() | V = {1: 2, 3: 4}.items() | V
        list_iterator | V = iter([1, 2, 3]) | next(V) | V.__reduce__()[1:]
        tuple_iterator | V = iter((1, 2)) | next(V) | V.__reduce__()[1:]
        str_iterator | V = iter('abc') | next(V) | V.__reduce__()[1:]
        range_iterator | V = iter(range(5)) | next(V) | V.__length_hint__()
        enumerate | V = enumerate('ab') | next(V) | V.__reduce__()[1][1]
        reversed | V = reversed([1, 2]) | next(V) | V.__length_hint__()
        zip | V = zip([1, 2], 'ab') | next(V) | type(V).__name__
        map | V = map(len, ['a', 'bb']) | next(V) | type(V).__name__
        filter | V = filter(None, [0, 1, 2]) | next(V) | type(V).__name__
        generator | V = (i for i in 'ab') | next(V) | next(V) ! generator
        memoryview | V = memoryview(b'ab') | V = V[1:] | bytes(V) ! memoryview
        BaseException | V = ValueError('a', 1) | V.note = 2 | V.args, V.__dict__
        ExceptionGroup | V = ExceptionGroup('g', [KeyError('k')]) | V.add_note('n') | V.exceptions[0].args, getattr(V, '__notes__', 0)
        MappingProxyType | import types; V = types.MappingProxyType({1: 2}) | V = types.MappingProxyType({1: 3}) | dict(V)
        SimpleNamespace | import types; V = types.SimpleNamespace(a=1) | V.b = [V] | V.a, vars(V).keys()
        GenericAlias | V = list[int] | V = dict[str, V] | V
        UnionType | V = int | V = int or str | V
        cell | import types; V = types.CellType(1) | V.cell_contents = [2] | V.cell_contents
        code | V = compile('1 + 1', 'f', 'eval') | V = compile('2 + 2', 'f', 'eval') | eval(V)
    """,
    "collections and functools": """
        Counter | from collections import *; V = Counter('aab') | V['c'] += 2 | V
        OrderedDict | V = OrderedDict(a=1, b=2) | V.move_to_end('a') | V
        defaultdict | V = defaultdict(list) | V['x'].append(1) | V
        deque | V = deque([1, 2], 3) | V.extend([3, 4]) | V, V.maxlen
        ChainMap | V = ChainMap({1: 2}, {3: 4}) | V[5] = 6 | V
        UserDict | V = UserDict(a=1) | V['b'] = 2 | V
        UserList | V = UserList([1]) | V.append(2) | V
        UserString | V = UserString('a') | V += 'b' | V
        namedtuple | P = namedtuple('P', 'x y'); V = P(1, []) | V.y.append(1) | V, V.x
        array | import array; V = array.array('d', [1, 2]) | V.append(3) | V
        partial | import functools; V = functools.partial(int, base=2) | V = functools.partial(V, '11') | V.func, V.args, V.keywords
        partialmethod | V = functools.partialmethod(int, 1) | V = functools.partialmethod(int, 2) | V.args
        lru_cache | V = functools.lru_cache(lambda x: [x]) | V(1) | V(2), V.cache_parameters()
        singledispatch | V = functools.singledispatch(lambda x: 'any') | V.register(int, lambda x: 'int') | V(1), V('a')
        cached_property | V = functools.cached_property(len) | V = functools.cached_property(max) | V.func
        cmp_to_key | V = functools.cmp_to_key(lambda a, b: b - a) | V = functools.cmp_to_key(lambda a, b: a - b) | sorted([1, 3, 2], key=V)
        count | import itertools; V = itertools.count(3, 2) | next(V) | V
        cycle | V = itertools.cycle([1, 2]) | next(V) | type(V).__name__
        chain | V = itertools.chain([1], [2]) | next(V) | type(V).__name__
        islice | V = itertools.islice([1, 2, 3], 2) | next(V) | type(V).__name__
        repeat | V = itertools.repeat(7, 3) | next(V) | V
        accumulate | V = itertools.accumulate([1, 2, 3]) | next(V) | type(V).__name__
        product | V = itertools.product('ab', 'cd') | next(V) | type(V).__name__
        permutations | V = itertools.permutations('abc') | next(V) | type(V).__name__
        attrgetter | import operator; V = operator.attrgetter('real') | V = operator.attrgetter('imag') | V(1+2j)
        itemgetter | V = operator.itemgetter(1) | V = operator.itemgetter(0, 1) | V('ab')
        methodcaller | V = operator.methodcaller('upper') | V = operator.methodcaller('lower') | V('aB')
        Enum | import enum; E = enum.Enum('E', 'A B'); V = E.A | V = E.B | V, V is E.B
        Flag | F = enum.Flag('F', 'A B C'); V = F.A or F.B | V |= F.C | V.value
        dataclass | import dataclasses; D = dataclasses.make_dataclass('D', [('x', int)]); V = D(1) | V.x = [V.x] | V
        frozen dataclass | Z = dataclasses.make_dataclass('Z', [('x', list)], frozen=True); V = Z([]) | V.x.append(1) | V
    """,
    "values": """
        datetime | import datetime, zoneinfo; V = datetime.datetime(2026, 3, 29, 2, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')) | V += datetime.timedelta(1) | V, V.utcoffset()
        date | V = datetime.date(2026, 1, 1) | V = V.replace(day=2) | V
        time | V = datetime.time(1, 2, fold=1) | V = V.replace(hour=3) | V, V.fold
        timedelta | V = datetime.timedelta(1, 2, 3) | V *= 2 | V
        timezone | V = datetime.timezone(datetime.timedelta(hours=1), 'X') | V = datetime.timezone.utc | V, V is datetime.timezone.utc
        ZoneInfo | V = zoneinfo.ZoneInfo('Europe/Berlin') | V = zoneinfo.ZoneInfo('UTC') | V.key, V is zoneinfo.ZoneInfo(V.key)
        Decimal | import decimal; V = decimal.Decimal('1.10') | V += 1 | V
        Context | V = decimal.Context(prec=5) | V.prec = 6 | V.prec
        Fraction | import fractions; V = fractions.Fraction(1, 3) | V += 1 | V
        UUID | import uuid; V = uuid.UUID(int=5) | V = uuid.UUID(int=6) | V
        PurePosixPath | import pathlib; V = pathlib.PurePosixPath('/a') | V /= 'b' | V
        Path | V = pathlib.Path('a') | V /= 'b' | V
        Pattern | import re; V = re.compile('a+', re.I) | V = re.compile('b') | V, V.flags
        IPv4Address | import ipaddress; V = ipaddress.ip_address('10.0.0.1') | V += 1 | V
        IPv6Network | V = ipaddress.ip_network('fe80::/64') | V = ipaddress.ip_network('fe80::/65') | V
        Random | import random; V = random.Random(5) | V.random() | V.getstate()[1][-3:]
        SystemRandom | V = random.SystemRandom() | V = [V] | type(V).__name__
        Template | import string; V = string.Template('$a') | V = string.Template('$b') | V.substitute(a=1, b=2)
        Struct | import struct; V = struct.Struct('<i') | V = struct.Struct('<h') | V.size ! Struct
        NormalDist | import statistics; V = statistics.NormalDist(1, 2) | V += 1 | V
        JSONEncoder | import json; V = json.JSONEncoder(indent=1) | V = json.JSONEncoder(indent=2) | V.encode([1])
        ConfigParser | import configparser; V = configparser.ConfigParser() | V['s'] = {'a': '1'} | {s: dict(V[s]) for s in V}
        ArgumentParser | import argparse; V = argparse.ArgumentParser('p') | V.add_argument('--x', type=int) ; None | V.parse_known_args([])[0]
        Namespace | V = argparse.Namespace(a=1) | V.b = 2 | V
        Element | import xml.etree.ElementTree as ET; V = ET.fromstring('<a b="1"><c/></a>') | V.set('d', '2') | ET.tostring(V)
        ElementTree | V = ET.ElementTree(ET.fromstring('<a/>')) | V.getroot().text = 't' | ET.tostring(V.getroot())
        EmailMessage | import email.message; V = email.message.EmailMessage() | V['To'] = 'a@b' | V.as_string()
        SimpleCookie | import http.cookies; V = http.cookies.SimpleCookie('a=1') | V['b'] = '2' | V.output()
        ParseResult | import urllib.parse; V = urllib.parse.urlparse('http://a/b?c#d') | V = V._replace(path='/e') | V
        CompletedProcess | import subprocess; V = subprocess.CompletedProcess(['a'], 1) | V.returncode = 2 | V
        StringIO | import io; V = io.StringIO('abc') | V.read(1); V.write('X') | V.getvalue(), V.tell()
        BytesIO | V = io.BytesIO(b'abc') | V.seek(0, 2); V.write(b'd') | V.getvalue(), V.tell()
        Dialect | import csv; V = csv.excel() | V.delimiter = ';' | V.delimiter
        TextCalendar | import calendar; V = calendar.TextCalendar() | V.setfirstweekday(6) | V.firstweekday
        Logger | import logging; V = logging.getLogger('of.a.session') | V = V.getChild('x') | V.name, V is logging.getLogger(V.name)
        Formatter | V = logging.Formatter('%(message)s') | V = logging.Formatter('%(name)s') | V._fmt
        LogRecord | V = logging.makeLogRecord({'msg': 'a'}) | V.msg = 'b' | V.msg
        Future | import concurrent.futures; V = concurrent.futures.Future() | V.set_result(1) | V.result() ! a future
        Lock | import threading; V = threading.Lock() | V.acquire() | V.locked()
        RLock | V = threading.RLock() | V.acquire() | V._is_owned()
        Condition | V = threading.Condition() | V.acquire() | V._is_owned()
        Semaphore | V = threading.Semaphore(2) | V.acquire() | V._value
        Barrier | V = threading.Barrier(2) | V.abort() | V.parties, V.broken
        Event | V = threading.Event() | V.set() | V.is_set()
        Thread | V = threading.Thread(target=len) | V.name = 'n' | V.name ! thread
        Queue | import queue; V = queue.Queue() | V.put(1) | V.qsize()
        SimpleQueue | V = queue.SimpleQueue() | V.put(1) | V.qsize()
        scheduler | import sched; V = sched.scheduler() | V.enter(9, 1, print) | len(V.queue)
        socket | import socket; V = socket.socketpair() | V = V[:1] | len(V) ! connection
        hash | import hashlib; V = hashlib.sha256(b'a') | V.update(b'b') | V.hexdigest() ! hashlib
        ref | import weakref; class_ = type('W', (), {}); held = class_(); V = weakref.ref(held) | V = weakref.ref(class_) | V() ! weak reference
        WeakValueDictionary | V = weakref.WeakValueDictionary(a=held) | V['b'] = held | sorted(V), V['a'] is held
        WeakSet | V = weakref.WeakSet([held]) | V.add(class_) | len(V)
        file | V = open('f.txt', 'w') | V.write('x') | V.tell() ! file
        Connection | import sqlite3; V = sqlite3.connect(':memory:') | V.execute('create table t (a)') ; None | V.total_changes ! connection
        asyncio.Queue | import asyncio; V = asyncio.Queue() | V.put_nowait(1) | V.qsize()
        ContextVar | import contextvars; V = contextvars.ContextVar('c') | V.set(1) | V.name ! ContextVar
    """,
}
"""Of each group its cases: class, make, change, and what to see; after an exclamation mark the reason not to be saved."""

SCIENTIFIC = {
    "numpy": """
        ndarray | import numpy as np; V = np.arange(6.0).reshape(2, 3) | V[0, 0] = 9 | V.tolist(), V.dtype
        large ndarray | V = np.arange(100_000) | V[5] = -1 | int(V.sum()), V.shape
        Fortran order | V = np.asfortranarray(np.ones((3, 4))) | V[1, 1] = 2 | V.tolist(), V.flags.f_contiguous
        view | base = np.zeros(9); V = base[2:5] | V[0] = 7 | V.tolist(), base.tolist(), np.shares_memory(V, base)
        strided view | V = np.arange(20)[::-3] | V[0] = -5 | V.tolist()
        read-only | V = np.arange(3); V.flags.writeable = False | V = V + 1 | V.tolist(), V.flags.writeable
        structured | V = np.zeros(2, [('a', 'i4'), ('b', 'U3')]) | V['b'][1] = 'xyz' | V.tolist(), V.dtype
        object array | V = np.array([[1], 'a', None], dtype=object) | V[0].append(2) | V.tolist()
        datetime64 | V = np.array(['2026-01-01', 'NaT'], 'M8[D]') | V[1] = '2026-01-02' | V.astype(str).tolist()
        masked array | V = np.ma.array([1, 2, 3], mask=[0, 1, 0]) | V[2] = np.ma.masked | V.tolist(), V.mask.tolist()
        recarray | V = np.rec.array([(1, 'a')], names='x,y') | V.x[0] = 5 | V.tolist(), type(V).__name__
        matrix | V = np.matrix([[1, 2]]) | V[0, 1] = 5 | V.tolist(), type(V).__name__
        scalar | V = np.float32(1.5) | V = V * 2 | V, type(V).__name__
        dtype | V = np.dtype('f8') | V = np.dtype([('a', 'i2')]) | V
        broadcast | V = np.broadcast_to(np.arange(3), (2, 3)) | V = np.broadcast_to(np.arange(4), (2, 4)) | V.tolist()
        Generator | V = np.random.default_rng(1) | V.random() | V.bit_generator.state['state']
        RandomState | V = np.random.RandomState(1) | V.random() | V.get_state()[1][-3:].tolist(), V.get_state()[2]
        poly1d | V = np.poly1d([1, 2]) | V[2] = 5 | V.coeffs.tolist()
        Polynomial | V = np.polynomial.Polynomial([1, 2]) | V *= 2 | V.coef.tolist()
        vectorize | V = np.vectorize(lambda x: x + 1) | V = np.vectorize(lambda x: x + 2) | V([1]).tolist()
        ufunc | V = np.sin | V = np.cos | V(0)
        memmap | V = np.memmap('m.bin', 'u1', 'w+', shape=3) | V[0] = 1 | V.tolist() ! mapped file
        nditer | V = np.nditer(np.arange(3)) | next(V) | V.itersize ! nditer
    """,
    "pandas": """
        DataFrame | import pandas as pd, numpy as np; V = pd.DataFrame({'a': [1.0, np.nan], 'b': ['x', None]}) | V.loc[0, 'a'] = 5 | V.to_dict(), V.dtypes.astype(str).to_dict()
        mixed DataFrame | V = pd.DataFrame({'o': [[1], {'k': 2}], 'n': [1, 2]}) | V.loc[0, 'o'].append(3) | V.to_dict()
        attrs | V = pd.DataFrame({'a': [1]}) | V.attrs['why'] = [1] | V.attrs
        new column | V = pd.DataFrame({'a': [1, 2]}) | V['b'] = V.a * 2 | V.to_dict()
        Series | V = pd.Series([1, 2], name='s', index=['x', 'y']) | V['x'] = 9 | V.to_dict(), V.name
        string Series | V = pd.Series(['a', None, 'b'], dtype='string') | V[1] = 'z' | V.tolist(), str(V.dtype)
        Categorical | V = pd.Categorical(['a', 'b'], ordered=True) | V = V.add_categories('c') | V.tolist(), V.categories.tolist(), V.ordered
        Interval | V = pd.Interval(0, 1) | V = pd.Interval(0, 2, closed='both') | V
        Timestamp | V = pd.Timestamp('2026-03-29 02:30', tz='UTC') | V += pd.Timedelta('1h') | V, V.tz
        Timedelta | V = pd.Timedelta('1h') | V *= 2 | V
        Period | V = pd.Period('2026-01', 'M') | V += 1 | V
        NaT | V = pd.NaT | V = [V] | V, V is pd.NaT
        NA | V = pd.NA | V = [V] | V, V is pd.NA
        Index | V = pd.Index([1, 2], name='i') | V = V.append(pd.Index([3])) | V.tolist(), V.name
        RangeIndex | V = pd.RangeIndex(3) | V = pd.RangeIndex(4) | V
        MultiIndex | V = pd.MultiIndex.from_product([[1, 2], list('ab')]) | V = V.set_names(['x', 'y']) | V.tolist(), V.names
        DatetimeIndex | V = pd.date_range('2026-01-01', periods=3, freq='D', tz='Europe/Berlin') | V = V.shift(1) | V.astype(str).tolist(), V.freq
        IntervalIndex | V = pd.interval_range(0, 3) | V = V[:2] | V.astype(str).tolist()
        PeriodIndex | V = pd.period_range('2026-01', periods=2, freq='M') | V = V + 1 | V.astype(str).tolist()
        SparseArray | V = pd.arrays.SparseArray([0, 0, 1]) | V = pd.arrays.SparseArray([0, 2, 1]) | V.to_dense().tolist()
        IntegerArray | V = pd.array([1, None], dtype='Int64') | V[1] = 5 | V.tolist()
        DateOffset | V = pd.offsets.MonthEnd() | V = pd.offsets.MonthEnd(2) | V
        GroupBy | V = pd.DataFrame({'a': [1, 1, 2], 'b': [1, 2, 3]}).groupby('a') | V = V['b'] | V.sum().sum().tolist() if hasattr(V.sum().sum(), 'tolist') else V.sum().sum()
        Rolling | V = pd.Series([1, 2, 3]).rolling(2) | V = pd.Series([1, 2, 4]).rolling(2) | V.sum().tolist()[1:]
        CategoricalDtype | V = pd.CategoricalDtype(['a'], ordered=True) | V = pd.CategoricalDtype(['b']) | V
    """,
    "matplotlib": """
        Figure | import matplotlib.pyplot as plt, matplotlib as mpl; V, ax = plt.subplots(); ax.plot([1, 2]) | V.suptitle('t') | len(V.axes), V._suptitle and V._suptitle.get_text()
        Axes | fig, V = plt.subplots() | V.set_title('t') | V.get_title(), V.figure is fig
        Line2D | V = ax.lines[0] | V.set_color('red') | V.get_color(), V.axes is ax
        Colormap | V = mpl.colormaps['viridis'] | V = mpl.colormaps['magma'] | V.name, V(0.5)
        Normalize | V = mpl.colors.Normalize(0, 1) | V.vmax = 2 | V.vmin, V.vmax
        GridSpec | V = mpl.gridspec.GridSpec(2, 2) | V.update(wspace=0.5) | V.get_geometry(), V.wspace
    """,
    "scikit-learn": """
        LinearRegression | import numpy as np, sklearn.linear_model as lm; X = np.arange(12.0).reshape(6, 2); y = X @ [1, 2] + 1; V = lm.LinearRegression().fit(X, y) | V.fit(X, -y) | np.round(V.predict(X), 6).tolist()
        LogisticRegression | V = lm.LogisticRegression().fit(X, y > 10) | V.set_params(C=2.0).fit(X, y > 12) | V.predict(X).tolist(), V.C
        RandomForestClassifier | import sklearn.ensemble as en; V = en.RandomForestClassifier(3, random_state=1).fit(X, y > 10) | V.fit(X, y > 14) | V.predict(X).tolist()
        GradientBoostingRegressor | V = en.GradientBoostingRegressor(n_estimators=3).fit(X, y) | V.fit(X, -y) | np.round(V.predict(X), 6).tolist()
        KMeans | import sklearn.cluster as cl; V = cl.KMeans(2, n_init=1, random_state=1).fit(X) | V.n_clusters = 3; V.fit(X) | V.predict(X).tolist()
        StandardScaler | import sklearn.preprocessing as pp; V = pp.StandardScaler().fit(X) | V.fit(X * 2) | V.mean_.tolist()
        OneHotEncoder | V = pp.OneHotEncoder().fit([['a'], ['b']]) | V.fit([['c']]) | V.categories_[0].tolist()
        PCA | import sklearn.decomposition as de; V = de.PCA(1).fit(X) | V.fit(X * 3) | np.round(V.explained_variance_, 6).tolist()
        SVC | import sklearn.svm; V = sklearn.svm.SVC().fit(X, y > 10) | V.fit(X, y > 14) | V.predict(X).tolist()
        DecisionTreeClassifier | import sklearn.tree; V = sklearn.tree.DecisionTreeClassifier().fit(X, y > 10) | V.fit(X, y > 14) | V.predict(X).tolist()
        KNeighborsClassifier | import sklearn.neighbors; V = sklearn.neighbors.KNeighborsClassifier(1).fit(X, y > 10) | V.fit(X, y > 14) | V.predict(X).tolist()
        Pipeline | import sklearn.pipeline; V = sklearn.pipeline.make_pipeline(pp.StandardScaler(), lm.Ridge()).fit(X, y) | V.fit(X, -y) | np.round(V.predict(X), 6).tolist()
        CountVectorizer | import sklearn.feature_extraction.text as te; V = te.CountVectorizer().fit(['a bb', 'bb ccc']) | V.fit(['dd']) | sorted(V.vocabulary_)
        csr_matrix | import scipy.sparse as sp; V = sp.csr_matrix([[0, 1], [2, 0]]) | V.data[0] = 9 | V.toarray().tolist(), V.format
        coo_array | V = sp.coo_array([[0, 1]]) | V.data[0] = 9 | V.toarray().tolist()
        lil_matrix | V = sp.lil_matrix((2, 2)) | V[0, 1] = 5 | V.toarray().tolist()
        interp1d | import scipy.interpolate as si; V = si.CubicSpline([0, 1, 2], [0, 1, 4]) | V = si.CubicSpline([0, 1, 2], [0, 2, 4]) | float(V(1.0))
        frozen distribution | import scipy.stats; V = scipy.stats.norm(1, 2) | V = scipy.stats.norm(2, 2) | V.mean()
        KDTree | import scipy.spatial; V = scipy.spatial.KDTree(X) | V = scipy.spatial.KDTree(X * 2) | V.query([[1, 1]])[1].tolist()
    """,
    "pyarrow": """
        Array | import pyarrow as pa; V = pa.array([1, None]) | V = pa.array([2]) | V.to_pylist()
        Table | V = pa.table({'a': [1, 2]}) | V = V.append_column('b', [[3, 4]]) | V.to_pydict()
        Schema | V = pa.schema([('a', pa.int32())]) | V = V.append(pa.field('b', pa.string())) | str(V)
        RecordBatch | V = pa.record_batch({'a': [1]}) | V = pa.record_batch({'a': [2]}) | V.to_pydict()
    """,
}
"""The same for libraries that may be missing."""


def cases(text: str) -> list[Case]:
    """One for each line."""
    found = []
    for line in text.strip().splitlines():
        kind, make, rest = line.strip().split(" | ", 2)
        change, _, see = rest.rpartition(" | ")
        see, _, reason = see.partition(" ! ")
        found.append(Case(kind, make.replace(" ; ", "; "), change.replace(" ; ", "; "), see, reason))
    return found
