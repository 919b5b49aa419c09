"""Modules in a session's own files: imported as in any Python, and never in the place of what a kernel works with."""

from __future__ import annotations

import json
import sys
import types

import pytest

from kernelrepl.guest import imports, loaded
from kernelrepl.kernel import spawn
from tests.conftest import COLD, Sessions

pytestmark = pytest.mark.anyio

FIRST = "TOTAL = 1\nSEEN = []\ndef add(n):\n    global TOTAL\n    TOTAL += n; SEEN.append(n)\n    return TOTAL\n"


async def ok(sessions: Sessions, code: str) -> str:
    """The text of the result of code that works and is all saved."""
    execution = await sessions.run(code)
    assert execution.status == "ok", execution.output.error
    assert not execution.not_saved
    return execution.output.result or ""


async def test_what_was_written_a_moment_ago_can_be_imported(sessions: Sessions) -> None:
    """As a file, by a magic, in a package, in a directory of its own; however quickly, and after a look that failed."""
    assert await ok(sessions, "import sys; sys.path[0]") == "''"
    assert await ok(sessions, "open('u.py', 'w').write('V = 1')\nimport u\nu.V") == "1"
    await ok(sessions, "%%writefile magic.py\nV = 2")
    assert await ok(sessions, "from magic import V; V") == "2"
    code = "import os\nos.makedirs('p/q')\nfor n in ('p/__init__', 'p/q/__init__'): open(n + '.py', 'w').close()\n"
    code += "open('p/q/m.py', 'w').write('from .. import q; V = 3')\nimport p.q.m\np.q.m.V, p.q.m.q is p.q"
    assert await ok(sessions, code) == "(3, True)"
    code = "from importlib import import_module as load\nfound = []\nfor n in range(40):\n"
    code += "    try: load(f'm{n}')\n    except ModuleNotFoundError: pass\n"
    code += "    open(f'm{n}.py', 'w').write(f'V = {n}')\n    found.append(load(f'm{n}').V)\nfound == list(range(40))"
    assert await ok(sessions, code) == "True"
    assert await ok(sessions, "os.mkdir('d'); os.chdir('d'); open('w.py', 'w').write('V = 4')\nimport w\nw.V") == "4"
    assert await ok(sessions, "os.chdir('..'); '__pycache__' in os.listdir()") == "False"


async def test_modules_come_back_with_the_session(sessions: Sessions) -> None:
    """And what is of their classes; the working directory is first again, once."""
    await ok(
        sessions, "open('u.py', 'w').write('class C: pass\\ndef f(): return 5')\nimport u\nfrom u import f\nc = u.C()"
    )
    for _ in range(2):
        await sessions.kill()
        assert await ok(sessions, "import sys; type(c) is u.C, f is u.f, f(), sys.path.count(''), sys.path[0]") == (
            "(True, True, 5, 1, '')"
        )
    await ok(sessions, "sys.path.remove('')")
    await sessions.kill()
    assert await ok(sessions, "'' in sys.path") == "False"


async def test_edits_are_seen(sessions: Sessions) -> None:
    """By reload and by autoreload, also of a file that is as long as before and was written in the same second."""
    await ok(sessions, "open('u.py', 'w').write('V = 1')\nimport u, importlib")
    for n in range(2, 6):
        assert await ok(sessions, f"open('u.py', 'w').write('V = {n}'); importlib.reload(u).V") == str(n)
    await ok(sessions, "%load_ext autoreload\n%autoreload 2\nfrom u import V")
    await ok(sessions, "open('u.py', 'w').write('V = 8');")
    assert await ok(sessions, "u.V") == "8"


async def test_other_processes_import_them_too(sessions: Sessions) -> None:
    """Programs, and workers of both kinds."""
    await ok(sessions, "open('u.py', 'w').write('def twice(x): return 2 * x');")
    code = "import concurrent.futures, multiprocessing, subprocess, sys, u\nfound = []\n"
    code += "for kind in ('fork', 'spawn'):\n    context = multiprocessing.get_context(kind)\n"
    code += "    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:\n"
    code += "        found.append(list(pool.map(u.twice, [1, 2])))\ndel pool, context\n"
    code += "program = [sys.executable, '-c', 'import u; print(u.twice(3))']\n"
    code += "found, subprocess.run(program, capture_output=True, text=True).stdout"
    assert await ok(sessions, code) == "([[2, 4], [2, 4]], '6\\n')"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("u.TOTAL = 2", ["u.TOTAL"]),
        ("u.add(1)", ["u.SEEN", "u.TOTAL"]),
        ("add(1)", ["u.SEEN", "u.TOTAL"]),
        ("[one(1) for one in [add]]", ["u.SEEN", "u.TOTAL"]),
        ("u.SEEN.append([])", ["u.SEEN"]),
        ("u.new = [1]", ["u.new"]),
        ("vars(u)['other'] = {}", ["u.other"]),
        ("import importlib; importlib.reload(u)", []),
        ("u.TOTAL + len(u.SEEN)", []),
    ],
)
async def test_what_is_kept_in_a_module_is_told(sessions: Sessions, code: str, told: list[str]) -> None:
    """In the reply of the cell that put it there, and once more when it is gone."""
    await ok(sessions, f"open('u.py', 'w').write({FIRST!r})\nimport u\nfrom u import add")
    execution = await sessions.run(code)
    assert execution.status == "ok", execution.output.error
    assert sorted(entry.name for entry in execution.not_saved) == told
    await sessions.kill()
    execution = await sessions.run("u.TOTAL, u.SEEN")
    assert execution.output.result == "(1, [])"
    assert execution.restored is not None
    assert sorted(entry.name for entry in execution.restored.not_restored) == told


