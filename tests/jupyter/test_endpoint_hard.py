"""What makes no sense, comes at the wrong time, or is meant to harm: a session goes on for everybody else."""

from __future__ import annotations

import asyncio
import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
import zmq.asyncio
from jupyter_client import AsyncKernelClient
from mcp import Client

from kernelrepl.jupyter.sockets import Address, KernelSockets
from tests.support.jupyter_hosts import Notebook, notebook
from tests.support.mcp_hosts import DEADLINE_S, Place, call, command, host, run, says, until, waits_for

pytestmark = pytest.mark.anyio


@pytest.fixture
def place(environ: dict[str, str]) -> Place:
    return Place(environ)


@pytest.fixture
async def agent(environ: dict[str, str]) -> AsyncIterator[Client]:
    async with host(environ) as client:
        yield client


@pytest.fixture
async def opened(place: Place) -> AsyncIterator[Notebook]:
    async with notebook(place, "/work/hard.ipynb") as found:
        yield found


async def session_of(opened: Notebook) -> str:
    _, shown = await opened.run("%kernelrepl info")
    return str(shown[0]["text"].split()[1])


def ask(opened: Notebook, kind: str, content: Any, **header: Any) -> str:
    """Send a request as it is; returns its id."""
    session = opened.client.session
    message = session.msg(kind, content)
    message["header"] |= header
    opened.client.shell_channel.send(message)
    return str(message["header"]["msg_id"])


async def test_requests_that_make_no_sense_are_answered(opened: Notebook) -> None:
    """Each gets a reply, and the cell behind it runs."""
    for kind, content in (
        ("complete_request", {}),
        ("complete_request", {"code": None, "cursor_pos": 0}),
        ("complete_request", {"code": "x", "cursor_pos": -5}),
        ("complete_request", {"code": "x", "cursor_pos": "x"}),
        ("inspect_request", {}),
        ("inspect_request", {"code": 5, "cursor_pos": 1, "detail_level": "much"}),
        ("is_complete_request", {"code": None}),
        ("history_request", {}),
        ("history_request", {"hist_access_type": "range", "start": "x", "n": "many"}),
        ("history_request", {"hist_access_type": "search", "pattern": ["["], "n": -1}),
        ("comm_info_request", {"target_name": 5}),
        ("execute_request", {"code": None}),
        ("execute_request", {"code": "1", "user_expressions": [1], "silent": "yes"}),
        ("execute_request", {"code": "#" * 5_000_001}),
        ("execute_request", {"code": "#" * 5_000_001, "silent": True}),
        ("execute_request", {"code": ""}),
        ("nobody_knows_request", {"a": 1}),
        ("connect_request", {}),
    ):
        reply = await opened.reply_to(ask(opened, kind, content))
        assert reply["status"] in ("ok", "error", "unknown", "invalid", "complete"), kind
    opened.client.session.pack = lambda value: json.dumps(value, default=str).encode()
    reply = await opened.reply_to(ask(opened, "execute_request", {"code": "1"}, username=chr(0xD800)))
    assert reply["status"] == "ok"
    assert await opened.value("6 * 7") == "42"


async def test_help_asks_objects_that_do_harm(opened: Notebook) -> None:
    """They end nothing, and what takes too long can be interrupted."""
    await opened.run(
        "class Ends:\n    @property\n    def __doc__(self): raise SystemExit\n"
        "    def __repr__(self): raise SystemExit\n    def __dir__(self): raise KeyboardInterrupt\n"
        "class Hangs:\n    def __dir__(self):\n        while True: pass\n"
        "ends, hangs, kept = Ends(), Hangs(), 1"
    )
    for kind in ("inspect_request", "complete_request"):
        content = {"code": "ends.", "cursor_pos": 4 if kind == "inspect_request" else 5, "detail_level": 0}
        assert (await opened.reply_to(ask(opened, kind, content)))["status"] == "ok"
    request = ask(opened, "complete_request", {"code": "hangs.", "cursor_pos": 6})
    assert (await opened.reply_to(request))["status"] in ("ok", "error")  # it is interrupted by itself
    assert await opened.value("kept") == "1"


