"""What users of IPython expect of a cell works; what needs a terminal is refused at once and says what to do."""

from __future__ import annotations

import pytest

from kernelrepl.mcp.results import describe
from kernelrepl.model import ExecutionResult
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


PROGRAMS = "of programs a session has Python alone: subprocess.run([sys.executable, 'FILE.py'])"
ASK = "a person has to agree to left-pad; they do with `kernelrepl packages s add left-pad` in a terminal"
HOW = "installs it for this session"


def text_of(execution: ExecutionResult) -> str:
    """What a model reads, for code that worked."""
    assert execution.status == "ok", execution.output.error
    return describe(execution)


async def fails(sessions: Sessions, code: str, name: str, message: str) -> ExecutionResult:
    """Code fails with exactly this error, and the session goes on as it was."""
    execution = await sessions.run(code)
    assert execution.status == "error", describe(execution)
    assert execution.output.error is not None
    assert (execution.output.error.name, execution.output.error.message) == (name, message)
    assert execution.committed
    assert await sessions.value("kept") == "[1, 2]"
    return execution


# Magics and help


async def test_magics_work(sessions: Sessions) -> None:
    """Those that an agent writes by habit."""
    await sessions.run("kept = [1, 2]")
    assert "ns per loop" in text_of(await sessions.run("%timeit -n 1 -r 2 pass"))
    timed = text_of(await sessions.run("%%time\nx = 7\nx"))
    assert "Wall time" in timed
    assert timed.endswith("\n7")
    assert text_of(await sessions.run("%who")).split() == ["kept", "x"]
    assert text_of(await sessions.run("%whos")).splitlines()[2].split() == ["kept", "list", "n=2"]
    assert text_of(await sessions.run("%%capture seen\nprint('hidden')\n'shown'")) == "⟦no output⟧"
    assert await sessions.value("seen.stdout, seen.outputs[0].data") == "('hidden\\n', {'text/plain': \"'shown'\"})"
    home = await sessions.value("%pwd")
    assert text_of(await sessions.run("%cd /tmp")) == "/tmp"
    assert await sessions.value("__import__('os').getcwd()") == "'/tmp'"
    await sessions.run("%cd -")
    assert await sessions.value("pwd") == home
    assert text_of(await sessions.run("%%writefile note.txt\nhello")).splitlines()[0] == "Writing note.txt"
    assert text_of(await sessions.run("%load note.txt")).endswith("hello\n")
    assert await sessions.value("kept") == "[1, 2]"


@pytest.mark.parametrize("line", ["%store x", "store x", "%store", "%store -r", "%store -r x", "%store -r gone"])
async def test_what_store_keeps_is_told(sessions: Sessions, line: str) -> None:
    """It would say that it has stored something, which is gone with the kernel; the variables themselves are not."""
    await sessions.run("x = 7")
    told = text_of(await sessions.run(line))
    assert "[store] variables of a session last by themselves" in told
    assert told.count("[store]") == 1
    await sessions.kill()
    assert await sessions.value("x") == "7"


async def test_store_writes_files(sessions: Sessions) -> None:
    """They stay, so that nothing is to be said."""
    await sessions.run("x = 'seven'")
    assert "[store]" not in text_of(await sessions.run("%store x >seven.txt"))
    await sessions.kill()
    assert await sessions.value("open('seven.txt').read()") == "'seven\\n'"


async def test_magics_that_do_not_exist_say_so_once(sessions: Sessions) -> None:
    """As an error, without a traceback."""
    await sessions.run("kept = [1, 2]")
    for code, message in (
        ("%nosuch", "Line magic function `%nosuch` not found."),
        ("%%nosuch\nx", "Cell magic `%%nosuch` not found."),
    ):
        execution = await fails(sessions, code, "UsageError", message)
        assert describe(execution) == f"UsageError: {message}"


