"""What every session of a keeper works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kernelrepl.kernel.process import Launcher
from kernelrepl.packages import Packages
from kernelrepl.sessions.capacity import KernelCapacity
from kernelrepl.store import Store

Emit = Callable[..., None]


@dataclass(frozen=True)
class Services:
    """What every session of a keeper works with."""

    launcher: Launcher
    store: Store
    emit: Emit
    capacity: KernelCapacity
    packages: Packages = field(default_factory=Packages)
