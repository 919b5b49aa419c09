"""Start a kernel: confine this process first, then load what it serves with. Runs in the kernel.

Until the process is confined only this module, the framing and the confinement itself are loaded, there is
one thread, and nothing of a session has been read.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from kernelrepl.guest import confine, lifeline, wire

Seam = Callable[[str], None]
EXIT_REFUSED = 71
"""The exit code of a kernel that could not be confined and therefore did not start."""


def enter(channel: wire.Channel, seam: Seam = lambda step: None) -> None:
    """Read from the channel how to be confined, and be so. Ends the process if any of it fails."""
    header, _ = channel.recv()
    plan = header["plan"]
    if plan is None:
        lifeline.die_with_parent()
        return

    def forked(pid: int) -> None:
        channel.send({"type": "forked", "pid": pid})

    try:
        confine.enter(plan, forked, seam)
    except confine.Refused as error:
        _refuse(channel, {"step": error.step, "errno": error.number, "reason": str(error)})
    except BaseException as error:  # noqa: BLE001 - whatever it is, nothing may run half confined
        _refuse(channel, {"step": "confinement", "errno": 0, "reason": f"{type(error).__name__}: {error}"})


def _refuse(channel: wire.Channel, why: dict[str, Any]) -> NoReturn:
    try:
        channel.send({"type": "refused", **why})
    finally:
        lifeline.leave(EXIT_REFUSED)


def descriptors(arguments: list[str]) -> tuple[wire.Channel, list[int]]:
    """The channel and the listening sockets, inherited under the numbers in the arguments."""
    channel, *sockets = (int(argument) for argument in arguments)
    return wire.Channel(socket.socket(fileno=channel)), sockets


def main(arguments: list[str]) -> None:
    """Serve one session. The arguments are the descriptors of the channel and of the four Jupyter sockets."""
    channel, sockets = descriptors(arguments)
    enter(channel)
    from kernelrepl.guest import kernel

    kernel.serve(channel, sockets)


if __name__ == "__main__":
    main(sys.argv[1:])
