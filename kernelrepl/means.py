"""What every session of a keeper works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import zmq.asyncio

from kernelrepl.kernel.launch import Launcher
from kernelrepl.room import Room
from kernelrepl.store import Store

Emit = Callable[..., None]


@dataclass(frozen=True)
class Means:
    """What every session of a keeper works with."""

    launcher: Launcher
    context: zmq.asyncio.Context
    store: Store
    emit: Emit
    room: Room
