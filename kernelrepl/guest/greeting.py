"""The first words on the channel: who this kernel is, and what it is to bring back. Runs in the kernel."""

from __future__ import annotations

import contextlib
import os
import platform
from typing import Any

from kernelrepl.guest import wire


def introduce(channel: wire.Channel) -> tuple[dict[str, Any], list[list[memoryview]]]:
    """Say hello. Returns the `start` frame and, for each component in it, its segments."""
    channel.send(
        {
            "type": "hello",
            "protocol": wire.PROTOCOL,
            "pid": os.getpid(),
            "python": platform.python_version(),
            "packages": _versions(),
        }
    )
    start, _ = channel.recv()
    return start, [_component(channel, entry) for entry in start["components"]]


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("ipykernel", "ipython", "cloudpickle", "numpy", "pandas", "matplotlib", "scikit-learn"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _component(channel: wire.Channel, entry: dict[str, Any]) -> list[memoryview]:
    """Receive the bytes of one component, cut into its segments."""
    total = sum(entry["segments"])
    data = bytearray(total)
    filled = 0
    while filled < total:
        _, payload = channel.recv()
        data[filled : filled + len(payload)] = payload
        filled += len(payload)
    view, segments, at = memoryview(data), [], 0
    for size in entry["segments"]:
        segments.append(view[at : at + size])
        at += size
    return segments
