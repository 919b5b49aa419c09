"""HTML as a model reads it: its text, with rows, items and headings on lines of their own. Runs in the kernel."""

from __future__ import annotations

import re
from html.parser import HTMLParser

MOST_CHARS = 200_000
"""Of HTML that is read. It is a session's own time, but nobody reads the text of more."""
_SCRIPT = re.compile(r"<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_SILENT = frozenset({"head", "math", "noscript", "script", "style", "svg", "template", "title"})
_UNSEEN = frozenset({"base", "link", "meta"})
_LINES = frozenset({
    "address", "article", "aside", "blockquote", "br", "caption", "dd", "details", "div", "dl", "dt", "figcaption",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p",
    "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
})  # fmt: skip
_BEFORE = {"li": "- ", **{f"h{level}": "#" * level + " " for level in range(1, 7)}}


_CELL = "\x1f"
"""Stands before each cell of a row, until the row is a line."""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[list[str]] = [[]]
        self.has_elements = False
        """Whether there is anything but scripts and what belongs to them."""
        self._silent: list[str] = []
        self._kept = 0
        """How many elements there are in which spaces count."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent.append(tag)
        if self._silent:
            return
        self.has_elements = self.has_elements or tag not in _UNSEEN
        if tag in _LINES:
            self._break()
        self._kept += tag == "pre"
        if tag in ("td", "th"):
            self.lines[-1].append(_CELL)
        elif tag == "img":
            self.lines[-1].append(f"[picture{': ' + alt if (alt := dict(attrs).get('alt')) else ''}]")
        self.lines[-1].append(_BEFORE.get(tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _SILENT:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            while self._silent.pop() != tag:
                pass
        elif not self._silent and tag in _LINES:
            self._kept -= tag == "pre" and self._kept > 0
            self._break()

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        if self._kept:
            first, *others = data.split("\n")
            self.lines[-1].append(first)
            self.lines += [[line] for line in others]
        else:
            self.lines[-1].append(re.sub(r"\s+", " ", data))

    def _break(self) -> None:
        if self.lines[-1]:
            self.lines.append([])


def text(html: str) -> str:
    """Return what a reader would see of HTML; a line about what is only drawn; nothing of what shows nothing."""
    seen = _SCRIPT.sub(" ", html)
    reader = _Reader()
    reader.feed(seen[:MOST_CHARS])
    reader.close()
    found = "\n".join(filter(None, map(_line, reader.lines)))
    if not found:
        if not reader.has_elements:
            return ""
        return f"[HTML without text, {len(html):,} characters: what it shows is seen in a browser only]"
    more = f"\n[… of {len(seen):,} characters of HTML the first {MOST_CHARS:,} were read …]"
    return found + more if len(seen) > MOST_CHARS else found


def _line(parts: list[str]) -> str:
    line = "".join(parts)
    if _CELL in line:
        before, *cells = (cell.strip() for cell in line.split(_CELL))
        line = " | ".join([before, *cells] if before else cells)
    return line.rstrip() if line.strip("|#- \xa0") else ""
