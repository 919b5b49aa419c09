"""The life of a keeper: alone on its data directory, gone when nobody needs it, clean in every end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import psutil
import pytest

from kernelrepl import discovery
from kernelrepl.client import connection as client
from kernelrepl.config import Settings
from kernelrepl.errors import DatabaseTooNew, KeeperRunning, KeeperUnavailable, StorageFailed
from kernelrepl.keeper.keeper import Keeper
from kernelrepl.mcp.server import ClientHandler
from kernelrepl.sandbox import interpreter
from tests.conftest import this_tier, works_in
from tests.support.mcp_hosts import (
    DEADLINE_S,
    Place,
    by_hand,
    call,
    command,
    host,
    kill_9,
    refusal,
    run,
    says,
    text_of,
    until,
    wait_until,
    waits_for,
)

pytestmark = pytest.mark.anyio

GRACE_S = 0.05


@pytest.fixture
def place(environ: dict[str, str]) -> Place:
    return Place(environ)


def settings_of(place: Place, **others: Any) -> Settings:
    return Settings(data_dir=place.data_dir, runtime_dir=place.runtime_dir, **others)


@asynccontextmanager
async def serving(place: Place, monkeypatch: pytest.MonkeyPatch, **others: Any) -> AsyncIterator[asyncio.Task[None]]:
    """A keeper in this process that leaves early; the commands of this process find it."""
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    ready = asyncio.Event()
    keeper = Keeper(settings_of(place, **others), ClientHandler(), exit_grace_s=GRACE_S)
    running = asyncio.create_task(keeper.run(ready.set))
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if running.done():
            running.result()
        yield running
    finally:
        keeper.stopping.set()
        await asyncio.wait({running}, timeout=DEADLINE_S)
        running.result()


def kernels(place: Place) -> list[psutil.Process]:
    """Processes that work in a workspace of this data directory."""
    workspaces = list((place.data_dir / "workspaces").glob("*"))
    return [process for process in psutil.process_iter() if works_in(process, *workspaces)]


def nothing_is_left(place: Place) -> bool:
    """No keeper.json, no socket, no kernel and no directory of one."""
    assert not (place.data_dir / "keeper.json").exists()
    assert not [path.name for path in place.runtime_dir.iterdir() if path.name not in ("ipython", "sandbox.json")]
    assert kernels(place) == []
    return True


# When it leaves


async def test_a_keeper_that_nobody_needs_leaves(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No client and no kernel for a while: it ends by itself, without a trace."""
    async with serving(place, monkeypatch) as running:
        async with asyncio.timeout(DEADLINE_S):
            await running
    assert nothing_is_left(place)


async def test_a_keeper_with_a_client_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without any call is enough; when it closes, the keeper leaves."""
    async with serving(place, monkeypatch) as running:
        found = await asyncio.to_thread(discovery.connect, place.data_dir, discovery.AGENT, {"client": "test"})
        assert found is not None
        sock, answer = found
        assert (answer["kernelrepl"], answer["pid"]) == (discovery.PROTOCOL, os.getpid())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(GRACE_S * 10):
                await asyncio.shield(running)
        sock.close()
        async with asyncio.timeout(DEADLINE_S):
            await running


async def test_an_interpreter_is_asked_once_until_a_first_kernel_runs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether kernels can be confined is found out where they start, so that they need not ask again."""
    asked: list[Any] = []
    ask = interpreter._ask

    def counting(*arguments: Any) -> interpreter.Interpreter:
        asked.append(arguments)
        return ask(*arguments)

    monkeypatch.setattr(interpreter, "_ask", counting)
    monkeypatch.setattr(interpreter, "_known", {})
    async with serving(place, monkeypatch, warm_start="off"), client.connect() as connected:
        assert (await run(connected, "1+1"))["result"] == "2"
    assert len(asked) == 1


