"""Sessions of another program come in: their history as rows, and their values through code that runs in them.

Each step may be repeated: what is there already stays, and code that has run does not run again. So an import that was
interrupted goes on where it stopped. `source` names what a session is made of; it is part of the names of its rows.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from kernelrepl.errors import InvalidArgument
from kernelrepl.outputs.transcript import Transcript
from kernelrepl.sessions.handle import ExecutionHandle
from kernelrepl.sessions.manager import Manager, Origin
from kernelrepl.store.clock import stamp, utc_now
from kernelrepl.store.executions import Past
from kernelrepl.validation import check_code, check_session_id

State = Literal["none", "begun", "whole", "other"]
ALL, REST = "values", "rest"
"""The parts that end an import: all values at once, or what is left to do after they came one by one."""
MAX_ROWS = 1000
"""Of one call."""


@dataclass(frozen=True)
class PastExecution:
    """One piece of code that another program ran."""

    number: int
    """Its place in the history."""
    by: str
    """Which program ran it."""
    code: str
    output: str
    error: str
    """Empty if it raised nothing; else its first line has the class and the message."""
    at: str
    """When it ran, in ISO 8601; UTC if it does not say otherwise."""
    seconds: float


def name_of(source: str, part: str) -> str:
    """The request id of a part of an import."""
    return f"{source}-{part}"


async def state(manager: Manager, session_id: str, source: str) -> State:
    """How much of a source is in a session: nothing, as there is none, a part, or all; or the session is another one.

    Raises InvalidArgument if kernels are not confined.
    """
    _refuse_unconfined(manager)
    store = manager.services.store
    found = await store.find_session(check_session_id(session_id))
    if found is None:
        return "none"
    if found[0].total_executions == 0:
        return "begun"  # it may have been made for this import, which then got no further
    rows = {part: await store.execution(name_of(source, part)) for part in (ALL, REST, "0")}
    if any(row is not None and row.status == "ok" and row.committed for row in (rows[ALL], rows[REST])):
        return "whole"
    return "other" if all(row is None for row in rows.values()) else "begun"


async def add_history(
    manager: Manager, session_id: str, origin: Origin, source: str, rows: Sequence[PastExecution]
) -> None:
    """Add executions of another program to a session, which is made if there is none. Raises InvalidArgument."""
    _refuse_unconfined(manager)
    if len(rows) > MAX_ROWS:
        raise InvalidArgument(f"rows has {len(rows)} entries and may have {MAX_ROWS}; send the others in another call")
    past = await asyncio.to_thread(lambda: [_past(source, row) for row in rows])
    await manager.session(session_id, origin)
    found = await manager.services.store.find_session(session_id)
    if found is not None:
        await manager.services.store.import_executions(found[0].key, past)


async def run_part(
    manager: Manager, session_id: str, origin: Origin, name: str, code: str, timeout_s: float
) -> ExecutionHandle:
    """Run code that loads values, unless it has run already; returns when it has ended. Raises InvalidArgument."""
    _refuse_unconfined(manager)
    handle = await manager.execute(code, session_id, origin, request_id=name, timeout_s=timeout_s, resumed=True)
    await handle.wait()
    return handle


def _refuse_unconfined(manager: Manager) -> None:
    """Pickles of somebody else run what they like."""
    if manager.confinement.tier is None:
        raise InvalidArgument(
            "values of another program are opened in a sandbox only, and the sandbox of this keeper is off; take"
            ' sandbox = "off" out of config.toml and stop the keeper, then try again'
        )


def _past(source: str, row: PastExecution) -> Past:
    """An execution as the store takes it."""
    check_code(row.code)
    if not 0 <= row.number < 1 << 53 or not (math.isfinite(row.seconds) and row.seconds >= 0):
        raise InvalidArgument("number and seconds of a row must not be negative")
    shown = Transcript()
    if row.output:
        shown.add("stream", {"name": "stdout", "text": row.output})
    if row.error:
        name, _, message = row.error.partition("\n")[0].partition(": ")
        shown.add("error", {"ename": name, "evalue": message, "traceback": row.error.splitlines()})
    status = "error" if row.error else "ok"
    name = name_of(source, str(row.number))
    return Past(name, row.by[:100], row.code, status, _moment(row.at), float(row.seconds), shown.dump())


def _moment(at: str) -> str:
    """A time as the store writes it; the present one for what is no time."""
    try:
        found = datetime.fromisoformat(at)
        return stamp(found if found.tzinfo is not None else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return stamp(utc_now())
