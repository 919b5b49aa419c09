"""What a session sets in its process comes back after a kill, or is told in the reply of the cell that sets it."""

from __future__ import annotations

import asyncio
import importlib.util

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


KEPT = {
    "handler of a class": (
        "import logging\nclass H(logging.Handler):\n    def emit(self, record): pass",
        "logging.getLogger('z').addHandler(H())",
        "[type(h).__name__ for h in logging.getLogger('z').handlers]",
    ),
    "decimal": ("import decimal", "decimal.getcontext().prec = 50", "decimal.Decimal(1) / 3"),
    "traps of decimal": (
        "import decimal",
        "decimal.setcontext(decimal.Context(rounding=decimal.ROUND_UP, traps=[decimal.Inexact]))",
        "decimal.getcontext()",
    ),
    "errors of numpy": ("import numpy as np", "np.seterr(all='raise', under='ignore')", "np.geterr()"),
    "call of numpy": ("import numpy as np\ndef call(*_): pass", "np.seterrcall(call)", "np.geterrcall() is call"),
    "print options of numpy": ("import numpy as np", "np.set_printoptions(precision=2)", "np.array([1.23456])"),
    "formatter of numpy": (
        "import numpy as np\ndef star(x): return '*'",
        "np.set_printoptions(formatter={'float': star})",
        "np.array([1.0])",
    ),
    "recursion limit": ("import sys", "sys.setrecursionlimit(5000)", "sys.getrecursionlimit()"),
    "digits": ("import sys", "sys.set_int_max_str_digits(0)", "sys.get_int_max_str_digits()"),
    "switch interval": ("import sys", "sys.setswitchinterval(0.25)", "sys.getswitchinterval()"),
    "traceback limit": ("import sys", "sys.tracebacklimit = 3", "getattr(sys, 'tracebacklimit', None)"),
    "ignored warnings": ("import warnings", "warnings.filterwarnings('ignore')", "warnings.filters[0]"),
    "warnings of a class": (
        "import warnings\nclass W(UserWarning): pass",
        "warnings.simplefilter('error', W)",
        "warnings.filters[0][2] is W",
    ),
    "warnings by text": (
        "import warnings",
        "warnings.filterwarnings('error', message='old .*', module='me')",
        "warnings.filters[0]",
    ),
    "basic configuration of logs": (
        "import logging",
        "logging.basicConfig(level=logging.INFO, format='%(message)s!')",
        "logging.root.level, [str(h) for h in logging.root.handlers], logging.root.handlers[-1].formatter._fmt",
    ),
    "log file": (
        "import logging",
        "logging.getLogger('f').addHandler(logging.FileHandler('log.txt'))",
        "[h.baseFilename for h in logging.getLogger('f').handlers]",
    ),
    "level of a logger": ("import logging", "logging.getLogger('a.b').setLevel(5)", "logging.getLogger('a.b').level"),
    "propagation": ("import logging", "logging.getLogger('c').propagate = False", "logging.getLogger('c').propagate"),
    "logging.disable": ("import logging", "logging.disable(7)", "logging.root.manager.disable"),
    "names of levels": ("import logging", "logging.addLevelName(5, 'TRACE')", "logging.getLevelName(5)"),
    "locale": ("import locale", "locale.setlocale(locale.LC_ALL, 'C')", "locale.setlocale(locale.LC_ALL)"),
    "time zone": (
        "import os, time",
        "os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()",
        "time.tzname, time.localtime(0).tm_hour",
    ),
    "dialect": ("import csv", "csv.register_dialect('semi', delimiter=';')", "'semi' in csv.list_dialects()"),
    "field size": ("import csv", "csv.field_size_limit(77)", "csv.field_size_limit()"),
    "timeout of sockets": ("import socket", "socket.setdefaulttimeout(7)", "socket.getdefaulttimeout()"),
    "collector": ("import gc", "gc.disable(); gc.set_threshold(5, 6, 7)", "gc.isenabled(), gc.get_threshold()"),
    "umask": ("import os", "os.umask(0o77); None", "[mask for mask in [os.umask(0)] if os.umask(mask) == 0]"),
    "stack size": (
        "import threading",
        "threading.stack_size(1 << 20)",
        "[size for size in [threading.stack_size()] if threading.stack_size(size) == 0]",
    ),
    "start method": ("import multiprocessing as m", "m.set_start_method('spawn', True)", "m.get_start_method(True)"),
    "number format of pandas": (
        "import pandas as pd",
        "pd.set_option('display.float_format', lambda x: f'<{x}>')",
        "pd.Series([1.5])",
    ),
    "format of pandas by method": (
        "import pandas as pd",
        "pd.options.display.float_format = '{:.1f}'.format",
        "pd.Series([1.56])",
    ),
    "cycle of matplotlib": (
        "import matplotlib.pyplot as plt",
        "plt.rcParams['axes.prop_cycle'] = plt.cycler(color=['r', 'g'])",
        "plt.rcParams['axes.prop_cycle']",
    ),
    "sklearn": (
        "import sklearn",
        "sklearn.set_config(transform_output='pandas')",
        "sklearn.get_config()['transform_output']",
    ),
    "template of plotly": ("import plotly.io as p", "p.templates.default = 'plotly_dark'", "p.templates.default"),
    "defaults of plotly": ("import plotly.express as px", "px.defaults.width = 300", "px.defaults.width"),
    "tqdm.pandas": (
        "import tqdm, pandas as pd",
        "tqdm.tqdm.pandas()",
        "hasattr(pd.DataFrame, 'progress_apply')",
    ),
    "ABC.register": (
        "import collections.abc as abc\nclass C: pass",
        "abc.Sequence.register(C)",
        "isinstance(C(), abc.Sequence)",
    ),
    "ABC.register by decorator": (
        "import numbers\nclass N: pass",
        "@numbers.Number.register\nclass N: pass",
        "isinstance(N(), numbers.Number)",
    ),
    "copyreg": (
        "import copyreg, copy\nclass P: pass\ndef reduce(p): return (str, ('P',))",
        "copyreg.pickle(P, reduce)",
        "copyreg.dispatch_table.get(P) is reduce",
    ),
    "error handler": (
        "import codecs\ndef handler(e): return '?', e.end\ndef known():\n"
        "    try: return codecs.lookup_error('my-handler') is handler\n    except LookupError: return False",
        "codecs.register_error('my-handler', handler)",
        "known()",
    ),
    "adapter": (
        "import sqlite3\nclass Q: pass\ndef adapt(q): return 'q'",
        "sqlite3.register_adapter(Q, adapt)",
        "[f is adapt for f in sqlite3.adapters.values()]",
    ),
    "converter": (
        "import sqlite3\ndef convert(b): return 'c'",
        "sqlite3.register_converter('mine', convert)",
        "sqlite3.converters.get('MINE') is convert",
    ),
    "signal handler": (
        "import signal\ndef on(n, f): pass",
        "signal.signal(signal.SIGUSR1, on)",
        "signal.getsignal(signal.SIGUSR1) is on",
    ),
    "ignored signal": (
        "import signal",
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)",
        "signal.getsignal(signal.SIGHUP)",
    ),
    "%precision": ("", "%precision 3", "3.14159"),
    "%xmode": ("", "%xmode Minimal", "get_ipython().InteractiveTB.mode"),
    "%config": (
        "",
        "%config InteractiveShell.ast_node_interactivity = 'all'",
        "get_ipython().ast_node_interactivity",
    ),
    "%config of figures": (
        "import matplotlib.pyplot as plt",
        "%config InlineBackend.print_figure_kwargs = {'dpi': 33}",
        "__import__('matplotlib_inline.config').config.InlineBackend.instance().print_figure_kwargs.get('dpi')",
    ),
    "%pprint": ("", "%pprint", "list(range(3)), get_ipython().display_formatter.formatters['text/plain'].pprint"),
    "%autoreload": (
        "%load_ext autoreload",
        "%autoreload 2",
        "get_ipython().magics_manager.registry['AutoreloadMagics']._reloader.check_all",
    ),
    "future": ("", "from __future__ import annotations", "(lambda: 0).__code__.co_flags"),
    "%pylab": ("", "%pylab inline", "'linspace' in globals() and linspace(0, 1, 3)"),
    "magic": (
        "from IPython.core.magic import register_line_magic",
        "@register_line_magic\ndef twice(line): return line * 2",
        "'twice' in get_ipython().magics_manager.magics['line'] and get_ipython().run_line_magic('twice', 'x')",
    ),
    "magics of a class": (
        "from IPython.core.magic import Magics, magics_class, line_magic\n@magics_class\nclass M(Magics):\n"
        "    @line_magic\n    def thrice(self, line): return line * 3",
        "get_ipython().register_magics(M)",
        "'thrice' in get_ipython().magics_manager.magics['line'] and get_ipython().run_line_magic('thrice', 'x')",
    ),
    "formatter": (
        "class Z: pass\ndef show(z): return '<b>z</b>'\nhtml = 'text/html'",
        "get_ipython().display_formatter.formatters[html].for_type(Z, show); None",
        "get_ipython().display_formatter.formatters[html].type_printers.get(Z) is show",
    ),
    "event": (
        "def done(*_): pass",
        "get_ipython().events.register('post_run_cell', done)",
        "done in get_ipython().events.callbacks['post_run_cell']",
    ),
    "transformer": (
        "def shout(lines): return [line.replace('QUIET', 'LOUD') for line in lines]",
        "get_ipython().input_transformers_post.append(shout)",
        "'QUIET'",
    ),
    "method of a class of pandas": (
        "import pandas as pd\ndef mine(self): return len(self)",
        "pd.DataFrame.mine = mine",
        "getattr(pd.DataFrame, 'mine', None) is mine and pd.DataFrame({'a': [1]}).mine()",
    ),
    "property of a class of pandas": (
        "import pandas as pd",
        "pd.DataFrame.two = property(lambda self: 2)",
        "getattr(pd.DataFrame({'a': [1]}), 'two', None)",
    ),
    "set by a function": (
        "import pandas as pd\ndef prepare():\n    pd.Series.three = lambda self: 3",
        "prepare()",
        "hasattr(pd.Series, 'three') and pd.Series([1]).three()",
    ),
    "set by a method, with setattr": (
        "import pathlib\nclass Setup:\n    def go(self): setattr(pathlib.Path, 'ls', lambda self: 'ls')",
        "Setup().go()",
        "hasattr(pathlib.Path, 'ls') and pathlib.Path('.').ls()",
    ),
    "accessor of pandas": (
        "import pandas as pd",
        "@pd.api.extensions.register_dataframe_accessor('geo')\nclass Geo:\n"
        "    def __init__(self, frame): self.frame = frame\n    def n(self): return len(self.frame)",
        "hasattr(pd.DataFrame, 'geo') and pd.DataFrame({'a': [1]}).geo.n()",
    ),
    "method of a class of requests": (
        "import requests",
        "requests.Session.mine = lambda self: 5",
        "hasattr(requests.Session, 'mine') and requests.Session().mine()",
    ),
    "method of the class of a value": (
        "import pandas as pd\nframe = pd.DataFrame({'a': [1]})",
        "type(frame).four = lambda self: 4",
        "hasattr(frame, 'four') and frame.four()",
    ),
    "first weekday": ("import calendar", "calendar.setfirstweekday(6)", "calendar.firstweekday()"),
    "prefix of a namespace": (
        "import xml.etree.ElementTree as ET",
        "ET.register_namespace('pp', 'http://p')",
        "ET.tostring(ET.Element('{http://p}a'))",
    ),
    "format of archives": (
        "import shutil\ndef pack(*a, **k): pass",
        "shutil.register_archive_format('mine', pack)",
        "[name for name, _ in shutil.get_archive_formats()]",
    ),
    "attribute of a class": (
        "import http.client",
        "http.client.HTTPConnection.debuglevel = 1",
        "http.client.HTTPConnection.debuglevel",
    ),
    "delimiter of templates": ("import string", "string.Template.delimiter = '%'", "string.Template.delimiter"),
    "colormap": (
        "import matplotlib as mpl\nfrom matplotlib.colors import ListedColormap",
        "mpl.colormaps.register(ListedColormap(['r'], name='mymap'))",
        "'mymap' in mpl.colormaps",
    ),
    "template of one's own": (
        "import plotly.io as pio, plotly.graph_objects as go",
        "pio.templates['mine'] = go.layout.Template(layout_width=300)",
        "'mine' in pio.templates and pio.templates['mine'].layout.width",
    ),
    "alias of a module": ("import sys, json", "sys.modules['alias'] = json", "sys.modules.get('alias') is json"),
    "alias of an encoding": (
        "import encodings.aliases as names",
        "names.aliases['my_x'] = 'utf_8'",
        "names.aliases.get('my_x')",
    ),
    "printer of a kind": (
        "import pprint\nclass PP: pass",
        "pprint.PrettyPrinter._dispatch[PP.__repr__] = print",
        "PP.__repr__ in pprint.PrettyPrinter._dispatch",
    ),
    "charset": (
        "import email.charset as c",
        "c.add_charset('x-y', c.QP)",
        "c.CHARSETS.get('x-y')",
    ),
    "types of files": ("import mimetypes", "mimetypes.add_type('a/b', '.xy')", "mimetypes.guess_type('f.xy')"),
    "finder": (
        "import sys\nclass Finder:\n    @classmethod\n    def find_spec(cls, *a): return None",
        "sys.meta_path.append(Finder)",
        "Finder in sys.meta_path",
    ),
}
"""What prepares, what sets something, and an expression that shows it."""

