"""The examples run as they are, and show what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.mcp_hosts import DEADLINE_S, Place
from tests.test_spec import blocks

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def executed(name: str, environ: dict[str, str]) -> Any:
    """A notebook with the outputs of a run in a place of its own. A cell that raises fails the test."""
    book = nbformat.read(EXAMPLES / name, as_version=4)
    nbformat.validate(book)
    NotebookClient(book, timeout=int(DEADLINE_S), kernel_name="python3").execute(env={**os.environ, **environ})
    return book


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
    code = [cell.source for cell in book.cells if cell.cell_type == "code"][1:]
    assert "\n".join(code).split() == wanted.split()
    everything = "\n".join(shown(cell) for cell in book.cells if cell.cell_type == "code")
    assert "Loaded 1000 customers" in everything
    assert "35-45" in everything
    assert "Session has 8 variables" in everything
    assert pictures(book) == 1
    assert Place(environ).rows("SELECT COUNT(*) FROM sessions") == [(0,)]


def test_real_data_and_a_kernel_that_dies(environ: dict[str, str]) -> None:
    """The model that was fitted before the kernel died gives the same score after."""
    book = executed("real_data.ipynb", environ)
    texts = [shown(cell) for cell in book.cells if cell.cell_type == "code"]
    [before] = re.findall(r"0\.\d+ of \d+ wines", texts[3])
    assert "SIGKILL" in texts[4]
    assert before in texts[5]
    assert re.search(r"\[restored\] \d+ names came back\n", texts[5])
    assert "not restored" not in texts[5]
    assert pictures(book) == 1


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_an_example_is_kept_with_its_outputs(name: str) -> None:
    """For those who read before they run; and nothing of the machine it ran on is in it."""
    text = (EXAMPLES / name).read_text()
    book = nbformat.reads(text, as_version=4)
    assert sum(bool(cell.outputs) for cell in book.cells if cell.cell_type == "code") >= 5
    assert not re.search(r"/(home|root|Users|work|tmp)/", text)


def test_the_mcp_client(environ: dict[str, str]) -> None:
    """Twenty lines, one of them the end of the kernel."""
    path = EXAMPLES / "mcp_client.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], env=environ, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "SIGKILL" in done.stdout
    assert "[restored] 1 names came back\n{'to': 2, 'be': 2, 'or': 1, 'not': 1}" in done.stdout
    assert "'summary': '6 items: str'" in done.stdout
    lines = [line for line in path.read_text().split('"""')[2].splitlines() if line.strip()]
    assert len(lines) <= 20
