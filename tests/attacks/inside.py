"""What attempts are written with. The text of this file goes into a session ahead of each; the host runs none of it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from kernelrepl.guest.isolation.seccomp import numbers as _numbers

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = _numbers(os.uname().machine)
HERE = -100
"""AT_FDCWD."""


def call(name: str | int, *arguments: Any) -> int:
    """A system call by name or number. Raises OSError."""
    number = NUMBERS[name] if isinstance(name, str) else name
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    passed += [ctypes.c_long(0)] * (6 - len(passed))
    result: int = LIBC.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), str(name))
    return result


def attempt(act: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """What came of it: "done", or the name of the error."""
    try:
        act(*arguments, **options)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except Exception as error:  # noqa: BLE001 - whatever it is, its name is the outcome
        return type(error).__name__
    return "done"


def each(*outcomes: str) -> str:
    """Several ways to the same end: "done" if one of them went through, else what stopped them."""
    return "done" if "done" in outcomes else " ".join(sorted(set(outcomes)))


def in_child(act: Callable[..., Any], *arguments: Any) -> str:
    """The same in a process of its own, because the act may end it."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(tell, attempt(act, *arguments).encode())
        finally:
            os._exit(0)
    os.close(tell)
    _, status = os.waitpid(child, 0)
    said = os.read(told, 200).decode()
    os.close(told)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said


def read(path: str, size: int = 1) -> bytes:
    """Open a file for reading, and read."""
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read(size)


def write(path: str, mode: str = "ab", data: bytes = b"attacked") -> None:
    """Open a file for writing, and write."""
    with open(path, mode) as file:  # noqa: PTH123
        file.write(data)


def execute(path: str, *arguments: str) -> str:
    """What came of running a program; "done" if it ran at all."""

    def run() -> None:
        child = os.fork()
        if not child:
            try:
                os.execv(path, [path, *arguments])
            except OSError as error:
                os._exit(error.errno or 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code > 0:
            raise OSError(code, path)

    return attempt(run)


def connect(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> None:
    """Reach for a socket of somebody else."""
    with socket.socket(family, kind) as peer:
        peer.settimeout(2)
        peer.connect(address)
        peer.send(b"attacked")


def wait_until(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether something comes true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.01)
    return False


__all__ = [
    "HERE", "LIBC", "NUMBERS", "attempt", "call", "connect", "each", "execute", "in_child", "read", "sys", "wait_until",
    "write",
]  # fmt: skip
