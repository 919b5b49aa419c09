"""Which chunks of a component the store has already. Runs in the kernel.

A checksum finds them among what this session has in the store; the keeper takes them from there by place, never by
what a kernel says about their bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import xxhash

from kernelrepl.guest import wire


def checksums(segments: Iterable[wire.Buffer]) -> tuple[bytes, ...]:
    """One for each chunk."""
    size = wire.CHUNK_BYTES
    digest = xxhash.xxh3_128_digest
    found = []
    for segment in segments:
        view = memoryview(segment)
        if view.nbytes <= size:
            if view.nbytes:
                found.append(digest(view))
            continue
        view = view.cast("B")
        found += [digest(view[start : start + size]) for start in range(0, view.nbytes, size)]
    return tuple(found)


class Known:
    """The chunks of the components that the session has in the store."""

    def __init__(self) -> None:
        self._places: dict[bytes, tuple[int, int]] = {}
        self._sums: dict[int, tuple[bytes, ...]] = {}

    def add(self, key: int, sums: tuple[bytes, ...], size_bytes: int) -> None:
        """A component is in the store in this version."""
        self.remove(key)
        if size_bytes > wire.ROW_BYTES:
            self._sums[key] = sums
            self._places.update((checksum, (key, position)) for position, checksum in enumerate(sums))

    def remove(self, key: int) -> None:
        for position, checksum in enumerate(self._sums.pop(key, ())):
            if self._places.get(checksum) == (key, position):
                del self._places[checksum]

    def runs(self, sums: Sequence[bytes]) -> list[wire.Run] | None:
        """Where the chunks of a new version are to be taken from; None if all are new."""
        before = None
        runs: list[wire.Run] = []
        for checksum in sums:
            key, position = self._places.get(checksum, (-1, 0))
            if before is not None and key == before[0] and (key < 0 or position == before[1] + before[2]):
                before = runs[-1] = (key, before[1], before[2] + 1)
            else:
                before = (key, position, 1)
                runs.append(before)
        return None if all(key < 0 for key, _, _ in runs) else runs


def new_views(segments: Iterable[wire.Buffer], runs: Iterable[wire.Run] | None) -> list[memoryview]:
    """The parts of segments that are new, each within one segment."""
    views = [memoryview(segment).cast("B") for segment in segments]
    if runs is None:
        return [view for view in views if view.nbytes]
    chunks = [view[at : at + wire.CHUNK_BYTES] for view in views for at in range(0, view.nbytes, wire.CHUNK_BYTES)]
    found: list[memoryview] = []
    at = 0
    for key, _, count in runs:
        if key < 0:
            found += chunks[at : at + count]
        at += count
    return found
