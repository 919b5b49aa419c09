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
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.session import DELIM, Session

from kernelrepl import bounded_json
from kernelrepl.kernel.meter import REPLY_LIMITS, FloodLimits, Meter, Verdict
from kernelrepl.model import JupyterRequest
from kernelrepl.transcript import DROPPED

Message = dict[str, Any]
"""Its type, the msg_id of its parent, and its content; its parent's whole header, metadata and buffers as well."""

OnOutput = Callable[[str, str, dict[str, Any]], None]
"""Called with parent msg_id, message type and content of each iopub message."""

OnMessage = Callable[[Message], None]
"""Called with each message that a kernel publishes or asks a person with."""

OnFlood = Callable[[Verdict], None]
"""Called when a kernel sends so much that it has to be interrupted, and again when it has to be killed."""

MAX_FRAME_BYTES = 26 << 20
"""A peer that sends a longer frame is disconnected for good. The outputs of a cell take 24 MB at most."""

_HEADER_BYTES, _METADATA_BYTES = 64 << 10, 1 << 20
"""The longest header of a message, of its parent, and the longest metadata. Longer ones are no message."""
_SMALL_ITEMS = 2000
"""The most values in the header of a message, and in that of its parent."""

_LINGER_MS = 1000

_LOST_REPLY_S = 5.0
"""How long after a disconnection a reply may be missing."""

_WAITING_MESSAGES = 200
"""How many messages may wait to be read; then those that a kernel publishes are dropped in the kernel."""

_TURN_MESSAGES, _TURN_BYTES = 64, 1 << 20
"""How much is read before the other sessions get their turn: reading what is there already does not wait."""

_MAX_TYPE_CHARS = 100

_SMALL_BYTES = 4096
_log = logging.getLogger("kernelrepl")

_IDENTITY = b"keeper"
"""A kernel asks on one socket whoever has the identity of a request on another."""

_IDLE_TIMEOUT_S = 2.0
"""How long after a reply a kernel may say that it is idle. If its outputs are a flood, that may be lost."""

_UNANSWERED = ("comm_open", "comm_msg", "comm_close")