async def test_help_is_output(sessions: Sessions) -> None:
    """Whatever IPython or Python would show in a pager."""
    await sessions.run("kept = [1, 2]\ndef double(x):\n    'Twice x.'\n    return 2 * x")
    for code, part in (
        ("double?", "Docstring: Twice x."),
        ("double??", "    return 2 * x"),
        ("%pinfo double", "Docstring: Twice x."),
        ("?double", "Signature: double(x)"),
        ("%pdoc double", "Twice x."),
        ("kept?", "Type:        list"),
        ("%psearch kep*", "kept"),
        ("help(double)", "double(x)\n    Twice x."),
    ):
        assert part in text_of(await sessions.run(code)), code
    assert text_of(await sessions.run("nosuch?")) == "Object `nosuch` not found."


# Await and display


async def test_await_works_at_the_top_level(sessions: Sessions) -> None:
    """And `async for`, `async with`; `asyncio.run` says what to write instead."""
    await sessions.run("kept = [1, 2]\nimport asyncio")
    assert await sessions.value("await asyncio.sleep(0, 'slept')") == "'slept'"
    assert (
        text_of(await sessions.run("async def two():\n  yield 1\n  yield 2\nasync for n in two(): print(n)")) == "1\n2"
    )
    assert text_of(await sessions.run("async with asyncio.timeout(9): print('in time')")) == "in time"
    message = "asyncio.run() cannot be called from a running event loop"
    execution = await fails(sessions, "asyncio.run(asyncio.sleep(0))", "RuntimeError", message)
    assert describe(execution).endswith(
        f"RuntimeError: {message}\n[hint] the event loop runs already: use `await` at the top level of the code"
    )


async def test_displays_come_in_order_and_can_be_changed(sessions: Sessions) -> None:
    """Several of them, by handle, by id; and cleared."""
    execution = await sessions.run("display(1, 'a', [1, 2]); 'result'")
    assert (execution.output.displays, execution.output.result) == (("1", "'a'", "[1, 2]"), "'result'")
    execution = await sessions.run("handle = display('a', display_id=True); handle.update('b'); display('c')")
    assert execution.output.displays == ("'b'", "'c'")
    code = "from IPython.display import *\nd = display('a', display_id='x'); update_display('z', display_id='x')"
    assert (await sessions.run(code)).output.displays == ("'z'",)
    for wait in (False, True):
        assert (
            text_of(await sessions.run(f"print('old'); display(1); clear_output(wait={wait}); print('new')")) == "new"
        )


async def test_rich_results_are_text(sessions: Sessions) -> None:
    """A frame by its text, its HTML is recorded; an object without a text of its own by what it has."""
    execution = await sessions.run("import pandas as pd\npd.DataFrame({'a': [1, 2]})")
    assert execution.output.result == "   a\n0  1\n1  2"
    [(outputs,)] = await sessions.rows("SELECT outputs FROM executions WHERE request_id = ?", execution.request_id)
    assert "<table" in outputs
    code = "from IPython.display import *\ndisplay(Markdown('# title')); display(Latex('$x$')); HTML('<b>bold</b>')"
    execution = await sessions.run(code)
    assert (execution.output.displays, execution.output.result) == (("# title", "$x$"), "bold")
    execution = await sessions.run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert [figure.mime for figure in execution.output.figures] == ["image/png"]


# Streams


async def test_streams_are_kept_apart(sessions: Sessions) -> None:
    """print, logging, warnings, bytes, descriptors and child processes."""
    execution = await sessions.run(
        """
import logging, os, subprocess, sys, warnings
print('out'); print('err', file=sys.stderr)
logging.warning('careful'); warnings.warn('old')
sys.stdout.buffer.write('ü'.encode()[:1]); sys.stdout.buffer.write('ü'.encode()[1:] + b'\\n')
subprocess.run([sys.executable, '-c', 'print("child")'], stdout=sys.stdout)
os.write(sys.stderr.fileno(), b'raw\\n'); sys.stdout.reconfigure(encoding='utf-8')
"""
    )
    assert execution.status == "ok", execution.output.error
    assert execution.output.stdout == "out\nü\nchild\n"
    for line in ("err", "WARNING:root:careful", "raw"):
        assert line in execution.output.stderr.splitlines()
    assert "UserWarning: old" in execution.output.stderr


