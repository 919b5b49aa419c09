"""What MCP hosts and their people do with kernelrepl: start it, talk to it, kill it, look at what is left."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import psutil
from mcp import Client, StdioServerParameters
from mcp.client.session import ElicitationFnT
from mcp_types import CallToolResult, Implementation

from kernelrepl import discovery
from tests.conftest import this_tier, works_in

T = TypeVar("T")
COMMAND = Path(sys.executable).with_name("kernelrepl")
MODES = ("auto", "legacy")
"""How clients open: the stateless protocol of 2026-07-28, and the handshake that most hosts do today."""
DEADLINE_S = 60.0
"""A deadline, not a measurement: what takes longer hangs."""
_POLL_S = 0.01


# Clients

FIELDS = {"KERNELREPL_STRUCTURED": "on"}
"""What a program sets that wants all that there is of a reply: a client without a name gets no links otherwise."""


def host(
    environ: Mapping[str, str], mode: str = "auto", *, name: str | None = None, asks: ElicitationFnT | None = None
) -> Client:
    """An MCP client that starts kernelrepl the way hosts do: over stdio, anywhere, with hardly an environment.

    asks: how it asks its person.
    """
    server = StdioServerParameters(command=str(COMMAND), env=dict(environ), cwd="/")
    info = None if name is None else Implementation(name=name, version="1")
    return Client(server, mode=mode, read_timeout_seconds=DEADLINE_S, client_info=info, elicitation_callback=asks)


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured result of a tool. Fails the test if the tool refuses."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    assert result.structured_content is not None
    return dict(result.structured_content)


async def run(client: Client, code: str, session_id: str = "s", **arguments: Any) -> dict[str, Any]:
    """The structured result of a piece of code."""
    return await call(client, "python_repl", code=code, session_id=session_id, **arguments)


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """Why a tool refuses. Fails the test if it does not."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return text_of(result)


