"""The first words on the channel: who this kernel is. Runs in the kernel."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from typing import Any

from kernelrepl.guest import frames, wire


def introduce(channel: wire.Channel) -> dict[str, Any]:
    """Say hello. Returns the `start` frame."""
    channel.send(
        frames.build(
            "hello",
            protocol=wire.PROTOCOL,
            pid=os.getpid(),
            python=platform.python_version(),
            packages=versions(),
        )
    )
    start, _ = channel.recv()
    frames.check(start, frames.KEEPER)
    return start


@functools.cache
def versions() -> dict[str, str]:
    """The versions of the libraries that sessions often have values of."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in (
        "ipykernel",
        "ipython",
        "cloudpickle",
        "numpy",
        "pandas",
        "matplotlib",
        "scikit-learn",
        "scipy",
        "pyarrow",
    ):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
