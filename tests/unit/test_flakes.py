"""What fails once and then passes is shown and counted; what fails again is red, and most tests never run again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
from pathlib import Path

runs = Path(__file__).with_name("runs")


def test_of_a_run():
    count = int(runs.read_text()) if runs.exists() else 0
    runs.write_text(str(count + 1))
    assert count not in {red}, f"failed in run {{count}}"


def test_beside_it():
    pass
"""


@pytest.mark.parametrize(
    ("module", "red", "code", "runs", "said"),
    [
        ("test_cli", [0], 0, 3, "1 flakes: failed once, then passed twice"),
        ("test_cli", [0, 1], 1, 3, "1 failed, 1 passed"),
        ("test_cli", [0, 2], 1, 3, "1 failed, 1 passed"),
        ("test_cli", [], 0, 1, "2 passed"),
        ("test_durability", [0], 1, 1, "1 failed, 1 passed"),
    ],
)
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_flake(
    tmp_path: Path, module: str, red: list[int], code: int, runs: int, said: str, workers: tuple[str, ...]
) -> None:
    """Green twice of three times passes and is told, with how it failed."""
    (tmp_path / f"{module}.py").write_text(TESTS.format(red=red))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.flakes", *workers, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.returncode, (tmp_path / "runs").read_text()) == (code, str(runs)), done.stdout
    assert said in done.stdout
    if code == 0 and red:
        _, _, shown = done.stdout.partition("FLAKE ")
        assert "::test_of_a_run" in shown
        assert "failed in run 0" in shown
