"""Code that breaks things: the answer says what happened, the next call works, and nothing saved is lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import psutil
import pytest

from kernelrepl.mcp.results import describe
from kernelrepl.model import Limits
from kernelrepl.sessions import interruption
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

AFTER = "variables are as they were before it, and the next call restores them"
ENDED = "the code ended the process; sys.exit and exit end only the cell"
BROKEN = "the code broke what the kernel itself works with, like a function or module of the standard library"
PUT_BACK = "[put back, because the code had broken it: {}]\n"
EXIT_HINT = "[hint] the code ended here; the session goes on with all its variables"


async def start(sessions: Sessions) -> None:
    """A session with a variable."""
    await sessions.run("kept = [1, 2]")


async def goes_on(sessions: Sessions, *, restored: bool = False) -> None:
    """The next call works and finds the earlier variable, in the same kernel or in a restored one."""
    execution = await sessions.run("kept, len(kept), print('printed')")
    assert execution.status == "ok", execution.output.error
    assert (execution.output.result, execution.output.stdout) == ("([1, 2], 2, None)", "printed\n")
    assert execution.committed
    assert (execution.restored is not None) is restored


async def error_of(sessions: Sessions, code: str) -> tuple[str, str]:
    """Name and message of the error that ends code; the session goes on."""
    execution = await sessions.run(code)
    assert execution.status == "error", describe(execution)
    assert execution.output.error is not None
    assert execution.committed
    assert "kernelrepl/guest" not in describe(execution)
    await goes_on(sessions)
    return execution.output.error.name, execution.output.error.message


# Code that ends itself


async def test_exit_ends_the_cell_and_nothing_else(sessions: Sessions) -> None:
    """In all its forms; what the cell had done until then is kept."""
    await start(sessions)
    for code, shown in (
        ("exit()", "SystemExit"),
        ("quit()", "SystemExit"),
        ("exit(3)", "SystemExit: 3"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise SystemExit", "SystemExit"),
        ("raise SystemExit('done')", "SystemExit: done"),
        ("get_ipython().ask_exit()", "SystemExit"),
    ):
        execution = await sessions.run(f"done = {code!r}\n{code}\nnever = 1")
        assert (execution.status, describe(execution)) == ("error", f"{shown}\n{EXIT_HINT}")
        assert await sessions.value("done, 'never' in globals()") == f"({code!r}, False)"
        await goes_on(sessions)
    for code in ("exit", "quit"):
        assert describe(await sessions.run(code)) == f"SystemExit\n{EXIT_HINT}"
        await goes_on(sessions)


async def test_a_cell_cannot_stop_the_kernel_by_its_loop(sessions: Sessions) -> None:
    """Neither by the shutdown of IPython nor by the event loop."""
    await start(sessions)
    message = "code does not end its own kernel; reset=True of python_repl gives the session a fresh one"
    assert await error_of(sessions, "get_ipython().kernel.do_shutdown(True)") == ("NoShutdown", message)
    for code in (
        "get_ipython().exit_now = True",
        "import asyncio; asyncio.get_running_loop().stop()",
        "asyncio.get_running_loop().stop(); await asyncio.sleep(0.01)",
    ):
        assert describe(await sessions.run(code)) == "⟦no output⟧"
        await goes_on(sessions)


@pytest.mark.parametrize(
    ("code", "died", "why"),
    [
        ("import os; os._exit(3)", "it exited with code 3", ENDED),
        (
            "import os; os.kill(os.getpid(), 9)",
            "it was ended by SIGKILL",
            "the code or somebody else sent it, or the machine had run out of memory",
        ),
        (
            "import os; os.abort()",
            "it was ended by SIGABRT",
            "C code gave up, or the code called os.abort or closed descriptors that it had not opened",
        ),
        (
            "import sys; sys.setrecursionlimit(10**9)\n"
            "class Deep:\n    def __getattr__(self, name): return getattr(self, name + 'x')\nDeep().a",
            "it was ended by SIGSEGV",
            "C code crashed, or a recursion was deeper than the stack",
        ),
        ("get_ipython().kernel.interrupts.finish_cell = None", "it exited with code 70", BROKEN),
        ("get_ipython().kernel.saving.commit = None", "it exited with code 70", BROKEN),
    ],
)
async def test_a_kernel_that_dies_is_explained(sessions: Sessions, code: str, died: str, why: str) -> None:
    """What ended it and why; what it printed is there, and what other sessions have is untouched."""
    await start(sessions)
    await sessions.run("elsewhere = 5", "other")
    execution = await sessions.run(f"kept.append(3); print('before', flush=True)\n{code}\nprint('after')")
    assert execution.status == "crashed"
    assert execution.note == f"the kernel did not survive this execution ({died}: {why}); {AFTER}"
    assert execution.output.error is not None
    assert execution.output.error.message == died
    assert "⟦crashed⟧\n⟦note⟧ the kernel did not survive" in describe(execution)
    await goes_on(sessions, restored=True)
    assert await sessions.value("elsewhere", "other") == "5"


async def test_closing_every_descriptor_ends_the_kernel_only(sessions: Sessions) -> None:
    """Its sockets are gone with them, so it dies in one way or another, at once."""
    await start(sessions)
    execution = await sessions.run("import os; os.closerange(0, 1000)")
    assert execution.status == "crashed"
    assert execution.note is not None
    assert execution.note.startswith("the kernel did not survive this execution (it ")
    assert execution.note.endswith(f"; {AFTER}")
    await goes_on(sessions, restored=True)


# Code that takes away what cells need


async def test_what_a_cell_takes_away_is_put_back(sessions: Sessions) -> None:
    """Streams, descriptors, builtins, limits; each time it is said what was broken."""
    await start(sessions)
    for code, broken in (
        ("import sys; sys.stdout = None", "sys.stdout"),
        ("sys.stderr = None", "sys.stderr"),
        ("sys.stdout = open('log', 'w'); sys.stdout.close()", "sys.stdout"),
        ("import os; os.close(1)", "descriptor 1"),
        ("os.close(2)", "descriptor 2"),
        ("import builtins; builtins.print = None", "print"),
        ("del builtins.len, builtins.isinstance", "isinstance, len"),
        ("builtins.__import__ = None", "__import__"),
        ("sys.setrecursionlimit(60)", "the recursion limit"),
    ):
        execution = await sessions.run(code)
        assert (execution.status, execution.output.stderr) == ("ok", PUT_BACK.format(broken)), code
        await goes_on(sessions)
    assert (
        await sessions.value("os.write(1, b'raw'), __import__('subprocess').call([sys.executable, '-c', ''])")
        == "(3, 0)"
    )


async def test_harmless_attacks_on_the_surroundings_change_nothing(sessions: Sessions) -> None:
    """What is IPython's own is there again; what is left to the code, like a name of its own, works."""
    await start(sessions)
    for code in (
        "import sys; sys.stdout.close()",
        "sys.stderr.close()",
        "import os; os.close(0)",
        "del get_ipython",
        "del In, Out",
        "del _oh\n1;",
        "del _ih, _i, _ii, _iii, _dh",
        "__builtins__ = {}",
        "__name__ = 'other'",
        "import gc; gc.disable()",
        "In = 3; Out = 4; _ = 5",
        "%autoawait",
    ):
        execution = await sessions.run(code)
        assert (execution.status, execution.output.stderr) == ("ok", ""), (code, execution.output)
        await goes_on(sessions)
        assert await sessions.value("get_ipython() is not None, __name__") == "(True, '__main__')"
    await sessions.run("class Made: pass")
    assert await sessions.value("Made.__module__, In, Out, sys.stdin.read()") == "('__main__', 3, 4, '')"