TOLD = {
    "attribute of a module": ("import math", "math.count = 5", "getattr(math, 'count', None)"),
    "attribute deep in a library": (
        "import PIL.Image",
        "PIL.Image.MAX_IMAGE_PIXELS = None",
        "PIL.Image.MAX_IMAGE_PIXELS",
    ),
    "attribute of a module by its name": (
        "import PIL.Image, sys, importlib",
        "sys.modules['PIL.Image'].MAX_IMAGE_PIXELS = 6",
        "PIL.Image.MAX_IMAGE_PIXELS",
    ),
    "attribute of a module that is imported by its name": (
        "import importlib, PIL.Image",
        "importlib.import_module('PIL.Image').MAX_IMAGE_PIXELS = 6",
        "PIL.Image.MAX_IMAGE_PIXELS",
    ),
    "module by hand": (
        "import sys, types",
        "sys.modules['own'] = types.ModuleType('own')",
        "'own' in sys.modules",
    ),
    "replaced part of the library": (
        "import json, pathlib\ndef show():\n    try: return json.dumps(pathlib.Path())\n    except TypeError: return 0",
        "json.JSONEncoder.default = lambda self, o: 'x'",
        "show()",
    ),
    "parallel work of joblib": (
        "import joblib",
        "joblib.parallel_config(n_jobs=2); None",
        "joblib.parallel.get_active_backend()[1]",
    ),
    "opener": ("import urllib.request as u", "u.install_opener(u.build_opener())", "u._opener is not None"),
    "threads of arrow": ("import pyarrow as pa", "pa.set_cpu_count(7)", "pa.cpu_count()"),
    "errors of special functions": ("import scipy.special as s", "s.seterr(all='raise'); None", "s.geterr()"),
    "limit": (
        "import resource",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))",
        "resource.getrlimit(resource.RLIMIT_NOFILE)",
    ),
    "faults": ("import faulthandler", "faulthandler.enable(); None", "faulthandler.is_enabled()"),
    "tracing of memory": ("import tracemalloc", "tracemalloc.start()", "tracemalloc.is_tracing()"),
    "niceness": ("import os", "os.nice(1)", "os.getpriority(os.PRIO_PROCESS, 0)"),
    "at the end": ("import atexit\ndef bye(): pass", "atexit.register(bye); None", "atexit._ncallbacks()"),
}
"""The same, of what is told."""

