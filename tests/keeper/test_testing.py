"""What `kernelrepl.testing` gives to the tests of other programs."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kernelrepl import discovery, python_list_sessions, python_repl, testing
from kernelrepl.errors import KeeperUnavailable
from tests.conftest import assert_nothing_left

ROOT = Path(__file__).resolve().parents[2]


def settings() -> dict[str, str]:
    return discovery.settings_of(os.environ)


async def run(code: str) -> object:
    return (await python_repl(code=code, session_id="s"))["result"]


def test_the_example_of_its_page_passes(tmp_path: Path) -> None:
    """As somebody types it, in a directory and an environment that know nothing of this package."""
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testing.md").read_text(), re.S)
    (tmp_path / "test_total.py").write_text(block)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_total.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_name_that_is_almost_a_setting_is_refused() -> None:
    """With the one that is meant: a test would run with other settings than it says."""
    with testing.keeper(max_lvie=1), pytest.raises(KeeperUnavailable, match="did you mean KERNELREPL_MAX_LIVE"):
        asyncio.run(run("1"))


def test_a_keeper_leaves_no_process() -> None:
    """Not even one that has ended and that nobody has waited for."""
    with testing.keeper() as keeper:
        asyncio.run(run("1"))
        pid = keeper.pid
    assert pid is not None
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_nothing_is_left_of_a_block_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its keeper nor its files; the variables are as they were."""
    monkeypatch.setenv("KERNELREPL_DATA_DIR", "/of/the/person")
    monkeypatch.setenv("KERNELREPL_MAX_LIVE", "7")
    before = settings()
    with pytest.raises(ZeroDivisionError), testing.keeper(max_live=2) as keeper:  # noqa: PT012
        assert settings() == {
            "KERNELREPL_DATA_DIR": str(keeper.data_dir),
            "KERNELREPL_RUNTIME_DIR": str(keeper.data_dir.with_name("run")),
            "KERNELREPL_WARM_START": "off",
            "KERNELREPL_STANDBY": "0",
            "KERNELREPL_MAX_LIVE": "2",
        }
        assert keeper.pid is None
        asyncio.run(run("import os; os.mkdir('closed'); os.chmod('closed', 0)"))
        assert keeper.pid is not None
        raise ZeroDivisionError
    assert keeper.pid is None
    assert not keeper.data_dir.parent.exists()
    assert settings() == before
    assert_nothing_left(keeper.data_dir)


def test_sessions_stay_when_a_keeper_ends_in_the_block_and_go_with_the_block() -> None:
    """By either way to end it; the next block knows nothing of them."""

    async def scenario(keeper: testing.TemporaryKeeper) -> None:
        assert await run("x = 1; x") == "1"
        first = keeper.pid
        keeper.kill()
        assert keeper.pid is None
        assert await run("x += 1; x") == "2"
        assert keeper.pid not in (None, first)
        keeper.stop()
        assert keeper.pid is None
        assert await run("x += 1; x") == "3"

    async def look() -> object:
        return (await python_list_sessions())["sessions"]

    with testing.keeper() as keeper:
        asyncio.run(scenario(keeper))
        keeper.stop()
        keeper.stop()  # there is none any more
    with testing.keeper() as other:
        assert other.data_dir != keeper.data_dir
        assert asyncio.run(look()) == []