async def test_names_that_hide_builtins_are_variables(sessions: Sessions) -> None:
    """They last until they are deleted, and only the code's own calls meet them."""
    await start(sessions)
    await sessions.run("print = 3; len = 4; open = 5")
    await sessions.kill()
    assert await sessions.value("print, len, open, kept") == "(3, 4, 5, [1, 2])"
    execution = await sessions.run("print('x')")
    assert execution.output.error is not None
    assert execution.output.error.message == "'int' object is not callable"
    await sessions.run("del print, len, open")
    await goes_on(sessions)


async def test_output_that_goes_elsewhere_is_told_once(sessions: Sessions) -> None:
    """A stream of the code's own is left where it was put; the usual way back works."""
    await start(sessions)
    execution = await sessions.run("import io, sys; sys.stdout = io.StringIO(); print('lost')")
    told = "[sys.stdout is a StringIO now, which takes what is printed; sys.stdout = sys.__stdout__ puts it back]\n"
    assert (execution.output.stdout, execution.output.stderr) == ("", told)
    assert describe(await sessions.run("print('lost too')")) == "⟦no output⟧"
    await sessions.run("sys.stdout = sys.__stdout__")
    await goes_on(sessions)


@pytest.mark.parametrize("code", ["%reset -f", "get_ipython().user_ns.clear()", "globals().clear()"])
async def test_clearing_the_namespace_deletes_variables_and_nothing_else(sessions: Sessions, code: str) -> None:
    """The session is empty then, durably, and works."""
    await start(sessions)
    execution = await sessions.run(code)
    assert (execution.status, "kept" in execution.saved.deleted) == ("ok", True)
    for _ in range(2):
        assert await sessions.value("'kept' in globals(), __name__, len(get_ipython().user_ns) > 5") == (
            "(False, '__main__', True)"
        )
        await sessions.kill()