async def test_progress_bars_show_their_last_state_only(sessions: Sessions) -> None:
    """One, several below each other, and those that would be widgets in a notebook."""
    for module in ("tqdm", "tqdm.auto"):
        execution = await sessions.run(f"from {module} import tqdm\nfor n in tqdm(range(500), mininterval=0): pass")
        [bar] = execution.output.stderr.splitlines()
        assert bar.startswith("100%|██████████| 500/500 [")
    code = "for a in tqdm(range(2), desc='outer', mininterval=0):\n"
    code += "    for b in tqdm(range(50), desc=f'inner {a}', mininterval=0): pass"
    bars = (await sessions.run(code)).output.stderr.splitlines()
    assert [bar.split("|")[0] for bar in bars] == ["inner 0: 100%", "inner 1: 100%", "outer: 100%"]


async def test_what_threads_print_between_calls_is_in_the_next_result(sessions: Sessions) -> None:
    """With a line that says so, once."""
    await sessions.run(
        "import threading\ngo, done = threading.Event(), threading.Event()\n"
        "def talk():\n    go.wait(); print('from the thread', flush=True); done.set()\n"
        "threading.Thread(target=talk).start()\nimport asyncio\n"
        "asyncio.get_running_loop().call_later(0.01, go.set);"
    )
    await sessions.run("None", "other")
    execution = await sessions.run("done.wait(); print('cell')")
    assert "from the thread" in execution.output.stdout
    assert execution.output.stdout.endswith("cell\n")
    assert text_of(await sessions.run("print('next')")) == "next"


# What a session has not


@pytest.mark.parametrize(
    "codes",
    [
        {
            "input('name? ')": "input() has nobody to ask: no person sits at a session; pass the value in the code",
            "import getpass; getpass.getpass()": (
                "getpass() has nobody to ask: no person sits at a session; pass the value in the code"
            ),
            "from IPython import embed; embed()": (
                "embed() has nobody to ask: no person sits at a session; pass the value in the code"
            ),
            "help()": "input() has nobody to ask: no person sits at a session; pass the value in the code",
        }
    ],
)
async def test_questions_fail_at_once(sessions: Sessions, codes: dict[str, str]) -> None:
    """Nobody is there to answer."""
    await sessions.run("kept = [1, 2]")
    for code, message in codes.items():
        execution = await fails(sessions, code, "NoInput", message)
        assert "kernelrepl/guest" not in describe(execution)


async def test_debuggers_fail_at_once(sessions: Sessions) -> None:
    """All ways into one, and nothing of them is left behind."""
    await sessions.run("kept = [1, 2]")
    message = (
        "a debugger has nobody to talk to: no person sits at a session; "
        "print the values, or look at the variables in the next call"
    )
    for code in (
        "breakpoint()",
        "import pdb; pdb.set_trace()",
        "from IPython.core.debugger import set_trace; set_trace()",
        "pdb.run('1')",
        "pdb.runcall(len, [])",
        "try: 1/0\nexcept Exception: pdb.post_mortem()",
        "%debug",
        "%pdb on",
    ):
        execution = await fails(sessions, code, "NoDebugger", message)
        assert "kernelrepl/guest" not in describe(execution)
    assert await sessions.value("__import__('sys').gettrace() is None") == "True"
    failed = await sessions.run("1/0")
    assert failed.output.error is not None
    assert failed.output.error.name == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("!ls -l", "os.listdir('.') lists a directory"),
        ("%ls", "os.listdir('.') lists a directory"),
        ("files = !ls", "os.listdir('.') lists a directory"),
        ("!cat a.txt | head", "open('FILE').read() reads a file"),
        ("!pip install left-pad", ASK),
        ("!python -m pip install -q left-pad", ASK),
        ("!sudo pip3 install left-pad", ASK),
        ("!conda install left-pad", f"for packages, `%pip install left-pad` {HOW}"),
        ("!wget http://example.org/a.csv", "there is no network"),
        ("!nvidia-smi", "write it in Python"),
        ("import subprocess; subprocess.run(['ls', '-l'])", "os.listdir('.') lists a directory"),
        ("import subprocess; subprocess.check_output('ls', shell=True)", PROGRAMS),
        ("open('/home/somebody/data.csv')", "`kernelrepl put` brings a file in"),
        ("import pandas as pd; pd.read_csv('/data/a.csv')", "`kernelrepl put` brings a file in"),
        ("open('/tmp/out.csv')", "its /tmp is its own as well"),
        ("```python\n1 + 1\n```", "send what stands between ``` and ```"),
        ("raise ImportError(\"Missing optional dependency 'Jinja2'. DataFrame.style requires jinja2.\")", "jinja2"),
        ("open('nothing.csv')", None),
    ],
)
async def test_advice_can_be_followed(sessions: Sessions, code: str, advice: str | None) -> None:
    """In a session as it is: without a shell, other programs, a network, and the files of the machine."""
    execution = await sessions.run(code)
    assert execution.output.error is not None
    said = describe(execution)
    assert advice in said if advice else "[hint]" not in said