LIBRARIES = (
    "numpy",
    "pandas",
    "matplotlib",
    "sklearn",
    "plotly",
    "tqdm",
    "requests",
    "scipy",
    "pyarrow",
    "PIL",
    "joblib",
)
AT_ONCE = 4


async def outcome(sessions: Sessions, name: str, case: tuple[str, str, str]) -> str:
    """What became of one setting, in a session of its own: kept, told, or what is wrong."""
    prepare, code, expression = case
    await sessions.run("0", name)
    execution = await sessions.run(prepare, name)
    if execution.status != "ok":
        return f"not prepared: {execution.output.error}"
    fresh = (await sessions.run(expression, name)).output.result
    execution = await sessions.run(code, name)
    if execution.status != "ok":
        return f"not set: {execution.output.error}"
    told = [entry.name for entry in execution.not_saved]
    before = (await sessions.run(expression, name)).output.result
    if before == fresh:
        return f"it sets nothing: {before}"
    await sessions.kill(name)
    execution = await sessions.run(expression, name)
    failed = () if execution.restored is None else execution.restored.not_restored
    if execution.output.result == before and execution.status == "ok":
        return f"kept, yet told: {told} {failed}" if told or failed else "kept"
    if told and [entry.name for entry in failed] == told:
        return "told"
    return f"{fresh}, then {before}, then {execution.output.result}, told {told}, not restored {failed}"


