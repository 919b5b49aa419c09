"""Fold Jupyter messages into the outputs of an execution. Pure: no I/O, no clock.

The same fold serves live output, committed rows and crashed executions, so they cannot differ.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from kernelrepl import passing, terminal_text
from kernelrepl.model import Failure, Figure, Output

_UP = re.compile(r"\x1b\[(\d*)A")
_OPAQUE = re.compile(r"<IPython\.core\.display\.\w+ object>")
_FIGURE_TYPES = ("image/png", "image/jpeg")
_TEXT_TYPES = ("text/markdown", "text/latex", "text/html")
_SHOWN_KINDS = ("stream", "execute_result", "display_data", "error")
_KINDS = (*_SHOWN_KINDS, "update_display_data", "clear_output")
MAX_TEXT_CHARS = 5_000_000
"""Of one text of an output. A kernel of ours records a million printed characters; looking through more would hold
other sessions up."""
MAX_LIVE_MESSAGES = 10_000
MAX_LIVE_CHARS = 4_000_000
MAX_LIVE_DISPLAY_CHARS = 32_000_000

DROPPED = "kernelrepl/dropped"
"""The type of a message of our own: {"count": n} messages that a kernel sent were not even read."""


_LAST_MESSAGES, _LAST_CHARS = 200, 20_000
"""Where the last line is looked for."""


class Transcript:
    """Collects messages of one execution, in order, bounded.

    A message is {"type": ..., "content": ...} as on iopub. What a kernel sends is not trusted: contents of
    an unexpected form are skipped.
    """

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._chars = 0
        self._display_chars = 0
        self._dropped = 0

    def add(self, kind: str, content: dict[str, Any]) -> None:
        """Keep a message, if there is room for it; what there is no room for is counted."""
        if kind == DROPPED:
            count = content.get("count")
            self._dropped += count if type(count) is int else 1
        elif kind in _KINDS:
            self._add_shown(kind, content)

    def _add_shown(self, kind: str, content: dict[str, Any]) -> None:
        if len(self._messages) >= MAX_LIVE_MESSAGES or self._chars > MAX_LIVE_CHARS:
            self._dropped += 1
            return
        known = passing.reduced(kind, content)
        if known is None:
            return
        content = known
        if kind == "stream":
            text = content["text"]
            room = MAX_LIVE_CHARS + 1 - self._chars
            self._chars += len(text)
            self._dropped += len(text) > room
            content["text"] = text[:room]
        else:
            weight = _weight(content)
            if self._display_chars + weight > MAX_LIVE_DISPLAY_CHARS:
                self._dropped += 1
                return
            self._display_chars += weight
        self._messages.append({"type": kind, "content": content})

    def _remarked(self) -> list[dict[str, Any]]:
        """The messages, and a line about those that are missing."""
        return [*self._messages, _missing(self._dropped)] if self._dropped else self._messages

    def dump(self) -> str:
        return json.dumps(self._remarked())

    def output(self) -> Output:
        return fold(self._remarked())

    def last_line(self) -> str:
        """The end of what was printed, one line, for a progress message."""
        for message in reversed(self._messages[-_LAST_MESSAGES:]):
            if message["type"] == "stream":
                lines = printed(message["content"]["text"][-_LAST_CHARS:]).strip().splitlines()
                if lines:
                    return lines[-1][:200]
        return ""


def load(outputs: str) -> Output:
    """The folded form of recorded messages (a JSON list). What is not JSON folds to nothing."""
    return fold(passing.loads(outputs))


def _missing(count: int) -> dict[str, Any]:
    return passing.stream(f"[… {count} outputs were left out: the code wrote too much …]\n")


def _weight(content: dict[str, Any]) -> int:
    """About how much a content takes, in characters."""
    weight, work = 0, [content]
    while work:
        value: Any = work.pop()
        if isinstance(value, str):
            weight += len(value)
        elif isinstance(value, dict):
            work += value.keys()
            work += value.values()
        elif isinstance(value, list):
            work += value
        weight += 8
    return weight


def fold(messages: Iterable[Any]) -> Output:
    """Apply messages in order, as a notebook would. In linear time, whatever they are."""
    cells: list[tuple[int, str, dict[str, Any]]] = []
    updates: dict[str, tuple[int, Any]] = {}
    clear_next = False
    for place, message in enumerate(messages):
        if not (isinstance(message, dict) and isinstance(message.get("content"), dict)):
            continue
        kind, content = message.get("type"), message["content"]
        if kind == "clear_output":
            clear_next = bool(content.get("wait"))
            if not clear_next:
                cells.clear()
            continue
        if clear_next:
            cells.clear()
            clear_next = False
        if kind == "update_display_data":
            display_id = _display_id(content)
            if display_id is not None:
                updates[display_id] = place, content.get("data", {})
        elif kind in _SHOWN_KINDS:
            cells.append((place, kind, content))
    return _assemble([(kind, _updated(place, kind, content, updates)) for place, kind, content in cells])


def _updated(place: int, kind: str, content: dict[str, Any], updates: dict[str, tuple[int, Any]]) -> dict[str, Any]:
    """A content with the data of the last update that came after it, if one did."""
    display_id = None if kind == "stream" else _display_id(content)
    if display_id is None:
        return content
    when, data = updates.get(display_id, (-1, None))
    return {**content, "data": data} if when > place else content


def _display_id(content: dict[str, Any]) -> str | None:
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    return display_id if isinstance(display_id, str) else None


def _assemble(cells: list[tuple[str, dict[str, Any]]]) -> Output:
    streams: dict[str, list[str]] = {"stdout": [], "stderr": []}
    displays: list[str] = []
    figures: list[Figure] = []
    result: str | None = None
    error: Failure | None = None
    for kind, content in cells:
        if kind == "stream":
            if content.get("name") in ("stdout", "stderr"):
                streams[content["name"]].append(_text(content.get("text")))
            continue
        if kind == "error":
            trace = content.get("traceback")
            lines = [_text(line) for line in trace] if isinstance(trace, list) else []
            if error is not None:
                last = next((part for part in reversed(streams["stderr"]) if part), "")
                streams["stderr"].append(below(last, error.traceback)[len(last) :])
            error = Failure(
                terminal_text.field(_text(content.get("ename"))),
                plain(_text(content.get("evalue"))),
                plain("\n".join(lines)),
            )
            continue
        data = content.get("data")
        if not isinstance(data, dict):
            continue
        figure = _figure(data)
        text = plain(_text(data.get("text/plain")))
        if _OPAQUE.fullmatch(text):  # an object whose text says nothing
            text = next((plain(data[mime]) for mime in _TEXT_TYPES if isinstance(data.get(mime), str)), text)
        if figure is not None:
            figures.append(figure)
        if kind == "execute_result":
            result = text
        elif figure is None and text:
            displays.append(text)
    return Output(
        stdout=printed("".join(streams["stdout"])),
        stderr=printed("".join(streams["stderr"])),
        result=result,
        displays=tuple(displays),
        figures=tuple(figures),
        error=error,
        cells=tuple(cells),
    )


def _figure(data: dict[str, Any]) -> Figure | None:
    """The picture among the forms of a display. What is no base64 would make the reply unreadable, and is none."""
    for mime in _FIGURE_TYPES:
        if isinstance(data.get(mime), str):
            encoded = data[mime].replace("\n", "")
            try:
                binascii.a2b_base64(encoded)
            except ValueError:
                continue
            return Figure(mime, encoded)
    return None


def below(text: str, more: str) -> str:
    """Two texts, the second on lines of its own."""
    gap = "\n" if text and not text.endswith("\n") else ""
    return f"{text}{gap}{more}\n" if more else text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def plain(text: str) -> str:
    """Text as it may be shown, whoever reads it."""
    if len(text) > MAX_TEXT_CHARS:
        return cut(text, MAX_TEXT_CHARS, terminal_text.output)
    return terminal_text.output(text)


def printed(text: str) -> str:
    """What a person sees of a printed text."""
    if len(text) > MAX_TEXT_CHARS:
        return cut(text, MAX_TEXT_CHARS, printed)
    if "\x1b" in text and _UP.search(text):
        text = _several_bars(text)
    return plain(text)


def _several_bars(text: str) -> str:
    """Progress bars below each other: the cursor goes up to each line, which is written anew."""
    lines: list[list[str]] = [[]]
    row = 0
    for number, piece in enumerate(_UP.split(text)):
        if number % 2:
            row = max(row - int(piece[:4] or 1), 0)
            continue
        for step, line in enumerate(piece.split("\n")):
            if step:
                row += 1
                if row == len(lines):
                    lines.append([])
            lines[row].append(line)
    return "\n".join("".join(line) for line in lines)


def cut(text: str, limit: int, clean: Callable[[str], str] = str) -> str:
    """At most about `limit` characters: head and tail with a line between that says what is missing.

    clean: what is done to the head and to the tail.
    """
    if len(text) <= limit:
        return text
    half = limit // 2
    missing = terminal_text.said(f"… {len(text) - 2 * half} of {len(text)} characters cut …")
    return f"{clean(text[:half])}\n{missing}\n{clean(text[-half:])}"
