"""The picture of the README, made from what the commands print: `python -m tests.picture` writes docs/session.svg."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import textwrap
import time
from html import escape
from pathlib import Path

import psutil

from kernelrepl import discovery
from tests.conftest import end_keeper, environment_of
from tests.support.mcp_hosts import COMMAND, DEADLINE_S

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "session.svg"
KILL = "kill -9: the kernel, and the server with it"
STEPS = (
    'import pandas as pd; sales = pd.DataFrame({"city": ["Oslo", "Rome", "Oslo"], "sold": [3, 4, 5]})',
    'best = lambda table: table.groupby("city").sold.sum().idxmax()',
    KILL,
    "best(sales), len(sales)",
    'log = open("notes.txt", "w")',
)
"""What is run in one session, one call each, and where everything is killed."""
COLUMNS = 108
_WIDTH, _LINE, _MARGIN = 7.8, 20, 16
_COLOURS = {"$": "#e6edf3", "#": "#ff7b72", "⟦": "#d2a8ff"}
_OUTPUT = "#7ee787"


def record(environ: dict[str, str]) -> list[str]:
    """Run the steps with a keeper of their own; returns the lines of the terminal."""
    lines: list[str] = []
    for step in STEPS:
        if step == KILL:
            _kill(Path(environ["KERNELREPL_DATA_DIR"]))
            lines.append(f"# {KILL}")
            continue
        done = subprocess.run(
            [str(COMMAND), "exec", "-s", "sales", step],
            env=environ,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=True,
        )
        lines.append(f"$ kernelrepl exec -s sales {shlex.quote(step)}")
        lines += (done.stdout + done.stderr).splitlines()
    return lines


def _kill(data_dir: Path) -> None:
    """SIGKILL to the keeper and to all that it started, by their numbers."""
    found = discovery.read_keeper(data_dir)
    assert found is not None
    keeper = psutil.Process(found["pid"])
    processes = [*keeper.children(recursive=True), keeper]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)
    while any(map(_lives, processes)):
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    """Whether a process is more than a number that nobody has asked for yet."""
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def svg(lines: list[str]) -> str:
    """The lines as a terminal shows them."""
    shown = [
        (_COLOURS.get(line[:1], _OUTPUT), part)
        for line in lines
        for part in textwrap.wrap(line, COLUMNS, subsequent_indent="  ", break_on_hyphens=False)
    ]
    width, height = COLUMNS * _WIDTH + 2 * _MARGIN, len(shown) * _LINE + 2 * _MARGIN
    rows = [
        f'<text x="{_MARGIN}" y="{_MARGIN + _LINE * (row + 0.7):g}" fill="{colour}" xml:space="preserve">'
        f"{escape(text, quote=False)}</text>"
        for row, (colour, text) in enumerate(shown)
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13">'
    )
    back = f'<rect width="{width:g}" height="{height}" rx="8" fill="#0d1117"/>'
    return "\n".join([head, back, *rows, "</svg>", ""])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="kr-") as directory:
        base = Path(directory)
        data_dir = base / "data"
        data_dir.mkdir(mode=0o700)
        try:
            PICTURE.write_text(svg(record(environment_of(data_dir, base / "run", base))))
        finally:
            end_keeper(data_dir)


if __name__ == "__main__":
    main()