async def test_silent_code_is_saved_and_stopped_as_any_other(place: Place, opened: Notebook, agent: Client) -> None:
    """It leaves no row; an interrupt, a restart and a deletion reach it."""
    session = await session_of(opened)
    await opened.run("quiet = 1", silent=True)
    await opened.run("hidden = 2", store_history=False)
    assert [code for (code,) in place.rows("SELECT code FROM executions")] == []
    await opened.manager.restart_kernel()
    await opened.client.wait_for_ready(timeout=DEADLINE_S)
    assert await opened.value("quiet, hidden") == "(1, 2)"
    endless = f"{says('loops')}\nwhile True: pass"
    request = opened.client.execute(endless, silent=True)
    await until(lambda: place.said("loops", session) == 1)
    await opened.manager.interrupt_kernel()
    assert (await opened.reply_to(request))["status"] == "error"
    opened.client.execute(endless, silent=True)
    await until(lambda: place.said("loops", session) == 2)
    await opened.manager.restart_kernel()
    await opened.client.wait_for_ready(timeout=DEADLINE_S)
    assert await opened.value("quiet") == "1"
    running = asyncio.create_task(run(agent, f"{says('agents')}\n{waits_for('go')}", session))
    await until(lambda: place.said("agents", session))
    waiting = opened.client.execute("never = 1", silent=True)
    await opened.until(lambda message: message["parent_header"].get("msg_id") == waiting)
    await opened.manager.interrupt_kernel()
    assert (await opened.reply_to(waiting))["status"] == "aborted"
    place.file("go", session).touch()
    await running
    opened.client.execute(endless, silent=True)
    await until(lambda: place.said("loops", session) == 3)
    await call(agent, "python_delete_session", session_id=session)


async def test_many_attach_at_once_and_all_see(place: Place) -> None:
    """One session, one server, whoever is first."""
    async with AsyncExitStack() as stack:
        books = await asyncio.gather(
            *(stack.enter_async_context(notebook(place, "/work/many.ipynb")) for _ in range(4))
        )
        for number, book in enumerate(books):
            assert await book.value(f"{number} * 2") == str(number * 2)


async def test_an_idle_client_stops_nobody(place: Place, opened: Notebook) -> None:
    """Its interrupt is for its own cells, and it has none."""
    session = await session_of(opened)
    async with opened.another() as other:
        await other.run("1")
        running = opened.client.execute(f"{says('began')}\n{waits_for('go')}\n'through'")
        await until(lambda: place.said("began", session))
        other.client.control_channel.send(other.client.session.msg("interrupt_request", {}))
        await other.client.get_control_msg(timeout=DEADLINE_S)
        place.file("go", session).touch()
        assert (await opened.reply_to(running))["status"] == "ok"


async def test_a_restart_withdraws_what_waits(place: Place, opened: Notebook, agent: Client) -> None:
    """One's own cell behind the agent's does not run in the new kernel; the agent's next one does."""
    session = await session_of(opened)
    running = asyncio.create_task(run(agent, f"{says('began')}\n{waits_for('never')}", session))
    await until(lambda: place.said("began", session))
    waiting = opened.client.execute("unwanted = 1")
    await opened.until(lambda message: message["parent_header"].get("msg_id") == waiting)
    after = asyncio.create_task(run(agent, f"wanted = 1\n{says('after')}", session))
    await until(lambda: len(place.rows("SELECT id FROM executions")) == 1)
    await opened.manager.restart_kernel()
    await opened.client.wait_for_ready(timeout=DEADLINE_S)
    assert (await running)["status"] in ("interrupted", "crashed")
    assert (await after)["status"] == "ok"
    assert await opened.value("'unwanted' in globals(), wanted") == "(False, 1)"


async def test_a_question_ends_with_whom_it_was_for(place: Place, agent: Client) -> None:
    """Nobody else can answer it: the session would wait for ever."""
    async with notebook(place, "/work/question.ipynb") as opened:
        session = await session_of(opened)
        request = opened.client.execute("input('who? ')", allow_stdin=True)
        asked = await opened.client.get_stdin_msg(timeout=DEADLINE_S)
        assert asked["parent_header"]["msg_id"] == request
    assert (await run(agent, "6 * 7", session))["result"] == "42"


