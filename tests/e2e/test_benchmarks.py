"""The benchmarks run and print every row; what they measure is for people to judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.session import IMPORTS, Row, table

ROWS = [
    "durable 1+1",
    "durable x += 1",
    "fdatasync of a 4 KB append",
    *(
        f"CPU {code}, {process}"
        for code in ("1+1", "x += 1")
        for process in ("all", "client", "front", "keeper", "kernel")
    ),
    "front start to tools/list",
    f'python -c "{IMPORTS}"',
    "share of python -c pass",
    f"share of {IMPORTS}",
    "cold start to durable 1+1",
]
WITH_A_PEER = [name for name in ROWS if not name.startswith(("fdatasync", "CPU"))]
RUN_TIMEOUT_S = 300


@pytest.mark.slow
def test_one_run_prints_and_writes_every_row(tmp_path: Path) -> None:
    """A tiny run: all rows, ratios where there is a peer, the same in the JSON file, nothing left behind."""
    home = tmp_path / "home"
    data = tmp_path / "data"
    home.mkdir()
    data.mkdir()
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "tests.benchmarks.session", "-n", "2"),
            *("--json", str(tmp_path / "out.json"), "--directory", str(data)),
        ],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        cwd=Path(__file__).parents[2],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    machine, head, *lines = ran.stdout.splitlines()
    assert machine.startswith("kernelrepl ")
    assert head.split()[0] == "what"
    assert [name for line, name in zip(lines, ROWS, strict=True) if not line.startswith(f"{name} ")] == []
    written = {row["name"]: row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert list(written) == ROWS
    for name in WITH_A_PEER:
        assert written[name]["ratio"] > 0
        assert written[name]["paired_ratio"] > 0
        assert len(written[name]["samples_ms"]) == len(written[name]["peer_samples_ms"]) == 2
    assert list(data.iterdir()) == []
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get("HOME") == str(home)
    ]
    assert left == []


def test_ratios_are_of_medians_and_of_pairs() -> None:
    """One outlier moves neither of them, and a row without a peer has none."""
    row = Row("ours", [2.0, 4.0, 900.0], "peer", [1.0, 4.0, 5.0])
    assert row.ratio == 1.0
    assert row.paired == 2.0
    assert Row("alone", [1.0]).ratio is None
    assert table([row, Row("alone", [1.0])]).splitlines()[1].split() == (
        ["ours", "3", "4.000", "900.000", "peer", "4.000", "1.00", "2.00"]
    )


@pytest.mark.slow
def test_every_pair_of_sizes_is_measured(tmp_path: Path) -> None:
    """A tiny run: a row for each pair, in a database that has these sizes, and nothing left behind."""
    data = tmp_path / "data"
    data.mkdir()
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "tests.benchmarks.storage", "--megabytes", "16", "-n", "2", "--turns", "1"),
            *("--pages", "4096", "16384", "--chunks", "64", "1024"),
            *("--json", str(tmp_path / "out.json"), "--directory", str(data)),
        ],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    pairs = [(page, chunk) for page in (4096, 16384) for chunk in (64, 1024)]
    lines = [line.split() for line in ran.stdout.splitlines()[-len(pairs) :]]
    assert [(int(line[0]), int(line[1])) for line in lines] == pairs
    for found in json.loads((tmp_path / "out.json").read_text())["rows"]:
        assert {kind: len(values) for kind, values in found["times_ms"].items()} == {
            "store": 1,
            "one place": 2,
            "x += 1": 2,
            "read": 1,
            "cold": 1,
        }
        assert found["kept_bytes"] > found["chunk_bytes"]
    assert list(data.iterdir()) == []