# Output that cannot be


async def test_output_of_any_kind_arrives(sessions: Sessions) -> None:
    """A long line, bytes that are no text, halves of characters, and reprs that print."""
    await start(sessions)
    long = (await sessions.run("print('x' * 5_000_000)")).output.stdout
    assert len(long) < 1_100_000
    assert "[… 4000001 characters cut …]" in long
    for code, stdout, result in (
        ("import os; os.write(1, b'a\\xff\\xfe\\n')", "a\ufffd\ufffd\n", "4"),
        ("import sys; sys.stdout.buffer.write(b'a\\xff')", "a\ufffd", "2"),
        ("print('\\ud800 half')", "? half\n", None),
        ("'\\ud800'", "", "'\\ud800'"),
        ("class Odd:\n    def __repr__(self): return '\\udcff'\nOdd()", "", "?"),
        ("class Talks:\n    def __repr__(self): print('hm'); return 'T'\nTalks()", "hm\n", "T"),
    ):
        execution = await sessions.run(code)
        assert (execution.status, execution.output.stdout, execution.output.result) == ("ok", stdout, result), code
    assert await error_of(sessions, "raise ValueError('\\ud800')") == ("ValueError", "?")


async def test_objects_that_cannot_be_shown_are_errors(sessions: Sessions) -> None:
    """Of the cell if they are its result; beside its output if it goes on."""
    await start(sessions)
    await sessions.run("class Mute:\n    def __repr__(self): raise ValueError('no repr')\nmute = Mute()")
    await sessions.run("class Odd:\n    def __repr__(self): return 3\nodd = Odd()")
    assert await error_of(sessions, "mute") == ("ValueError", "no repr")
    assert await error_of(sessions, "[mute]") == ("ValueError", "no repr")
    assert await error_of(sessions, "odd") == ("TypeError", "__repr__ returned non-string (type int)")
    execution = await sessions.run("display(mute); print('went on')")
    assert (execution.status, execution.output.stdout) == ("ok", "went on\n")
    assert execution.output.stderr.endswith("ValueError: no repr\n")
    assert "str() failed" in describe(await sessions.run("%whos"))


# Errors of every kind


