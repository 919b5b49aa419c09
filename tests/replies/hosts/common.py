"""What the programs of the Python hosts share: reading the plan, making its calls, and saying what a model gets.

A program reads its plan as JSON from stdin and writes what it saw as JSON to stdout. For each call it says the texts
in the order in which the model reads them, the images in base64, and as text the structured content, where the
library hands that out as well. It imports the standard library and its own library only.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

TIMEOUT_S = 330.0
"""How long a library waits for a reply, if it would end a call sooner by itself."""


@dataclass(frozen=True)
class Plan:
    """How the server is started, and what it is asked for, one call after the other."""

    command: str
    arguments: list[str]
    environ: dict[str, str]
    calls: list[dict[str, Any]]


@dataclass
class Seen:
    """What a library makes of one reply."""

    texts: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    fields: str = ""
    urls: list[str] = field(default_factory=list)
    """Addresses of files and images that are parts of the message: whoever runs the model is asked to fetch them."""

    def add(self, block: Any) -> None:
        """Take in a block that is no text and no image: a host that passes it on passes this."""
        self.texts.append(as_json(block))


Call = Callable[[str, dict[str, Any]], Awaitable[Seen]]


def as_json(value: Any) -> str:
    """JSON as a host writes it that spares its model the spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def of_content(content: Sequence[Any], structured: Any) -> Seen:
    """The content blocks and the structured content of a library that hands out both, as models of pydantic."""
    seen = Seen(fields="" if structured is None else as_json(structured))
    for block in content:
        plain: Mapping[str, Any] = block.model_dump(mode="json", by_alias=True, exclude_none=True)
        if plain["type"] == "text":
            seen.texts.append(plain["text"])
        elif plain["type"] == "image":
            seen.images.append(plain["data"])
        else:
            seen.add(plain)
    return seen


async def make(plan: Plan, call: Call) -> list[Seen]:
    """Make the calls of a plan in their order. A call that raises gives the model the text of the exception."""
    seen = []
    for each in plan.calls:
        try:
            seen.append(await call(each["tool"], each["arguments"]))
        except Exception as error:  # noqa: BLE001 - whatever a library raises is what its host has
            seen.append(Seen(texts=[f"{type(error).__name__}: {error}"]))
    return seen


def run(library: str, follow: Callable[[Plan], Awaitable[list[Seen]]]) -> None:
    """Be the program of a library: read a plan, follow it, write what came of it."""

    async def main() -> list[Seen]:
        return await follow(Plan(**json.load(sys.stdin)))

    seen = asyncio.run(main())
    json.dump({"version": version(library), "seen": [asdict(each) for each in seen]}, sys.stdout)
