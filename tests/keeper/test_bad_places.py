"""Databases, directories, sockets and interpreters that are not as they should be: what is said, and what survives."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from kernelrepl import config, discovery
from kernelrepl.discovery import SOCKET_PATH_BYTES
from kernelrepl.errors import (
    InvalidSettings,
    KeeperRunning,
    KeeperSilent,
    KeeperUnavailable,
    KernelReplError,
    StorageFailed,
)
from kernelrepl.store import Store, worker
from tests.conftest import Sessions, end_keeper
from tests.support.database import writer
from tests.support.mcp_hosts import Place, by_hand, command, kill_9, says, until, wait_until, waits_for

NOBODY = 65534
SHORT_S = 0.2
"""Instead of a timeout that people wait for."""


@pytest.fixture
def place(environ: dict[str, str]) -> Place:
    return Place(environ)


@pytest.fixture
def database(data_dir: Path) -> Path:
    """The database of a keeper that has ended."""
    path = data_dir / "python_sessions.db"
    store = Store(path)
    store.open()
    store.close()
    return path


def missing(what: str) -> None:
    """What a machine lacks is a reason to skip, except where everything is to be tested."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI tests everything")
    pytest.skip(what)


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Permissions count for this process: it is not root meanwhile."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A directory that an ordinary user has, with nothing above it that keeps him out."""
    path = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
    if os.getuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    yield path
    path.chmod(0o700)
    shutil.rmtree(path)


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A directory of another user."""
    if os.getuid() != 0:
        yield Path("/usr")
        return
    path = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def complaint(environ: dict[str, str], *arguments: str) -> str:
    """The one line that a command ends with when it cannot do its work."""
    arguments = arguments or ("exec", "-s", "s", "1")
    done = command(environ, *arguments)
    assert (done.returncode, done.stdout) == (125 if arguments[0] == "exec" else 1, ""), done
    [line, *log] = done.stderr.splitlines()
    assert not log or log[0] == "Last words of the kernel:", done.stderr
    return line.removeprefix("kernelrepl: ")


def value(environ: dict[str, str], code: str, session_id: str = "s") -> str:
    """The last line that a command prints for code."""
    done = command(environ, "exec", "-s", session_id, code)
    assert done.returncode == 0, done
    return done.stdout.splitlines()[-1]


def open_and_close(path: Path) -> str:
    """Why a database cannot be opened."""
    with pytest.raises(StorageFailed) as caught:
        Store(path).open()
    return str(caught.value)


# A database that is none


def _drop(table: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"DROP TABLE {table}")

    return damage


def _of_another_program(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE sessions (a)")


def _garbage_in_the_middle(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xaa" * (len(content) - 8192) + content[-4096:])


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut in half": (lambda path: os.truncate(path, path.stat().st_size // 2), "move it away to start anew"),
    "cut in its header": (lambda path: os.truncate(path, 1000), "move it away to start anew"),
    "garbage": (_garbage_in_the_middle, "it is not a database or is damaged; move it away to start anew"),
    "without names": (_drop("names"), "no such table: names: it is no database of kernelrepl or is damaged; move it"),
    "without executions": (_drop("executions"), "it is no database of kernelrepl or is damaged; move it away"),
    "of another program": (_of_another_program, "is the database of another program; move it away or set KERNELREPL_"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_database_is_refused_and_left_as_it_is(database: Path, kind: str) -> None:
    """Somebody may still get something out of it; the message says how to go on without."""
    damage, said = DAMAGE[kind]
    damage(database)
    before = database.read_bytes()
    answer = open_and_close(database)
    assert str(database) in answer
    assert said in answer
    assert database.read_bytes() == before


def test_a_damaged_database_is_told_to_people_and_a_copy_brings_all_back(environ: dict[str, str], place: Place) -> None:
    """Whatever asks, the keeper's reason comes out; nothing that could be brought back is written over."""
    path = place.data_dir / "python_sessions.db"
    assert value(environ, "x = 6; x") == "6"
    command(environ, "stop")
    whole = path.read_bytes()
    os.truncate(path, len(whole) // 2)
    for arguments in (("exec", "-s", "s", "x"), ("sessions",)):
        assert "move it away to start anew" in complaint(environ, *arguments)
    path.write_bytes(whole)
    assert value(environ, "x + 1") == "7"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "Is a directory; make it a file that you can read and write"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links; make it a file that you can read"),
        (lambda path: os.mkfifo(path), "python_sessions.db"),
    ],
    ids=["directory", "loop", "fifo"],
)
def test_what_is_no_file_is_no_database(data_dir: Path, make: Callable[[Path], Any], said: str) -> None:
    """Refused with what it should be."""
    path = data_dir / "python_sessions.db"
    make(path)
    assert said in open_and_close(path)


