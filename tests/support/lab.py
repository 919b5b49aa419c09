"""JupyterLab as a person has it: the real server, a real Chromium, and what is on the screen.

    async with browser() as chromium, lab(environ, tmp_path / "lab") as server, Desk.at(chromium, server) as desk:
        notebook = await desk.new_notebook("Python 3 (ipykernel)")
        assert (await notebook.run("6 * 7")).text == "42"

Everything is done with the mouse and the keyboard and read from the page. What waits, waits for a condition.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import importlib.util
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import psutil
import pytest

from tests.support.mcp_hosts import DEADLINE_S, until

if TYPE_CHECKING:  # it takes its time, and a machine need not have it
    from playwright.async_api import Browser, Dialog, Locator, Page

DEADLINE_MS = DEADLINE_S * 1000
ROOT = Path(__file__).resolve().parents[2]
KERNELREPL = "Python (kernelrepl)"
PYTHON3 = "Python 3 (ipykernel)"
"""What Lab calls the kernels: ours, and the one that has nothing to do with it."""
LAB_SETTINGS = {
    # Lab asks once in a new home whether it may fetch news, over everything else.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def require_lab() -> None:
    """Skip where there is no Lab or no browser, with the reason; in CI there has to be one."""
    lacks = [name for name in ("playwright", "jupyterlab") if importlib.util.find_spec(name) is None]
    if _chromium() is None:
        lacks.append("chromium")
    if lacks and os.environ.get("CI"):
        pytest.fail(f"no {', no '.join(lacks)}, and CI tests everything")
    if lacks:
        pytest.skip(f"no {', no '.join(lacks)}")


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


# The server


@dataclass
class Lab:
    """A running JupyterLab server."""

    url: str
    token: str
    root_dir: Path
    """Where its notebooks are."""
    log_file: Path
    process: subprocess.Popen[bytes]

    def address(self, path: str = "") -> str:
        """What to open in a browser: Lab, or one notebook in it, without what was open before."""
        where = f"lab/tree/{quote(path)}" if path else "lab"
        return f"{self.url}{where}?reset&token={self.token}"

    async def rest(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """What the server's REST interface answers."""
        return await asyncio.to_thread(self._rest, path, method, body)

    def _rest(self, path: str, method: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}api/{path}",
            method=method,
            headers={"Authorization": f"token {self.token}"},
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            answer = response.read()
        return json.loads(answer) if answer else None

    async def kernels(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.rest("kernels")
        return found

    def notebook(self, path: str) -> dict[str, Any]:
        """A notebook as it was saved."""
        found: dict[str, Any] = json.loads((self.root_dir / path).read_text())
        return found

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


@asynccontextmanager
async def lab(
    environ: Mapping[str, str], base: Path, *, root_dir: Path | None = None, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[Lab]:
    """A server with directories of its own below `base`; with the same `base` it is the same server once more.

    What kernels it starts finds a keeper through `environ`. `settings` are those of Lab's extensions, by their name.
    """
    require_lab()
    root_dir = root_dir or base / "notebooks"
    config, data, runtime = base / "config", base / "data", base / "runtime"
    for directory in (root_dir, config, data, runtime):
        directory.mkdir(parents=True, exist_ok=True)
    for name, setting in {**LAB_SETTINGS, **(settings or {})}.items():
        file = config / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(setting))
    kernels = base / "share" / "kernels"
    if not kernels.exists():
        kernels.mkdir(parents=True)
        (kernels / "kernelrepl").symlink_to(ROOT / "kernel_spec")  # this one, whatever is installed
    token = secrets.token_hex(16)
    options = {
        "ServerApp": {"ip": "127.0.0.1", "port": 0, "root_dir": str(root_dir), "open_browser": False},
        "IdentityProvider": {"token": token},
        "LabApp": {"news_url": None, "extension_manager": "readonly", "open_browser": False},
    }
    file = config / "jupyter_server_config.json"
    file.touch(0o600)
    file.write_text(json.dumps(options))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", *(["--allow-root"] if os.getuid() == 0 else [])]
    log_file = base / "lab.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            command,
            env={
                **environ,
                "JUPYTER_CONFIG_DIR": str(config),
                "JUPYTER_DATA_DIR": str(data),
                "JUPYTER_RUNTIME_DIR": str(runtime),
                "JUPYTER_PATH": str(kernels.parent),
            },
            cwd=root_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = await until(lambda: _url_of(process, runtime, log_file))
        server = Lab(url, token, root_dir, log_file, process)
        await until(lambda: _answers(server))
        yield server
    finally:
        await asyncio.to_thread(_end, process)


def _url_of(process: subprocess.Popen[bytes], runtime: Path, log_file: Path) -> str | None:
    """Which port it got stands in a file that it writes when it listens."""
    assert process.poll() is None, log_file.read_text(errors="replace")
    with contextlib.suppress(FileNotFoundError, ValueError):
        found: str = json.loads((runtime / f"jpserver-{process.pid}.json").read_text())["url"]
        return found
    return None


async def _answers(server: Lab) -> bool:
    try:
        await server.rest("status")
    except OSError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """As a service manager ends it, and what it should have ended itself: kernels of its own have their own groups."""
    kernels = []
    with contextlib.suppress(psutil.Error):
        # Nothing else: a keeper that was started on the way serves others too, and ends with its own fixture.
        kernels = [child for child in psutil.Process(process.pid).children() if "ipykernel_launcher" in child.cmdline()]
    process.terminate()
    try:
        process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(kernels, timeout=5)
    for kernel in alive:
        with contextlib.suppress(psutil.Error):
            kernel.kill()
    psutil.wait_procs(alive, timeout=DEADLINE_S)


# The browser


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Chromium without a window, which reaches nothing but this machine. Once for a module: it takes a second."""
    require_lab()
    from playwright.async_api import async_playwright

    arguments = ["--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with tempfile.TemporaryDirectory(prefix="kr-") as home:
        async with async_playwright() as playwright:
            chromium = await playwright.chromium.launch(
                executable_path=_chromium(),
                args=arguments,
                chromium_sandbox=False,  # root has none, containers have none, and what it shows is our own
                env={**os.environ, "HOME": home},
                timeout=DEADLINE_MS,
            )
            try:
                yield chromium
            finally:
                await chromium.close()


@dataclass(frozen=True)
class Output:
    """What stands below a cell."""

    text: str
    """As a person reads it."""
    html: str
    """As the browser has it."""
    images: int
    """How many images there are: plots, and pictures in HTML."""
    stderr: bool
    """Whether there is something on red ground: stderr, or a traceback."""
    prompt: str
    """"[3]:", "[*]:" or "[ ]:", of its cell."""


@dataclass
class Desk:
    """One browser window with Lab in it: menus, dialogs, the launcher, and notebooks side by side."""

    page: Page
    server: Lab
    requests: list[str] = field(default_factory=list)
    """Every URL that was asked for, also by windows that the page opened."""
    errors: list[str] = field(default_factory=list)
    """What the page complained about: errors in the console, and exceptions of scripts."""
    asked: list[str] = field(default_factory=list)
    """What the browser asked in windows of its own, and was told yes: whether to leave the page, and alerts."""

    @classmethod
    @asynccontextmanager
    async def at(cls, chromium: Browser, server: Lab, path: str = "") -> AsyncIterator[Desk]:
        """Open Lab in a window of its own, with its own cookies; with a path, that notebook in it."""
        context = await chromium.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=False)
        try:
            context.set_default_timeout(DEADLINE_MS)
            page = await context.new_page()
            desk = cls(page, server)
            page.on("pageerror", lambda error: desk.errors.append(str(error)))
            page.on("console", lambda said: desk.errors.append(said.text) if said.type == "error" else None)
            page.on("dialog", desk._on_dialog)
            context.on("request", lambda request: desk.requests.append(request.url))
            context.on("page", desk._on_window)
            await desk.open(path)
            yield desk
        finally:
            with contextlib.suppress(Exception):  # for who looks for a reason; the page may be what is broken
                await page.screenshot(path=server.log_file.with_name("last.png"), timeout=5000)
            await context.close()

    async def _on_dialog(self, dialog: Dialog) -> None:
        self.asked.append(dialog.message or dialog.type)
        with contextlib.suppress(Exception):  # everything closes
            await dialog.accept()

    async def _on_window(self, page: Page) -> None:
        with contextlib.suppress(Exception):
            await page.close()  # behind another one this page would be drawn once a second

    async def open(self, path: str = "") -> None:
        """Load the page once more, with this notebook and nothing else in it."""
        await self.page.goto(self.server.address(path), wait_until="domcontentloaded")
        await self.page.locator("#jp-main-dock-panel").wait_for()
        await self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    async def launcher(self) -> list[str]:
        """The kernels the launcher offers for notebooks."""
        labels = self.page.locator(".jp-LauncherCard[data-category=Notebook] .jp-LauncherCard-label")
        await labels.first.wait_for()
        return [" ".join(label.split()) for label in await labels.all_inner_texts()]

    async def new_notebook(self, kernel: str) -> Notebook:
        """Click on a kernel in the launcher."""
        if not await self.page.locator(".jp-Launcher:visible").count():
            await self.menu("File", "New Launcher")
        await (
            self.page.locator(".jp-Launcher:visible .jp-LauncherCard[data-category=Notebook]")
            .get_by_text(kernel, exact=True)
            .click()
        )
        return await self.notebook()

    async def notebook(self, kernel: str | None = None) -> Notebook:
        """The notebook that is in front, when its kernel is ready. Answers Lab's question for a kernel."""
        panel = self.page.locator(".jp-NotebookPanel:visible")
        await panel.locator(".jp-Cell").first.wait_for()
        identity = await panel.get_attribute("id")
        notebook = Notebook(self, self.page.locator(f"[id='{identity}']"))
        if kernel is not None:
            await self.select_kernel(kernel)
        # The circle starts as that of an idle kernel, and what is run meanwhile is dropped.
        await panel.locator(".jp-Toolbar-kernelName").filter(has_not_text="No Kernel").wait_for()
        await notebook.until_status("idle")
        return notebook

    async def select_kernel(self, kernel: str) -> None:
        """Choose a kernel in the dialog that asks for one, by what it is called there."""
        await self.page.locator(".jp-Dialog select").select_option(label=kernel)
        await self.accept_dialog()

    async def menu(self, *path: str) -> None:
        """Click through a menu, by the beginnings of its labels: desk.menu("Kernel", "Restart Kernel…")."""
        await self.page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{re.escape(path[0])}$")).click()
        for label in path[1:]:
            item = self.page.locator(".lm-Menu-item:not(.lm-mod-disabled)").filter(
                has=self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{re.escape(label)}"))
            )
            await item.first.click()

    async def dialogs(self) -> list[str]:
        """The text of every dialog on the screen."""
        return await self.page.locator(".jp-Dialog").all_inner_texts()

    async def accept_dialog(self, text: str = "") -> str:
        """Wait for a dialog with this text, and press its blue or red button. Returns the text of the dialog."""
        dialog = self.page.locator(".jp-Dialog", has_text=text).last
        await dialog.wait_for()
        said = await dialog.inner_text()
        await dialog.locator("button.jp-mod-accept").last.click()
        await dialog.wait_for(state="detached")
        return said

    async def dismiss_dialog(self, text: str = "") -> None:
        dialog = self.page.locator(".jp-Dialog", has_text=text).last
        await dialog.locator("button.jp-mod-reject").first.click()
        await dialog.wait_for(state="detached")

    async def screenshot(self, path: Path) -> None:
        await self.page.screenshot(path=path)


@dataclass
class Notebook:
    """One notebook on a desk."""

    desk: Desk
    panel: Locator

    @property
    def cells(self) -> Locator:
        return self.panel.locator(".jp-Notebook-cell")

    def cell(self, index: int) -> Locator:
        return self.cells.nth(index)  # -1 is the last

    # Cells

    async def start(self, code: str) -> int:
        """Type code into the last cell, or a new one if that is not empty, and press Shift+Enter. Returns which."""
        keyboard = self.desk.page.keyboard
        count: int
        count, empty, ready = await self.panel.evaluate(_LAST_CELL)
        if not empty:
            await self.panel.locator(".jp-Notebook-footer").click()
            await self.cells.nth(count).wait_for()
            count += 1
        if not (empty and ready):  # it is as a rule: the cursor goes there when the one before has been run
            await self.cell(count - 1).locator(".cm-content").click()
        await keyboard.insert_text(code)
        await keyboard.press("Shift+Enter")
        return count - 1

    async def run(self, code: str) -> Output:
        """Run code in a new last cell to its end."""
        index = await self.start(code)
        await self.finished(index)
        return await self.output(index)

    async def again(self, index: int) -> Output:
        """Run a cell that is there once more."""
        cell = self.cell(index)
        # Lab writes it anew as soon as it takes the cell; its number may be the same afterwards.
        await cell.locator(".jp-InputPrompt").evaluate("prompt => { prompt.textContent = '' }")
        await cell.locator(".cm-content").click()
        await self.desk.page.keyboard.press("Shift+Enter")
        await self.finished(index)
        return await self.output(index)

    async def finished(self, index: int) -> None:
        """Wait until a cell has its number, and what it shows does not change any more."""
        cell = self.cell(index)
        await cell.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[\d+\]:")).wait_for()
        await cell.locator(".jp-Cell-outputArea").evaluate(_SETTLED)

    async def click_everything(self, index: int) -> None:
        """Click on all below a cell that looks as if one could; not on links that say where else they lead."""
        found = self.cell(index).locator(".jp-Cell-outputArea").locator(_CLICKABLE)
        for element in await found.element_handles():
            box = await element.bounding_box()
            if box is not None:
                await element.scroll_into_view_if_needed()
                box = await element.bounding_box() or box
                await self.desk.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            await element.dispatch_event("click")  # also if it cannot be seen
            if not await self.panel.is_visible():
                await self.front()

    async def output(self, index: int) -> Output:
        """What stands below a cell now."""
        found = await self.cell(index).evaluate(_OUTPUT)
        return Output(**found)

    async def until_output(self, index: int, text: str) -> Output:
        """Wait until this text stands below a cell."""

        async def shown() -> Output | None:
            output = await self.output(index)
            return output if text in output.text else None

        return await until(shown)

    # The kernel

    async def status(self) -> str:
        """What the circle at the top right means: idle, busy, restarting, dead, disconnected, …"""
        return await self.panel.locator(_CIRCLE).get_attribute("data-status") or ""

    async def until_status(self, *states: str) -> str:
        selector = ", ".join(f"{_CIRCLE}[data-status={state}]" for state in states)
        await self.panel.locator(selector).wait_for(state="attached")
        return await self.status()

    async def watch(self) -> None:
        """Note from now on what the circle says; the same states in a row are one."""
        await self.panel.evaluate(_WATCH, _CIRCLE)

    async def states(self) -> list[str]:
        """What the circle has said since `watch`."""
        return list(await self.panel.evaluate("panel => panel.states"))

    async def kernel_name(self) -> str:
        """What it says beside the circle."""
        return await self.panel.locator(".jp-Toolbar-kernelName").inner_text()

    async def restart_kernel(self, item: str = "Restart Kernel…") -> None:
        """From the menu, with Lab's question answered; returns when the kernel is there again."""
        await self.front()
        await self.watch()
        await self.desk.menu("Kernel", item)
        await self.desk.accept_dialog("Restart Kernel?")

        async def restarted() -> bool:
            states = await self.states()
            return "restarting" in states and states[-1] == "idle"

        await until(restarted)

    async def interrupt_kernel(self) -> None:
        """With the button, which asks nothing."""
        await self.panel.locator("[data-command='notebook:interrupt-kernel']").click()

    # The file

    async def _tab(self) -> Locator:
        return self.desk.page.locator(f"[id='{await self.panel.get_attribute('aria-labelledby')}']")

    async def front(self) -> None:
        """Click on its tab."""
        await (await self._tab()).click()

    async def name(self) -> str:
        """What the tab says: the name of the file."""
        return (await (await self._tab()).inner_text()).strip()

    async def save(self) -> None:
        """Ctrl+S; returns when the tab shows that nothing is unsaved. A new name is accepted as it is."""
        await self.front()
        await self.desk.page.keyboard.press("Control+s")
        saved = self.desk.page.locator(f"[id='{await self.panel.get_attribute('aria-labelledby')}']:not(.jp-mod-dirty)")
        asked = self.desk.page.locator(".jp-Dialog", has_text="Rename file")
        await saved.or_(asked).first.wait_for()
        if await asked.count():
            await self.desk.accept_dialog("Rename file")
        await saved.wait_for()

    async def rename(self, name: str) -> None:
        """From the menu."""
        await self.front()
        await self.desk.menu("File", "Rename Notebook…")
        await self.desk.page.locator(".jp-Dialog input:not([type=checkbox])").fill(name)
        await self.desk.accept_dialog("Rename")
        await self.desk.page.locator(".lm-TabBar-tabLabel", has_text=name).first.wait_for()

    async def close(self, shut_down: bool = False) -> None:
        """Close the tab, or choose what also shuts down the kernel."""
        await self.front()
        await self.desk.menu("File", "Close and Shut Down Notebook…" if shut_down else "Close Tab")
        if shut_down:
            await self.desk.accept_dialog("Shut down")
        await self.panel.wait_for(state="detached")

    async def console(self, all_activity: bool = False) -> Console:
        """Open a console on the same kernel, which on request shows what any client of it runs."""
        await self.front()
        await self.desk.menu("File", "New Console for Notebook")
        panel = self.desk.page.locator(".jp-ConsolePanel:visible")
        await panel.locator(".jp-CodeConsole-banner").wait_for()
        console = Console(self.desk, panel)
        if all_activity:
            await panel.locator(".jp-CodeConsole-content").click(button="right")
            await self.desk.page.locator(".lm-Menu-itemLabel", has_text="Show All Kernel Activity").click()
        return console

    # Help while typing

    async def tooltip(self, code: str) -> str:
        """Type code into the last cell, without running it, and press Shift+Tab. Returns the tooltip's HTML."""
        await self._type(code)
        await self.desk.page.keyboard.press("Shift+Tab")
        tooltip = self.desk.page.locator(".jp-Tooltip")
        await tooltip.wait_for()
        html = await tooltip.inner_html()
        await self._clear()
        return html

    async def complete(self, code: str) -> str:
        """Type code into the last cell, without running it, and press Tab. Returns the list's HTML, with its help."""
        await self._type(code)
        await self.desk.page.keyboard.press("Tab")
        completer = self.desk.page.locator(".jp-Completer:visible")
        await completer.wait_for()
        await completer.evaluate(_SETTLED)
        html = await completer.inner_html()
        await self._clear()
        return html

    async def _type(self, code: str) -> None:
        await self.cells.last.locator(".cm-content").click()
        await self.desk.page.keyboard.insert_text(code)

    async def _clear(self) -> None:
        await self.desk.page.keyboard.press("Escape")
        await self.cells.last.locator(".cm-content").click()
        await self.desk.page.keyboard.press("Control+a")
        await self.desk.page.keyboard.press("Delete")


@dataclass
class Console:
    """A code console on a desk, with what it shows of cells that others ran."""

    desk: Desk
    panel: Locator

    async def cells(self) -> list[tuple[str, str]]:
        """The code and the outputs of each cell, also of those of other clients."""
        found = await self.panel.evaluate(_CONSOLE)
        return [(code, text) for code, text in found]

    async def run(self, code: str) -> None:
        """Type code at the prompt, and run it."""
        await self.panel.locator(".jp-CodeConsole-input .cm-content").click()
        await self.desk.page.keyboard.insert_text(code)
        await self.desk.page.keyboard.press("Shift+Enter")


# What a page that was attacked reaches


class Canary:
    """A server that everybody may ask for anything, and that remembers who did."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._asked: list[str] = []

    def note(self, path: str) -> None:
        self._asked.append(path)

    @property
    def asked(self) -> set[str]:
        """The names that were asked for: "/img_onerror.png?1" is img_onerror."""
        return {Path(urlsplit(path).path).name.split(".")[0] for path in self._asked}


@contextmanager
def canary() -> Iterator[Canary]:
    """One on a free port. It has no content, so that a page that is sent there stays where it is."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.server.canary.note(self.path)  # type: ignore[attr-defined]
            self.send_response(204)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Headers", "*")
            self.send_header("Cross-Origin-Resource-Policy", "cross-origin")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = answer

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found = Canary(f"http://127.0.0.1:{server.server_port}")
        server.canary = found  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


# What is evaluated in the page

_CIRCLE = ".jp-Notebook-ExecutionIndicator"
_CLICKABLE = (
    "a:not([href^=http], .vega-actions a), button, input, canvas, svg:not(a svg, svg svg), [data-commandlinker-command]"
)
_LAST_CELL = """panel => {
    const cells = panel.querySelectorAll('.jp-Notebook-cell');
    const editor = [...cells].at(-1).querySelector('.cm-content');
    return [cells.length, !editor.innerText.trim(), editor === document.activeElement];
}"""
_WATCH = """(panel, circle) => {
    const note = () => {
        const state = panel.querySelector(circle)?.dataset.status;
        if (state && state !== panel.states.at(-1)) panel.states.push(state);
    };
    panel.states = [];
    note();
    panel.watcher?.disconnect();
    panel.watcher = new MutationObserver(note);
    panel.watcher.observe(panel.querySelector('.jp-NotebookPanel-toolbar'),
        {subtree: true, childList: true, attributes: true, attributeFilter: ['data-status']});
}"""
_CONSOLE = """panel => [...panel.querySelectorAll('.jp-CodeConsole-content .jp-CodeCell')].map(cell => [
    cell.querySelector('.cm-content').innerText,
    [...cell.querySelectorAll('.jp-OutputArea-output')].map(output => output.innerText.trim()).join('\\n'),
])"""
_OUTPUT = """cell => {
    const outputs = [...cell.querySelectorAll('.jp-OutputArea-output')].filter(
        output => !output.parentElement.closest('.jp-OutputArea-output'));
    const images = [...cell.querySelectorAll('.jp-Cell-outputArea img')];
    return {
        text: outputs.map(output => output.innerText.trim()).join('\\n'),
        html: cell.querySelector('.jp-Cell-outputArea').innerHTML,
        images: images.filter(image => image.complete && image.naturalWidth).length,
        stderr: !!cell.querySelector('[data-mime-type="application/vnd.jupyter.stderr"]'),
        prompt: cell.querySelector('.jp-InputPrompt').innerText,
    };
}"""
_SETTLED = """async area => {
    // Lab renders bit by bit: a text in portions, one a frame, others after their own promises.
    const turn = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    for (let quiet = 0, last = null, turns = 0; quiet < 3 && turns < 200; last = area.innerHTML, turns++) {
        await turn();
        quiet = area.innerHTML === last ? quiet + 1 : 0;
    }
}"""