async def test_a_keeper_with_running_code_stays_until_its_kernel_sleeps(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is gone, the code goes on, its kernel idles out, and then nobody needs the keeper."""
    async with serving(place, monkeypatch, idle_timeout_s=0.2) as running:
        async with client.connect() as connected:
            assert (await run(connected, f"x = 1\n{says('ran')}\n{waits_for('go')}", wait=0))["status"] == "running"
            await until(lambda: place.said("ran"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(GRACE_S * 10):
                await asyncio.shield(running)
        assert kernels(place)
        place.file("go").touch()
        async with asyncio.timeout(DEADLINE_S):
            await running
    assert nothing_is_left(place)
    assert place.rows("SELECT status, commit_id IS NOT NULL FROM executions") == [("ok", 1)]


async def test_a_keeper_whose_data_directory_was_removed_leaves(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel has nothing to be kept in, and nobody is there to be told."""
    async with serving(place, monkeypatch, idle_timeout_s=0.2) as running:
        async with client.connect() as connected:
            assert (await run(connected, "held = (letter for letter in 'ab')"))["status"] == "ok"
            kernel = place.kernel()
            shutil.rmtree(place.data_dir)
            refused = await refusal(connected, "python_repl", code="x = 1", session_id="s")
            assert "was deleted or replaced" in refused
        async with asyncio.timeout(DEADLINE_S):
            await running
    assert not kernel.is_running()


# How it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_keeper_cleanly(environ: dict[str, str], place: Place, number: signal.Signals) -> None:
    """With a live kernel: all processes, sockets and files of the run are gone, the log tells, the session stays."""
    async with host(environ) as one:
        await run(one, "x = 1")
    keeper, kernel = place.keeper, place.kernel()
    keeper.send_signal(number)
    assert discovery.wait_for_end(keeper.pid, DEADLINE_S)
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE
    assert nothing_is_left(place)
    assert "serving" in place.log()
    assert place.log().rstrip().endswith("stopping")
    async with host(environ) as two:
        assert (await run(two, "x"))["result"] == "1"


async def test_a_keeper_ends_while_code_runs(environ: dict[str, str], place: Place) -> None:
    """SIGTERM waits for no loop; the row tells the truth about what became of it."""
    async with host(environ) as one:
        await run(one, "x = 1")
        assert (await run(one, f"x = 2\n{says('ran')}\nwhile True: pass", wait=0))["status"] == "running"
        await until(lambda: place.said("ran"))
    keeper = place.keeper
    keeper.terminate()
    assert discovery.wait_for_end(keeper.pid, DEADLINE_S)
    assert nothing_is_left(place)
    async with host(environ) as two:
        outcome = await call(two, "python_wait", session_id="s")
        assert outcome["status"] in ("crashed", "interrupted")
        assert (await run(two, "x"))["result"] == ("2" if outcome["committed"] else "1")


async def test_files_and_sockets_are_private(environ: dict[str, str], place: Place) -> None:
    """Only their owner enters the directories, reads the database and connects."""
    async with host(environ) as one:
        await run(one, "x = 1")
        for path in (place.data_dir, place.runtime_dir, place.file("")):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        for path in (
            place.data_dir / "python_sessions.db",
            place.data_dir / "keeper.json",
            place.runtime_dir / "agent.sock",
            place.runtime_dir / "operator.sock",
        ):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


# One for a data directory


async def test_a_second_keeper_refuses(environ: dict[str, str], place: Place) -> None:
    """In this process or another, while the first one serves; the first one is not disturbed."""
    async with host(environ) as one:
        await run(one, "x = 1")
        with pytest.raises(KeeperRunning, match="kernelrepl stop"):
            await Keeper(settings_of(place), ClientHandler()).run()
        answer, code = await asyncio.to_thread(start_keeper, environ)
        assert code == 1
        assert str(place.data_dir) in answer["error"]
        assert (await run(one, "x"))["restored"] is None


def start_keeper(environ: dict[str, str]) -> tuple[dict[str, Any], int]:
    """Start a keeper that is to fail: what it says about that, and its exit code."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as ready:
        process = subprocess.Popen(
            [sys.executable, "-m", "kernelrepl", "keeper", "--ready-fd", str(write_end)],
            env=environ,
            pass_fds=(write_end,),
        )
        os.close(write_end)
        answer = json.loads(ready.readline())
    return answer, process.wait(DEADLINE_S)


async def test_a_stranger_on_the_socket_is_sent_away(environ: dict[str, str], place: Place) -> None:
    """What is no hello gets one line that says what is expected here; the keeper serves on."""
    async with host(environ) as one:
        await run(one, "x = 1")
        for line in (b"GET / HTTP/1.1\r\n", b"{}\n", b"[]\n", b'{"client": "x", "settings": 5}\n', b"\xff\n", b"\n"):
            with closing(socket.socket(socket.AF_UNIX)) as sock:
                sock.settimeout(DEADLINE_S)
                sock.connect(str(place.runtime_dir / "agent.sock"))
                sock.sendall(line)
                with sock.makefile() as answers:
                    answer = json.loads(answers.readline())
                    assert "hello" in answer["error"], line
                    assert answers.readline() == ""
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.connect(str(place.runtime_dir / "agent.sock"))  # and one that leaves without a word
        assert (await run(one, "x"))["result"] == "1"


async def test_only_operators_can_stop_it(
    environ: dict[str, str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agents' socket has no tools for that; the operators' one has them besides."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    async with client.connect() as agent:
        tools = {tool.name for tool in (await agent.list_tools()).tools}
        assert not {name for name in tools if name.startswith("keeper")}
        assert (await agent.call_tool("keeper_stop", {})).is_error
        await run(agent, "x = 1")
        async with client.connect(operator=True, start=False) as operator:
            more = {tool.name for tool in (await operator.list_tools()).tools}
            assert more - tools == {
                "keeper_status",
                "keeper_workspace",
                "keeper_written",
                "keeper_history",
                "keeper_grant",
                "keeper_attach",
                "keeper_detach",
                "keeper_left",
                "keeper_interrupt",
                "keeper_rename",
                "keeper_connection_file",
                "keeper_trust",
                "keeper_packages",
                "keeper_install",
                "keeper_import_state",
                "keeper_import_history",
                "keeper_import_values",
                "keeper_log",
                "keeper_watch",
                "keeper_outcome",
                "keeper_rename_session",
                "keeper_stop",
            }
            status = await call(operator, "keeper_status")
            assert status["pid"] == place.keeper.pid
            assert status["kernels"] == {"s": place.kernel().pid}
            found = await operator.call_tool("keeper_workspace", {"session_id": "s"})
            assert text_of(found) == str(place.file(""))
            assert (status["sessions"], status["connections"], status["sandbox"]) == (1, 2, this_tier().label)


async def test_without_a_keeper_an_operator_starts_none(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at a keeper must not make one."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(look())
    assert caught.group_contains(KeeperUnavailable, match="no keeper is running")


async def look() -> None:
    async with client.connect(operator=True, start=False) as operator:
        await call(operator, "keeper_status")


# Settings of a client


async def test_limits_of_a_client_count_for_the_sessions_it_creates(environ: dict[str, str]) -> None:
    """They are fixed with the session: another client's do not change them, not even in a new keeper."""
    strict = {**environ, "KERNELREPL_MAX_VARIABLE_BYTES": "10000"}
    async with host(environ) as free, host(strict) as bound:
        result = await run(bound, "big = 'a' * 50_000; small = 1", "bound")
        assert [entry["name"] for entry in result["not_saved"]] == ["big"]
        assert "10000" in result["not_saved"][0]["reason"]
        assert (await run(free, "big = 'a' * 50_000", "free"))["not_saved"] == []
        assert [e["name"] for e in (await run(free, "again = 'b' * 50_000", "bound"))["not_saved"]] == ["again"]
        assert (await run(bound, "again = 'b' * 50_000", "free"))["not_saved"] == []
    kill_9(Place(environ).keeper)
    async with host(environ) as free:
        assert [e["name"] for e in (await run(free, "more = 'c' * 50_000", "bound"))["not_saved"]] == ["more"]


# Idle kernels


async def test_an_idle_kernel_is_stopped_and_comes_back_at_the_next_call(environ: dict[str, str], place: Place) -> None:
    """Asleep, the session is listed with its variables and has no process; a call wakes it."""
    async with host({**environ, "KERNELREPL_IDLE_TIMEOUT_S": "0.3"}) as one:
        await run(one, "x = 1")
        await until(lambda: sleeps(one, "s"))
        await until(lambda: not kernels(place))
        listed = await call(one, "python_list_variables", session_id="s")
        assert [entry["name"] for entry in listed["variables"]] == ["x"]
        assert await sleeps(one, "s")
        assert (await call(one, "python_wait", session_id="s"))["status"] == "ok"
        woken = await run(one, "x")
        assert (woken["result"], woken["restored"]) == ("1", {"names": ["x"], "not_restored": []})
    assert "hibernated session='s'" in place.log()


async def sleeps(connected: Any, session_id: str) -> bool:
    listed = await call(connected, "python_list_sessions")
    return bool({entry["session_id"]: entry["kernel"] for entry in listed["sessions"]}[session_id] == "asleep")


async def test_a_kernel_with_unsaved_names_is_not_stopped(environ: dict[str, str], place: Place) -> None:
    """Stopping it would lose them: another one that idled for less time sleeps, it does not, until they are gone."""
    async with host({**environ, "KERNELREPL_IDLE_TIMEOUT_S": "0.3"}) as one:
        result = await run(one, "numbers = (n for n in range(3)); next(numbers)", "unsaved")
        assert [entry["name"] for entry in result["not_saved"]] == ["numbers"]
        await run(one, "x = 1", "saved")
        await until(lambda: sleeps(one, "saved"))
        assert not await sleeps(one, "unsaved")
        assert (await run(one, "next(numbers)", "unsaved"))["result"] == "1"
        await run(one, "del numbers", "unsaved")
        await until(lambda: sleeps(one, "unsaved"))


async def test_busy_code_is_not_idle(environ: dict[str, str], place: Place) -> None:
    """Code that runs longer than the idle time is left alone."""
    async with host({**environ, "KERNELREPL_IDLE_TIMEOUT_S": "0.3"}) as one:
        assert (await run(one, f"x = 1\n{says('ran')}\n{waits_for('go')}\nx", "busy", wait=0))["status"] == "running"
        await run(one, "1", "idle")
        await until(lambda: sleeps(one, "idle"))
        assert not await sleeps(one, "busy")
        place.file("go", "busy").touch()
        assert (await call(one, "python_wait", session_id="busy"))["result"] == "1"


# The database


async def test_a_database_of_a_newer_version_is_refused(environ: dict[str, str], place: Place) -> None:
    """Untouched, and with the remedy; in this process and through the front."""
    async with host(environ) as one:
        await run(one, "x = 1")
    await stop(place)
    database = place.data_dir / "python_sessions.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('kernelrepl', 'later', 'now')"
        )
    before = database.read_bytes()
    with pytest.raises(DatabaseTooNew, match="pip install -U kernelrepl"):
        await Keeper(settings_of(place), ClientHandler()).run()
    answer, code = await asyncio.to_thread(start_keeper, environ)
    assert code == 1
    assert "newer kernelrepl" in answer["error"]
    assert database.read_bytes() == before
    assert nothing_is_left(place)