@pytest.mark.parametrize("wrap", ["{}", "await __import__('asyncio').sleep(0)\n{}"])
async def test_exceptions_of_every_kind_end_the_cell(sessions: Sessions, wrap: str) -> None:
    """Those that mean something to the machinery too, and those whose own code fails; awaiting or not."""
    await start(sessions)
    await sessions.run(
        "import asyncio\nclass Mute(Exception):\n    def __str__(self): raise ValueError\n"
        "class Odd(Exception):\n    def __str__(self): return 5\n"
        "class Leaves(Exception):\n    def __str__(self): raise SystemExit"
    )
    unread = "[its message cannot be read: __str__ raised {}]"
    for code, name, message in (
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise BaseException('base')", "BaseException", "base"),
        ("raise GeneratorExit", "GeneratorExit", ""),
        ("raise StopIteration(5)", "StopIteration", "5"),
        ("raise asyncio.CancelledError('why')", "CancelledError", "why"),
        ("raise MemoryError", "MemoryError", ""),
        ("raise Mute", "Mute", unread.format("ValueError")),
        ("raise Odd", "Odd", unread.format("TypeError")),
        ("raise Leaves", "Leaves", unread.format("SystemExit")),
        ("raise ExceptionGroup('two', [ValueError(1), KeyError('k')])", "ExceptionGroup", "two (2 sub-exceptions)"),
    ):
        assert await error_of(sessions, wrap.format(code)) == (name, message)


async def test_an_exception_group_shows_all_of_its_parts(sessions: Sessions) -> None:
    """As the error itself, with the cell's own lines."""
    await start(sessions)
    execution = await sessions.run("raise ExceptionGroup('two', [ValueError(1), KeyError('k')])")
    assert execution.output.error is not None
    assert execution.output.error.traceback.splitlines() == [
        "  + Exception Group Traceback (most recent call last):",
        "  |   Cell In[2], line 1, in <module>",
        "  |     raise ExceptionGroup('two', [ValueError(1), KeyError('k')])",
        "  | ExceptionGroup: two (2 sub-exceptions)",
        "  +-+---------------- 1 ----------------",
        "    | ValueError: 1",
        "    +---------------- 2 ----------------",
        "    | KeyError: 'k'",
        "    +------------------------------------",
    ]


async def test_an_endless_recursion_is_told_shortly(sessions: Sessions) -> None:
    """Its beginning and its end; a structure too deep to be saved costs itself only, whatever the limit."""
    await start(sessions)
    execution = await sessions.run("def f(): f()\nf()")
    assert execution.output.error is not None
    assert execution.output.error.message.startswith("maximum recursion depth exceeded")
    assert len(execution.output.error.traceback) < 3000
    assert "frames cut …]" in execution.output.error.traceback
    code = "import sys; sys.setrecursionlimit(10**6)\ndeep = []\nfor _ in range(100_000): deep = [deep]\nn = 1"
    execution = await sessions.run(code)
    assert execution.status == "ok"
    assert [entry.name for entry in execution.not_saved] == ["deep"]
    assert "n" in execution.saved.created
    assert await sessions.value("sys.getrecursionlimit()") == "1000000"
    await goes_on(sessions)


async def test_code_that_is_none_says_so(sessions: Sessions) -> None:
    """Nothing at all is fine; what cannot be compiled names the line."""
    await start(sessions)
    for code in ("", "   \n\t\n", "# only a comment", "x = 1\nfrom __future__ import annotations", "  y = 1"):
        assert describe(await sessions.run(code)) == "⟦no output⟧"
    for code, name, line in (
        ("x = = 1", "SyntaxError", "SyntaxError: invalid syntax"),
        ("if True:\nprint(1)", "IndentationError", "IndentationError: expected an indented block after"),
        ("'open", "SyntaxError", "SyntaxError: unterminated string literal"),
        ("print('a'", "SyntaxError", "SyntaxError: "),
        ("from __future__ import nosuch", "SyntaxError", "SyntaxError: future feature nosuch is not defined"),
        ("return 5", "SyntaxError", "SyntaxError: 'return' outside function"),
    ):
        execution = await sessions.run(code)
        assert execution.output.error is not None
        assert execution.output.error.name == name
        assert line in describe(execution)
        assert "  Cell In[" in describe(execution)
    await goes_on(sessions)


# What takes too long


@dataclass(frozen=True)
class Slow:
    before: str
    code: str


