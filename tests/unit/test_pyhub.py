"""Files that say they are databases of pyhub-mcptools: each is read within bounds, or refused with what to do."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl.cli.origin import session_id
from kernelrepl.errors import InvalidArgument
from kernelrepl.store.pyhub import MAX_TEXT_CHARS, MAX_VALUE_BYTES, PyhubDatabase, PyhubSession
from kernelrepl.validation import check_session_id

SESSIONS = "CREATE TABLE sessions (session_id TEXT PRIMARY KEY, created_at, last_accessed, total_executions)"
VARIABLES = "CREATE TABLE session_variables (id INTEGER PRIMARY KEY, session_id, variable_name, pickled_value)"
HISTORY = (
    "CREATE TABLE execution_history (id INTEGER PRIMARY KEY, session_id, code, output, error, executed_at,"
    " execution_time_ms)"
)
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in ("PRAGMA page_size = 512", SESSIONS, VARIABLES, HISTORY):
            db.execute(statement)
        db.execute("INSERT INTO sessions (session_id) VALUES ('s')")
        yield db


def sessions_of(path: Path) -> list[PyhubSession]:
    with PyhubDatabase(path, "f") as found:
        return found.sessions()


def test_rows_are_found_and_what_is_wrong_with_one_is_said(db: sqlite3.Connection, path: Path) -> None:
    """One that is no value costs only itself."""
    values = [
        ("s", "x", b"abc"),
        ("s", "text", "gASVAA=="),
        ("s", b"\xff", b"d"),
        ("gone", "y", b"e"),
        ("s", None, b"f"),
    ]
    db.executemany("INSERT INTO session_variables VALUES (NULL, ?, ?, ?)", values)
    db.execute("INSERT INTO session_variables VALUES (NULL, 's', 'huge', zeroblob(?))", [MAX_VALUE_BYTES + 1])
    db.execute("INSERT INTO sessions (session_id) VALUES (NULL)")
    with PyhubDatabase(path, "f") as found:
        [session] = found.sessions()
        assert (session.id, found.orphans, found.unreadable) == (b"s", 1, 1)
        read = list(found.values(session))
        assert [value.name for value in read] == ["x", "text", "\ufffd", "(row 5)", "huge"]
        assert [bool(value.why) for value in read] == [False, True, False, True, True]
        assert found.data(read[0]) == b"abc"


def test_texts_are_cut_and_numbers_are_bounded(db: sqlite3.Connection, path: Path) -> None:
    """What is no text is as good as none."""
    rows = [
        ("s", "a = 1", "x" * (MAX_TEXT_CHARS + 5), None, "2024-01-01 10:00:00", 1500),
        ("s", "b", b"\xff", "E: m\nmore", "9" * 1000, -5),
        ("s", None, "o", "e", None, 1),
        ("s", 7, 8, 9, 10, "text"),
        ("s", "c", "", "", "", 1e300),
    ]
    db.executemany("INSERT INTO execution_history VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows)
    with PyhubDatabase(path, "f") as found:
        [session] = found.sessions()
        first, second, third, fourth, fifth = found.executions(session)
    assert first is not None
    assert first.output.endswith("x\n(5 more characters were left out)")
    assert (first.error, first.at, first.seconds) == ("", "2024-01-01 10:00:00", 1.5)
    assert second is not None
    assert (second.output, second.error, len(second.at), second.seconds) == ("\ufffd", "E: m\nmore", 40, 0)
    assert third is None
    assert fourth is not None
    assert (fourth.code, fourth.output, fourth.error, fourth.seconds) == ("7", "8", "9", 0)
    assert fifth is not None
    assert fifth.seconds == 0


@pytest.mark.parametrize(
    "instead",
    [
        "DROP TABLE sessions",
        f"DROP TABLE sessions; CREATE VIEW sessions AS {ENDLESS} session_id, 1 AS created_at, 2 AS last_accessed,"
        " 3 AS total_executions FROM n",
        "DROP TABLE sessions; CREATE TABLE sessions (session_id, created_at, last_accessed,"
        " total_executions AS (hex(zeroblob(1000000000))))",
        "DROP TABLE sessions; CREATE TABLE sessions (session_id PRIMARY KEY, created_at, last_accessed,"
        " total_executions) WITHOUT ROWID",
        "DROP TABLE session_variables; CREATE VIRTUAL TABLE session_variables USING fts5(id, session_id,"
        " variable_name, pickled_value)",
        "ALTER TABLE execution_history RENAME COLUMN code TO source",
    ],
    ids=["no table", "view", "computed column", "no numbers", "virtual table", "other column"],
)
def test_another_schema_is_refused(db: sqlite3.Connection, path: Path, instead: str) -> None:
    """Nothing of it is run."""
    db.executescript(instead)
    with pytest.raises(InvalidArgument, match=r"'f' .*; name the python_sessions\.db"):
        sessions_of(path)


def test_a_tree_without_end_ends(db: sqlite3.Connection, path: Path) -> None:
    """Pages may lead to the same page again and again: ten pages are as many rows as somebody likes."""
    db.execute("INSERT INTO session_variables VALUES (1, 's', 'x', x'00')")
    [(root,)] = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'session_variables'")
    db.close()
    pages = bytearray(path.read_bytes())
    size = len(pages) // 512
    leaf = bytes(pages[(root - 1) * 512 : root * 512])
    levels = 12
    for level in range(levels):
        child = size + level + 1
        inner = bytearray(512)
        cells = b"".join(struct.pack(">IB", child, key) for key in range(40))
        inner[512 - len(cells) :] = cells
        starts = [512 - len(cells) + 5 * number for number in range(40)]
        inner[:12] = struct.pack(">BHHHBI", 5, 0, 40, starts[0], 0, child)
        inner[12:92] = struct.pack(">40H", *starts)
        at = (root - 1) * 512 if level == 0 else (size + level - 1) * 512
        pages[at : at + 512] = inner
    pages += leaf
    pages[28:32] = struct.pack(">I", len(pages) // 512)
    path.write_bytes(pages)
    with pytest.raises(InvalidArgument, match=r"has more than|no end"):
        sessions_of(path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a small database."""
    path = tmp_path_factory.mktemp("intact") / "copy.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in ("PRAGMA page_size = 512", SESSIONS, VARIABLES, HISTORY):
            db.execute(statement)
        db.execute("INSERT INTO sessions (session_id) VALUES ('s')")
        db.execute("INSERT INTO session_variables VALUES (1, 's', 'x', zeroblob(2000))")
        db.execute("INSERT INTO execution_history (session_id, code) VALUES ('s', ?)", ["x" * 1000])
    return path.read_bytes()


