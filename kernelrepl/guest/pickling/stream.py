"""What pickling a component gives. Runs in the kernel."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Mapping
from typing import Any

from kernelrepl.guest import recipes
from kernelrepl.guest.pickling.chunks import checksums


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
    """Whether there is no singleton in it."""
    inert: bool = False
    """Whether it is data and nothing else, see `inert`."""
    doubtful: Mapping[type, Any] = dataclasses.field(default_factory=dict)
    """Kinds in it of which it has yet to be tried whether they can be loaded, with an object of each, see `proving`."""
    freed: bool = False
    """Whether a lock in it is held, and comes back free."""
    lost: Mapping[str, tuple[Any, Exception]] = dataclasses.field(default_factory=dict)
    """Attributes of what a library has one of that were changed and cannot be saved, and why."""
    telling: frozenset[type] = frozenset()
    """Those of them that are known when it has been loaded: with objects in it that have a state to be loaded."""

    @functools.cached_property
    def sums(self) -> tuple[bytes, ...]:
        """Checksums of its chunks."""
        return checksums((self.data, *self.buffers))

    @property
    def size_bytes(self) -> int:
        return len(self.data) + sum(buffer.nbytes for buffer in self.buffers)


class TooLarge(Exception):
    """The stream passed the limit before it was complete."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class SetAside:
    """Stands for a buffer that travels beside the stream."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> Any:
        return recipes.buffer, (self.index,)


class Sink(io.RawIOBase):
    """Collects the stream and stops it as soon as it is too large."""

    def __init__(self, limit_bytes: int | None) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.limit_bytes = limit_bytes

    def write(self, data: Any) -> int:
        # bytes() copies what is a reused frame; big bytes objects come through as they are.
        part = data if isinstance(data, bytes) else bytes(data)
        self.parts.append(part)
        self.count(len(part))
        return len(part)

    def count(self, size: int) -> None:
        self.size += size
        if self.limit_bytes is not None and self.size > self.limit_bytes:
            raise TooLarge(self.limit_bytes)