async def stop(place: Place) -> None:
    """End the keeper of a place and wait until it has."""
    keeper = place.keeper
    keeper.terminate()
    assert await asyncio.to_thread(discovery.wait_for_end, keeper.pid, DEADLINE_S)


async def test_a_file_that_is_no_database_is_refused(environ: dict[str, str], place: Place) -> None:
    """With the remedy, and the file stays as it is."""
    content = b"no database at all, " * 100
    database = place.data_dir / "python_sessions.db"
    database.write_bytes(content)
    with pytest.raises(StorageFailed, match="move it away"):
        await Keeper(settings_of(place), ClientHandler()).run()
    answer, code = await asyncio.to_thread(start_keeper, environ)
    assert code == 1
    assert "move it away" in answer["error"]
    assert database.read_bytes() == content
    assert nothing_is_left(place)


async def test_a_refused_start_leaves_the_place_usable(environ: dict[str, str], place: Place) -> None:
    """Once the obstacle is gone, the next call works."""
    database = place.data_dir / "python_sessions.db"
    database.write_bytes(b"no database at all, " * 100)
    with pytest.raises(StorageFailed):
        await Keeper(settings_of(place), ClientHandler()).run()
    database.unlink()
    async with host(environ) as one:
        assert (await run(one, "6 * 7"))["result"] == "42"


