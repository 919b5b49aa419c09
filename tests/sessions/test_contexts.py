"""Cells run in one context: what one sets in it, the next one finds."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

SETUP = """
import asyncio, contextvars, decimal
v = contextvars.ContextVar('v', default=0)
async def give(x):
    await asyncio.sleep(0)
    return x
"""


@pytest.mark.parametrize(
    ("cells", "expression", "expected"),
    [
        (["v.set(await give(5))"], "v.get()", "5"),
        (["v.set(5)"], "await give(v.get())", "5"),
        (["token = v.set(await give(5))", "v.reset(token)"], "v.get()", "0"),
        (["token = v.set(5)", "await give(1); v.reset(token)"], "await give(v.get())", "0"),
        (["await give(1); v.set(2)", "v.set(v.get() + await give(1))"], "v.get()", "3"),
        (["decimal.setcontext(decimal.Context(prec=await give(3)))"], "decimal.Decimal(1) / 3", "Decimal('0.333')"),
        (["v.set(await give(5)); 1 / 0"], "v.get()", "5"),
        (["async def own(): v.set(7)\nawait asyncio.create_task(own())"], "v.get()", "0"),
        (["v.set(1)\nfor i in range(3): v.set(await give(v.get() + 1))"], "v.get()", "4"),
    ],
)
async def test_what_a_cell_sets_in_the_context_the_next_one_has(
    sessions: Sessions, cells: list[str], expression: str, expected: str
) -> None:
    """Whether either of them awaits; a task of the session has a context of its own, as anywhere."""
    await sessions.run(SETUP)
    for cell in cells:
        await sessions.run(cell)
    assert await sessions.value(expression) == expected


async def test_a_cell_that_awaits_is_interrupted_where_it_waits(sessions: Sessions) -> None:
    """And the next one goes on in the same context."""
    await sessions.run(SETUP)
    session, job = await sessions.submit("v.set(6); print('here'); await asyncio.sleep(60)")
    async with asyncio.timeout(30):
        while "here" not in job.live.output().stdout:
            await asyncio.sleep(0.01)
    await session.interrupt(job)
    execution = await asyncio.wait_for(asyncio.shield(job.result), 30)
    assert execution.status == "interrupted"
    assert await sessions.value("v.get()") == "6"
