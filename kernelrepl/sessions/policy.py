"""Which kernels are stopped, which sessions are marked inactive, and which are deleted. Pure.

Deleting cannot be undone, and a clock can jump: a session goes only if it was found inactive by an earlier
look, and the process that looks has itself seen it lie there for a day since, by a clock that cannot be set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

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


@dataclass(frozen=True)
class Resting:
    """A session whose kernel runs nothing."""

    session: Any
    idle_since: float
    """In seconds, by a clock that cannot be set."""
    would_lose: bool
    """It has names that could not be saved: its kernel is all that keeps them."""


def next_to_go(resting: Iterable[Resting]) -> Any:
    """The session whose kernel is stopped if one has to be; None if there is none."""
    found = min(resting, key=lambda one: (one.would_lose, one.idle_since), default=None)
    return None if found is None else found.session


def idle(resting: Iterable[Resting], now: float, timeout_s: float) -> tuple[list[Any], float | None]:
    """The sessions whose kernels have idled long enough, and the seconds until the next one will have.

    Idleness alone is no reason to lose anything.
    """
    left = [(one.idle_since + timeout_s - now, one.session) for one in resting if not one.would_lose]
    over = [session for seconds, session in left if seconds <= 0]
    return over, min((seconds for seconds, _ in left if seconds > 0), default=None)
