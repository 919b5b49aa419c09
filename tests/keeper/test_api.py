"""The Python API: one connection an event loop, typed errors, results that show themselves."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import kernelrepl
from kernelrepl import errors, python_interrupt, python_list_sessions, python_list_variables, python_repl, python_wait
from kernelrepl.client import tools
from kernelrepl.client.result import Result
from kernelrepl.errors import (
    DatabaseTooNew,
    InvalidArgument,
    InvalidSessionId,
    KeeperUnavailable,
    KernelStartFailed,
    NothingRunning,
    UnknownSession,
)
from tests.support.mcp_hosts import DEADLINE_S, Place, kill_9, says, until, waits_for

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """A keeper of our own for the functions."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    yield Place(environ)
    await tools.close()


def script(environ: dict[str, str], code: str, *options: str) -> str:
    """What a program prints that uses the API; warnings of any kind end it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", *options, "-c", textwrap.dedent(code)],
        env=environ, capture_output=True, text=True, timeout=DEADLINE_S, cwd="/",
    )  # fmt: skip
    # How fast this machine is just now, which asyncio remarks on in this mode, is no matter of the program's.
    said = re.sub(r"^Executing <.*> took [\d.]+ seconds\n", "", done.stderr, flags=re.MULTILINE)
    assert (done.returncode, said) == (0, ""), done.stderr
    return done.stdout


def test_a_script_needs_an_import_and_asyncio_run(environ: dict[str, str]) -> None:
    """Each `asyncio.run` has its connection and leaves nothing open; the session goes on."""
    printed = script(
        environ,
        """
        import asyncio
        from kernelrepl import python_repl
        asyncio.run(python_repl(code="x = 41", session_id="s"))
        print(asyncio.run(python_repl(code="x + 1", session_id="s"))["result"])
        """,
    )
    assert printed == "42\n"


def test_a_star_import_brings_the_functions(environ: dict[str, str]) -> None:
    """All of them, and they are in `dir`."""
    printed = script(
        environ,
        "from kernelrepl import *\nimport kernelrepl\nprint(python_repl.__name__, 'python_wait' in dir(kernelrepl))",
    )
    assert printed == "python_repl True\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """As with every module."""
    with pytest.raises(AttributeError, match="python_rpl"):
        _ = kernelrepl.python_rpl


async def test_calls_side_by_side_share_one_connection(place: Place) -> None:
    """And sessions run at the same time."""
    connections = tools._connections
    others = list(connections.values())  # of event loops of other tests
    await asyncio.gather(*(python_repl(f"n = {n}", f"s{n}") for n in range(3)))
    assert len([connection for connection in connections.values() if connection not in others]) == 1
    found = await python_list_sessions()
    assert (found["session_count"], {entry["session_id"] for entry in found["sessions"]}) == (3, {"s0", "s1", "s2"})


async def test_a_result_is_a_mapping_with_more(place: Place) -> None:
    """Fields as of the tool; text, figures and outputs beside."""
    result = await python_repl("import matplotlib.pyplot as plt\nplt.plot([1]); print('hi')\n'end'", "s")
    assert isinstance(result, dict)
    assert (result["status"], result["stdout"], result["result"], result["figures"]) == ("ok", "hi\n", "'end'", 1)
    assert result.images[0].startswith(b"\x89PNG")
    assert result.text.startswith("hi\n'end'")
    assert [output["output_type"] for output in result.outputs] == ["stream", "execute_result", "display_data"]
    for output in result.outputs:
        nbformat.validate(output, ref=output["output_type"], version=4)
    assert json.loads(json.dumps(result)) == result


async def test_code_that_fails_is_a_result(place: Place) -> None:
    """No exception: the machinery did what it should."""
    result = await python_repl("1/0", "s")
    assert (result["status"], result["error"]["name"]) == ("error", "ZeroDivisionError")


async def test_without_wait_a_call_returns_when_the_code_has_ended(place: Place) -> None:
    """With it, the rest is collected later; `python_interrupt` ends it."""
    running = await python_repl(f"{says('began')}\n{waits_for('go')}\n1", "s", wait=0)
    assert running["status"] == "running"
    await until(lambda: place.said("began"))
    waiting = asyncio.create_task(python_wait("s"))
    place.file("go").touch()
    assert (await waiting)["result"] == "1"
    await python_repl(waits_for("never"), "s", wait=0)
    await python_interrupt("s")
    assert (await python_wait("s"))["status"] == "interrupted"


async def test_cancelling_a_call_interrupts_its_code(place: Place) -> None:
    """What it did until then is kept."""
    call = asyncio.create_task(python_repl(f"n = 1\n{says('began')}\n{waits_for('never')}", "s"))
    await until(lambda: place.said("began"))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await python_wait("s"))["status"] == "interrupted"
    assert (await python_repl("n", "s"))["result"] == "1"


async def test_the_death_of_the_keeper_is_not_the_callers_business(place: Place) -> None:
    """Between two calls nothing is noticed; in the middle of one the call tells what became of it."""
    await python_repl("n = 1", "s")
    kill_9(place.keeper)
    assert (await python_repl("n", "s"))["result"] == "1"
    call = asyncio.create_task(python_repl(f"n = 2\n{says('began')}\n{waits_for('never')}", "s"))
    await until(lambda: place.said("began"))
    kill_9(place.keeper)
    result = await call
    assert (result["status"], result["committed"]) == ("crashed", False)
    assert "variables are as they were before it" in result["note"]
    assert (await python_repl("n", "s"))["result"] == "1"


@pytest.mark.parametrize(
    ("call", "error", "attributes"),
    [
        (lambda: python_list_variables("ss"), UnknownSession, {"session_id": "ss", "close": ("s",)}),
        (lambda: python_repl("1", "../x"), InvalidSessionId, {"session_id": "../x"}),
        (lambda: python_repl("1", "s", timeout=-1), InvalidArgument, {}),
        (lambda: python_repl("1", "s", wait=-1), InvalidArgument, {}),
        (lambda: python_repl("1\0", "s"), InvalidArgument, {}),
    ],
    ids=["unknown session", "bad id", "timeout", "wait", "code"],
)
async def test_errors_are_typed(place: Place, call: Any, error: type[Exception], attributes: dict[str, Any]) -> None:
    """The class that the keeper raised, with its sentence and its data."""
    await python_repl("x = 1", "s")
    with pytest.raises(error) as caught:
        await call()
    assert type(caught.value) is error
    assert vars(caught.value) == attributes
    assert len(str(caught.value)) > 20


async def test_a_place_that_cannot_be_used_is_said(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error that names it; the next call tries again."""
    for name, value in {**environ, "KERNELREPL_DATA_DIR": "/dev/null/data"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KeeperUnavailable, match="/dev/null/data"):
        await python_repl("1")
    monkeypatch.setenv("KERNELREPL_DATA_DIR", environ["KERNELREPL_DATA_DIR"])
    assert (await python_repl("1"))["result"] == "1"
    await tools.close()


