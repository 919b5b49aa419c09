"""What an MCP host starts: copies lines between its stdin and stdout and the keeper's socket.

Standard library only, for the sake of the start. Nothing of value lives here: hosts kill this process
two seconds after they close its stdin. When the keeper goes away the proxy finds or starts the next one,
introduces the client again, and asks again for what was in flight: the keeper answers that from its rows.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import socket
import sys
from typing import Any

from kernelrepl import discovery
from kernelrepl.discovery.link import KeeperLink
from kernelrepl.errors import KernelReplError

_READ_BYTES = 1 << 16
_FINISH_S = 1.5
_INTERNAL_ERROR = -32603
_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
MAX_LINE_BYTES = 48 << 20
"""Less than the keeper takes as one line."""


class StdioProxy:
    """One client, one keeper at a time."""

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._id = os.urandom(8).hex()
        self._link = KeeperLink()
        self._keeper: socket.socket | None = None
        self._from_client: list[bytes] = []
        self._from_keeper: list[bytes] = []
        self._served = False
        """Whether there has ever been a keeper."""

    def run(self) -> int:
        """Serve until the client is done; 1 if there never was a keeper, which is the answer to each request then."""
        try:
            self._connect()
        except (KernelReplError, OSError) as error:
            print(f"kernelrepl: {error}", file=sys.stderr)  # noqa: T201 - stderr is the log of a stdio server
        selector = selectors.PollSelector()  # it takes a file or /dev/null for stdin as well, which epoll refuses
        selector.register(self._stdin, selectors.EVENT_READ, "client")
        registered: socket.socket | None = None
        open_input = True
        while open_input or self._link.busy:
            if registered is not self._keeper:
                if registered is not None:
                    selector.unregister(registered)
                registered = self._keeper
                if registered is not None:
                    selector.register(registered, selectors.EVENT_READ, "keeper")
            events = selector.select(None if open_input else _FINISH_S)
            if not events:
                break
            for key, _ in events:
                if key.data == "client":
                    open_input = self._read_client()
                    if not open_input:
                        selector.unregister(self._stdin)
                elif self._keeper is not None and not self._read_keeper():
                    selector.unregister(self._keeper)
                    registered = None
                    self._lost()
        return 0 if self._served else 1

    # Client to keeper

    def _read_client(self) -> bool:
        data = os.read(self._stdin, _READ_BYTES)
        if not data:
            return False
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._from_client, lines[0]])
            self._from_client = []
        self._from_client.append(rest)
        for line in lines:
            if line.strip():
                self._take(line)
        return True

    def _take(self, line: bytes) -> None:
        """Forward a message; answer what is none, because the server behind would drop it without a word."""
        try:
            message = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            self._write(_error(None, _PARSE_ERROR, f"not JSON: {error}"))
            return
        reason = _problem(message, line)
        if reason is None and "method" in message and self._link.has(message.get("id")):
            reason = f"the id {message['id']!r} is that of a request in flight; give every request an id of its own"
        if reason is not None:
            self._write(_error(_id_of(message), _INVALID_REQUEST, reason))
            return
        line += b"\n"
        self._link.sent(message, line)
        self._forward(line)

    def _forward(self, line: bytes) -> None:
        if self._keeper is None:
            if self._link.busy:
                self._lost()
            return  # what is in flight has been sent, or refused, by that
        # If it is gone, reading the socket tells so, and what is in flight is sent again.
        with contextlib.suppress(OSError):
            self._keeper.sendall(line)

    # Keeper to client

    def _read_keeper(self) -> bool:
        assert self._keeper is not None
        try:
            data = self._keeper.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            return False
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._from_keeper, lines[0]])
            self._from_keeper = []
        self._from_keeper.append(rest)
        for line in lines:
            self._deliver(line)
        return True

    def _deliver(self, line: bytes) -> None:
        reply = _reply(line)
        if reply is None or self._link.answered(reply["id"], accepted="result" in reply):
            self._write(line)

    def _write(self, line: bytes) -> None:
        view = memoryview(line + b"\n")
        while view:
            view = view[os.write(self._stdout, view) :]

    # Life of the connection

    def _connect(self) -> socket.socket:
        hello = {
            "client": "front",
            "connection": self._id,
            "python": sys.executable,
            "settings": discovery.settings_of(os.environ),
            "resumed": self._link.resumed(),
        }
        self._keeper, _ = discovery.connect_or_start(os.environ, discovery.AGENT, hello)
        self._from_keeper = []
        self._served = True
        return self._keeper

    def _lost(self) -> None:
        """Find or start the next keeper and bring it up to date; or say why there is none."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        while self._keeper is None:
            try:
                self._link.attempt()
                keeper = self._connect()
                for line in self._link.replay():
                    keeper.sendall(line)
            except KernelReplError as error:
                self._refuse(str(error))
                return
            except OSError:
                self._keeper = None

    def _refuse(self, reason: str) -> None:
        for identity in self._link.give_up():
            self._write(_error(identity, _INTERNAL_ERROR, reason))


def _problem(message: Any, line: bytes) -> str | None:
    """Why the server behind would not answer a message, and what to do; None if it would."""
    if isinstance(message, list):
        return "batches are not supported; send each message on a line of its own"
    if not isinstance(message, dict) or not {"method", "result", "error"} & message.keys():
        return 'not a JSON-RPC message; a request has "jsonrpc", "id" and "method"'
    if message.get("jsonrpc") != "2.0":
        return 'not a JSON-RPC message; "jsonrpc" must be "2.0"'
    if "method" in message:
        if not isinstance(message["method"], str):
            return '"method" must be a string'
        if not isinstance(message.get("params"), dict | None):
            return '"params" must be an object'
        if "id" in message and type(message["id"]) not in (str, int):
            return '"id" must be a string or an integer; leave it out for a notification'
    if len(line) > MAX_LINE_BYTES:
        # The keeper would end the connection over it, and every try to send it again would as well.
        return f"the message has {len(line)} bytes and may have {MAX_LINE_BYTES}; put data into a file"
    if b"\\u" in line:
        try:
            json.dumps(message, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])[1:-1]
            return f"{half} is half a surrogate pair and no Unicode text; in code write it as \\{half} inside a string"
    return None


def _id_of(message: Any) -> Any:
    """What an error answers: the id of a request, as far as it has one."""
    identity = message.get("id") if isinstance(message, dict) and "method" in message else None
    numeric = isinstance(identity, int) or (isinstance(identity, float) and math.isfinite(identity))
    return identity if isinstance(identity, str) or numeric else None


def _error(identity: Any, code: int, message: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": message}}).encode()


def _reply(line: bytes) -> dict[str, Any] | None:
    """The message in a line that answers a request; None for a notification or a request."""
    head = line[:200]
    if b'"method"' in head.split(b'"params"')[0]:
        return None
    try:
        message = json.loads(line)
    except ValueError:
        return None
    if not isinstance(message, dict) or "id" not in message or "method" in message:
        return None
    return message


def main() -> int:
    # Python looks for signals between two bytecodes, so one that comes just before a wait would be noticed only
    # when the wait is over. There is nothing to clean up: the system may end us where we stand.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.isatty(0):
        print(  # noqa: T201 - stderr is the log of a stdio server
            "kernelrepl: this is an MCP server, which waits for messages of a host; `kernelrepl --help` shows commands",
            file=sys.stderr,
        )
    try:
        return StdioProxy().run()
    except KernelReplError as error:
        print(f"kernelrepl: {error}", file=sys.stderr)  # noqa: T201 - stderr is the log of a stdio server
        return 1
    except BrokenPipeError:
        return 0
