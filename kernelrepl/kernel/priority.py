"""Let the keeper, and whoever waits for it, go before what sessions compute.

A kernel makes itself nicer before it runs anything (`guest/start.py`), and its children inherit that. But where Linux
groups processes by their session (`setsid`), it weighs the groups, and niceness counts within a group only. So a kernel
makes its group nicer as well, and here that is done for each group that its processes have begun since.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from kernelrepl.guest.wire import NICENESS

_GROUPED = Path("/proc/self/autogroup").exists()


_FURTHER = 2 * NICENESS
"""Of one whose flood the keeper has to read: it goes behind the other kernels as well."""
_FURTHER_S = 5.0
"""For how long at least: each change is work for the system."""


class Background:
    """The processes of one kernel, which stand behind those of the host."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        """How nice groups have been made, by the process that began them."""
        self._further_until = 0.0

    def look(self, pids: Iterable[int], *, heavy: bool = False) -> None:
        """Make the groups of these processes nicer, as far as they are not. What fails is tried again next time."""
        if heavy:
            self._further_until = time.monotonic() + _FURTHER_S
        found, niceness = {}, _FURTHER if time.monotonic() < self._further_until else NICENESS
        for pid in pids if _GROUPED else ():
            # One that ends meanwhile, or is closed to us; and without rights a group can be changed ten times a second.
            with contextlib.suppress(OSError):
                group = os.getsid(pid)
                if self._known.get(group) != niceness:
                    Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
                found[group] = niceness
        self._known = found
