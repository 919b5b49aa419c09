"""A session under notebooks and consoles, through both kinds of hosts: it outlives all of them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp import Client

from tests.support.jupyter_hosts import HOSTS, Notebook, notebook
from tests.support.mcp_hosts import DEADLINE_S, Place, call, command, host, kill_9, run, says, until, waits_for

pytestmark = pytest.mark.anyio


@pytest.fixture
def place(environ: dict[str, str]) -> Place:
    return Place(environ)


@pytest.fixture(params=HOSTS)
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def agent(environ: dict[str, str]) -> AsyncIterator[Client]:
    async with host(environ) as client:
        yield client


async def session_of(opened: Notebook) -> str:
    """What a person sees who asks where they are."""
    _, shown = await opened.run("%kernelrepl info")
    return str(shown[0]["text"].split()[1])


async def kernel_of(opened: Notebook) -> psutil.Process:
    """The process that runs its code."""
    _, shown = await opened.run("%kernelrepl info")
    return psutil.Process(int(shown[0]["text"].split("process ")[1].split()[0]))


def states(message: dict[str, Any]) -> str | None:
    found = message["content"].get("execution_state")
    return None if found is None else str(found)


async def test_a_notebook_has_one_session_that_outlives_its_kernel(place: Place, how: str) -> None:
    """Restarted, shut down and opened again, the variables are there; another notebook does not see them."""
    async with notebook(place, "/work/My analysis.ipynb", how) as opened:
        reply, shown = await opened.run("x = 41\nprint('hi')\nx + 1")
        assert (reply["status"], reply["execution_count"]) == ("ok", 1)
        assert [entry["type"] for entry in shown] == ["stream", "execute_result"]
        before = await kernel_of(opened)
        for now in (False, True):
            await opened.manager.restart_kernel(now=now)
            await opened.client.wait_for_ready(timeout=DEADLINE_S)
            assert await opened.value("x") == "41"
        kernel, first = await kernel_of(opened), await session_of(opened)
        assert kernel != before
    async with notebook(place, "/work/My analysis.ipynb", how) as opened:
        assert await opened.value("x") == "41"
        assert await kernel_of(opened) == kernel  # it went on: only the window was closed
    async with notebook(place, "/work/other.ipynb", how) as opened:
        reply, _ = await opened.run("x")
        assert (reply["status"], reply["ename"]) == ("error", "NameError")
    assert first.startswith("notebook-My-analysis-")


async def test_agent_and_person_share_a_session(place: Place, agent: Client) -> None:
    """Same variables; each sees what the other runs as it happens; rows say who ran what."""
    async with notebook(place, "/work/shared.ipynb") as opened:
        session = await session_of(opened)
        await run(agent, "found = [1, 2]", session)
        assert await opened.value("found") == "[1, 2]"
        await opened.run("mine = len(found)")
        assert (await run(agent, "mine + 1", session))["result"] == "3"
        running = asyncio.create_task(run(agent, f"print('from the agent')\n{waits_for('go')}", session))
        seen = await opened.until(lambda message: message["msg_type"] == "stream")
        assert seen["content"]["text"] == "from the agent\n"
        assert seen["parent_header"]["username"] == "mcp"
        place.file("go", session).touch()
        await running
        await opened.until(
            lambda message: states(message) == "idle" and message["parent_header"] == seen["parent_header"]
        )
    origins = [origin for (origin,) in place.rows("SELECT origin FROM executions ORDER BY id")]
    assert origins == ["mcp", "jupyter", "jupyter", "mcp", "mcp"]


async def test_a_watching_cell_shows_what_others_run(place: Place, agent: Client) -> None:
    """Below the cell that asked for it, as if the cell itself had shown it."""
    async with notebook(place, "/work/watch.ipynb") as opened:
        session = await session_of(opened)
        request = opened.client.execute("%kernelrepl watch")
        await opened.until(lambda message: states(message) == "idle" and message["parent_header"]["msg_id"] == request)
        await run(agent, "print('seen')\n6 * 7", session)

        def below(kind: str) -> Any:
            return lambda message: message["msg_type"] == kind and message["parent_header"].get("msg_id") == request

        assert (await opened.until(below("stream")))["content"]["text"] == "⟦mcp⟧ In [1]: print('seen')\n6 * 7\n"
        assert (await opened.until(below("stream")))["content"]["text"] == "seen\n"
        assert (await opened.until(below("display_data")))["content"]["data"] == {"text/plain": "42"}
        await opened.reply_to(request)
        await opened.run("%kernelrepl unwatch")
        await run(agent, "print('not seen')", session)
        _, shown = await opened.run("1")
        assert [entry["type"] for entry in shown] == ["execute_result"]


async def test_an_error_of_one_client_aborts_no_cell_of_another(place: Place, how: str) -> None:
    """And the client's own cells behind it only if it wants that."""
    async with notebook(place, "/work/two.ipynb", how) as opened, opened.another() as other:
        session = await session_of(opened)
        failing = opened.client.execute(f"{says('began')}\n{waits_for('go')}\n1/0")
        aborted = opened.client.execute("never = 1")
        unharmed = other.client.execute("reached = 1")
        await until(lambda: place.said("began", session))
        place.file("go", session).touch()
        assert (await opened.reply_to(failing))["ename"] == "ZeroDivisionError"
        assert (await opened.reply_to(aborted))["status"] == "aborted"
        assert (await other.reply_to(unharmed))["status"] == "ok"
        first = opened.client.execute("1/0", stop_on_error=False)
        second = opened.client.execute("after = 1", stop_on_error=False)
        assert (await opened.reply_to(first))["status"] == "error"
        assert (await opened.reply_to(second))["status"] == "ok"
        assert await opened.value("'never' in globals(), reached, after") == "(False, 1, 1)"


