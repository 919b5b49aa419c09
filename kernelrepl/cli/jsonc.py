"""Change one entry of a JSON file with comments, and nothing else of it. Pure.

Editors and agents read their settings as JSON with comments and trailing commas. A text that is parsed and written
anew loses both, so this module only finds places in the text: what is not the entry stays as it was, to the letter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DEEPEST = 100
"""Settings are not nested deeper than this."""

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)|(?P<comment>//[^\r\n]*|/\*.*?\*/)"""
    r"""|(?P<string>"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")"""
    r"""|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"""
    r"""|(?P<word>true|false|null)|(?P<mark>[{}\[\]:,])""",
    re.S,
)
_BESIDE = re.compile(r"(?:[ \t]*(?://[^\r\n]*|/\*.*?\*/))*", re.S)
"""Comments that begin on the same line."""


class NotReadable(ValueError):
    """A text is not what its format asks for. Attributes: line, counted from 1, and why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.why = why


@dataclass(frozen=True)
class Token:
    """One sign of the text that means something."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Value:
    """One value, and where it stands."""

    start: int
    end: int
    value: Any
    members: list[Member] | None = field(default=None, repr=False)
    """What an object consists of; None for all other values."""


@dataclass(frozen=True)
class Member:
    """One name of an object with its value. `comma` is the place of the comma behind it, or None."""

    name: str
    start: int
    value: Value
    comma: int | None


class _Parser:
    """Reads one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._all_tokens()
        self._at = 0

    def root(self) -> Value | None:
        """The value of the text; None if it has only comments."""
        if not self._tokens:
            return None
        value = self._value(0)
        if self._at < len(self._tokens):
            self._fail("something follows the end of the settings")
        return value

    def _all_tokens(self) -> list[Token]:
        at = 1 if self._text.startswith("\ufeff") else 0
        found = []
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise NotReadable(line_of(self._text, at), f"{self._text[at : at + 20].split()[0]!r} is not JSON")
            if match.lastgroup not in ("space", "comment"):
                found.append(Token(str(match.lastgroup), at, match.end()))
            at = match.end()
        return found

    def _peek(self) -> str:
        """The next sign if it is a mark, else its kind; empty at the end."""
        if self._at == len(self._tokens):
            return ""
        token = self._tokens[self._at]
        return self._text[token.start] if token.kind == "mark" else token.kind

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _fail(self, why: str) -> None:
        at = self._tokens[self._at].start if self._at < len(self._tokens) else len(self._text.rstrip())
        raise NotReadable(line_of(self._text, at), why)

    def _expect(self, wanted: str, why: str) -> Token:
        if self._peek() != wanted:
            self._fail(why)
        return self._next()

    def _value(self, depth: int) -> Value:
        kind = self._peek()
        if depth > DEEPEST:
            self._fail("is nested too deeply")
        if kind == "{":
            return self._object(depth)
        if kind == "[":
            return self._array(depth)
        if kind not in ("string", "number", "word"):
            self._fail("a value is missing")
        token = self._next()
        text = self._text[token.start : token.end]
        return Value(token.start, token.end, float(text) if kind == "number" else json.loads(text))

    def _object(self, depth: int) -> Value:
        start = self._next().start
        members: list[Member] = []
        while self._peek() != "}":
            name = self._expect("string", "a name in double quotes or a } is missing")
            self._expect(":", "a colon is missing behind a name")
            value = self._value(depth + 1)
            comma = self._next().start if self._peek() == "," else None
            members.append(Member(json.loads(self._text[name.start : name.end]), name.start, value, comma))
            if comma is None:
                break
        end = self._expect("}", "a comma or a } is missing").end
        return Value(start, end, {member.name: member.value.value for member in members}, members)

    def _array(self, depth: int) -> Value:
        start = self._next().start
        values = []
        while self._peek() != "]":
            values.append(self._value(depth + 1).value)
            if self._peek() != ",":
                break
            self._next()
        return Value(start, self._expect("]", "a comma or a ] is missing").end, values)


def load(text: str) -> dict[str, Any]:
    """Return the settings. Raises NotReadable."""
    root = _Parser(text).root()
    if root is None:
        return {}
    _members(text, root, "the file")
    settings: dict[str, Any] = root.value
    return settings


def dump(path: Sequence[str], entry: dict[str, Any]) -> str:
    """Return settings that have this entry alone."""
    return json.dumps(_nested(path, entry), indent=2, ensure_ascii=False)


def put(text: str, path: Sequence[str], entry: dict[str, Any]) -> str:
    """Return the text with this entry at the end of its object, or instead of the one that has its name."""
    root = _Parser(text).root()
    eol = line_end(text)
    if root is None:
        gap = "" if text.strip("\ufeff") == "" or text.endswith("\n") else eol
        return text + gap + (dump(path, entry) + "\n").replace("\n", eol)
    holder = root
    for depth, name in enumerate(path):
        found = _member(text, holder, name, "the file" if depth == 0 else repr(path[depth - 1]))
        if found is None:
            return _inserted(text, root, holder, name, _nested(path[depth + 1 :], entry))
        holder = found.value
    own = json.dumps(entry, indent=_unit(text, root), ensure_ascii=False)
    if not _is_spread(text, root):
        own = json.dumps(entry, ensure_ascii=False)
    own = own.replace("\n", eol + _indent(text, holder.start))
    return text[: holder.start] + own + text[holder.end :]


def take(text: str, path: Sequence[str]) -> str:
    """Return the text without the entry, which has to be there."""
    holder = _Parser(text).root()
    for depth, name in enumerate(path[:-1]):
        assert holder is not None
        found = _member(text, holder, name, "the file" if depth == 0 else repr(path[depth - 1]))
        assert found is not None
        holder = found.value
    assert holder is not None
    members = _members(text, holder, "the file")
    index = [member.name for member in members].index(path[-1])
    own, before = members[index], members[index - 1] if index else None
    begin = len(text[: own.start].rstrip(" \t\r\n"))
    end = own.value.end if own.comma is None else own.comma + 1
    if "\n" in text[begin : own.start] and not re.match(r"[ \t]*\r?\n", text[end:]):
        begin = own.start  # else what follows would stand behind a comment
    if own.comma is None and before is not None:
        assert before.comma is not None
        return text[: before.comma] + text[before.comma + 1 : begin] + text[end:]
    return text[:begin] + text[end:]


def line_of(text: str, at: int) -> int:
    """The number of the line of a place, counted from 1."""
    return text.count("\n", 0, at) + 1


def line_end(text: str) -> str:
    """How the lines of a text end."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def _nested(path: Sequence[str], entry: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(path):
        entry = {name: entry}
    return entry


