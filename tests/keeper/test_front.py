"""What a host keeps through every death behind it: one proxy, its client, and each call answered once."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage

from kernelrepl import discovery
from kernelrepl.discovery.link import RECONNECTS
from tests.conftest import end_keeper, works_in
from tests.support.mcp_hosts import (
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


@pytest.mark.slow
def test_a_call_that_no_keeper_survives_is_given_up(environ: dict[str, str], place: Place, mode: str) -> None:
    """Asked again and again, it would end one keeper after the other: an error, and the connection lives."""
    killed: set[int] = set()

    def served_or_answered() -> bool:
        found = discovery.read_keeper(place.data_dir)
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
        # More than the sockets hold, so that a proxy that does not read cannot have it all.
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


# Keepers that are slow to come, and what the client has said meanwhile

MODERN = "2026-07-28"


@contextlib.contextmanager
def no_keeper(place: Place) -> Iterator[None]:
    """Whoever looks for a keeper meanwhile waits for one: somebody else is about to start it."""
    with (place.data_dir / "start.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.asynccontextmanager
async def watched(environ: dict[str, str], sent: list[str]) -> AsyncIterator[Any]:
    """The SDK's own way to a server, with a look at the methods that go there."""
    server = StdioServerParameters(command=str(COMMAND), env=dict(environ), cwd="/")
    async with stdio_client(server) as (from_server, to_server):
        from_client, incoming = anyio.create_memory_object_stream[SessionMessage](0)

        async def pump() -> None:
            async with incoming:
                async for message in incoming:
                    sent.append(getattr(message.message, "method", ""))
                    await to_server.send(message)

        async with anyio.create_task_group() as group:
            group.start_soon(pump)
            yield from_server, from_client
            group.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize(("mode", "last"), [("auto", "initialize"), ("legacy", "initialize"), (MODERN, "tools/call")])
async def test_a_slow_start_costs_no_later_call(
    environ: dict[str, str], place: Place, monkeypatch: pytest.MonkeyPatch, mode: str, last: str
) -> None:
    """The client may have given up its first question and asked in another way: it goes on after each death."""
    monkeypatch.setattr("mcp.client.session.DISCOVER_TIMEOUT_SECONDS", 0.3)  # the client's patience, not our speed
    sent: list[str] = []

    async def talk() -> None:
        async with Client(watched(environ, sent), mode=mode, read_timeout_seconds=DEADLINE_S) as client:
            await run(client, "n = 0")
            for round_ in range(1, 4):
                kill_9(place.keeper)
                assert (await run(client, "n += 1\nn"))["result"] == str(round_)

    with no_keeper(place):
        talking = asyncio.create_task(talk())
        await until(lambda: talking.done() or last in sent)
    await talking
    assert sent.count("server/discover") == (2 if mode == "auto" else 0)


STAGES = ("no keeper", "dying keeper", "keeper")


@pytest.mark.parametrize(
    ("probe", "handshake"), [(first, then) for n, first in enumerate(STAGES) for then in STAGES[n:]]
)
@pytest.mark.parametrize("answered", [True, False])
def test_every_order_of_probe_handshake_and_death_ends_in_one_protocol(
    environ: dict[str, str], place: Place, probe: str, handshake: str, answered: bool
) -> None:
    """Whichever protocol the client concludes from the answers is the one that all later keepers speak with it.

    answered: whether the client waits for the answer to its probe before it tries the handshake.
    """
    asked: dict[str, int] = {}
    with contextlib.ExitStack() as stack:

        def send(stage: str) -> None:
            if probe == stage:
                asked["probe"] = wire.ask("server/discover")
            if answered and handshake == stage != "dying keeper" and (probe != stage or stage == "keeper"):
                answer_in(wire, asked["probe"])
            if handshake == stage:
                wire.mode = "legacy"
                asked["handshake"] = wire.introduce()

        with no_keeper(place):
            wire = Wire(environ)
            stack.callback(wire.abandon)
            send("no keeper")
        served(wire)
        first = place.keeper
        first.suspend()
        send("dying keeper")
        kill_9(first)
        send("keeper")
        accepted = answer_in(wire, asked["handshake"])
        wire.mode = "legacy" if "result" in accepted else "auto"
        if wire.mode == "legacy":
            wire.notify("notifications/initialized")
        for round_ in range(2):
            assert wire.result(wire.ask_to_run("n = globals().get('n', 0) + 1\nn"))["result"] == str(round_ + 1)
            kill_9(place.keeper)
        assert wire.close() == 0
        assert [wire.answers(identity) for identity in asked.values()] == [1, 1]