async def test_an_interrupt_stops_ones_own_cell_and_no_other(place: Place, agent: Client, how: str) -> None:
    """The agent's goes on; what waits behind it is withdrawn."""
    async with notebook(place, "/work/stop.ipynb", how) as opened:
        session = await session_of(opened)
        running = opened.client.execute(f"x = 1\n{says('began')}\n{waits_for('never')}")
        await until(lambda: place.said("began", session))
        await opened.manager.interrupt_kernel()
        assert (await opened.reply_to(running))["ename"] == "KeyboardInterrupt"
        assert await opened.value("x") == "1"
        agents = asyncio.create_task(run(agent, f"{says('agents')}\n{waits_for('go')}\n'done'", session))
        await until(lambda: place.said("agents", session))
        waiting = opened.client.execute("y = 1")
        await opened.until(lambda message: states(message) == "busy" and message["parent_header"]["msg_id"] == waiting)
        await opened.manager.interrupt_kernel()
        assert (await opened.reply_to(waiting))["status"] == "aborted"
        place.file("go", session).touch()
        assert (await agents)["result"] == "'done'"


async def test_closing_a_notebook_stops_nothing(place: Place, how: str) -> None:
    """Hosts interrupt a kernel before they end it: what runs goes on, and its outcome is kept."""
    async with notebook(place, "/work/close.ipynb", how) as opened:
        session = await session_of(opened)
        opened.client.execute(f"{says('began')}\n{waits_for('go')}\nz = 5")
        await until(lambda: place.said("began", session))
    place.file("go", session).touch()
    async with notebook(place, "/work/close.ipynb", how) as opened:
        assert await opened.value("z") == "5"


async def test_code_can_ask_the_person(place: Place, how: str) -> None:
    """`input()` in a notebook; an agent's call still has nobody to ask."""
    async with notebook(place, "/work/ask.ipynb", how) as opened:
        asked: list[dict[str, Any]] = []

        def answer(message: dict[str, Any]) -> None:
            asked.append(message["content"])
            opened.client.input("Ada")

        reply, _ = await opened.run("name = input('who? ')", allow_stdin=True, stdin_hook=answer)
        assert (reply["status"], asked) == ("ok", [{"prompt": "who? ", "password": False}])
        assert await opened.value("name") == "'Ada'"
        reply, _ = await opened.run("input()", allow_stdin=False)
        assert reply["ename"] == "NoInput"


