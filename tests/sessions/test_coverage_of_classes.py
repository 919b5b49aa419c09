"""Of each class in the table, what was made and what was changed is there after kill -9, or the reply said why not."""

from __future__ import annotations

import ast
import importlib.util
import os
import re

import pytest

from tests.conftest import Sessions
from tests.support.coverage_cases import SCIENTIFIC, STANDARD, Case, cases

pytestmark = pytest.mark.anyio


NEEDS = {
    "numpy": "numpy",
    "pandas": "pandas",
    "matplotlib": "matplotlib",
    "scikit-learn": "sklearn",
    "pyarrow": "pyarrow",
}
SEEN = """
def _see():
    seen = {{}}
    for name, code in {codes!r}.items():
        try:
            seen[name] = repr(eval(code))
        except Exception as error:
            seen[name] = f'{{type(error).__name__}}: {{error}}'
    return seen
print(_see())
del _see
"""


def named(code: str, name: str) -> str:
    """The code of a case, for its name."""
    return re.sub(r"\bV\b", name, code)


async def look(sessions: Sessions, table: dict[str, Case]) -> dict[str, str]:
    """What is to be seen of each."""
    codes = {name: named(case.see, name) for name, case in table.items()}
    execution = await sessions.run(SEEN.format(codes=codes))
    assert execution.status == "ok", execution.output.error
    found: dict[str, str] = ast.literal_eval(execution.output.stdout)
    return found


async def round_trip(sessions: Sessions, table: dict[str, Case], step: str) -> list[str]:
    """Run one step of each in a cell of its own, kill, and look; returns what is wrong."""
    wrong = []
    for name, case in table.items():
        execution = await sessions.run(named(getattr(case, step), name))
        if execution.status != "ok":
            wrong.append(f"{case.kind}: to {step} it failed: {execution.output.error}")
        reasons = [entry.reason for entry in execution.not_saved if entry.name == name]
        if step == "make" and bool(reasons) != bool(case.not_saved):
            wrong.append(f"{case.kind}: not saved: {reasons}, expected {case.not_saved!r}")
        if reasons and not any(case.not_saved in reason for reason in reasons):
            wrong.append(f"{case.kind}: the reason is {reasons}")
    kept = {name: case for name, case in table.items() if not case.not_saved}
    before = await look(sessions, kept)
    await sessions.kill()
    after = await look(sessions, kept)
    wrong += [
        f"{kept[name].kind}: after {step} {before[name]}, restored {after[name]}"
        for name in kept
        if before[name] != after[name]
    ]
    for name in table.keys() - kept.keys():
        execution = await sessions.run(name)
        error = execution.output.error
        if error is None or "not saved" not in error.message:
            wrong.append(f"{table[name].kind}: using it after the kill says {error}")
        await sessions.run(named(table[name].make, name))
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("group", [*STANDARD, *SCIENTIFIC])
async def test_each_class_comes_back_or_is_reported(sessions: Sessions, group: str) -> None:
    """Made and killed, changed and killed."""
    library = NEEDS.get(group)
    if library is not None and importlib.util.find_spec(library) is None and not os.environ.get("CI"):
        pytest.skip(f"{library} is not installed")
    table = {f"v{i}": case for i, case in enumerate(cases((STANDARD | SCIENTIFIC)[group]))}
    wrong = [*await round_trip(sessions, table, "make"), *await round_trip(sessions, table, "change")]
    assert not wrong, "\n" + "\n".join(wrong)


def test_there_are_at_least_150_classes() -> None:
    """Counted, not claimed."""
    assert sum(len(cases(text)) for text in (STANDARD | SCIENTIFIC).values()) >= 150
