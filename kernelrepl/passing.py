"""Reduce what a kernel says that a cell has shown to what a notebook knows, in bounded size. Pure.

Both ways of outputs lead through here before anything keeps them: messages as they come, and what a commit records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kernelrepl import bounded_json

MOST_MESSAGES = 10_000
"""Of one execution, recorded. A kernel that joins what is printed has far fewer."""
MOST_VALUES = 500_000
"""The most values in the outputs of one execution: the numbers of a large interactive figure, and 40 MB at most."""
MOST_TYPES = 50
MOST_META_CHARS = 20_000
_NAME_CHARS = 200
_MESSAGE_CHARS = 100_000
_TRACE_CHARS = 1_000_000
_TRACE_LINES = 1000


def stream(text: str) -> dict[str, Any]:
    """Return a line of the keeper's own among the outputs."""
    return {"type": "stream", "content": {"name": "stderr", "text": text}}


def reduced(kind: str, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a content with the fields that its kind of message has; None for a kind that shows nothing."""
    if kind == "stream":
        name, text = content.get("name"), content.get("text")
        return {"name": name, "text": text if isinstance(text, str) else ""} if name in ("stdout", "stderr") else None
    if kind == "clear_output":
        return {"wait": content.get("wait") is True}
    if kind == "error":
        return _error(content)
    if kind in ("execute_result", "display_data", "update_display_data"):
        return _display(kind, content)
    return None


def _error(content: Mapping[str, Any]) -> dict[str, Any]:
    trace = content.get("traceback")
    lines: list[str] = []
    room = _TRACE_CHARS
    for line in trace[:_TRACE_LINES] if isinstance(trace, list) else ():
        if isinstance(line, str) and room > 0:
            lines.append(line[:room])
            room -= len(line)
    return {
        "ename": _text(content.get("ename"), _NAME_CHARS),
        "evalue": _text(content.get("evalue"), _MESSAGE_CHARS),
        "traceback": lines,
    }


def _display(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    data = content.get("data")
    forms = list(data.items())[:MOST_TYPES] if isinstance(data, dict) else []
    found: dict[str, Any] = {
        "data": {mime: value for mime, value in forms if len(mime) <= _NAME_CHARS and _fits(mime, value)},
        "metadata": _small(content.get("metadata")),
    }
    transient = content.get("transient")
    if isinstance(transient, dict) and isinstance(transient.get("display_id"), str):
        found["transient"] = {"display_id": transient["display_id"][:_NAME_CHARS]}
    if type(count := content.get("execution_count")) is int and 0 <= count < 1 << 53:
        found["execution_count"] = count
    return found


def _fits(mime: str, value: Any) -> bool:
    """Whether a notebook may have this: what is not JSON is text, in one piece or in several."""
    if isinstance(value, str):
        return True
    if mime.partition(";")[0].endswith("json"):
        return True
    return isinstance(value, list) and all(isinstance(line, str) for line in value)


def _small(value: Any) -> dict[str, Any]:
    """Metadata say how to show a form; what is longer than that would take, is something else."""
    if not isinstance(value, dict) or not value:
        return {}
    return value if len(json.dumps(value)) <= MOST_META_CHARS else {}


def _text(value: Any, most: int) -> str:
    return value[:most] if isinstance(value, str) else ""


def loads(outputs: str) -> list[dict[str, Any]]:
    """Read recorded messages (a JSON list); what holds too much, or is no list, becomes a line that says so."""
    if outputs == "[]":
        return []
    try:
        messages = bounded_json.loads(outputs.encode(errors="surrogatepass"), items=MOST_VALUES, depth=100)
    except bounded_json.TooMuch as error:
        return [stream(f"[… the outputs were left out: {error} …]\n")]
    except ValueError:
        return []
    if not isinstance(messages, list):
        return []
    found = []
    for message in messages[:MOST_MESSAGES]:
        if isinstance(message, dict) and isinstance(message.get("content"), dict):
            content = reduced(str(message.get("type")), message["content"])
            if content is not None:
                found.append({"type": message["type"], "content": content})
    if len(messages) > MOST_MESSAGES:
        found.append(stream(f"[… {len(messages) - MOST_MESSAGES} outputs were left out: the code showed too many …]\n"))
    return found


def normalized(outputs: str) -> str:
    """Return recorded messages as they may be stored: unchanged if they are of the form that a kernel of ours makes."""
    if outputs == "[]":
        return outputs
    return json.dumps(loads(outputs))
