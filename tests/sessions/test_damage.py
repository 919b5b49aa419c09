"""Bits that a disk has changed: each value is right, or the reply tells."""

from __future__ import annotations

import contextlib
import gc
import random
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernelrepl.errors import KernelReplError, SessionDamaged
from kernelrepl.guest import wire
from kernelrepl.model import ExecutionResult, Limits
from kernelrepl.sessions.manager import Origin
from kernelrepl.store import Store
from kernelrepl.store.live import INCOMPLETE
from tests.conftest import Sessions
from tests.sessions.test_store import commit, outcome, part
from tests.support.database import writer
from tests.support.mcp_hosts import Place, command

pytestmark = pytest.mark.anyio

UNLIMITED = Limits(None, None)
TABLES = ("sessions", "executions", "commits", "components", "names", "chunks", "notebooks", "tombstones")
WITHOUT_ROWID = ("notebooks", "tombstones")


# Flips


def flipped(value: Any, rng: random.Random) -> Any:
    """A value of SQLite with one bit changed."""
    match value:
        case int():
            return struct.unpack("<q", flipped(struct.pack("<q", value), rng))[0]
        case float():
            return struct.unpack("<d", flipped(struct.pack("<d", value), rng))[0]
        case str():
            return flipped(value.encode(), rng)
        case bytes() if value:
            at = rng.randrange(len(value))
            return value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :]
    return value