@given(st.data())
def test_no_change_of_bytes_gets_further_than_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, intact: bytes, data: st.DataObject
) -> None:
    """Whatever is in the file, it is read or refused."""
    path = tmp_path_factory.mktemp("changed") / "copy.db"
    pages = bytearray(intact)
    for at, byte in data.draw(st.lists(st.tuples(st.integers(16, len(pages) - 1), st.integers(0, 255)), max_size=8)):
        pages[at] = byte
    path.write_bytes(pages[: data.draw(st.integers(100, len(pages)))])
    with contextlib.suppress(InvalidArgument), PyhubDatabase(path, "f") as found:
        for session in found.sessions():
            for value in found.values(session):
                assert value.why or len(found.data(value) or b"") in (0, value.size)
            for one in found.executions(session):
                assert one is None or len(one.code) <= len(pages)


@given(st.binary(max_size=200), st.sampled_from(["", "old:"]))
def test_each_id_becomes_one_that_is_allowed(found: bytes, prefix: str) -> None:
    """One that is allowed stays, and two others never meet, nor do they depend on what else is in the file."""
    made = session_id(found, prefix)
    assert check_session_id(made) == made == session_id(found, prefix)
    other = session_id(found + b"/", prefix)
    assert other != made


@pytest.mark.parametrize("id_", ["analysis", "a.b_c-d:e@f+g", "x" * 100])
def test_an_id_that_is_allowed_stays(id_: str) -> None:
    """Also when it is as long as it may be."""
    assert session_id(id_.encode()) == id_
