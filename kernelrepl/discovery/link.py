"""What a client has asked its keepers for: which requests are in flight, and what a new keeper has to be sent.

This is the part without sockets, threads and clocks. Whoever connects a client to a keeper tells it each message that
passes, and asks it what to do when a keeper has ended. Standard library only, for the sake of the proxy's start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from kernelrepl.errors import KeeperUnavailable

TYPE_CHECKING = False  # without `typing`, which takes as long to load as all else here
if TYPE_CHECKING:
    from typing import Any

RECONNECTS = 5
"""How many keepers in a row may end before they have answered anything."""
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "kernelrepl", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
"""What a program of ours says of itself with each request, so that it needs no handshake."""
_REPLAY_ID = "kernelrepl-replay"
_INITIALIZED = b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n'


class KeeperLink:
    """The requests of one client, through all keepers that it is connected to, one after the other."""

    def __init__(self) -> None:
        self._in_flight: dict[str, bytes] = {}
        """The line of each request that is not answered yet, by its id as JSON: 1 and "1" are two ids."""
        self._handshakes: dict[str, bytes] = {}
        """Each `initialize` that is not answered yet."""
        self._accepted: bytes | None = None
        """The `initialize` that a keeper has accepted. One that was refused must never open a connection."""
        self._initialized = False
        self._attempts = 0

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return bool(self._in_flight)

    def has(self, identity: Any) -> bool:
        """Return whether a request with this id is in flight."""
        return json.dumps(identity) in self._in_flight

    def resumed(self) -> list[Any]:
        """Return what to say in the hello to a keeper: the ids of the requests that it is going to be sent again."""
        return [json.loads(key) for key in self._in_flight]

    def sent(self, message: Mapping[str, Any], line: bytes) -> None:
        """Note a message of the client, which passes to the keeper as this line, with its newline."""
        method = message.get("method")
        if method == "initialize" and "id" in message:
            self._handshakes[json.dumps(message["id"])] = line
        elif method == "notifications/initialized":
            self._initialized = True
        elif method == "notifications/cancelled":
            self._in_flight.pop(json.dumps((message.get("params") or {}).get("requestId")), None)
        if method is not None and "id" in message:
            self._in_flight[json.dumps(message["id"])] = line

    def answered(self, identity: Any, *, accepted: bool = True) -> bool:
        """Note an answer of the keeper, and return whether it is for the client. accepted: it is no error."""
        key = json.dumps(identity)
        if key == json.dumps(_REPLAY_ID):
            return False
        if self._in_flight.pop(key, None) is not None:
            self._attempts = 0  # only an answer counts: a request that no keeper survives must be given up
        handshake = self._handshakes.pop(key, None)
        if handshake is not None and accepted:
            self._accepted = handshake
        return True

    def attempt(self) -> None:
        """Note that the client needs the next keeper. Raises KeeperUnavailable when too many have ended in a row."""
        self._attempts += 1
        if self._attempts > RECONNECTS:
            raise KeeperUnavailable(f"the keeper ended {RECONNECTS} times in a row; see its log")

    def replay(self) -> list[bytes]:
        """Return the lines that open the connection to a new keeper as the client has it.

        What comes first decides which protocol a keeper speaks on a connection.
        """
        lines = []
        introduced = self._accepted is not None
        if self._accepted is not None:
            lines.append(json.dumps({**json.loads(self._accepted), "id": _REPLAY_ID}).encode() + b"\n")
        if introduced and self._initialized:
            lines.append(_INITIALIZED)
        for key, line in self._in_flight.items():
            lines.append(line)
            if key in self._handshakes and self._initialized and not introduced:
                introduced = True
                lines.append(_INITIALIZED)  # it did not wait for the answer
        return lines

    def give_up(self) -> list[Any]:
        """Return the ids of the requests that no keeper will answer, and begin anew without them."""
        refused = self.resumed()
        self._in_flight.clear()
        self._handshakes.clear()
        self._attempts = 0
        return refused
