"""JupyterLab in a real browser: that the harness sees and does what a person does, tried on the ordinary kernel.

What is asserted of kernelrepl in Lab is worth something only because the same steps, and the same attacks, have their
effect here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.hostile_outputs import FIRES, HOSTILE, look_at, showable
from tests.lab import KERNELREPL, PYTHON3, Console, Desk, Lab, browser, canary, lab
from tests.mcp_hosts import until

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.anyio

CODE = """\
def double(value):
    if value:
        return [value, {"a": (value,)}]

    return 'nothing'

print(double(1))
double(0)"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for all tests, because there is one browser."""
    return "asyncio"


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as found:
        yield found


@pytest.fixture(scope="module")
async def server(shared_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    async with lab(shared_environ, tmp_path_factory.mktemp("lab")) as found:
        yield found


@pytest.fixture
async def desk(chromium: Browser, server: Lab) -> AsyncIterator[Desk]:
    async with Desk.at(chromium, server) as found:
        yield found
        # Whatever a test does: nothing comes from elsewhere, and Lab has no errors.
        assert [url for url in found.requests if not url.startswith((server.url, "data:", "blob:"))] == []
        assert found.errors == []


async def test_the_launcher_offers_both_kernels(desk: Desk) -> None:
    assert {PYTHON3, KERNELREPL} <= set(await desk.launcher())


async def test_cells_run(desk: Desk) -> None:
    """Code arrives as it was typed, and its output is what is below the cell."""
    notebook = await desk.new_notebook(PYTHON3)
    assert (await notebook.run("x = 41")).text == ""
    output = await notebook.run("x + 1")
    assert (output.text, output.prompt, output.stderr) == ("42", "[2]:", False)
    output = await notebook.run(CODE)
    assert output.text == "[1, {'a': (1,)}]\n'nothing'"
    output = await notebook.run("1 / 0")
    assert "ZeroDivisionError: division by zero" in output.text
    assert output.stderr
    assert (await notebook.again(1)).prompt == "[5]:"
    await notebook.rename("cells.ipynb")
    await notebook.save()
    cells = desk.server.notebook("cells.ipynb")["cells"]
    assert "".join(cells[2]["source"]) == CODE
    assert [cell["execution_count"] for cell in cells[:4]] == [1, 5, 3, 4]


async def test_a_plot_is_an_image(desk: Desk) -> None:
    notebook = await desk.new_notebook(PYTHON3)
    output = await notebook.run("import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);")
    assert output.images == 1
    assert 'src="data:image/png;base64,' in output.html


async def test_a_restart_loses_everything(desk: Desk) -> None:
    """That is the ordinary kernel's; it shows that the menu really restarts it."""
    notebook = await desk.new_notebook(PYTHON3)
    await notebook.run("x = 41")
    await notebook.restart_kernel()
    output = await notebook.run("x")
    assert "NameError: name 'x' is not defined" in output.text
    assert output.prompt == "[1]:"


async def test_an_interrupt_ends_a_cell(desk: Desk) -> None:
    notebook = await desk.new_notebook(PYTHON3)
    index = await notebook.start("print('runs')\nwhile True: pass")
    await notebook.until_output(index, "runs")
    assert (await notebook.output(index)).prompt == "[*]:"
    await notebook.until_status("busy")
    await notebook.interrupt_kernel()
    await notebook.finished(index)
    assert "KeyboardInterrupt" in (await notebook.output(index)).text


async def test_a_notebook_is_opened_again(desk: Desk) -> None:
    """By its path, in the same window: its outputs are there, and its kernel still runs."""
    notebook = await desk.new_notebook(PYTHON3)
    await notebook.run("x = 41")
    await notebook.run("x")
    await notebook.rename("again.ipynb")
    await notebook.save()
    await desk.open("again.ipynb")
    notebook = await desk.notebook()
    assert await notebook.name() == "again.ipynb"
    assert (await notebook.output(1)).text == "41"
    assert (await notebook.run("x + 1")).text == "42"


async def test_a_lost_kernel_is_asked_for(desk: Desk) -> None:
    """Lab's dialogs can be read and answered."""
    notebook = await desk.new_notebook(PYTHON3)
    await desk.menu("Kernel", "Shut Down Kernel")
    await notebook.panel.locator(".jp-Toolbar-kernelName", has_text="No Kernel").wait_for()
    await desk.menu("Kernel", "Change Kernel…")
    assert "Select Kernel" in (await until(desk.dialogs))[0]
    notebook = await desk.notebook(PYTHON3)
    assert (await notebook.run("6 * 7")).text == "42"


async def test_a_console_shows_what_the_notebook_runs(desk: Desk) -> None:
    """With "Show All Kernel Activity"; a notebook shows nothing of what others run."""
    notebook = await desk.new_notebook(PYTHON3)
    console = await notebook.console(all_activity=True)
    await console.run("y = 7; y")
    await until(lambda: _shows(console, ("y = 7; y", "7")))
    await notebook.run("print(y + 1)")
    await until(lambda: _shows(console, ("print(y + 1)", "8")))
    assert await notebook.cells.count() == 2  # its own, and the empty one


async def _shows(console: Console, cell: tuple[str, str]) -> bool:
    return cell in await console.cells()


async def test_what_comes_late_is_below_its_cell(desk: Desk) -> None:
    """Lab adds to a finished cell what belongs to its request, even when others have run since."""
    notebook = await desk.new_notebook(PYTHON3)
    await notebook.run("kernel = get_ipython().kernel\nrequest = kernel.get_parent()\nprint('ended')")
    await notebook.run(
        "send = kernel.session.send\n"
        "_ = send(kernel.iopub_socket, 'stream', {'name': 'stdout', 'text': 'late'}, request)\n"
        "_ = send(kernel.iopub_socket, 'display_data', {'data': {'text/html': '<b>bold</b>'}, 'metadata': {}}, request)"
    )
    assert (await notebook.until_output(0, "bold")).text == "ended\nlate\nbold"
    assert (await notebook.output(1)).text == ""


async def test_a_restart_that_the_kernel_tells_of(desk: Desk) -> None:
    """Lab gives up the cell that runs, says so, and connects anew; what it shows of before stays."""
    notebook = await desk.new_notebook(PYTHON3)
    await notebook.run("print('before')\nkernel = get_ipython().kernel")
    index = await notebook.start(
        "kernel.session.send(kernel.iopub_socket, 'status', {'execution_state': 'restarting'}, parent={})\n"
        "import time; time.sleep(1)\nprint('unseen')"
    )
    said = await desk.accept_dialog("Kernel Restarting")
    assert "appears to have died. It will restart automatically." in said
    await notebook.until_status("idle")
    output = await notebook.output(index)
    assert (output.prompt, output.text) == ("[ ]:", "")
    assert (await notebook.output(0)).text == "before"
    assert (await notebook.run("6 * 7")).text == "42"


@pytest.mark.slow
async def test_hostile_outputs_do_what_they_are_to_do(chromium: Browser, server: Lab) -> None:
    """The control: with a kernel that hides nothing they reach whom they want to."""
    names = showable()
    if os.environ.get("CI"):
        assert names == list(HOSTILE)
    with canary() as reached:
        async with Desk.at(chromium, server) as desk:
            notebook = await desk.new_notebook(PYTHON3)
            for name in names:
                await look_at(notebook, name, reached.url)
            wanted = FIRES & set(names)
            await until(lambda: wanted <= reached.asked)
    assert reached.asked <= set(HOSTILE)


async def test_a_server_leaves_nothing(shared_environ: dict[str, str], tmp_path: Path, chromium: Browser) -> None:
    """Its kernels end with it."""
    async with lab(shared_environ, tmp_path) as server, Desk.at(chromium, server) as desk:
        notebook = await desk.new_notebook(PYTHON3)
        kernel = int((await notebook.run("import os\nos.getpid()")).text)
        assert psutil.pid_exists(kernel)
    assert not psutil.pid_exists(kernel)
    assert not psutil.pid_exists(server.process.pid)
