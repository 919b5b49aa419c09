"""A warm process that becomes kernels: it loads once what they all need, and forks. Never runs code of a session.

The keeper starts it with a clean environment. What it loads are the libraries of the interpreter, as a kernel would
load them before it is confined; each fork is told by its own channel how to confine itself, and does so first of all.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from kernelrepl.guest import large_pages, lifeline, start, warming
from kernelrepl.guest.ipython import application

DESCRIPTORS = 6
"""What comes with the wish for a kernel: its channel, its four sockets, its log."""
_MESSAGE_BYTES = 64 << 10
_SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
_THREAD_S = 1.0
"""How long a thread may take that is about to end, such as the timer of matplotlib when it has found its fonts."""
_QUIET_S = 0.5
_FORKABLE = frozenset({"jemalloc_bg_thd"})
"""Threads of native code that takes its locks before a fork, and does without them after it."""


class Unfit(Exception):
    """This process cannot be forked safely. Says why."""


def load(modules: list[str]) -> dict[str, str]:
    """Import what there is of these modules; returns why others could not be."""
    failed = {}
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - a library that fails here fails nobody who does not use it
            if not isinstance(error, ModuleNotFoundError) or error.name != name.partition(".")[0]:
                failed[name] = f"{type(error).__name__}: {error}"[:300]
    return failed


def check() -> None:
    """Raise Unfit if a library has started threads that it does not end for a fork: a child would miss them."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(_THREAD_S)
    if threading.active_count() > 1:
        others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        raise Unfit(f"a library has started threads ({', '.join(others)[:200]})")
    child = os.fork()  # libraries that know what to do, do it now
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    threads = [thread for thread in Path("/proc/self/task").iterdir() if thread.name != str(os.getpid())]
    names = [name for thread in threads if (name := (thread / "comm").read_text().strip()) not in _FORKABLE]
    if names:
        raise Unfit(f"a library has threads of its own that do not end for a fork ({', '.join(names)[:200]})")


def places() -> list[str]:
    """Directories of code that was loaded from elsewhere than Python and the system say: nobody may write there.

    Raises Unfit for too many.
    """
    found = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        found |= {line.split(None, 5)[5].rstrip("\n") for line in maps if len(line.split(None, 5)) == 6}
    known = tuple(f"{place.rstrip('/')}/" for place in (sys.prefix, sys.base_prefix, *_SYSTEM, *filter(None, sys.path)))
    others = {
        os.path.dirname(file)  # noqa: PTH120
        for file in found
        if isinstance(file, str) and file.startswith("/") and not file.startswith(known)
    }
    if sum(map(len, others)) > _MESSAGE_BYTES // 8:
        raise Unfit("its libraries are in too many places")
    return sorted(others)


class Zygote:
    """Serves the keeper through one socket until that is closed."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._app: application.GuestApp

    def warm(self, modules: list[str]) -> None:
        """Load, and do once what is slow when it is done first. Raises Unfit."""
        self._app = application.prepare()  # first: matplotlib asks the environment where it draws
        with self._app.kernel.shell.builtin_trap:  # pandas looks for `get_ipython`, as it finds it in a cell
            failed = load(modules)
        warming.warm(self._app)
        check()
        gc.freeze()  # else the first collection of each kernel would copy all of it
        self._say({"type": "ready", "failed": failed, "places": places()})

    def serve(self) -> None:
        """Fork when asked. As soon as nobody asks for a moment, do what is slow and can wait, for who comes then."""
        waits = True
        while True:
            if waits and not select.select([self._control], [], [], _QUIET_S)[0]:
                waits = False
                with contextlib.suppress(Exception):  # a library that fails here fails nobody who does not use it
                    warming.complete(self._app)
                gc.unfreeze()
                gc.collect()
                gc.freeze()
                large_pages.join()
            message, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, DESCRIPTORS)
            if not message:
                return
            request = json.loads(message)
            if request["type"] == "fork":
                self._fork(descriptors)
            else:
                self._reap(request["pid"])

    def _fork(self, descriptors: list[int]) -> None:
        pid = -1
        try:
            pid = os.fork()
        except OSError as error:
            self._say({"type": "failed", "reason": f"fork: {error.strerror}"})
            return
        finally:
            if pid:
                for descriptor in descriptors:
                    os.close(descriptor)
        if not pid:
            become(descriptors, self._app)
        pidfd = os.pidfd_open(pid)
        self._say({"type": "forked", "pid": pid}, pidfd)
        os.close(pidfd)

    def _reap(self, pid: int) -> None:
        """The keeper has seen it end, and knows it no more by its number."""
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            status = 0
        self._say({"type": "reaped", "pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _say(self, message: dict[str, Any], *descriptors: int) -> None:
        socket.send_fds(self._control, [json.dumps(message).encode()], list(descriptors))


def become(descriptors: list[int], app: application.GuestApp) -> NoReturn:
    """Be a kernel, in a child."""
    try:
        os.setsid()
        channel, *sockets, log = descriptors
        for standard in (1, 2):
            os.dup2(log, standard)
        _close_all_but({0, 1, 2, channel, *sockets})
        signal.signal(signal.SIGINT, signal.default_int_handler)
        start.run(channel, sockets, app)
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may return into the zygote
        sys.excepthook(*sys.exc_info())
        code = 1
    lifeline.leave(code)


def _close_all_but(kept: set[int]) -> None:
    below = 0
    for descriptor in sorted(kept):
        if below < descriptor:  # the range from 0 to 0 would be all there is
            os.closerange(below, descriptor)
        below = descriptor + 1
    os.closerange(below, 1 << 16)


def main(arguments: list[str]) -> None:
    """The arguments are the descriptor of the keeper's socket and the modules to load."""
    lifeline.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(arguments[0]))
    zygote = Zygote(control)
    try:
        zygote.warm(arguments[1:])
    except Unfit as error:
        zygote._say({"type": "unfit", "reason": str(error)})
        return
    zygote.serve()


if __name__ == "__main__":
    main(sys.argv[1:])
