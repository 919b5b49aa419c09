"""A kernel ends with its keeper, and when it cannot keep its promises any more. Runs in the kernel."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

from kernelrepl.guest.system import libc
from kernelrepl.guest.wire import EXIT_BROKEN, NICENESS

_PR_SET_PDEATHSIG = 1


def stand_back() -> None:
    """Make the group nicer that this process has begun: Linux weighs groups, and niceness counts within a group only.

    Starting is work as well, of which a session that ends again and again has much. What fails is done by the keeper
    later: without rights Linux takes ten of these a second.
    """
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            file = os.open("/proc/self/autogroup", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, str(NICENESS).encode())
            finally:
                os.close(file)


def die_with_parent() -> None:
    if sys.platform == "linux":
        libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_with_channel(channel_fd: int) -> None:
    """When the keeper is gone, nothing can be committed any more: do not linger, wherever we are."""
    poll = select.poll()
    poll.register(channel_fd, 0)

    def watch() -> None:
        while True:
            for _, event in poll.poll():
                if event & select.POLLNVAL:
                    os._exit(EXIT_BROKEN)  # the cell closed it
                if event & (select.POLLHUP | select.POLLERR):
                    os._exit(0)

    threading.Thread(target=watch, name="channel watch", daemon=True).start()


def leave(code: int) -> NoReturn:
    """End without running anything that was registered for the end."""
    os._exit(code)


def break_off(log: int, leave: Callable[[int], NoReturn] = os._exit) -> NoReturn:
    """End a kernel whose own machinery fails: nobody would get a reply any more, and wait for ever.

    What is committed stays, and the keeper answers for the rest. `log` is the descriptor of the kernel's log.
    """
    try:
        os.write(log, traceback.format_exc().encode(errors="replace"))
    finally:
        leave(EXIT_BROKEN)