async def outcomes(sessions: Sessions, cases: dict[str, tuple[str, str, str]]) -> dict[str, str]:
    """What became of each setting whose library is here."""
    missing = [library for library in LIBRARIES if importlib.util.find_spec(library) is None]
    here = {name: case for name, case in cases.items() if not any(f" {library}" in case[0] for library in missing)}
    room = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, number: int) -> str:
        async with room:
            return await outcome(sessions, f"s{number}", here[name])

    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(one(name, number)) for number, name in enumerate(here)}
    return {name: task.result() for name, task in tasks.items()}


@pytest.mark.slow
async def test_what_code_sets_comes_back(sessions: Sessions) -> None:
    """Settings that change results, and those that people use daily."""
    found = await outcomes(sessions, KEPT)
    assert len(found) > 40
    assert {name: what for name, what in found.items() if what != "kept"} == {}


async def test_what_does_not_come_back_is_told_when_it_is_set(sessions: Sessions) -> None:
    """And once more when it is gone."""
    found = await outcomes(sessions, TOLD)
    assert {name: what for name, what in found.items() if what != "told"} == {}


async def test_what_stands_for_another_in_a_list_of_a_library_takes_its_place(sessions: Sessions) -> None:
    """A list that has grown by it would be one that the library does not understand."""
    await sessions.run("import calendar; from calendar import c as shown")
    await sessions.run("calendar.mdays[2] = 2900; calendar.FRIDAY; calendar.month_name.note = [1]")
    await sessions.kill()
    assert await sessions.value("calendar.mdays[:4], len(calendar.mdays)") == "([0, 31, 2900, 31], 13)"


