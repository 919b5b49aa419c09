"""Reduce what a kernel says that a cell has shown to what a notebook knows, in bounded size. Pure.

Both ways of outputs lead through here before anything keeps them: messages as they come, and what a commit records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kernelrepl import bounded_json

LEFT_OUT = "kernelrepl/left_out"
"""The type of what the keeper itself says among recorded messages: {"text": ...}. No kernel's passes."""
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


def left_out(text: str) -> dict[str, Any]:
    """Return what the keeper says of outputs that it has not kept, as one of the messages."""
    return {"type": LEFT_OUT, "content": {"text": text}}


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
    budget_chars = _TRACE_CHARS
    for line in trace[:_TRACE_LINES] if isinstance(trace, list) else ():
        if isinstance(line, str) and budget_chars > 0:
            lines.append(line[:budget_chars])
            budget_chars -= len(line)
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


def dumps(messages: Iterable[Mapping[str, Any]]) -> str:
    """Write messages as they are recorded, each by itself: the encoder gives nobody a turn before its end."""
    return f"[{', '.join(map(json.dumps, messages))}]"


def loads(outputs: str, *, ours: bool = True) -> list[dict[str, Any]]:
    """Read recorded messages (a JSON list); of what holds too much, a message of the keeper says so.

    What a kernel of ours makes is returned as it is, and so is what this has returned before.
    ours: they come from the store, and what the keeper says among them is its own.
    """
    if outputs == "[]":
        return []
    try:
        messages = bounded_json.loads(outputs.encode(errors="surrogatepass"), items=MOST_VALUES, depth=100)
    except bounded_json.TooMuch as error:
        return [left_out(f"the outputs were left out: {error}")]
    except ValueError:
        return []
    if not isinstance(messages, list):
        return []
    found = []
    most = MOST_MESSAGES + ours  # the keeper may have said one thing
    kept = most if len(messages) <= most else MOST_MESSAGES - 1
    for message in messages[:kept]:
        if isinstance(message, dict) and isinstance(message.get("content"), dict):
            if ours and message.get("type") == LEFT_OUT:
                found.append(left_out(_text(message["content"].get("text"), _NAME_CHARS)))
                continue
            content = reduced(str(message.get("type")), message["content"])
            if content is not None:
                found.append({"type": message["type"], "content": content})
    if len(messages) > kept:
        found.append(left_out(f"{len(messages) - kept} outputs were left out: the code showed too many"))
    return found


def normalized(outputs: str, missing: str | None = None) -> list[dict[str, Any]]:
    """A kernel's messages as they may be kept: as they are if they are of the form that one of ours makes.

    missing: what the keeper has to say of others.
    """
    return [*loads(outputs, ours=False), *([] if missing is None else [left_out(missing)])]
