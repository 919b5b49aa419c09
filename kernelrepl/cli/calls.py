"""The command line's connection to the keeper: blocking, and of the standard library, so that commands start fast."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import socket
from dataclasses import dataclass
from typing import IO, Any

from kernelrepl import discovery, errors
from kernelrepl.discovery.link import META, KeeperLink
from kernelrepl.errors import KeeperUnavailable, NoKeeper, ToolFailed


@dataclass(frozen=True)
class Reply:
    """What a tool has returned."""

    content: list[dict[str, Any]]
    """Blocks of text and images, as the protocol has them: `type` with `text`, or with `data` and `mimeType`."""
    structured: Any
    """The fields of the result; None if it has none."""

    @property
    def text(self) -> str:
        return "\n".join(block["text"] for block in self.content if block["type"] == "text")

    @property
    def images(self) -> list[tuple[str, str]]:
        """The MIME type and the data, in base64, of each image."""
        return [(block["mimeType"], block["data"]) for block in self.content if block["type"] == "image"]


class Caller:
    """This object calls tools of the keeper, one after the other. When the keeper ends, the next one gets the call."""

    def __init__(self, *, operator: bool = False, start: bool = True) -> None:
        """Connect to the keeper. operator: to its socket with the tools of the operator. start: one, if none runs.

        Raises NoKeeper if none runs and none is to be started, else KeeperUnavailable.
        """
        self._which = discovery.OPERATOR if operator else discovery.AGENT
        self._start = start
        self._connection = secrets.token_hex(8)
        self._link = KeeperLink()
        self._numbers = itertools.count(1)
        self._socket: socket.socket
        self._lines: IO[bytes]
        self._connect()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()
        self._socket.close()

    def _connect(self) -> None:
        hello = {
            "client": "cli",
            "connection": self._connection,
            "settings": discovery.settings_of(os.environ),
            "resumed": self._link.resumed(),
        }
        if self._start:
            found = discovery.connect_or_start(os.environ, self._which, hello)
        else:
            there = discovery.find(discovery.data_dir(os.environ), self._which, hello)
            if there is None:
                raise NoKeeper
            found = there
        self._socket = found[0]
        self._lines = self._socket.makefile("rb")
        for line in self._link.replay():
            self._send(line)

    def call(self, tool: str, **arguments: Any) -> Reply:
        """Call a tool and wait for its result. Raises the KernelReplError that the tool raised, or KeeperUnavailable.

        KeyboardInterrupt tells the keeper that the call is cancelled.
        """
        number = next(self._numbers)
        params = {"name": tool, "arguments": arguments, "_meta": META}
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        line = _encoded(message)
        self._link.sent(message, line)
        self._send(line)
        try:
            while (answer := self._answer(number)) is None:
                self._again()
        except KeyboardInterrupt:
            cancelled = {"requestId": number, "_meta": META}
            self._send(_encoded({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}))
            raise
        return _reply(tool, answer)

    def _send(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # if the keeper is gone, reading tells so
            self._socket.sendall(line)

    def _answer(self, number: int) -> dict[str, Any] | None:
        """The answer to a request; None if the keeper ends before."""
        with contextlib.suppress(OSError):
            for line in self._lines:
                message: dict[str, Any] = json.loads(line)
                if message.get("id") == number and "method" not in message:
                    self._link.answered(number)
                    return message
        return None

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
    reply = Reply(result.get("content", []), result.get("structuredContent"))
    if result.get("isError"):
        known = errors.from_wire((result.get("_meta") or {}).get(errors.WIRE_KEY))
        raise known or ToolFailed(reply.text.removeprefix(f"Error executing tool {tool}: "))
    return reply


def tool(name: str, *, operator: bool = False, start: bool = True, **arguments: Any) -> Reply:
    """Call one tool. The options are those of Caller, the errors those of its `call`."""
    with Caller(operator=operator, start=start) as caller:
        return caller.call(name, **arguments)