@pytest.mark.parametrize(
    "error",
    [UnknownSession("s", ["t"]), KernelStartFailed("why", "log"), DatabaseTooNew("/p"), NothingRunning("s")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_the_wire(error: errors.KernelReplError) -> None:
    """Class, words and data."""
    again = errors.from_wire(json.loads(json.dumps(errors.to_wire(error))))
    assert type(again) is type(error)
    assert (str(again), vars(again or error)) == (str(error), vars(error))


@pytest.mark.parametrize(
    "found", [None, 1, {}, {"type": "OSError"}, {"type": "os"}, {"type": "to_wire", "message": ""}]
)
def test_what_is_no_error_of_ours_is_none(found: Any) -> None:
    """Nothing but our classes is made from what another process says."""
    assert errors.from_wire(found) is None


# In a notebook

CELLS = [
    "import os\nos.environ.update(KERNELREPL_DATA_DIR={data!r}, KERNELREPL_RUNTIME_DIR={run!r})\n"
    "from kernelrepl import *",
    "await python_repl('''import pandas as pd, matplotlib.pyplot as plt\n"
    "print('hello')\nplt.plot([1, 2])\npd.DataFrame({{'a': [1]}})''', 's')",
    "await python_repl('gen = (n for n in [])\\n1/0', 's')",
    "await python_list_variables('s')",
    "result = await python_repl('2', 's')",
]


def test_in_a_notebook_a_result_shows_itself(environ: dict[str, str]) -> None:
    """Text, tables and figures, where the call is the last thing in a cell; the loop of a kernel runs already."""
    values = {"data": environ["KERNELREPL_DATA_DIR"], "run": environ["KERNELREPL_RUNTIME_DIR"]}
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(cell.format(**values)) for cell in CELLS]
    NotebookClient(book, timeout=int(DEADLINE_S), kernel_name="python3").execute()
    first, rich, failed, listed, quiet = (cell.outputs for cell in book.cells)
    assert (first, quiet) == ([], [])
    assert rich[0]["text"] == "hello\n"
    shown = [set(output["data"]) for output in rich if output["output_type"] == "display_data"]
    assert {"text/html", "text/plain"} in shown
    assert any("image/png" in mimes for mimes in shown)
    assert "<th>a</th>" in rich[1]["data"]["text/html"]
    assert "ZeroDivisionError" in failed[0]["text"]
    assert "⟦not saved⟧ gen (generator)" in failed[0]["text"]
    assert "<td>gen</td>" in listed[0]["data"]["text/html"]


def test_what_a_session_shows_cannot_act_in_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """No scripts, no remote parts, no types that run code; tables stay."""
    shown = displayed(
        monkeypatch,
        {
            "text/html": '<table class="dataframe"><tr><td onclick="x()">1</td></tr></table>'
            '<script>steal()</script><img src="http://127.0.0.1/beacon"><a href="javascript:x()">a</a>'
            "<style>@import url(http://127.0.0.1)</style><iframe src=x></iframe>",
            "text/plain": "1",
            "application/javascript": "steal()",
            "image/svg+xml": "<svg onload='steal()'/>",
            "text/markdown": "<img src=x onerror=steal()>",
            "application/vnd.unknown": {"a": 1},
        },
    )
    assert set(shown) == {"text/html", "text/plain"}
    assert '<table class="dataframe">' in shown["text/html"]
    assert "<td>1</td>" in shown["text/html"]
    for part in ("onclick", "script", "src", "127.0.0.1", "iframe", "import"):
        assert part not in shown["text/html"]


def test_what_is_left_out_of_a_notebook_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader does not see nothing; a picture is one although it was no page."""
    shown = displayed(monkeypatch, {"application/javascript": "steal()"})
    assert shown == {"text/plain": "<left out: application/javascript>"}
    shown = displayed(monkeypatch, {"image/svg+xml": "<svg onload='steal()'/>", "text/plain": "<Figure>"})
    assert '<img alt="" src="data:image/svg+xml;base64,' in shown["text/html"]


def displayed(monkeypatch: pytest.MonkeyPatch, data: dict[str, Any]) -> dict[str, Any]:
    """What a result with one output gives to the notebook that it is shown in."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **options: given.append(bundle))
    Result({"status": "ok"}, outputs=[{"output_type": "display_data", "data": data}])._ipython_display_()
    [shown] = given
    return shown


def test_a_signal_in_a_script_ends_it(environ: dict[str, str]) -> None:
    """Ctrl-C while it waits: the code is interrupted, the program ends, the session is there."""
    program = textwrap.dedent(
        f"""
        import asyncio
        from kernelrepl import python_repl
        asyncio.run(python_repl({f"n = 1{chr(10)}{says('began')}{chr(10)}{waits_for('never')}"!r}, "s"))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=environ, cwd="/", stderr=subprocess.PIPE)
    place = Place(environ)
    asyncio.run(until(lambda: place.said("began")))
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert b"KeyboardInterrupt" in said
    printed = script(
        environ,
        "import asyncio\nfrom kernelrepl import *\n"
        "print(asyncio.run(python_wait('s'))['status'], asyncio.run(python_repl('n', 's'))['result'])",
    )
    assert printed == "interrupted 1\n"
