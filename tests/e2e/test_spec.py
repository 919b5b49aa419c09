"""The specification as its users read it: every code block runs as it is written."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import kernelrepl
from kernelrepl import python_delete_session, python_list_sessions, python_list_variables, python_repl
from kernelrepl.client import tools
from kernelrepl.errors import UnknownSession

pytestmark = pytest.mark.anyio

SPEC = Path(__file__).parents[1] / "spec" / "python-session-management.md"
TOOLS = [name for name in kernelrepl.__all__ if name.startswith("python_")]

DATA = """
open('data.csv', 'w').write('price,rooms\\n' + '\\n'.join(f'{100 + 10 * n},{n}' for n in range(1, 40)) + '\\n,7\\n')
"""
X_AND_Y = "import numpy as np\nX = np.arange(40.0).reshape(20, 2)\ny = X @ [2, 3] + 1"


def blocks() -> list[tuple[str, str]]:
    """The headings above each Python block, with its code."""
    found = []
    headings: list[str] = []
    parts = re.split(r"^(#{1,4} [^\n]*|```python\n.*?^```)$", SPEC.read_text(), flags=re.M | re.S)
    for part in parts:
        if part.startswith("```python"):
            found.append((headings[-1], part.removeprefix("```python\n").removesuffix("```")))
        elif part.startswith("#") and not part.startswith("####"):
            headings.append(part.lstrip("# ").strip())
    return found


async def run(block: str) -> dict[str, Any]:
    """Run a block as a notebook would, with nothing but the functions it names; returns its names and results.

    `returned` has what each top-level call gave, in order.
    """
    returned: list[Any] = []

    def noting(function: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            result = await function(*args, **kwargs)
            returned.append(result)
            return result

        return call

    namespace: dict[str, Any] = {name: noting(getattr(kernelrepl, name)) for name in TOOLS}
    code = compile(block, SPEC.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = types.FunctionType(code, namespace)()
    if inspect.isawaitable(result):
        await result
    return {**namespace, "returned": returned}


@pytest.fixture
async def place(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A keeper of our own for the functions."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    yield
    await tools.close()


def test_the_spec_has_as_many_blocks_as_are_run_here() -> None:
    """A block that the pattern missed would not be run."""
    assert len(blocks()) == SPEC.read_text().count("```python") == 9


@pytest.mark.slow
async def test_every_block_runs_as_it_is_written(place: None) -> None:
    """From the top to the bottom, in one place, as somebody would who tries them one after the other."""
    await python_repl(DATA, "analysis")
    await python_repl(X_AND_Y, "ml_dev")
    await python_repl("pass", "my_session")
    for heading, block in blocks():
        ran = await run(block)
        for result in ran["returned"]:
            if "status" in result:
                assert (result["status"], result["not_saved"]) == ("ok", []), (heading, result)
                assert result["committed"] or result["session_id"] is None
        if heading == "python_delete_session":
            with pytest.raises(UnknownSession, match="'my_session'"):
                await python_list_variables("my_session")
            # What follows in the text uses other sessions.
            await python_repl("pass", "my_session")
    left = {entry["session_id"] for entry in (await python_list_sessions())["sessions"]}
    assert left == {"my_session", "analysis", "ml_dev"}


async def test_what_the_first_blocks_promise(place: None) -> None:
    """`# Output: hello, x = 42`, and the fields that the comments show."""
    by_heading: dict[str, list[str]] = {}
    for heading, block in blocks():
        by_heading.setdefault(heading, []).append(block)
    first = (await run(by_heading["Creating a Session"][0]))["returned"]
    assert first[0]["saved"]["created"] == ["x", "y"]
    assert first[1]["stdout"] == "hello, x = 42\n"
    stateless = (await run(by_heading["Stateless Execution"][0]))["returned"]
    assert (stateless[0]["stdout"], stateless[0]["session_id"]) == ("Hello\n", None)
    variables = (await run(by_heading["python_list_variables"][0]))["result"]
    assert (variables["session_id"], variables["variable_count"]) == ("my_session", 2)
    assert [(v["name"], v["type"], v["size_bytes"]) for v in variables["variables"]] == [
        ("x", "int", 28),
        ("y", "str", 54),
    ]
    sessions = (await run(by_heading["python_list_sessions"][0]))["result"]
    assert sessions["session_count"] == 1
    entry = sessions["sessions"][0]
    assert (entry["session_id"], entry["variable_count"], entry["total_executions"]) == ("my_session", 2, 2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*", entry["created_at"])
    await run(by_heading["python_clear_session"][0])
    assert (await python_list_variables("my_session"))["variable_count"] == 0


async def test_the_use_cases_show_what_they_compute(place: None) -> None:
    """A summary, a histogram, a score, and the number of variables in the end."""
    await python_repl(DATA, "analysis")
    await python_repl(X_AND_Y, "ml_dev")
    found = {heading: [] for heading, _ in blocks()}  # type: dict[str, list[Any]]
    for heading, block in blocks():
        if heading in ("Data Analysis Workflow", "Interactive Development", "Example: Complete Workflow"):
            ran = await run(block)
            found[heading] += ran["returned"]
    _, describe, plot = found["Data Analysis Workflow"]
    assert "price" in describe["stdout"]
    assert "count   39.000000" in describe["stdout"]  # the row without a price is dropped
    assert (plot["figures"], len(plot.images)) == (1, 1)
    assert found["Interactive Development"][-1]["stdout"] == "R² score: 1.0\n"
    explore, patterns, pictures, variables, deleted = found["Example: Complete Workflow"]
    assert explore["stdout"].startswith("Loaded 1000 customers\n")
    assert "35-45" in patterns["stdout"]
    assert pictures["figures"] == 1
    assert pictures.images[0].startswith(b"\x89PNG")
    names = {entry["name"] for entry in variables["variables"]}
    assert names == {"pd", "np", "plt", "customers", "spending_by_age", "fig", "ax1", "ax2"}
    assert "is deleted" in deleted["message"]
    with pytest.raises(UnknownSession):
        await python_delete_session("customer_analysis")
