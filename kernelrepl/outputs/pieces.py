"""What an execution shows as pieces of text, one after the other, for whoever reads it as it comes. Pure.

A piece is {"kind": ..., "text": ...}. Its kind is "stdout" or "stderr" for what was printed, "shown" for an object that
was displayed, "result" for the last expression, "error" for a traceback, "updated" for a display that has changed, and
"cleared", with no text, where the code takes back all that came before. Texts are as the code made them, with colours:
who prints them decides what a terminal may obey (`terminal_text`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kernelrepl.outputs import forms
from kernelrepl.outputs.notebook import encodable

_KINDS = {"display_data": "shown", "execute_result": "result", "update_display_data": "updated"}


def pieces(messages: Iterable[tuple[str, Mapping[str, Any]]]) -> list[dict[str, str]]:
    """Return the pieces of messages, each with its type and its content as on iopub. Neighbours are joined."""
    found: list[tuple[str, list[str]]] = []
    for kind, content in messages:
        for name, text in _piece(kind, content):
            if found and found[-1][0] == name and name in ("stdout", "stderr"):
                found[-1][1].append(text)
            else:
                found.append((name, [text]))
    return [{"kind": name, "text": encodable("".join(texts))} for name, texts in found]


def _piece(kind: str, content: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if kind == "stream" and content.get("name") in ("stdout", "stderr") and isinstance(content.get("text"), str):
        yield content["name"], content["text"]
    elif kind == "error":
        trace = content.get("traceback")
        lines = [line for line in trace if isinstance(line, str)] if isinstance(trace, list) else []
        yield "error", "\n".join(lines) or f"{content.get('ename')}: {content.get('evalue')}"
    elif kind == "clear_output":
        yield "cleared", ""
    elif kind in _KINDS and isinstance(data := content.get("data"), dict):
        figure = forms.figure_of(data)
        text = forms.text_of(data, drawn=figure is not None)
        if text and (figure is None or kind == "execute_result" or forms.is_told(data)):
            yield _KINDS[kind], text