SCAN = """
import ast, importlib.machinery, json, sys
MACHINERY = {"kernelrepl", "IPython", "ipykernel", "jupyter_client", "jupyter_core", "traitlets", "comm", "zmq",
             "tornado", "stack_data", "executing", "asttokens", "pure_eval", "cloudpickle", "traceback", "linecache",
             "tokenize", "pickle", "inspect", "asyncio", "hashlib", "json", "warnings", "threading", "socket"}
loaded, late = {name.partition(".")[0] for name in sys.modules}, set()
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None) or ""
    if name.partition(".")[0] not in MACHINERY or not file.endswith(".py"):
        continue
    for node in ast.walk(ast.parse(open(file).read())):
        if isinstance(node, ast.Import):
            late.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            late.add(node.module.partition(".")[0])
late = {name for name in late - loaded if importlib.machinery.PathFinder.find_spec(name, sys.path[1:])}
print(json.dumps(sorted(late)))
"""
"""What the kernel's modules name anywhere in an import and nothing has loaded yet, as far as it is installed."""
NOT_FROM_A_SESSION = {"tkinter", "wave"}
"""Named where nothing of a session leads, or for what its code asks for only."""


@COLD
async def test_what_a_kernel_imports_late_is_taken_from_the_installation(sessions: Sessions) -> None:
    """All that its modules name, here and in what it is made of. Nobody calls a file of theirs `_sha1`."""
    execution = await sessions.run(SCAN)
    assert execution.status == "ok", execution.output.error
    found = set(json.loads(execution.output.stdout))
    assert len(found) > 5
    missing = {name for name in found if not name.startswith("_")} - imports.LATE - NOT_FROM_A_SESSION
    assert not missing


@pytest.mark.parametrize("how", ["forked", "cold"])
async def test_files_of_a_session_stand_for_nothing_that_its_kernel_needs(sessions: Sessions, how: str) -> None:
    """Whatever they are called; the session works on, in this kernel and in the next."""
    if how == "cold":
        object.__setattr__(sessions.manager.services, "launcher", spawn)
    names = sorted({*imports.LATE, *sys.stdlib_module_names, "zmq", "tornado", "traitlets"})
    await ok(sessions, f"for n in {names}: open(n + '.py', 'w').write('raise RuntimeError(__name__)')")
    await ok(sessions, "import random\nrandom.seed(1); kept = [1, 2]")
    await sessions.kill()
    for code in ("1/0", "%timeit -n1 -r1 pass", "help(len)", "%who", "kept?", "len??", "%prun pass", "nosuch"):
        execution = await sessions.run(code)
        assert "RuntimeError" not in str(execution.output), code
        assert execution.committed
    assert await ok(sessions, "import pydoc, cProfile; kept, pydoc.__file__ == '/workspace/pydoc.py'") == (
        "([1, 2], False)"
    )


@COLD
async def test_files_of_a_session_are_run_by_its_code_alone(sessions: Sessions) -> None:
    """IPython takes what lies where it starts for files that a person wants to be run at each start."""
    await ok(sessions, "open('noted.py', 'w').write('open(\\'ran\\', \\'w\\').close(); noted = 1')")
    await ok(sessions, "open('noted.ipy', 'w').write('open(\\'ran\\', \\'w\\').close()')")
    await sessions.kill()
    assert await ok(sessions, "import os; sorted(os.listdir()), 'noted' in globals()") == (
        "(['noted.ipy', 'noted.py'], False)"
    )


async def test_a_library_gets_its_own_libraries_and_code_its_own_files(sessions: Sessions) -> None:
    """Of one name: a statement in the installation means what is installed."""
    await ok(sessions, "for n in ('profile', 'wave'): open(n + '.py', 'w').write('V = 1')")
    assert await ok(sessions, "import cProfile, sys; hasattr(sys.modules['profile'], 'Profile')") == "True"
    assert await ok(sessions, "import wave\nwave.V") == "1"


async def test_arguments_are_those_of_nobody(sessions: Sessions) -> None:
    """What parses `sys.argv` finds a name and nothing else, as code does that was started without arguments."""
    assert await ok(sessions, "import sys; sys.argv, sys.orig_argv == [sys.executable]") == "(['session'], True)"
    code = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--n', type=int, default=3)\n"
    assert await ok(sessions, f"{code}parser.parse_args().n") == "3"
    code = "import unittest\nclass T(unittest.TestCase):\n    def test_one(self): pass\n"
    code += "unittest.main(exit=False).result.testsRun"
    assert await ok(sessions, code) == "1"
    code = "import click\n@click.command()\n@click.option('--n', default=4)\ndef main(n): return n\n"
    assert await ok(sessions, f"{code}main(standalone_mode=False)") == "4"


def test_modules_that_were_loaded_since_are_known_without_a_look_at_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In their order; when one of those before has gone, or has come anew, all are to be looked at."""
    assert loaded.since(loaded.NONE) is None
    before = loaded.mark()
    assert loaded.since(before) == []
    for name in ("_first", "_second", "_third"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert loaded.since(before) == ["_first", "_second", "_third"]
    after = loaded.mark()
    again = sys.modules.pop("_second")
    assert loaded.since(after) is None
    assert loaded.since(before) == ["_first", "_third"]
    sys.modules["_second"] = again
    assert loaded.since(after) is None
    assert loaded.since(loaded.mark()) == []
