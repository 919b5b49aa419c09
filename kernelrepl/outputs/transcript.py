"""Fold Jupyter messages into the outputs of an execution. Pure: no I/O, no clock.

The same fold serves live output, committed rows and crashed executions, so they cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from kernelrepl.model import Failure, Figure, Output
from kernelrepl.outputs import forms, passing, terminal_text

_UP = re.compile(r"\x1b\[(\d*)A")
_SHOWN_KINDS = ("stream", "execute_result", "display_data", "error")
_KINDS = (*_SHOWN_KINDS, "update_display_data", "clear_output")
MAX_TEXT_CHARS = 5_000_000
"""Of one text of an output. A kernel of ours records a million printed characters; looking through more would hold
other sessions up."""
MAX_LIVE_MESSAGES = passing.MOST_MESSAGES - 1  # and what is said of the others
MAX_LIVE_CHARS = 4_000_000
MAX_LIVE_DISPLAY_CHARS = 20_000_000
MAX_COPIED_CHARS = 4_000_000
"""What an update may come to in displays with the same id, beside the first: each shows all of it."""

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
            budget_chars = MAX_LIVE_CHARS + 1 - self._chars
            self._chars += len(text)
            self._dropped += len(text) > budget_chars
            content["text"] = text[:budget_chars]
        else:
            weight = _weight(content)
            if self._display_chars + weight > MAX_LIVE_DISPLAY_CHARS:
                self._dropped += 1
                return
            self._display_chars += weight
        self._messages.append({"type": kind, "content": content})

    def _remarked(self) -> list[dict[str, Any]]:
        """The messages, and a line about those that are missing."""
        if not self._dropped:
            return self._messages
        text = f"{self._dropped} outputs were left out: the code wrote too much"
        return [*self._messages, passing.left_out(text)]

    @property
    def chars(self) -> int:
        """About how much is kept, in characters."""
        return self._chars + self._display_chars

    def dump(self) -> str:
        return passing.dumps(self._remarked())

    def output(self) -> Output:
        return fold(self._remarked())

    def since(self, place: int) -> list[tuple[str, dict[str, Any]]]:
        """Return type and content of the messages from this place on."""
        return [(message["type"], message["content"]) for message in self._messages[place:]]

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
    left_out: list[str] = []
    clear_next = False
    for place, message in enumerate(messages):
        if not (isinstance(message, dict) and isinstance(message.get("content"), dict)):
            continue
        kind, content = message.get("type"), message["content"]
        if kind == passing.LEFT_OUT:
            left_out.append(terminal_text.field(_text(content.get("text"))))
            continue
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
    shown, late = _updated(cells, updates)
    if late:
        left_out.append(f"{late} outputs are shown as they were before an update that is too long to be shown in each")
    return replace(_assemble(shown), left_out=tuple(left_out)) if left_out else _assemble(shown)


def _updated(
    cells: list[tuple[int, str, dict[str, Any]]], updates: dict[str, tuple[int, Any]]
) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """Contents with the data of the last update that came after each, and of how many there was no room for that."""
    if not updates:
        return [(kind, content) for _, kind, content in cells], 0
    shown = []
    weights: dict[str, int] = {}
    budget_chars, late = MAX_COPIED_CHARS, 0
    for place, kind, content in cells:
        display_id = None if kind == "stream" else _display_id(content)
        when, data = (-1, None) if display_id is None else updates.get(display_id, (-1, None))
        if display_id is not None and when > place:
            if display_id in weights:
                budget_chars -= weights[display_id]
            else:
                weights[display_id] = _weight({"data": data})
            if budget_chars >= 0:
                content = {**content, "data": data}
            else:
                late += 1
        shown.append((kind, content))
    return shown, late


def _display_id(content: dict[str, Any]) -> str | None:
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    return display_id if isinstance(display_id, str) else None


def _assemble(cells: list[tuple[str, dict[str, Any]]]) -> Output:
    streams: dict[str, list[str]] = {"stdout": [], "stderr": []}
    displays: list[str] = []
    figures: list[Figure] = []
    last_result: int | None = None
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
        figure = forms.figure_of(data)
        text = plain(forms.text_of(data, drawn=figure is not None))
        told = figure is None or forms.is_told(data)  # `<Figure size …>` beside a picture says nothing
        if figure is not None:
            figures.append(figure)
        if kind == "execute_result":
            last_result = len(displays)
            displays.append(text)
        elif told and text:
            displays.append(text)
    result = None if last_result is None else displays.pop(last_result)
    return Output(
        stdout=printed("".join(streams["stdout"])),
        stderr=printed("".join(streams["stderr"])),
        result=result,
        displays=tuple(displays),
        figures=tuple(figures),
        error=error,
        cells=tuple(cells),
    )


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