async def test_a_library_that_hangs_printers_into_the_shell_finds_them_again(sessions: Sessions) -> None:
    """Code that calls it says no word of the shell."""
    source = (
        "from IPython import get_ipython\n"
        "def init_printing(sign):\n"
        "    def show(number, printer, cycle):\n"
        "        printer.text(f'{sign}{number!s}')\n"
        "    get_ipython().display_formatter.formatters['text/plain'].for_type(complex, show)\n"
    )
    await sessions.run(f"open('prettily.py', 'w').write({source!r})")
    await sessions.run("import prettily")
    await sessions.run("prettily.init_printing('!')")
    await sessions.kill()
    assert await sessions.value("2j") == "!2j"


async def test_a_library_that_draws_from_what_nobody_can_ask_for_is_told(sessions: Sessions) -> None:
    """Its next numbers will be others; those of Python and numpy are what they were."""
    await sessions.run("open('dice.py', 'w').write('def set_random_seed(number): pass')")
    await sessions.run("import dice, random, numpy as np")
    execution = await sessions.run("dice.set_random_seed(7)")
    assert [entry.name for entry in execution.not_saved] == ["dice.set_random_seed"]
    execution = await sessions.run("random.seed(7); np.random.seed(7)")
    assert not execution.not_saved  # nothing new
    await sessions.kill()
    execution = await sessions.run("0")
    assert execution.restored is not None
    assert [entry.name for entry in execution.restored.not_restored] == ["dice.set_random_seed"]


