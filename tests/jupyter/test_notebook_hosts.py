"""The programs that people run notebooks with, on a session: what they leave, and what outlives them."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager

from tests.support.jupyter_hosts import ROOT, folder_of
from tests.support.mcp_hosts import DEADLINE_S, Place, command

SCRIPTS = Path(sys.executable).parent


@pytest.fixture
def place(environ: dict[str, str], tmp_path: Path) -> Place:
    """With the kernelspec where programs look for it, and nothing of this machine's own Jupyter."""
    jupyter = tmp_path / "jupyter"
    shutil.copytree(ROOT / "kernel_spec", jupyter / "kernels" / "kernelrepl")
    environ |= {"JUPYTER_PATH": str(jupyter), "JUPYTER_DATA_DIR": str(tmp_path / "own")}
    return Place(environ)


def program(place: Place, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [str(SCRIPTS / words[0]), *words[1:]],
        env={**place.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
        cwd=place.data_dir.parent,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def book(place: Place, *cells: str, tags: dict[int, str] | None = None) -> Path:
    """A notebook with these cells."""
    made = nbformat.v4.new_notebook()
    made.metadata.kernelspec = {"name": "kernelrepl", "display_name": "kernelrepl", "language": "python"}
    made.cells = [nbformat.v4.new_code_cell(code) for code in cells]
    for number, tag in (tags or {}).items():
        made.cells[number].metadata.tags = [tag]
    path = place.data_dir.parent / "book.ipynb"
    nbformat.write(made, path)
    return path


def outputs(path: Path) -> list[Any]:
    done = nbformat.read(path, as_version=4)
    nbformat.validate(done)
    return [cell.outputs for cell in done.cells if cell.cell_type == "code"]


def test_the_kernelspec_is_what_both_kinds_of_hosts_need() -> None:
    """A provisioner for those that know such, and a command for the others; with logos."""
    spec = KernelSpecManager(kernel_dirs=[str(ROOT)], ensure_native_kernel=False).get_kernel_spec("kernel_spec")
    assert (spec.display_name, spec.language, spec.interrupt_mode) == ("Python (kernelrepl)", "python", "signal")
    assert spec.argv[-1] == "{connection_file}"
    assert spec.metadata["kernel_provisioner"]["provisioner_name"] == "kernelrepl"
    assert {path.name for path in (ROOT / "kernel_spec").iterdir()} == {
        "kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg",
    }  # fmt: skip


@pytest.mark.parametrize("how", ["provisioner", "command"])
def test_nbconvert_executes(place: Place, how: str, tmp_path: Path) -> None:
    """Figures, tables and errors are where a notebook has them, and the session goes with it."""
    shutil.rmtree(tmp_path / "jupyter" / "kernels")
    shutil.copytree(folder_of(how, tmp_path), tmp_path / "jupyter" / "kernels")
    path = book(
        place,
        "import pandas as pd, matplotlib.pyplot as plt\nplt.plot([1])\npd.DataFrame({'a': [1]})",
        "print('on')\n1/0",
        "x = 5\nx",
    )
    done = program(
        place, "jupyter-nbconvert", "--execute", "--allow-errors", "--to", "notebook", "--inplace", str(path)
    )
    assert done.returncode == 0, done.stderr
    (table, figure), (printed, error), (result,) = outputs(path)
    assert "<th>a</th>" in table["data"]["text/html"]
    assert "image/png" in figure["data"]
    assert (printed["text"], error["ename"], result["data"]["text/plain"]) == ("on\n", "ZeroDivisionError", "5")
    assert place.rows("SELECT session_id FROM sessions") == []


def test_papermill_executes_with_parameters(place: Place) -> None:
    """And stops at an error, as it does with any kernel."""
    path = book(place, "n = 1", "n * 2", tags={0: "parameters"})
    done = program(place, "papermill", str(path), "out.ipynb", "-p", "n", "21", "--no-progress-bar")
    assert done.returncode == 0, done.stderr
    assert outputs(path.with_name("out.ipynb"))[-1][0]["data"]["text/plain"] == "42"
    path = book(place, "1/0", "'not reached'")
    done = program(place, "papermill", str(path), "out.ipynb", "--no-progress-bar")
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert place.rows("SELECT session_id FROM sessions") == []


@pytest.mark.parametrize("now", [True, False], ids=["now", "asked"])
def test_a_kernel_can_be_shut_down_by_a_program_that_ends(place: Place, *, now: bool) -> None:
    """From `atexit`, where no thread can be started any more: nothing is raised, and the session stays."""
    code = (
        "import atexit, os\n"
        "from jupyter_client import KernelManager\n"
        "kernels = KernelManager(kernel_name='kernelrepl')\n"
        "kernels.start_kernel(env=dict(os.environ, JPY_SESSION_NAME='/book.ipynb'))\n"
        "client = kernels.client()\n"
        "client.start_channels()\n"
        "client.wait_for_ready()\n"
        "assert client.execute('kept = 6', reply=True)['content']['status'] == 'ok'\n"
        "client.stop_channels()\n"
        "atexit.register(lambda: print('detached', kernels.provisioner.has_process))\n"
        f"atexit.register(kernels.shutdown_kernel, now={now})\n"
    )
    ended = program(place, "python", "-c", code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "detached False\n", "")
    listed = json.loads(program(place, "kernelrepl", "sessions", "--json").stdout)["sessions"]
    assert [entry["variable_count"] for entry in listed] == [1]


def test_a_console_leaves_the_session_alive(place: Place) -> None:
    """Found by its connection file, or by `kernelrepl attach`; `exit` leaves."""
    assert command(place.environ, "exec", "x = 20", "-s", "deep").returncode == 0
    file = command(place.environ, "connection-file", "deep").stdout.strip()
    done = program(
        place, "jupyter-console", f"--existing={file}", "--simple-prompt", stdin="x += 1\nprint('x is', x)\nexit\n"
    )
    assert "x is 21" in done.stdout, done
    assert command(place.environ, "exec", "x", "-s", "deep").stdout.strip() == "21"
    done = program(place, "kernelrepl", "attach", "deep", "--", "--simple-prompt", stdin="print('x is', x + 1)\nexit\n")
    assert "x is 22" in done.stdout, done
    assert command(place.environ, "exec", "x", "-s", "deep").stdout.strip() == "21"


@pytest.mark.parametrize("word", ["exit", "quit()"])
@pytest.mark.parametrize("attached", [True, False])
def test_a_console_is_left_by_a_word(place: Place, word: str, *, attached: bool) -> None:
    """Typed at a terminal that stays open: the console ends, and the session has what was typed before."""
    assert command(place.environ, "exec", "x = 20", "-s", "deep").returncode == 0
    options = ["attach", "deep", "--", "--simple-prompt"]
    name = "kernelrepl"
    if not attached:
        file = command(place.environ, "connection-file", "deep").stdout.strip()
        name, options = "jupyter-console", [f"--existing={file}", "--simple-prompt"]
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [str(Path(sys.executable).with_name(name)), *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=place.environ,
        cwd=place.data_dir.parent,
        start_new_session=True,
    ) as console:
        os.close(theirs)
        shown = ""
        try:
            for prompt, typed in (("In [", "x += 1; print('x is', x)"), ("x is 21", word)):
                shown = until(ours, prompt, shown)
                os.write(ours, f"{typed}\n".encode())
            shown = until(ours, None, shown)
            assert console.wait(60) == 0, shown
        finally:
            console.kill()
            os.close(ours)
    assert "SystemExit" not in shown
    assert command(place.environ, "exec", "x", "-s", "deep").stdout.strip() == "21"


def until(terminal: int, expected: str | None, shown: str) -> str:
    """What a terminal shows until these words come after what it has shown; None: until nobody writes any more."""
    before = len(shown)
    while expected is None or expected not in shown[before:]:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, shown
        try:
            shown += os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            break
    return shown


def test_a_session_can_have_an_entry_in_launchers(place: Place) -> None:
    """Added, shown, kept up to date and removed; the entry opens that session."""
    command(place.environ, "exec", "x = 41", "-s", "My.analysis")
    added = command(place.environ, "kernelspec", "add", "My.analysis")
    assert added.returncode == 0, added.stderr
    directory = Path(added.stdout.rpartition(": opens")[0])
    assert {path.name for path in directory.iterdir()} >= {"kernel.json", "logo-64x64.png"}
    spec = json.loads((directory / "kernel.json").read_text())
    assert spec["display_name"] == "My.analysis (kernelrepl)"
    path = book(place, "x + 1")
    named = f"--ExecutePreprocessor.kernel_name={directory.name}"
    done = program(place, "jupyter-nbconvert", "--execute", "--to", "notebook", "--inplace", named, str(path))
    assert done.returncode == 0, done.stderr
    assert outputs(path)[0][0]["data"]["text/plain"] == "42"
    assert command(place.environ, "kernelspec", "sync").stdout == added.stdout
    assert command(place.environ, "kernelspec", "add", "My.analysis").stdout == added.stdout
    command(place.environ, "delete", "My.analysis", "--yes")
    assert "removed, session 'My.analysis' is gone" in command(place.environ, "kernelspec", "sync").stdout
    assert not directory.exists()
    refused = command(place.environ, "kernelspec", "remove", "My.analysis")
    assert (refused.returncode, "has no entry" in refused.stderr) == (1, True)
