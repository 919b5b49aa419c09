"""The heartbeat of a kernel that is about to be there: hosts give up on one that does not beat within a second.

A first keeper takes longer than that to start. Until it serves the sockets of the connection file, the process that the
host has started beats in its place.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LOOK_MS = 20
_LINGER_MS = 200
_PERIOD_S = 1.0
"""How often clients ask. One that has just been answered misses nothing while the keeper takes over."""


class Heartbeat:
    """Answers from its making until `end`, if nobody else does there."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        """info: a connection file. Of one that cannot be served there is no heartbeat; the keeper says why."""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(_url(info),), name="heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop beating, right after a beat if there is a client. Returns when the address is free."""
        self._ending.set()
        self._thread.join()

    def _run(self, url: str | None) -> None:
        if url is None:
            return
        import zmq  # beside the search for a keeper

        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.ROUTER)
        socket.linger = _LINGER_MS
        with contextlib.suppress(zmq.ZMQError):  # where somebody answers already, or nobody may
            socket.bind(url)
            heard = None
            while not self._may_end(heard):
                if socket.poll(_LOOK_MS):
                    socket.send_multipart(socket.recv_multipart())
                    heard = time.monotonic()
        socket.close()
        context.term()

    def _may_end(self, heard: float | None) -> bool:
        if not self._ending.is_set():
            return False
        silent = None if heard is None else time.monotonic() - heard
        return silent is None or not _PERIOD_S / 2 < silent < 2 * _PERIOD_S


def _url(info: Mapping[str, Any]) -> str | None:
    """Return where a client looks for the heartbeat; None where nothing may be served, or somebody serves."""
    transport, ip, port = (info.get(name) for name in ("transport", "ip", "hb_port"))
    if transport == "ipc":
        place = f"{ip}-{port}"
        return None if Path(place).exists() else f"ipc://{place}"
    try:
        local = ip == "localhost" or ipaddress.ip_address(str(ip)).is_loopback
    except ValueError:
        return None
    return f"tcp://{ip}:{port}" if transport in ("tcp", None) and local and isinstance(port, int) else None
