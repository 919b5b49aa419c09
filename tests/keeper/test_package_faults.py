"""An installation that is killed, or for which there is no room, leaves nothing, and the next one works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernelrepl import testing
from tests.conftest import RUN_TIMEOUT_S
from tests.keeper.test_bad_places import missing
from tests.support.wheels import SlowIndex, index_of, make_wheel


def kernelrepl(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kernelrepl", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said(*arguments: str, code: int = 0) -> str:
    process = kernelrepl(*arguments)
    text, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == code, text
    return text


@pytest.fixture
def index(tmp_path: Path) -> Path:
    place = tmp_path / "index"
    make_wheel(place, "tidy", "1.1", {"tidy/__init__.py": "ROOMS = 4\n"})
    return place


@pytest.fixture
def slow_index(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowIndex]:
    with SlowIndex(index).served() as slow:
        monkeypatch.setenv("UV_DEFAULT_INDEX", slow.address)
        monkeypatch.setenv("UV_NO_CONFIG", "1")
        yield slow


def test_a_keeper_that_is_killed_while_it_installs_leaves_nothing(slow_index: SlowIndex) -> None:
    """The next keeper removes what is half there, and installs when it is asked again."""
    with testing.keeper() as keeper:
        said("exec", "-s", "s", "x = 41")
        adding = kernelrepl("packages", "s", "add", "tidy")
        assert slow_index.asked.wait(RUN_TIMEOUT_S)
        keeper.kill()
        slow_index.open.set()
        text, _ = adding.communicate(timeout=RUN_TIMEOUT_S)
        assert adding.returncode == 0 or "keeper" in text, text
        assert "installed" in said("packages", "s", "add", "tidy") or adding.returncode == 0
        assert "45" in said("exec", "-s", "s", "import tidy; x + tidy.ROOMS").split()  # what came back is told, too
        assert not list(keeper.data_dir.rglob(".new-*"))


def test_a_full_disk_is_said_and_costs_nothing(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session goes on, nothing of the package is there, and with room it is installed."""
    make_wheel(index, "large", "1.0", {"large.py": "SIZE = 40", "large.bin": os.urandom(40_000_000)})
    for name, value in index_of(index).items():
        monkeypatch.setenv(name, value)
    with testing.keeper() as keeper:
        keeper.data_dir.mkdir(mode=0o700)
        options = "size=30m,mode=700"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", keeper.data_dir], check=False).returncode:
            missing("a small file system cannot be mounted here")
        try:
            said("exec", "-s", "s", "x = 2")
            text = said("packages", "s", "add", "large", code=1)
            assert "No space left on device" in text, text
            assert "0 packages" in said("packages", "s")
            assert not list(keeper.data_dir.rglob("large.bin"))
            assert "3" in said("exec", "-s", "s", "x = x + 1; x").split()
            subprocess.run(["mount", "-o", "remount,size=300m", keeper.data_dir], check=True)
            assert "installed" in said("packages", "s", "add", "large")
            assert "43" in said("exec", "-s", "s", "import large; x + large.SIZE").split()
        finally:
            keeper.stop()
            subprocess.run(["umount", keeper.data_dir], check=True)
