"""Which of the forms of what a cell shows a model gets: the best text, and a picture. Pure.

Forms come from a kernel that nobody trusts. Nothing of them is decoded here but the first bytes of pictures.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kernelrepl.guest.wire import REPLY
from kernelrepl.model import Figure

ONLY_A_NAME = re.compile(r"\s{0,9}(?:<[\w.<>]{1,200}(?: object| at 0x\w{1,40}| object at 0x\w{1,40})>)?\s{0,9}")
"""What objects without a text of their own have for one: it says nothing."""
_PICTURES = ("image/png", "image/jpeg")
_BETTER = ("text/markdown", "text/latex")
_HEADERS = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR", re.DOTALL),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
}
# A segment of a JPEG file: its marker and its length; those that begin a frame tell its height and width.
_SEGMENT = re.compile(rb"\xff+([\xc0-\xfe])(..)(?:.(..)(..))?", re.DOTALL)
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_MOST_SEGMENTS = 1000


def text_of(data: Mapping[str, Any], *, drawn: bool) -> str:
    """Return the form of a display that says most to who reads text. drawn: a picture of it is shown as well."""
    if is_told(data):
        return str(data[REPLY]["text"])
    plain = _source(data.get("text/plain"))
    if not ONLY_A_NAME.fullmatch(plain):
        return plain
    for mime in _BETTER:
        if source := _source(data.get(mime)):
            return source
    for mime, value in data.items():
        if mime != REPLY and mime.partition(";")[0].endswith("json"):
            with contextlib.suppress(RecursionError):  # nested deeper than anybody reads
                return json.dumps(value, ensure_ascii=False)
    unseen = [mime for mime in data if mime not in ("text/plain", REPLY)]
    if drawn or not unseen:
        return plain
    if source := _source(data.get("text/html")):
        return source
    name = plain.strip()
    return f"{name} [{', '.join(unseen[:8])}]" if name else f"[{', '.join(unseen[:8])}, which cannot be shown as text]"


def is_told(data: Mapping[str, Any]) -> bool:
    """Whether the kernel has made a text for a model."""
    reply = data.get(REPLY)
    return isinstance(reply, dict) and isinstance(reply.get("text"), str)


def figure_of(data: Mapping[str, Any]) -> Figure | None:
    """Return the picture among the forms of a display. What is none would make a reply unreadable."""
    reply = data.get(REPLY)
    small = _picture(reply) if isinstance(reply, dict) else None
    figure = _picture(data)
    return small if figure is None else replace(figure, small=small)


def _picture(data: Mapping[str, Any]) -> Figure | None:
    for mime in _PICTURES:
        encoded = data.get(mime)
        if not isinstance(encoded, str):
            continue
        encoded = encoded.replace("\n", "")
        try:
            picture = binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError:
            continue
        if _HEADERS[mime].match(picture) and (size := _size(mime, picture)) and min(size):
            return Figure(mime, encoded, size)
    return None


def _size(mime: str, picture: bytes) -> tuple[int, int] | None:
    """The width and height that a picture says it has."""
    if mime == "image/png":
        return (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) if len(picture) >= 24 else None
    at = 2
    for _ in range(_MOST_SEGMENTS):
        found = _SEGMENT.match(picture, at)
        if found is None:
            return None
        if found[1][0] in _FRAMES:
            return (int.from_bytes(found[4]), int.from_bytes(found[3])) if found[3] else None
        at = found.end(1) + int.from_bytes(found[2])
    return None


def _source(value: Any) -> str:
    """The text of a form, which nbformat may hold as a list of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value if isinstance(value, str) else ""
