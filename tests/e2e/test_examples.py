"""The examples run as they are, and show what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient

from tests.e2e.test_spec import blocks
from tests.support.jupyter_hosts import ROOT
from tests.support.mcp_hosts import DEADLINE_S, Place

EXAMPLES = ROOT / "examples"
VARYING = {
    r"\d{4}-\d\d-\d\dT[\d:.]+Z": "<time>",
    r"\b\d+ bytes": "<bytes>",  # what pickle makes of a function differs between versions of Python
}


@pytest.fixture
def environ(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """With the kernelspec where nbclient looks for it, and nothing of this machine's own Jupyter."""
    shutil.copytree(ROOT / "kernel_spec", tmp_path / "jupyter" / "kernels" / "kernelrepl")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "own"))
    return environ


def kept(name: str) -> Any:
    return nbformat.read(EXAMPLES / name, as_version=4)


def client_of(book: Any) -> NotebookClient:
    return NotebookClient(book, timeout=int(DEADLINE_S), kernel_name=book.metadata.kernelspec.name)


def around(environ: dict[str, str]) -> dict[str, str]:
    """What a notebook's kernel has for an environment. In one of pytest ipykernel has no stderr to hand on."""
    return {name: value for name, value in {**os.environ, **environ}.items() if name != "PYTEST_CURRENT_TEST"}


def executed(name: str, environ: dict[str, str]) -> Any:
    """A notebook with the outputs of a run in a place of its own. A cell that raises untagged fails the test."""
    book = kept(name)
    nbformat.validate(book)
    client_of(book).execute(env=around(environ))
    return book


def lines(cell: Any) -> list[str]:
    """What a reader of a cell sees, sorted by its kind, without what is another at each run."""
    found: dict[str, str] = {}
    for output in cell.outputs:
        match output.output_type:
            case "stream":
                kind, text = output.name, output.text
            case "error":
                kind, text = "error", f"{output.ename}: {output.evalue}\n"
            case _:
                kind, text = " ".join(sorted(output.data)), output.data.get("text/plain", "") + "\n"
        found[kind] = found.get(kind, "") + text
    whole = "".join(f"{kind}:\n{found[kind]}\n" for kind in sorted(found))
    for pattern, word in VARYING.items():
        whole = re.sub(pattern, word, whole)
    return [line.rstrip() for line in whole.splitlines() if not line.startswith("⟦sandbox⟧")]


def code_of(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def assert_current(name: str, book: Any) -> None:
    """What is kept is what a run says now. If it is not: run the notebook, look at it, and keep its outputs."""
    for before, now in zip(code_of(kept(name)), code_of(book), strict=True):
        assert lines(now) == lines(before), now.source


def shown(cell: Any) -> str:
    """Everything textual that a cell shows."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(texts)


def pictures(book: Any) -> int:
    return sum("image/png" in output.get("data", {}) for cell in book.cells for output in cell.get("outputs", ()))


def test_the_complete_workflow(environ: dict[str, str]) -> None:
    """The one of the specification, step by step, to the letter."""
    book = executed("complete_workflow.ipynb", environ)
    wanted = re.sub(r"^# \d\. .*$\n", "", blocks()[-1][1], flags=re.M)
    code = [cell.source for cell in code_of(book)][1:]
    assert "\n".join(code).split() == wanted.split()
    everything = "\n".join(shown(cell) for cell in code_of(book))
    assert "Loaded 1000 customers" in everything
    assert "35-45" in everything
    assert "Session has 8 variables" in everything
    assert pictures(book) == 1
    assert Place(environ).rows("SELECT COUNT(*) FROM sessions") == [(0,)]


def test_real_data_and_a_kernel_that_dies(environ: dict[str, str]) -> None:
    """The model that was fitted before the kernel died gives the same score after."""
    book = executed("real_data.ipynb", environ)
    texts = [shown(cell) for cell in code_of(book)]
    [before] = re.findall(r"0\.\d+ of \d+ wines", texts[3])
    assert "SIGKILL" in texts[4]
    assert before in texts[5]
    assert re.search(r"⟦restored⟧ \d+ names came back\n", texts[5])
    assert "not restored" not in texts[5]
    assert pictures(book) == 1


def test_a_workflow_on_the_kernel(environ: dict[str, str]) -> None:
    """All that the specification does in a session, in plain cells; and its last one works right after a restart."""
    book = kept("kernel_workflow.ipynb")
    client = client_of(book)
    with client.setup_kernel(env=around(environ)):
        for number, cell in enumerate(book.cells):
            client.execute_cell(cell, number)
        assert_current("kernel_workflow.ipynb", book)
        before = shown(book.cells[-1])
        assert isinstance(client.km, AsyncKernelManager)
        run_sync(client.km.restart_kernel)()
        client.execute_cell(book.cells[-1], len(book.cells) - 1)
    assert shown(book.cells[-1]) == before
    texts = [shown(cell) for cell in code_of(book)]
    assert "R² score" in texts[3]
    asked = [shown(cell) for cell in code_of(book) if cell.source == "%kernelrepl unsaved"]
    assert [text.partition(":")[0].strip() for text in asked] == [
        "all variables are stored", "batches (generator)", "all variables are stored",
    ]  # fmt: skip
    assert pictures(book) == 1
    assert Place(environ).rows("SELECT COUNT(*) FROM sessions") == [(0,)]


def test_an_agent_and_a_person(environ: dict[str, str]) -> None:
    """They share variables and see each other's output, and not each other's errors."""
    book = executed("agent_and_person.ipynb", environ)
    assert_current("agent_and_person.ipynb", book)
    everything = "\n".join(shown(cell) for cell in code_of(book))
    assert everything.count("agent waits, person reads: quarter") == 4
    assert "wettest month: 7" in everything
    assert "AttributeError" in everything
    assert "ZeroDivisionError" in everything
    assert Place(environ).rows("SELECT COUNT(*) FROM sessions") == [(0,)]


def test_a_notebook_that_survives_its_kernel(environ: dict[str, str]) -> None:
    """What came back goes on where it was; what did not is told, and is never an older value."""
    book = executed("survives_its_kernel.ipynb", environ)
    assert_current("survives_its_kernel.ipynb", book)
    errors = [output for cell in code_of(book) for output in cell.outputs if output.output_type == "error"]
    assert [error.ename for error in errors] == ["KernelDied", "NameError", "NameError"]
    assert "was not saved: it was a generator" in errors[1].evalue
    texts = [shown(cell) for cell in code_of(book)]
    assert texts[6] == "(9, ('B', 60))"
    assert texts[7] == "(True, True, True)"
    assert Place(environ).rows("SELECT COUNT(*) FROM sessions") == [(0,)]


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_an_example_is_kept_with_its_outputs(name: str) -> None:
    """For those who read before they run; and nothing of the machine it ran on is in it."""
    text = (EXAMPLES / name).read_text()
    book = nbformat.reads(text, as_version=4)
    assert sum(bool(cell.outputs) for cell in code_of(book)) >= 5
    assert not re.search(r"/(home|root|Users|work|tmp)/", text)
    assert set(book.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in book.cells)


def test_the_mcp_client(environ: dict[str, str]) -> None:
    """Twenty lines, one of them the end of the kernel."""
    path = EXAMPLES / "mcp_client.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], env=environ, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "SIGKILL" in done.stdout
    assert "⟦restored⟧ 1 name came back\n{'to': 2, 'be': 2, 'or': 1, 'not': 1}" in done.stdout
    assert "'summary': '6 items: str'" in done.stdout
    lines = [line for line in path.read_text().split('"""')[2].splitlines() if line.strip()]
    assert len(lines) <= 20
