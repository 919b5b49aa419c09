"""Run some cells before there is a session, so that no session pays for what is slow only the first time.

Runs in the zygote, single-threaded. The cells go the way that cells of a session go, down to a channel; at its other
end everything is answered and nothing kept. What they leave behind is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import zmq

from kernelrepl.guest import code_sources, frames, wire
from kernelrepl.guest.checkpoint.saving import Durability
from kernelrepl.guest.interrupts import Interrupts
from kernelrepl.guest.ipython.kernel import Parts
from kernelrepl.guest.ipython.mending import Repair
from kernelrepl.guest.isolation import confine

if TYPE_CHECKING:
    from kernelrepl.guest.ipython.application import GuestApp

_CELLS = (
    "1 + 1",
    "x = [1]\ndef f(y):\n    return y\nclass C: pass",
    "x.append(2); c = C(); c.f = f",
    "{'a': f(x), 'b': 'text'}",
    "1 / 0",
    # A magic is loaded when something is asked of it.
    "{getattr(one, '__func__', 0) for of in get_ipython().magics_manager.magics.values() for one in of.values()} and 0",
    "del x, c",
)
_OF_LIBRARIES = {
    "pandas": "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})\ndf",
    "numpy": "import numpy as np\na = np.arange(3.0)\na.sum()",
}
_COMPLETED = "x = 1\nx.bit"
"""A text for which jedi parses what it knows of Python itself: it takes a second, and would in each kernel anew."""
_FILES_OF_PARSER = ("_load_from_file_system", "_save_to_file_system", "_remove_cache_and_update_lock")
_START = {
    "confined": False,
    "durable": True,
    "limits": {"variable_bytes": 1 << 20, "session_bytes": 1 << 20, "deadline_s": 10.0},
    "packages": {"home": "", "layers": []},
}


def warm(app: GuestApp) -> None:
    """Run the cells. Nothing of it leaves a trace in the namespace."""
    confine.prepare()
    cells = [*_CELLS, *(code for library, code in _OF_LIBRARIES.items() if library in sys.modules)]
    with _as_in_a_kernel(app) as channel:
        asyncio.run(_run(app, channel, cells))


def complete(app: GuestApp) -> None:
    """Complete a text, as `warm` runs cells: it takes as long as all of these, and less depends on it."""
    if "jedi" in sys.modules:
        with _as_in_a_kernel(app) as channel, _parsing_in_memory():
            _attach(app, channel)
            app.kernel.do_complete(_COMPLETED, len(_COMPLETED))


@contextlib.contextmanager
def _as_in_a_kernel(app: GuestApp) -> Iterator[wire.Channel]:
    names, hidden = dict(app.user_module.__dict__), dict(app.kernel.shell.user_ns_hidden)
    errors = sys.stderr
    with _channel() as channel, _output(app), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        sys.stderr = nowhere
        try:
            yield channel
        finally:
            sys.stderr = errors
            _clear(app, names, hidden)


def _attach(app: GuestApp, channel: wire.Channel) -> Durability:
    kernel, interrupts = app.kernel, Interrupts()
    saving = Durability(channel, kernel.shell, app.user_module, interrupts, {**_START, "workspace": os.getcwd()})  # noqa: PTH109
    kernel.attach(Parts(interrupts, saving, streams=()))
    kernel.shell.mending = Repair(kernel.shell.user_ns, kernel.shell.user_ns_hidden, (), interrupts.originals)
    return saving


async def _run(app: GuestApp, channel: wire.Channel, cells: list[str]) -> None:
    saving = _attach(app, channel)
    for code in cells:
        await app.kernel.do_execute(code, silent=False)
        saving.audits.finish()


@contextlib.contextmanager
def _parsing_in_memory() -> Iterator[None]:
    """Nothing is read that was parsed elsewhere, as anybody may have written it, and nothing is left there."""
    cache: Any = sys.modules.get("parso.cache")
    before = {name: getattr(cache, name, None) for name in _FILES_OF_PARSER}
    try:
        for name in before:
            setattr(cache, name, lambda *args, **kwargs: None)
        yield
    finally:
        for name, function in before.items():
            setattr(cache, name, function)


class _Answered(wire.Channel):
    """Answers what is sent through it: cells commit, and so may the audits after them, as often as they like."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        super().__init__(ours)
        self._theirs = theirs

    def send(self, header: dict[str, Any], payload: Sequence[wire.Buffer] = ()) -> None:
        super().send(header, payload)
        with contextlib.suppress(BlockingIOError):
            while self._theirs.recv(1 << 20, socket.MSG_DONTWAIT):
                pass
        if header["type"] == "commit":
            answer = frames.build("committed", commit=header["commit"], reason=None)
            self._theirs.sendall(wire.encode(answer, 0))


@contextlib.contextmanager
def _channel() -> Iterator[wire.Channel]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield _Answered(ours, theirs)


@contextlib.contextmanager
def _output(app: GuestApp) -> Iterator[None]:
    """A socket that nobody reads: its context ends its threads."""
    shell = app.kernel.shell
    with zmq.Context() as context:
        nobody = context.socket(zmq.PUB)
        app.kernel.iopub_socket = shell.displayhook.pub_socket = shell.display_pub.pub_socket = nobody
        try:
            yield
        finally:
            app.kernel.iopub_socket = shell.displayhook.pub_socket = shell.display_pub.pub_socket = None
            nobody.close(0)


def _clear(app: GuestApp, names: dict[str, Any], hidden: dict[str, Any]) -> None:
    kernel, shell = app.kernel, app.kernel.shell
    shell.reset(new_session=True)
    shell.user_ns.clear()
    shell.user_ns.update(names)
    shell.user_ns_hidden.clear()
    shell.user_ns_hidden.update(hidden)
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    code_sources.forget(shell.compile)
    kernel.detach()
    app.recorder.take()