async def test_a_hostile_kernel_silences_nobody(place: Place, opened: Notebook) -> None:
    """Messages that it forges are dropped or made harmless; those that follow arrive."""
    forge = (
        "kernel = get_ipython().kernel\nsend, socket = kernel.session.send, kernel.iopub_socket\nhalf = chr(0xd800)\n"
    )
    await opened.run(
        forge + "kernel.session.pack = lambda value: __import__('json').dumps(value, default=str).encode()\n"
        "send(socket, 'stream', {'name': 'stdout', 'text': half}, parent=parent)\n"
        "send(socket, 'status', {'execution_state': 'restarting'})\n"
        "send(socket, 'shutdown_reply', {'restart': False})\n"
        "send(socket, 'comm_open', {'comm_id': 'c', 'target_name': 'jupyter.widget', 'data': {}})\n"
        "send(socket, 'stream', {'name': 5, 'text': []})\n"
        "send(socket, 'display_data', {'data': {'application/javascript': 'alert(1)', 'text/plain': half}})"
    )
    _, shown = await opened.run("print('heard')")
    assert [entry for entry in shown if entry["type"] == "stream"][-1]["text"] == "heard\n"
    assert {entry["type"] for entry in shown} <= {"stream"}


async def test_what_takes_too_long_to_look_through_is_shown_as_text(opened: Notebook) -> None:
    """All sessions wait for it: a session that shows no end of HTML is not looked through without end."""
    table = "<table>" + "<tr><td style='color: red'>1</td></tr>" * 20_000 + "</table>"
    code = "for n in range({}): display({{'text/html': {!r}, 'text/plain': 'T'}}, raw=True)"
    _, shown = await opened.run(code.format(1, table))
    assert "text/html" in shown[0]["data"]
    reply, shown = await opened.run(code.format(30, table))
    assert reply["status"] == "ok"
    tables = [message["data"] for message in shown if message["type"] == "display_data"]
    assert len(tables) == 30
    assert tables[-1] == {"text/plain": "T"}
    told = "".join(message["text"] for message in shown if message["type"] == "stream")
    assert told.count("Shown as text") == 1


async def test_trust_ends_with_its_session(place: Place, agent: Client) -> None:
    """Whoever makes another one with its name begins without."""
    code = "from IPython.display import Javascript\nJavascript('1')"
    async with notebook(place, "/work/trust.ipynb") as opened:
        session = await session_of(opened)
        assert "kernelrepl trust" in (await opened.run(code))[1][0]["text"]
        assert command(place.environ, "trust", session).returncode == 0
        assert "application/javascript" in (await opened.run(code))[1][0]["data"]
        await call(agent, "python_delete_session", session_id=session)
        _, shown = await opened.run(code)
        assert not any("application/javascript" in entry.get("data", {}) for entry in shown)
        refused = command(place.environ, "trust", "nobody")
        assert (refused.returncode, "nobody" in refused.stderr) == (1, True)


def relay(place: Place, file: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "kernelrepl", "kernel", "-f", str(file), "-s", "relayed"]
    return subprocess.Popen(words, env=dict(place.environ), cwd="/")


async def test_a_relay_is_started_anew_and_interrupted_twice(place: Place, tmp_path: Path) -> None:
    """With the same connection file, over TCP, while the one before it is still there; impatience does not end it."""
    file = tmp_path / "connection.json"
    ports = {f"{channel}_port": _free_port() for channel in ("shell", "iopub", "stdin", "control", "hb")}
    about = {"transport": "tcp", "ip": "127.0.0.1", "key": "secret", "signature_scheme": "hmac-sha256", **ports}
    file.write_text(json.dumps(about))
    first = relay(place, file)
    client = AsyncKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels(hb=False)
    second: subprocess.Popen[bytes] | None = None
    try:
        await client.wait_for_ready(timeout=DEADLINE_S)
        assert (await client.execute_interactive("x = 1", timeout=DEADLINE_S))["content"]["status"] == "ok"
        second = relay(place, file)
        await asyncio.to_thread(first.wait, DEADLINE_S)
        await client.wait_for_ready(timeout=DEADLINE_S)
        reply = await client.execute_interactive("assert x == 1", timeout=DEADLINE_S)
        assert reply["content"]["status"] == "ok"
        request = client.execute(f"{says('began')}\n{waits_for('never')}")
        await until(lambda: place.said("began", "relayed"))
        for _ in range(2):
            second.send_signal(signal.SIGINT)
        reply = await Notebook(None, client).reply_to(request)  # type: ignore[arg-type]
        assert reply["ename"] == "KeyboardInterrupt"
        assert second.poll() is None
    finally:
        client.stop_channels()
        for process in (first, second):
            if process is not None:
                process.terminate()
                await asyncio.to_thread(process.wait, DEADLINE_S)
    assert command(place.environ, "exec", "x", "-s", "relayed").stdout.strip() == "1"