SLOW = {
    "prints": Slow("", "while True: print('x' * 50)"),
    "repr": Slow("class Slow:\n    def __repr__(self):\n        while True: pass\nslow = Slow()", "slow"),
    "str of an error": Slow("class E(Exception):\n    def __str__(self):\n        while True: pass", "raise E"),
    "after an ignored signal": Slow("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)", "while True: pass"),
    "after a blocked signal": Slow(
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})", "while True: pass"
    ),
}


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
async def test_what_runs_for_ever_is_stopped_by_its_timeout(sessions: Sessions, slow: Slow) -> None:
    """The kernel survives, and says nothing of its own code."""
    await start(sessions)
    if slow.before:
        assert (await sessions.run(slow.before)).status == "ok"
    execution = await sessions.run(slow.code, timeout_s=0.3)
    assert execution.status == "timeout"
    assert execution.committed
    assert execution.output.error is not None
    assert execution.output.error.name == "KeyboardInterrupt"
    assert "kernelrepl/guest" not in describe(execution)
    assert describe(execution).endswith(
        "⟦timeout⟧ it was stopped at its timeout; what it had changed until then is kept"
    )
    await goes_on(sessions)


async def test_an_interrupt_between_two_steps_of_an_awaiting_cell_stops_it(sessions: Sessions) -> None:
    """At the moment when its task is being scheduled again: an exception there would be the loop's, not the cell's."""
    await start(sessions)
    code = """
import asyncio, signal
loop = asyncio.get_running_loop()
def call_soon(*args, **options):
    del loop.call_soon
    signal.raise_signal(signal.SIGINT)
    return loop.call_soon(*args, **options)
loop.call_soon = call_soon
while True: await asyncio.sleep(0)
"""
    assert await error_of(sessions, code) == ("CancelledError", "")


