"""The one gate: lint, types, the built wheel in a fresh environment with the demo, and all tests.

`python -m tests.gate` runs everything, in lanes side by side; the first failure ends them all. Tests that failed once
and then passed twice are shown at its end (see tests/flakes.py).

`--quick` runs lint, types and the tests that need no kernel: what to run before each commit. `--all` tries all entries
of the long tables, of which the gate takes the same sample each time, and all attempts to break out in both ways in
which kernels start: hours.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNIT = "tests/unit"
WHOLE = {
    "KERNELREPL_SETTINGS": "all",
    "KERNELREPL_OBJECTS": "all",
    "KERNELREPL_EXAMPLES": "50",
    "KERNELREPL_SESSIONS": "500",
    "KERNELREPL_LIVE": "20",
    "KERNELREPL_TEST_KILLS": "84",
    "PYTEST_TIMEOUT": "0",  # a table is one test: an hour is no sign that it hangs
}
"""What makes tests take all entries of their tables."""


class Failed(Exception):
    """A step of a lane has failed, or another lane has."""


class Gate:
    """Runs steps in several threads, and ends all of them with the first that fails."""

    def __init__(self) -> None:
        self.code = 0
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    def step(self, title: str, *command: str, shown: bool = False, **environment: str) -> None:
        """Run one command. What it prints comes at once if `shown`, else as a whole at its end. Raises Failed."""
        began = time.monotonic()
        with tempfile.TemporaryFile() as output, self._started(command, None if shown else output, environment) as run:
            code = run.wait()
            output.seek(0)
            said = output.read().decode(errors="replace")
        with self._lock:
            ended = self.code  # by another lane
            self.code = self.code or code
            how = "ended, another lane has failed" if ended else f"failed with code {code}" if code else "ok"
            print(f"{said}== {title}: {how}, {time.monotonic() - began:.0f} s", flush=True)
            if code:
                self._end_all()
        if code or ended:
            raise Failed(title)

    @contextlib.contextmanager
    def _started(
        self, command: tuple[str, ...], output: object, environment: dict[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        with self._lock:
            if self.code:
                raise Failed(command[0])
            run = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,  # type: ignore[call-overload]
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
            )
            self._running.add(run)
        try:
            yield run
        finally:
            with self._lock:
                self._running.discard(run)

    def _end_all(self) -> None:
        """SIGTERM to the process groups of all other steps."""
        for run in self._running:
            if run.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGTERM)

    def lane(self, steps: Callable[[Gate], None]) -> threading.Thread:
        """Start one lane."""

        def run() -> None:
            try:
                steps(self)
            except Failed:
                return
            except BaseException:
                with self._lock:
                    self.code = self.code or 1
                    self._end_all()
                raise

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def static(gate: Gate) -> None:
    """What looks at the source only."""
    gate.step("lint", sys.executable, "-m", "ruff", "check", ".")
    gate.step("format", sys.executable, "-m", "ruff", "format", "--check", ".")
    gate.step("types", sys.executable, "-m", "mypy")


def wheel(gate: Gate) -> None:
    """The wheel in a fresh environment, with the kernelspec that it installs and the demo."""
    with tempfile.TemporaryDirectory(prefix="kernelrepl-gate-") as scratch:
        dist, fresh = Path(scratch) / "dist", Path(scratch) / "venv"
        gate.step("wheel", sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist))
        (built,) = dist.glob("*.whl")
        venv.create(fresh, with_pip=True)
        gate.step("install", str(fresh / "bin/pip"), "install", "--quiet", f"{built}[data]")
        spec = "import jupyter_client.kernelspec as k; print(k.get_kernel_spec('kernelrepl').resource_dir)"
        gate.step("kernelspec", str(fresh / "bin/python"), "-c", spec)
        figures = str(Path(scratch) / "figures")
        gate.step("demo", str(fresh / "bin/kernelrepl"), "demo", "--figures", figures, HOME=scratch, PYTHONPATH="")


def unit(gate: Gate) -> None:
    """The tests that need neither a kernel nor a keeper."""
    gate.step("unit tests", sys.executable, "-m", "pytest", "-q", "-n", "2", UNIT, shown=True)


def tests(gate: Gate, **environment: str) -> None:
    """All other tests. Most of the time they wait for a kernel to start, to end or to be refused something.

    A worker that has nothing left takes over tests of another one; until then the tests of a module stay together,
    and so does what is started once for all of them.
    """
    gate.step("compile", sys.executable, "-m", "compileall", "-q", "kernelrepl")  # confined kernels keep no bytecode
    workers = str(2 * (os.cpu_count() or 1))
    others = ("-n", workers, "--dist", "worksteal", "--durations", "15", "--ignore", UNIT)
    gate.step("tests", sys.executable, "-m", "pytest", *others, shown=True, **environment)


def whole(gate: Gate) -> None:
    """All tests with every entry of their tables, and all attempts."""
    tests(gate, **WHOLE)
    for how in ((), ("--forked",)):
        gate.step(" ".join(["attempts", *how]), sys.executable, "-m", "tests.attacks", *how, shown=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the gate.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="lint, types and the tests that need no kernel")
    which.add_argument("--all", action="store_true", help="every entry of the long tables, and all attempts")
    asked = parser.parse_args()
    lanes = [static, unit] if asked.quick else [static, unit, wheel, whole if asked.all else tests]
    gate = Gate()
    for thread in [gate.lane(steps) for steps in lanes]:
        thread.join()
    sys.exit(gate.code)


if __name__ == "__main__":
    main()
