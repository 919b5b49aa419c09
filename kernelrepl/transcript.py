"""Fold Jupyter messages into the outputs of an execution. Pure: no I/O, no clock.

The same fold serves live output, committed rows and crashed executions, so they cannot differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from kernelrepl.model import Failure, Figure, Output

_ANSI = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])")
_UP = re.compile(r"\x1b\[(\d*)A")
_OPAQUE = re.compile(r"<IPython\.core\.display\.\w+ object>")
_FIGURE_TYPES = ("image/png", "image/jpeg")
_TEXT_TYPES = ("text/markdown", "text/latex", "text/html")
MAX_LIVE_MESSAGES = 10_000
MAX_LIVE_CHARS = 4_000_000


class Transcript:
    """Collects messages of one execution, in order, bounded.

    A message is {"type": ..., "content": ...} as on iopub. What a kernel sends is not trusted: contents of
    an unexpected form are skipped.
    """

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._chars = 0

    def add(self, kind: str, content: dict[str, Any]) -> None:
        if len(self._messages) >= MAX_LIVE_MESSAGES or self._chars > MAX_LIVE_CHARS:
            return
        if kind == "stream":
            self._chars += len(_text(content.get("text")))
        self._messages.append({"type": kind, "content": content})

    def dump(self) -> str:
        return json.dumps(self._messages)

    def output(self) -> Output:
        return fold(self._messages)

    def last_line(self) -> str:
        """The end of what was printed, one line, for a progress message."""
        for message in reversed(self._messages):
            if message["type"] == "stream":
                lines = printed(_text(message["content"].get("text"))).strip().splitlines()
                if lines:
                    return lines[-1][:200]
        return ""


def load(outputs: str) -> Output:
    """The folded form of recorded messages (a JSON list). What is not JSON folds to nothing."""
    try:
        messages = json.loads(outputs)
    except (ValueError, RecursionError):
        return Output()
    return fold(messages) if isinstance(messages, list) else Output()


def fold(messages: Iterable[Any]) -> Output:
    """Apply messages in order, as a notebook would."""
    cells: list[tuple[str, dict[str, Any]]] = []
    clear_next = False
    for message in messages:
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
            _update(cells, content)
        elif kind in ("stream", "execute_result", "display_data", "error"):
            cells.append((kind, content))
    return _assemble(cells)


def _update(cells: list[tuple[str, dict[str, Any]]], content: dict[str, Any]) -> None:
    wanted = _display_id(content)
    for index, (kind, old) in enumerate(cells):
        if wanted is not None and kind != "stream" and _display_id(old) == wanted:
            cells[index] = (kind, {**old, "data": content.get("data", {})})


def _display_id(content: dict[str, Any]) -> Any:
    transient = content.get("transient")
    return transient.get("display_id") if isinstance(transient, dict) else None


def _assemble(cells: list[tuple[str, dict[str, Any]]]) -> Output:
    streams = {"stdout": "", "stderr": ""}
    displays: list[str] = []
    figures: list[Figure] = []
    result: str | None = None
    error: Failure | None = None
    for kind, content in cells:
        if kind == "stream":
            if content.get("name") in ("stdout", "stderr"):
                streams[content["name"]] += _text(content.get("text"))
            continue
        if kind == "error":
            trace = content.get("traceback")
            lines = [_text(line) for line in trace] if isinstance(trace, list) else []
            if error is not None:
                streams["stderr"] = below(streams["stderr"], error.traceback)
            error = Failure(
                plain(_text(content.get("ename"))), plain(_text(content.get("evalue"))), plain("\n".join(lines))
            )
            continue
        data = content.get("data")
        if not isinstance(data, dict):
            continue
        figure = next((mime for mime in _FIGURE_TYPES if isinstance(data.get(mime), str)), None)
        text = plain(_text(data.get("text/plain")))
        if _OPAQUE.fullmatch(text):  # an object whose text says nothing
            text = next((plain(data[mime]) for mime in _TEXT_TYPES if isinstance(data.get(mime), str)), text)
        if figure is not None:
            figures.append(Figure(figure, data[figure].replace("\n", "")))
        if kind == "execute_result":
            result = text
        elif figure is None and text:
            displays.append(text)
    return Output(
        stdout=printed(streams["stdout"]),
        stderr=printed(streams["stderr"]),
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
    """Text without terminal codes, and with nothing that cannot be encoded."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return text if text.isascii() else text.encode(errors="replace").decode()


def carriage_returns(text: str) -> str:
    """What a terminal would show of progress bars: of each line the last version."""
    if "\r" not in text:
        return text
    shown = []
    for line in text.replace("\r\n", "\n").split("\n"):
        parts = [part for part in line.split("\r") if part]
        shown.append(parts[-1] if parts else "")
    return "\n".join(shown)


def printed(text: str) -> str:
    """What a person sees of a printed text."""
    if "\x1b" in text and _UP.search(text):
        text = _several_bars(text)
    return carriage_returns(plain(text))


def _several_bars(text: str) -> str:
    """Progress bars below each other: the cursor goes up to each line, which is written anew."""
    lines, row = [""], 0
    for number, piece in enumerate(_UP.split(text)):
        if number % 2:
            row = max(row - int(piece[:4] or 1), 0)
            continue
        for step, line in enumerate(piece.split("\n")):
            if step:
                row += 1
                if row == len(lines):
                    lines.append("")
            lines[row] += line
    return "\n".join(lines)


def cut(text: str, limit: int) -> str:
    """At most about `limit` characters: head and tail with a line between that says what is missing."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} of {len(text)} characters cut …]\n{text[-half:]}"