async def test_a_cut_off_execution_is_marked_by_the_next_keeper(environ: dict[str, str], place: Place) -> None:
    """Whoever asks later hears that it crashed, and what that means."""
    with by_hand(environ) as wire:
        wire.ask_to_run(f"x = 1\n{says('ran')}\n{waits_for('never')}")
        wait_until(lambda: place.said("ran"))
        os.kill(wire.process.pid, signal.SIGKILL)
        wire.process.wait()
        kill_9(place.keeper)
    async with host(environ) as one:
        outcome = await call(one, "python_wait", session_id="s")
        assert (outcome["status"], outcome["committed"]) == ("crashed", False)
        assert "nothing of it was kept" in outcome["note"]
        assert (await run(one, "'x' in globals()"))["result"] == "False"


# Hashes

KEYED = """
class Key:
    def __init__(self, text): self.text, self.known = text, hash(text)
    def __hash__(self): return self.known
    def __eq__(self, other): return self.text == other.text
table = {Key(f'key {n}'): n for n in range(50)}
text = hash('text')
"""
LOOKED_UP = (
    "import os, subprocess, sys\n"
    "child = subprocess.run([sys.executable, '-c', 'print(hash(1 << 70))'], capture_output=True, text=True).stdout\n"
    "([table.get(Key(f'key {n}')) for n in range(50)] == list(range(50)), hash('text') == text,"
    " 'PYTHONHASHSEED' in os.environ, bool(child))"
)


@pytest.mark.parametrize("first", ["on", "off"])
async def test_what_remembers_a_hash_is_right_in_every_later_kernel(environ: dict[str, str], first: str) -> None:
    """Forked or cold, after the end of the keeper; what a session starts is told nothing of the seed."""
    place = Place(environ)
    cold, warm = ({**environ, "KERNELREPL_WARM_START": how} for how in ("off", "on"))
    order = [cold, warm] if first == "off" else [warm, cold]
    assert command(order[0], "exec", "-s", "s", KEYED).returncode == 0
    for environment in (*order, order[0]):
        command(environ, "stop")
        done = command(environment, "exec", "-s", "s", LOOKED_UP)
        assert "(True, True, False, True)" in done.stdout, done
    seed = place.data_dir / "hash_seed"
    assert seed.stat().st_mode & 0o777 == 0o600
    assert 0 < int(seed.read_text()) < 1 << 32
