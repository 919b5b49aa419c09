"""Lists for a person: `sessions`, `variables` and `log`, as tables that fit the terminal and are whole in a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from kernelrepl.cli.calls import tool
from kernelrepl.cli.terminal import say, say_json
from kernelrepl.outputs.terminal_text import field, safe

TYPE_CHECKING = False  # without `typing`, which takes as long to load as all else here
if TYPE_CHECKING:
    from typing import Any

_PLAIN_WIDTH = 80
_WHOLE = "tier 1"
"""What needs no word: the whole sandbox."""
_CODE_CHARS = 2000


def sessions(*, as_json: bool = False, **page: Any) -> None:
    """Print the sessions, the latest used first."""
    found = tool("python_list_sessions", **page).structured
    if as_json:
        say_json(found)
        return
    entries = found["sessions"]
    sandboxes = {entry["sandbox"] for entry in entries} != {_WHOLE}
    heads = ["SESSION", "VARIABLES", "SIZE", "RUNS", "LAST USED", "KERNEL", *(["SANDBOX"] if sandboxes else [])]
    rows = [
        [
            entry["session_id"],
            f"{entry['variable_count']:,}",
            amount(entry["size_bytes"]),
            f"{entry['total_executions']:,}",
            ago(entry["last_used_at"]),
            entry["kernel"] + (", damaged" if entry["damaged"] else ""),
            *([entry["sandbox"]] if sandboxes else []),
        ]
        for entry in entries
    ]
    _print(heads, rows, right={1, 2, 3}, none="no sessions yet; `kernelrepl exec -s NAME CODE` makes one")
    if any(entry["damaged"] for entry in entries):
        say("damaged: the database is; what is listed of it may be wrong", err=True)
    if found["note"]:
        say(f"note: {found['note']}", err=True)
    _more(found, len(entries), found["session_count"])


def variables(session_id: str, *, as_json: bool = False, **page: Any) -> None:
    """Print the variables of a session by name."""
    found = tool("python_list_variables", session_id=session_id, **page).structured
    if as_json:
        say_json(found)
        return
    rows = [
        [
            entry["name"],
            entry["type"],
            amount(entry["size_bytes"]) if entry["saved"] else "-",
            entry["summary"] if entry["saved"] else f"NOT SAVED: {entry['reason']}",
        ]
        for entry in found["variables"]
    ]
    _print(["NAME", "TYPE", "SIZE", "VALUE"], rows, right={2}, none="no variables")
    _more(found, len(rows), found["variable_count"])


def log(session_id: str, *, count: int, as_json: bool = False) -> None:
    """Print what ran in a session last, in its order: when, by whom, how it ended, and what was saved."""
    found = tool("keeper_log", operator=True, session_id=session_id, count=count).structured
    if as_json:
        say_json(found)
        return
    for entry in found["executions"]:
        say(heading(entry))
        for line in str(entry["code"])[:_CODE_CHARS].splitlines():
            say(f"    {line}")
        if len(entry["code"]) > _CODE_CHARS:
            say("    …")
        for word in ("created", "changed", "deleted", "not_saved"):
            if names := entry[word]:
                say(f"  {word.replace('_', ' ')}: {', '.join(names)}")
    if not found["executions"]:
        say("nothing has run yet", err=True)
    elif found["left_out"]:
        say(f"{found['left_out']:,} more came before; -n NUMBER shows them", err=True)


def heading(entry: dict[str, Any]) -> str:
    """A line about one execution."""
    count = entry["execution_count"] or "-"
    how = entry["status"]
    if how != "running" and (how != "crashed" or entry["duration_s"]):  # nobody knows how long what a keeper left ran
        how += f" in {duration(entry['duration_s'])}"
    return f"[{count}] {local(entry['started_at'])} by {field(entry['by'])}: {how}"


# Words


def amount(size: int) -> str:
    """A number of bytes as people say it, in powers of ten."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B"


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def ago(moment: str, now: float | None = None) -> str:
    """How long ago a time of the database (UTC) was."""
    passed = max(0.0, (time.time() if now is None else now) - _seconds_of(moment))
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if passed >= unit:
            number = int(passed // unit)
            return f"{number} {name}{'s' * (number > 1)} ago"
    return "just now"


def local(moment: str) -> str:
    """A time of the database (UTC) as the clock on the wall has it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_seconds_of(moment)))


def _seconds_of(moment: str) -> float:
    from datetime import UTC, datetime  # not for an empty list

    try:
        return datetime.fromisoformat(moment[:19]).replace(tzinfo=UTC).timestamp()
    except ValueError:  # damaged in the database
        return 0.0


# Tables


def _print(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: set[int], none: str) -> None:
    if not rows:
        say(none, err=True)
        return
    width = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None
    for line in table(heads, rows, right=right, width=width):
        say(line)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: set[int], width: int | None) -> list[str]:
    """Return the lines of a table. right: the columns of numbers. width: what a line may take; None: as it is.

    What does not fit is cut: in the last column, in the first two, and then in all three as far as it has to be.
    """
    cells = [list(heads), *([field(cell) for cell in row] for row in rows)]
    sizes = [max(_cells(row[column]) for row in cells) for column in range(len(heads))]
    if width is not None:
        last = len(heads) - 1
        for column, least in ((last, 24), (0, 24), (1, 16), (last, 0), (0, 0), (1, 0)):
            over = sum(sizes) + 2 * (len(sizes) - 1) - (width or _PLAIN_WIDTH)
            least = max(least, len(heads[column]) + 4)
            sizes[column] = max(min(sizes[column], least), sizes[column] - max(0, over))
    lines = []
    for row in cells:
        parts = []
        for column, (cell, size) in enumerate(zip(row, sizes, strict=True)):
            shown = cell if _cells(cell) <= size else _cut(cell, size - 1) + "…"
            room = " " * (size - _cells(shown))
            parts.append(room + shown if column in right else shown + room)
        lines.append(safe("  ".join(parts).rstrip()))
    return lines


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.category(letter) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def _cut(text: str, size: int) -> str:
    """As much of the beginning of a text as this many columns have room for."""
    taken = 0
    for at, letter in enumerate(text):
        taken += _cells(letter)
        if taken > size:
            return text[:at]
    return text


def _more(found: dict[str, Any], shown: int, total: int) -> None:
    cursor = found["next_cursor"]
    if cursor is None:
        return
    how = "--limit and --contains show others"
    if field(cursor) == cursor:  # it is a name of the session's, and a person is to type it
        import shlex

        how = f"--cursor {shlex.quote(cursor)} shows the next ones"
    say(f"{shown:,} of {total:,}; {how}", err=True)