class JupyterClient:
    """One client of one kernel over ipc sockets."""

    def __init__(
        self,
        context: zmq.asyncio.Context,
        directory: Path,
        key: str,
        on_output: OnOutput,
        on_flood: OnFlood = lambda verdict: None,
        limits: FloodLimits | None = None,
        on_message: OnMessage | None = None,
    ) -> None:
        self._context = context
        self._directory = directory
        self._on_message = on_message
        self._idle: dict[str, asyncio.Future[Any]] = {}
        self._stdin: zmq.asyncio.Socket | None = None
        self._session = Session(key=key.encode(), signature_scheme="hmac-sha256")
        self._on_output = on_output
        self._on_flood = on_flood
        self._published = Meter(limits or FloodLimits())
        self._replied = Meter(REPLY_LIMITS)
        self._latest = ""
        self._replies: dict[str, asyncio.Future[Message]] = {}
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shell = self._connect(context, zmq.DEALER, directory / "s-1")
        self._iopub = self._connect(context, zmq.SUB, directory / "s-2")
        self._iopub.setsockopt(zmq.SUBSCRIBE, b"")
        self._monitors: list[zmq.asyncio.Socket] = []
        self._pumps = [
            asyncio.create_task(self._pump(self._shell, self._replied, self._take_reply)),
            asyncio.create_task(self._pump(self._iopub, self._published, self._take_output)),
            asyncio.create_task(self._watch_shell()),
            asyncio.create_task(self._watch_iopub(f"ipc://{directory / 's-2'}")),
        ]

    @staticmethod
    def _connect(context: zmq.asyncio.Context, kind: int, path: Path, *, connect: bool = True) -> zmq.asyncio.Socket:
        socket = context.socket(kind)
        # libzmq aborts this process when a socket is closed in the middle of a message that a kernel does not take.
        # The process that reads has ended by then: the connection breaks first.
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        socket.setsockopt(zmq.RCVHWM, _WAITING_MESSAGES)
        if kind == zmq.DEALER:
            socket.setsockopt(zmq.IDENTITY, _IDENTITY)
        if connect:
            socket.connect(f"ipc://{path}")
        return socket

    async def wait_for_output(self) -> None:
        """Until the kernel has taken note of the subscription: from then on no output is missed."""
        await self._welcome

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
        message = self._session.msg(
            request.kind, content=dict(request.content), header=dict(request.header), metadata=dict(request.metadata)
        )
        frames = [*self._session.serialize(message), *request.buffers]
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[request.msg_id] = reply
        self._latest = request.msg_id
        self._published.start()
        self._replied.start()
        _put(self._shell, frames)
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
            await asyncio.wait({replied, idle}, timeout=_IDLE_TIMEOUT_S)
            return replied.result() if replied.done() else None
        finally:
            self._idle.pop(request.msg_id, None)
            self._replies.pop(request.msg_id, None)

    async def _open_stdin(self) -> None:
        """From now on the kernel can ask. It drops a question for which nobody is connected."""
        if self._stdin is not None:
            return
        self._stdin = self._connect(self._context, zmq.DEALER, self._directory / "s-3", connect=False)
        monitor = self._stdin.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._monitors.append(monitor)
        self._stdin.connect(f"ipc://{self._directory / 's-3'}")
        await monitor.recv_multipart()
        self._pumps.append(asyncio.create_task(self._pump(self._stdin, Meter(REPLY_LIMITS), self._take_question)))

    def _take_question(self, message: Message) -> None:
        if message["type"] == "input_request" and self._on_message is not None:
            self._on_message(message)

    def answer(self, value: str) -> None:
        """What a person typed, for code that waits for it."""
        if self._stdin is not None:
            frames = self._session.serialize(self._session.msg("input_reply", content={"value": value}))
            _put(self._stdin, frames)

    async def _pump(self, socket: zmq.asyncio.Socket, meter: Meter, take: Callable[[Message], None]) -> None:
        """Read a socket for ever, count what comes and hand on what is a message."""
        clock = asyncio.get_running_loop().time
        messages = size = 0
        while True:
            if messages >= _TURN_MESSAGES or size >= _TURN_BYTES:
                messages = size = 0
                await asyncio.sleep(0)
            frames = await socket.recv_multipart()
            length = sum(len(frame) for frame in frames)
            messages, size = messages + 1, size + length
            verdict = meter.count(length, clock())
            if verdict is Verdict.PASS or length < _SMALL_BYTES:
                message = self._parse(frames)
                # That it is idle is waited for, however much came before.
                if message is not None and (verdict is Verdict.PASS or message["type"] == "status"):
                    try:
                        take(message)
                    except Exception:  # noqa: BLE001 - one message must not silence all others
                        _log.exception("a message of a kernel cannot be taken")
            if verdict is Verdict.PASS:
                continue
            self._on_output(self._latest, DROPPED, {"count": 1})
            if verdict is not Verdict.DROP:
                self._on_flood(verdict)

    async def _watch_shell(self) -> None:
        """A reply of over MAX_FRAME_BYTES never comes: nothing but the end of the kernel ends its execution."""
        monitor = self._shell.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._monitors.append(monitor)
        await monitor.recv_multipart()
        await asyncio.sleep(_LOST_REPLY_S)
        if self._replies:
            self._on_flood(Verdict.KILL)

    async def _watch_iopub(self, address: str) -> None:
        """An output of over MAX_FRAME_BYTES is left out, and those after it are not."""
        monitor = self._iopub.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._monitors.append(monitor)
        lost = False
        while True:
            event = (await monitor.recv_multipart())[0]
            if int.from_bytes(event[:2], sys.byteorder) == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                if lost:  # the kernel lives: it was we who broke off
                    self._on_output(self._latest, DROPPED, {"count": 1})
                lost = False
                continue
            lost = True
            with contextlib.suppress(zmq.ZMQError):
                self._iopub.disconnect(address)
            self._iopub.connect(address)

    def _take_reply(self, message: Message) -> None:
        reply = self._replies.pop(message["parent"], None)
        if reply is not None and not reply.done():
            reply.set_result(message)

    def _take_output(self, message: Message) -> None:
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

    def _parse(self, frames: list[bytes]) -> Message | None:
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
        buffers = frames[start + 5 :]
        kind = kind[:_MAX_TYPE_CHARS]
        return {"type": kind, "parent": of, "content": body, "of": above, "metadata": about, "buffers": buffers}

    async def close(self) -> None:
        """Close the sockets, after the tasks that read them have ended."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for socket in (self._shell, self._iopub, self._stdin):
            if socket is not None:
                socket.disable_monitor()
                socket.close()
        for monitor in self._monitors:
            monitor.close(0)  # disabling leaves it open
        for reply in self._replies.values():
            reply.cancel()


def _put(socket: zmq.asyncio.Socket, frames: list[bytes]) -> None:
    """Send at once, or as soon as there is room. Raises ZMQError.

    By the socket that is read as well: it looks for what has come in the meantime, of which nothing else would tell.
    """
    sent = asyncio.ensure_future(socket.send_multipart(frames))
    if sent.done():
        sent.result()
