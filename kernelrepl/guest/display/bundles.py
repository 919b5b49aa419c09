"""What a cell shows, made the message that is sent and recorded, and what a model reads of it. Runs in the kernel.

A keeper does not look into pictures and HTML of a kernel that it cannot trust: what of them has to be read, drawn or
made smaller is done here, where it costs nobody but the session.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable
from typing import Any

from kernelrepl.guest import wire
from kernelrepl.guest.display import html_text, pictures, plots

_DISPLAYS = frozenset({"execute_result", "display_data", "update_display_data"})
KINDS = _DISPLAYS | {"clear_output", "error"}
"""The types of messages that are recorded."""
_ONLY_A_NAME = re.compile(r"<[\w.<>]+(?: object| at 0x\w+| object at 0x\w+)>")
_RASTER = ("image/png", "image/jpeg")
_BETTER = ("text/markdown", "text/latex", "application/json")
"""What a model reads as it is."""

Pack = Callable[[Any], bytes]


def complete(kind: str, content: dict[str, Any], pack: Pack) -> dict[str, Any]:
    """Return a content as JSON gives it back to whoever it is sent to. pack: what the session sends it with."""
    data = content.get("data")
    if kind not in _DISPLAYS or not isinstance(data, dict):
        found: dict[str, Any] = _unpacked(content, pack)
        return found
    found = content
    for name, value in content.items():
        if name != "data" and value and type(value) is not int:
            found = {**found, name: _unpacked(value, pack)}
    text = data.get("text/plain")
    if len(data) > 1 or type(text) is not str or not text.isascii() or text.startswith("<"):  # else it is text alone
        plain = _plain(data, pack)
        if reply := _reply(plain, plain.pop(wire.REPLY, None)):
            plain[wire.REPLY] = reply
        found = {**found, "data": plain}
    return found


def encodable(text: str) -> str:
    """Text that can be sent: lone surrogates (from bytes that were no UTF-8) become question marks."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def encodable_json(content: Any) -> Any:
    """The same for every text in a content."""
    if isinstance(content, str):
        return encodable(content)
    if isinstance(content, dict):
        return {encodable_json(key): encodable_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [encodable_json(value) for value in content]
    return content


def _plain(fields: Any, pack: Pack) -> dict[str, Any]:
    if type(fields) is not dict or not all(type(name) is str for name in fields):
        fields = _unpacked(fields, pack)
    return {
        encodable(name): encodable(value) if type(value) is str else _unpacked(value, pack)
        for name, value in fields.items()
    }


def _unpacked(value: Any, pack: Pack) -> Any:
    return json.loads(pack(encodable_json(value)))


def _reply(data: dict[str, Any], given: Any) -> dict[str, Any]:
    """What a model gets in place of the forms that it cannot read; nothing if it can read what there is."""
    reply: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    if not any(mime in reply for mime in _RASTER):
        with contextlib.suppress(Exception):  # it is no picture, or a library is of another version
            reply |= _picture(data)
    if "text" not in reply:
        with contextlib.suppress(Exception):
            reply |= _text(data, drawn=bool(reply))
    return reply


def _picture(data: dict[str, Any]) -> dict[str, str]:
    for mime in _RASTER:
        if isinstance(data.get(mime), str):
            return pictures.smaller(mime, data[mime])
    for mime, value in data.items():
        if mime.startswith("image/") and isinstance(value, str):
            return pictures.drawn(mime, value)
    if plots.MIME in data:
        return plots.picture(data[plots.MIME])
    html = data.get("text/html")
    return pictures.within(html) if isinstance(html, str) and _says_nothing(data) else {}


def _text(data: dict[str, Any], *, drawn: bool) -> dict[str, str]:
    if _says_nothing(data):
        if plots.MIME in data:
            return {"text": plots.text(data[plots.MIME])}
        if isinstance(html := data.get("text/html"), str) and not drawn:
            return {"text": html_text.text(html)}
    return {}


def _says_nothing(data: dict[str, Any]) -> bool:
    """Whether there is no text that a model could read as it is."""
    text = data.get("text/plain")
    named = not isinstance(text, str) or not text.strip() or _ONLY_A_NAME.fullmatch(text.strip()) is not None
    return named and not any(mime in data for mime in _BETTER)


def picture(png: bytes) -> dict[str, Any]:
    """Return what to add to the forms of a figure that has no picture among them."""
    return {wire.REPLY: {"image/png": base64.b64encode(png).decode()}}
