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
# Some of a text, always whole strings: so it is counted piece by piece, and no further than the limit.
_PIECE = re.compile(rb'(?:[^"]{0,1024}+"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[^"]{1,1024}+){1,64}+', re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_LONG_CHARS = 64 << 10
_LOOK_BYTES = 256 << 10
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)).difference(b"[]{}"))
_MARKS = (b",", b":", b"[", b"{")
"""There are as many of these as values and keys, or more."""


class TooMuch(ValueError):
    """A text of JSON holds more than its reader allows, or is nested deeper."""


def loads(body: bytes | bytearray, *, items: int = MAX_ITEMS, depth: int = MAX_DEPTH) -> Any:
    """Decode a text of JSON that holds at most `items` values and keys, nested at most `depth` deep.

    Raises TooMuch before anything is decoded, and ValueError for what is not JSON in UTF-8.
    """
    check(body, items=items, depth=depth)
    try:
        # Decoded here: of bytes, the decoder would also take UTF-16 and UTF-32, in which other letters hold the bytes
        # of quotes, and what is between strings would have been counted as if it were in one.
        found = _decoded(body.decode(errors="surrogatepass"))
    except RecursionError as error:
        raise TooMuch("it is nested too deeply") from error
    if len(body) <= _SHORT_BYTES and body.count(b"[") + body.count(b"{") > depth:
        _check_depth(found, depth)
    return found


def _decoded(text: str) -> Any:
    """Decode a text; the entries of a long list one by one, because the decoder gives nobody a turn before its end."""
    at = _SPACE.match(text).end()  # type: ignore[union-attr] # it matches nothing as well
    if len(text) <= _LONG_CHARS or text[at : at + 1] != "[":
        return json.loads(text)
    found: list[Any] = []
    at = _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]
    if text[at : at + 1] == "]":
        return json.loads(text)
    while True:
        entry, at = _DECODER.raw_decode(text, at)
        found.append(entry)
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] != ",":
            break
        at = _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]
    if text[at : at + 1] != "]" or _SPACE.match(text, at + 1).end() != len(text):  # type: ignore[union-attr]
        raise json.JSONDecodeError("no end of a list, or more than a list", text, at)
    return found


def check(body: bytes | bytearray, *, items: int = MAX_ITEMS, depth: int = MAX_DEPTH) -> int:
    """Count the values and keys of a text of JSON, about, without decoding it; what is short is not looked at.

    Raises TooMuch.
    """
    if len(body) <= _SHORT_BYTES:
        return len(body) // 8
    most = _marks(body, items, depth)  # even if none of them were within a string
    return _check(body, items, depth) if most is None else most


def _marks(body: bytes | bytearray, items: int, depth: int) -> int | None:
    """Count what could be a value; None if that is too much, or could be nested too deeply."""
    found = brackets = 0
    for at in range(0, len(body), _LOOK_BYTES):
        opening, others = (
            sum(body.count(mark, at, at + _LOOK_BYTES) for mark in marks) for marks in ((b"[", b"{"), (b",", b":"))
        )
        found, brackets = found + opening + others, brackets + opening
        if found > items or brackets > depth:
            return None
    return found


def _check(body: bytes | bytearray, items: int, depth: int) -> int:
    """Count what is between the strings, until it is too much."""
    found = strings = at = 0
    brackets = b""
    while (piece := _PIECE.match(body, at)) is not None:
        at = piece.end()
        between, count = _STRING.subn(b"", piece[0])
        strings += count
        found += sum(map(between.count, _MARKS))
        if strings > items or found > items:
            raise TooMuch(f"it holds more than {items} values")
        brackets = _open(brackets + between.translate(_BRACKETS, _OTHERS), depth)
    return found


def _open(brackets: bytes, depth: int) -> bytes:
    """Return those of these brackets that are open in the end. Raises TooMuch."""
    for _ in range(depth + 1):
        left = brackets.replace(b"[]", b"")  # the innermost ones
        if len(left) == len(brackets):
            left = left.lstrip(b"]")
            if len(left) > depth:
                break
            return left
        brackets = left
    raise TooMuch("it is nested too deeply")


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
