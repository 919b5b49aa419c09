"""Bytes of a kernel that would cost the keeper, and with it all other sessions, far more than they are."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.arena import Arena
from tests.attacks.attempt import THROUGH, Attempt, Scenario
from tests.support.hostile_frames import PAYLOADS

MOST_BYTES = 64 << 20
"""How much the keeper may grow, however short, for what one session sends."""
WITHIN = "within its budget"


def _peak(*, reset: bool = False) -> int:
    """The most resident memory of this process, which is the keeper here, in bytes since it was reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def costs_little(code: str) -> Scenario:
    """Send something; the keeper does not grow by much, another session goes on, and so does this one."""

    async def scenario(arena: Arena) -> str:
        await arena.sessions.run("kept = 7", "other")
        await arena.sessions.run("kept = 8")
        before = _peak(reset=True)
        await arena.sessions.run(code, timeout_s=20.0)
        grown = _peak() - before
        values = await arena.sessions.value("kept", "other"), await arena.sessions.value("kept")
        if values != ("7", "8"):
            return f"{THROUGH}: {values}"
        return WITHIN if grown <= MOST_BYTES else f"{THROUGH}: the keeper grew by {grown >> 20} MB"

    return scenario


_SENT = (
    "segments of 2**45 bytes",
    "many segments of 2**45 bytes",
    "a run of 2**45 chunks",
    "components of staged pieces with any number",
    "160,000 runs of one chunk",
    "a header of 1,900,000 objects",
    "a header of 15,000,000 numbers",
    "62,000 times loaded",
    "outputs of 1,500,000 lists in UTF-16 in a commit",
    "1,500,000 lists in UTF-16 in a display",
    "60 messages of 60 MB",
    "2,000 names of 9,000 characters",
)
GROUPS = {"budgets": tuple(Attempt(name, costs_little(PAYLOADS[name]), WITHIN) for name in _SENT)}
