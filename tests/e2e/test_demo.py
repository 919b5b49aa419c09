"""The demonstration runs as a new user runs it, keeps its promises and leaves nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from kernelrepl.cli import demonstration as demo
from tests.conftest import this_tier

RUN_TIMEOUT_S = 300
PNG = b"\x89PNG\r\n\x1a\n"


def processes_with_home(home: Path) -> list[psutil.Process]:
    """Every process whose HOME is this one: what a demo of ours started, directly or not."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("HOME") == str(home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.slow
def test_everything_survives_both_kills(tmp_path: Path) -> None:
    """`kernelrepl demo` in a clean home exits with 0, shows both kills, writes figures and leaves no process."""
    home = tmp_path / "home"
    home.mkdir()
    figures = tmp_path / "figures"
    ran = subprocess.run(
        [sys.executable, "-m", "kernelrepl", "demo", "--figures", str(figures)],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        cwd=tmp_path,
        env={"HOME": str(home), "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"},
        check=False,
    )
    said = ran.stdout
    assert ran.returncode == 0, said + ran.stderr
    assert ran.stderr == ""
    assert "result: everything survived both kills" in said
    assert f"sandbox: {this_tier().label}" in said
    for what in ("kernel", "keeper"):
        after = re.search(
            rf"kill -9 \d+, the {what}\n.*?restored: (\d+) of (\d+) names.*?not restored: none.*?none lost", said, re.S
        )
        assert after is not None, said
        assert after[1] == after[2]
        assert int(after[1]) > 20
    written = sorted(figures.iterdir())
    assert [path.name for path in written] == ["measurements-1.png", "model-1.png"]
    for path in written:
        assert str(path) in said.replace("\n        ", "")
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size > 5000
    data = re.search(r"data directory: (\S+)", said)
    assert data is not None
    assert not Path(data[1]).parent.exists()
    assert [process.cmdline() for process in processes_with_home(home)] == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1, "b": [2]}, {"a": 1, "b": [2], "new": 3}, []),
        ({"a": 1, "b": 2}, {"b": 2}, ["a: gone"]),
        ({"a": 1}, {"a": 2}, ["a: 1 before, 2 after"]),
        ({"a": None}, {}, ["a: gone"]),
        ({"a": None}, {"a": 0}, ["a: None before, 0 after"]),
    ],
)
def test_lost_names_what_is_gone_or_different(
    before: dict[str, Any], after: dict[str, Any], expected: list[str]
) -> None:
    """Only what was there before counts, and both values are told."""
    assert demo.lost(before, after) == expected


def test_exit_code_tells_of_a_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A demonstration that lost something returns 1 and says what."""

    async def show(*_: Any) -> list[str]:
        return ["after the kill of the kernel, cells: gone"]

    monkeypatch.setattr(demo, "_demonstrate", show)
    assert demo.run(tmp_path) == 1
    said = capsys.readouterr().out
    assert "cells: gone" in said
    assert "FAILED" in said


def test_a_step_that_fails_ends_the_demonstration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is printed without a traceback of ours, whatever task groups wrapped it; the settings are put back."""
    monkeypatch.setenv("KERNELREPL_DATA_DIR", "/somewhere/else")

    async def show(environment: dict[str, str], figures: Path) -> list[str]:
        assert os.environ["KERNELREPL_DATA_DIR"] == environment["KERNELREPL_DATA_DIR"] != "/somewhere/else"
        raise ExceptionGroup("tasks", [ExceptionGroup("more tasks", [demo.DemoFailed("a step ended badly")])])

    monkeypatch.setattr(demo, "_demonstrate", show)
    assert demo.run(tmp_path) == 1
    said = capsys.readouterr().out
    assert "  - a step ended badly" in said
    assert "FAILED" in said
    assert os.environ["KERNELREPL_DATA_DIR"] == "/somewhere/else"


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the data packages the demo says which are missing and how to get them."""
    monkeypatch.setitem(demo.PACKAGES, "no_such_module", "no-such-package")
    assert demo.run(tmp_path) == 1
    said = capsys.readouterr().err
    assert "no-such-package" in said
    assert "numpy" not in said
    assert "pip install 'kernelrepl[data]'" in said