def test_a_database_that_cannot_be_written_is_refused(theirs: Path) -> None:
    """The file or its folder is read-only: it says so, and that it is to be made writable."""
    path = theirs / "python_sessions.db"
    with ordinary_user():
        store = Store(path)
        store.open()
        store.close()
        path.chmod(0o400)
        assert "Permission denied; make it a file that you can read and write" in open_and_close(path)
        path.chmod(0o600)
        theirs.chmod(0o500)
        answer = open_and_close(path)
        assert "make it writable" in answer or "in a folder that you can write" in answer
        theirs.chmod(0o700)
        store = Store(path)
        store.open()
        store.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deleted", "emptied", "deleted with its log"])
def test_a_database_that_went_while_nothing_ran_is_missed(environ: dict[str, str], place: Place, how: str) -> None:
    """Agents are told with the first reply of a session, people by lists, the log and the doctor; then it is over."""
    path = place.data_dir / "python_sessions.db"
    assert "note" not in command(environ, "exec", "-s", "s", "x = 6; open('file', 'w').close()").stderr
    assert value(environ, "1", "empty") == "1"
    command(environ, "stop") if how == "emptied" else kill_9(place.keeper)
    if how == "emptied":
        os.truncate(path, 0)
    else:
        for file in place.data_dir.glob("python_sessions.db*" if how.endswith("log") else "python_sessions.db"):
            file.unlink()
    said = f"the database {path} was gone or empty when its keeper started, though directories of 2 sessions"
    for session_id in ("s", "other"):
        told = command(environ, "exec", "-s", session_id, "'x' in globals()")
        assert told.stdout == "False\n"
        assert said in told.stderr
        assert f"if {session_id!r} was there before, it is one of what is lost" in told.stderr
        assert said not in command(environ, "exec", "-s", session_id, "1").stderr
    assert said in command(environ, "sessions").stderr
    assert said in place.log()
    assert "that belong to no session" in command(environ, "doctor").stdout
    command(environ, "stop")
    assert said not in command(environ, "exec", "-s", "third", "1").stderr


def test_a_session_that_changed_its_name_on_the_disk_is_missed(environ: dict[str, str], place: Place) -> None:
    """Who comes for it gets a new one, and is told that something is lost."""
    assert value(environ, "x = 6; x") == "6"
    command(environ, "stop")
    with contextlib.closing(sqlite3.connect(place.data_dir / "python_sessions.db")) as connection:
        connection.execute("UPDATE sessions SET session_id = 'r'")
        connection.commit()
    told = command(environ, "exec", "-s", "s", "'x' in globals()").stderr
    assert "the database is damaged (1 of its sessions are not what was stored)" in told
    assert "if 's' was there before, it is one of what is lost" in told


