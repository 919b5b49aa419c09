"""Start a kernel: confine this process first, then load what it serves with. Runs in the kernel.

Until the process is confined there is one thread, and nothing of a session has been read. Where no zygote has loaded
anything before, only this module, the framing and the confinement itself are loaded.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from kernelrepl.guest import frames, lifeline, wire
from kernelrepl.guest.isolation import confine

if TYPE_CHECKING:
    from kernelrepl.guest.ipython.application import GuestApp

Seam = Callable[[str], None]
EXIT_REFUSED = 71
"""The exit code of a kernel that could not be confined and therefore did not start."""


def enter(channel: wire.Channel, seam: Seam = lambda step: None) -> None:
    """Read from the channel how to be confined, and be so. Ends the process if any of it fails."""
    header, _ = channel.recv()
    frames.check(header, frames.KEEPER)
    plan = header["plan"]
    os.nice(wire.NICENESS)  # nothing can take it back
    # It was for this process. What the session starts takes one of its own, as everywhere.
    os.environ.pop("PYTHONHASHSEED", None)
    if plan is None:
        lifeline.stand_back()
        lifeline.die_with_parent()
        return

    def forked(pid: int) -> None:
        channel.send(frames.build("forked", pid=pid))

    try:
        confine.enter(plan, forked, seam)
    except confine.Refused as error:
        _refuse(channel, error.step, error.number, str(error))
    except BaseException as error:  # noqa: BLE001 - whatever it is, nothing may run half confined
        _refuse(channel, "confinement", 0, f"{type(error).__name__}: {error}")


def _refuse(channel: wire.Channel, step: str, errno: int, reason: str) -> NoReturn:
    try:
        channel.send(frames.build("refused", step=step, errno=errno, reason=reason))
    finally:
        lifeline.leave(EXIT_REFUSED)


def descriptors(arguments: list[str]) -> tuple[wire.Channel, list[int]]:
    """The channel and the listening sockets, inherited under the numbers in the arguments."""
    channel, *sockets = (int(argument) for argument in arguments)
    return wire.Channel(socket.socket(fileno=channel)), sockets


def run(descriptor: int, sockets: list[int], app: GuestApp | None = None) -> None:
    """Serve one session over inherited descriptors: the channel and the four Jupyter sockets.

    app: what a zygote has prepared.
    """
    channel = wire.Channel(socket.socket(fileno=descriptor))
    enter(channel)
    from kernelrepl.guest.ipython import application

    application.serve(channel, sockets, app)


def main(arguments: list[str]) -> None:
    """The arguments are the numbers of the descriptors."""
    channel, *sockets = map(int, arguments)
    run(channel, sockets)


if __name__ == "__main__":
    main(sys.argv[1:])
