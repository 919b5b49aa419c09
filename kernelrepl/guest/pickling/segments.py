"""Long lists and dicts are pickled in segments, each as if it were alone.

So a change in one of a hundred thousand records writes a thousand of them again, and only for those has to be found out
what they may share with others, which costs more than pickling them. Runs in the kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import xxhash

from kernelrepl.guest import recipes
from kernelrepl.guest.pickling.pickler import ComponentPickler, PicklingContext, component_pickler, holds_singleton
from kernelrepl.guest.pickling.sharing import shareable
from kernelrepl.guest.pickling.stream import Stream

SEGMENT_ITEMS = 1000
SEGMENTED_FROM = 4 * SEGMENT_ITEMS


@dataclass(frozen=True, slots=True)
class Segment:
    """What is known of one: the checksum of its bytes, the ids of the mutable objects in it, and those of its items."""

    checksum: bytes
    touched: tuple[int, ...]
    items: int
    """A hash of the ids."""
    flat: bool
    """Whether the items are all that is mutable in it: as long as the bytes are the same it still is so."""


class _Segments:
    """Stands for the container in the stream of its component."""

    def __init__(self, kind: type, first: int, count: int) -> None:
        self._arguments = kind, first, count

    def __reduce__(self) -> Any:
        return recipes.segments, self._arguments


def is_long(value: Any) -> bool:
    return type(value) in (list, dict) and len(value) >= SEGMENTED_FROM


@dataclass(frozen=True, slots=True)
class Segmented:
    """A long list or dict, pickled."""

    stream: Stream
    segments: tuple[Segment, ...]
    touched: tuple[int, ...]
    """Ids of all mutable objects in it."""
    touches_known: bool
    """Whether an object that was replaced by one that looks the same would show in `touched`."""
    kept: list[Any]
    """What must live as long as that is used."""


def dump_segments(
    value: Any,
    context: PicklingContext,
    identify: Callable[[Any], int],
    before: tuple[Segment, ...],
    holders: Callable[[int], int | None],
    limit_bytes: int | None,
) -> Segmented | None:
    """Pickle a long list or dict.

    before: its segments at the last look; of those with the same bytes it is not asked again what they touch.
    holders: a number for whatever held an object then, the same for all of its segments. Returns None if segments share
    an object, so that they cannot be pickled each alone. Raises what `dump` raises.
    """
    pickler = component_pickler(context, identify, frozenset({id(value)}), limit_bytes=limit_bytes)
    segments: list[Segment] = []
    streams: list[bytes] = []
    kept: list[Any] = []
    touches_known, held, new = True, False, len(before) == 0
    for index, part in enumerate(_parts(value)):
        pickler.clear_memo()
        pickler.sink.parts = []
        pickler.dump(part)
        streams.append(b"".join(pickler.sink.parts))
        checksum = xxhash.xxh3_128_digest(streams[-1])
        ids = _ids(part)
        items = hash(ids)
        if index < len(before) and before[index].checksum == checksum and before[index].items == items:
            segments.append(before[index])
            touches_known = touches_known and before[index].flat
            continue
        new = True
        memo = pickler.memo.copy()
        if holds_singleton(memo, context):
            return None
        memo.pop(id(part), None)
        touched = tuple(id(thing) for thing in shareable(memo, pickler))
        kept.append(memo)
        known = frozenset(before[index].touched) if index < len(before) else frozenset()
        held = held or any(key not in known and holders(key) is not None for key in touched)
        segments.append(Segment(checksum, touched, items, touched == ids))
    if before and held and not touches_known:
        return None  # by another segment, or by another root: whoever asked finds out
    each = [segment.touched for segment in segments]
    if new and (sum(map(len, each)) != len(set().union(*each)) or any(id(value) in touched for touched in each)):
        return None
    all_touched = (id(value), *itertools.chain.from_iterable(segment.touched for segment in segments))
    return Segmented(_stream(value, pickler, streams), tuple(segments), all_touched, touches_known, kept)


def _ids(part: Any) -> tuple[int, ...]:
    return tuple(map(id, part if type(part) is list else part.values()))


def _parts(value: Any) -> Iterator[Any]:
    if type(value) is list:
        for at in range(0, len(value), SEGMENT_ITEMS):
            yield value[at : at + SEGMENT_ITEMS]
        return
    items = iter(value.items())
    while part := dict(itertools.islice(items, SEGMENT_ITEMS)):
        yield part


def _stream(value: Any, pickler: ComponentPickler, streams: list[bytes]) -> Stream:
    first = len(pickler.buffers)
    pickler.clear_memo()
    pickler.sink.parts = []
    pickler.dump([_Segments(type(value), first, len(streams))])
    buffers = [*pickler.buffers, *(memoryview(stream) for stream in streams)]
    return pickler.stream(b"".join(pickler.sink.parts), buffers, [])