async def test_a_person_can_debug(place: Place, agent: Client, how: str) -> None:
    """`breakpoint()`, `%debug` and pdb ask in the notebook; for code of an agent nobody is there."""
    async with notebook(place, "/work/bugs.ipynb", how) as opened:

        async def debug(code: str, *typed: str) -> tuple[dict[str, Any], str, int]:
            """Run a cell and type these lines, the last one again and again; how often it asked is returned last."""
            lines = [*typed]
            asked = 0

            def answer(message: dict[str, Any]) -> None:
                nonlocal asked
                asked += 1
                opened.client.input(lines.pop(0) if len(lines) > 1 else lines[0])

            reply, shown = await opened.run(code, allow_stdin=True, stdin_hook=answer)
            return reply, "".join(entry.get("text", "") for entry in shown), asked

        await opened.run("import sys\ndef f(x):\n    y = x * 2\n    breakpoint()\n    return y + 1")
        reply, shown, asked = await debug("found = f(20)", "p x * y", "up", "p x * y", "c")
        assert (reply["status"], asked) == ("ok", 4)
        assert "800\n" in shown
        assert "NameError" in shown
        assert await opened.value("found, sys.gettrace()") == "(41, None)"
        reply, shown, _ = await debug("import pdb\npdb.set_trace()\nz = 5\nw = z + 1", "n")
        assert (reply["status"], await opened.value("w, sys.gettrace()")) == ("ok", "(6, None)")
        assert "kernelrepl" not in shown
        await opened.run("def g(v): return 1 / v\ng(0)")
        reply, shown, asked = await debug("%debug", "p v + 70", "q")
        assert (reply["status"], asked) == ("ok", 2)
        assert "70\n" in shown
        reply, _, _ = await debug("%pdb on", "q")
        assert (reply["ename"], "%debug opens" in reply["evalue"]) == ("NoDebugger", True)
        reply, _ = await opened.run("breakpoint()", allow_stdin=False)
        assert reply["ename"] == "NoDebugger"
        failed = (await run(agent, "f(1)", await session_of(opened)))["error"]
        assert (failed["name"], "no person sits at a session" in failed["message"]) == ("NoDebugger", True)


async def test_an_interrupt_ends_a_debugger(place: Place, how: str) -> None:
    """With the cell, and so does the end of the notebook: nothing waits at a prompt for ever."""
    async with notebook(place, "/work/bugs.ipynb", how) as opened:
        await opened.run("1/0")
        for code in ("%debug", "breakpoint()\nnever = 1", "import pdb; pdb.set_trace()\nnever = 1"):
            request = opened.client.execute(code, allow_stdin=True)
            await opened.client.get_stdin_msg(timeout=DEADLINE_S)
            await opened.manager.interrupt_kernel()
            assert (await opened.reply_to(request))["ename"] == "KeyboardInterrupt"
        assert await opened.value("'never' in globals(), __import__('sys').gettrace()") == "(False, None)"
        opened.client.execute("breakpoint()", allow_stdin=True)
        await opened.client.get_stdin_msg(timeout=DEADLINE_S)
    async with notebook(place, "/work/bugs.ipynb", how) as opened:
        assert await opened.value("6 * 7") == "42"


async def test_the_death_of_a_kernel_is_a_restart_with_everything_there(place: Place, how: str) -> None:
    """In the cell that it happens to it is an error; between cells hosts are told."""
    async with notebook(place, "/work/crash.ipynb", how) as opened:
        await opened.run("x = 1")
        reply, shown = await opened.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
        assert (reply["status"], reply["ename"]) == ("error", "KernelDied")
        assert shown[0]["type"] == "error"
        assert await opened.value("x") == "1"
        kill_9(await kernel_of(opened))
        await opened.until(lambda message: states(message) == "restarting")
        assert await opened.value("x") == "1"


