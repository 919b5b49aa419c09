"""The five sockets on which a Jupyter client finds a kernel, served by the keeper in a kernel's place.

Clients are the person's own: what has the right signature is believed, what has not is nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.jsonutil import json_default
from jupyter_client.session import DELIM, Session

from kernelrepl.errors import InvalidArgument
from kernelrepl.model import JupyterRequest
from kernelrepl.outputs.notebook import encodable

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
SCHEME = "hmac-sha256"
_MAX_FRAME_BYTES = 64 << 20
_WAITING_MESSAGES = 10_000
"""How many messages may wait for a client that does not read; then it misses some."""
_LINGER_MS = 1000
_BEAT_MS, _SILENT_MS = 5_000, 30_000
_MOST_CLIENTS = 1000
_MAX_ID = 500
_WELCOME = "iopub_welcome"
_log = logging.getLogger("kernelrepl")


@dataclass(frozen=True)
class Address:
    """Where a client looks for a kernel, as its connection file says it."""

    transport: str
    ip: str
    ports: tuple[int, ...]
    """Of CHANNELS, in their order."""
    key: str

    @classmethod
    def load(cls, info: Mapping[str, Any]) -> Address:
        """From a connection file. Raises InvalidArgument."""
        try:
            ports = tuple(int(info[f"{channel}_port"]) for channel in CHANNELS)
            transport, ip, key = str(info.get("transport", "tcp")), str(info["ip"]), str(info["key"])
            scheme = str(info.get("signature_scheme", SCHEME))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgument(f"this is no connection file of Jupyter: {error!r}") from error
        if transport not in ("ipc", "tcp") or scheme != SCHEME or not key:
            raise InvalidArgument(f"kernels are served over ipc or tcp, signed with {SCHEME}, not as asked for here")
        if transport == "tcp" and not _is_loopback(ip):
            raise InvalidArgument(f"{ip} is not this machine alone; use 127.0.0.1, or ipc")
        return cls(transport, ip, ports, key)

    def dump(self) -> dict[str, Any]:
        """As a connection file."""
        ports = {f"{channel}_port": port for channel, port in zip(CHANNELS, self.ports, strict=True)}
        about = {"transport": self.transport, "ip": self.ip, "key": self.key, "signature_scheme": SCHEME}
        return {**about, **ports, "kernel_name": "kernelrepl"}

    def url(self, channel: str) -> str:
        port = self.ports[CHANNELS.index(channel)]
        return f"ipc://{self.ip}-{port}" if self.transport == "ipc" else f"tcp://{self.ip}:{port}"


def _is_loopback(ip: str) -> bool:
    try:
        return ip == "localhost" or ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False


def _pack(value: Any) -> bytes:
    """JSON that every client can read, whatever a kernel or a client has put there."""
    try:
        return json.dumps(value, default=json_default, allow_nan=False).encode()
    except ValueError:
        return json.dumps(encodable(json.loads(json.dumps(value, default=json_default)))).encode()


Take = Callable[["KernelSockets", str, bytes, JupyterRequest], None]
"""Called with each request: where it came in, on which channel, from whom."""

State = Callable[[], str]
"""What the kernel does now: idle or busy."""

Leave = Callable[[], None]
"""Called when a client has asked to end the kernel."""


class KernelSockets:
    """Opened by its constructor, which raises OSError where an address is in use. Ended with `close`."""

    def __init__(self, context: zmq.asyncio.Context, address: Address, take: Take, state: State, leave: Leave) -> None:
        self.address = address
        self.leave = leave
        self._state = state
        self.last_heard = asyncio.get_running_loop().time()
        """When some client was heard last, its heartbeat included."""
        self._take = take
        self._session = Session(key=address.key.encode(), signature_scheme=SCHEME)
        self._session.pack = _pack
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._sockets: dict[str, zmq.asyncio.Socket] = {}
        try:
            for channel in CHANNELS:
                self._sockets[channel] = self._open(context, channel)
        except zmq.ZMQError as error:
            self._close_sockets()
            raise OSError(error.errno, f"{self.address.url(channel)} cannot be served: {error.strerror}") from error
        self._pumps = [
            asyncio.create_task(self._pump("shell")),
            asyncio.create_task(self._pump("control")),
            asyncio.create_task(self._pump("stdin")),
            asyncio.create_task(self._greet()),
            asyncio.create_task(self._beat()),
        ]

    def _open(self, context: zmq.asyncio.Context, channel: str) -> zmq.asyncio.Socket:
        socket = context.socket(zmq.XPUB if channel == "iopub" else zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_FRAME_BYTES)
        socket.setsockopt(zmq.SNDHWM, _WAITING_MESSAGES)
        # One that was stopped (Ctrl-Z) is given up after a while, with all that waits for it.
        socket.setsockopt(zmq.HEARTBEAT_IVL, _BEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _SILENT_MS)
        if channel == "iopub":
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # each new client is welcomed
        else:
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # one that has lost its connection is the same as before
        try:
            socket.bind(self.address.url(channel))
        except BaseException:
            socket.close(0)
            raise
        return socket

    async def _pump(self, channel: str) -> None:
        socket = self._sockets[channel]
        while True:
            frames = await socket.recv_multipart()
            self.last_heard = asyncio.get_running_loop().time()
            request = self._parse(frames)
            if request is None:
                continue
            if channel == "shell":
                self._see(frames[0])
            try:
                self._take(self, channel, frames[0], request)
            except Exception:  # noqa: BLE001 - one request must not silence all others
                _log.exception("a %s of a Jupyter client failed", request.kind)

    def _see(self, client: bytes) -> None:
        self._seen[client] = None
        self._seen.move_to_end(client)
        while len(self._seen) > _MOST_CLIENTS:
            self._seen.popitem(last=False)

    def knows(self, client: bytes) -> bool:
        """Whether it is one of those who run cells here, or somebody who speaks for the host."""
        return client in self._seen

    def _parse(self, frames: list[bytes]) -> JupyterRequest | None:
        """A signed message; None for anything else."""
        try:
            start = frames.index(DELIM) + 1
            signature, *parts = frames[start : start + 5]
            if len(parts) != 4 or not hmac.compare_digest(signature, self._session.sign(parts)):
                return None
            header, _, metadata, content = (json.loads(part) for part in parts)
            kind = header["msg_type"]
            if not all(
                isinstance(header[name], str) and len(header[name]) < _MAX_ID for name in ("msg_id", "msg_type")
            ):
                return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if not (isinstance(content, dict) and isinstance(metadata, dict)):
            return None
        return JupyterRequest(kind, header, content, metadata, tuple(frames[start + 5 :]))

    async def _greet(self) -> None:
        """A client that has subscribed is told so: from then on it misses nothing. And what the kernel does.

        Lab believes no state that belongs to a request about the kernel itself, and may ask for nothing else.
        """
        socket = self._sockets["iopub"]
        while True:
            frame = await socket.recv()
            if frame[:1] == b"\x01":
                self.publish(_WELCOME, {"subscription": frame[1:].decode(errors="replace")}, {})
                self.publish("status", {"execution_state": self._state()}, {})

    async def _beat(self) -> None:
        socket = self._sockets["hb"]
        while True:
            frames = await socket.recv_multipart()
            self.last_heard = asyncio.get_running_loop().time()
            self._put("hb", frames)

    def publish(
        self,
        kind: str,
        content: Mapping[str, Any],
        parent: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        buffers: tuple[bytes, ...] = (),
    ) -> None:
        """To all its clients. parent: the header of the request that this belongs to."""
        self._put("iopub", [kind.encode(), *self._serialize(kind, content, parent, metadata), *buffers])

    def reply(
        self,
        channel: str,
        client: bytes,
        kind: str,
        content: Mapping[str, Any],
        parent: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """To one client."""
        self._put(channel, [client, *self._serialize(kind, content, parent, metadata)])

    def _serialize(
        self, kind: str, content: Mapping[str, Any], parent: Mapping[str, Any], metadata: Mapping[str, Any] | None
    ) -> list[bytes]:
        message = self._session.msg(kind, content=dict(content), metadata=dict(metadata or {}))
        message["parent_header"] = dict(parent)
        return self._session.serialize(message)

    def _put(self, channel: str, frames: list[bytes]) -> None:
        if self._sockets[channel].closed:
            return
        # A client that does not read misses messages; it keeps nobody waiting. And by the socket that is read as well:
        # it looks for what has come in the meantime, of which nothing else would tell.
        asyncio.ensure_future(self._sockets[channel].send_multipart(frames, zmq.NOBLOCK)).exception()

    async def close(self) -> None:
        """Close the sockets, after the tasks that read them have ended."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for socket in self._sockets.values():
            socket.close()
