"""The README and the page of commands by their own words: what they tell people to type is typed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kernelrepl.cli.mcp_hosts import HOSTS
from tests.support.mcp_hosts import COMMAND, DEADLINE_S

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/cli.md", "docs/specification.md")
README, CLI, SPECIFICATION = ((ROOT / page).read_text() for page in PAGES)


def shell(page: str) -> list[str]:
    """The lines of a page that are to be typed."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.S)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


SHELL = shell(README)
SET_UP = [line for line in SHELL if line.startswith("python3 -m venv")]
TYPED = [line for line in SHELL if line not in SET_UP]


def type_in(line: str, environ: dict[str, str], cwd: Path) -> tuple[str, str]:
    """Run one line of a shell block; returns what it prints, and what its comment promises."""
    typed, _, comment = line.partition("#")
    words = shlex.split(typed.replace(".venv/bin/", ""))
    assert words[0] == "kernelrepl"
    done = subprocess.run(
        [str(COMMAND), *words[1:]], env=environ, cwd=cwd, capture_output=True, text=True, timeout=2 * DEADLINE_S
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout, comment.strip()


def test_two_lines_set_up_everything() -> None:
    """One for the main job, one for the tests; both are run by the gate, from the wheel and from a clean clone."""
    assert [line.split("&&")[-1].strip() for line in SET_UP] == [
        ".venv/bin/kernelrepl demo",
        ".venv/bin/python -m tests.gate",
    ]
    assert all(len(line.split("&&")) == 3 for line in SET_UP)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [TYPED, shell(CLI)], ids=["README", "cli"])
def test_every_command_works_in_the_order_of_the_text(
    lines: list[str], environ: dict[str, str], tmp_path: Path
) -> None:
    """And prints what its comment promises, where that is a value."""
    assert len(lines) >= 5
    for line in lines:
        printed, comment = type_in(line, environ, tmp_path)
        if value := re.match(r"(\d+),", comment):
            assert printed.strip() == value[1]
    if lines is not TYPED:
        assert list((tmp_path / "kernelrepl-demo").glob("*.png"))


def test_every_host_that_is_named_is_known(environ: dict[str, str], tmp_path: Path) -> None:
    """The comment behind `install` lists them all."""
    [line] = [line for line in TYPED if "install claude-code" in line]
    named = ["claude-code", *re.split(r"[ ,]+", line.partition("# or ")[2])]
    assert sorted(named) == sorted(HOSTS)


def test_the_python_block_runs(environ: dict[str, str]) -> None:
    """As a script of its own."""
    [block] = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], env=environ, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "42 {'created': [], 'changed': [], 'deleted': []}\n"


def test_the_table_of_the_specification_quotes_it() -> None:
    """Each row names something that stands there."""
    spec = (Path(__file__).parents[1] / "spec" / "python-session-management.md").read_text()
    spec_words = set(re.findall(r"\w+", spec.lower()))
    rows = re.findall(r"^\| (.+?) \|", SPECIFICATION, re.M)[2:]
    assert len(rows) >= 20
    for row in rows:
        words = re.findall(r"\w+", row.lower())
        known = sum(word in spec_words for word in words)
        assert known >= 0.8 * len(words), row
