"""A traceback as a model reads it: a line for each frame of the session's own code, and where a library raised. Pure.

A person sees the whole of it, in notebooks, on a terminal and in the history.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

_OF_IPYTHON = re.compile(r"(Cell In ?\[\d+\]|File (.+?))(?:, line |:)(\d+)(?:, in (\S[^(]*)(?:\(.*\))?)?$")
_OF_PYTHON = re.compile(r'  (Cell In ?\[\d+\]|File "(.+?)"), line (\d+), in (.+)$')
_ARROW = re.compile(r"(?<!-)-+> \d+ (.*)$")
_HEAD = re.compile(r"(-{20,}|(\S+ +)?Traceback \(most recent call last\):?)$")
_GROUP = re.compile(r"^[ \t]+[+|]", re.MULTILINE)
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_NO_SOURCE = "'Could not get source, probably due dynamically evaluated source code.'"
"""What IPython shows in place of a line that it cannot read, such as one of a compiled module."""
_OWN = ("/workspace/", "/tmp/", "<")
_CODE_CHARS = 200
_HEAD_CHARS = 1000
"""A longer line is no head of a frame: looking for one in it would take too long."""


@dataclass(frozen=True)
class _Frame:
    place: str
    path: str
    """Empty for a cell."""
    line: str
    function: str
    code: str

    @property
    def is_own(self) -> bool:
        """Whether it is code of the session, and not of a library."""
        return not self.path or self.path.startswith(_OWN)

    def __str__(self) -> str:
        place = f"{_short(self.path)}:{self.line}" if self.path else f"{self.place}, line {self.line}"
        function = "" if self.function in ("", "<module>") else f", in {self.function}"
        return f"{place}{function}" + (f": {self.code[:_CODE_CHARS]}" if self.code else "")


def brief(trace: str) -> str:
    """Return a traceback with one line for each frame of the session's own code.

    Of frames of libraries in a row, the last one with a line of source is left, and the others are counted. An error
    of a library alone that the next one in the chain says again is left out. What is no frame stays as it is, the
    messages above all; so does all of an exception group.
    """
    if _GROUP.search(trace):
        return trace.strip("\n")
    lines: list[str] = []
    for part in _without_repetitions(list(_parts(trace.split("\n")))):
        lines += [str(part)] if isinstance(part, (str, _Frame)) else _of_library(part)
    return "\n".join(lines).strip("\n")


def _of_library(frames: Sequence[_Frame]) -> list[str]:
    """What is left of frames in a row."""
    shown = next((frame for frame in reversed(frames) if frame.code), frames[-1])
    left_out = len(frames) - 1
    return [*([f"... {left_out} more frame{'s' * (left_out > 1)} of libraries"] if left_out else []), str(shown)]


def _without_repetitions(parts: Sequence[_Frame | str]) -> Iterator[_Frame | str | Sequence[_Frame]]:
    """The parts of a traceback, frames of libraries in a row as one, without errors that are said again."""
    errors: list[list[_Frame | str | Sequence[_Frame]]] = [[]]
    for kind, run in groupby(parts, _kind):
        if kind == "library":
            errors[-1].append([part for part in run if isinstance(part, _Frame)])
        else:
            for part in run:
                errors[-1].append(part)
                if part in _CHAINED:
                    errors.append([])
    for number, error in enumerate(errors):
        following = errors[number + 1] if number + 1 < len(errors) else None
        if following is None or any(isinstance(part, _Frame) for part in error) or _said(error) != _said(following):
            yield from error


def _kind(part: _Frame | str) -> str:
    if isinstance(part, str):
        return "text"
    return "own" if part.is_own else "library"


def _said(error: Sequence[_Frame | str | Sequence[_Frame]]) -> list[str]:
    """The message of one error in a chain."""
    return [part for part in error if isinstance(part, str) and part.strip() and part not in _CHAINED]


def _parts(lines: list[str]) -> Iterator[_Frame | str]:
    """Frames, and lines that are none."""
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if len(line) > _HEAD_CHARS:
            yield line
        elif found := _OF_PYTHON.match(line):
            code = ""
            if number < len(lines) and lines[number].startswith("    "):
                code = lines[number].strip()
                number += 1
                while number < len(lines) and lines[number].startswith("    "):  # a statement of several lines, marks
                    number += 1
            yield _Frame(found[1], found[2] or "", found[3], found[4], code)
        elif found := _OF_IPYTHON.match(line):
            codes = []
            while number < len(lines) and lines[number].strip():
                codes += _ARROW.findall(lines[number])
                number += 1
            while number < len(lines) and not lines[number].strip():
                number += 1
            code = codes[0].strip() if codes and codes[0] != _NO_SOURCE else ""
            yield _Frame(found[1], found[2] or "", found[3], (found[4] or "").strip(), code)
        elif not _HEAD.match(line):
            yield line


def _short(path: str) -> str:
    """A path of a library from its package on."""
    for folder in ("/site-packages/", "/dist-packages/"):
        if folder in path:
            return path.rpartition(folder)[2]
    return re.sub(r"^.*/lib/python3\.\d+/", "", path)