async def test_a_killed_keeper_is_replaced_in_the_same_place(place: Place, how: str) -> None:
    """Hosts are told of a restart, and the next cell finds the variables, over the sockets that they have."""
    async with notebook(place, "/work/keeper.ipynb", how) as opened:
        await opened.run("x = 1")
        before = place.keeper
        kill_9(before)
        await opened.until(lambda message: states(message) == "restarting")
        assert await opened.value("x + 1") == "2"
        assert place.keeper.pid != before.pid
        assert await opened.manager.is_alive()


async def test_a_session_that_sleeps_stays_attached(place: Place, environ: dict[str, str], how: str) -> None:
    """Its kernel is stopped, and the next cell wakes it: nothing is noticed."""
    environ["KERNELREPL_IDLE_TIMEOUT_S"] = "0.5"
    place = Place(environ)
    async with notebook(place, "/work/sleep.ipynb", how) as opened:
        await opened.run("x = 1")
        kernel = await kernel_of(opened)
        await until(lambda: not kernel.is_running())
        reply, shown = await opened.run("x")
        assert (reply["status"], [entry["type"] for entry in shown]) == ("ok", ["execute_result"])


async def test_a_host_without_a_name_gets_a_clean_kernel(place: Place, how: str) -> None:
    """Its session goes with it."""
    async with notebook(place, None, how) as opened:
        session = await session_of(opened)
        assert session.startswith("kernel-")
        await opened.run("x = 1")
    await until(lambda: place.rows("SELECT session_id FROM sessions") == [])


async def test_a_renamed_notebook_keeps_its_session(place: Place) -> None:
    """While it is open, as hosts tell it; a new one with the old name gets a new session."""
    async with notebook(place, "/work/before.ipynb") as opened:
        await opened.run("x = 1")
        opened.manager.update_env(env={"JPY_SESSION_NAME": "/work/after.ipynb"})
        assert await opened.manager.is_alive()
        await until(lambda: ("/work/after.ipynb",) in place.rows("SELECT path FROM notebooks"))
    async with notebook(place, "/work/after.ipynb") as opened:
        assert await opened.value("x") == "1"
        opened.manager.update_env(env={"JPY_SESSION_NAME": "/work/last.ipynb"})  # and closed at once
    async with notebook(place, "/work/last.ipynb") as opened:
        assert await opened.value("x") == "1"
    async with notebook(place, "/work/before.ipynb") as opened:
        assert (await opened.run("x"))[0]["ename"] == "NameError"


async def test_a_notebook_that_was_moved_keeps_its_session(place: Place, tmp_path: Path) -> None:
    """While nobody had it open; a copy, and what comes to its old place, are other notebooks."""
    first, moved, copy = (tmp_path / name for name in ("first.ipynb", "moved.ipynb", "copy.ipynb"))
    first.write_text(json.dumps({"cells": []}))
    async with notebook(place, str(first)) as opened:
        await opened.run("x = 1")
        first.write_text(json.dumps({"cells": [{"id": "of-the-first"}, {"id": "another"}, {}]}))  # it is saved
    shutil.copy(first, copy)
    async with notebook(place, str(copy)) as opened:
        assert (await opened.run("x"))[0]["ename"] == "NameError"
    first.rename(moved)
    async with notebook(place, str(moved)) as opened:
        assert await opened.value("x") == "1"
    first.write_text("no notebook")
    async with notebook(place, str(first)) as opened:
        assert (await opened.run("x"))[0]["ename"] == "NameError"
    assert len(place.rows("SELECT path FROM notebooks")) == 3


