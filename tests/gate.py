"""The one gate: lint, types, the built wheel in a fresh environment with the demo, and all tests.

`python -m tests.gate` runs everything; the first failure ends it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def step(title: str, *command: str, **environment: str) -> None:
    """Run one command; end the gate with its code if it fails."""
    print(f"== {title}", flush=True)
    began = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode
    print(
        f"== {title}: {'ok' if code == 0 else f'failed with code {code}'}, {time.monotonic() - began:.0f} s", flush=True
    )
    if code:
        sys.exit(code)


def main() -> None:
    python = sys.executable
    step("lint", python, "-m", "ruff", "check", ".")
    step("format", python, "-m", "ruff", "format", "--check", ".")
    step("types", python, "-m", "mypy")
    with tempfile.TemporaryDirectory(prefix="kernelrepl-gate-") as scratch:
        dist, fresh = Path(scratch) / "dist", Path(scratch) / "venv"
        step("wheel", python, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist))
        (wheel,) = dist.glob("*.whl")
        venv.create(fresh, with_pip=True)
        step("install", str(fresh / "bin/pip"), "install", "--quiet", f"{wheel}[data]")
        spec = "import jupyter_client.kernelspec as k; print(k.get_kernel_spec('kernelrepl').resource_dir)"
        step("kernelspec", str(fresh / "bin/python"), "-c", spec)
        figures = str(Path(scratch) / "figures")
        step("demo", str(fresh / "bin/kernelrepl"), "demo", "--figures", figures, HOME=scratch, PYTHONPATH="")
    # Most of the time tests wait for a kernel to start, to end or to be refused something.
    workers = str(2 * (os.cpu_count() or 1))
    step("tests", python, "-m", "pytest", "-n", workers, "--durations", "15")


if __name__ == "__main__":
    main()
