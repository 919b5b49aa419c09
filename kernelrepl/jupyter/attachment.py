"""A session that the keeper serves to a Jupyter client, held for as long as that client wants it.

Standard library only, and blocking: notebook servers import it, and it must not matter which event loop runs there, or
whether one does. When the keeper goes away the next one is found or started, and serves the session in the same place.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from kernelrepl import discovery
from kernelrepl.discovery.link import META
from kernelrepl.errors import KeeperUnavailable, KernelReplError, ToolFailed

CALL_TIMEOUT_S = 120.0
_TRIES = 6
_PAUSE_S = 0.2


class Attachment:
    """Opened with `open`, ended with `close`. Its methods block; they may be called from any thread."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        session_id: str | None = None,
        notebook: str | None = None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """session_id, notebook: at most one; neither means a session that is deleted with this.

        lost: called, in a thread of this, when the keeper is gone and there is no other.
        """
        self.session_id = session_id
        self.connection: dict[str, Any] | None = None
        """What a connection file says."""
        self._notebook = notebook
        self._throwaway = session_id is None and notebook is None
        self._environ = environ
        self._lost = lost
        self._socket: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._there = threading.Event()
        self._closed = False

    @property
    def ended(self) -> bool:
        return self._closed

    def wait_attached(self) -> bool:
        """Until there is a keeper again, if it has ended; whether there is one."""
        self._there.wait()
        return self._socket is not None and not self._closed

    def open(self, address: Mapping[str, Any] | None = None, *, restart: bool = False) -> dict[str, Any]:
        """Attach, or attach anew where it was; returns what a connection file says. Raises KernelReplError.

        address: where the client looks for a kernel already. restart: with a new kernel.
        """
        self.connect()
        return self._attach(self.connection or address, restart=restart)

    def connect(self) -> None:
        """Find or start a keeper, if this is connected to none. Raises KernelReplError."""
        if self._socket is None:
            self._closed = False
            self._connect()

    def _connect(self) -> None:
        own = discovery.settings_of(self._environ)
        hello = {"client": "jupyter", "python": sys.executable, "settings": own}
        self._socket, _ = discovery.connect_or_start(self._environ, discovery.OPERATOR, hello)
        threading.Thread(target=self._read, args=(self._socket,), name="kernelrepl", daemon=True).start()

    def _attach(
        self, address: Mapping[str, Any] | None, *, restart: bool = False, again: bool = False
    ) -> dict[str, Any]:
        wanted: dict[str, Any] = {"restart": restart, "again": again, "throwaway": self._throwaway}
        if address is not None:
            wanted["address"] = dict(address)
        if self.session_id is not None:
            wanted["session_id"] = self.session_id
        elif self._notebook is not None:
            wanted["notebook"] = self._notebook
        found = self.call("keeper_attach", **wanted)
        self.session_id, self.connection = found["session_id"], found["connection"]
        self._there.set()
        return dict(found["connection"])

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool of the keeper and wait for its result. Raises KernelReplError."""
        try:
            return self.start(tool, **arguments).result(CALL_TIMEOUT_S)
        except TimeoutError as error:
            raise KeeperUnavailable(f"the keeper has not answered for {CALL_TIMEOUT_S:g} s; see its log") from error

    def start(self, tool: str, **arguments: Any) -> Future[Any]:
        """Call a tool of the keeper. What is under way when a keeper ends fails with KeeperUnavailable."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # nobody who gives up waiting gets into the way of the answer
        number = next(self._numbers)
        call = {"name": tool, "arguments": arguments, "_meta": META}
        line = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}).encode() + b"\n"
        with self._lock:
            self._waiting[number] = future
            try:
                if self._socket is None:
                    raise KeeperUnavailable("the keeper is gone")
                self._socket.sendall(line)
            except (OSError, KeeperUnavailable) as error:
                del self._waiting[number]
                future.set_exception(KeeperUnavailable(f"the keeper cannot be reached: {error}"))
        return future

    def here(self, tool: str, **arguments: Any) -> Future[Any]:
        """Call a tool about the place where this is attached."""
        return self.start(tool, address=self.connection, **arguments)

    def rename(self, notebook: str) -> Future[Any] | None:
        """The notebook has this path now; None if the keeper knows."""
        if self._notebook is None or notebook == self._notebook:
            return None
        before, self._notebook = self._notebook, notebook
        return self.here("keeper_rename", notebook=notebook, before=before)

    def _read(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock.makefile("rb") as lines:
            for line in lines:
                self._take(json.loads(line))
        with self._lock:
            self._socket = None
            waiting, self._waiting = self._waiting, {}
        sock.close()
        self._there.clear()
        for future in waiting.values():
            future.set_exception(KeeperUnavailable("the keeper ended"))
        if not self._closed and self.connection is not None:
            self._again()

    def _take(self, message: dict[str, Any]) -> None:
        with self._lock:
            future = self._waiting.pop(message.get("id", 0), None)
        if future is None:
            return
        if "error" in message:
            future.set_exception(ToolFailed(str(message["error"].get("message"))))
            return
        result = message["result"]
        text = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
        if result.get("isError"):
            future.set_exception(ToolFailed(text.partition(": ")[2] if text.startswith("Error executing") else text))
        else:
            found = result.get("structuredContent")
            future.set_result(text if found is None else found)

    def _again(self) -> None:
        """The keeper has ended: attach to the next one, where this one was."""
        for attempt in range(_TRIES):
            time.sleep(_PAUSE_S * attempt)
            if self._closed:
                return
            try:
                self._connect()
                self._attach(self.connection, again=True)
            except KernelReplError:
                continue
            return
        self._there.set()
        self._lost()

    def close(self) -> None:
        """Detach. The session stays, unless it was made for this alone."""
        if (detached := self.detach()) is not None:
            with contextlib.suppress(KernelReplError, TimeoutError):
                detached.result(CALL_TIMEOUT_S)
        self.hang_up()

    def detach(self) -> Future[Any] | None:
        """Ask the keeper to detach this; None if there is nothing to wait for. Does not block; `hang_up` comes next."""
        if self._closed:
            return None
        self._closed = True
        return None if self.connection is None else self.here("keeper_detach")

    def hang_up(self) -> None:
        """End the connection to the keeper. Does not block."""
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
