"""The bytes of components, as they come from the keeper: read once, in order, straight to where they are to be.

They come through a window of a few slots, so that a gigabyte needs a gigabyte of memory and not two. Runs in the
kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import xxhash

from kernelrepl.guest import frames, wire
from kernelrepl.guest.mailbox import Mailbox
from kernelrepl.guest.pickling.chunks import checksums


class Incoming:
    """One stream of bytes."""

    def __init__(self, window: memoryview, mailbox: Mailbox) -> None:
        self._window = window
        self._mailbox = mailbox
        self._rest = memoryview(b"")
        self._slot = 0
        self._whole = True
        self._damaged = False

    def damaged(self) -> bool:
        """Whether any of the bytes that were read since this was asked last are not those that were stored."""
        found, self._damaged = self._damaged, False
        return found

    def read(self, target: memoryview) -> None:
        """Fill `target` with what comes next."""
        while target.nbytes:
            if not self._rest.nbytes:
                piece = self._mailbox.receive("piece")
                self._slot = piece["slot"]
                self._whole = not piece.get("damaged")
                start = self._slot * wire.SLOT_BYTES
                self._rest = self._window[start : start + piece["size"]]
            self._damaged = self._damaged or not self._whole
            size = min(target.nbytes, self._rest.nbytes)
            target[:size] = self._rest[:size]
            target, self._rest = target[size:], self._rest[size:]
            if not self._rest.nbytes:
                self._mailbox.channel.send(frames.build("emptied", slot=self._slot))


class Source(Protocol):
    """The bytes of one component."""

    damaged: bool
    """Whether some of those that have come are not those that were stored."""
    again: bool
    """Whether they can be read once more."""

    def data(self) -> wire.Buffer:
        """The pickle stream, its first segment."""

    def buffer(self, index: int) -> Any:
        """One of the other segments: bytes, or something with `into`."""

    def sums(self) -> tuple[bytes, ...]:
        """Checksums of the chunks."""

    def finish(self) -> None:
        """It has been loaded, whatever came of it: nothing of it may be left on its way."""


class Held:
    """A small component, in memory."""

    again = True

    def __init__(self, incoming: Incoming, lengths: Sequence[int]) -> None:
        whole = memoryview(bytearray(sum(lengths)))
        incoming.read(whole)
        self.damaged = incoming.damaged()
        self._segments = []
        for length in lengths:
            self._segments.append(whole[:length])
            whole = whole[length:]

    def data(self) -> wire.Buffer:
        return self._segments[0]

    def buffer(self, index: int) -> Any:
        return self._segments[1 + index]

    def sums(self) -> tuple[bytes, ...]:
        return checksums(self._segments)

    def finish(self) -> None:
        return None


class Flowing:
    """A large component on its way."""

    again = False

    def __init__(self, incoming: Incoming, lengths: Sequence[int]) -> None:
        self._incoming = incoming
        self._lengths = lengths
        self._next = 0
        self._aside: dict[int, bytearray] = {}
        """Segments that came before they were asked for."""
        self._sums: list[bytes] = []
        self.damaged = False

    def data(self) -> wire.Buffer:
        return self._early(0)

    def buffer(self, index: int) -> Any:
        return Buffer(self, 1 + index, self._lengths[1 + index])

    def sums(self) -> tuple[bytes, ...]:
        return tuple(self._sums)

    def read(self, number: int, target: memoryview) -> None:
        """Bring a segment to its place. Raises LookupError if it has been taken before."""
        while (early := self._next) < number:
            self._aside[early] = self._early(early)
        if number == self._next:
            self._read_next(target)
        else:
            target[:] = self._aside.pop(number)

    def finish(self) -> None:
        while self._next < len(self._lengths):
            self._early(self._next)
        self._aside.clear()

    def _early(self, number: int) -> bytearray:
        segment = bytearray(self._lengths[number])
        self._read_next(memoryview(segment))
        return segment

    def _read_next(self, target: memoryview) -> None:
        self._next += 1
        while target.nbytes:
            chunk = target[: wire.CHUNK_BYTES]
            self._incoming.read(chunk)
            self._sums.append(xxhash.xxh3_128_digest(chunk))
            target = target[wire.CHUNK_BYTES :]
        self.damaged = self._incoming.damaged() or self.damaged


class Buffer:
    """A segment of a large component, for whoever knows where it is to be."""

    def __init__(self, source: Flowing, number: int, nbytes: int) -> None:
        self._source = source
        self._number = number
        self.nbytes = nbytes

    def into(self, target: memoryview) -> None:
        """Bring it to `target`, which has its size."""
        self._source.read(self._number, target)
