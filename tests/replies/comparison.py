"""What came of each reply in each host, beside what the server sent. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WHAT_IS_LOST = {"t": "text", "i": "image", "l": "link"}
"""The marks of the table."""


@dataclass(frozen=True)
class Outcome:
    """What a model gets of the reply to a cell."""

    cell: str
    chars: int
    """Of all texts."""
    fields: int
    """Characters of the structured content, if the library hands it out."""
    images: int
    sent: int
    """Characters of the texts that the server sent: others if the reply itself was another."""
    lost: str = ""
    """A mark for each kind of what the server sent and the library does not hand out whole."""

    @property
    def short(self) -> str:
        """The outcome as the table has it: characters, those of the fields, images, and marks."""
        fields = f"+{self.fields}" if self.fields else ""
        return f"{self.chars}{fields} {self.images}{self.lost:<2}"


@dataclass
class Column:
    """A host, with what a model gets of each reply in it."""

    host: str
    version: str = ""
    client: str = ""
    """What the library calls itself when it connects."""
    outcomes: list[Outcome] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    trouble: str = ""


def outcome(cell: str, reply: Mapping[str, Any], seen: Mapping[str, Any]) -> Outcome:
    """Compare the reply as the server sent it with what the library handed out."""
    texts: list[str] = seen["texts"]
    sent: Sequence[Mapping[str, Any]] = reply["content"]
    images = Counter(block["data"] for block in sent if block["type"] == "image")
    lost = {
        "t": any(block["type"] == "text" and not any(block["text"] in text for text in texts) for block in sent),
        "i": bool(images - Counter(seen["images"])),
        "l": any(block["type"] == "resource_link" and block["uri"] not in "\n".join(texts) for block in sent),
    }
    return Outcome(
        cell,
        chars=sum(map(len, texts)),
        fields=len(seen["fields"]),
        images=len(seen["images"]),
        sent=sum(len(block["text"]) for block in sent if block["type"] == "text"),
        lost="".join(mark for mark, is_lost in lost.items() if is_lost),
    )


def table(columns: Sequence[Column]) -> str:
    """A row for each cell, then the sums."""
    whole = [column for column in columns if not column.trouble]
    lines = [f"{column.host}: {_about(column)}" for column in columns]
    if not whole:
        return "\n".join(lines)
    rows = [["cell", *(column.host for column in whole)]]
    for outcomes in zip(*(column.outcomes for column in whole), strict=True):
        rows.append([outcomes[0].cell, *(outcome.short for outcome in outcomes)])
    sums = [{name: sum(getattr(each, name) for each in column.outcomes) for name in _SUMS} for column in whole]
    rows += [[f"all: {about}", *(f"{each[name]} {'':>3}" for each in sums)] for name, about in _SUMS.items()]
    rows.append(["all: not whole", *(f"{sum(bool(o.lost) for o in column.outcomes)} {'':>3}" for column in whole)])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines += ["", "characters of text, +characters of structured content, images, and what is not whole:", ""]
    for cell, *found in rows:
        padded = (text.rjust(width) for text, width in zip(found, widths[1:], strict=True))
        lines.append(f"{cell:<{widths[0]}}  {'  '.join(padded)}".rstrip())
    return "\n".join([*lines, "", *explanations(whole)])


_SUMS = {"chars": "text", "fields": "structured content", "images": "images"}


def _about(column: Column) -> str:
    return column.trouble or f"version {column.version}, connects as {column.client!r}"


def explanations(columns: Sequence[Column]) -> list[str]:
    """For each host and kind of what it does not hand out whole: in which cells, and what there is in its place."""
    lines = []
    for column in columns:
        for mark, what in WHAT_IS_LOST.items():
            at = [number for number, each in enumerate(column.outcomes) if mark in each.lost]
            if at:
                cells = ", ".join(column.outcomes[number].cell for number in at)
                first = column.seen[at[0]]
                lines.append(f"{mark}  {column.host}: the {what} is not whole in: {cells}")
                lines.append(f"   the first of them has these texts: {[text[-200:] for text in first['texts']]}")
                if first["urls"]:
                    lines.append(f"   and files and images that whoever runs the model shall fetch: {first['urls']}")
    lines = lines or ["Each text, image and link reached every host whole."]
    for outcomes in zip(*(column.outcomes for column in columns), strict=True):
        if len(counts := {each.sent for each in outcomes}) > 1:
            lines.append(f"{outcomes[0].cell}: the server did not send each host the same: {sorted(counts)} characters")
    return lines
