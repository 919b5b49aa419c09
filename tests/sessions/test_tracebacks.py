"""Errors of any size and kind: each is answered soon, with what is worth reading of it, and the kernel goes on."""

from __future__ import annotations

from typing import Any

import pytest

from kernelrepl.model import ExecutionResult
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

MOST_CHARS = 120_000
"""Of a traceback: 24 frames, each of a page at most."""


async def failed(sessions: Sessions, code: str, **options: Any) -> tuple[str, str, str]:
    """Name, message and traceback of the error that ends code; the same kernel serves the next call."""
    await sessions.run("kept = [1, 2]")
    execution: ExecutionResult = await sessions.run(code, **options)
    assert execution.status == "error", (execution.status, execution.note)
    assert execution.output.error is not None
    assert execution.committed
    after = await sessions.run("import sys; sys.setrecursionlimit(1000); kept")
    assert (after.output.result, after.restored) == ("[1, 2]", None)
    error = execution.output.error
    assert len(error.traceback) < MOST_CHARS
    assert "kernelrepl/guest" not in error.traceback
    return error.name, error.message, error.traceback


@pytest.mark.parametrize("limit", [1000, 20_000, 50_000])
async def test_endless_recursion_shows_both_ends_and_a_number(sessions: Sessions, limit: int) -> None:
    """However deep it went; a timeout that is shorter than formatting all of it does not come to pass."""
    code = f"import sys; sys.setrecursionlimit({limit})\ndef down(n): return down(n + 1)\ndown(0)"
    name, _, text = await failed(sessions, code, timeout_s=30)
    assert name == "RecursionError"
    [cut] = [int(line.split()[1]) for line in text.splitlines() if "frames cut" in line]
    assert limit - 100 < cut < limit
    assert "----> 3 down(0)" in text
    assert text.count("def down(n)") > 15


async def test_recursion_is_cut_wherever_it_is_in_a_chain(sessions: Sessions) -> None:
    """By turns, as a cause, and where each level adds an error of its own."""
    turns = "def a(): b()\ndef b(): a()\n"
    name, _, text = await failed(
        sessions, turns + "try: a()\nexcept RecursionError as e: raise ValueError('outer') from e"
    )
    assert (name, text.count("frames cut")) == ("ValueError", 1)
    assert "ValueError: outer" in text
    code = "def walk():\n    try: walk()\n    except RuntimeError: raise ValueError('level')\nwalk()"
    assert (await failed(sessions, code))[0] == "ValueError"


CHAIN = """
error = None
for n in range({count}):
    try: raise ValueError(n)
    except ValueError as one:
        one.__{how}__ = error
        error = one
raise error
"""


@pytest.mark.parametrize("how", ["context", "cause"])
async def test_of_a_long_chain_the_last_errors_are_shown(sessions: Sessions, how: str) -> None:
    """And how many are not; the error itself keeps all of them."""
    code = CHAIN.format(count=1500, how=how)
    name, message, text = await failed(sessions, code)
    assert (name, message) == ("ValueError", "1499")
    assert "errors before these are left out" in text
    assert "ValueError: 1498" in text
    assert "ValueError: 12\n" not in text
    await sessions.run(f"seen, one = 0, error\nwhile one is not None: seen, one = seen + 1, one.__{how}__")
    assert await sessions.value("seen") == "1500"


async def test_a_chain_that_leads_back_to_itself_ends(sessions: Sessions) -> None:
    """Each error is shown once."""
    code = "a, b = ValueError('a'), ValueError('b')\na.__context__ = b; b.__context__ = a\nraise a"
    name, message, text = await failed(sessions, code)
    assert (name, message, text.count("ValueError: b")) == ("ValueError", "a", 1)


@pytest.mark.parametrize(
    ("code", "shown", "hidden"),
    [
        ("raise ExceptionGroup('many', [ValueError(n) for n in range(5000)])", "[… 4985 more …]", "ValueError: 15"),
        ("raise ExceptionGroup('few', [ValueError(n) for n in range(3)])", "| ValueError: 2", "more …"),
        (
            "one = ValueError('in')\nfor n in range(2000): one = ExceptionGroup(f'g{n}', [one])\nraise one",
            "ExceptionGroup: g1999",
            "g12",
        ),
        (
            CHAIN.format(count=500, how="context").replace("raise error", "raise ExceptionGroup('g', [error] * 9)"),
            "ExceptionGroup: g",
            "ValueError: 12\n",
        ),
    ],
)
async def test_a_group_is_listed_as_far_as_anybody_reads_it(
    sessions: Sessions, code: str, shown: str, hidden: str
) -> None:
    """With thousands in it, or in each other, or before each of them."""
    name, _, text = await failed(sessions, code)
    assert name == "ExceptionGroup"
    assert shown in text
    assert hidden not in text


async def test_values_that_never_tell_their_text_hold_up_no_traceback(sessions: Sessions) -> None:
    """Where tracebacks show values."""
    await sessions.run("%xmode Verbose")
    code = "class Silent:\n    def __repr__(self):\n        while True: pass\ndef fail(value): 1/0\nfail(Silent())"
    name, message, text = await failed(sessions, code)
    assert (name, message) == ("ZeroDivisionError", "division by zero")
    assert "fail(Silent())" in text


async def test_lines_of_any_length_are_cut(sessions: Sessions) -> None:
    """In a file, in a cell, in a message."""
    line = "def long(z=0):\\n    return [' + '1,' * 300_000 + '1/z]\\n"
    code = f"open('generated.py', 'w').write('{line}')\nimport generated\ngenerated.long()"
    name, _, text = await failed(sessions, code)
    assert name == "ZeroDivisionError"
    assert "generated.py" in text
    name, _, text = await failed(sessions, f"x = '{'a' * 600_000}'; 1/0")
    assert name == "ZeroDivisionError"
    name, message, _ = await failed(sessions, "raise KeyError('x' * 30_000_000)")
    assert name == "KeyError"
    assert len(message) < MOST_CHARS


async def test_an_error_of_a_class_that_answers_nothing_is_told(sessions: Sessions) -> None:
    """Its parts are taken as the interpreter knows them."""
    code = "class Odd(Exception):\n"
    code += "".join(f"    __{part}__ = property(lambda self: 1/0)\n" for part in ("context", "cause", "traceback"))
    name, message, text = await failed(sessions, code + "raise Odd('here')")
    assert (name, message) == ("Odd", "here")
    assert "raise Odd('here')" in text
