"""Read the database of pyhub-mcptools. Its rows are not trusted: whoever gave the file may have made each byte of it.

Rows are found by their numbers and read one by one, so that a row that is damaged or too large costs only itself. The
values are pickles: they are handed out as bytes and never opened here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernelrepl.errors import InvalidArgument
from kernelrepl.outputs.terminal_text import field as one_line

MAX_SESSIONS = 10_000
MAX_ROWS = 1_000_000
"""Of values and executions, each."""
MAX_VALUE_BYTES = 10 << 20
"""What pyhub-mcptools stores of one value at most."""
MAX_TEXT_CHARS = 1_000_000
"""Of one output: as much as a kernel here records."""
_MAX_FIELD_BYTES = 64 << 20
_MAX_SCHEMA_BYTES = 1 << 20
_MAX_NAME_BYTES = 4096
_BYTES, _BYTES_A_BYTE = 64 << 20, 4
_STEPS, _STEPS_A_BYTE, _STEPS_A_TICK = 20_000_000, 20, 10_000
"""What SQLite may do: a file can hold a tree whose branches meet again, which has no end."""
_TABLES = {
    "sessions": ("session_id", "created_at", "last_accessed", "total_executions"),
    "session_variables": ("id", "session_id", "variable_name", "pickled_value"),
    "execution_history": ("id", "session_id", "code", "output", "error", "executed_at", "execution_time_ms"),
}


@dataclass
class PyhubSession:
    """A session in the file, with the numbers of its rows."""

    id: bytes
    about: tuple[Any, ...]
    """Its times and how often it was used: they change with each use."""
    values: list[int] = field(default_factory=list)
    executions: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class PyhubValue:
    """A value in the file. why: what speaks against reading it, if something does."""

    row: int
    name: str
    size: int
    why: str = ""


@dataclass(frozen=True)
class PyhubExecution:
    """A piece of code that ran. at: when it had ended, in UTC, as the file has it."""

    code: str
    output: str
    error: str
    """Empty if it raised nothing."""
    at: str
    seconds: float


class PyhubDatabase:
    """Open with `with`. Raises InvalidArgument for a file that is no such database."""

    def __init__(self, path: Path, name: str) -> None:
        """path: a copy that nobody else has, as SQLite makes files beside it. name: how errors call the file."""
        self._name = name
        self.orphans = self.unreadable = 0
        """Rows of sessions that were deleted there, and rows that do not even say whose they are."""
        self._ticks = (_STEPS + _STEPS_A_BYTE * path.stat().st_size) // _STEPS_A_TICK
        self._bytes = _BYTES + _BYTES_A_BYTE * path.stat().st_size
        """What may still be read: many rows of a damaged file can share the pages of one long text."""
        with self._refusing():
            self._db = sqlite3.connect(path, isolation_level=None)
        try:
            with self._refusing():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> PyhubDatabase:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def _prepare(self) -> None:
        self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_FIELD_BYTES)
        self._db.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SCHEMA_BYTES)
        self._db.set_progress_handler(self._tick, _STEPS_A_TICK)
        for setting in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "mmap_size = 0"):
            self._db.execute(f"PRAGMA {setting}")
        for table, columns in _TABLES.items():
            # A view or a virtual table has no root page, and does what its maker likes.
            query = "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name = ?"
            if self._db.execute(query, [table]).fetchone()[0] == 1:
                about = self._db.execute(f"PRAGMA table_xinfo({table})")
                stored = {name for _, name, *_, computed in about if not computed}
            else:
                stored = set()
            if not stored.issuperset(columns):
                raise self._refusal(f"has no table {table!r} as pyhub-mcptools 0.9.8 makes it")

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """What SQLite says of the file, in words."""
        try:
            yield
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            why = "its tables have no end" if self._ticks < 0 else one_line(str(error)[:200])
            raise self._refusal(f"cannot be read as a database: {why}") from error

    def _refusal(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"'{self._name}' {why}; name the python_sessions.db of pyhub-mcptools")

    def _tick(self) -> bool:
        self._ticks -= 1
        return self._ticks < 0

    def sessions(self) -> list[PyhubSession]:
        """All sessions, in the order in which they were made."""
        found: dict[bytes, PyhubSession] = {}
        query = "SELECT CAST(session_id AS BLOB), created_at, last_accessed, total_executions FROM sessions"
        for row in self._numbers("sessions", "rowid", MAX_SESSIONS):
            got = self._row(f"{query} WHERE rowid = ?", row)
            if got is None or got[0] is None or len(got[0]) > _MAX_NAME_BYTES:
                self.unreadable += 1
                continue
            found.setdefault(got[0], PyhubSession(got[0], tuple(map(_shown, got[1:]))))
        for row, of in self._owned("session_variables", found):
            of.values.append(row)
        for row, of in self._owned("execution_history", found):
            of.executions.append(row)
        return list(found.values())

    def _owned(self, table: str, sessions: dict[bytes, PyhubSession]) -> Iterator[tuple[int, PyhubSession]]:
        for row in self._numbers(table, "id", MAX_ROWS):
            got = self._row(f"SELECT CAST(session_id AS BLOB) FROM {table} WHERE id = ?", row)
            if got is None:
                self.unreadable += 1
            elif got[0] not in sessions:
                self.orphans += 1
            else:
                yield row, sessions[got[0]]

    def _numbers(self, table: str, key: str, most: int) -> list[int]:
        with self._refusing():
            query = f"SELECT {key} FROM {table} ORDER BY {key} LIMIT ?"
            found = [row for (row,) in self._db.execute(query, [most + 1]) if type(row) is int]
        if len(found) > most:
            raise self._refusal(f"has more than {most} rows in its table {table!r}")
        return found

    def _row(self, query: str, row: int) -> tuple[Any, ...] | None:
        """One row; None if it cannot be read."""
        try:
            found: tuple[Any, ...] | None = self._db.execute(query, [row]).fetchone()
        except (sqlite3.Error, OverflowError, UnicodeError):
            if self._ticks < 0:
                raise self._refusal("cannot be read as a database: its tables have no end") from None
            found = None
        self._spend(sum(len(value) for value in found or () if isinstance(value, bytes | str)))
        return found

    def _spend(self, size: int) -> None:
        """Note that so many bytes were read. Raises InvalidArgument if they are more than a sound file has."""
        self._bytes -= size
        if self._bytes < 0:
            raise self._refusal("cannot be read as a database: its rows have no end")

    def values(self, session: PyhubSession) -> Iterator[PyhubValue]:
        """The values of a session, by the order of their rows; `data` has their bytes."""
        query = "SELECT CAST(variable_name AS BLOB), typeof(pickled_value), length(pickled_value)"
        for number in session.values:
            got = self._row(f"{query} FROM session_variables WHERE id = ?", number)
            if got is None or not isinstance(got[0], bytes) or len(got[0]) > _MAX_NAME_BYTES:
                yield PyhubValue(number, f"(row {number})", 0, "its row is damaged")
                continue
            name = got[0].decode(errors="replace")
            why = "" if got[1] == "blob" else f"it is stored as {got[1]}, and pyhub-mcptools stores bytes"
            if not why and got[2] > MAX_VALUE_BYTES:
                why = f"it has {got[2]} bytes, and pyhub-mcptools stores {MAX_VALUE_BYTES} at most"
            yield PyhubValue(number, name, 0 if why else got[2], why)

    def data(self, value: PyhubValue) -> bytes | None:
        """The bytes of a value that may be read; None if they are damaged."""
        try:
            with self._db.blobopen("session_variables", "pickled_value", value.row, readonly=True) as blob:
                self._spend(len(blob))
                return blob.read(MAX_VALUE_BYTES) if len(blob) == value.size else None
        except (sqlite3.Error, OverflowError):
            return None

    def executions(self, session: PyhubSession) -> Iterator[PyhubExecution | None]:
        """What has run in a session, in its order; None in the place of a row that is damaged or too large."""
        texts = ", ".join(f"CAST({name} AS BLOB)" for name in ("code", "output", "error", "executed_at"))
        for number in session.executions:
            got = self._row(f"SELECT {texts}, execution_time_ms FROM execution_history WHERE id = ?", number)
            if got is None or not isinstance(got[0], bytes):
                yield None
                continue
            code, output, error, at = ((text or b"").decode(errors="replace") for text in got[:4])
            took = got[4] if isinstance(got[4], int | float) and 0 <= got[4] < 1e12 else 0
            yield PyhubExecution(code, _cut(output), _cut(error), at[:40], took / 1000)


def _cut(text: str) -> str:
    left = len(text) - MAX_TEXT_CHARS
    return text if left <= 0 else f"{text[:MAX_TEXT_CHARS]}\n({left} more characters were left out)"


def _shown(value: Any) -> str:
    return repr(value)[:100]
