"""Notebooks in and out of sessions: what is written is valid and complete, what is read runs as it stands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from mcp.shared.exceptions import MCPError

from kernelrepl.jupyter import notebooks
from kernelrepl.mcp import server
from kernelrepl.mcp.results import cells_of
from kernelrepl.outputs import notebook, transcript
from tests.conftest import Sessions
from tests.support.mcp_hosts import command, host, run

pytestmark = pytest.mark.anyio


def valid(text: str) -> Any:
    """A notebook, checked against its format."""
    book: Any = nbformat.reads(text, as_version=4)
    nbformat.validate(json.loads(text))
    return book


def texts(cell: Any) -> list[str]:
    """What the outputs of a cell say, each in one text."""
    return [
        output.get("text") or output.get("data", {}).get("text/plain") or output.get("ename") for output in cell.outputs
    ]


async def exported(sessions: Sessions) -> Any:
    """A session of this process as a notebook."""
    rows = await sessions.manager.history("s", 0, 1 << 20)
    return valid(json.dumps(notebook.document("s", cells_of(rows))))


async def test_every_execution_is_a_cell_with_its_outputs(sessions: Sessions) -> None:
    """In their order: texts, results, errors, displays; and what never came to its end."""
    for code in ("x = 1\nprint('hello')\nx + 1", "1/0", "display({'a': 1}); import sys; print('e', file=sys.stderr)"):
        await sessions.run(code)
    await sessions.run("import os; os.kill(os.getpid(), 9)")
    book = await exported(sessions)
    assert [cell.source for cell in book.cells[:2]] == ["x = 1\nprint('hello')\nx + 1", "1/0"]
    assert [texts(cell) for cell in book.cells[:3]] == [["hello\n", "2"], ["ZeroDivisionError"], ["{'a': 1}", "e\n"]]
    assert [cell.execution_count for cell in book.cells] == [1, 2, 3, None]
    assert [cell.metadata.kernelrepl.status for cell in book.cells] == ["ok", "error", "ok", "crashed"]
    assert {cell.metadata.kernelrepl.by for cell in book.cells} == {"test"}
    assert book.metadata.kernelrepl.session_id == "s"
    assert book.metadata.kernelspec.name == "kernelrepl"


async def test_what_a_notebook_cannot_hold_is_left_out(sessions: Sessions) -> None:
    """Code of a session may publish anything."""
    await sessions.run(
        "from IPython.display import publish_display_data as show\n"
        "show({'text/plain': 'kept', 'image/png': {'no': 'text'}, 'text/html': 5, 'application/json': {'a': [1]}})\n"
        "show({'text/plain': ['in ', 'pieces']}, metadata={'a': {'b': 1}})\n"
    )
    first, second = (await exported(sessions)).cells[0].outputs
    assert first.data == {"text/plain": "kept", "application/json": {"a": [1]}}
    assert second.data == {"text/plain": "in pieces"}


async def test_outputs_that_were_removed_are_missed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell says so: it did not run without saying anything."""
    monkeypatch.setattr("kernelrepl.store.history.KEPT_OUTPUTS", 1)
    await sessions.run("print('old')")
    await sessions.run("print('new')")
    await sessions.store.collect()
    old, new = (await exported(sessions)).cells
    assert (texts(old), old.metadata.kernelrepl.outputs) == ([], "removed for their age")
    assert texts(new) == ["new\n"]
    assert "outputs" not in new.metadata.kernelrepl


async def test_code_that_still_runs_is_there(sessions: Sessions) -> None:
    """Without outputs: nothing is known of them until they are stored."""
    session, job = await sessions.submit("import time\nwhile True: time.sleep(0.01)")
    await job.began.wait()
    [cell] = (await exported(sessions)).cells
    assert (cell.metadata.kernelrepl.status, cell.outputs, cell.execution_count) == ("running", [], None)
    await session.interrupt(job)
    await job.result


async def test_an_agent_reads_a_session_as_a_notebook(
    shared_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a resource; one that is not there is told."""
    async with host(shared_environ) as client:
        await run(client, "import matplotlib.pyplot as plt; plt.plot([1, 2]); 'drawn'", "read")
        [content] = (await client.read_resource("kernelrepl://sessions/read/notebook")).contents
        assert content.mime_type == "application/x-ipynb+json"
        [cell] = valid(content.text).cells  # type: ignore[union-attr]
        assert any("image/png" in output.get("data", {}) for output in cell.outputs)
        with pytest.raises(MCPError, match="there is no session 'none'"):
            await client.read_resource("kernelrepl://sessions/none/notebook")


async def test_of_a_very_long_session_an_agent_gets_the_end(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how much is left out."""
    for number in range(4):
        await sessions.run(f"print({number}, 'x' * 1000)")
    monkeypatch.setattr(server, "NOTEBOOK_BYTES", 3500)

    class Keeper:
        manager = sessions.manager

    tools = server.Tools(Keeper())  # type: ignore[arg-type]
    book = valid(await tools.notebook("s"))
    assert [cell.source[:7] for cell in book.cells] == ["print(2", "print(3"]
    assert book.metadata.kernelrepl.left_out == 2


# From the command line


def write(path: Path, *cells: Any, **metadata: Any) -> Path:
    """A notebook of code cells; what is no text is a cell as it stands."""
    new = [nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=new, metadata=metadata), path)
    return path