async def test_the_commands_of_a_person(place: Place, agent: Client) -> None:
    """What is not stored, a clean slate, and help."""
    async with notebook(place, "/work/commands.ipynb") as opened:
        _, shown = await opened.run(
            "import socket\nlink = socket.socket(socket.AF_UNIX)\nlines = (line for line in 'ab')"
        )
        assert "⟦not saved⟧ lines" in shown[-1]["text"]
        _, shown = await opened.run("%kernelrepl unsaved")
        assert shown[0]["text"].startswith("lines (generator): ")
        _, shown = await opened.run("%kernelrepl clear")
        assert shown[0]["text"] == "3 variables removed; files and history are kept\n"
        await opened.until(lambda message: states(message) == "restarting")
        assert (await opened.run("link"))[0]["ename"] == "NameError"
        _, shown = await opened.run("%kernelrepl")
        assert "%kernelrepl watch" in shown[0]["text"]
        for words in ("nonsense", "info now", "info-now"):
            _, shown = await opened.run(f"%kernelrepl {words}")
            assert shown[0]["text"].startswith(f"there is no %kernelrepl {words}; there are\n%kernelrepl info ")
        for word in ("exit", "quit()"):
            reply, shown = await opened.run(word)
            assert reply["payload"] == [{"source": "ask_exit", "keepkernel": True}]
            assert shown[0]["text"] == "the session goes on with all its variables\n"
        session = await session_of(opened)
        refused = await agent.call_tool("python_repl", {"code": "%kernelrepl info", "session_id": session})
        assert refused.structured_content is not None
        assert refused.structured_content["status"] == "error"  # an agent has tools


async def test_a_debugger_is_not_promised_and_who_asks_for_one_is_told_why(place: Place, agent: Client) -> None:
    """Its button is grey for what the kernel says of itself; variables are listed by a magic."""
    async with notebook(place, "/work/debug.ipynb") as opened:
        await opened.run("answer = 42")
        info = await opened.client._async_recv_reply(opened.client.kernel_info(), timeout=DEADLINE_S)
        assert info["content"]["debugger"] is False
        assert "debugger" not in info["content"]["supported_features"]
        asked = {"seq": 1, "type": "request", "command": "debugInfo", "arguments": {}}
        opened.client.control_channel.send(opened.client.session.msg("debug_request", asked))
        reply = await opened.client.get_control_msg(timeout=DEADLINE_S)
        assert (reply["msg_type"], reply["content"]["status"]) == ("debug_reply", "error")
        assert "has no debugger" in reply["content"]["evalue"]
        assert "%whos" in reply["content"]["evalue"]
        _, shown = await opened.run("%whos")
        assert "answer" in shown[0]["text"]
        assert "42" in shown[0]["text"]


async def test_a_session_for_a_console(place: Place, agent: Client) -> None:
    """A connection file stays good through a keeper's death; a client that wants to end the kernel only leaves."""
    await run(agent, "x = 20", "console")
    done = command(place.environ, "connection-file", "console")
    assert done.returncode == 0, done.stderr
    from jupyter_client import AsyncKernelClient

    client = AsyncKernelClient(connection_file=done.stdout.strip())
    client.load_connection_file()
    client.start_channels(hb=False)
    try:
        await client.wait_for_ready(timeout=DEADLINE_S)
        reply = await client.execute_interactive("x += 1", timeout=DEADLINE_S)
        assert reply["content"]["status"] == "ok"
        client.shutdown()
        await client.get_control_msg(timeout=DEADLINE_S)
        kill_9(place.keeper)
        assert (await run(agent, "x", "console"))["result"] == "21"
        reply = await client.execute_interactive("x += 1", timeout=DEADLINE_S)
        assert reply["content"]["status"] == "ok"
    finally:
        client.stop_channels()
    assert (await run(agent, "x", "console"))["result"] == "22"
    assert command(place.environ, "connection-file", "console").stdout == done.stdout
    listed = await call(agent, "python_list_sessions")
    assert [entry["session_id"] for entry in listed["sessions"]] == ["console"]