async def test_a_cell_that_does_nothing_else_is_told_as_well(sessions: Sessions) -> None:
    """The quick way of a commit is not too quick for that, and goes on being taken."""
    await sessions.run("import math as m; x = [1]")
    await sessions.run("y = 1")
    execution = await sessions.run("m.count = 5")
    assert [entry.name for entry in execution.not_saved] == ["math.count"]
    execution = await sessions.run("y = 2")
    assert not execution.not_saved
    assert execution.saved.changed == ("y",)


OUT_OF_SIGHT = (
    "import sys; sys.addaudithook(lambda *_: None)",
    "import codecs; register = codecs.register; register(lambda name: None)",
    "from signal import siginterrupt as s, SIGUSR1; s(SIGUSR1, True)",
    "def go():\n    import os\n    os.register_at_fork(before=dict)\ngo()",
    "import gc; steps = {'go': gc.freeze}; steps['go']()",
    'import os; exec(\'os.putenv("A_B", "c")\')',
    "import signal\nclass Alarm:\n    def go(self): signal.setitimer(signal.ITIMER_VIRTUAL, 1000)\nAlarm().go()",
    "import locale; locale.textdomain('x')",
)
"""What nobody can ask for afterwards."""


@pytest.mark.parametrize("code", OUT_OF_SIGHT)
async def test_what_cannot_be_seen_is_told_when_it_is_called(sessions: Sessions, code: str) -> None:
    """Whatever it is called by."""
    execution = await sessions.run(code)
    assert execution.status == "ok", execution.output.error
    assert [entry.reason for entry in execution.not_saved] == [
        "what this call sets cannot be seen, nor saved; call it again"
    ]
    await sessions.kill()
    execution = await sessions.run("1")
    assert execution.restored is not None
    assert len(execution.restored.not_restored) == 1


ORDINARY = (
    "import numpy as np, pandas as pd, matplotlib.pyplot as plt, logging, json, collections, os, sys, random, argparse",
    "df = pd.DataFrame({'a': [1, 2]}); df.loc[df.a > 1, 'a'] = np.int64(3); df = df.set_index('a').reset_index()",
    "plt.plot([1, 2]); plt.setp(plt.gca(), title='x'); plt.set_cmap('hot'); plt.style.use('ggplot')",
    "plt.savefig('a.png')",
    "fig, ax = plt.subplots(); ax.set_title('x'); plt.xlim(0, 1); plt.close('all')",
    "log = logging.getLogger('x'); log.setLevel(10)",
    "collections.Counter('ab').update('c'); json.loads('{}').update(a=1)",
    "os.environ['A'] = 'b'; sys.path.append('x'); random.seed(1); np.random.set_state(np.random.get_state())",
    "pd.set_option('display.max_rows', 5); pd.reset_option('display.max_rows')",
    "parser = argparse.ArgumentParser(); parser.add_argument('--x'); parser.set_defaults(x=3)",
    "class D: x = 1\nd = D(); d.x = 2; D.y = 3; d.__dict__.update(z=1)",
    "import os; r, w = os.pipe(); os.set_blocking(r, False); os.close(r); os.close(w); del r, w",
    "def never():\n    sys.addaudithook(print)\n    pd.DataFrame.mine = 1",
    "class Never:\n    def go(self): os.putenv('a', 'b')",
    "import functools\n@functools.cache\ndef cached(n): return pd.DataFrame({'a': [n]}).set_index('a')",
    "cached(1); cached.cache_clear()",
)


async def test_ordinary_code_is_told_nothing(sessions: Sessions) -> None:
    """What libraries keep for themselves is no setting."""
    for code in ORDINARY:
        execution = await sessions.run(code)
        assert execution.status == "ok", execution.output.error
        assert not execution.not_saved, code
    await sessions.kill()
    execution = await sessions.run("1")
    assert execution.restored is not None
    assert not execution.restored.not_restored


async def test_texts_that_are_read_for_settings_show_nothing(sessions: Sessions) -> None:
    """What looks like code in a text may be old-fashioned, and is not the cell's own."""
    await sessions.run("import re; text = \"'\\\\d' is 1\"; found = re.compile(text); exec('x = 1')")
    execution = await sessions.run("x = eval('1') if text else exec(text)")
    assert execution.status == "ok", execution.output.error
    assert execution.output.stderr == ""
    assert await sessions.value("x") == "1"


