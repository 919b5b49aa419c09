"""What code names: its names, and the words of its texts. Runs in the kernel."""

from __future__ import annotations

import dis
import re
import types
from collections.abc import Iterable, Iterator
from typing import Any

EVERYTHING = frozenset(
    {"globals", "locals", "vars", "exec", "eval", "get_ipython", "gc", "ctypes", "_getframe", "__main__"}
    | {"__globals__", "f_globals", "f_locals", "f_back", "gi_frame", "cr_frame", "ag_frame", "tb_frame", "currentframe"}
    | {"inspect", "user_ns", "user_module", "InteractiveShell", "modules", "run_path", "run_module", "runpy"}
    | {"Out", "_oh", "__", "___", "settrace", "setprofile", "addaudithook", "_current_frames", "cell_contents"}
)
"""Names by which code can reach what it does not name."""
READERS = frozenset(
    {"dir", "query", "evaluate", "re_evaluate", "numexpr", "sql", "execute", "duckdb", "sqldf", "patsy", "dmatrix"}
    | {"dmatrices", "from_formula", "formula", "smf", "breakpoint", "pdb", "code", "doctest", "timeit", "cProfile"}
)
"""Names by which code reads names that only a text has which it got from elsewhere."""
HARMLESS = frozenset(
    {"abs", "bool", "bytes", "chr", "complex", "dict", "divmod", "float", "format", "hash", "int", "len", "list", "max"}
    | {"min", "ord", "pow", "print", "range", "repr", "round", "set", "sorted", "str", "sum", "tuple", "zip"}
)
"""Builtins through which code that names nothing else cannot reach an object."""
_WORD = re.compile(r"[^\W\d]\w*")
_OUTPUT = re.compile(r"_\d+\Z")
_LONGEST_TEXT = 1 << 20
_STORES = frozenset({dis.opmap["STORE_ATTR"], dis.opmap["DELETE_ATTR"]})


def words_of(code: types.CodeType) -> Iterator[str]:
    """Every name in code and in the code within it, and every word of its texts (`df.query("a > @limit")`).

    A text of many words does not name what is in EVERYTHING: it may be a docstring.
    """
    yield from code.co_names
    work: list[Any] = list(code.co_consts)
    while work:
        constant = work.pop()
        if isinstance(constant, types.CodeType):
            yield from words_of(constant)
        elif isinstance(constant, str):
            yield from words_of_text(constant)
        elif isinstance(constant, tuple | frozenset):
            work.extend(constant)


def words_of_text(text: str) -> Iterator[str]:
    """Every word of a text, as `words_of`."""
    words = _WORD.findall(text[:_LONGEST_TEXT])
    yield from words if words == [text] else (word for word in words if word not in EVERYTHING)
    if len(text) > _LONGEST_TEXT:
        yield "globals"


def stored_attributes(code: types.CodeType) -> Iterator[tuple[str, str]]:
    """Of each attribute that code, or code in it, assigns to or deletes: what it calls the object, and its name."""
    if not _STORES.isdisjoint(code.co_code[::2]):  # most code has none, and to take it apart is slow
        before: Any = None
        for step in dis.get_instructions(code):
            if step.opcode in _STORES:
                yield before if isinstance(before, str) else "", step.argval
            before = step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from stored_attributes(constant)


def names_everything(words: Iterable[str]) -> bool:
    """Whether code with these words may reach any value."""
    return any(word in EVERYTHING or _OUTPUT.match(word) for word in words)
