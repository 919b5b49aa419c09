"""A kernel on a system that lacks something. Run in place of kernelrepl.guest.start."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from kernelrepl.guest import start
from kernelrepl.guest.isolation import confine, landlock
from kernelrepl.guest.isolation import seccomp as syscalls

LACKS = "KERNELREPL_LACKS"
"""What it lacks: a name of `LACKING`, or a step of the confinement with the error it fails with."""


def _fail(number: int, when: Callable[..., bool] = lambda *args: True, then: Callable[..., Any] | None = None) -> Any:
    def failing(*args: Any, **options: Any) -> Any:
        if when(*args):
            raise OSError(number, os.strerror(number))
        return None if then is None else then(*args, **options)

    return failing


def _landlock(number: int) -> None:
    landlock._call = _fail(number)


def _old_landlock(version: int) -> None:
    landlock.version = lambda: version


def _proc() -> None:
    confine._mount = _fail(errno.EPERM, lambda source, target, kind, *more: kind == "proc", confine._mount)


def _half_a_tree() -> None:
    shown = itertools.count()
    confine._show = _fail(errno.EIO, lambda *args: next(shown) > 8, confine._show)


def _another_thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def _a_bug() -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    confine._limit = broken  # type: ignore[assignment]


LACKING: dict[str, Callable[[], None]] = {
    "Landlock ENOSYS": lambda: _landlock(errno.ENOSYS),
    "Landlock EOPNOTSUPP": lambda: _landlock(errno.EOPNOTSUPP),
    **{f"Landlock {version}": lambda version=version: _old_landlock(version) for version in range(1, 6)},  # type: ignore[misc]
    "a rule of Landlock": lambda: setattr(landlock, "_add", _fail(errno.EINVAL)),
    "seccomp": lambda: setattr(syscalls, "install", _fail(errno.EINVAL)),
    "unshare": lambda: setattr(confine, "_unshare", _fail(errno.EPERM)),
    "proc": _proc,
    "half a tree": _half_a_tree,
    "one thread": _another_thread,
    "no bug": _a_bug,
    "a known machine": lambda: setattr(syscalls, "program", _fail(errno.ENOSYS)),
}


def main(arguments: list[str]) -> None:
    """As `start.main`, on that system."""
    lacks = os.environ[LACKS]
    step, _, number = lacks.partition("=")
    if not number:
        LACKING[lacks]()

    def seam(name: str) -> None:
        if number and name == step:
            raise OSError(int(number), os.strerror(int(number)))

    channel, sockets = start.descriptors(arguments)
    start.enter(channel, seam)
    from kernelrepl.guest.ipython import application

    application.serve(channel, sockets)


if __name__ == "__main__":
    main(sys.argv[1:])