async def test_a_cell_that_takes_no_interrupt_loses_its_kernel(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while, and it is said why."""
    monkeypatch.setattr(interruption, "INTERRUPT_GRACE_S", 0.2)
    await start(sessions)
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nkept.append(3)\nwhile True: pass"
    execution = await sessions.run(code, timeout_s=0.2)
    note = f"it ran into its timeout and did not react to interrupts, so its kernel was ended; {AFTER}"
    assert (execution.status, execution.note) == ("timeout", note)
    assert describe(execution) == f"KernelDied: it was ended by SIGKILL\n⟦timeout⟧\n⟦note⟧ {note}"
    await goes_on(sessions, restored=True)


async def test_a_kernel_that_takes_no_more_code_is_replaced(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code runs in the next one, as it has not begun."""
    monkeypatch.setattr(interruption, "BEGIN_TIMEOUT_S", 2.0)
    await start(sessions)
    await sessions.run("get_ipython().kernel.session.deserialize = None")
    await goes_on(sessions, restored=True)


STUCK = "import time; get_ipython().kernel.finish_metadata = lambda *given: time.sleep({})"
"""What comes after the commit of a cell, and before its reply."""


async def test_an_answer_comes_with_the_commit(sessions: Sessions) -> None:
    """Not with the reply of the kernel, which says nothing that the commit has not said; the next code waits for it."""
    await start(sessions)
    await sessions.run("kept.append(3)\n" + STUCK.format(1))
    session, following = await sessions.submit("kept.append(4)")
    assert session.current is not None
    assert session.current.result.done()
    assert following.is_waiting
    assert (await sessions.manager.latest("s")).execution is following
    assert (await following.result).status == "ok"
    assert await sessions.value("kept") == "[1, 2, 3, 4]"


async def test_a_kernel_that_gets_stuck_behind_its_answer_is_replaced(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while, or when somebody wants to be rid of it; what was answered is kept."""
    monkeypatch.setattr(interruption, "REPLY_TIMEOUT_S", 1.0)
    await start(sessions)
    await sessions.run("kept.append(3)\n" + STUCK.format(600))
    assert await sessions.value("kept") == "[1, 2, 3]"
    monkeypatch.undo()
    await sessions.run(STUCK.format(600))
    session = sessions.manager.loaded()["s"]
    assert session.latest is not None
    await session.interrupt(session.latest, force=True)
    await session.hibernate()
    assert await sessions.value("kept") == "[1, 2, 3]"


async def test_an_alarm_without_a_handler_is_an_error(sessions: Sessions) -> None:
    """In the cell that runs when it goes off; between cells it is nothing."""
    await start(sessions)
    message = "an alarm went off that code had set with signal.alarm or setitimer, without a handler"
    code = "import signal, time; signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(30)"
    assert await error_of(sessions, code) == ("TimeoutError", message)
    await sessions.run("signal.setitimer(signal.ITIMER_REAL, 0.0001);")
    await goes_on(sessions)


async def test_values_that_resist_saving_cost_themselves_only(sessions: Sessions) -> None:
    """Those that raise and those that hang; and once such a value is gone, so is its cost."""
    await sessions.run("kept = [1, 2]", limits=Limits(save_deadline_s=0.3))
    execution = await sessions.run(
        "class Refuses:\n    def __reduce__(self): raise ValueError('cannot')\n"
        "class Hangs:\n    def __reduce__(self):\n        while True: pass\n"
        "refuses, hangs, other = Refuses(), Hangs(), 5"
    )
    reasons = {entry.name: entry.reason for entry in execution.not_saved}
    assert reasons == {
        "refuses": "ValueError: cannot",
        "hangs": "saving it took longer than 0.3 s and was stopped",
    }
    assert "other" in execution.saved.created
    await sessions.run("del refuses, hangs")
    await goes_on(sessions)


# What goes on after the cell


async def test_threads_and_tasks_that_go_on_are_no_harm(sessions: Sessions) -> None:
    """A thread that changes a dict, a task that never ends, and errors in either."""
    await start(sessions)
    code = """
import threading, asyncio
shared, stop = {}, threading.Event()
def change():
    n = 0
    while not stop.is_set():
        n += 1
        shared[n % 1000] = n
        if n % 1000 == 999: shared.clear()
threading.Thread(target=change, daemon=True).start()
async def tick():
    while True: await asyncio.sleep(0.001)
ticking = asyncio.create_task(tick())
"""
    assert (await sessions.run(code)).status == "ok"
    for _ in range(3):
        await goes_on(sessions)
    execution = await sessions.run("stop.set(); ticking.cancel()\ndef boom(): raise ValueError('in a thread')")
    assert execution.status == "ok"
    execution = await sessions.run("t = threading.Thread(target=boom); t.start(); t.join(); del t")
    assert (execution.status, execution.output.stderr.splitlines()[-1]) == ("ok", "ValueError: in a thread")
    code = (
        "async def bad(): raise ValueError('in a task')\nt = asyncio.create_task(bad()); await asyncio.sleep(0)\ndel t"
    )
    execution = await sessions.run(code)
    assert (execution.status, execution.output.stderr.splitlines()[-1]) == ("ok", "ValueError: in a task")
    await goes_on(sessions)


async def test_forked_children_end_with_the_cell(sessions: Sessions) -> None:
    """What they print and how they fail is seen; they never answer for the session."""
    await start(sessions)
    fork = "import os, sys\npid = os.fork()\nif pid == 0: {}\n"
    fork += "if pid: code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    for child, code, stdout, stderr in (
        ("print('child')", 0, "child\n", ""),
        ("1/0", 1, "", "ZeroDivisionError: division by zero"),
        ("sys.exit(3)", 3, "", ""),
        ("os._exit(4)", 4, "", ""),
        ("os.abort()", -6, "", ""),
    ):
        execution = await sessions.run(fork.format(child))
        assert (execution.status, execution.output.stdout) == ("ok", stdout), child
        assert execution.output.stderr.strip().endswith(stderr)
        assert await sessions.value("code") == str(code)
        await goes_on(sessions)


async def test_children_that_outlive_their_cell_go_with_the_kernel(sessions: Sessions) -> None:
    """Forked, multiprocessing, subprocess: the session works on, and none of them is left behind."""
    await start(sessions)
    await sessions.run(
        "import multiprocessing, os, subprocess, sys, time\n"
        "pid = os.fork()\nif pid == 0: time.sleep(600)\n"
        "process = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,)); process.start()\n"
        "program = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    )
    await goes_on(sessions)
    pid = sessions.manager.loaded()["s"].pid
    assert pid is not None
    children = psutil.Process(pid).children(recursive=True)
    assert len(children) >= 3
    await sessions.kill()
    await asyncio.to_thread(psutil.wait_procs, children, 30)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    await goes_on(sessions, restored=True)
