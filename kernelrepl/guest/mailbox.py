"""The frames of the keeper, as a kernel gets them: one that comes while another is waited for is kept for later.

Runs in the kernel, main thread only.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

from kernelrepl.guest import frames, wire


class Mailbox:
    """The kernel's end of the channel after the start."""

    def __init__(self, channel: wire.Channel) -> None:
        self.channel = channel
        self._kept: list[dict[str, Any]] = []

    def collect(self) -> None:
        """Read the frames that have come, and keep them.

        There may be none, although the event loop says so: a cell that ran since may have read what had come.
        """
        while select.select([self.channel], [], [], 0)[0]:
            self._kept.append(self._next())

    def receive(self, wanted: str) -> dict[str, Any]:
        """Wait for the next frame of this type."""
        for header in self._kept:
            if header["type"] == wanted:
                self._kept.remove(header)
                return header
        while True:
            header = self._next()
            if header["type"] == wanted:
                return header
            self._kept.append(header)

    def find(self, wanted: str, request: int) -> dict[str, Any] | None:
        """Read what has come, and return the answer of this type to a request; None if it has not come."""
        self.collect()
        for header in self._kept:
            if header["type"] == wanted and header["request"] == request:
                self._kept.remove(header)
                return header
        return None

    def kept(self) -> Iterator[dict[str, Any]]:
        """Hand out the frames that were kept, also those that come meanwhile."""
        while self._kept:
            yield self._kept.pop(0)

    def _next(self) -> dict[str, Any]:
        header, _ = self.channel.recv()
        frames.check(header, frames.KEEPER)
        return header
