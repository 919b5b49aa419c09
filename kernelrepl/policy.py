"""Which sessions have been left alone long enough to be marked inactive, and which to be deleted. Pure.

Deleting cannot be undone, and a clock can jump: a session goes only if it was found inactive by an earlier
look, and the process that looks has itself seen it lie there for a day since, by a clock that cannot be set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

WITNESS_S = 24 * 3600.0
"""How long the keeper must have seen a session inactive before it deletes it, in seconds of its own life."""


@dataclass(frozen=True)
class Retention:
    """In days without use. None: never."""

    inactive_days: float | None = 7.0
    delete_days: float | None = 30.0


@dataclass(frozen=True)
class Standing:
    """What is known of one session."""

    key: int
    last_used_at: datetime
    inactive: bool
    """It was marked by an earlier look."""
    witnessed_s: float
    """How long this keeper has known it as inactive."""


@dataclass(frozen=True)
class Verdict:
    """Keys of sessions."""

    mark: tuple[int, ...] = ()
    delete: tuple[int, ...] = ()


def judge(sessions: Iterable[Standing], now: datetime, retention: Retention) -> Verdict:
    """What to do with sessions of which none is in use."""
    mark: list[int] = []
    delete: list[int] = []
    for session in sessions:
        idle = now - session.last_used_at
        if not session.inactive:
            if _over(idle, retention.inactive_days):
                mark.append(session.key)
        elif _over(idle, retention.delete_days) and session.witnessed_s >= WITNESS_S:
            delete.append(session.key)
    return Verdict(tuple(mark), tuple(delete))


def _over(idle: timedelta, days: float | None) -> bool:
    return days is not None and idle >= timedelta(days=days)
