"""Outputs as a notebook stores them (nbformat 4). Pure.

What a kernel sends is not trusted: contents of an unexpected form are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kernelrepl.guest.wire import REPLY
from kernelrepl.model import Output

MAX_DEPTH = 100
"""How deep an output may be nested: deeper ones could not be sent as a part of a reply."""


def outputs(output: Output) -> list[dict[str, Any]]:
    """The outputs of an execution in their order; consecutive texts of one stream are one output."""
    found: list[dict[str, Any]] = []
    for entry in _convert(output):
        try:
            found.append(encodable(entry))
        except _TooDeep:
            continue  # nested deeper than any renderer could show
    return found


def document(session_id: str, cells: Iterable[dict[str, Any]], *, left_out: int = 0) -> dict[str, Any]:
    """A notebook of the cells of a session. left_out: how many older ones there are."""
    about = {"session_id": session_id, **({"left_out": left_out} if left_out else {})}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "kernelrepl", "display_name": "Python (kernelrepl)", "language": "python"},
            "language_info": {"name": "python"},
            "kernelrepl": about,
        },
        "cells": list(cells),
    }


def cell(number: int, code: str, count: int, output: Output, about: dict[str, Any]) -> dict[str, Any]:
    """A code cell. number: unique in its notebook. count: 0 if it never ran to its end."""
    return {
        "cell_type": "code",
        "id": f"execution-{number}",
        "execution_count": count or None,
        "metadata": {"kernelrepl": about},
        "source": encodable(code),
        "outputs": outputs(output),
    }


class _TooDeep(Exception):
    """A value is nested deeper than MAX_DEPTH."""


def _convert(output: Output) -> Iterator[dict[str, Any]]:
    stream = ""
    texts: list[str] = []
    for kind, content in output.cells:
        if kind == "stream":
            name, text = content.get("name"), content.get("text")
            if name not in ("stdout", "stderr") or not isinstance(text, str):
                continue
            if texts and stream != name:
                yield _stream(stream, texts)
                texts = []
            stream = name
            texts.append(text)
            continue
        if texts:
            yield _stream(stream, texts)
            texts = []
        if kind == "error":
            trace = content.get("traceback")
            yield {
                "output_type": "error",
                "ename": _text(content.get("ename")),
                "evalue": _text(content.get("evalue")),
                "traceback": [line for line in trace if isinstance(line, str)] if isinstance(trace, list) else [],
            }
        elif isinstance(content.get("data"), dict):
            yield _display(kind, content)
    if texts:
        yield _stream(stream, texts)


def _stream(name: str, texts: list[str]) -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": "".join(texts)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _display(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    metadata = content.get("metadata")
    shown: dict[str, Any] = {
        "output_type": "execute_result" if kind == "execute_result" else "display_data",
        "data": {kind: value for kind, value in content["data"].items() if kind != REPLY and _fits(kind, value)},
        "metadata": metadata if isinstance(metadata, dict) else {},
    }
    if kind == "execute_result":
        count = content.get("execution_count")
        shown["execution_count"] = count if type(count) is int else None
    return shown


def _fits(kind: str, value: Any) -> bool:
    """Whether a notebook may have this: what is not JSON is text, in one piece or in several."""
    if kind.partition(";")[0].endswith("json"):
        return True
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value))


def encodable(value: Any, depth: int = 0) -> Any:
    """JSON that can be sent: lone surrogates become question marks, what is no number of JSON null."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, dict | list):
        return value
    if depth == MAX_DEPTH:
        raise _TooDeep
    if isinstance(value, dict):
        return {encodable(key): encodable(part, depth + 1) for key, part in value.items()}
    return [encodable(part, depth + 1) for part in value]
