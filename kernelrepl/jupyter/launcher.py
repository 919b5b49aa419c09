"""What the kernelspec's command runs, for hosts that know nothing of provisioners: VS Code, PyCharm, Spyder.

Such a host starts a process and gives it a connection file. This one has the keeper serve a session where the file
says, and stands for it as long as the host wants: nothing passes through it, and it may be killed at any time.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from kernelrepl.errors import InvalidArgument, KernelReplError
from kernelrepl.jupyter.attachment import Attachment
from kernelrepl.jupyter.heartbeat import Heartbeat

NOTEBOOK = "JPY_SESSION_NAME"
_SHUTDOWN_S = 0.2
"""A host that ends a kernel interrupts it first, and that is not meant for the session."""
_LOOK_S = 1.0


def main(file: Path, session_id: str | None) -> int:
    """Serve a session by a connection file until the host ends this; returns the exit code."""
    try:
        address = json.loads(file.read_text())
        if not isinstance(address, dict):
            raise ValueError("it has no fields")
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"'{file}' is no connection file: {error}; Jupyter hosts give one with -f") from error
    signals = _signals()
    parent = os.getppid()
    notebook = None if session_id else os.environ.get(NOTEBOOK) or None
    attachment = Attachment(os.environ, session_id=session_id, notebook=notebook, lost=_end)
    beat = Heartbeat(address)
    try:
        attachment.connect()
    finally:
        beat.end()
    attachment.open(address)
    threading.Thread(target=_until_left, args=(attachment,), daemon=True).start()
    try:
        while os.getppid() == parent:
            found = signals(_LOOK_S)
            while found == signal.SIGINT and (found := signals(_SHUTDOWN_S)) in (None, signal.SIGINT):
                attachment.here("keeper_interrupt")
            if found is not None:
                break
    finally:
        attachment.close()
    return 0


def _signals() -> Callable[[float], int | None]:
    """From now on signals wait to be asked for: the next one, None if none comes in so many seconds.

    They are not blocked, as a keeper that is started from here would inherit that.
    """
    read_end, write_end = socket.socketpair()
    for end in (read_end, write_end):
        end.setblocking(False)
    signal.set_wakeup_fd(write_end.fileno())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)

    def next_one(timeout_s: float) -> int | None:
        ready, _, _ = select.select([read_end], [], [], timeout_s)
        return read_end.recv(1)[0] if ready else None

    # The writing end lives as long as this function does.
    next_one.write_end = write_end  # type: ignore[attr-defined]
    return next_one


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _until_left(attachment: Attachment) -> None:
    """End when a client of the host asks to end the kernel."""
    while True:
        try:
            attachment.here("keeper_left").result()
        except KernelReplError:
            if attachment.ended or not attachment.wait_attached():
                return
            continue
        _end()
        return
