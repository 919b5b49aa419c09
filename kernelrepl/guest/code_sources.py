"""The source of code that cells define: what another Python compiles anew, and what tracebacks show after a restore.

Saved with each function is the statement of its cell that made it. Runs in the kernel.
"""

from __future__ import annotations
import __future__

import ast
import linecache
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

_FUTURE = 0
for _name in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _name).compiler_flag


class Source(NamedTuple):
    """Where code comes from. Plain values: it is saved as it is."""

    text: str
    """The whole statement."""
    first: int
    """Its first line in the cell."""
    file: str
    line: int
    name: str
    """The qualified name of the code in it."""
    flags: int
    """What `from __future__` had switched on."""


class NoSource(Exception):
    """Code cannot be compiled anew. Says why."""


_statements: dict[str, tuple[list[str], list[tuple[int, int, str]]]] = {}


def of(code: types.CodeType) -> Source | None:
    """The source of code that a cell has defined; None for all other."""
    entry = linecache.cache.get(code.co_filename)
    if entry is None or len(entry) != 4 or entry[1] is not None:
        return None
    for first, last, text in _of_cell(code.co_filename, entry[2]):
        if first <= code.co_firstlineno <= last:
            flags = code.co_flags & _FUTURE
            return Source(text, first, code.co_filename, code.co_firstlineno, code.co_qualname, flags)
    return None


def _of_cell(file: str, lines: list[str]) -> list[tuple[int, int, str]]:
    """The statements of a cell: first and last line, and text."""
    known = _statements.get(file)
    if known is not None and known[0] is lines:
        return known[1]
    try:
        tree = compile("".join(lines), file, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, RecursionError):
        found = []
    else:
        found = [(first, last, "".join(lines[first - 1 : last])) for first, last in map(_extent, tree.body)]
    _statements[file] = (lines, found)
    return found


def _extent(node: ast.stmt) -> tuple[int, int]:
    decorators = getattr(node, "decorator_list", ())
    return min([node.lineno, *(each.lineno for each in decorators)]), node.end_lineno or node.lineno


def compiled(source: Source) -> types.CodeType:
    """The code, compiled by this Python. Raises NoSource."""
    text = "\n" * (source.first - 1) + source.text
    try:
        flags = source.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        whole = compile(text, source.file, "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise NoSource(f"its source is none for this Python: {type(error).__name__}: {error}") from error
    found = [code for code in _within(whole) if (code.co_qualname, code.co_firstlineno) == (source.name, source.line)]
    if len(found) != 1:
        raise NoSource(f"{len(found) or 'no'} functions of its name begin on the line of its source")
    return found[0]


def _within(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _within(constant)


def remember(source: Source) -> None:
    """Have tracebacks and `inspect` find the source of what was restored, and the next look at it find the same."""
    entry = linecache.cache.get(source.file)
    lines = list(entry[2]) if entry is not None and len(entry) == 4 else []
    new = source.text.splitlines(keepends=True)
    end = source.first - 1 + len(new)
    if lines[source.first - 1 : end] == new:
        return
    lines += ["\n"] * (end - len(lines))
    lines[source.first - 1 : end] = new
    linecache.cache[source.file] = (sum(map(len, lines)), None, lines, source.file)
    _, known = _statements.get(source.file, ([], []))
    _statements[source.file] = (lines, [*known, (source.first, end, source.text)])


def forget(compiler: Any) -> None:
    """No cell has run yet. compiler: IPython's, which notes the source of each."""
    for name in [name for name in linecache.cache if name in compiler._filename_map]:
        del linecache.cache[name]
    compiler._filename_map.clear()
    _statements.clear()