def _members(text: str, value: Value, title: str) -> list[Member]:
    if value.members is None:
        raise NotReadable(line_of(text, value.start), f"{title} is to be an object in braces, and is not")
    return value.members


def _member(text: str, holder: Value, name: str, title: str) -> Member | None:
    found = [member for member in _members(text, holder, title) if member.name == name]
    if len(found) > 1:
        raise NotReadable(line_of(text, found[1].start), f"{name!r} is there a second time")
    return found[0] if found else None


def _inserted(text: str, root: Value, holder: Value, name: str, value: dict[str, Any]) -> str:
    """The text with a new member at the end of an object."""
    eol, unit = line_end(text), _unit(text, root)

    def own(indent: str) -> str:
        shown = json.dumps(value, indent=unit, ensure_ascii=False)
        return f"{eol}{indent}{json.dumps(name)}: " + shown.replace("\n", eol + indent)

    inline = f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
    members = _members(text, holder, name)
    if not members:
        comments = [match for match in _TOKEN.finditer(text, holder.start + 1, holder.end - 1) if match["comment"]]
        at = comments[-1].end() if comments else holder.start + 1
        if not _is_spread(text, root) and holder is not root:
            return text[:at] + inline + text[at:]
        indent = _indent(text, holder.start)
        closing = "" if "\n" in text[at : holder.end] else eol + indent
        return text[:at] + own(indent + unit) + closing + text[at:]
    last = members[-1]
    if not _begins_line(text, last.start):
        if last.comma is not None:
            return f"{text[: last.comma + 1]} {inline},{text[last.comma + 1 :]}"
        return f"{text[: last.value.end]}, {inline}{text[last.value.end :]}"
    end = last.value.end if last.comma is None else last.comma + 1
    beside = _BESIDE.match(text, end)
    assert beside is not None
    member = own(_indent(text, last.start))
    if last.comma is not None:
        return text[: beside.end()] + member + "," + text[beside.end() :]
    return f"{text[:end]},{text[end : beside.end()]}{member}{text[beside.end() :]}"


def _indent(text: str, at: int) -> str:
    """What the line of a place begins with."""
    begin = text.rfind("\n", 0, at) + 1
    match = re.match(r"\ufeff?([ \t]*)", text[begin:at])
    return match[1] if match else ""


def _begins_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip(" \t\ufeff")


def _is_spread(text: str, root: Value) -> bool:
    """Whether the settings take several lines."""
    return "\n" in text[root.start : root.end]


def _unit(text: str, root: Value) -> str:
    """By how much the text indents: as its first member does that begins a line."""
    for member in root.members or ():
        if _begins_line(text, member.start):
            return _indent(text, member.start).removeprefix(_indent(text, root.start)) or "  "
    return "  "
