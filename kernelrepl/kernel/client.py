"""Speak Jupyter to one kernel: requests on shell, everything it publishes on iopub.

jupyter_client's Session builds and signs messages; reading them is done here, because its
`deserialize` parses every date with dateutil, which costs more than the rest of a small execution.

What a kernel sends is not trusted: it is counted before it is read, and what is no message is nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_client.session import DELIM, Session

from kernelrepl import bounded_json
from kernelrepl.kernel import turns, zmtp
from kernelrepl.kernel.flood import REPLY_LIMITS, Budget, FloodLimits, Meter, Verdict
from kernelrepl.model import JupyterRequest
from kernelrepl.outputs import beside
from kernelrepl.outputs.transcript import DROPPED

Message = dict[str, Any]
"""Its type, the msg_id of its parent, and its content; its parent's whole header, metadata and buffers as well."""

OnOutput = Callable[[str, str, dict[str, Any]], None]
"""Called with parent msg_id, message type and content of each iopub message."""

OnMessage = Callable[[Message], None]
"""Called with each message that a kernel publishes or asks a person with."""

OnFlood = Callable[[Verdict], None]
"""Called when a kernel sends so much that it has to be interrupted, and again when it has to be killed."""

_HEADER_BYTES, _METADATA_BYTES = 64 << 10, 1 << 20
"""The longest header of a message, of its parent, and the longest metadata. Longer ones are no message."""
_SMALL_ITEMS = 2000
"""The most values in the header of a message, and in that of its parent."""

_LOST_REPLY_S = 5.0
"""How long after the end of a connection, or of a reply that is left out, a reply may be missing."""

_MESSAGE_S, _FRAME_S, _BYTE_S = 20e-6, 4e-6, 4e-9
"""About what a message, a frame and a byte of it take of the keeper's time. A frame may be empty."""
_TURN_FRAMES, _TURN_BYTES = 14, 64 << 10
"""How much is read before the other sessions get their turn: reading what is there already does not wait. Two displays
are less than a millisecond of work, and a call has a dozen turns to wait for."""

_MAX_TYPE_CHARS = 100

_SMALL_BYTES = 4096
_log = logging.getLogger("kernelrepl")

_IDENTITY = b"keeper"
"""A kernel asks on one socket whoever has the identity of a request on another."""

_IDLE_TIMEOUT_S = 2.0
"""How long a kernel that has replied may say nothing until it says that it is idle: in a flood that may be lost."""
_MOST_WAITS = 30
"""How often that is waited for while outputs come: they are read one after the other, and others have turns."""

_UNANSWERED = ("comm_open", "comm_msg", "comm_close")


