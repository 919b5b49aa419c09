"""Bound what an execution brings into a reply and into its row, and count what is left out. Pure.

Code of a session decides how many names, displays and figures there are and how long each word of them is. A reply is
read by a model, a row by every later list: both take so much and no more, and say how much they have not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from kernelrepl.model import (
    ChangedFile,
    ExecutionResult,
    Failure,
    Figure,
    FileChanges,
    NotRestored,
    NotSaved,
    Output,
    Restored,
    Saved,
)
from kernelrepl.outputs.terminal_text import field

T = TypeVar("T")

MOST_ENTRIES = 200
"""The most entries of one list in a reply."""
MOST_STORED = 1000
"""The same in a row."""
NAME_CHARS = 200
"""The most that is shown of a name or a type."""
REASON_CHARS = 1000
NOTE_CHARS = 8000
MOST_FIGURES = 20
FIGURE_CHARS = 8_000_000
"""The most figures in a reply, and characters of base64 in all of them."""
MOST_PIXELS = 8000
"""Of a side of a figure: hosts refuse larger ones, and with them the conversation that they are in."""
MOST_FILES = 20
FILES_CHARS = 1000
"""The most files in a reply, and characters in their paths. Longer paths than NAME_CHARS are not listed."""
LEAST_CHARS = 1000
"""What a list may take however little a person allows for outputs."""


def short(text: str, most: int) -> str:
    """Return a text with at most `most` characters; one that is longer ends with a count of what is missing."""
    if len(text) <= most:
        return text
    more = f"… ({len(text)} characters)"
    return text[: max(most - len(more), 0)] + more


def few(entries: Sequence[T], most: int, chars: int, size: Callable[[T], int]) -> tuple[list[T], int]:
    """Return the first entries, at most so many and with at most so many characters, and how many are left out."""
    kept: list[T] = []
    for entry in entries[:most]:
        chars -= size(entry)
        if chars < 0:
            break
        kept.append(entry)
    return kept, len(entries) - len(kept)


def more(count: int) -> str:
    """Say that so many entries are left out."""
    return f"… and {count:,} more"


def names(found: Sequence[str], most: int = MOST_ENTRIES, chars: int = 10_000) -> tuple[str, ...]:
    """Return the first of these names; the last entry counts the others, if there are any."""
    kept, left = few([short(name, NAME_CHARS) for name in found[: most + 1]], most, chars, len)
    left += max(len(found) - most - 1, 0)
    return (*kept, more(left)) if left else tuple(kept)


def listed(found: Sequence[str]) -> str:
    """Return the first of these names, which code has made, as a part of a sentence."""
    return field(", ".join(names(found, chars=2_000)))


def saved(found: Saved, most: int = MOST_ENTRIES, chars: int = 10_000) -> Saved:
    """Bound the names of what was saved."""
    return Saved(*(names(part, most, chars) for part in (found.created, found.changed, found.deleted)))


def not_saved(found: Sequence[NotSaved], most: int = MOST_ENTRIES, chars: int = 20_000) -> tuple[NotSaved, ...]:
    """Bound the names that are not saved; the last entry counts those that are left out."""
    shown = [
        NotSaved(short(e.name, NAME_CHARS), short(e.type, NAME_CHARS), short(e.path, NAME_CHARS),
                 short(e.reason, REASON_CHARS))
        for e in found[:most]
    ]  # fmt: skip
    kept, _ = few(shown, most, chars, lambda e: len(e.name) + len(e.type) + len(e.path) + len(e.reason))
    left = len(found) - len(kept)
    return (*kept, NotSaved(more(left), "", "", "names that are not saved either")) if left else tuple(kept)


def restored(found: Restored | None, most: int = MOST_ENTRIES, chars: int = 20_000) -> Restored | None:
    """Bound what came back and what did not; the last entry of each list counts those that are left out."""
    if found is None:
        return None
    shown = [
        NotRestored(short(e.name, NAME_CHARS), short(e.type, NAME_CHARS), short(e.reason, REASON_CHARS))
        for e in found.not_restored[:most]
    ]
    kept, _ = few(shown, most, chars, lambda e: len(e.name) + len(e.type) + len(e.reason))
    if left := len(found.not_restored) - len(kept) + found.left_out:
        kept.append(NotRestored(more(left), "", "names that did not come back either"))
    return Restored(names(found.names, most, chars), tuple(kept))


def files(found: FileChanges) -> FileChanges:
    """Bound the files that a reply names. Those that a person has put come first, as nothing else tells of them."""
    put = _few_files(found.put, MOST_FILES, FILES_CHARS)
    chars = FILES_CHARS - sum(len(field(file.path)) for file in put)
    written = _few_files(found.written, MOST_FILES - len(put), chars)
    return replace(
        found,
        put=put,
        written=written,
        put_left_out=found.put_left_out + len(found.put) - len(put),
        written_left_out=found.written_left_out + len(found.written) - len(written),
    )


def _few_files(found: Sequence[ChangedFile], most: int, chars: int) -> tuple[ChangedFile, ...]:
    short_enough = [file for file in found if len(field(file.path)) <= NAME_CHARS]
    kept, _ = few(short_enough, most, chars, lambda file: len(field(file.path)))
    return tuple(kept)


def figures(found: Sequence[Figure], *, whole: bool = False) -> list[Figure | None]:
    """Return of the first figures what a reply holds of each; None for one that is too large for it.

    whole: no model reads it, so that none needs to be smaller than it is.
    """
    kept: list[Figure | None] = []
    budget_chars = FIGURE_CHARS
    for figure in found[:MOST_FIGURES]:
        fits = (one for one in (None if whole else figure.small, figure) if one and _fits(one, budget_chars, whole))
        kept.append(next(fits, None))
        budget_chars -= len(kept[-1].data) if kept[-1] else 0
    return kept


def _fits(figure: Figure, budget_chars: int, whole: bool) -> bool:
    return len(figure.data) <= budget_chars and (whole or max(figure.size) <= MOST_PIXELS)


def of_reply(
    execution: ExecutionResult, limit_chars: int, cut: Callable[[str, int], str], *, whole: bool = False
) -> ExecutionResult:
    """Bound an execution for a reply in which stdout, stderr and the result may each take `limit_chars`.

    All other texts of it together take at most four times as much, and its figures FIGURE_CHARS. whole: see `figures`.
    """
    chars = max(limit_chars // 4, LEAST_CHARS)
    output, notes = _output(execution.output, max(limit_chars, LEAST_CHARS), cut, whole)
    note = "; ".join(found for found in (execution.note and cut(execution.note, NOTE_CHARS), *notes) if found)
    return replace(
        execution,
        output=output,
        saved=saved(execution.saved, chars=chars),
        not_saved=not_saved(execution.not_saved, chars=2 * chars),
        restored=restored(execution.restored, chars=chars),
        note=note or None,
        files=files(execution.files),
    )


def _output(output: Output, chars: int, cut: Callable[[str, int], str], whole: bool) -> tuple[Output, list[str]]:
    displays, left = few([cut(text, chars) for text in output.displays[:MOST_ENTRIES]], MOST_ENTRIES, chars + 200, len)
    left += max(len(output.displays) - MOST_ENTRIES, 0)
    if left:
        displays.append(f"[{more(left)} displays]")
    chosen = figures(output.figures, whole=whole)
    error = output.error
    if error is not None:
        error = Failure(short(error.name, NAME_CHARS), cut(error.message, chars), cut(error.traceback, chars))
    kept = tuple(filter(None, chosen))
    notes = [short(text, NAME_CHARS) for text in output.left_out[:MOST_FIGURES]] + _about(output.figures, chosen)
    return replace(output, displays=tuple(displays), figures=kept, error=error, left_out=()), notes


def _about(found: Sequence[Figure], chosen: Sequence[Figure | None]) -> list[str]:
    """What is to be said of figures that are not as the code showed them."""
    notes = []
    for number, (figure, shown) in enumerate(zip(found, chosen, strict=False), 1):
        if shown is not None and shown is not figure:
            notes.append(f"figure {number} is shown at {_pixels(shown)} of {_pixels(figure)} pixels")
    if missing := len(found) - len(chosen) + chosen.count(None):
        notes.append(
            f"{missing:,} of {len(found):,} figures are left out: a reply holds at most {MOST_FIGURES}, and"
            f" {FIGURE_CHARS // 1_000_000} MB, of at most {MOST_PIXELS} pixels a side;"
            " make them smaller or show fewer at a time"
        )
    return notes


def _pixels(figure: Figure) -> str:
    return "{} x {}".format(*figure.size)