async def test_a_method_put_onto_a_library_may_change_what_it_names(sessions: Sessions) -> None:
    """Cells that call it name it by its attribute alone, and what Python calls by itself is named by nobody."""
    await sessions.run("import pandas as pd; seen = []; frame = pd.DataFrame({'a': [1]})")
    await sessions.run("pd.DataFrame.note = lambda self: seen.append(1)")
    execution = await sessions.run("frame.note()")
    assert "seen" in execution.saved.changed
    await sessions.kill()
    execution = await sessions.run("frame.note()")
    assert "seen" in execution.saved.changed
    await sessions.run("import requests; requests.Session.__len__ = lambda self: seen.append(1) or 3")
    await sessions.run("s = requests.Session()")
    execution = await sessions.run("len(s)")
    assert "seen" in execution.saved.changed
    await sessions.kill()
    assert await sessions.value("len(s), seen") == "(3, [1, 1, 1, 1])"


async def test_a_setting_that_is_put_back_stays_so(sessions: Sessions) -> None:
    """Whether it was plain or a function."""
    await sessions.run("import numpy as np, signal, warnings, logging\ndef on(n, f): pass")
    await sessions.run("np.set_printoptions(precision=2); signal.signal(signal.SIGUSR1, on); logging.disable(7)")
    await sessions.kill()
    assert await sessions.value("np.get_printoptions()['precision'], logging.root.manager.disable") == "(2, 7)"
    await sessions.run("np.set_printoptions(precision=8); logging.disable(0)")
    await sessions.run("signal.signal(signal.SIGUSR1, signal.SIG_DFL)")
    await sessions.kill()
    expression = "np.get_printoptions()['precision'], logging.root.manager.disable, signal.getsignal(signal.SIGUSR1)"
    assert await sessions.value(expression) == "(8, 0, <Handlers.SIG_DFL: 0>)"


async def test_what_is_told_no_more_is_not_told_to_be_lost(sessions: Sessions) -> None:
    """It was put back, or taken away."""
    await sessions.run("import PIL.Image, os, tracemalloc; most = PIL.Image.MAX_IMAGE_PIXELS")
    execution = await sessions.run("PIL.Image.MAX_IMAGE_PIXELS = None; tracemalloc.start(); os.mine = 1")
    assert {e.name for e in execution.not_saved} == {"PIL.Image.MAX_IMAGE_PIXELS", "tracemalloc.start", "os.mine"}
    await sessions.run("PIL.Image.MAX_IMAGE_PIXELS = most; tracemalloc.stop(); del os.mine")
    await sessions.kill()
    execution = await sessions.run("1")
    assert execution.restored is not None
    assert not execution.restored.not_restored


async def test_a_setting_outlives_several_kernels_that_do_not_use_it(sessions: Sessions) -> None:
    """It is not forgotten because its library is not loaded."""
    await sessions.run("import csv; csv.register_dialect('semi', delimiter=';'); del csv")
    await sessions.run("import decimal; decimal.getcontext().prec = 40; del decimal")
    for _ in range(3):
        await sessions.kill()
        await sessions.run("x = [1]")
    assert await sessions.value("__import__('csv').get_dialect('semi').delimiter") == "';'"
    assert await sessions.value("__import__('decimal').getcontext().prec") == "40"


async def test_what_a_library_hangs_into_ipython_is_no_reason_to_look_at_everything(sessions: Sessions) -> None:
    """pyplot registers callbacks of its own; code of the session that is called like them may change anything."""
    active = "get_ipython().kernel.saving._hooks.active()"
    assert await sessions.value(active) == "False"
    await sessions.run("import matplotlib.pyplot as plt, gc; plt.plot([1, 2])")
    assert "flush_figures" in str(await sessions.value("get_ipython().events.callbacks"))
    assert await sessions.value(active) == "False"
    await sessions.run("seen = []\nclass On:\n    def __call__(self, *_): seen.append(1)")
    await sessions.run("gc.callbacks.append(On()); None")
    assert await sessions.value(active) == "True"
    await sessions.run("gc.callbacks.clear()")
    assert await sessions.value(active) == "False"
    await sessions.run("import functools\ndef on(_): seen.append(2)")
    await sessions.run("get_ipython().events.register('pre_run_cell', functools.partial(on)); None")
    await sessions.run("number = len(seen)")
    await sessions.kill()
    assert int(await sessions.value("seen.count(2) - number") or 0) > 0


