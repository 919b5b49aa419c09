"""Which line of code made a name: for what is said of a value that was not saved. Pure, and linear in the code.

The code is that of a session, which may be hostile: it is never parsed, and only its first part is looked at closely.
"""

from __future__ import annotations

import re

_MOST_CHARS = 200_000
_MOST_LINES = 1_000
_LINE_CHARS = 300
_WORD = re.compile(r"\w+")
_BLOCKS = re.compile(r"""(?:\"{3}.*?\"{3}|'{3}.*?'{3})""", re.DOTALL)
_TEXTS = re.compile(r"""\b[bfru]{0,2}(?:"[^"]*"|'[^']*')|"[^"]*"|'[^']*'|#.*""", re.IGNORECASE)
_PARTS = re.compile(r"[()\[\]{}=:;]")
_DEFINED = re.compile(r"(?:async )?(?:def|class) (\w+)")
_IMPORTED = re.compile(r"(?:from [\w.]+ )?import (.*)")
_LOOPED = re.compile(r"(?:async )?for ([^:]*?) in ")
_ALIAS = re.compile(r"\bas (\w+)")
_WALRUS = re.compile(r"\b(\w+) ?:=")
_COMPOUND = re.compile(r"(?:if|elif|else|for|while|with|try|except|finally|async|match|case)\b")


def lines(code: str) -> dict[str, str]:
    """Return for each word of code the line that most likely made it, and the first line of all for the empty word.

    Best is the last line that binds it outside of functions and blocks, then the first one that binds it inside of
    them, then the first that has it outside of texts, then the first that has it.
    """
    mentioned: dict[str, str] = {}
    first = ""
    for number, line in enumerate(map(str.strip, code.splitlines())):
        first = first if number else line
        for word in _WORD.findall(line):
            mentioned.setdefault(word, line)
    bound: dict[str, str] = {}
    inside: dict[str, str] = {}
    used: dict[str, str] = {}
    for line in _without_blocks(code[:_MOST_CHARS]).splitlines()[:_MOST_LINES]:
        shown = line.strip()
        plain = " ".join(_TEXTS.sub("''", shown[:_LINE_CHARS]).split())
        for word in _WORD.findall(plain):
            used.setdefault(word, shown)
        if line[:1].isspace():
            for word in _bound(plain):
                inside.setdefault(word, shown)
        else:
            bound.update(dict.fromkeys(_bound(plain), shown))
    return {**mentioned, **used, **inside, **bound, "": first}


def _without_blocks(code: str) -> str:
    """Code without its texts in triple quotes."""
    return _BLOCKS.sub("''", code)


def _bound(line: str) -> list[str]:
    """The names that a line gives values to."""
    found = [*_WALRUS.findall(line), *_ALIAS.findall(line)]
    for statement in _statements(line):
        if match := _DEFINED.match(statement):
            found.append(match[1])
        elif match := _IMPORTED.match(statement):
            found += [part.split(" as ")[0].split(".")[0].strip("() ") for part in match[1].split(",")]
        elif match := _LOOPED.match(statement):
            found += match[1].split(",")
        for target in _targets(statement):
            found += target.split(",")
    return [name for name in (part.strip("()[]* ") for part in found) if name.isidentifier()]


def _statements(line: str) -> list[str]:
    """The statements of a line; what stands behind the head of a compound one is one of its own."""
    found, depth, begin = [], 0, 0
    compound = bool(_COMPOUND.match(line))
    for match in _PARTS.finditer(line):
        depth += (match[0] in "([{") - (match[0] in ")]}")
        ends = match[0] == ";" or (match[0] == ":" and compound and line[match.end() : match.end() + 1] != "=")
        if ends and depth == 0:
            found.append(line[begin : match.start()])
            begin = match.end()
            compound = False
    return [part.strip() for part in [*found, line[begin:]]]


def _targets(statement: str) -> list[str]:
    """What stands to the left of the assignments of a statement."""
    found, depth, begin = [], 0, 0
    for match in _PARTS.finditer(statement):
        at = match.start()
        depth += (match[0] in "([{") - (match[0] in ")]}")
        if match[0] != "=" or depth or at < begin:
            continue
        before, after = statement[begin:at], statement[at + 1 : at + 2]
        if after == "=" or before.endswith(("!", ":")) or (before[-1:] in "<>" and before[-2:] not in ("<<", ">>")):
            begin = len(statement)  # a comparison: what follows are values
            continue
        found.append(before.rstrip("+-*/%&|^@<> ").partition(":")[0])
        begin = at + 1
    return found
