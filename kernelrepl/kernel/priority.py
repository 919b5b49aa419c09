"""Let the keeper, and whoever waits for it, go before what sessions compute.

A kernel makes itself nicer before it runs anything (`guest/start.py`), and its children inherit that. But where Linux
groups processes by their session (`setsid`), it weighs the groups, and niceness counts within a group only. So each
group of a kernel's processes is made nicer as well.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from kernelrepl.guest.wire import NICENESS

_GROUPED = Path("/proc/self/autogroup").exists()


class Background:
    """The processes of one kernel, which stand behind those of the host."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        """Groups that have been made nicer, by the process that began them."""

    def look(self, pids: Iterable[int]) -> None:
        """Make the groups of these processes nicer, as far as they are not. What fails is tried again next time."""
        found = set()
        for pid in pids if _GROUPED else ():
            # One that ends meanwhile, or is closed to us; and without rights a group can be changed ten times a second.
            with contextlib.suppress(OSError):
                group = os.getsid(pid)
                if group not in self._known:
                    Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))
                found.add(group)
        self._known = found
