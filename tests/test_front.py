"""What a host keeps through every death behind it: one front, its client, and each call answered once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from kernelrepl import rendezvous
from kernelrepl.front import RECONNECTS
from tests.conftest import end_keeper, works_in
from tests.mcp_hosts import (
    COMMAND,
    DEADLINE_S,
    MODES,
    Place,
    Wire,
    by_hand,
    call,
    host,
    kill_9,
    run,
    says,
    until,
    wait_until,
    waits_for,
)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(environ: dict[str, str]) -> Place:
    return Place(environ)


def committed(place: Place, session_id: str, executions: int) -> bool:
    """Whether a session has that many executions with a commit."""
    query = (
        "SELECT COUNT(*) FROM executions e JOIN sessions s ON s.id = e.session"
        " WHERE s.session_id = ? AND e.commit_id IS NOT NULL"
    )
    return bool(place.rows(query, session_id)[0][0] >= executions)


# Deaths between and during calls, through the SDK's client


@pytest.mark.anyio
@pytest.mark.parametrize("victim", ["kernel", "keeper"])
async def test_the_same_client_goes_on_after_a_death_between_calls(
    environ: dict[str, str], place: Place, mode: str, victim: str
) -> None:
    """kill -9 while nothing runs, three times over: each next call restores and says so."""
    async with host(environ, mode) as client:
        await run(client, "n = 0; words = ['kept']")
        for round_ in range(1, 4):
            kill_9(place.kernel() if victim == "kernel" else place.keeper)
            result = await run(client, "n += 1; words.append(n)\nn, len(words)")
            assert result["result"] == f"({round_}, {round_ + 1})"
            assert sorted(result["restored"]["names"]) == ["n", "words"]
            assert result["restored"]["not_restored"] == []
            assert result["execution_count"] == round_ + 1
        assert (await run(client, "n"))["restored"] is None
        assert len(await until(place.keepers)) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("victim", ["kernel", "keeper"])
async def test_the_same_client_goes_on_after_a_death_in_the_middle_of_a_call(
    environ: dict[str, str], place: Place, mode: str, victim: str
) -> None:
    """The call is answered as crashed, it ran once at most, and nothing of it was kept."""
    async with host(environ, mode) as client:
        await run(client, "n = 1")
        in_flight = asyncio.create_task(run(client, f"n = 2; m = 3\n{says('ran')}\n{waits_for('never')}"))
        await until(lambda: place.said("ran"))
        kill_9(place.kernel() if victim == "kernel" else place.keeper)
        crashed = await in_flight
        assert (crashed["status"], crashed["committed"]) == ("crashed", False)
        assert crashed["saved"] == {"created": [], "changed": [], "deleted": []}
        assert "were before it" in crashed["note"]
        after = await run(client, "n, 'm' in globals()")
        assert after["result"] == "(1, False)"
        assert after["restored"] == {"names": ["n"], "not_restored": []}
        assert place.said("ran") == 1


@pytest.mark.anyio
async def test_calls_in_several_sessions_survive_the_keeper(environ: dict[str, str], place: Place, mode: str) -> None:
    """Three calls in flight, one of them queued: all are answered, the queued one has run."""
    async with host(environ, mode) as client:
        for name in ("a", "b"):
            await run(client, "n = 0", name)
        code = f"n += 1\n{says('ran')}\n{waits_for('go')}\nn"
        running = [asyncio.create_task(run(client, code, name)) for name in ("a", "b")]
        await until(lambda: place.said("ran", "a") and place.said("ran", "b"))
        queued = asyncio.create_task(run(client, f"n += 10\n{says('queued')}\nn", "a"))
        listed = await call(client, "python_list_sessions")  # the queued call has reached the keeper before this one
        assert listed["session_count"] == 2
        kill_9(place.keeper)
        assert [(await task)["status"] for task in running] == ["crashed", "crashed"]
        after = await queued
        assert (after["status"], after["result"]) == ("ok", "10")
        assert (place.said("ran", "a"), place.said("ran", "b"), place.said("queued", "a")) == (1, 1, 1)


@pytest.mark.anyio
async def test_a_call_without_a_session_survives_the_keeper(environ: dict[str, str], place: Place, mode: str) -> None:
    """Nothing of it is stored, so it runs again, and its kernel and workspace are gone in the end."""
    async with host(environ, mode) as client:
        await run(client, "1")
        code = f"{says('ran')}\n{waits_for('go')}\n6 * 7"
        in_flight = asyncio.create_task(call(client, "python_repl", code=code))
        first = await until(lambda: list(place.runtime_dir.glob("once-*/ran")))
        kill_9(place.keeper)  # its kernel outlives it by a moment
        again = await until(lambda: [path for path in place.runtime_dir.glob("once-*/ran") if path not in first])
        (again[0].parent / "go").touch()
        assert (await in_flight)["result"] == "42"
        await until(lambda: not again[0].exists())


def alive(workspace: Path) -> bool:
    """Whether a process works in a directory."""
    return any(works_in(process, workspace) for process in psutil.process_iter())


def test_a_call_that_no_keeper_survives_is_given_up(environ: dict[str, str], place: Place, mode: str) -> None:
    """Asked again and again, it would end one keeper after the other: an error, and the connection lives."""
    killed: set[int] = set()

    def served_or_answered() -> bool:
        found = rendezvous.read_keeper(place.data_dir)
        runs = any(alive(path.parent) for path in place.runtime_dir.glob("once-*/ran"))
        return bool(wire.answers(identity)) or (runs and found is not None and found["pid"] not in killed)

    with by_hand(environ, mode) as wire:
        code = f"{says('ran')}\n{waits_for('never')}"
        identity = wire.ask("tools/call", name="python_repl", arguments={"code": code})
        while wait_until(served_or_answered) and not wire.answers(identity):
            keeper = place.keeper
            kill_9(keeper)
            killed.add(keeper.pid)
            assert len(killed) <= 2 * RECONNECTS
        assert "times in a row" in wire.answer(identity)["error"]["message"]
        assert wire.result(wire.ask_to_run("6 * 7"))["result"] == "42"
        assert wire.close() == 0
    assert wire.answers(identity) == 1


@pytest.mark.anyio
async def test_a_kernel_does_not_outlive_its_keeper(environ: dict[str, str], place: Place) -> None:
    """kill -9 of the keeper in the middle of a busy loop ends the kernel as well: nobody could commit for it."""
    async with host(environ) as client:
        in_flight = asyncio.create_task(run(client, f"{says('ran')}\nwhile True: pass"))
        await until(lambda: place.said("ran"))
        kernel = place.kernel()
        kill_9(place.keeper)
        await until(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)
        assert (await in_flight)["status"] == "crashed"


# The same, with every line in view


def test_a_call_in_flight_is_answered_once_when_the_keeper_dies(
    environ: dict[str, str], place: Place, mode: str
) -> None:
    """Killed around its commit, a call is either committed or has left nothing; never both, never twice."""
    asked: dict[int, dict[str, Any]] = {}
    with by_hand(environ, mode) as wire:
        assert wire.result(wire.ask_to_run("n = 0"))["committed"]
        for round_ in range(1, 5):
            identity = wire.ask_to_run(f"n += 1\n{says('ran')}")
            wait_until(lambda round_=round_: place.said("ran") == round_)  # type: ignore[misc]
            kill_9(place.keeper)
            asked[identity] = wire.result(identity)
        done = sum(result["committed"] for result in asked.values())
        assert wire.result(wire.ask_to_run("n"))["result"] == str(done)
        assert place.said("ran") == len(asked)
        assert wire.close() == 0
    for identity, result in asked.items():
        assert wire.answers(identity) == 1
        assert result["status"] == ("ok" if result["committed"] else "crashed")


def test_a_reply_that_was_lost_is_answered_from_its_row(environ: dict[str, str], place: Place, mode: str) -> None:
    """Committed, but the keeper dies before the reply is through: the client gets the outcome, nothing runs twice."""
    sessions = ("a", "b")
    with by_hand({**environ, "KERNELREPL_MAX_OUTPUT_CHARS": "4000000"}, mode) as wire:
        for name in sessions:
            assert wire.result(wire.ask_to_run("n = 0", name))["committed"]
        # More than the sockets hold, so that a front that does not read cannot have it all.
        code = f"n += 1\n{says('ran')}\n{waits_for('go')}\nprint('z' * 450_000)\nn"
        asked = [wire.ask_to_run(code, name) for name in sessions]
        wait_until(lambda: all(place.said("ran", name) for name in sessions))
        wire.process.send_signal(signal.SIGSTOP)
        for name in sessions:
            place.file("go", name).touch()
        wait_until(lambda: all(committed(place, name, 2) for name in sessions))
        kill_9(place.keeper)
        wire.process.send_signal(signal.SIGCONT)
        answers = {message["id"]: message for message in (wire.next(), wire.next())}
        for identity, name in zip(asked, sessions, strict=True):
            result = answers[identity]["result"]["structuredContent"]
            assert (result["status"], result["committed"], result["result"]) == ("ok", True, "1")
            assert result["stdout"] == "z" * 450_000 + "\n"
            assert "reply was lost" in result["note"]
            assert wire.result(wire.ask_to_run("n", name))["result"] == "1"
            assert place.said("ran", name) == 1
        assert wire.close() == 0
    assert [wire.answers(identity) for identity in asked] == [1, 1]


def test_a_call_in_flight_is_answered_when_the_keeper_is_stopped(
    environ: dict[str, str], place: Place, mode: str
) -> None:
    """SIGTERM is no reason for an error either: the client gets an outcome, and it is the truth."""
    with by_hand(environ, mode) as wire:
        assert wire.result(wire.ask_to_run("n = 0"))["committed"]
        identity = wire.ask_to_run(f"n += 1\n{says('ran')}\n{waits_for('never')}")
        wait_until(lambda: place.said("ran"))
        place.keeper.terminate()
        result = wire.result(identity)
        assert result["status"] in ("crashed", "interrupted")
        assert wire.result(wire.ask_to_run("n"))["result"] == str(int(result["committed"]))
        assert place.said("ran") == 1
        assert wire.close() == 0
    assert wire.answers(identity) == 1


def test_an_idle_front_outlives_a_stop(environ: dict[str, str], mode: str) -> None:
    """`kernelrepl stop` ends the keeper under a connected client, whose next call works."""
    with by_hand(environ, mode) as wire:
        assert wire.result(wire.ask_to_run("n = 1"))["committed"]
        for _ in range(3):
            stopped = subprocess.run(
                [str(COMMAND), "stop"], env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=True
            )
            assert "stops" in stopped.stdout
            assert wire.result(wire.ask_to_run("n"))["result"] == "1"
        assert wire.close() == 0


# One keeper


def test_five_fronts_at_once_start_one_keeper(environ: dict[str, str], place: Place) -> None:
    """On a fresh data directory, all at the same moment: one keeper serves them all."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(closing(Wire(environ, "legacy"))) for _ in range(5)]
        asked = [wire.introduce() for wire in wires]
        for wire, identity in zip(wires, asked, strict=True):
            assert "result" in wire.answer(identity)
        assert [process.pid for process in place.keepers()] == [place.keeper.pid]
    assert place.log().count("serving") == 1


