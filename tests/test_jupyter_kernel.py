"""The kernelspec, tried as notebook hosts do: a session behind a notebook, which outlives its kernel process."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from kernelrepl.jupyter_kernel import session_of
from tests.mcp_hosts import DEADLINE_S, Place, kill_9, says, until, waits_for

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent
SPECS = KernelSpecManager(kernel_dirs=[str(ROOT)], ensure_native_kernel=False)
"""The folder of the kernelspec as a folder of kernelspecs: its own name is that of the kernel."""


def test_the_kernelspec_is_valid() -> None:
    """And says what a host shows."""
    spec = SPECS.get_kernel_spec("kernel_spec")
    assert (spec.display_name, spec.language, spec.interrupt_mode) == ("Python (kernelrepl)", "python", "message")
    assert spec.argv[-1] == "{connection_file}"


@asynccontextmanager
async def kernel(place: Place, notebook: str | None) -> AsyncIterator[tuple[AsyncKernelManager, AsyncKernelClient]]:
    """A kernel as Jupyter's server starts it."""
    environ = {**os.environ, **place.environ, **({"JPY_SESSION_NAME": notebook} if notebook else {})}
    manager = AsyncKernelManager(
        kernel_name="kernel_spec", kernel_spec_manager=SPECS, transport="ipc", ip=str(place.runtime_dir / "nb")
    )
    await manager.start_kernel(env=environ, cwd="/")
    client = manager.client()
    client.start_channels(hb=False)
    try:
        await client.wait_for_ready(timeout=DEADLINE_S)
        yield manager, client
    finally:
        client.stop_channels()
        await manager.shutdown_kernel()


async def run(client: AsyncKernelClient, code: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The content of the reply, and of what came on iopub beside the states."""
    shown: list[dict[str, Any]] = []

    def hook(message: dict[str, Any]) -> None:
        if message["msg_type"] not in ("status", "execute_input"):
            shown.append({"type": message["msg_type"], **message["content"]})

    reply = await client.execute_interactive(code, output_hook=hook, timeout=DEADLINE_S)
    return reply["content"], shown


@pytest.fixture
def place(environ: dict[str, str]) -> Place:
    return Place(environ)


async def test_a_notebook_has_one_session_that_outlives_its_kernel(place: Place) -> None:
    """Killed, shut down and started again, the variables are there; another notebook does not see them."""
    async with kernel(place, "work/My analysis.ipynb") as (manager, client):
        reply, shown = await run(client, "x = 41\nprint('hi')\nx + 1")
        assert reply["status"] == "ok"
        assert [entry["type"] for entry in shown] == ["stream", "execute_result"]
        assert (shown[0]["text"], shown[1]["data"]["text/plain"]) == ("hi\n", "42")
        await manager.restart_kernel(now=True)
        await client.wait_for_ready(timeout=DEADLINE_S)
        assert (await run(client, "x"))[1][0]["data"] == {"text/plain": "41"}
    async with kernel(place, "work/My analysis.ipynb") as (_, client):
        assert (await run(client, "x"))[1][0]["data"] == {"text/plain": "41"}
    async with kernel(place, "work/other.ipynb") as (_, client):
        reply, _ = await run(client, "x")
        assert (reply["status"], reply["ename"]) == ("error", "NameError")
    found = {name for (name,) in place.rows("SELECT session_id FROM sessions")}
    assert found == {session_of("work/My analysis.ipynb"), session_of("work/other.ipynb")}
    assert session_of("work/My analysis.ipynb").startswith("notebook-My-analysis-")


async def test_the_death_of_the_keeper_is_not_noticed(place: Place) -> None:
    """The next cell goes on in the restored session."""
    async with kernel(place, "a.ipynb") as (_, client):
        await run(client, "x = 1")
        kill_9(place.keeper)
        reply, shown = await run(client, "x + 1")
        assert (reply["status"], shown[0]["data"]["text/plain"]) == ("ok", "2")
        assert shown[-1]["text"] == "[restored] 1 names came back\n"


async def test_interrupt_stops_the_cell(place: Place) -> None:
    """The kernel's client sees a KeyboardInterrupt."""
    async with kernel(place, "a.ipynb") as (manager, client):
        running = asyncio.create_task(run(client, f"x = 1\n{says('began')}\n{waits_for('never')}"))
        await until(lambda: place.said("began", session_of("a.ipynb")))
        await manager.interrupt_kernel()
        reply, shown = await running
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        assert [entry["type"] for entry in shown].count("error") == 1
        assert (await run(client, "x"))[1][0]["data"] == {"text/plain": "1"}


def test_a_host_without_a_name_gets_a_clean_kernel(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its session goes with it; figures, tables and errors are where a notebook has them."""
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_code_cell(
            "import pandas as pd, matplotlib.pyplot as plt\nplt.plot([1])\npd.DataFrame({'a': [1]})"
        ),
        nbformat.v4.new_code_cell("1/0"),
    ]
    shutil.copytree(ROOT / "kernel_spec", tmp_path / "kernels" / "kernelrepl")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        NotebookClient(book, kernel_name="kernelrepl", timeout=int(DEADLINE_S)).execute()
    nbformat.validate(book)
    table, figure = book.cells[0].outputs
    assert "<th>a</th>" in table["data"]["text/html"]
    assert "image/png" in figure["data"]
    assert book.cells[1].outputs[0]["output_type"] == "error"
    assert place.rows("SELECT session_id FROM sessions") == []