# A database that others use


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_database_that_another_program_holds_is_refused_at_the_start(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do; when the other one is done it opens."""
    monkeypatch.setattr(worker, "_BUSY_TIMEOUT_S", SHORT_S)
    with locked(database):
        assert "database is locked: another program has it open; close that program" in open_and_close(database)
    store = Store(database)
    store.open()
    store.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_BUSY_TIMEOUT_S", SHORT_S)


@pytest.mark.anyio
async def test_a_commit_that_another_program_keeps_out_is_made_up_for(
    impatient: None, sessions: Sessions, data_dir: Path
) -> None:
    """The reply names storage and what is not saved; code that cannot be noted is not run; the next commit has all."""
    path = data_dir / "python_sessions.db"
    await sessions.run("x = 1")
    session, job = await sessions.submit(f"x = 2; y = [x]\n{says('begun')}\n{waits_for('go')}")
    workspace = session.launch.workspace
    await until(lambda: (workspace / "begun").exists())
    with locked(path):
        (workspace / "go").touch()
        failed = await job.result
        assert (failed.status, failed.committed) == ("ok", False)
        assert {entry.name for entry in failed.not_saved} == {"x", "y"}
        for entry in failed.not_saved:
            assert entry.reason.startswith("storage: ")
            assert "another program has it open; close that program" in entry.reason
        for name in ("s", "new"):
            with pytest.raises(StorageFailed, match="another program has it open"):
                await sessions.run(says("ran"), name)
        assert not (workspace / "ran").exists()
        assert [view.info.session_id for view in await sessions.manager.list_sessions()] == ["s"]
    assert (await sessions.run("z = 3")).committed
    await sessions.kill()
    assert await sessions.value("x, y, z") == "(2, [2], 3)"


@pytest.mark.anyio
async def test_a_disk_that_is_full_refuses_a_new_session(sessions: Sessions) -> None:
    """The other one goes on as far as it can; with space the new one is made."""
    await sessions.run("x = 1")

    def fill(db: Database) -> None:
        [count] = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {count}").fetchall()

    def unlimit(db: Database) -> None:
        db.execute(f"PRAGMA max_page_count = {1 << 30}").fetchall()

    await writer(sessions.store).run(fill)
    with contextlib.suppress(StorageFailed):
        for number in range(1000):
            await sessions.store.create_session(f"filler{number}", "none", {"limits": {}})
    with pytest.raises(StorageFailed, match="the disk is full; free some space"):
        await sessions.run("1", "new")
    assert (await sessions.store.find_session("new")) is None
    await writer(sessions.store).run(unlimit)
    assert await sessions.value("6 * 7", "new") == "42"
    assert await sessions.value("x + 1") == "2"


def test_a_disk_that_is_full_is_said_at_the_start(environ: dict[str, str], place: Place, runtime_dir: Path) -> None:
    """A data directory without space: one line with the remedy, and with space all works."""
    small = runtime_dir / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(small)], check=False)
    if mounted.returncode:
        missing("a small file system cannot be mounted here")
    try:
        (small / "filler").write_bytes(b"x" * (40 << 10))
        environ = {**environ, "KERNELREPL_DATA_DIR": str(small)}
        assert "free some space" in complaint(environ)
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert value(environ, "6 * 7") == "42"
    finally:
        end_keeper(small)
        subprocess.run(["umount", str(small)], check=True)


def test_a_workspace_that_cannot_be_made_is_said(environ: dict[str, str], place: Place) -> None:
    """No session is left without one; other sessions work, and this one does when the obstacle is gone."""
    assert value(environ, "x = 6; x") == "6"
    workspaces = place.data_dir / "workspaces"
    aside = place.data_dir / "aside"
    workspaces.rename(aside)
    workspaces.touch()
    assert "cannot be made: Not a directory; free some space or make the one above it writable" in complaint(
        environ, "exec", "-s", "new", "1"
    )
    assert place.rows("SELECT session_id FROM sessions") == [("s",)]
    workspaces.unlink()
    aside.rename(workspaces)
    assert value(environ, "x + 1") == "7"
    assert value(environ, "1", "new") == "1"


# A database that goes away under a keeper


def test_a_database_that_is_deleted_under_a_keeper_is_missed(environ: dict[str, str], place: Place) -> None:
    """SQLite would go on in the deleted file and every reply would lie; put back, nothing is lost."""
    path = place.data_dir / "python_sessions.db"
    with by_hand(environ) as wire:
        assert wire.result(wire.ask_to_run("x = 1"))["committed"]
        identity = wire.ask_to_run(f"x = 2\n{says('begun')}\n{waits_for('go')}")
        wait_until(lambda: place.said("begun"))
        go = place.file("go")
        path.rename(place.data_dir / "aside")
        go.touch()
        failed = wire.result(identity)
        assert (failed["status"], failed["committed"]) == ("ok", False)
        assert "was deleted or replaced while it was in use; put it back" in failed["not_saved"][0]["reason"]
        refused = wire.answer(wire.ask_to_run("x = 3"))["result"]
        assert refused["isError"]
        assert f"put it back, or `kill {place.keeper.pid}`" in refused["content"][0]["text"]
        assert "put it back" in complaint(environ, "sessions")
        (place.data_dir / "aside").rename(path)
        assert wire.result(wire.ask_to_run("y = x"))["committed"]
        kill_9(place.keeper)
        assert wire.result(wire.ask_to_run("x, y"))["result"] == "(2, 2)"
        assert wire.close() == 0


def test_a_keeper_whose_database_was_deleted_ends_and_the_next_starts_anew(
    environ: dict[str, str], place: Place
) -> None:
    """As the message says: with the number of its process."""
    assert value(environ, "x = 6; x") == "6"
    keeper = place.keeper
    for file in place.data_dir.glob("python_sessions.db*"):
        file.unlink()
    assert f"`kill {keeper.pid}` and the next call starts with what is there" in complaint(environ)
    keeper.terminate()
    assert discovery.wait_for_end(keeper.pid, 20)
    done = command(environ, "exec", "-s", "s", "'x' in globals()")
    assert done.stdout == "False\n"
    assert "was gone or empty when its keeper started" in done.stderr


def test_a_log_that_is_deleted_under_a_keeper_costs_nothing(environ: dict[str, str], place: Place) -> None:
    """What is committed without it is in the database itself: kill -9 loses nothing of it."""
    with by_hand(environ) as wire:
        assert wire.result(wire.ask_to_run("x = 1"))["committed"]
        (place.data_dir / "python_sessions.db-wal").unlink()
        assert wire.result(wire.ask_to_run("x = 2; big = b'1' * 3_000_000"))["committed"]
        kill_9(place.keeper)
        assert wire.result(wire.ask_to_run("x, len(big)"))["result"] == "(2, 3000000)"
        assert wire.close() == 0


# Data directories


def _file(path: Path) -> Path:
    path.touch()
    return path


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


@pytest.mark.parametrize("setting", ["DATA_DIR", "RUNTIME_DIR"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_file, "{path} is no directory; move it away or set {setting} to another one"),
        (_loop, "{path} is no directory; move it away or set {setting} to another one"),
        (lambda path: _file(path) / "below", "cannot be used: Not a directory; make it writable or set {setting} to"),
        (lambda path: Path("rel/ative"), "'rel/ative'"),
        (lambda path: Path("~no-such-user/x"), "give an absolute path"),
        (lambda path: Path("/tmp") / ("x" * 300), "File name too long; make it writable or set {setting} to another"),
    ],
    ids=["file", "loop", "below a file", "relative", "no such home", "too long a name"],
)
def test_a_directory_that_cannot_be_is_refused_with_its_setting(
    environ: dict[str, str], tmp_path: Path, setting: str, make: Callable[[Path], Path], said: str
) -> None:
    """One line that says which of the two it is; a relative one would be elsewhere for each host."""
    path = make(tmp_path / "place")
    name = f"KERNELREPL_{setting}"
    answer = complaint({**environ, name: str(path)})
    if setting == "RUNTIME_DIR" and len(str(path)) > SOCKET_PATH_BYTES:
        assert "bytes too long for sockets; set KERNELREPL_RUNTIME_DIR to a shorter one" in answer
    else:
        assert said.format(path=path, setting=name) in answer


def test_a_home_in_a_setting_is_meant(environ: dict[str, str]) -> None:
    """Hosts start us without a shell that would replace it; an empty setting is none."""
    data_dir = Path(environ["HOME"]) / "mine"
    environ = {**environ, "KERNELREPL_DATA_DIR": "~/mine", "KERNELREPL_PYTHON": ""}
    assert value(environ, "6 * 7") == "42"
    assert (data_dir / "python_sessions.db").exists()
    end_keeper(data_dir)


def test_a_data_directory_may_have_a_long_path(environ: dict[str, str], tmp_path: Path) -> None:
    """Sockets are elsewhere, where their names fit."""
    data_dir = tmp_path / ("d" * 100) / ("e" * 100)
    environ = {**environ, "KERNELREPL_DATA_DIR": str(data_dir)}
    assert value(environ, "6 * 7") == "42"
    end_keeper(data_dir)


def test_a_data_directory_that_cannot_be_written_is_refused(theirs: Path) -> None:
    """Before a keeper is started that would fail."""
    theirs.chmod(0o500)
    environ = {"KERNELREPL_DATA_DIR": str(theirs / "data")}
    with (
        ordinary_user(),
        pytest.raises(KeeperUnavailable, match="Permission denied; make it writable or set KERNELREPL_DATA_DIR"),
    ):
        discovery.connect_or_start(environ, discovery.AGENT, {"client": "test"})


# Runtime directories


def test_a_runtime_directory_that_is_too_long_is_refused(environ: dict[str, str], runtime_dir: Path) -> None:
    """By how much, and where a shorter one is set; the longest that fits works."""
    longest = SOCKET_PATH_BYTES - len("/k-00000000/s-5")
    for excess in (1, 40):
        path = runtime_dir / ("r" * (longest + excess - len(str(runtime_dir)) - 1))
        answer = complaint({**environ, "KERNELREPL_RUNTIME_DIR": str(path)})
        assert f"is {excess} bytes too long for sockets; set KERNELREPL_RUNTIME_DIR to a shorter one" in answer
    path = runtime_dir / ("r" * (longest - len(str(runtime_dir)) - 1))
    assert value({**environ, "KERNELREPL_RUNTIME_DIR": str(path)}, "6 * 7") == "42"


def test_a_directory_of_somebody_else_is_refused(foreign: Path, tmp_path: Path) -> None:
    """Also behind a link of ours: who owns it could take the place of our sockets."""
    link = tmp_path / "link"
    link.symlink_to(foreign)
    for path in (foreign, link):
        with pytest.raises(KeeperUnavailable, match="belongs to another user; set KERNELREPL_RUNTIME_DIR to a dir"):
            discovery.make_private(path, "KERNELREPL_RUNTIME_DIR")


def test_a_place_for_sockets_is_found_whatever_the_platform_says(tmp_path: Path, foreign: Path) -> None:
    """Without XDG_RUNTIME_DIR, or with one that is missing, relative, a file or not ours, it is below /tmp."""
    data_dir = tmp_path / "data"
    below_tmp = discovery.runtime_dir(data_dir, None, {})
    assert below_tmp.parent == Path("/tmp") / f"kernelrepl-{os.getuid()}"
    for wrong in ("", "run", str(tmp_path / "missing"), str(_file(tmp_path / "file")), str(foreign), "/x" * 100):
        assert discovery.runtime_dir(data_dir, None, {"XDG_RUNTIME_DIR": wrong}) == below_tmp
    with tempfile.TemporaryDirectory(dir="/tmp") as ours:
        found = discovery.runtime_dir(data_dir, None, {"XDG_RUNTIME_DIR": ours})
        assert found.parent == Path(ours) / "kernelrepl"


def test_without_home_and_runtime_directory_it_works(environ: dict[str, str], place: Place) -> None:
    """As under some service managers; what is below /tmp is ours alone."""
    bare = {name: environ[name] for name in ("PATH", "KERNELREPL_DATA_DIR")}
    assert value(bare, "6 * 7") == "42"
    found = discovery.read_keeper(place.data_dir)
    assert found is not None
    runtime = Path(found["agent"]).parent
    assert runtime.is_relative_to("/tmp")
    assert {path.stat().st_mode & 0o777 for path in (runtime, runtime.parent)} == {0o700}
    end_keeper(place.data_dir)
    shutil.rmtree(runtime)


# What goes away under a keeper


@pytest.mark.parametrize("gone", ["runtime directory", "sockets", "keeper.json", "garbage in keeper.json"])
def test_a_keeper_that_was_cleaned_out_of_sight_is_found_again(
    environ: dict[str, str], place: Place, gone: str
) -> None:
    """Whoever cleans /tmp must not cut anybody off: those that are connected go on, and the next one finds it."""
    with by_hand(environ) as wire:
        assert wire.result(wire.ask_to_run("x = 1"))["committed"]
        keeper = place.keeper.pid
        match gone:
            case "runtime directory":
                shutil.rmtree(place.runtime_dir)
            case "sockets":
                for path in place.runtime_dir.glob("*.sock"):
                    path.unlink()
            case "keeper.json":
                (place.data_dir / "keeper.json").unlink()
            case _:
                (place.data_dir / "keeper.json").write_text("garbage")
        once = wire.ask("tools/call", name="python_repl", arguments={"code": "6 * 7"})
        assert wire.result(once)["result"] == "42"
        assert value(environ, "x") == "1"
        assert place.keeper.pid == keeper
        assert place.runtime_dir.stat().st_mode & 0o777 == 0o700
        assert wire.result(wire.ask_to_run("x"))["restored"] is None
        assert wire.close() == 0
    if gone == "sockets":
        for path in place.runtime_dir.glob("*.sock"):
            path.unlink()
        assert "the keeper stops" in command(environ, "stop").stdout


def test_a_keeper_that_does_not_answer_is_named(
    environ: dict[str, str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by a signal or a debugger: how to let it go on or end it; it is not taken for one that is gone."""
    assert value(environ, "x = 6; x") == "6"
    keeper = place.keeper
    monkeypatch.setattr(discovery, "_HELLO_TIMEOUT_S", SHORT_S)
    keeper.send_signal(signal.SIGSTOP)
    try:
        for look in (discovery.connect, discovery.find):
            with pytest.raises(KeeperSilent) as caught:
                look(place.data_dir, discovery.AGENT, {"client": "test"})
            assert f"`kill -CONT {keeper.pid}` lets it go on" in str(caught.value)
            assert f"`kill -9 {keeper.pid}` ends it: what is saved stays" in str(caught.value)
    finally:
        keeper.send_signal(signal.SIGCONT)
    assert value(environ, "x") == "6"
    assert place.keeper == keeper


# What a crash left


def test_what_names_a_process_of_somebody_else_is_not_believed(environ: dict[str, str], place: Place) -> None:
    """A keeper.json and a lock with a number that another process has by now: that process is left alone."""
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            content = {"pid": other.pid, "agent": str(place.runtime_dir / "agent.sock"), "operator": "/nowhere"}
            (place.data_dir / "keeper.json").write_text(json.dumps(content))
            (place.data_dir / "keeper.lock").write_text(str(other.pid))
            (place.data_dir / "start.lock").write_text("left")
            (place.runtime_dir / "agent.sock").touch()
            assert command(environ, "stop").stdout == "no keeper is running\n"
            assert value(environ, "6 * 7") == "42"
            assert place.keeper.pid != other.pid
            assert other.poll() is None
        finally:
            other.kill()


def test_a_second_keeper_names_the_first_one(environ: dict[str, str], place: Place) -> None:
    """With the number of its process, for when it can be reached in no other way."""
    value(environ, "1")
    done = command(environ, "keeper")
    assert done.returncode == 1
    assert f"`kernelrepl stop` or `kill {place.keeper.pid}` ends it" in place.log()
    assert KeeperRunning(str(place.data_dir)).pid is None


# Settings


@pytest.mark.parametrize("content", ["data_dir = 5", "data_dir = ['x']", "[data_dir]\nx = 1", 'data_dir = "rel"'])
def test_a_data_directory_in_the_file_that_is_none_is_said(
    environ: dict[str, str], tmp_path: Path, content: str
) -> None:
    """The proxy reads it before anything that checks settings; it names file and setting all the same."""
    file = tmp_path / "config.toml"
    file.write_text(content)
    without = {name: text for name, text in environ.items() if name != "KERNELREPL_DATA_DIR"}
    for arguments in (("sessions",), ("stop",)):
        answer = complaint({**without, "KERNELREPL_CONFIG": str(file)}, *arguments)
        assert answer.startswith(f"data_dir in {file} = ")
        assert "give a" in answer


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), _loop], ids=["directory", "loop"])
def test_a_config_file_that_is_no_file_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any]
) -> None:
    """It would be passed over without a word."""
    path = tmp_path / "config.toml"
    make(path)
    monkeypatch.setenv("KERNELREPL_CONFIG", str(path))
    with pytest.raises(InvalidSettings, match="is no file; remove it or set KERNELREPL_CONFIG to another one"):
        config.load()


