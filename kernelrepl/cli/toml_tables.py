"""Change one table of a TOML file, and nothing else of it. Pure.

A new table can stand at the end of every TOML file, so the text before it needs no change. What a table means is asked
of the parser of the standard library, before and after.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from kernelrepl.cli.jsonc import NotReadable, line_end

_HEADER = re.compile(r"[ \t]*\[")
_NOTHING = re.compile(r"[ \t]*(#.*)?$")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def load(text: str) -> dict[str, Any]:
    """Return the settings. Raises NotReadable."""
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise NotReadable(1, "is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        why, _, place = str(error).partition(" (at ")
        found = re.match(r"line (\d+)", place)
        raise NotReadable(int(found[1]) if found else text.count("\n") + 1, why) from None


def dump(path: Sequence[str], entry: dict[str, Any]) -> str:
    """Return settings that have this entry alone."""
    header = ".".join(map(_name, path))
    return "\n".join([f"[{header}]", *(f"{_name(name)} = {_value(value)}" for name, value in entry.items())])


def put(text: str, path: Sequence[str], entry: dict[str, Any]) -> str:
    """Return the text with this table at its end, and without another one of this name."""
    servers = load(text).get(path[0], {})
    if not isinstance(servers, dict):
        raise NotReadable(_line_with(text, path[0]), f"{path[0]} is not a table")
    if path[-1] in servers:
        text = take(text, path)
    eol = line_end(text)
    gap = "" if not text.strip("\ufeff \t\r\n") else eol if text.endswith("\n") else 2 * eol
    return text + gap + (dump(path, entry) + "\n").replace("\n", eol)


def take(text: str, path: Sequence[str]) -> str:
    """Return the text without the table and those below it. Raises NotReadable if it is written in another form."""
    own = re.compile(r"[ \t]*\[\[?[ \t]*" + r"[ \t]*\.[ \t]*".join(map(_any_form, path)) + r"[ \t]*[].]")
    wanted = load(text)
    del wanted[path[0]][path[-1]]
    lines = text.splitlines(keepends=True)
    kept: list[str] = []
    at = 0
    while at < len(lines):
        if not own.match(lines[at]):
            kept.append(lines[at])
            at += 1
            continue
        end = next((i for i in range(at + 1, len(lines)) if _HEADER.match(lines[i])), len(lines))
        while end > at + 1 and _NOTHING.match(lines[end - 1].rstrip("\r\n")):
            end -= 1  # these lines belong to what follows, or to nobody
        at = end
        if at == len(lines):
            while kept and not kept[-1].strip():
                kept.pop()
    rest = "".join(kept)
    try:
        is_right = _without_empty(load(rest), path[0]) == _without_empty(wanted, path[0])
    except NotReadable:
        is_right = False
    if not is_right:
        raise NotReadable(_line_with(text, path[-1]), f"{'.'.join(path)} is not written as a table of its own")
    return rest


def _line_with(text: str, name: str) -> int:
    """The number of the first line that has a name."""
    return text.count("\n", 0, max(text.find(name), 0)) + 1


def _without_empty(settings: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name or value}


def _any_form(name: str) -> str:
    return f"(?:{re.escape(name)}|\"{re.escape(name)}\"|'{re.escape(name)}')"


def _name(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_name(name)} = {_value(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # The escapes of JSON are escapes of TOML, too; of what TOML wants escaped, JSON leaves this one.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
