"""Tables of the command line: they fit a terminal, whatever is in them."""

from __future__ import annotations

import pytest
import wcwidth

from kernelrepl.cli.lists import table

HEADS = ["NAME", "TYPE", "SIZE", "VALUE"]


def cells(line: str) -> int:
    """How many columns of a terminal a line takes, by the table of a library."""
    return wcwidth.wcswidth(line)


@pytest.mark.parametrize("text", ["word ", "日本語", "e\u0301", "😀 ", "ｱあ", "กี่", "क्षि"])
def test_a_line_is_as_wide_as_the_terminal_at_most(text: str) -> None:
    """Counted as the terminal does, and each column begins at the same place in all lines."""
    rows = [["x", "str", "1 KB", text * 90], [text, "str", "12 B", text], ["y", "int", "30 B", "1"]]
    lines = table(HEADS, rows, right={2}, width=80)
    assert all(cells(line) <= 80 for line in lines)
    assert lines[1].endswith("…")
    begins = [
        cells(line[: line.index(word)]) for line, word in zip(lines, ("VALUE", text[0], text[0], "1"), strict=True)
    ]
    del begins[2]  # its name is the same text
    assert len(set(begins)) == 1


def test_a_long_name_leaves_room_for_the_last_column() -> None:
    """Why a value is not saved stands there."""
    rows = [["n" * 60, "generator", "-", "NOT SAVED: generators cannot be stored"]]
    [_, line] = table(HEADS, rows, right={2}, width=80)
    assert len(line) <= 80
    assert "NOT SAVED: gen" in line