async def test_a_relay_beats_until_a_first_keeper_does(place: Place, tmp_path: Path) -> None:
    """A host that opens its channels at once, while nothing runs yet, misses no beat: it would give up."""
    file, context = tmp_path / "connection.json", zmq.asyncio.Context()
    about = {"transport": "ipc", "ip": str(tmp_path / "k"), "key": "secret", "signature_scheme": "hmac-sha256"}
    channels = ("shell", "iopub", "stdin", "control", "hb")
    file.write_text(json.dumps({**about, **{f"{name}_port": n for n, name in enumerate(channels, 1)}}))
    client = AsyncKernelClient(connection_file=str(file))
    client.load_connection_file()
    heart = context.socket(zmq.REQ)
    heart.connect(f"ipc://{tmp_path / 'k'}-5")
    with (place.data_dir / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # no keeper starts meanwhile
        process = relay(place, file)
        await beat(heart)
        await beat(heart)
        assert place.keepers() == []
    client.start_channels(hb=False)
    try:
        asked = client.kernel_info()
        answered = asyncio.create_task(Notebook(None, client).reply_to(asked))  # type: ignore[arg-type]
        while not answered.done():
            await asyncio.sleep(1)  # as often as clients do
            await beat(heart)
        assert answered.result()["status"] == "ok"
        await beat(heart)
    finally:
        client.stop_channels()
        context.destroy(0)
        process.terminate()
        await asyncio.to_thread(process.wait, DEADLINE_S)


async def beat(heart: zmq.asyncio.Socket) -> None:
    """Ask once whether a kernel is there. Fails the test if it is not answered."""
    await heart.send(b"ping")
    assert await asyncio.wait_for(heart.recv(), DEADLINE_S) == b"ping"


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_a_connection_file_that_is_none_is_refused(place: Place, tmp_path: Path) -> None:
    """With what is wrong; nothing is served to the network."""
    good = {f"{channel}_port": 1 for channel in ("shell", "iopub", "stdin", "control", "hb")}
    for text, said in (
        ("no json", "is no connection file"),
        ("{}", "no connection file of Jupyter"),
        (json.dumps({**good, "ip": "0.0.0.0", "key": "k"}), "is not this machine alone"),
        (json.dumps({**good, "ip": "127.0.0.1", "key": ""}), "signed with hmac-sha256"),
    ):
        file = tmp_path / "file.json"
        file.write_text(text)
        done = command(place.environ, "kernel", "-f", str(file))
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr


async def test_many_attachments_leave_nothing(place: Place, opened: Notebook) -> None:
    """No socket, no directory, no descriptor of theirs stays with the keeper."""
    keeper = place.keeper

    async def left() -> tuple[int, int]:
        return len(list(place.runtime_dir.glob("j-*"))), keeper.num_fds()

    async with notebook(place, "/work/hard.ipynb") as other:
        await other.run("1")
    before = await left()
    for _ in range(10):
        async with notebook(place, "/work/hard.ipynb") as other:
            await other.run("1")
    await until(lambda: len(list(place.runtime_dir.glob("j-*"))) == before[0])
    await until(lambda: psutil.Process(keeper.pid).num_fds() <= before[1] + 2)


async def test_what_comes_while_something_is_sent_is_read(tmp_path: Path) -> None:
    """Sending makes libzmq take note of what has come in, and it does not say so a second time."""
    context = zmq.asyncio.Context()
    address = Address("ipc", str(tmp_path / "k"), (1, 2, 3, 4, 5), "key")
    listener = KernelSockets(context, address, lambda *request: None, lambda: "idle", lambda: None)
    peer: zmq.Socket[bytes] = zmq.Context.shadow(context.underlying).socket(zmq.DEALER)
    peer.setsockopt(zmq.IDENTITY, b"peer")
    peer.setsockopt(zmq.RCVTIMEO, 20_000)
    try:
        peer.connect(address.url("hb"))
        peer.send(b"1")
        assert await asyncio.to_thread(peer.recv) == b"1"
        await asyncio.sleep(0.05)  # now it waits for the next one, and has looked
        peer.send(b"2")
        time.sleep(0.05)  # that one is there, and nobody has looked
        listener._put("hb", [b"peer", b"sent"])
        assert [await asyncio.to_thread(peer.recv) for _ in range(2)] == [b"sent", b"2"]
    finally:
        peer.close(0)
        await listener.close()
        context.destroy(0)
