"""The two processes around a confined kernel. Run in the kernel's place, before it is one.

    keeper ── waiter ── first process of the pid namespace ── kernel
              outside   confined like the kernel              runs the session

The first process of a namespace is none to run user code in: signals that would end another process do not
reach it, and every orphan becomes its child. So it only reaps, and passes interrupts on. The waiter, which a
process that makes a pid namespace has to leave outside, ends as the kernel ended: the keeper started it, and
reads it there.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable
from typing import NoReturn

from kernelrepl.guest import lifeline
from kernelrepl.guest.system import libc

_PR_SET_DUMPABLE = 4


def wait_outside(first: int, told: int) -> NoReturn:
    """Wait for the first process, and end as the kernel did (it says so in `told`) or as the first process did."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _close_all_but(told)
    _, status = os.waitpid(first, 0)
    with contextlib.suppress(ValueError):
        status = int(os.read(told, 16))
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def fork_kernel(tell: int, protect: Callable[[], None]) -> None:
    """Return in a child, which becomes the kernel; this process, the first of its namespace, attends to it.

    protect: the last of the confinement, in both. After it this process could not close itself to the kernel any more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kernel = os.fork()
    if not kernel:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(tell)
        lifeline.die_with_parent()
        protect()
        return
    if libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):  # its memory and descriptors are nobody's business
        os._exit(1)
    protect()
    signal.signal(signal.SIGINT, lambda number, frame: os.kill(kernel, signal.SIGINT))
    _close_all_but(tell)
    while True:
        child, status = os.waitpid(-1, 0)
        if child == kernel:
            os.write(tell, str(status).encode())
            os._exit(0)


def _close_all_but(kept: int) -> None:
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 16)
