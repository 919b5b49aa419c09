"""A person in JupyterLab and an agent in one session: the real Lab in a real Chromium, the real host on stdio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from mcp import Client

from tests.support.hostile_outputs import FIRES, HOSTILE, look_at, showable
from tests.support.lab import Canary, Desk, Lab, Notebook, browser, canary, lab
from tests.support.mcp_hosts import Place, command, host, kill_9, run, until, waits_for

pytestmark = pytest.mark.anyio

SPEC = "Python (kernelrepl)"


@pytest.fixture
def place(environ: dict[str, str]) -> Place:
    return Place(environ)


@pytest.fixture
async def agent(environ: dict[str, str]) -> AsyncIterator[Client]:
    async with host(environ) as client:
        yield client


@pytest.fixture
async def server(environ: dict[str, str], tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(environ, tmp_path / "lab") as found:
        yield found


@pytest.fixture
async def desk(server: Lab) -> AsyncIterator[Desk]:
    async with browser() as chromium, Desk.at(chromium, server) as found:
        yield found


async def entry_for(place: Place, server: Lab, session_id: str) -> str:
    """A session as an entry in this Lab's launcher; returns what it is called there."""
    environ = {**place.environ, "JUPYTER_DATA_DIR": str(server.log_file.parent / "data")}
    done = command(environ, "kernelspec", "add", session_id)
    assert done.returncode == 0, done.stderr
    return f"{session_id} (kernelrepl)"


async def kernel_of(notebook: Notebook) -> int:
    """The process that runs its code, as a person finds it."""
    text = (await notebook.run("%kernelrepl info")).text
    return int(text.split("process ")[1].split()[0])


@pytest.mark.slow
async def test_a_person_is_inside_the_session_of_an_agent(
    place: Place, server: Lab, desk: Desk, agent: Client, tmp_path: Path
) -> None:
    """From the launcher: the agent's variables, a plot, each other's work, Restart, sleep, and the keeper's death."""
    await run(
        agent, "import pandas as pd\ntable = pd.DataFrame({'a': [1, 2]})\ndef double(x): return 2 * x", "analysis"
    )
    entry = await entry_for(place, server, "analysis")
    await desk.open()  # Lab looks for kernels when it is opened, and once a minute
    notebook = await desk.new_notebook(entry)
    assert (await notebook.run("double(len(table))")).text == "4"
    shown = await notebook.run("import matplotlib.pyplot as plt\nplt.plot(table.a)\ntable")
    assert shown.images == 1
    assert "<table" in shown.html
    written = await notebook.start("from IPython.display import Markdown\nMarkdown('# Title\\n\\n$x^2$')")

    async def has_a_formula() -> bool:
        return "<mjx-math" in (await notebook.output(written)).html

    await until(has_a_formula)
    assert "Title</h1>" in (await notebook.output(written)).html
    await notebook.run("mine = 'of the person'")
    assert (await run(agent, "mine", "analysis"))["result"] == "'of the person'"

    # What the agent does appears as it happens: below a cell that watches, and in a console
    watching = await notebook.start("%kernelrepl watch")
    await notebook.finished(watching)
    console = await notebook.console(all_activity=True)
    working = asyncio.create_task(run(agent, f"print('half way')\n{waits_for('go')}\nprint('done')", "analysis"))
    await notebook.until_output(watching, "half way")
    await until(lambda: _has(console.cells(), "half way"))
    assert not working.done()
    place.file("go", "analysis").touch()
    await working
    await notebook.until_output(watching, "done")
    await desk.screenshot(tmp_path / "shared.png")

    await notebook.front()
    before = await kernel_of(notebook)
    await notebook.restart_kernel()
    assert (await notebook.run("mine, double(4)")).text == "('of the person', 8)"
    assert await kernel_of(notebook) != before
    kill_9(place.keeper)
    assert await _works_again(desk, notebook, "double(5)") == "10"
    await desk.screenshot(tmp_path / "after.png")

    await notebook.close(shut_down=True)
    assert (await run(agent, "mine, double(6)", "analysis"))["result"] == "('of the person', 12)"


def _all_asked(reached: Canary, names: frozenset[str]) -> Callable[[], bool]:
    return lambda: names <= reached.asked


async def _has(cells: Awaitable[list[tuple[str, str]]], text: str) -> bool:
    return any(text in shown for _, shown in await cells)


