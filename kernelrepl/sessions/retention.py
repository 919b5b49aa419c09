"""Look from time to time which sessions nobody uses any more: mark them inactive, delete them in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from kernelrepl.errors import StorageFailed
from kernelrepl.model import SessionInfo
from kernelrepl.sessions.manager import Manager
from kernelrepl.sessions.policy import Retention, Standing, judge
from kernelrepl.sessions.services import Emit
from kernelrepl.store import Store

EVERY_S = 3600.0


class Expiry:
    """Applies the retention of a keeper to its sessions.

    clock: the date. uptime: seconds of this process, by a clock that only goes forward.
    """

    def __init__(
        self,
        manager: Manager,
        store: Store,
        retention: Retention,
        emit: Emit,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        uptime: Callable[[], float] | None = None,
    ) -> None:
        self._manager = manager
        self._store = store
        self._retention = retention
        self._emit = emit
        self._clock = clock
        self._uptime = uptime or asyncio.get_running_loop().time
        self._seen: dict[int, tuple[str, float]] = {}
        """Of each inactive session when it was used last, and since when it has been known as inactive here."""

    async def run(self, every_s: float = EVERY_S) -> None:
        """Look now and every hour."""
        while True:
            try:
                await self.look()
            except StorageFailed as error:
                self._emit("expiry_failed", reason=str(error))
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Mark and delete what is due. What is in use at this moment is left alone."""
        now = self._clock()
        days = self._retention.inactive_days
        since = None if days is None else now - timedelta(days=days)
        infos = {info.key: info for info in await self._manager.unused_sessions(since)}
        uptime = self._uptime()
        self._seen = {key: self._known_since(info, uptime) for key, info in infos.items() if info.state == "inactive"}
        standings = [self._standing(info, uptime) for info in infos.values()]
        verdict = judge(standings, now, self._retention)
        if verdict.mark:
            await self._store.mark_inactive({key: infos[key].last_used_at for key in verdict.mark})
            self._emit("marked_inactive", sessions=[infos[key].session_id for key in verdict.mark])
        for key in verdict.delete:
            await self._manager.expire(infos[key].session_id, infos[key].last_used_at)

    def _known_since(self, info: SessionInfo, uptime: float) -> tuple[str, float]:
        used, since = self._seen.get(info.key, ("", uptime))
        return (used, since) if used == info.last_used_at else (info.last_used_at, uptime)

    def _standing(self, info: SessionInfo, uptime: float) -> Standing:
        inactive = info.state == "inactive"
        witnessed = uptime - self._seen[info.key][1] if inactive else 0.0
        return Standing(info.key, datetime.fromisoformat(info.last_used_at), inactive, witnessed)