def answer_in(wire: Wire, identity: int) -> dict[str, Any]:
    """The answer to a request, whatever has been looked at before."""
    return wait_until(lambda: [found for found in wire.messages if found.get("id") == identity])[0]


def served(wire: Wire) -> None:
    """Return when there is a keeper behind a proxy. It refuses this before it knows which protocol is spoken."""
    assert "must be an object" in answer_in(wire, wire.ask("tools/call", name="x", arguments=5))["error"]["message"]


@pytest.mark.parametrize("refused", [True, False])
def test_only_what_was_accepted_is_said_again(environ: dict[str, str], place: Place, refused: bool) -> None:
    """A second handshake, whatever became of it, does not take the place of how the connection was opened."""
    with by_hand(environ, "auto" if refused else "legacy") as wire:
        wire.result(wire.ask_to_run("n = 1"))
        mode, wire.mode = wire.mode, "legacy"
        assert ("error" in wire.answer(wire.introduce())) is refused
        wire.mode = mode
        for _ in range(2):
            kill_9(place.keeper)
            assert wire.result(wire.ask_to_run("n"))["result"] == "1"
        assert wire.close() == 0


def test_a_client_that_does_not_wait_for_the_handshake_survives_its_keeper(
    environ: dict[str, str], place: Place
) -> None:
    """Handshake, notification and call come in one go, and the keeper dies before it has answered any."""
    with contextlib.ExitStack() as stack:
        with no_keeper(place):
            wire = Wire(environ, "legacy")
            stack.callback(wire.abandon)
        served(wire)
        first = place.keeper
        first.suspend()
        asked = [wire.introduce()]
        wire.notify("notifications/initialized")
        asked.append(wire.ask_to_run("n = 1\nn"))
        kill_9(first)
        assert wire.result(asked[1])["result"] == "1"
        kill_9(place.keeper)
        assert wire.result(wire.ask_to_run("n"))["result"] == "1"
        assert wire.close() == 0
        assert [wire.answers(identity) for identity in asked] == [1, 1]


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


def test_a_file_may_be_its_input(environ: dict[str, str], tmp_path: Path) -> None:
    """Whether it is empty or has a request: each is answered, and the end of the file is the end."""
    request = {"jsonrpc": "2.0", "id": 7, "method": "no/such"}
    (tmp_path / "requests").write_text(json.dumps(request) + "\n")
    for name, answers in (("/dev/null", []), (tmp_path / "requests", [7])):
        with open(name) as file:  # noqa: PTH123
            done = subprocess.run(
                [COMMAND], env=environ, stdin=file, capture_output=True, text=True, timeout=DEADLINE_S
            )
        assert (done.returncode, done.stderr) == (0, "")
        assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == answers


def test_a_person_who_types_is_told_what_it_is(environ: dict[str, str]) -> None:
    """Where its output goes to a program: nothing would be seen of it otherwise."""
    ours, theirs = os.openpty()
    pipe = subprocess.PIPE
    with subprocess.Popen([COMMAND], env=environ, stdin=theirs, stdout=pipe, stderr=pipe, text=True) as run:
        os.close(theirs)
        assert run.stderr is not None
        assert "`kernelrepl --help`" in run.stderr.readline()
        os.close(ours)  # the terminal is gone
        assert (run.wait(DEADLINE_S), run.stderr.read()) == (0, "")


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
    """SIGKILL to the group of the proxy reaches neither keeper nor kernel."""
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
    """Start a proxy with nothing to say, and see it end."""
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
    """The proxy starts no keeper that would fail; it names the setting."""
    done = start_front({**environ, "KERNELREPL_IDLE_TIMEOUT_S": "soon"})
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "idle_timeout_s" in line
    assert "soon" in line


