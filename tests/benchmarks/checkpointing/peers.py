"""The peers: an environment that has them, their process, and the measuring of one of them."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.benchmarks.checkpointing.options import Options
from tests.benchmarks.checkpointing.series import Series, Side, Trouble, enough, growth, megabytes
from tests.benchmarks.checkpointing.states import LOOP, State
from tests.support import environments

PEERS = ("dill", "cloudpickle", "kishu")
OURS = ("cloudpickle",)
"""Peers that run in our own environment."""
WANTED = ("kishu==0.3.4", "dill")
SAME = ("ipykernel", "ipython", "numpy", "pandas", "pyarrow")
"""What has the same version in both environments."""
CHILD = Path(__file__).with_name("child.py")
START_S = 60.0
LOOPS = 3


def environment() -> Path:
    """The Python of an environment that has the peers, made once and kept in the temporary directory."""
    wanted = [*WANTED]
    for name in SAME:
        try:
            wanted.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    key = environments.key_of(*wanted)
    place = Path(tempfile.gettempdir()) / f"kernelrepl-benchmark-peers-{os.getuid()}-{key}"
    try:
        return environments.python_with(wanted, place)
    except environments.NotInstalled as error:
        raise Trouble(str(error)) from None


class Process:
    """A peer as a process; whoever does not answer in time is ended."""

    def __init__(self, python: Path, name: str, directory: Path) -> None:
        home = directory / "home"
        home.mkdir(exist_ok=True)
        self._said = directory / "stderr"
        with self._said.open("wb") as stderr:
            self._process = subprocess.Popen(
                [str(python), str(CHILD), name, str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=directory,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "IPYTHONDIR": str(home / "i")},
            )
        self._read = b""
        self.alive = True
        self.hello = self._answer(START_S)

    def ask(self, do: str, limit_s: float, code: str = "") -> dict[str, Any]:
        """Do one thing. Raises Trouble."""
        if not self.alive:
            raise Trouble("not tried: its process has ended")
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "code": code}).encode() + b"\n")
        self._process.stdin.flush()
        found = self._answer(limit_s)
        if "error" in found:
            raise Trouble(found["error"])
        return found

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._read:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                self.close()
                raise Trouble(f"took over {limit_s:.0f} s, was ended")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                self.close()
                said = self._said.read_text(errors="replace").strip().splitlines()
                raise Trouble(f"ended with code {self._process.returncode}: {said[-1] if said else 'said nothing'}")
            self._read += part
        line, self._read = self._read.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        self.alive = False
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def measure(name: str, python: Path, state: State, options: Options, directory: Path) -> Side:
    """Everything about one peer and one state. What it cannot do is noted, not raised."""
    side = Side(name)
    place = Path(tempfile.mkdtemp(prefix=f"kr-peer-{name}-", dir=directory))
    try:
        process = Process(python, name, place)
        try:
            side.versions = process.hello["versions"]
            expected = _cells(side, process, state, options, place)
        finally:
            process.close()
        if "restore" in options.cells:
            _restore(side, python, state, options, place, expected)
    except Trouble as trouble:
        side.note(str(trouble))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return side


def _cells(side: Side, process: Process, state: State, options: Options, place: Path) -> dict[str, str]:
    """Build and run what is measured; returns what a restore must bring back."""

    def run(series: Series, code: str, limit_s: float) -> None:
        spent = process.ask("run", limit_s, code)
        series.total.append(spent["total"])
        series.cell.append(spent["cell"])
        series.part.append(spent["part"])

    def kind(name: str) -> Series:
        side.cells[name] = Series()
        return side.cells[name]

    def size() -> float:
        return megabytes(place, "home")

    build = kind("build")
    try:
        with growth(build, size):
            for code in state.build:
                run(build, code, options.build_limit_s)
    except Trouble as trouble:
        build.trouble = str(trouble)
        if not process.alive:
            raise
    for name in (name for name in state.cells if name in options.cells):
        series = kind(name)
        codes = state.codes(name)
        try:
            with growth(series, size):
                while not enough(series, options.repeats or state.repeats, options.budget_s):
                    run(series, next(codes), options.limit_s)
        except Trouble as trouble:
            series.trouble = str(trouble)
    if "mixed" in options.cells and state.mixed:
        series = kind("mixed")
        try:
            with growth(series, size):
                for _, code in state.sequence():
                    if enough(series, state.mixed, options.mixed_budget_s):
                        break
                    run(series, code, options.limit_s)
        except Trouble as trouble:
            series.trouble = str(trouble)
    expected = {code: process.ask("value", options.limit_s, code)["value"] for code in (*state.checks, state.needs)}
    if "loop" in options.cells and state.loop and side.name != "dill":
        loops = [process.ask("loop", options.limit_s, LOOP)["seconds"] for _ in range(min(LOOPS, state.loop))]
        side.loops["own"] = loops
    return expected


def _restore(side: Side, python: Path, state: State, options: Options, place: Path, expected: dict[str, str]) -> None:
    """Load in fresh processes; what comes back otherwise than it was is noted."""
    for _ in range(options.restores_of(state.size_bytes)):
        began = time.perf_counter()
        process = Process(python, side.name, place)
        try:
            load = process.ask("load", options.limit_s)["ms"]
            process.ask("value", options.limit_s, "1 + 1")
            spent = (time.perf_counter() - began) * 1000
            found = {code: process.ask("value", options.limit_s, code)["value"] for code in expected}
        finally:
            process.close()
        side.restore.setdefault("first", []).append(spent)
        side.restore.setdefault("load", []).append(load)
        for code, value in found.items():
            if value != expected[code]:
                side.note(f"after its restore {code} is {value}, not {expected[code]}")
