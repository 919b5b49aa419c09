"""The fault that is armed now: one small file, written by a test, read by the process that is to die."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

FAULT = "KERNELREPL_TEST_FAULT"
"""Environment variable with the path of that file."""
LATE = "KERNELREPL_TEST_LATE"
"""Environment variable, set in a guest that replies before it commits."""

GUEST_POINTS = ("before_send", "mid_frame", "staged", "before_reply", "mid_restore")
KEEPER_POINTS = ("before_publish", "after_publish")
LATE_POINT = "late_commit"


_here = os.environ.get(FAULT)
"""Read before a kernel confines itself, which takes its environment away."""


def arm(file: Path, point: str, nth: int) -> None:
    """From now on, the process that passes `point` for the nth time ends there. It may be another user."""
    file.write_text(f"{point}:{nth}")
    with contextlib.suppress(PermissionError):
        file.chmod(0o666)


def due(point: str) -> bool:
    """Count a pass of a point; whether this is where the process has to end. What is due is disarmed."""
    assert _here is not None
    file = Path(_here)
    try:
        armed, left = file.read_text().split(":")
    except FileNotFoundError:
        return False
    if armed != point:
        return False
    if left == "1":
        file.unlink()
        return True
    arm(file, point, int(left) - 1)
    return False


def die() -> None:
    """kill -9 of this process, by itself."""
    os.kill(os.getpid(), signal.SIGKILL)


def reach(point: str) -> None:
    """Pass a point, or end there."""
    if due(point):
        die()
