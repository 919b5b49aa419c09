"""Where the executions and commits of a session go: into the store, or nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Protocol

from kernelrepl.errors import StorageFailed
from kernelrepl.kernel import Kernel
from kernelrepl.model import Commit, Limits, Manifest, Portion, Status, StoredComponent, Write
from kernelrepl.outputs import beside
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.results import outcome_status
from kernelrepl.store import Store


class Recorder(Protocol):
    """Where a session's executions and commits go. The store, or nowhere for a session that leaves nothing."""

    async def manifest(self) -> Manifest: ...
    async def record_start(self, execution: Execution) -> int | None: ...
    async def publish(self, execution: Execution | None, commit: Commit) -> int: ...
    async def finish(self, execution: Execution, status: Status) -> None: ...
    async def stage(self, component: int, data: bytes) -> None: ...
    async def discard_staged(self) -> None: ...
    async def missing(self, parts: Sequence[StoredComponent]) -> set[int]: ...
    def pour(self, parts: Sequence[StoredComponent], write: Write, capacity: int) -> AsyncIterator[Portion]: ...
    async def block(self, key: int, reason: str) -> None: ...
    async def clear(self) -> None: ...
    async def note_versions(self, kernel: Kernel) -> None: ...


class StoreRecorder:
    """A session in the store."""

    def __init__(self, key: int, store: Store, limits: Limits) -> None:
        self._key = key
        self._store = store
        self._limits = limits

    async def manifest(self) -> Manifest:
        return await self._store.manifest(self._key)

    async def record_start(self, execution: Execution) -> int | None:
        return await self._store.start_execution(self._key, execution.request_id, execution.origin, execution.code)

    async def publish(self, execution: Execution | None, commit: Commit) -> int:
        """Returns about how many bytes were written."""
        if execution is not None and commit.outcome is not None:
            status = outcome_status(commit, execution.stopped_by)
            commit = replace(commit, outcome={**commit.outcome, "status": status})
        row = None if execution is None else execution.row
        restored = None if execution is None else execution.restored
        try:
            return await self._store.publish(self._key, row, commit, self._limits, restored)
        except StorageFailed:
            if row is not None and commit.outcome is not None:
                # It ran to its end all the same: the next keeper must not take it for one that crashed.
                await self._store.finish_execution(row, commit.outcome["status"], commit.outputs, restored)
            raise

    async def finish(self, execution: Execution, status: Status) -> None:
        if execution.row is not None:
            outputs = await beside.large(execution.live.chars, execution.live.dump)
            await self._store.finish_execution(execution.row, status, outputs, execution.restored)

    async def stage(self, component: int, data: bytes) -> None:
        await self._store.stage(self._key, component, data, self._limits)

    async def discard_staged(self) -> None:
        await self._store.discard_staged(self._key)

    async def missing(self, parts: Sequence[StoredComponent]) -> set[int]:
        return await self._store.missing(parts)

    def pour(self, parts: Sequence[StoredComponent], write: Write, capacity: int) -> AsyncIterator[Portion]:
        return self._store.pour(parts, write, capacity)

    async def block(self, key: int, reason: str) -> None:
        await self._store.block_component(self._key, key, reason)

    async def clear(self) -> None:
        await self._store.clear_session(self._key)

    async def note_versions(self, kernel: Kernel) -> None:
        await self._store.note_versions(self._key, kernel.python, kernel.packages)


class NullRecorder:
    """For a session that leaves nothing."""

    async def manifest(self) -> Manifest:
        return Manifest()

    async def record_start(self, execution: Execution) -> int | None:
        return None

    async def publish(self, execution: Execution | None, commit: Commit) -> int:
        return 0

    async def finish(self, execution: Execution, status: Status) -> None:
        return None

    async def stage(self, component: int, data: bytes) -> None:
        return None

    async def discard_staged(self) -> None:
        return None

    async def missing(self, parts: Sequence[StoredComponent]) -> set[int]:
        return set()

    async def pour(self, parts: Sequence[StoredComponent], write: Write, capacity: int) -> AsyncIterator[Portion]:
        for nothing in range(0):
            yield nothing, True

    async def block(self, key: int, reason: str) -> None:
        return None

    async def clear(self) -> None:
        return None

    async def note_versions(self, kernel: Kernel) -> None:
        return None
