"""Settings made in all ways that code has to make them: each comes back after kill -9, or was told before it.

The gate takes the same sample each time; `KERNELREPL_SETTINGS=all` tries every setting in every way, the name of a
setting that one, and a number is a seed of one's own. What needs a library that is not here is left out.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import random
from collections.abc import Iterable

import pytest

from kernelrepl.sessions.manager import Origin
from tests.conftest import Sessions
from tests.support.settings_programs import SETTINGS, SHAPES, Setting, cells

pytestmark = pytest.mark.anyio


ASKED = os.environ.get("KERNELREPL_SETTINGS", "")
DEFAULT_SEED = 1
"""The gate is the same each time: what others find is mended, and then told by a test of its own."""
SAMPLE = 40
AT_ONCE = 4


def is_here(setting: Setting) -> bool:
    """Whether the library of a setting is installed."""
    top = setting.imports.split()[1].split(".")[0].rstrip(",")
    return importlib.util.find_spec(top) is not None


async def outcome(sessions: Sessions, name: str, setting: Setting, shape: str) -> str:
    """What became of one setting, in a session of its own: kept, told, or what is wrong."""
    made = cells(setting, shape)
    assert made is not None
    prepare, code = made
    look = f"{setting.imports}; from IPython import get_ipython\n{setting.look}"
    loads = shape.startswith("as it is loaded")
    execution = await sessions.run(prepare, name)
    if execution.status != "ok":
        return f"not prepared: {execution.output.error}"
    told = [entry.name for entry in execution.not_saved]  # a function that would set it may be enough for that
    fresh = None if loads else (await sessions.run(look, name)).output.result
    execution = await sessions.run(code, name)
    if execution.status != "ok":
        return f"not set: {execution.output.error}"
    told += [entry.name for entry in execution.not_saved]
    before = (await sessions.run(look, name)).output.result
    if before == fresh:
        return f"it sets nothing: {before}"
    await sessions.kill(name)
    execution = await sessions.run(look, name)
    if execution.output.result == before and execution.status == "ok":
        return "kept"
    failed = () if execution.restored is None else execution.restored.not_restored
    if told and set(told) <= {entry.name for entry in failed}:
        return "told"
    return (
        f"{fresh}, then {before}, then {execution.output.result or execution.output.error}, told {told}, lost {failed}"
    )


async def all_wrong(sessions: Sessions, cases: Iterable[tuple[str, str]]) -> list[str]:
    """Of these settings, each made in one way, those that were lost without a word."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, name: str, shape: str) -> str:
        async with room:
            found = await outcome(sessions, f"s{number}", SETTINGS[name], shape)
            await sessions.manager.delete(f"s{number}", Origin())
            return "" if found in ("kept", "told") else f"{name}, {shape}: {found}"

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number, *case)) for number, case in enumerate(cases)]
    return [wrong for task in tasks if (wrong := task.result())]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["method of pandas", "pixels of PIL", "event of IPython"])
async def test_no_way_is_one_without_a_word(sessions: Sessions, name: str) -> None:
    """What comes back, what is told, and what hangs on IPython's shell, each in every way."""
    if not is_here(SETTINGS[name]):
        pytest.skip("the library is not installed")
    assert not await all_wrong(sessions, [(name, shape) for shape in SHAPES if cells(SETTINGS[name], shape)])


@pytest.mark.slow
async def test_what_is_set_in_any_way_comes_back_or_was_told(sessions: Sessions) -> None:
    """Nothing of a setting is lost without a word, whoever sets it and by what name."""
    seed = int(ASKED) if ASKED.isdigit() else DEFAULT_SEED
    print(f"seed {seed}: KERNELREPL_SETTINGS={seed} is the same again")
    here = [name for name, setting in SETTINGS.items() if is_here(setting)]
    cases = [(name, shape) for name, shape in itertools.product(here, SHAPES) if cells(SETTINGS[name], shape)]
    if ASKED in SETTINGS:
        cases = [case for case in cases if case[0] == ASKED]
    elif ASKED != "all":
        cases = random.Random(seed).sample(cases, SAMPLE)
    wrong = await all_wrong(sessions, cases)
    assert not wrong, "\n".join(wrong)
