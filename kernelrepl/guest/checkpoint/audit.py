"""Look at everything once more while the kernel is at rest: what code changed without naming it is stored as well.

Detection knows what code could have changed; threads, tasks, widgets and objects that hold others out of sight go
their own ways. An audit looks at one root after the other and gives way to whatever arrives in between. Runs in the
kernel, main thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from kernelrepl.guest.checkpoint.snapshot import Snapshot

QUIET_S = 0.25
"""How long nothing has run before an audit begins."""
_STEP_S = 0.005
_REST = 10.0
"""While threads and tasks of the session run, audits are repeated, and take at most this part of the time."""


class Audited(Protocol):
    """What audits need of the kernel's saving."""

    snapshot: Snapshot
    in_cell: bool
    store_is_behind: bool
    """The last commit failed: there are changes that the store has not."""

    def stirs(self) -> bool: ...

    def commit_audit(self, roots: set[int], *, missed: bool) -> None: ...


class Audits:
    """The audits of one kernel."""

    def __init__(self, saving: Audited, done: Callable[[], None]) -> None:
        """done: called when everything has been looked at."""
        self._saving = saving
        self._done = done
        self._left: set[int] = set()
        self._found: set[int] = set()
        self._due = False
        self._excused = False
        self._spent_s = 0.0
        self._timer: asyncio.Handle | None = None

    def after(self, suspects: set[int] | None, *, harmless: bool) -> None:
        """Code ran and `suspects` have been looked at, or all of them. Harmless code can have changed nothing else."""
        stirs = self._saving.stirs()
        self._left |= self._found  # an audit was broken off
        if suspects is None:
            self._left.clear()
        elif not harmless:
            self._left = self._saving.snapshot.roots() - suspects
        self._begin(excused=stirs, due=stirs or bool(self._left) or self._saving.store_is_behind, delay=QUIET_S)

    def disturb(self) -> None:
        """Something other than a cell ran code: look at all of it."""
        self._left = self._saving.snapshot.roots()
        self._begin(excused=True, due=True, delay=QUIET_S)

    def cancel(self) -> None:
        """A cell begins."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def finish(self) -> None:
        """All of it, at once: the kernel is about to be stopped."""
        self.cancel()
        if self._saving.stirs():
            self._left, self._excused, self._due = self._saving.snapshot.roots(), True, True
        while self._due and not self._glance(float("inf")):
            pass
        self._conclude()

    def _begin(self, *, excused: bool, due: bool, delay: float) -> None:
        self._excused = self._excused or excused
        self._due = self._due or due
        self._found.clear()
        self._spent_s = 0.0
        self.cancel()
        if self._due:
            self._timer = asyncio.get_running_loop().call_later(delay, self._step)

    def _step(self) -> None:
        self._timer = None
        if self._saving.in_cell:
            return
        began = time.perf_counter()
        ended = self._glance(_STEP_S)
        self._spent_s += time.perf_counter() - began
        if not ended:
            # What has arrived meanwhile is next; a cell cancels this.
            self._timer = asyncio.get_running_loop().call_later(0, self._step)
            return
        spent = self._spent_s
        self._conclude()
        if self._saving.stirs():
            self._left = self._saving.snapshot.roots()
            self._begin(excused=True, due=True, delay=max(QUIET_S, spent * _REST))

    def _glance(self, most_s: float) -> bool:
        """Look at some more; whether that was all."""
        end = time.perf_counter() + most_s
        snapshot = self._saving.snapshot
        while self._left:
            root = self._left.pop()
            if snapshot.differs(root):
                self._found.add(root)
            if time.perf_counter() > end:
                break
        return not self._left

    def _conclude(self) -> None:
        if self._due:
            self._saving.commit_audit(set(self._found), missed=not self._excused)
        self._found.clear()
        self._due = self._excused = False
        self._done()
