"""The schemas of tools as a model pays for them: what says nothing to it is left out. Pure."""

from __future__ import annotations

import inspect
from typing import Any


def lean(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a tool's arguments without titles, and without null as another way to leave one out."""
    properties = {name: _parameter(found) for name, found in schema.get("properties", {}).items()}
    found: dict[str, Any] = {"type": "object", "properties": properties}
    if schema.get("required"):
        found["required"] = schema["required"]
    return found


def _parameter(schema: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in schema.items() if key not in ("title", "anyOf")}
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            found |= {key: value for key, value in choice.items() if key != "title"}
    if found.get("default", 0) is None:
        del found["default"]
    return found


def description(text: str) -> str:
    """Return a docstring as one paragraph after the other: how it is wrapped in the source says nothing to a model."""
    return "\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))