@contextlib.contextmanager
def closing(wire: Wire) -> Any:
    try:
        yield wire
        assert wire.close() == 0
    finally:
        wire.abandon()


def test_fronts_that_lose_their_keeper_together_start_one(environ: dict[str, str], place: Place) -> None:
    """kill -9 under three connected clients: one of them starts the next keeper, all go on."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(by_hand(environ, mode)) for mode in ("auto", "legacy", "auto")]
        for number, wire in enumerate(wires):
            assert wire.result(wire.ask_to_run("n = 1", f"s{number}"))["committed"]
        kill_9(place.keeper)
        for number, wire in enumerate(wires):
            assert wire.result(wire.ask_to_run("n", f"s{number}"))["result"] == "1"
        assert [process.pid for process in place.keepers()] == [place.keeper.pid]
    assert place.log().count("serving") == 2


def test_what_a_dead_keeper_left_does_no_harm(environ: dict[str, str], place: Place) -> None:
    """A stale keeper.json, stale sockets and stale kernel directories are replaced by the next keeper."""
    with by_hand(environ) as wire:
        assert wire.result(wire.ask_to_run("n = 1"))["committed"]
        keeper = place.keeper
        wire.process.send_signal(signal.SIGSTOP)  # it would start the next one
        kill_9(keeper)
        wire.process.kill()
    assert (place.data_dir / "keeper.json").exists()
    assert (place.runtime_dir / "agent.sock").exists()
    with by_hand(environ) as wire:
        assert wire.result(wire.ask_to_run("n"))["result"] == "1"
        assert place.keeper.pid != keeper.pid
        assert wire.close() == 0
    directories = [path for path in place.runtime_dir.iterdir() if path.name.startswith("k-")]
    assert len(directories) == 1


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"pid": 99999999}',
        '{"pid": 99999999, "agent": "/nowhere/agent.sock", "operator": "/nowhere/operator.sock"}',
        '{"pid": 99999999, "agent": 5, "operator": null}',
        '{"pid": 99999999, "agent": "' + "x" * 500 + '", "operator": ""}',
    ],
)
def test_a_damaged_keeper_json_does_no_harm(environ: dict[str, str], place: Place, content: str) -> None:
    """Whatever stands there, a keeper is started that writes it anew."""
    (place.data_dir / "keeper.json").write_text(content)
    with by_hand(environ) as wire:
        assert wire.answer(wire.ask("tools/list"))["result"]["tools"]
        assert json.loads((place.data_dir / "keeper.json").read_text())["pid"] == place.keeper.pid
        assert wire.close() == 0


# The lines


def test_stdout_carries_messages_and_nothing_else(environ: dict[str, str], mode: str) -> None:
    """Whatever code writes to whatever descriptor, the client gets lines of JSON-RPC; stderr stays empty."""
    loud = (
        "import os, subprocess, sys, warnings, logging\nprint('one'); print('two', file=sys.stderr)\n"
        "os.write(1, b'raw one\\n'); os.write(2, b'raw two\\n')\n"
        "warnings.warn('a warning'); logging.warning('logged')\n"
        'child = \'import sys; print("child"); print("error", file=sys.stderr)\'\n'
        "subprocess.run([sys.executable, '-c', child])\nsys.stdout.buffer.write(b'bytes\\n')\n"
        "print('\\u2028 \\x1b[31m \\ud800 \\x00 \"method\": \"params\"')\n'last'"
    )
    with by_hand(environ, mode) as wire:
        assert wire.answer(wire.ask("tools/list"))["result"]["tools"]
        result = wire.result(wire.ask_to_run(loud))
        assert (result["status"], result["result"]) == ("ok", "'last'"), result
        for text in ("one", "raw one", "child", "bytes"):
            assert text in result["stdout"]
        for text in ("two", "raw two", "a warning", "error"):
            assert text in result["stderr"]
        assert wire.result(wire.ask_to_run("1/0"))["status"] == "error"
        assert wire.close() == 0
        assert wire.process.stderr is not None
        assert wire.process.stderr.read() == b""
    assert wire.noise == []
    assert len(wire.messages) > 2


def test_a_line_that_is_no_message_gets_an_error_and_the_connection_lives(environ: dict[str, str], mode: str) -> None:
    """Parse error or invalid request, as JSON-RPC has it; what comes next is served."""
    no_json = (b"this is no json", b"{", b"\xff\xfe\x00", b"[" * 100_000)
    no_message = (b"[1, 2]", b'{"jsonrpc": "2.0"}', b"5", b"null")
    with by_hand(environ, mode) as wire:
        for code, lines in ((-32700, no_json), (-32600, no_message)):
            for line in lines:
                wire.send_raw(line)
                answer = wire.next()
                assert answer["id"] is None
                assert answer["error"]["code"] == code, line
                assert wire.answer(wire.ask("tools/list"))["result"]["tools"]
        assert wire.close() == 0


def test_blank_lines_are_skipped(environ: dict[str, str], mode: str) -> None:
    """They are between messages, not messages."""
    with by_hand(environ, mode) as wire:
        for line in (b"", b"   ", b"\r"):
            wire.send_raw(line)
        before = len(wire.messages)
        assert wire.answer(wire.ask("tools/list"))["result"]["tools"]
        assert len(wire.messages) == before + 1
        assert wire.close() == 0


def test_a_message_in_pieces_is_one_message(environ: dict[str, str], mode: str) -> None:
    """Lines end where the newline is, not where a read ends."""
    with by_hand(environ, mode) as wire:
        wire.pieces = 7
        assert wire.result(wire.ask_to_run("'ä' * 3"))["result"] == "'äää'"
        assert wire.close() == 0


def test_a_large_message_passes_both_ways(environ: dict[str, str], mode: str) -> None:
    """Four megabytes of code arrive, and so does an answer larger than any buffer on the way."""
    with by_hand({**environ, "KERNELREPL_MAX_OUTPUT_CHARS": "4000000"}, mode) as wire:
        result = wire.result(wire.ask_to_run(f"text = {'x' * 4_000_000!r}\nprint(text[:900_000])\nlen(text)"))
        assert (result["result"], len(result["stdout"])) == ("4000000", 900_001)
        assert wire.close() == 0


def test_an_endless_line_is_refused_and_the_connection_lives(environ: dict[str, str], mode: str) -> None:
    """More than the keeper takes as one message: an error for that request, not the end."""
    with by_hand(environ, mode) as wire:
        assert "error" in wire.answer(wire.ask_to_run("#" * (65 << 20)))
        assert wire.result(wire.ask_to_run("6 * 7"))["result"] == "42"
        assert wire.close() == 0


def test_an_unknown_method_gets_an_error_and_the_connection_lives(environ: dict[str, str], mode: str) -> None:
    """An error that carries the id of the request."""
    with by_hand(environ, mode) as wire:
        assert "error" in wire.answer(wire.ask("no/such/method"))
        assert wire.answer(wire.ask("tools/list"))["result"]["tools"]
        assert wire.close() == 0


# Ends


def test_a_host_that_leaves_ends_the_front_and_not_the_code(environ: dict[str, str], place: Place, mode: str) -> None:
    """Closing stdin is exit code 0; what runs goes on, is committed, and a second client collects it."""
    with by_hand(environ, mode) as wire:
        wire.ask_to_run(f"n = 1\n{says('ran')}\n{waits_for('go')}\nn + 1")
        wait_until(lambda: place.said("ran"))
        assert wire.close() == 0
    with by_hand(environ, mode) as wire:
        place.file("go").touch()
        waited = wire.ask("tools/call", name="python_wait", arguments={"session_id": "s"})
        result = wire.result(waited)
        assert (result["status"], result["result"], result["committed"]) == ("ok", "2", True)
        assert place.said("ran") == 1


def test_a_host_that_cancels_and_leaves_has_cancelled(environ: dict[str, str], place: Place, mode: str) -> None:
    """Even if the keeper hears of both at the same time, as that of a program that ends by Ctrl-C does."""
    with by_hand(environ, mode) as wire:
        number = wire.ask_to_run(f"n = 1\n{says('ran')}\n{waits_for('never')}")
        wait_until(lambda: place.said("ran"))
        place.keeper.suspend()
        wire.notify("notifications/cancelled", requestId=number)
        assert wire.close() == 0
        place.keeper.resume()
    with by_hand(environ, mode) as wire:
        waited = wire.ask("tools/call", name="python_wait", arguments={"session_id": "s"})
        assert wire.result(waited)["status"] == "interrupted"


def test_a_host_that_kills_its_servers_does_not_kill_the_code(environ: dict[str, str], place: Place, mode: str) -> None:
    """SIGKILL to the group of the front reaches neither keeper nor kernel."""
    with by_hand(environ, mode) as wire:
        wire.ask_to_run(f"n = 1\n{says('ran')}\n{waits_for('go')}")
        wait_until(lambda: place.said("ran"))
        keeper = place.keeper.pid
        os.killpg(wire.process.pid, signal.SIGKILL)
        assert wire.process.wait(DEADLINE_S) == -signal.SIGKILL
    place.file("go").touch()
    wait_until(lambda: committed(place, "s", 1))
    assert place.keeper.pid == keeper
    with by_hand(environ, mode) as wire:
        result = wire.result(wire.ask_to_run("n"))
        assert (result["result"], result["restored"]) == ("1", None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_front_quietly(environ: dict[str, str], number: signal.Signals) -> None:
    """As hosts do it when they are in a hurry: no traceback on stderr."""
    with by_hand(environ) as wire:
        assert wire.answer(wire.ask("tools/list"))["result"]["tools"]
        wire.process.send_signal(number)
        assert wire.process.wait(DEADLINE_S) in (0, -number, 128 + number)
        assert wire.process.stderr is not None
        assert wire.process.stderr.read() == b""


# Starts


def start_front(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Start a front with nothing to say, and see it end."""
    return subprocess.run(
        [str(COMMAND)], env=environ, cwd="/", input="", capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.parametrize("setting", ["DATA_DIR", "RUNTIME_DIR"])
def test_a_directory_that_cannot_be_used_is_said_in_one_line(
    environ: dict[str, str], tmp_path: Path, setting: str
) -> None:
    """Exit code 1 and the remedy on stderr, nothing on stdout."""
    file = tmp_path / "file"
    file.touch()
    done = start_front({**environ, f"KERNELREPL_{setting}": str(file / "below")})
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("kernelrepl: ")
    assert str(file / "below") in line
    assert f"KERNELREPL_{setting}" in line or "make it writable" in line


def test_a_setting_that_cannot_be_is_said_in_one_line(environ: dict[str, str]) -> None:
    """The front starts no keeper that would fail; it names the setting."""
    done = start_front({**environ, "KERNELREPL_IDLE_TIMEOUT_S": "soon"})
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "idle_timeout_s" in line
    assert "soon" in line


def test_a_database_that_is_none_is_said_in_one_line(environ: dict[str, str], place: Place) -> None:
    """The keeper's own reason reaches the person through the front."""
    (place.data_dir / "python_sessions.db").write_bytes(b"no database at all, " * 100)
    done = start_front(environ)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "python_sessions.db" in line
    assert "move it away" in line


def test_the_environment_of_a_host_is_enough(environ: dict[str, str], place: Place) -> None:
    """Only a path to the interpreter, a home and our own directories; the working directory is the root."""
    bare = {**environ, "PATH": str(Path(sys.executable).parent)}
    del bare["KERNELREPL_STANDBY"]
    assert set(bare) == {"PATH", "HOME", "KERNELREPL_DATA_DIR", "KERNELREPL_RUNTIME_DIR"}
    with by_hand(bare) as wire:
        result = wire.result(wire.ask_to_run("import os, sys\nprint('ä', os.getcwd(), sys.getfilesystemencoding())"))
        assert result["stdout"] == "ä /workspace utf-8\n"
        assert wire.close() == 0


def test_nothing_is_written_outside_of_its_directories(environ: dict[str, str], place: Place) -> None:
    """A session, its restore and its end leave nothing in the home but a cache, and nothing in /tmp."""
    before = set(Path("/tmp").iterdir())
    with by_hand(environ) as wire:
        assert wire.result(wire.ask_to_run("import tempfile, os; x = 1"))["committed"]
        kill_9(place.kernel())
        assert wire.result(wire.ask_to_run("x"))["result"] == "1"
        assert wire.close() == 0
    end_keeper(place.data_dir)
    home = Path(environ["HOME"])
    assert {path.name for path in home.iterdir()} <= {".cache"}
    new = {path for path in set(Path("/tmp").iterdir()) - before if path.name.startswith(("kernelrepl", "k-", "once-"))}
    assert new == set()
    assert {path.name for path in place.data_dir.iterdir()} == {
        "keeper.lock",
        "logs",
        "python_sessions.db",
        "start.lock",
        "workspaces",
    }
    assert not [path for path in place.runtime_dir.iterdir() if path.suffix == ".sock" or path.name.startswith("k-")]
