"""What has run in a session, as a person reads it who wants to know what an agent did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from kernelrepl.mcp.results import Shown
from kernelrepl.outputs import shortening, terminal_text

if TYPE_CHECKING:
    from kernelrepl.store.reading import ExecutionRow


class LogEntry(BaseModel):
    """One execution, as a log has it."""

    number: int = Field(description="of its row; later ones have larger numbers")
    execution_count: int
    code: str
    by: Shown
    started_at: str
    duration_s: float
    status: str
    created: list[Shown]
    changed: list[Shown]
    deleted: list[Shown]
    not_saved: list[Shown]


class LogResult(BaseModel):
    executions: list[LogEntry]
    left_out: int = Field(description="how many came before these")


class WatchResult(BaseModel):
    """An execution that somebody watches, when it is over; and those that nobody has asked for yet come next."""

    execution: LogEntry | None = Field(description="null: nothing has run meanwhile")
    number: int = Field(description="give it with the next call")


def log_entry(row: ExecutionRow) -> LogEntry:
    """An execution as a log has it, from its row."""
    return LogEntry(
        number=row.id,
        execution_count=row.execution_count,
        code=terminal_text.output(row.code),
        by=row.origin,
        started_at=row.started_at,
        duration_s=round(row.duration_s, 6),
        status="running" if row.status == "started" else row.status,
        created=list(row.saved.created[: shortening.MOST_ENTRIES]),
        changed=list(row.saved.changed[: shortening.MOST_ENTRIES]),
        deleted=list(row.saved.deleted[: shortening.MOST_ENTRIES]),
        not_saved=[entry.name for entry in row.not_saved[: shortening.MOST_ENTRIES]],
    )