OBJECTS = {
    "colormaps of matplotlib": (
        "import matplotlib as mpl, matplotlib.colors; it = mpl.colormaps",
        "it.register(mpl.colors.ListedColormap(['r'], name='mymap'))",
        "it is mpl.colormaps, 'mymap' in mpl.colormaps",
    ),
    "templates of plotly": (
        "import plotly.io as pio; it = pio.templates",
        "it.default = 'plotly_dark'",
        "it is pio.templates, pio.templates.default == 'plotly_dark'",
    ),
    "aliases of encodings": (
        "from encodings.aliases import aliases as it",
        "it['my_x'] = 'utf_8'",
        "it is __import__('encodings.aliases').aliases.aliases, 'my_x' in it",
    ),
    "networkx": (
        "import networkx as nx; it = nx.config",
        "it.warnings_to_ignore = {'cache'}",
        "it is nx.config, nx.config.warnings_to_ignore == {'cache'}",
    ),
    "options of xarray": (
        "import xarray as xr; it = xr.core.options.OPTIONS",
        "it['display_width'] = 55",
        "it is xr.core.options.OPTIONS, xr.get_options()['display_width'] == 55",
    ),
    "parameters of sympy": (
        "import sympy; from sympy.core.parameters import global_parameters as it",
        "it.evaluate = False",
        "it is sympy.core.parameters.global_parameters, not it.evaluate",
    ),
}


@pytest.mark.parametrize("case", OBJECTS.values(), ids=OBJECTS)
async def test_the_settings_of_a_library_are_one_object(sessions: Sessions, case: tuple[str, str, str]) -> None:
    """Under the session's own name as well, also in a kernel that was restored."""
    prepare, code, expression = case
    library = prepare.split()[1].partition(".")[0].removesuffix(";")
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    await sessions.run(prepare)
    await sessions.kill()
    assert await sessions.value(expression) == "(True, False)"
    execution = await sessions.run(code)
    assert execution.status == "ok", execution.output.error
    assert await sessions.value(expression) == "(True, True)"
    await sessions.kill()
    assert await sessions.value(expression) in ("(True, True)", "(True, False)" if execution.not_saved else "")


async def test_a_setter_that_changes_another_library_is_seen_there(sessions: Sessions) -> None:
    """As seaborn gives the letters of matplotlib's colours other colours."""
    source = (
        "import matplotlib.colors\n"
        "def set_codes():\n"
        "    matplotlib.colors.colorConverter.colors['g'] = (1.0, 0.0, 0.0)\n"
    )
    await sessions.run(f"open('palette.py', 'w').write({source!r})")
    await sessions.run("import palette, matplotlib.colors as c; c.to_rgb('g')")
    await sessions.run("palette.set_codes()")
    await sessions.kill()
    assert await sessions.value("c.to_rgb('g')") == "(1.0, 0.0, 0.0)"


async def test_figures_that_wait_to_be_shown_wait_after_a_restore(sessions: Sessions) -> None:
    """`plt.ioff()` holds, and so does what it is without."""
    await sessions.run("import matplotlib.pyplot as plt; plt.plot([1])")
    await sessions.kill()
    assert await sessions.value("plt.isinteractive()") == "True"
    await sessions.run("plt.ioff()")
    await sessions.kill()
    execution = await sessions.run("plt.plot([1]); plt.isinteractive(), plt.get_fignums()")
    assert (execution.output.result, execution.output.figures) == ("(False, [1])", ())
    await sessions.run("plt.figure(7); plt.plot([2]); plt.close(1)")
    await sessions.kill()
    execution = await sessions.run("plt.title('still'); plt.get_fignums(), len(plt.gca().lines)")
    assert (execution.output.result, execution.output.figures) == ("([7], 1)", ())
    execution = await sessions.run("plt.show()")
    assert len(execution.output.figures) == 1
