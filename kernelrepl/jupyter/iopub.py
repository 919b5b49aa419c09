"""What the kernel of one session shows, on its way to the Jupyter clients.

It goes to all of them, without what could act there unless a person trusts the session, and once more below the cells
that watch what others run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from kernelrepl.guest.wire import REPLY
from kernelrepl.jupyter.sockets import KernelSockets
from kernelrepl.outputs import sanitize, terminal_text
from kernelrepl.sessions.execution import Execution

HEADER = ("msg_id", "msg_type", "session", "username", "date", "version")
"""What the protocol knows of a header."""
COMMS = ("comm_open", "comm_msg", "comm_close")
_FOREIGN = 50
"""Of so many of the last executions of others it is known whose they were: they may still print."""
_SHARE, _AHEAD_S = 5, 5.0
"""Looking through what is shown takes one part of so many of the keeper's time, for which all sessions wait. It may be
ahead of that by so many seconds."""
_TOO_MUCH = "Shown as text: there was more to look through than there is time for; show less at once."


class IOPub:
    """What one session publishes. `all_sockets`: where its clients are."""

    def __init__(self, session_id: str, *, trusted: bool) -> None:
        self.trusted = trusted
        self.all_sockets: set[KernelSockets] = set()
        self._session_id = session_id
        self._foreign: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._watchers: dict[Hashable, tuple[KernelSockets, Mapping[str, Any]]] = {}
        """Clients that want to see what others run, where they are, and below which of their cells."""
        self._active: set[str] = set()
        """What runs or is asked, by msg_id."""
        self._looking_until = 0.0
        self._told: OrderedDict[str, None] = OrderedDict()
        """Executions of which it has been said that something of their output was left out."""

    @property
    def state(self) -> str:
        """What the kernel does, as the protocol calls it."""
        return "busy" if self._active else "idle"

    def watch(self, client: Hashable, sockets: KernelSockets, below: Mapping[str, Any]) -> None:
        """A client wants to see below a cell of its own what others run."""
        self._watchers[client] = sockets, below

    def unwatch(self, client: Hashable) -> None:
        self._watchers.pop(client, None)

    def watches(self, client: Hashable) -> bool:
        return client in self._watchers

    # What is not asked for by a Jupyter client

    def began(self, execution: Execution) -> None:
        header = {"msg_id": execution.msg_id, "msg_type": "execute_request", "session": f"of {execution.origin}",
                  "username": execution.origin, "version": "5.4"}  # fmt: skip
        self._foreign[execution.msg_id] = header
        while len(self._foreign) > _FOREIGN:
            self._foreign.popitem(last=False)
        self._active.add(execution.msg_id)
        self.publish("status", {"execution_state": "busy"}, header)

    def ended(self, execution: Execution) -> None:
        self._active.discard(execution.msg_id)
        if (header := self._foreign.get(execution.msg_id)) is not None:
            self.publish("status", {"execution_state": "idle"}, header)

    # What the kernel shows

    def show(self, message: dict[str, Any], owner: Hashable, parent_header: Mapping[str, Any] | None) -> None:
        """A message of the kernel, which is not trusted, whatever it says.

        owner: the client that runs its parent, and the header of that, if it is under way.
        """
        kind, parent = message["type"], message["parent"]
        content, metadata, buffers = message["content"], message["metadata"], tuple(message["buffers"])
        header = (
            parent_header
            or self._foreign.get(parent)
            or {name: value for name in HEADER if isinstance(value := message["of"].get(name), str)}
        )
        if isinstance(data := content.get("data"), dict) and REPLY in data:  # that is for models
            content = {**content, "data": {mime: form for mime, form in data.items() if mime != REPLY}}
        if not self.trusted:
            metadata, buffers = {}, ()
            passive, notice = self._passive(kind, content)
            if notice and parent not in self._told:
                self._told[parent] = None
                while len(self._told) > _FOREIGN:
                    self._told.popitem(last=False)
                self._show(owner, "stream", {"name": "stderr", "text": notice + "\n"}, header, {}, ())
            if passive is None:
                return
            content = passive
        self._show(owner, kind, content, header, metadata, buffers)

    def _passive(self, kind: str, content: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
        """Of a message what cannot act, and what a person is to know of the rest, if there is one."""
        if kind not in ("execute_result", "display_data", "update_display_data"):
            return sanitize.harmless(kind, content), ""
        now = asyncio.get_running_loop().time()
        notice = ""
        if self._looking_until > now + _AHEAD_S:
            content, notice = _as_text(content), _TOO_MUCH
        began = time.thread_time()
        passive, taken = sanitize.shown(content)
        self._looking_until = max(now, self._looking_until) + _SHARE * (time.thread_time() - began)
        if kind == "execute_result":
            if not passive["transient"]:
                del passive["transient"]  # few have one there, and all a count
            count = content.get("execution_count")
            passive["execution_count"] = count if type(count) is int else None
        return passive, sanitize.notice(taken, self._session_id) if taken else notice

    def _show(
        self,
        owner: Hashable,
        kind: str,
        content: dict[str, Any],
        header: Mapping[str, Any],
        metadata: Any,
        buffers: tuple[bytes, ...],
    ) -> None:
        self.publish(kind, content, header, metadata, buffers)
        for watcher, (sockets, below) in self._watchers.items():
            if watcher is owner:
                continue
            if kind == "execute_input":
                by = header.get("username", "")
                code = terminal_text.output(str(content.get("code")))
                text = terminal_text.said(terminal_text.field(by), f"In [{content.get('execution_count')}]: {code}\n")
                sockets.publish("stream", {"name": "stdout", "text": text}, below)
            elif kind == "execute_result":
                sockets.publish("display_data", content, below, metadata, buffers)
            elif kind not in COMMS:
                sockets.publish(kind, content, below, metadata, buffers)

    @contextlib.contextmanager
    def busy(self, header: Mapping[str, Any], sockets: KernelSockets | None = None) -> Iterator[None]:
        """Around a request: clients wait for both. sockets: the only ones whom it concerns."""
        concerned = self.all_sockets if sockets is None else {sockets}
        request = str(header.get("msg_id"))
        if sockets is None:
            self._active.add(request)
        for one in concerned:
            one.publish("status", {"execution_state": "busy"}, header)
        try:
            yield
        finally:
            self._active.discard(request)
            for one in concerned:
                one.publish("status", {"execution_state": "idle"}, header)

    def publish(
        self,
        kind: str,
        content: Mapping[str, Any],
        header: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        buffers: tuple[bytes, ...] = (),
    ) -> None:
        for sockets in self.all_sockets:
            sockets.publish(kind, content, header, metadata, buffers)

    def tell_restart(self, but: frozenset[KernelSockets] = frozenset()) -> None:
        """To clients a new kernel is a restart: what is displayed may refer to what is gone."""
        for sockets in self.all_sockets - but:
            sockets.publish("status", {"execution_state": "restarting"}, {})


def _as_text(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a kernel shows, as the text that it has brought for whoever cannot show more."""
    data = content.get("data")
    text = data.get("text/plain") if isinstance(data, dict) else None
    return {**content, "data": {"text/plain": text or "<shown as text, of which there is none>"}}
