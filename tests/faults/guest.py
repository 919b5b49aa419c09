"""A kernel that can be ended at each point of a commit and of a restore. Run in place of kernelrepl.guest.start."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from kernelrepl.guest import start, wire
from kernelrepl.guest.checkpoint.saving import Durability
from kernelrepl.guest.ipython import application
from tests.faults.points import LATE, LATE_POINT, die, due, reach


class FaultyChannel(wire.Channel):
    """Ends the process before, within or after a frame."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._socket = sock

    def send(self, header: dict[str, Any], payload: Sequence[wire.Buffer] = ()) -> None:
        """Send one frame, unless a fault is due."""
        if header["type"] == "commit":
            if any(entry.get("staged") for entry in header["components"]):
                reach("staged")
            reach("before_send")
            if due("mid_frame"):
                self._send_half(header, payload)
                die()
        super().send(header, payload)
        if header["type"] == "loading":
            reach("mid_restore")

    def _send_half(self, header: dict[str, Any], payload: Sequence[wire.Buffer]) -> None:
        data = b"".join(bytes(part) for part in payload)
        frame = wire.encode(header, len(data)) + data
        self._socket.sendall(frame[: len(frame) // 2])


class FaultySaving(Durability):
    """Ends the process between `committed` and the reply."""

    def commit(self, *args: Any) -> dict[str, Any]:
        """Commit; the reply goes out when this returns."""
        outcome = super().commit(*args)
        reach("before_reply")
        return outcome


class LateSaving(Durability):
    """What this project must never become: the reply goes out first, the commit follows before the next cell."""

    _owed: Callable[[], Any] | None = None

    def commit(self, *args: Any) -> dict[str, Any]:
        """Claim that it is committed, and remember to do it."""
        self._owed = lambda: Durability.commit(self, *args)
        return {"committed": True, "saved": {"created": [], "changed": [], "deleted": []}, "not_saved": []}

    def begin_cell(self, *args: Any) -> None:
        """Commit the cell before, whose reply has long arrived; or end just before that."""
        if self._owed is not None:
            reach(LATE_POINT)
            self._owed()
            self._owed = None
        super().begin_cell(*args)


if __name__ == "__main__":
    wire.Channel = FaultyChannel  # type: ignore[misc]
    application.Durability = LateSaving if LATE in os.environ else FaultySaving  # type: ignore[attr-defined]
    start.main(sys.argv[1:])