def test_a_config_file_that_cannot_be_read_is_said(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own name, to the keeper and to the proxy."""
    path = theirs / "config.toml"
    path.write_text("max_output_chars = 300\n")
    path.chmod(0)
    monkeypatch.setenv("KERNELREPL_CONFIG", str(path))
    reads: list[Callable[[], Any]] = [config.load, lambda: discovery.data_dir({})]
    for read in reads:
        with (
            ordinary_user(),
            pytest.raises(KernelReplError, match=r"cannot be read: .*Permission denied.*; correct it"),
        ):
            read()


def test_a_setting_that_nobody_filled_in_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates of hosts leave an empty text."""
    monkeypatch.setenv("KERNELREPL_CONFIG", str(tmp_path / "none.toml"))
    for name in ("DATA_DIR", "RUNTIME_DIR", "PYTHON"):
        monkeypatch.setenv(f"KERNELREPL_{name}", "")
    settings = config.load()
    assert (settings.data_dir, settings.runtime_dir) == (discovery.default_data_dir(), None)
    assert settings.python == sys.executable
    assert config.for_client(settings, {"KERNELREPL_PYTHON": ""}).python == sys.executable


# Interpreters


def _script(path: Path, content: str, mode: int = 0o700) -> str:
    path.write_text(content)
    path.chmod(mode)
    return str(path)


def _directory(path: Path) -> str:
    path.mkdir()
    return str(path)


def _bare_python() -> str:
    found = Path(sys.base_prefix) / "bin" / "python3"
    if sys.base_prefix == sys.prefix or not found.exists():
        missing("there is no second Python here")
    return str(found)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: str(path), "No such file or directory: {python};"),
        (lambda path: _script(path, "x", 0o600), "Permission denied: {python};"),
        (lambda path: _directory(path), "Permission denied: {python};"),
        (lambda path: _script(path, "no program"), "Exec format error: {python};"),
        (lambda path: _script(path, "#!/nowhere/python\n"), "No such file or directory: {python};"),
        (lambda path: _script(path, "#!/bin/sh\necho 'not Python'; exit 3\n"), "it exited with code 3: {python};"),
    ],
    ids=["missing", "not executable", "directory", "text", "bad interpreter", "not Python"],
)
def test_an_interpreter_that_is_none_is_refused_and_can_be_corrected(
    shared_environ: dict[str, str], tmp_path: Path, make: Callable[[Path], str], said: str
) -> None:
    """With its path and what it needs; the session that was to have it may have another one."""
    python, session_id = make(tmp_path / "python"), tmp_path.name
    answer = complaint({**shared_environ, "KERNELREPL_PYTHON": python}, "exec", "-s", session_id, "1")
    assert answer.startswith("the kernel could not be started: ")
    assert said.format(python=python) in answer
    assert "KERNELREPL_PYTHON must name a Python 3.11 or later with ipykernel, cloudpickle and xxhash" in answer
    assert value(shared_environ, "6 * 7", session_id) == "42"


def test_an_interpreter_that_lacks_what_kernels_need_says_how_to_get_it(
    shared_environ: dict[str, str], tmp_path: Path
) -> None:
    """With the command; the session that was to have it may have another one."""
    python = _bare_python()
    answer = complaint({**shared_environ, "KERNELREPL_PYTHON": python}, "exec", "-s", tmp_path.name, "1")
    assert f"{python} lacks what kernels need; install it with: {python} -m pip install 'ipykernel>=7'" in answer
    assert value(shared_environ, "6 * 7", tmp_path.name) == "42"


def test_the_interpreter_of_the_first_client_is_not_that_of_the_next(environ: dict[str, str], place: Place) -> None:
    """Whoever starts the keeper brings its settings for its own sessions only; a session keeps the one it ran with."""
    assert "/nowhere/python" in complaint({**environ, "KERNELREPL_PYTHON": "/nowhere/python"})
    assert value(environ, "6 * 7", "another") == "42"
    assert value({**environ, "KERNELREPL_PYTHON": "/nowhere/python"}, "6 * 7", "another") == "42"
    assert len(place.keepers()) == 1
