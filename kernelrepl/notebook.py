"""Outputs as a notebook stores them (nbformat 4). Pure.

What a kernel sends is not trusted: contents of an unexpected form are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kernelrepl.model import Output


def outputs(output: Output) -> list[dict[str, Any]]:
    """The outputs of an execution in their order; consecutive texts of one stream are one output."""
    found: list[dict[str, Any]] = []
    for entry in _convert(output):
        try:
            found.append(_encodable(entry))
        except RecursionError:
            continue  # nested deeper than any renderer could show
    return found


def _convert(output: Output) -> Iterator[dict[str, Any]]:
    stream: dict[str, Any] | None = None
    for kind, content in output.cells:
        if kind == "stream":
            name, text = content.get("name"), content.get("text")
            if name not in ("stdout", "stderr") or not isinstance(text, str):
                continue
            if stream is not None and stream["name"] == name:
                stream["text"] += text
                continue
        if stream is not None:
            yield stream
            stream = None
        if kind == "stream":
            stream = {"output_type": "stream", "name": name, "text": text}
        elif kind == "error":
            trace = content.get("traceback")
            yield {
                "output_type": "error",
                "ename": str(content.get("ename", "")),
                "evalue": str(content.get("evalue", "")),
                "traceback": [line for line in trace if isinstance(line, str)] if isinstance(trace, list) else [],
            }
        elif isinstance(content.get("data"), dict):
            yield _display(kind, content)
    if stream is not None:
        yield stream


def _display(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    metadata = content.get("metadata")
    shown: dict[str, Any] = {
        "output_type": "execute_result" if kind == "execute_result" else "display_data",
        "data": content["data"],
        "metadata": metadata if isinstance(metadata, dict) else {},
    }
    if kind == "execute_result":
        count = content.get("execution_count")
        shown["execution_count"] = count if type(count) is int else None
    return shown


def _encodable(value: Any) -> Any:
    """JSON that can be sent: lone surrogates become question marks."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(part) for key, part in value.items()}
    return [_encodable(part) for part in value] if isinstance(value, list) else value
