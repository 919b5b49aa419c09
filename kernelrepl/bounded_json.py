"""Decode JSON that a kernel wrote, after a count of what it would become. Pure.

A byte of JSON can take two hundred bytes as an object, and decoding holds all other sessions up. So what is longer
than a little is counted first, in time and memory that follow its length and the limit alone.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_ITEMS = 200_000
"""The most values that one text may hold, unless who reads it says otherwise: a tenth of a second, 20 MB."""
MAX_DEPTH = 32
"""How deep lists and objects may be nested: what is deeper could not be compared or printed."""
_SHORT_BYTES = 16 << 10
"""What is no longer than this holds so little that it is decoded without a count."""
# Without a way back, and also without an end: else a text of quotes would take quadratic time.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_OPENING = b"[{"
_MARKS = (b",", b":", b"[", b"{")
"""There are as many of these as values and keys, or more."""


class TooMuch(ValueError):
    """A text of JSON holds more than its reader allows, or is nested deeper."""


def loads(body: bytes, *, items: int = MAX_ITEMS, depth: int = MAX_DEPTH) -> Any:
    """Decode a text of JSON that holds at most `items` values and keys, nested at most `depth` deep.

    Raises TooMuch before anything is decoded, and ValueError for what is not JSON.
    """
    check(body, items=items, depth=depth)
    try:
        found = json.loads(body)
    except RecursionError as error:
        raise TooMuch("it is nested too deeply") from error
    if len(body) <= _SHORT_BYTES:
        _check_depth(found, depth)
    return found


def check(body: bytes, *, items: int = MAX_ITEMS, depth: int = MAX_DEPTH) -> int:
    """Count the values and keys of a text of JSON, about, without decoding it; what is short is not looked at.

    Raises TooMuch.
    """
    if len(body) <= _SHORT_BYTES:
        return len(body) // 8
    if (most := sum(map(body.count, _MARKS))) <= items and body.count(b"[") + body.count(b"{") <= depth:
        return most  # even if none of them were within a string
    return _check(body, items, depth)


def _check(body: bytes, items: int, depth: int) -> int:
    """Count what is between the strings. No more strings are looked for than there may be values."""
    between, strings = _STRING.subn(b"", body, count=items + 1)
    found = sum(map(between.count, _MARKS))
    if strings > items or found > items:
        raise TooMuch(f"it holds more than {items} values")
    level = deepest = 0
    for bracket in _BRACKET.finditer(between):
        level += 1 if bracket[0] in _OPENING else -1
        deepest = max(deepest, level)
        if deepest > depth:
            raise TooMuch("it is nested too deeply")
    return found


def _check_depth(value: Any, depth: int) -> None:
    level = [value]
    for _ in range(depth + 1):
        level = [
            inner
            for container in level
            if isinstance(container, dict | list)
            for inner in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return
    raise TooMuch("it is nested too deeply")
