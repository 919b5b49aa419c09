"""Environments of other programs: made once, outside of the project, and kept where the caller says."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class NotInstalled(Exception):
    """Something could not be installed. The message is the last line of what the installer said."""


def key_of(*wanted: str) -> str:
    """A short name for what an environment has: others have another."""
    return hashlib.sha256(" ".join([sys.version, *wanted]).encode()).hexdigest()[:12]


def python_with(wanted: Sequence[str], place: Path) -> Path:
    """The Python of an environment at a place that has these packages; it is made if it is not complete."""
    python = place / "bin" / "python"
    _make(
        place,
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", *wanted],
    )
    return python


def npm_folder_with(wanted: Sequence[str], place: Path) -> Path:
    """A folder whose `node_modules` have these packages; it is made if it is not complete."""
    _make(place, ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), *wanted])
    return place


def _make(place: Path, *commands: Sequence[str]) -> None:
    complete = place / "complete"
    if complete.exists():
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise NotInstalled(f"could not be installed: {error}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise NotInstalled(f"could not be installed: {said[-1] if said else done.returncode}")
    complete.touch()
