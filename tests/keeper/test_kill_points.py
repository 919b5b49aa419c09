"""Kill -9 at every step between a cell and its reply: nothing acknowledged is lost, nothing runs twice."""

from __future__ import annotations

import os
import random
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from tests.faults.points import GUEST_POINTS, KEEPER_POINTS, LATE_POINT
from tests.faults.trial import Keepers, Trial, keepers, shared

pytestmark = pytest.mark.anyio

KILLS = int(os.environ.get("KERNELREPL_TEST_KILLS", "50"))
SEED = int(os.environ.get("KERNELREPL_TEST_SEED", secrets.randbelow(1 << 32)))
"""Given in the environment, a run is repeated with the same faults in the same order."""
POINTS = GUEST_POINTS + KEEPER_POINTS


def plan(seed: int, kills: int) -> list[tuple[str, int]]:
    """Faults in random order, each point equally often; each at its first, second or third pass."""
    chance = random.Random(seed)
    points = [POINTS[number % len(POINTS)] for number in range(kills)]
    chance.shuffle(points)
    return [(point, chance.randint(1, 3)) for point in points]


@pytest.fixture
async def faulty(environ: dict[str, str], data_dir: Path, tmp_path: Path) -> AsyncIterator[Keepers]:
    """Keepers that can be ended at a point."""
    async with keepers(environ, data_dir, shared(tmp_path) / "fault") as found:
        yield found


def front(faulty: Keepers) -> Client:
    """A client of the command that hosts start."""
    command = str(Path(sys.executable).with_name("kernelrepl"))
    return Client(StdioServerParameters(command=command, args=[], env=faulty.environ))


@pytest.mark.slow
async def test_50_kills_lose_nothing_and_double_nothing(faulty: Keepers, tmp_path: Path) -> None:
    """After each kill the same client goes on, and the session is exactly what its replies said."""
    await faulty.start_faulty()
    async with front(faulty) as client:
        trial = Trial(client, faulty, shared(tmp_path), f"KERNELREPL_TEST_SEED={SEED}")
        await trial.begin()
        for point, nth in plan(SEED, KILLS):
            await trial.survive(point, nth)


async def test_a_reply_before_the_commit_would_be_found_out(faulty: Keepers, tmp_path: Path) -> None:
    """The trial has teeth: with a guest that replies first and commits later, a kill in between fails it."""
    await faulty.start_faulty(late=True)
    async with front(faulty) as client:
        trial = Trial(client, faulty, shared(tmp_path), "late commit")
        await trial.begin()
        for _ in range(3):
            await trial.cell()
        await trial.compare()
        with pytest.raises(AssertionError, match="acknowledged and lost"):
            await trial.survive(LATE_POINT, 2)
