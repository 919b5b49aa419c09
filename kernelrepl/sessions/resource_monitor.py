"""Look after what a kernel takes of the machine, and say when it is too much.

Not at each allocation: several times a second while code runs, and between that the less often the longer nothing
changes. What is taken between two looks is not bounded by this, but by the limits that the operating system keeps for
each process.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from kernelrepl.kernel import usage
from kernelrepl.kernel.holdings import Holdings
from kernelrepl.kernel.kernel import Kernel
from kernelrepl.model import Resources, amount
from kernelrepl.workspaces import usage as workspace_usage

BUSY_S = 0.25
IDLE_S = 2.0
MOST_IDLE_S = 30.0
_CHANGE_BYTES = 1 << 20
FILES_S = 2.0
"""The least time between two counts of the files; counting never takes more than a twentieth of the time."""
IDLE_FILES_S = 60.0
"""The same while nothing runs: threads may still write."""
_SHARE = 20
_DETAIL_SHARE = 5
"""The same for what processes hold beside their pages: most of that time is the system's, not ours."""
_MUCH = 64
"""Of the limit of memory the part that the next look does not wait behind."""
FULL_FILE_BYTES = 64 << 10
"""What a file may take that a session writes when it has too many: Python itself needs some to tidy up."""
QUEUED_S = 10.0
"""So long descriptors may wait in the queue of a socket. What they hold cannot be seen there."""
ROOM_AGAIN = "there is room for files again"
_QUEUED = (
    f"open files lay in the queue of a socket for {QUEUED_S:.0f} s, where they are not counted; receive them sooner"
)

Stop = Callable[[str, bool], None]
"""Called with the reason, and whether the kernel has to go (else the code that runs)."""


class ResourceMonitor:
    """Of one session, through all its kernels."""

    def __init__(
        self, resources: Resources, workspace: Path, stop: Stop, weigh: Callable[[int], None] = lambda size: None
    ) -> None:
        """weigh: told at each look how much memory the processes take, what they share with others included."""
        self._weigh = weigh
        self._resources = resources
        self._workspace = workspace
        self._stop = stop
        self._ran = True  # since the files were counted
        self._begun = asyncio.Event()
        self._holdings: Holdings | None = None
        self.over_file_limit: str | None = None
        """What to say while there are too many files. A kernel that starts meanwhile can remove files, hardly write."""

    @property
    def memory_reached(self) -> str:
        """What is said of a kernel that took too much memory."""
        return f"memory limit {amount(self._resources.memory_bytes or 0)} reached (max_memory_bytes)"

    def begin(self) -> None:
        """Something runs from now on."""
        self._ran = True
        self._begun.set()

    async def watch(self, kernel: Kernel, busy: Callable[[], bool], *, fresh: bool = False) -> None:
        """Until it is cancelled, or the kernel has to go.

        fresh: nobody's code has run in it or in its directory. Then nothing is looked at while a first cell begins.
        """
        clock, process = asyncio.get_running_loop().time, kernel.process
        started_full = self.over_file_limit is not None
        counted, took = -IDLE_FILES_S, 0.0
        idle, before = IDLE_S, 0
        plan = process.launch.plan or {}
        holdings = self._holdings = Holdings(self._workspace, process.launch.home, plan.get("tmpfs", ()))
        # Without namespaces whoever has lost its parent is no descendant any more, and cannot leave the group either.
        group = process.first_pid if plan.get("namespaces") == [] else None
        members: list[int] = []
        if fresh:
            await self._rest(IDLE_S)
        exact_at = clock()
        look_at = exact_at if fresh else exact_at + BUSY_S  # a kernel that has run nothing holds nothing
        while True:
            self._begun.clear()
            now_busy = busy()
            pids = list(usage.descendants(process.pid))
            process.background.look(pids, heavy=kernel.budget.was_heavy(clock()))
            began = clock()
            if began >= look_at and group is not None:
                members = await asyncio.to_thread(usage.of_group, group)
            pids += set(members) - set(pids)
            if began >= look_at:
                held = holdings.memory_bytes
                await asyncio.to_thread(holdings.look, pids)
                grown = holdings.memory_bytes - held
                look_at = clock() + (0 if self._is_much(grown) else _DETAIL_SHARE * (clock() - began))
            resident = usage.resident(pids)
            self._weigh(resident)
            if self._maybe_too_much_memory(resident, holdings) and (began := clock()) >= exact_at:
                if await asyncio.to_thread(self._too_much_memory, pids, holdings):
                    self._stop(self.memory_reached, True)
                    return
                exact_at = clock() + (clock() - began)
            if holdings.queued_since is not None and time.monotonic() > holdings.queued_since + QUEUED_S:
                self._stop(_QUEUED, True)
                return
            began = clock()
            if began >= counted + max(FILES_S if self._ran else IDLE_FILES_S, _SHARE * took):
                self._ran = now_busy
                self.over_file_limit = await self._too_many_files(holdings)
                counted = clock()
                took = counted - began
                if self.over_file_limit is not None and not started_full and now_busy:
                    self._stop(self.over_file_limit, False)
            if (self.over_file_limit is not None) != started_full and not busy():
                self._stop(self.over_file_limit or ROOM_AGAIN, True)
                return
            if now_busy:
                idle = IDLE_S
                await asyncio.sleep(BUSY_S)
                continue
            idle = IDLE_S if abs(resident - before) > _CHANGE_BYTES else min(2 * idle, MOST_IDLE_S)
            before = resident
            await self._rest(idle)

    async def look_again(self) -> None:
        """Count anew where there were too many files: code that has just ended may have removed them."""
        if self.over_file_limit is not None and self._holdings is not None:
            self.over_file_limit = await self._too_many_files(self._holdings)

    async def _rest(self, seconds: float) -> None:
        """Until it is time to look, or something has run for as long as it may without being looked at."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._begun.wait()
                await asyncio.sleep(BUSY_S)

    def _is_much(self, grown: int) -> bool:
        """Whether what one look has found is so much that a few more may be over the limit: then none waits."""
        limit = self._resources.memory_bytes
        return limit is not None and grown > limit // _MUCH

    def _maybe_too_much_memory(self, resident: int, holdings: Holdings) -> bool:
        limit = self._resources.memory_bytes
        return limit is not None and resident + holdings.memory_bytes + holdings.tmpfs_bytes > limit

    def _too_much_memory(self, pids: list[int], holdings: Holdings) -> bool:
        """Whether it is, exactly. A page of a file in memory is not counted twice, as one of a process as well."""
        limit = self._resources.memory_bytes
        shares = usage.proportional(pids)
        files = max(0, holdings.tmpfs_bytes - shares.files_in_memory)
        return limit is not None and shares.total + files + holdings.memory_bytes > limit

    async def _too_many_files(self, holdings: Holdings) -> str | None:
        most_bytes, most_files = self._resources.workspace_bytes, self._resources.workspace_files
        if most_bytes is None and most_files is None:
            return None
        found = await asyncio.to_thread(workspace_usage.files, self._workspace, most_bytes, most_files)
        removed = holdings.removed_bytes()
        remedy = "delete some in the session; until there is room it writes none over 64 KB"
        if most_bytes is not None and (removed is None or found.size + removed > most_bytes):
            return f"the files of the session take more than {amount(most_bytes)} (max_workspace_bytes): {remedy}"
        if most_files is not None and found.count > most_files:
            return f"the session has more than {most_files} files (max_workspace_files): {remedy}"
        return None
