"""The command line's connection to the keeper: blocking, and of the standard library, so that commands start fast."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import socket
import sys
from collections.abc import Callable

from kernelrepl import discovery, errors
from kernelrepl.discovery.link import META, KeeperLink
from kernelrepl.errors import KeeperUnavailable, NoKeeper, ToolFailed

TYPE_CHECKING = False  # without `typing`, which takes as long to load as all else here
if TYPE_CHECKING:
    from typing import Any

Piece = dict[str, str]
"""A text that code has shown: its `kind` and its `text`."""
_READ_BYTES = 1 << 18
_IDLE_S = 1.0
_PIECES = "kernelrepl/pieces"
_REMARKS = "kernelrepl/remarks"
_EXECUTION = "kernelrepl/execution"


class Reply:
    """What a tool has returned."""

    def __init__(self, content: list[dict[str, Any]], structured: Any, meta: dict[str, Any] | None = None) -> None:
        """content: blocks of text and images, as the protocol has them. meta: what goes with the result."""
        self.content = content
        """Blocks of text and images: `type` with `text`, or with `data` and `mimeType`."""
        self.structured = structured
        """The fields of the result; None if it has none."""
        self.pieces: list[Piece] = (meta or {}).get(_PIECES, [])
        """All that code has shown, whole, for a caller that is `live`."""
        self.remarks: list[str] = (meta or {}).get(_REMARKS, [])
        """What the keeper says of it, for a caller that is `live`."""

    @property
    def text(self) -> str:
        return "\n".join(block["text"] for block in self.content if block["type"] == "text")

    @property
    def images(self) -> list[tuple[str, str]]:
        """The MIME type and the data, in base64, of each image."""
        return [(block["mimeType"], block["data"]) for block in self.content if block["type"] == "image"]


class _Told:
    """Who is told what of a call while it lasts."""

    def __init__(
        self,
        show: Callable[[list[Piece]], None] | None,
        begin: Callable[[dict[str, Any]], None] | None,
        idle: Callable[[], None] | None,
    ) -> None:
        self._show = show
        self._begin = begin
        self.idle = idle

    def progress(self, about: dict[str, Any]) -> None:
        """about: what a progress message carries."""
        if self._begin is not None and _EXECUTION in about:
            self._begin(about[_EXECUTION])
        if self._show is not None and _PIECES in about:
            self._show(about[_PIECES])


class Caller:
    """This object calls tools of the keeper, one after the other. When the keeper ends, the next one gets the call."""

    def __init__(self, *, operator: bool = False, start: bool = True, live: bool = False) -> None:
        """Connect to the keeper. operator: to its socket with the tools of the operator. start: one, if none runs.

        live: whether replies bring all that code has shown, and calls can show it as it comes.
        Raises NoKeeper if none runs and none is to be started, else KeeperUnavailable.
        """
        self._which = discovery.OPERATOR if operator else discovery.AGENT
        self._start = start
        self._live = live
        self._connection = os.urandom(8).hex()
        self._link = KeeperLink()
        self._numbers = itertools.count(1)
        self._socket: socket.socket
        self._read = bytearray()
        self.request_id: str | None = None
        """Which execution the last call has asked for; None before any call."""
        self._connect()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def _connect(self) -> None:
        hello = {
            "client": "cli",
            "connection": self._connection,
            "python": sys.executable,
            "settings": discovery.settings_of(os.environ),
            "resumed": self._link.resumed(),
            "live": self._live,
        }
        if self._start:
            found = discovery.connect_or_start(os.environ, self._which, hello)
        else:
            there = discovery.find(discovery.data_dir(os.environ), self._which, hello)
            if there is None:
                raise NoKeeper
            found = there
        self._socket = found[0]
        self._read.clear()
        for line in self._link.replay():
            self._send(line)

    def call(
        self,
        tool: str,
        *,
        show: Callable[[list[Piece]], None] | None = None,
        begin: Callable[[dict[str, Any]], None] | None = None,
        idle: Callable[[], None] | None = None,
        again: Callable[[], None] | None = None,
        **arguments: Any,
    ) -> Reply:
        """Call a tool and wait for its result. Raises the KernelReplError that the tool raised, or KeeperUnavailable.

        show: called with what code has shown meanwhile, in order. begin: called when what is watched begins.
        idle: called each second in which nothing came. again: called when another keeper gets the call.
        KeyboardInterrupt tells the keeper that the call is cancelled.
        """
        number = next(self._numbers)
        self.request_id = f"{self._connection}-{number}"
        meta = META if show is None else {**META, "progressToken": number}
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        line = _encoded(message)
        self._link.sent(message, line)
        self._send(line)
        try:
            while (answer := self._answer(number, _Told(show, begin, idle))) is None:
                self._again()
                if again is not None:
                    again()
        except KeyboardInterrupt:
            cancelled = {"requestId": number, "_meta": META}
            self._send(_encoded({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}))
            raise
        return _reply(tool, answer)

    def _send(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # if the keeper is gone, reading tells so
            self._socket.sendall(line)

    def _answer(self, number: int, told: _Told) -> dict[str, Any] | None:
        """The answer to a request; None if the keeper ends before."""
        while (line := self._line(told.idle)) is not None:
            message: dict[str, Any] = json.loads(line)
            if message.get("id") == number and "method" not in message:
                self._link.answered(number)
                return message
            params = message.get("params") or {}
            if params.get("progressToken") == number:
                told.progress(params.get("_meta") or {})
        return None

    def _line(self, idle: Callable[[], None] | None) -> bytes | None:
        """The next line of the keeper; None if it has ended."""
        searched = 0
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while (end := self._read.find(b"\n", searched)) < 0:
            searched = len(self._read)
            while idle is not None and not poll.poll(_IDLE_S * 1000):
                idle()
            try:
                piece = self._socket.recv(_READ_BYTES)
            except OSError:
                piece = b""
            if not piece:
                return None
            self._read += piece
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    def _again(self) -> None:
        self.__exit__()
        if not self._start:
            raise KeeperUnavailable("the keeper has ended")
        self._link.attempt()
        self._connect()


def _encoded(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _reply(tool: str, answer: dict[str, Any]) -> Reply:
    if "error" in answer:
        raise ToolFailed(str(answer["error"].get("message")))
    result = answer["result"]
    reply = Reply(result.get("content", []), result.get("structuredContent"), result.get("_meta"))
    if result.get("isError"):
        known = errors.from_wire((result.get("_meta") or {}).get(errors.WIRE_KEY))
        raise known or ToolFailed(reply.text.removeprefix(f"Error executing tool {tool}: "))
    return reply


def tool(name: str, *, operator: bool = False, start: bool = True, **arguments: Any) -> Reply:
    """Call one tool. The options are those of Caller, the errors those of its `call`."""
    with Caller(operator=operator, start=start) as caller:
        return caller.call(name, **arguments)