def test_a_database_that_is_none_is_said_in_one_line(environ: dict[str, str], place: Place) -> None:
    """The keeper's own reason reaches the person through the proxy."""
    (place.data_dir / "python_sessions.db").write_bytes(b"no database at all, " * 100)
    done = start_front(environ)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "python_sessions.db" in line
    assert "move it away" in line


def _damaged_header(place: Place) -> None:
    path = place.data_dir / "python_sessions.db"
    path.write_bytes(b"X" + path.read_bytes()[1:])


def _of_a_newer_version(place: Place) -> None:
    with contextlib.closing(sqlite3.connect(place.data_dir / "python_sessions.db")) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('kernelrepl', 'later', 'now')"
        )
        connection.commit()


def _no_directory(place: Place) -> None:
    place.data_dir.rename(place.data_dir.with_name("aside"))
    place.data_dir.touch()


def _directory_for_a_log(place: Place) -> None:
    (place.data_dir / "logs").rename(place.data_dir / "aside")
    (place.data_dir / "logs").touch()


TROUBLE: dict[str, tuple[Callable[[Place], None], str]] = {
    "damaged header": (_damaged_header, "file is not a database: it is not a database or is damaged; move it away"),
    "newer version": (_of_a_newer_version, "was written by a newer kernelrepl; upgrade with"),
    "no directory": (_no_directory, "is no directory; move it away or set KERNELREPL_DATA_DIR"),
    "no log": (_directory_for_a_log, "logs cannot be used: File exists; free some space or make it writable"),
}


@pytest.fixture
def troubled(environ: dict[str, str], place: Place, request: pytest.FixtureRequest) -> str:
    """A place where no keeper can start; what is said of it."""
    trouble, said = TROUBLE[request.param]
    with by_hand(environ) as wire:
        assert wire.result(wire.ask_to_run("n = 1"))["committed"]
        assert wire.close() == 0
    end_keeper(place.data_dir)
    copy = place.data_dir.with_name("copy")
    shutil.copytree(place.data_dir, copy)
    trouble(place)
    return said


def repair(place: Place) -> None:
    """Put back a copy of all."""
    if place.data_dir.is_dir():
        shutil.rmtree(place.data_dir)
    else:
        place.data_dir.unlink()
    shutil.copytree(place.data_dir.with_name("copy"), place.data_dir)


@pytest.mark.parametrize("troubled", TROUBLE, indirect=True)
def test_why_no_keeper_starts_is_the_answer_to_each_request(
    environ: dict[str, str], place: Place, mode: str, troubled: str
) -> None:
    """Hosts show answers, and nothing of stderr; when the trouble is over the same connection goes on."""
    wire = Wire(environ, mode)
    try:
        first = wire.introduce() if mode == "legacy" else wire.ask("server/discover")
        for identity in (first, wire.ask_to_run("1")):
            error = wire.answer(identity)["error"]
            assert troubled in error["message"]
            assert error["code"] == -32603
        repair(place)
        wire.open()
        assert wire.result(wire.ask_to_run("n"))["result"] == "1"
        assert wire.close() == 0
    finally:
        wire.abandon()


@pytest.mark.anyio
@pytest.mark.parametrize("troubled", ["damaged header"], indirect=True)
async def test_a_host_is_told_why_no_keeper_starts(environ: dict[str, str], mode: str, troubled: str) -> None:
    """By the SDK's client: not that the connection was closed."""
    with pytest.raises((MCPError, ExceptionGroup)) as caught:
        await host(environ, mode).__aenter__()
    error: BaseException = caught.value
    while isinstance(error, ExceptionGroup):
        [error] = error.exceptions
    assert isinstance(error, MCPError)
    assert "move it away to start anew" in str(error)


def test_the_environment_of_a_host_is_enough(environ: dict[str, str], place: Place) -> None:
    """Only a path to the interpreter, a home and our own directories; the working directory is the root."""
    bare = {name: environ[name] for name in ("HOME", "KERNELREPL_DATA_DIR", "KERNELREPL_RUNTIME_DIR")}
    bare["PATH"] = str(Path(sys.executable).parent)
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
        "hash_seed",
        "keeper.lock",
        "logs",
        "packages",
        "python_sessions.db",
        "start.lock",
        "workspaces",
    }
    assert not [path for path in place.runtime_dir.iterdir() if path.suffix == ".sock" or path.name.startswith("k-")]