async def test_shell_escapes_are_refused_and_run_nothing(sessions: Sessions) -> None:
    """Each says what was not run and what to do instead."""
    await sessions.run("kept = [1, 2]")
    for code, command in (
        ("!touch ran", "'touch ran'"),
        ("x = !touch ran", "'touch ran'"),
        ("!!touch ran", "'touch ran'"),
        ("if True:\n    !touch {'ra' + 'n'}", "\"touch {'ra' + 'n'}\""),
        ("%system touch ran", "'%system touch ran'"),
        ("%sx touch ran", "'%sx touch ran'"),
        ("%%sx\ntouch ran", "'%%sx\\ntouch ran'"),
        ("%sc x=touch ran", "'touch ran'"),
        ("%mkdir ran", "'mkdir ran'"),
        ("get_ipython().system('touch ran')", "'touch ran'"),
        ("get_ipython().getoutput('touch ran')", "'touch ran'"),
        ("%%bash\ntouch ran", "'%%bash\\ntouch ran'"),
        ("%%sh\ntouch ran", "'%%sh\\ntouch ran'"),
        ("%%script bash -e\ntouch ran", "'%%script bash -e\\ntouch ran'"),
        ("%%perl\nprint 1", "'%%perl\\nprint 1'"),
        ("%%ruby\nputs 1", "'%%ruby\\nputs 1'"),
        ("%%python\nopen('ran', 'w')", "\"%%python\\nopen('ran', 'w')\""),
        ("%%time\n!touch ran", "'touch ran'"),
    ):
        execution = await sessions.run(code)
        touches = "touch" in command
        instead = "open('FILE', 'a').close() makes a file" if touches else "write it in Python"
        instead = "os.makedirs('NAME') makes a directory" if command == "'mkdir ran'" else instead
        message = f"a session has no shell, so {command} was not run; {instead}; {PROGRAMS}"
        if execution.output.error is None:  # %%time shows the error and goes on
            assert f"NoShell: {message}" in execution.output.stderr
        else:
            assert (execution.output.error.name, execution.output.error.message) == ("NoShell", message), code
        assert "kernelrepl/guest" not in describe(execution)
    assert await sessions.value("__import__('os').listdir()") == "[]"
    assert await sessions.value("'x' in globals(), kept") == "(False, [1, 2])"


async def test_other_acts_of_installers_are_refused(sessions: Sessions) -> None:
    """It says how packages are installed, and how they are listed."""
    await sessions.run("kept = [1, 2]")
    for code, shown, names in (
        ("%pip list", "%pip list", "NAME"),
        ("%pip uninstall left-pad", "%pip uninstall left-pad", "NAME"),
        ("%conda install left-pad", "%conda install left-pad", "left-pad"),
        ("%mamba list", "%mamba list", "NAME"),
        ("%uv sync", "%uv sync", "NAME"),
    ):
        it = "them" if names == "NAME" else "it"
        how = f"`%pip install {names}` installs {it} for this session"
        how += ", importlib.metadata.distributions() lists what there is"
        await fails(sessions, code, "NoInstaller", f"{shown!r} was not run; {how}")
    message = "a session has no editor, so '%edit x.py' did nothing; write the file"
    await fails(sessions, "%edit x.py", "NoEditor", message)
    execution = await fails(sessions, "import nosuchmodule", "ModuleNotFoundError", "No module named 'nosuchmodule'")
    assert describe(execution).endswith(
        "[hint] if it is a package: `%pip install nosuchmodule` installs it for this session"
    )
