"""Kill -9 at every step between a cell and its reply: nothing acknowledged is lost, nothing runs twice.

The gate kills once for each point and pass; with `KERNELREPL_TEST_KILLS=84` in the environment it is four times each.
"""

from __future__ import annotations

import itertools
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

FAULTS = [(point, nth) for point in GUEST_POINTS + KEEPER_POINTS for nth in (1, 2, 3)]
"""Each point, when it is passed for the first, second and third time."""
KILLS = int(os.environ.get("KERNELREPL_TEST_KILLS", len(FAULTS)))
SEED = int(os.environ.get("KERNELREPL_TEST_SEED", secrets.randbelow(1 << 32)))
"""Given in the environment, a run is repeated with the same faults in the same order."""


def plan(seed: int, kills: int) -> list[tuple[str, int]]:
    """So many faults in random order, each equally often."""
    faults = list(itertools.islice(itertools.cycle(FAULTS), kills))
    random.Random(seed).shuffle(faults)
    return faults


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
async def test_kills_at_every_point_lose_nothing_and_double_nothing(faulty: Keepers, tmp_path: Path) -> None:
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
