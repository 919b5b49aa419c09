"""What another program ran comes into a session: once, with its times, and within bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernelrepl.errors import InvalidArgument
from kernelrepl.sessions import importing
from kernelrepl.sessions.importing import PastExecution
from kernelrepl.sessions.manager import Origin
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

FIRST = PastExecution(0, "elsewhere", "x = 1\nprint(x)", "1\n", "", "2024-01-02 03:04:05", 0.5)
SECOND = PastExecution(
    1, "elsewhere", "1 / 0", "", "ZeroDivisionError: by zero\nline 1", "2024-01-02T04:05:00+01:00", 0
)
WHO = Origin("test")


async def test_the_same_rows_twice_are_there_once(sessions: Sessions) -> None:
    """In front of what runs here, with what they showed; and nothing of them looks damaged."""
    for rows in ([FIRST], [FIRST, SECOND], [SECOND]):
        await importing.add_history(sessions.manager, "s", WHO, "source", rows)
    assert await importing.state(sessions.manager, "s", "source") == "begun"
    assert await sessions.value("6 * 7") == "42"
    rows_there = await sessions.manager.history("s", 0, 1 << 20)
    assert [row.code for row in rows_there] == [FIRST.code, SECOND.code, "6 * 7"]
    assert [row.started_at for row in rows_there[:2]] == ["2024-01-02T03:04:05.000Z", "2024-01-02T03:05:00.000Z"]
    assert [(row.status, row.execution_count, row.origin) for row in rows_there[:2]] == [
        ("ok", 0, "elsewhere"),
        ("error", 0, "elsewhere"),
    ]
    assert "by zero" in rows_there[1].outputs
    assert not any(row.damaged for row in rows_there)
    assert await sessions.store.damaged() == []
    [view] = await sessions.manager.list_sessions()
    assert (view.info.total_executions, view.info.miscounted) == (3, False)


async def test_code_that_loads_values_runs_once(sessions: Sessions) -> None:
    """Then the import is whole; until then it has begun, and for another source the session is another one."""
    manager = sessions.manager
    assert await importing.state(manager, "s", "source") == "none"
    await importing.add_history(manager, "s", WHO, "source", [])
    assert await importing.state(manager, "s", "source") == "begun"
    code, name = "runs = globals().get('runs', 0) + 1", importing.name_of("source", importing.ALL)
    for _ in range(2):
        handle = await importing.run_part(manager, "s", WHO, name, code, 60)
        assert handle.result().status == "ok"
    assert await sessions.value("runs") == "1"
    assert await importing.state(manager, "s", "source") == "whole"
    assert await importing.state(manager, "s", "other source") == "other"


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([FIRST] * (importing.MAX_ROWS + 1), "may have 1000"),
        ([FIRST, replace(FIRST, code="a\0b")], "NUL"),
        ([replace(FIRST, seconds=float("nan"))], "must not be negative"),
        ([replace(FIRST, number=-1)], "must not be negative"),
    ],
    ids=["many", "code", "time", "number"],
)
async def test_what_is_out_of_bounds_is_refused(sessions: Sessions, rows: list[PastExecution], why: str) -> None:
    """And makes no session."""
    with pytest.raises(InvalidArgument, match=why):
        await importing.add_history(sessions.manager, "s", WHO, "source", rows)
    assert await importing.state(sessions.manager, "s", "source") == "none"
