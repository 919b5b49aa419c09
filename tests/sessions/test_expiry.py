"""Sessions that nobody uses become inactive, then go; a clock that jumps erases nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kernelrepl.sessions.manager import Origin
from kernelrepl.sessions.policy import WITNESS_S, Retention, Standing, Verdict, judge
from kernelrepl.sessions.retention import Expiry
from tests.conftest import Sessions
from tests.support.mcp_hosts import Place, call, host, kill_9, run, until

pytestmark = pytest.mark.anyio


NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY_S = 24 * 3600.0


def standing(days: float, *, inactive: bool, witnessed_s: float = 0.0) -> Standing:
    return Standing(1, NOW - timedelta(days=days), inactive, witnessed_s)


@pytest.mark.parametrize(
    ("session", "verdict"),
    [
        (standing(6.99, inactive=False), Verdict()),
        (standing(7, inactive=False), Verdict(mark=(1,))),
        (standing(29, inactive=True, witnessed_s=9 * DAY_S), Verdict()),
        (standing(30, inactive=True, witnessed_s=WITNESS_S), Verdict(delete=(1,))),
        (standing(30, inactive=True, witnessed_s=WITNESS_S - 1), Verdict()),
        (standing(4000, inactive=False, witnessed_s=9 * DAY_S), Verdict(mark=(1,))),
        (standing(-50, inactive=False), Verdict()),
    ],
    ids=["fresh", "a week", "29 days", "30 days", "not long enough in sight", "a clock that jumped", "used tomorrow"],
)
def test_a_session_goes_step_by_step(session: Standing, verdict: Verdict) -> None:
    """Inactive after a week; deleted after a month, when it has been seen lying there for a day."""
    assert judge([session], NOW, Retention()) == verdict


@pytest.mark.parametrize("retention", [Retention(None, None), Retention(7, None)])
def test_what_is_unlimited_never_comes(retention: Retention) -> None:
    """Nothing is deleted where the person said so."""
    assert not judge([standing(9999, inactive=True, witnessed_s=99 * DAY_S)], NOW, retention).delete


class Clocks:
    """A date that can be set, and an uptime that cannot."""

    def __init__(self) -> None:
        self.date = datetime.now(UTC) + timedelta(hours=1)
        self.uptime_s = 0.0

    def live(self, days: float) -> None:
        self.date += timedelta(days=days)
        self.uptime_s += days * DAY_S

    def expiry(self, sessions: Sessions, retention: Retention = Retention()) -> Expiry:  # noqa: B008 - frozen
        """What a keeper that starts now looks with."""
        start = self.uptime_s
        return Expiry(
            sessions.manager, sessions.store, retention, lambda event, **data: None,
            clock=lambda: self.date, uptime=lambda: self.uptime_s - start,
        )  # fmt: skip


async def states(sessions: Sessions) -> dict[str, str]:
    return {view.info.session_id: view.info.state for view in await sessions.manager.list_sessions()}


async def test_a_session_is_inactive_after_a_week_and_gone_after_a_month(sessions: Sessions) -> None:
    """Looked at every day, with rows, chunks and files gone in the end; the next one with its id is told."""
    clocks = Clocks()
    await sessions.run("x = bytes(range(256)) * 2000; open('file', 'w').write('x'); y = 1", "old")
    workspace = await sessions.manager.workspace((await sessions.manager.list_sessions())[0].info.session_id)
    expiry = clocks.expiry(sessions)
    seen = []
    for _ in range(32):
        await expiry.look()
        seen.append((await states(sessions)).get("old", "gone"))
        clocks.live(days=1)
    assert seen == ["active"] * 7 + ["inactive"] * 23 + ["gone"] * 2
    assert await sessions.rows("SELECT COUNT(*) FROM chunks") == [(0,)]
    assert not workspace.exists()
    execution = await sessions.run("'y' in globals()", "old")
    assert execution.output.result == "False"
    assert execution.note is not None
    assert "an older session 'old' had not been used for a long time and was deleted at" in execution.note
    assert (await sessions.run("1", "old")).note is None


async def test_using_an_inactive_session_makes_it_active(sessions: Sessions) -> None:
    """And its month begins anew."""
    clocks = Clocks()
    await sessions.run("x = 1")
    expiry = clocks.expiry(sessions)
    clocks.live(days=8)
    await expiry.look()
    assert await states(sessions) == {"s": "inactive"}
    assert await sessions.value("x") == "1"
    assert await states(sessions) == {"s": "active"}


async def test_a_clock_that_jumps_ahead_erases_nothing(sessions: Sessions) -> None:
    """Nor does a laptop that was closed for months: the keeper has to see the session lie there for a day."""
    clocks = Clocks()
    await sessions.run("x = 1")
    clocks.date += timedelta(days=400)
    expiry = clocks.expiry(sessions)
    for _ in range(3):
        await expiry.look()
    assert await states(sessions) == {"s": "inactive"}
    clocks.live(days=0.9)
    await expiry.look()
    assert await states(sessions) == {"s": "inactive"}
    restarted = clocks.expiry(sessions)
    await restarted.look()
    clocks.live(days=0.9)
    await restarted.look()
    assert await sessions.value("x") == "1"


async def test_a_busy_session_is_in_use(sessions: Sessions) -> None:
    """However long its cell has been running."""
    clocks = Clocks()
    await sessions.run("x = 1")
    expiry = clocks.expiry(sessions)
    clocks.live(days=8)
    await expiry.look()
    clocks.live(days=30)
    [view] = await sessions.manager.list_sessions()
    go = await sessions.manager.workspace(view.info.session_id) / "go"
    _, job = await sessions.submit(
        "import os\nopen('began', 'w').close()\nwhile not os.path.exists('go'): pass\nx += 1"
    )
    await until(lambda: (go.parent / "began").exists())
    await expiry.look()
    assert not await sessions.manager.expire("s", view.info.last_used_at)
    go.touch()
    assert (await job.result).committed
    assert await sessions.value("x") == "2"


async def test_a_session_that_was_used_after_the_look_is_not_deleted(sessions: Sessions) -> None:
    """Between the verdict and its execution somebody may come."""
    await sessions.run("x = 1")
    [view] = await sessions.manager.list_sessions()
    await sessions.run("x = 2")
    assert not await sessions.manager.expire("s", view.info.last_used_at)
    assert await sessions.value("x") == "2"


async def test_it_looks_at_once_and_again_and_again(sessions: Sessions) -> None:
    """For as long as the keeper lives, whatever becomes of the sessions meanwhile."""
    clocks = Clocks()
    await sessions.run("x = 1", "first")
    running = asyncio.create_task(clocks.expiry(sessions).run(every_s=0.001))
    try:
        for name, others in (("first", {}), ("second", {"first": "inactive"})):
            await sessions.run("x = 1", name)
            clocks.live(days=8)
            wanted = {**others, name: "inactive"}

            async def reached(wanted: dict[str, str] = wanted) -> bool:
                return await states(sessions) == wanted

            await until(reached)
            clocks.date = datetime.now(UTC)
    finally:
        running.cancel()


async def test_a_keeper_looks_at_its_start(environ: dict[str, str]) -> None:
    """A session that was left alone while no keeper ran is inactive when the next one answers."""
    place = Place(environ)
    async with host(environ) as client:
        await run(client, "x = 1", "old")
        await run(client, "x = 1", "new")
    kill_9(place.keeper)
    with closing(sqlite3.connect(place.data_dir / "python_sessions.db")) as database:
        database.execute("UPDATE sessions SET last_used_at = '2024-01-10T10:30:00.000Z' WHERE session_id = 'old'")
        database.commit()
    async with host(environ) as client:

        async def found() -> bool:
            listed = (await call(client, "python_list_sessions"))["sessions"]
            return {e["session_id"]: e["state"] for e in listed} == {"new": "active", "old": "inactive"}

        await until(found)
        assert (await run(client, "x", "old"))["result"] == "1"
        assert {e["state"] for e in (await call(client, "python_list_sessions"))["sessions"]} == {"active"}


SECRET = "correct horse battery staple"


def holders(directory: Path, secret: bytes) -> list[str]:
    """The files below a directory, names included, in which these bytes are."""
    found = []
    for path in directory.rglob("*"):
        if secret in str(path).encode() or (path.is_file() and secret in path.read_bytes()):
            found.append(str(path.relative_to(directory)))
    return found


@pytest.mark.parametrize("size", [1, 100, 60_000], ids=["in a row", "in a row with outputs", "in chunks"])
async def test_delete_leaves_no_byte_in_any_file(sessions: Sessions, data_dir: Path, size: int) -> None:
    """Values, code, outputs, file names and files; another session keeps all of its own."""
    await sessions.run("kept = 'another session'", "other")
    await sessions.run(
        f"secret = {SECRET!r} * {size}\nprint(secret[:100])\n"
        f"open({SECRET!r}, 'w').write(secret)\nimport os; os.environ['PASS'] = secret[:100]"
    )
    await sessions.run("secret += '!'; older = secret; del secret; older[:50]")
    assert len(holders(data_dir, SECRET.encode())) >= 2
    await sessions.manager.delete("s", Origin())
    assert holders(data_dir, SECRET.encode()) == []
    await sessions.kill("other")
    assert await sessions.value("kept", "other") == "'another session'"
