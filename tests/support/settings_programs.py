"""Settings of Python and of libraries, and the many ways in which code comes to set one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """imports: what brings in the names. call: an expression that sets something. look: one that shows it."""

    imports: str
    call: str
    look: str
    own: str = ""
    """What the session must have made before."""


SETTINGS = {
    "decimal.prec": Setting("import decimal", "setattr(decimal.getcontext(), 'prec', 41)", "decimal.getcontext().prec"),
    "numpy.precision": Setting(
        "import numpy as np", "np.set_printoptions(precision=3)", "np.get_printoptions()['precision']"
    ),
    "numpy.errors": Setting("import numpy as np", "np.seterr(all='raise')", "np.geterr()"),
    "pandas.option": Setting(
        "import pandas as pd", "pd.set_option('display.max_rows', 7)", "pd.get_option('display.max_rows')"
    ),
    "pandas.attribute": Setting(
        "import pandas as pd", "setattr(pd.options.display, 'precision', 2)", "pd.options.display.precision"
    ),
    "matplotlib": Setting(
        "import matplotlib as mpl", "mpl.rcParams.update({'lines.linewidth': 9})", "mpl.rcParams['lines.linewidth']"
    ),
    "matplotlib in place": Setting(
        "import matplotlib as mpl", "mpl.rcParams['figure.figsize'].reverse()", "mpl.rcParams['figure.figsize']"
    ),
    "sklearn": Setting(
        "import sklearn", "sklearn.set_config(assume_finite=True)", "sklearn.get_config()['assume_finite']"
    ),
    "warnings": Setting(
        "import warnings", "warnings.filterwarnings('error', message='mine')", "warnings.filters[0][1].pattern"
    ),
    "logging level": Setting(
        "import logging", "logging.getLogger('p.q').setLevel(13)", "logging.getLogger('p.q').level"
    ),
    "logging disabled": Setting("import logging", "logging.disable(17)", "logging.root.manager.disable"),
    "recursion": Setting("import sys", "sys.setrecursionlimit(4321)", "sys.getrecursionlimit()"),
    "switch": Setting("import sys", "sys.setswitchinterval(0.25)", "sys.getswitchinterval()"),
    "locale": Setting("import locale", "locale.setlocale(locale.LC_ALL, 'C')", "locale.setlocale(locale.LC_ALL)"),
    "csv": Setting("import csv", "csv.register_dialect('semi', delimiter=';')", "'semi' in csv.list_dialects()"),
    "sockets": Setting("import socket", "socket.setdefaulttimeout(7)", "socket.getdefaulttimeout()"),
    "collector": Setting("import gc", "gc.set_threshold(5, 6, 7)", "gc.get_threshold()"),
    "umask": Setting("import os", "os.umask(0o77)", "[mask for mask in [os.umask(0)] if os.umask(mask) == 0]"),
    "weekday": Setting("import calendar", "calendar.setfirstweekday(6)", "calendar.firstweekday()"),
    "templates": Setting("import string", "setattr(string.Template, 'delimiter', '%')", "string.Template.delimiter"),
    "types of files": Setting("import mimetypes", "mimetypes.add_type('a/b', '.xy')", "mimetypes.guess_type('f.xy')"),
    "prefix of a namespace": Setting(
        "import xml.etree.ElementTree as et",
        "et.register_namespace('pp', 'http://p')",
        "et._namespace_map.get('http://p')",
    ),
    "format of archives": Setting(
        "import shutil",
        "shutil.register_archive_format('mine', pack)",
        "'mine' in dict(shutil.get_archive_formats())",
        own="def pack(*a, **k): pass",
    ),
    "method of pandas": Setting(
        "import pandas as pd",
        "setattr(pd.DataFrame, 'mine', mine)",
        "hasattr(pd.DataFrame, 'mine')",
        own="def mine(self): return 1",
    ),
    "accessor of pandas": Setting(
        "import pandas as pd",
        "pd.api.extensions.register_series_accessor('geo')(Geo)",
        "hasattr(pd.Series, 'geo')",
        own="class Geo:\n    def __init__(self, series): self.series = series",
    ),
    "method of requests": Setting(
        "import requests", "setattr(requests.Session, 'mine', 5)", "getattr(requests.Session, 'mine', 0)"
    ),
    "copyreg": Setting(
        "import copyreg",
        "copyreg.pickle(P, reduce)",
        "copyreg.dispatch_table.get(P) is reduce",
        own="class P: pass\ndef reduce(p): return (str, ('P',))",
    ),
    "adapter": Setting(
        "import sqlite3",
        "sqlite3.register_adapter(Q, adapt)",
        "[f is adapt for f in sqlite3.adapters.values()]",
        own="class Q: pass\ndef adapt(q): return 'q'",
    ),
    "abstract class": Setting(
        "import numbers", "numbers.Number.register(N)", "isinstance(N(), numbers.Number)", own="class N: pass"
    ),
    "signal": Setting(
        "import signal",
        "signal.signal(signal.SIGUSR1, on)",
        "signal.getsignal(signal.SIGUSR1) is on",
        own="def on(n, f): pass",
    ),
    "colormap": Setting(
        "import matplotlib as mpl, matplotlib.colors",
        "mpl.colormaps.register(mpl.colors.ListedColormap(['r'], name='mymap'))",
        "'mymap' in mpl.colormaps",
    ),
    "template of plotly": Setting(
        "import plotly.io as pio", "setattr(pio.templates, 'default', 'plotly_dark')", "pio.templates.default"
    ),
    "alias of an encoding": Setting(
        "import encodings.aliases",
        "encodings.aliases.aliases.update(my_x='utf_8')",
        "encodings.aliases.aliases.get('my_x')",
    ),
    "pixels of PIL": Setting(
        "import PIL.Image", "setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 5)", "PIL.Image.MAX_IMAGE_PIXELS"
    ),
    "threads of arrow": Setting("import pyarrow as pa", "pa.set_cpu_count(7)", "pa.cpu_count()"),
    "pool of arrow": Setting(
        "import pyarrow as pa", "pa.set_memory_pool(pa.system_memory_pool())", "pa.default_memory_pool().backend_name"
    ),
    "faults": Setting("import faulthandler", "faulthandler.enable()", "faulthandler.is_enabled()"),
    "limit": Setting(
        "import resource",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))",
        "resource.getrlimit(resource.RLIMIT_NOFILE)",
    ),
    "search of codecs": Setting(
        "import codecs",
        "codecs.register(search)",
        "found('my-enc')",
        own="import codecs as _c\ndef search(name, _=None): return _c.lookup('utf_8') if name == 'my_enc' else None\n"
        "def found(name):\n    try: return bool(_c.lookup(name))\n    except LookupError: return False",
    ),
    "event of IPython": Setting(
        "from IPython import get_ipython",
        "get_ipython().events.register('post_run_cell', done)",
        "done in get_ipython().events.callbacks['post_run_cell']",
        own="def done(*_): pass",
    ),
    "formatter of IPython": Setting(
        "from IPython import get_ipython",
        "get_ipython().display_formatter.formatters['text/html'].for_type(Z, show)",
        "get_ipython().display_formatter.formatters['text/html'].type_printers.get(Z) is show",
        own="class Z: pass\ndef show(z): return '<b>z</b>'",
    ),
    "trait of IPython": Setting(
        "from IPython import get_ipython",
        "setattr(get_ipython(), 'ast_node_interactivity', 'last')",
        "get_ipython().ast_node_interactivity",
    ),
    "networkx": Setting(
        "import networkx as nx", "setattr(nx.config, 'warnings_to_ignore', {'cache'})", "nx.config.warnings_to_ignore"
    ),
    "networkx within": Setting(
        "import networkx as nx", "nx.config.warnings_to_ignore.add('cache')", "nx.config.warnings_to_ignore"
    ),
    "xarray": Setting("import xarray as xr", "xr.set_options(display_width=50)", "xr.get_options()['display_width']"),
    "polars": Setting("import polars as pl", "pl.Config.set_tbl_rows(3)", "pl.Config.state()['POLARS_FMT_MAX_ROWS']"),
    "polars format": Setting(
        "import polars as pl", "pl.Config.set_fmt_float('full')", "pl.Config.state()['set_fmt_float']"
    ),
    "polars accessor": Setting(
        "import polars as pl",
        "pl.api.register_expr_namespace('geo')(Geo)",
        "hasattr(pl.Expr, 'geo')",
        own="class Geo:\n    def __init__(self, expr): self.expr = expr",
    ),
    "polars seed": Setting("import polars as pl", "pl.set_random_seed(5)", "pl.Series(range(50)).sample(3).to_list()"),
    "xarray accessor": Setting(
        "import xarray as xr",
        "xr.register_dataset_accessor('geo')(Geo)",
        "hasattr(xr.Dataset, 'geo')",
        own="class Geo:\n    def __init__(self, data): self.data = data",
    ),
    "sympy printing": Setting(
        "import sympy",
        "sympy.init_printing(use_latex=False, use_unicode=False)",
        "str(sympy.pretty(sympy.sqrt(sympy.Symbol('x'))))",
    ),
    "sympy in IPython": Setting(
        "import sympy",
        "sympy.init_printing(use_latex='mathjax')",
        "[one for one in get_ipython().display_formatter.formatters['text/latex'].type_printers.values()"
        " if one.__module__[:5] == 'sympy'] != []",
    ),
    "sympy parameters": Setting(
        "import sympy.core.parameters",
        "setattr(sympy.core.parameters.global_parameters, 'evaluate', False)",
        "str(sympy.Symbol('x') + sympy.Symbol('x'))",
    ),
}

SHAPES = {
    "directly": ("{own}\n{imports}", "{call}; None"),
    "as it is loaded": ("{own}", "def go():\n    {imports_within}\n    {call}\ngo()"),
    "as it is loaded, in a block": ("{own}", "try:\n    {imports}\n    {call}\nfinally: pass"),
    "by a function": ("{own}\n{imports}\ndef go(): {call}", "go()"),
    "by a function within": ("{own}\n{imports}\ndef inner(): {call}\ndef go(): return inner()", "go()"),
    "by a lambda in a list": ("{own}\n{imports}\nsteps = [lambda: {call}]", "for step in steps: step()"),
    "by a lambda in a dict": ("{own}\n{imports}\nsteps = {{'k': lambda: {call}}}", "steps['k']()\nNone"),
    "by a method": ("{own}\n{imports}\nclass Setup:\n    def go(self): {call}\nsetup = Setup()", "setup.go()"),
    "by a static method": (
        "{own}\n{imports}\nclass Setup:\n    @staticmethod\n    def go(): {call}\nsetup = Setup()",
        "setup.go()",
    ),
    "by a property": (
        "{own}\n{imports}\nclass Setup:\n    @property\n    def go(self): {call}\nsetup = Setup()",
        "setup.go",
    ),
    "by a bound method": ("{own}\n{imports}\nclass Setup:\n    def go(self): {call}\ngo = Setup().go", "go()"),
    "by a decorator": ("{own}\n{imports}\ndef mark(f):\n    {call}\n    return f", "@mark\ndef marked(): pass"),
    "by a decorated function": (
        "{own}\n{imports}\nimport functools\ndef twice(f):\n    "
        "@functools.wraps(f)\n    def both(*a): return f(*a)\n    return both\n"
        "@twice\ndef go(): {call}",
        "go()",
    ),
    "by a cached function": ("{own}\n{imports}\nimport functools\n@functools.cache\ndef go(): {call}", "go()"),
    "by a partial": ("{own}\n{imports}\nimport functools\ndef _go(n): {call}\ngo = functools.partial(_go, 1)", "go()"),
    "by a context that stays open": (
        "{own}\n{imports}\nimport contextlib\n"
        "@contextlib.contextmanager\ndef opened():\n    {call}\n    yield\nopening = opened()",
        "opening.__enter__()",
    ),
    "by a generator": ("{own}\n{imports}\ndef made():\n    {call}\n    yield 1\nmaking = made()", "next(making); None"),
    "by a text": ("{own}\n{imports}", "exec({call!r})"),
    "by a text of a name": ("{own}\n{imports}\ntext = {call!r}", "exec(text)"),
    "by a file": (
        "{own}\n{imports}\nopen('setting.py', 'w').write({whole!r})",
        "exec(open('setting.py').read())",
    ),
    "by %run": (
        "{own}\n{imports}\nopen('setting.py', 'w').write({whole!r})",
        "%run -i setting.py",
    ),
    "by a module of the session": (
        "{own}\nopen('helping.py', 'w').write({module!r})\nimport helping, importlib\n{imports}",
        "helping.go({owned}); None",
    ),
    "by an imported function": (
        "{own}\nopen('helping.py', 'w').write({module!r})\nfrom helping import go\n{imports}",
        "go({owned}); None",
    ),
    "by a call of what was called before": ("{own}\n{imports}\n{alias}", "{aliased}; None"),
}


def cells(setting: Setting, shape: str) -> tuple[str, str] | None:
    """What prepares and what sets it, in one of the ways; None where a setting has no such way."""
    prepare, code = SHAPES[shape]
    function, opening, arguments = setting.call.partition("(")
    alias, aliased = f"aliased = {function}", f"aliased{opening}{arguments}"
    if function == "setattr":
        alias, aliased = _of_setattr(arguments)
    elif ")" in function or not opening:
        return None
    names = list(_made(setting.own))
    module = f"{setting.imports}\ndef go({', '.join(names)}):\n    return {setting.call}\n"
    values = {
        "own": setting.own, "imports": setting.imports, "imports_within": setting.imports, "call": setting.call,
        "alias": alias, "aliased": aliased, "whole": f"{setting.imports}\n{setting.call}\n",
        "module": module, "owned": ", ".join(names),
    }  # fmt: skip
    return prepare.format(**values).strip(), code.format(**values)


def _of_setattr(arguments: str) -> tuple[str, str]:
    """An assignment through another name for what has the attribute."""
    owner, name, value = arguments.removesuffix(")").split(", ", 2)
    return f"aliased = {owner}", f"aliased.{name.strip(chr(39))} = {value}"


def _made(code: str) -> Iterator[str]:
    """Names of the functions and classes that code makes."""
    for line in textwrap.dedent(code).splitlines():
        if line.startswith(("def ", "class ")):
            yield line.split(" ", 1)[1].split("(")[0].split(":")[0]