def test_a_notebook_goes_through_a_session(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """Import runs it, export gives it back with its outputs, and that can be imported again."""
    words = nbformat.v4.new_markdown_cell("# words")
    source = write(tmp_path / "in.ipynb", "x = 20", words, "", "def f(y):\n    return x + y\nprint(f(1))", "f(22)")
    done = command(shared_environ, "import", str(source), "-s", "through")
    assert (done.returncode, done.stdout, done.stderr) == (0, "21\n42\n", "⟦1/3⟧ ok\n⟦2/3⟧ ok\n⟦3/3⟧ ok\n")
    out = tmp_path / "out.ipynb"
    assert command(shared_environ, "export", "through", "-o", str(out)).returncode == 0
    book = valid(out.read_text())
    assert [cell.source for cell in book.cells] == ["x = 20", "def f(y):\n    return x + y\nprint(f(1))", "f(22)"]
    assert [texts(cell) for cell in book.cells] == [[], ["21\n"], ["42"]]
    assert command(shared_environ, "import", str(out), "--session", "again").returncode == 0
    assert command(shared_environ, "exec", "-s", "again", "f(0)").stdout == "20\n"
    printed = command(shared_environ, "export", "again").stdout
    assert [cell.source for cell in valid(printed).cells][-1] == "f(0)"


def test_a_cell_that_fails_ends_an_import(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """What it had done stays; --keep-going goes on. The exit code says that something failed."""
    path = write(tmp_path / "fails.ipynb", "a = 1", "a += 1\n1/0", "a += 1")
    done = command(shared_environ, "import", str(path), "-s", "fails")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.endswith("⟦2/3⟧ error\nstopped at cell 2; 1 not run; --keep-going goes on after errors\n")
    assert command(shared_environ, "exec", "-s", "fails", "a").stdout == "2\n"
    done = command(shared_environ, "import", str(path), "-s", "fails", "--keep-going")
    assert done.returncode == 1
    assert done.stderr.endswith("⟦2/3⟧ error\n⟦3/3⟧ ok\n")
    assert command(shared_environ, "exec", "-s", "fails", "a").stdout == "3\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory; name a notebook"),
        ("no json", "is no notebook that can be read: Notebook does not appear to be JSON: 'no json'"),
        ("[1]", "is no notebook that can be read"),
        ('{"nbformat": 99, "nbformat_minor": 0, "metadata": {}, "cells": []}', "is no notebook that can be read"),
        (
            '{"nbformat": 4, "nbformat_minor": 5, "metadata": {"language_info": {"name": "R"}}, "cells": []}',
            "is written in R; sessions run Python",
        ),
    ],
)
def test_what_cannot_be_imported_is_told(
    shared_environ: dict[str, str], tmp_path: Path, content: str | None, message: str
) -> None:
    """In one line, and no session is made for it."""
    path = tmp_path / "bad.ipynb"
    if content is not None:
        path.write_text(content)
    done = command(shared_environ, "import", str(path), "-s", "bad")
    assert done.returncode == 1
    assert done.stderr.startswith("kernelrepl: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "bad " not in command(shared_environ, "sessions").stdout


def test_an_export_replaces_nothing_unasked(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """And a session that is not there is told, with what may be meant."""
    command(shared_environ, "exec", "-s", "known", "1")
    done = command(shared_environ, "export", "knwon")
    assert (done.returncode, done.stderr) == (1, "kernelrepl: there is no session 'knwon': did you mean 'known'?\n")
    path = tmp_path / "there.ipynb"
    path.write_text("mine")
    assert "give another name, or --force" in command(shared_environ, "export", "known", "-o", str(path)).stderr
    assert path.read_text() == "mine"
    assert command(shared_environ, "export", "known", "-o", str(path), "--force").returncode == 0
    assert len(valid(path.read_text()).cells) == 1
    nowhere = str(tmp_path / "none" / "x.ipynb")
    assert "cannot be written" in command(shared_environ, "export", "known", "-o", nowhere).stderr


def test_cells_of_hostile_rows_are_cells() -> None:
    """Names and texts with half a surrogate, outputs without end."""
    made = notebook.cell(1, "x = '\ud800'", 0, transcript.load("[" * 100_000), {"status": "ok"})
    valid(json.dumps(notebook.document("s", [made])))


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "lists", "link to itself"])
def test_a_notebook_that_is_none_has_no_cells(tmp_path: Path, kind: str) -> None:
    """A session may put anything in its place in a folder that it was granted; nobody waits for a pipe."""
    path = tmp_path / "a.ipynb"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "lists":
            path.write_text('{"cells": [' + "[]," * 3_000_000 + "1]}")
        case _:
            path.symlink_to(path)
    assert notebooks._cells(str(path)) == []
