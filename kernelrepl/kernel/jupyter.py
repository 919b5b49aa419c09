"""Speak Jupyter to one kernel: requests on shell, everything it publishes on iopub.

jupyter_client's Session builds and signs messages; reading them is done here, because its
`deserialize` parses every date with dateutil, which costs more than the rest of a small execution.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.session import DELIM, Session

Message = dict[str, Any]
OnOutput = Callable[[str, str, dict[str, Any]], None]
"""Called with parent msg_id, message type and content of each iopub message."""


class JupyterClient:
    """One client of one kernel over ipc sockets."""

    def __init__(self, context: zmq.asyncio.Context, directory: Path, key: str, on_output: OnOutput) -> None:
        self._session = Session(key=key.encode(), signature_scheme="hmac-sha256")
        self._on_output = on_output
        self._replies: dict[str, asyncio.Future[Message]] = {}
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shell = self._connect(context, zmq.DEALER, directory / "s-1")
        self._iopub = self._connect(context, zmq.SUB, directory / "s-2")
        self._iopub.setsockopt(zmq.SUBSCRIBE, b"")
        self._pumps = [asyncio.create_task(self._pump_shell()), asyncio.create_task(self._pump_iopub())]

    @staticmethod
    def _connect(context: zmq.asyncio.Context, kind: int, path: Path) -> zmq.asyncio.Socket:
        socket = context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{path}")
        return socket

    async def wait_for_output(self) -> None:
        """Until the kernel has taken note of the subscription: from then on no output is missed."""
        await self._welcome

    def execute(self, msg_id: str, code: str) -> asyncio.Future[Message]:
        """Send an execute_request; the future holds the content of its reply."""
        header = self._session.msg_header("execute_request")
        header["msg_id"] = msg_id
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message = self._session.msg("execute_request", content=content, header=header)
        frames = self._session.serialize(message)
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[msg_id] = reply
        zmq.Socket.shadow(self._shell.underlying).send_multipart(frames)
        return reply

    async def _pump_shell(self) -> None:
        while True:
            message = self._parse(await self._shell.recv_multipart())
            if message is None:
                continue
            reply = self._replies.pop(message["parent"], None)
            if reply is not None and not reply.done():
                reply.set_result(message)

    async def _pump_iopub(self) -> None:
        while True:
            message = self._parse(await self._iopub.recv_multipart())
            if message is None:
                continue
            if message["type"] == "iopub_welcome":
                if not self._welcome.done():
                    self._welcome.set_result(None)
            else:
                self._on_output(message["parent"], message["type"], message["content"])

    def _parse(self, frames: list[bytes]) -> Message | None:
        """A signed message as type, parent msg_id and content; None for anything else."""
        try:
            start = frames.index(DELIM) + 1
            signature, header, parent, _, content = frames[start : start + 5]
            if not hmac.compare_digest(signature, self._session.sign([header, parent, frames[start + 3], content])):
                return None
            parsed: Message = {
                "type": str(json.loads(header)["msg_type"]),
                "parent": str(json.loads(parent).get("msg_id", "")),
                "content": json.loads(content),
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return parsed if isinstance(parsed["content"], dict) else None

    async def close(self) -> None:
        """Close the sockets, after the tasks that read them have ended."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._shell.close()
        self._iopub.close()
        for reply in self._replies.values():
            reply.cancel()