def text_of(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


# Conditions


@overload
async def until(condition: Callable[[], Awaitable[T | None]]) -> T: ...
@overload
async def until(condition: Callable[[], T | None]) -> T: ...
async def until(condition: Callable[[], Any]) -> Any:
    """Wait for a condition that nothing announces; returns what made it true."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(_POLL_S)


def wait_until(condition: Callable[[], T]) -> T:
    """The same outside of an event loop."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not true after {DEADLINE_S:g} s: {inspect.getsource(condition)}"
        time.sleep(_POLL_S)
    return found


# Code that meets its test in the files of its workspace


def says(file: str) -> str:
    """Code that leaves a mark, once for each time it runs."""
    return f"with open({file!r}, 'a') as _file: print('x', file=_file, end='')\ndel _file"


def waits_for(file: str) -> str:
    """Code that goes on when a file appears."""
    return f"while not __import__('os').path.exists({file!r}): __import__('time').sleep({_POLL_S})"


class Place:
    """The directories of one environment, looked at behind the keeper's back."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self.data_dir = Path(environ["KERNELREPL_DATA_DIR"])
        self.runtime_dir = Path(environ["KERNELREPL_RUNTIME_DIR"])

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        uri = f"{(self.data_dir / 'python_sessions.db').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=DEADLINE_S)) as connection:
            return connection.execute(query, parameters).fetchall()

    def file(self, name: str, session_id: str = "s") -> Path:
        """A file in the workspace of a session; one that cannot be there while there is no session."""
        found: list[tuple[Any, ...]] = []
        with contextlib.suppress(sqlite3.OperationalError):  # the keeper is about to create the database
            found = self.rows("SELECT workspace FROM sessions WHERE session_id = ?", session_id)
        return self.data_dir / "workspaces" / (found[0][0] if found else "none") / name

    def said(self, file: str, session_id: str = "s") -> int:
        """How often code with `says` ran."""
        path = self.file(file, session_id)
        return len(path.read_text()) if path.exists() else 0

    @property
    def keeper(self) -> psutil.Process:
        found = discovery.read_keeper(self.data_dir)
        assert found is not None
        return psutil.Process(found["pid"])

    def kernel(self, session_id: str = "s") -> psutil.Process:
        """The process that runs the kernel of a session: in tier 1 the grandchild of what was started or forked."""
        workspace = self.file("", session_id)
        started: list[psutil.Process] = []
        for child in self.keeper.children():
            with contextlib.suppress(psutil.Error):
                line = child.cmdline()
                if "kernelrepl.guest.zygote" in line:
                    started += child.children()
                elif "kernelrepl.guest.start" in line:
                    started.append(child)
        for process in started:
            with contextlib.suppress(psutil.Error, ValueError):
                for _ in range(2 if this_tier().number == 1 else 0):
                    process = min(process.children(), key=lambda child: child.pid)
                if works_in(process, workspace):
                    return process
        raise AssertionError(f"session {session_id!r} has no kernel")

    def keepers(self) -> list[psutil.Process]:
        """Every keeper that serves, or tries to serve, this data directory."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "keeper" in line and process.environ().get("KERNELREPL_DATA_DIR") == str(self.data_dir):
                    found.append(process)
        return found

    def log(self) -> str:
        return (self.data_dir / "logs" / "keeper.log").read_text()


def kill_9(process: psutil.Process) -> None:
    """kill -9 of exactly this process; returns when it has ended."""
    process.send_signal(signal.SIGKILL)
    assert discovery.wait_for_end(process.pid, DEADLINE_S)


# The wire, without the SDK


class Wire:
    """A front driven by hand: raw lines in, every line that comes out. It asks for the fields of results."""

    def __init__(self, environ: Mapping[str, str], mode: str = "auto") -> None:
        self.mode = mode
        self.pieces: int | None = None
        """Write lines in pieces of so many bytes."""
        self.messages: list[dict[str, Any]] = []
        self.noise: list[bytes] = []
        """Lines on stdout that are no messages. There must not be any."""
        self._arrived: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._next_id = 0
        self.process = subprocess.Popen(
            [str(COMMAND)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"KERNELREPL_STRUCTURED": "on", **environ},
            cwd="/",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                message = json.loads(line)
                assert message["jsonrpc"] == "2.0"
            except (ValueError, KeyError, TypeError, AssertionError):
                self.noise.append(line)
                continue
            self.messages.append(message)
            self._arrived.put(message)
        self._arrived.put(None)

    def send_raw(self, line: bytes) -> None:
        assert self.process.stdin is not None
        data = line + b"\n"
        size = self.pieces or len(data)
        for at in range(0, len(data), size):
            self.process.stdin.write(data[at : at + size])
            self.process.stdin.flush()

    def notify(self, method: str, **params: Any) -> None:
        self.send_raw(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())

    def ask(self, method: str, **params: Any) -> int:
        """Send a request; returns its id."""
        self._next_id += 1
        if self.mode != "legacy":
            params["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "by hand", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        message = {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params}
        self.send_raw(json.dumps(message).encode())
        return self._next_id

    def ask_to_run(self, code: str, session_id: str = "s", **arguments: Any) -> int:
        return self.ask(
            "tools/call", name="python_repl", arguments={"code": code, "session_id": session_id, **arguments}
        )

    def next(self) -> dict[str, Any]:
        """The next message that comes out."""
        message = self._arrived.get(timeout=DEADLINE_S)
        assert message is not None, "the front ended"
        return message

    def answer(self, identity: int) -> dict[str, Any]:
        """The answer to a request, which may be an error."""
        while True:
            message = self.next()
            if message.get("id") == identity:
                return message

    def result(self, identity: int) -> dict[str, Any]:
        """The structured result of a tool that was asked for."""
        answer = self.answer(identity)
        assert "result" in answer, answer
        structured: dict[str, Any] = answer["result"]["structuredContent"]
        return structured

    def introduce(self) -> int:
        """Ask for the handshake that older protocols begin with."""
        info = {"name": "by hand", "version": "1"}
        return self.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=info)

    def open(self) -> None:
        """Introduce ourselves, where the protocol wants that."""
        if self.mode == "legacy":
            assert "result" in self.answer(self.introduce())
            self.notify("notifications/initialized")

    def close(self) -> int:
        """Close stdin, as a host that is done; returns the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def answers(self, identity: int) -> int:
        """How many messages answered a request. To be asked after `close`."""
        return sum(1 for message in self.messages if message.get("id") == identity and "method" not in message)

    def abandon(self) -> None:
        """Free what is left, whatever happened before."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@contextlib.contextmanager
def by_hand(environ: Mapping[str, str], mode: str = "auto") -> Iterator[Wire]:
    """A front without the SDK in between, introduced; it is gone afterwards."""
    wire = Wire(environ, mode)
    try:
        wire.open()
        yield wire
    finally:
        wire.abandon()


def command(environ: Mapping[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [str(COMMAND), *arguments],
        env=dict(environ),
        cwd="/",
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