async def _works_again(desk: Desk, notebook: Notebook, code: str) -> str:
    """After at most one click: that on Lab's message, if it has one."""
    clicks = 0

    async def told() -> bool:
        return bool(await desk.dialogs()) or "restarting" in await notebook.states()

    await notebook.watch()
    await until(told)
    if await desk.dialogs():
        await desk.accept_dialog()
        clicks += 1
    await notebook.until_status("idle")
    shown = await notebook.run(code)
    assert clicks <= 1
    assert not await desk.dialogs()
    return shown.text


async def test_a_notebook_of_its_own_is_not_noticed_to_sleep(
    environ: dict[str, str], tmp_path: Path, anyio_backend: str
) -> None:
    """A new notebook from the launcher; its kernel is stopped under it, and the next cell finds everything."""
    environ["KERNELREPL_IDLE_TIMEOUT_S"] = "4"
    async with lab(environ, tmp_path / "lab") as server, browser() as chromium, Desk.at(chromium, server) as desk:
        notebook = await desk.new_notebook(SPEC)
        assert (await notebook.run("x = 41\nx + 1")).text == "42"
        kernel = psutil.Process(await kernel_of(notebook))
        await notebook.watch()
        await until(lambda: not kernel.is_running())
        assert (await notebook.run("x")).text == "41"
        assert set(await notebook.states()) <= {"idle", "busy"}
        assert await desk.dialogs() == []
        await notebook.rename("renamed.ipynb")
        await notebook.save()
        await notebook.close(shut_down=True)
        await desk.open("renamed.ipynb")
        again = await desk.notebook()
        assert (await again.run("x")).text == "41"


async def test_a_trusted_session_may_have_plotly_and_widgets(
    place: Place, server: Lab, desk: Desk, agent: Client, tmp_path: Path
) -> None:
    """After `kernelrepl trust`, and not before: then a sentence says what was left out, and what to do."""
    await run(agent, "x = 7", "drawn")
    entry = await entry_for(place, server, "drawn")
    await desk.open()
    notebook = await desk.new_notebook(entry)
    slider = "import ipywidgets\nslider = ipywidgets.IntSlider(value=3, description='how many')\nslider"
    plot = "import plotly.express as px\npx.line(x=[1, 2], y=[3, 4])"
    shown = await notebook.run(slider)
    assert "kernelrepl trust drawn" in shown.text
    assert "widget-slider" not in shown.html
    assert command(place.environ, "trust", "drawn").returncode == 0
    index = await notebook.start(slider)
    await notebook.finished(index)
    await notebook.cell(index).locator(".widget-slider").wait_for()
    number = notebook.cell(index).locator(".widget-readout")
    await number.click()
    await desk.page.keyboard.press("Control+a")
    await desk.page.keyboard.type("8")
    await desk.page.keyboard.press("Enter")
    assert (await notebook.run("slider.value + x")).text == "15"
    index = await notebook.start(plot)
    await notebook.finished(index)
    await notebook.cell(index).locator(".plotly .main-svg").first.wait_for()
    await desk.screenshot(tmp_path / "trusted.png")
    assert command(place.environ, "trust", "drawn", "--revoke").returncode == 0
    assert "kernelrepl trust drawn" in (await notebook.run(slider)).text


@pytest.mark.slow
async def test_what_is_hostile_does_not_act(place: Place, server: Lab, agent: Client) -> None:
    """Scripts, pictures, widgets, styles, formulas, help: a server that they would ask for is never asked.

    The control: as soon as a person trusts the session, the same cells reach it.
    """
    names = showable()
    if os.environ.get("CI"):
        assert names == list(HOSTILE)
    await run(agent, "x = 1", "hostile")
    entry = await entry_for(place, server, "hostile")
    async with browser() as chromium:
        for trusted in (False, True):
            if trusted:
                assert command(place.environ, "trust", "hostile").returncode == 0
            with canary() as reached:
                async with Desk.at(chromium, server) as desk:
                    notebook = await desk.new_notebook(entry)
                    for name in names:
                        if name in FIRES or not trusted:
                            await look_at(notebook, name, reached.url)
                    if trusted:
                        await until(_all_asked(reached, FIRES & set(names)))
                    else:
                        assert [url for url in desk.requests if url.startswith(reached.url)] == []
                        assert reached.asked == set()