def flip_cell(path: Path, table: str, rng: random.Random) -> str:
    """Change a bit of a cell, as the disk would; returns which."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        rows = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        for _ in range(1000):
            column, number = rng.choice(columns), rng.randrange(rows)
            row = connection.execute(f"SELECT * FROM {table} LIMIT 1 OFFSET ?", [number]).fetchone()
            value = row[columns.index(column)]
            new = flipped(value, rng)
            if value is None or new == value or new != new:
                continue
            where = " AND ".join(f"{name} IS ?" for name in columns)
            as_text = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
            try:
                connection.execute(f"UPDATE {table} SET {column} = {as_text} WHERE {where}", [new, *row])
                connection.commit()
            except (sqlite3.IntegrityError, OverflowError):
                connection.rollback()
                continue
            return f"{table}.{column} of row {number}"
    raise AssertionError(f"nothing to change in {table}")


def flip_page(path: Path, rng: random.Random) -> str:
    """Change a bit anywhere in the file."""
    content = path.read_bytes()
    at = rng.randrange(len(content))
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1 << rng.randrange(8)]))
    return f"byte {at}"


# What a store gives, and what it says of it


class Told(Exception):
    """Somebody is told."""


async def seen(store: Store) -> dict[str, Any]:
    """Everything that a keeper gets from a store. Raises Told if it is said that some of it is not what it was."""
    found: dict[str, Any] = {"notebooks": await store.notebooks()}
    if await store.damaged():
        raise Told
    for info in await store.list_sessions():
        known = await store.find_session(info.session_id)
        if known is None or info.damaged or info.miscounted or known[0].miscounted:
            raise Told
        of_it = await seen_of(store, info.key)
        found[info.session_id] = (info, known, of_it)
    return found


async def seen_of(store: Store, session: int) -> dict[str, Any]:
    manifest = await store.manifest(session)
    if manifest.damaged or any(entry.blocked for entry in manifest.components):
        raise Told
    if await store.missing(manifest.components):
        raise Told
    values: dict[int, bytes] = {}
    portion = bytearray(1 << 20)

    def write(data: memoryview, offset: int) -> None:
        portion[offset : offset + len(data)] = data

    for entry in manifest.components:
        data = b""
        async for size, intact in store.pour([entry], write, len(portion)):
            if not intact:
                raise Told
            data += portion[:size]
        values.update(dict.fromkeys(entry.roots, data))
    if any(root not in values for root, *_ in manifest.names.values()):
        raise Told
    rows = await store.executions(session, 0, 1 << 30)
    if any(row.damaged for row in rows):
        raise Told
    return {
        "values": {name: (values[root], kind, size) for name, (root, kind, size) in manifest.names.items()},
        "stories": manifest.stories,
        "components": [(p.roots, p.references, p.segments, p.has_code, p.magic, p.python) for p in manifest.components],
        "variables": list(await store.variables(session)),
        "rows": rows,
        "by request": [await store.execution(row.request_id) for row in rows],
    }


@pytest.fixture
async def original(tmp_path: Path) -> Path:
    """The database of a keeper that has ended: two sessions, with versions, shared pieces and what is not saved."""
    path = tmp_path / "original.db"
    store = Store(path)
    store.open()
    big = bytes(range(256)) * 3000
    for session_id in ("one", "two"):
        session, _ = await store.create_session(session_id, f"of-{session_id}", {"limits": {}, "python": None})
        for number in range(3):
            row = await store.start_execution(session, f"{session_id}-{number}", "test", f"n1 = {number}")
            parts = [part(index, index + 1, b"%d: MAGIC %d" % (index, number) * 9) for index in range(6)]
            parts.append(part(6, 7, big + b"%d" % number, inert=True))
            unsaved = {"gen": ("generator", "gen", "a generator cannot be saved")}
            made = commit(*parts, outcome=outcome(number + 1), outputs='[["stream", {"text": "one"}]]', unsaved=unsaved)
            await store.publish(session, row, made, UNLIMITED, None)
        await store.start_execution(session, f"{session_id}-last", "test", "while True: pass")
        await store.bind_notebook(f"/{session_id}.ipynb", session_id, ["a", "b"])
    gone, _ = await store.create_session("gone", "of-gone", {"limits": {}})
    await store.delete_session(gone, remember=True)
    store.close()
    store = Store(path)  # what was started has crashed
    store.open()
    store.close()
    return path


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Store]:
    store = Store(path)
    store.open()
    try:
        yield store
    finally:
        store.close()


async def outcome_of(path: Path) -> dict[str, Any] | None:
    """What a store gives; None if somebody is told that it is not what it was."""
    try:
        with opened(path) as store:
            return await seen(store)
    except (Told, KernelReplError):
        return None


@pytest.mark.parametrize("table", TABLES)
async def test_no_bit_of_a_cell_changes_a_value_without_a_word(original: Path, tmp_path: Path, table: str) -> None:
    """Names, values, what is fixed, code, outputs, reasons: in every table."""
    right = await outcome_of(original)
    assert right is not None
    rng = random.Random(table)
    path = tmp_path / "damaged.db"
    told = 0
    for _ in range(60):
        shutil.copy(original, path)
        where = flip_cell(path, table, rng)
        found = await outcome_of(path)
        told += found is None
        assert found is None or found == right, where
    assert told or table == "commits"


async def test_no_bit_of_the_file_changes_a_value_without_a_word(original: Path, tmp_path: Path) -> None:
    """Also where SQLite keeps where its rows are."""
    right = await outcome_of(original)
    rng = random.Random("file")
    path = tmp_path / "damaged.db"
    told = 0
    for _ in range(250):
        shutil.copy(original, path)
        where = flip_page(path, rng)
        found = await outcome_of(path)
        told += found is None
        assert found is None or found == right, where
    assert told


# Sessions


def told(execution: ExecutionResult) -> dict[str, str]:
    """Why each name did not come back."""
    return {} if execution.restored is None else {e.name: e.reason for e in execution.restored.not_restored}


async def write(sessions: Sessions, statement: str, *parameters: Any) -> int:
    """Change the database as the disk would; how many rows."""
    return int(await writer(sessions.store).run(lambda db: db.execute(statement, parameters).rowcount))


async def flip_where(sessions: Sessions, table: str, column: str, condition: str, at: int = 100) -> int:
    """Change one bit in a blob of each of some rows; how many."""
    rows = await sessions.rows(f"SELECT rowid, {column} FROM {table} WHERE {condition}")
    for row, data in rows:
        at = min(at, len(data) - 1)
        await write(
            sessions,
            f"UPDATE {table} SET {column} = ? WHERE rowid = ?",
            data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
            row,
        )
    return len(rows)


async def fall_asleep(sessions: Sessions) -> None:
    """Let the session be in the store only."""
    await sessions.manager.loaded()["s"].hibernate()
    await sessions.manager.tidy()
    gc.collect()
    assert not sessions.manager.loaded()


async def test_a_value_in_a_row_that_has_changed_is_not_loaded(sessions: Sessions) -> None:
    """It says so, in the reply and by its name; all else is there, and a new value takes its place for good."""
    await sessions.run("d = {'MAGIC': 1}; rest = [2]")
    await sessions.kill()
    rows = await sessions.rows("SELECT id, data FROM components WHERE instr(data, CAST('MAGIC' AS BLOB))")
    for row, data in rows:
        await write(sessions, "UPDATE components SET data = ? WHERE id = ?", data.replace(b"MAGIC", b"LAGIC"), row)
    execution = await sessions.run("rest")
    assert execution.output.result == "[2]"
    assert told(execution) == {"d": wire.DAMAGED}
    failed = await sessions.run("d")
    assert failed.output.error is not None
    assert wire.DAMAGED in failed.output.error.message
    assert await sessions.value("d = 5; d") == "5"
    await sessions.kill()
    again = await sessions.run("d, rest")
    assert (again.output.result, told(again)) == ("(5, [2])", {})


@pytest.mark.parametrize("kind", ["late", "early"])
async def test_a_piece_that_has_changed_is_not_loaded_and_stored_anew_when_it_comes_again(
    sessions: Sessions, kind: str
) -> None:
    """Whether it is loaded at the start or when it is needed; what has it from another session is right again, too."""
    made = (
        "big = bytes(range(256)) * 8000"
        if kind == "late"
        else "class C: pass\nbig = C(); big.x = bytes(range(256)) * 8000"
    )
    await sessions.run(made)
    await sessions.run(made, "other")
    await sessions.run("rest = 7")
    await sessions.kill()
    await sessions.kill("other")
    assert await flip_where(sessions, "chunks", "data", "length(data) > 200000")
    execution = await sessions.run("rest")
    assert execution.output.result == "7"
    failed = await sessions.run("big")
    assert failed.output.error is not None
    assert wire.DAMAGED in failed.output.error.message
    assert {**told(execution), **told(failed)} == {"big": wire.DAMAGED}
    new = await sessions.run(made)
    assert new.committed
    await sessions.kill()
    value = "big" if kind == "late" else "big.x"
    assert await sessions.value(f"{value} == bytes(range(256)) * 8000") == "True"
    other = await sessions.run(f"{value} == bytes(range(256)) * 8000", "other")
    # An object is written with its number, which another session has not.
    assert (other.output.result, told(other)) == (("True", {}) if kind == "late" else (None, {"big": wire.DAMAGED}))


async def test_other_values_that_come_in_the_same_stream_are_right(sessions: Sessions) -> None:
    """Several that wait, one of them damaged in its middle: the others are what they were."""
    code = "import numpy as np\n" + "; ".join(f"a{n} = np.arange(400_000) + {n}" for n in range(4))
    await sessions.run(code)
    await sessions.kill()
    [[digests]] = await sessions.rows(
        "SELECT c.digests FROM components c JOIN names n ON n.root = c.key WHERE n.name = 'a1' AND c.to_commit IS NULL"
    )
    middle = digests[len(digests) // 64 * 32 :][:32]
    assert await flip_where(sessions, "chunks", "data", f"hex(digest) = '{middle.hex().upper()}'") == 1
    first = await sessions.run("1")
    execution = await sessions.run("[int(globals()[f'a{n}'].sum()) - 400_000 * n for n in (0, 2, 3)]")
    right = sum(range(400_000))
    assert execution.output.result == repr([right] * 3)
    assert {**told(first), **told(execution)} == {"a1": wire.DAMAGED}


async def test_a_new_value_never_gets_the_number_of_a_lost_one(sessions: Sessions) -> None:
    """Else the lost name, or what refers to it, would be taken for the new value after the next restart."""
    await sessions.run("a = [1]\ndef f(): return a\nclass C: pass\nc = C()")
    await sessions.kill()
    await write(sessions, "UPDATE components SET magic = magic || 'x' WHERE to_commit IS NULL")
    lost = told(await sessions.run("new = ['new']; newer = {'n': 1}; newest = {1}"))
    assert set(lost) >= {"a", "f", "C", "c"}
    await sessions.kill()
    execution = await sessions.run("new, newer, newest")
    assert execution.output.result == "(['new'], {'n': 1}, {1})"
    assert set(told(execution)) >= {"a", "f", "C", "c"}
    for name in "afCc":
        failed = await sessions.run(name)
        assert failed.output.error is not None


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("UPDATE names SET root = (SELECT root FROM names WHERE name = 'b') WHERE name = 'a'", {"a"}),
        ("UPDATE names SET name = 'q' WHERE name = 'a'", {"q"}),
        ("UPDATE names SET to_commit = 1 WHERE name = 'a'", {INCOMPLETE.name}),
        ("UPDATE names SET to_commit = NULL WHERE name = 'gone'", {INCOMPLETE.name}),
        ("UPDATE components SET to_commit = 1 WHERE key = (SELECT root FROM names WHERE name = 'a')", None),
        ("UPDATE names SET session = session + 1 WHERE name = 'a'", {INCOMPLETE.name}),
        ("UPDATE names SET type = 'LIST' WHERE name = '_' AND to_commit IS NULL AND session = 1", {"_"}),
        (
            "UPDATE names SET size_bytes = 0 WHERE name = '*environment' AND to_commit IS NULL AND session = 1",
            {"*environment"},
        ),
    ],
)
async def test_a_name_that_has_changed_is_told(sessions: Sessions, change: str, names: set[str] | None) -> None:
    """What it leads to, whether it is there: nobody gets the value of another, or one that was deleted."""
    await sessions.run("import os; os.chdir('/tmp'); a = [1]; b = [2]; gone = 1")
    await sessions.run("del gone; [3]")
    await sessions.run("nothing = 1", "next")
    await sessions.kill()
    assert await write(sessions, change) == 1
    execution = await sessions.run("b")
    assert execution.output.result == "[2]"
    if names is None:
        assert {"a", INCOMPLETE.name} <= set(told(execution))
    else:
        assert set(told(execution)) >= names
    if "a" in (names or {"a"}):
        assert (await sessions.run("a")).output.error is not None


async def test_what_a_session_owns_beside_its_names_is_told(sessions: Sessions) -> None:
    """Its directory and import path come with the names, but nobody misses them by name."""
    await sessions.run("import os, sys; os.mkdir('d'); os.chdir('d'); sys.path.append('/x' * 9000); a = 1")
    await sessions.kill()
    root = "(SELECT root FROM names WHERE name = '*environment' AND to_commit IS NULL)"
    assert await flip_where(sessions, "chunks", "data", "1", 4000) + await flip_where(
        sessions, "components", "data", f"data IS NOT NULL AND key = {root}", 40
    )
    execution = await sessions.run("a")
    assert execution.output.result == "1"
    assert set(told(execution)) == {"the session's own environment"}


@pytest.mark.parametrize("column", ["workspace", "fixed"])
async def test_a_session_whose_rights_have_changed_is_not_opened(sessions: Sessions, column: str) -> None:
    """Nothing runs with another directory or other grants; it can be listed and deleted."""
    await sessions.run("a = 1")
    await fall_asleep(sessions)
    await write(sessions, f"UPDATE sessions SET {column} = replace({column}, substr({column}, 5, 1), '~')")
    with pytest.raises(SessionDamaged, match="put back a copy of the database, or delete the session"):
        await sessions.run("a")
    [view] = await sessions.manager.list_sessions()
    assert view.info.damaged
    await sessions.manager.delete("s", Origin("test"))
    assert await sessions.manager.list_sessions() == []


async def test_an_execution_that_has_changed_is_told(sessions: Sessions) -> None:
    """In its outcome, in the notebook, and whole outputs are not given out."""
    execution = await sessions.run("print('MAGIC')")
    await fall_asleep(sessions)
    await write(sessions, "UPDATE executions SET outputs = replace(outputs, 'MAGIC', 'LAGIC')")
    row = await sessions.store.execution(execution.request_id)
    assert row is not None
    assert row.damaged
    handle = await sessions.manager.latest("s")
    assert handle.is_stored
    found = handle.result()
    assert found.note is not None
    assert "damaged in the database" in found.note


async def test_counts_that_have_changed_are_told_once_and_made_anew(sessions: Sessions) -> None:
    """The first reply says so."""
    await sessions.run("a = [1]; b = 2")
    await fall_asleep(sessions)
    await write(sessions, "UPDATE sessions SET size_bytes = 1 << 50, execution_count = 77")
    [view] = await sessions.manager.list_sessions()
    assert view.info.miscounted
    execution = await sessions.run("a, b")
    assert execution.output.result == "([1], 2)"
    assert execution.note is not None
    assert "counts of this session were damaged" in execution.note
    [view] = await sessions.manager.list_sessions()
    assert not view.info.miscounted
    assert (view.info.variable_count, view.info.total_executions) == (2, 2)


# For people


@pytest.mark.slow
async def test_a_person_can_have_all_of_it_looked_at(environ: dict[str, str]) -> None:
    """`doctor --check` reads every byte, with and without a keeper, and names what is wrong."""
    place = Place(environ)
    path = place.data_dir / "python_sessions.db"
    assert "is not there" in command(environ, "doctor", "--check").stdout
    made = command(environ, "exec", "-s", "s", "big = bytes(range(256)) * 8000; d = {'MAGIC': 1}")
    assert made.returncode == 0
    for _ in range(2):
        done = command(environ, "doctor", "--check")
        assert (done.returncode, "all of it is what was stored" in done.stdout) == (0, True), done
        command(environ, "stop")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE chunks SET data = zeroblob(length(data)) WHERE length(data) > 200000")
        connection.execute(
            "UPDATE components SET data = CAST(replace(data, 'MAGIC', 'LAGIC') AS BLOB)"
            " WHERE instr(data, CAST('MAGIC' AS BLOB))"
        )
        connection.commit()
    done = command(environ, "doctor", "--check")
    assert done.returncode == 1
    assert "session s: the value of big is damaged" in done.stdout
    assert "session s: the value of d is damaged" in done.stdout
    assert "pieces of values are not what was stored" in done.stdout
