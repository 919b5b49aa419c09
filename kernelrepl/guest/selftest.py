"""Try, as a confined process, what a confined process must not be able to do. Runs where a kernel would.

The keeper starts this once per boot, before it starts any kernel, with a plan as kernels get it. The answer
names each act and what became of it; whoever asked judges.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from kernelrepl.guest import frames, start
from kernelrepl.guest.isolation import landlock


def _read(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123
        file.read(1)


def _write(path: str) -> None:
    with open(path, "wb"):  # noqa: PTH123
        pass


def _connect(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as peer:
        peer.settimeout(2)
        peer.connect(address)


def _system_call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), name)


def _execute(path: str) -> None:
    child = os.fork()
    if not child:
        try:
            os.execv(path, [path, "-c", "exit 0"])
        except OSError as error:
            os._exit(error.errno or 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, path)


def attempt(act: Callable[..., None], *arguments: Any) -> str:
    """What came of it: "done", or the name of the error."""
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def acts(targets: dict[str, Any]) -> dict[str, str]:
    """Try everything; the targets are real ones of the host."""
    return {
        "write into the workspace": attempt(_write, "trial"),
        "read a file of the host": attempt(_read, targets["secret"]),
        "read /etc/shadow": attempt(_read, "/etc/shadow"),
        "write beside Python": attempt(_write, os.path.join(sys.prefix, "kernelrepl-trial")),  # noqa: PTH118
        "connect to a TCP port": attempt(_connect, socket.AF_INET, ("127.0.0.1", targets["port"])),
        "connect to a unix socket": attempt(_connect, socket.AF_UNIX, targets["socket"]),
        "connect to an abstract socket": attempt(_connect, socket.AF_UNIX, targets["abstract"]),
        "signal another process": attempt(os.kill, targets["pid"], 0),
        "run /bin/sh": attempt(_execute, "/bin/sh"),
        "mount": attempt(_system_call, "mount", 0, 0, 0, 0, 0),
        "trace a process": attempt(_system_call, "ptrace", 16, targets["pid"], 0, 0),
        "make a user namespace": attempt(_system_call, "unshare", 0x10000000),
        "become root": attempt(os.setuid, 0),
    }


def main(arguments: list[str]) -> None:
    """Confine this process, try, answer on the channel."""
    channel, _ = start.descriptors(arguments)
    version = landlock.version()
    start.enter(channel)
    header, _ = channel.recv()
    frames.check(header, frames.KEEPER)
    channel.send(frames.build("tried", landlock=version, acts=acts(header["targets"])))


if __name__ == "__main__":
    main(sys.argv[1:])