class JupyterClient:
    """One client of one kernel over ipc sockets."""

    def __init__(
        self,
        directory: Path,
        key: str,
        on_output: OnOutput,
        on_flood: OnFlood = lambda verdict: None,
        limits: FloodLimits | None = None,
        on_message: OnMessage | None = None,
        budget: Budget | None = None,
    ) -> None:
        """budget: what the kernel may take of the keeper's time in all."""
        self._budget = budget or Budget()
        self._directory = directory
        self._on_message = on_message
        self._idle: dict[str, asyncio.Future[Any]] = {}
        self._published_count = 0
        self._stdin: zmtp.Connection | None = None
        self._session = Session(key=key.encode(), signature_scheme="hmac-sha256")
        self._on_output = on_output
        self._on_flood = on_flood
        self.published = Meter(limits or FloodLimits())
        """How much the execution has published, and how much it may."""
        self._replied = Meter(REPLY_LIMITS)
        self._latest = ""
        self._replies: dict[str, asyncio.Future[Message]] = {}
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shell: zmtp.Connection | None = None
        self._waiting: list[list[bytes]] = []
        """Requests that came before the kernel shook hands."""
        self._connections: list[zmtp.Connection] = []
        self._pumps = [asyncio.create_task(self._serve_shell()), asyncio.create_task(self._serve_iopub())]

    async def _connect(self, name: str, kind: str) -> zmtp.Connection:
        found = await zmtp.Connection.open(
            self._directory / name, kind, b"" if kind == "SUB" else _IDENTITY, self._budget.held
        )
        self._connections.append(found)
        return found

    async def _serve_shell(self) -> None:
        """A reply that never comes: nothing but the end of the kernel ends its execution."""
        with contextlib.suppress(zmtp.Broken, OSError):
            self._shell = await self._connect("s-1", "DEALER")
            for frames in self._waiting:
                self._shell.send(frames)
            await self._pump(self._shell, self._replied, self._take_reply)
        await asyncio.sleep(_LOST_REPLY_S)
        if self._replies:
            self._on_flood(Verdict.KILL)

    async def _serve_iopub(self) -> None:
        try:
            await self._pump(await self._connect("s-2", "SUB"), self.published, self._take_output)
        except (zmtp.Broken, OSError) as error:
            if not self._welcome.done():
                self._welcome.set_exception(error)

    async def wait_for_output(self) -> None:
        """Until the kernel has taken note of the subscription: from then on no output is missed."""
        await self._welcome

    def report_to(self, on_output: OnOutput, on_flood: OnFlood, on_message: OnMessage) -> None:
        """Call these from now on, in place of those that were given before."""
        self._on_output, self._on_flood, self._on_message = on_output, on_flood, on_message

    def execute(self, msg_id: str, code: str) -> asyncio.Future[Message]:
        """Send an execute_request; the future holds its reply."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        header = {**self._session.msg_header("execute_request"), "msg_id": msg_id}
        return self._send(JupyterRequest("execute_request", header, content))

    def _send(self, request: JupyterRequest) -> asyncio.Future[Message]:
        if not self._budget.was_heavy(asyncio.get_running_loop().time()):
            turns.come()
        message = self._session.msg(
            request.kind, content=dict(request.content), header=dict(request.header), metadata=dict(request.metadata)
        )
        frames = [*self._session.serialize(message), *request.buffers]
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[request.msg_id] = reply
        self._latest = request.msg_id
        self.published.reset()
        self._replied.reset()
        if self._shell is None:
            self._waiting.append(frames)
        else:
            self._shell.send(frames)
        return reply

    async def ask(self, request: JupyterRequest) -> Message | None:
        """Pass a request on; returns its reply, if there is one, after all that was published before it ended."""
        if request.content.get("allow_stdin"):
            await self._open_stdin()
        idle: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._idle[request.msg_id] = idle
        try:
            replied: asyncio.Future[Any] = self._send(request)
            if request.kind in _UNANSWERED:
                self._replies.pop(request.msg_id).cancel()
                await idle
                return None
            await asyncio.wait({replied, idle}, return_when=asyncio.FIRST_COMPLETED)
            # One is sent right after the other, on two sockets. A request that makes no sense gets no reply.
            for _ in range(_MOST_WAITS):
                before = self._published_count
                _, waiting = await asyncio.wait({replied, idle}, timeout=_IDLE_TIMEOUT_S)
                if not waiting or self._published_count == before:
                    break
            return replied.result() if replied.done() else None
        finally:
            self._idle.pop(request.msg_id, None)
            self._replies.pop(request.msg_id, None)

    async def _open_stdin(self) -> None:
        """From now on the kernel can ask. It drops a question for which nobody is connected."""
        if self._stdin is not None:
            return
        with contextlib.suppress(zmtp.Broken, OSError):
            self._stdin = await self._connect("s-3", "DEALER")
            self._pumps.append(asyncio.create_task(self._serve_stdin(self._stdin)))

    async def _serve_stdin(self, connection: zmtp.Connection) -> None:
        with contextlib.suppress(zmtp.Broken):
            await self._pump(connection, Meter(REPLY_LIMITS), self._take_question)

    def _take_question(self, message: Message) -> None:
        if message["type"] == "input_request" and self._on_message is not None:
            self._on_message(message)

    def answer(self, value: str) -> None:
        """What a person typed, for code that waits for it."""
        if self._stdin is not None:
            frames = self._session.serialize(self._session.msg("input_reply", content={"value": value}))
            self._stdin.send(frames)

    async def _pump(self, connection: zmtp.Connection, meter: Meter, take: Callable[[Message], None]) -> None:
        """Read a socket to its end, count what comes and hand on what is a message. Raises zmtp.Broken."""
        clock = asyncio.get_running_loop().time
        turn = size = 0
        while True:
            connection.done()
            if turn >= _TURN_FRAMES or size >= _TURN_BYTES:
                turn = size = 0
                if delay := self._budget.delay(clock()):
                    await asyncio.sleep(delay)
                await turns.give_way(heavy=self._budget.is_heavy, took_s=self._budget.turn())
            count, length = await self._next(connection, meter, take)
            turn, size = turn + count, size + length

    async def _next(
        self, connection: zmtp.Connection, meter: Meter, take: Callable[[Message], None]
    ) -> tuple[int, int]:
        """Deal with the next message; returns how many frames and bytes were read.

        In a frame of its own, whose names go with it: a message may have 18 MB, and the next one be long in coming.
        """
        frames, count, length = await connection.recv()
        self._budget.spend(_MESSAGE_S + count * _FRAME_S + length * _BYTE_S)
        verdict = meter.count(length, asyncio.get_running_loop().time())
        if frames is not None and (verdict is Verdict.PASS or length < _SMALL_BYTES):
            message = await beside.large(length, self._parse, frames)
            # That it is idle is waited for, however much came before.
            if message is not None and (verdict is Verdict.PASS or message["type"] == "status"):
                try:
                    take(message)
                except Exception:  # noqa: BLE001 - one message must not silence all others
                    _log.exception("a message of a kernel cannot be taken")
        if frames is None and meter is self._replied:
            raise zmtp.Broken("a reply that is too long")
        if verdict is not Verdict.PASS or frames is None:
            self._on_output(self._latest, DROPPED, {"count": 1})
            if verdict not in (Verdict.PASS, Verdict.DROP):
                self._on_flood(verdict)
        return count, length

    def _take_reply(self, message: Message) -> None:
        reply = self._replies.pop(message["parent"], None)
        if reply is not None and not reply.done():
            reply.set_result(message)

    def _take_output(self, message: Message) -> None:
        self._published_count += 1
        if message["type"] == "iopub_welcome":
            if not self._welcome.done():
                self._welcome.set_result(None)
        elif message["type"] != DROPPED:
            self._on_output(message["parent"], message["type"], message["content"])
            if self._on_message is not None:
                self._on_message(message)
            if message["type"] == "status" and message["content"].get("execution_state") == "idle":
                idle = self._idle.get(message["parent"])
                if idle is not None and not idle.done():
                    idle.set_result(None)

    def _parse(self, frames: list[zmtp.Frame]) -> Message | None:
        """A signed message as type, parent msg_id and content; None for anything else."""
        try:
            start = frames.index(DELIM) + 1
            signature, header, parent, metadata, content = frames[start : start + 5]
            if not hmac.compare_digest(signature, self._session.sign([header, parent, metadata, content])):
                return None
            if max(len(header), len(parent)) > _HEADER_BYTES or len(metadata) > _METADATA_BYTES:
                return None
            kind = bounded_json.loads(header, items=_SMALL_ITEMS)["msg_type"]
            above = bounded_json.loads(parent, items=_SMALL_ITEMS)
            of, about, body = above.get("msg_id", ""), bounded_json.loads(metadata), bounded_json.loads(content)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        if not (isinstance(kind, str) and isinstance(of, str) and isinstance(body, dict) and isinstance(about, dict)):
            return None
        if not kind.isascii() or len(kind) > _MAX_TYPE_CHARS:  # it is the topic as well, for whom it is passed on to
            return None
        buffers = frames[start + 5 :]
        return {"type": kind, "parent": of, "content": body, "of": above, "metadata": about, "buffers": buffers}

    async def close(self) -> None:
        """Close the sockets, after the tasks that read them have ended."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for connection in self._connections:
            connection.close()
        for reply in self._replies.values():
            reply.cancel()
