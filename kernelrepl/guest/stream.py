"""What pickling a component gives. Runs in the kernel."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from kernelrepl.guest import recipes
from kernelrepl.guest.chunks import checksums


@dataclasses.dataclass
class Stream:
    """One pickled component: the stream, its out-of-band buffers and what it touches."""

    data: bytes
    buffers: list[memoryview]
    references: list[Any]
    """Entities that the stream refers to instead of containing them."""
    shareable: list[Any]
    """Mutable objects in it; the same object in two streams means an alias."""
    array_roots: list[tuple[Any, Any]]
    """(array, the array that owns its memory) for each array met."""
    has_code: bool
    words: frozenset[str] = frozenset()
    """What code in it names."""
    reaches: tuple[int, ...] = ()
    """Ids of objects that it holds on to and does not save."""
    plain: bool = True
    """Whether there is no landmark in it."""
    inert: bool = False
    """Whether it is data and nothing else, see `inert`."""

    @functools.cached_property
    def sums(self) -> tuple[bytes, ...]:
        """Checksums of its chunks."""
        return checksums((self.data, *self.buffers))

    @property
    def size_bytes(self) -> int:
        return len(self.data) + sum(buffer.nbytes for buffer in self.buffers)


class SetAside:
    """Stands for a buffer that travels beside the stream."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> Any:
        return recipes.buffer, (self.index,)
