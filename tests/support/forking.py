"""One zygote for all tests of a thread, so that their kernels start in a tenth of the time.

A test's kernels end with the test, and the zygote runs no code of theirs: there is nothing that one could leave to
the next. Each event loop has its own object for it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from kernelrepl.config import Settings
from kernelrepl.kernel import Launch, spawn
from kernelrepl.kernel.process import MODULE, Launcher, Process
from kernelrepl.kernel.zygote import Zygote, ZygoteFailed
from kernelrepl.sessions.confinement import base_environment


@dataclass
class _Shared:
    popen: subprocess.Popen[bytes]
    control: socket.socket
    log: int


_own = threading.local()
"""The one of each thread: a process made by a thread ends with it."""
_all: list[_Shared] = []


async def _zygote() -> Zygote:
    shared: _Shared | None = getattr(_own, "shared", None)
    if shared is not None and shared.popen.poll() is None:
        zygote = Zygote(shared.popen, shared.control, shared.log)
        zygote._ready.set_result({})
        return zygote
    zygote = await Zygote.start(sys.executable, base_environment(os.environ, Path("/tmp")), Settings().preload)
    _own.shared = _Shared(zygote._popen, zygote._control, zygote._log)
    _all.append(_own.shared)
    return zygote


@contextlib.asynccontextmanager
async def forking() -> AsyncIterator[Launcher]:
    """A launcher of this event loop whose kernels are forked; cold ones, once somebody has ended the zygote."""
    zygote = await _zygote()

    async def launch(wanted: Launch) -> Process:
        if wanted.module == MODULE and wanted.python == sys.executable and not zygote.ended:
            with contextlib.suppress(ZygoteFailed):
                return await zygote.fork(wanted)
        return await spawn(wanted)

    try:
        yield launch
    finally:
        if not zygote.ended:
            zygote._loop.remove_reader(zygote._control)


@atexit.register
def _end() -> None:
    for shared in _all:
        shared.popen.kill()
        shared.popen.wait()
