"""Text that a session made, as it may be shown: nothing in it is obeyed, hidden, or taken for the keeper's word. Pure.

One list says what never passes, and two functions leave it out: `output` drops it from texts of several lines, as a
terminal that obeys nothing would; `field` shows it as escapes, because a name or a reason should hide nothing. What
they return holds no character of the list, so that a second pass finds nothing, whatever the first has joined.
"""

from __future__ import annotations

import functools
import re

OPEN, CLOSE = "⟦", "⟧"
"""Around what the keeper says itself, like `⟦note⟧`: no text of a session has them."""
_LIKE_THEM = f"{OPEN}{CLOSE}〚〛"

_NEVER = (
    r"\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    r"\ud800-\udfff\ufeff\ufff9-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff"
)
"""The body of a character class: all of the categories Cc (but tab and line ends), Cf, Cs, Zl and Zp, and the plane of
tags and of more variation selectors. Of Cf pass joiners, without which emoji, Persian and Indian scripts are other
words, the soft hyphen, and signs that are seen: none of them moves what stands beside it. Private use and what is not
assigned yet pass: they are seen as boxes, and tomorrow's emoji is among them."""
_PLAIN_BYTES = bytes((9, 10, *range(32, 127)))


@functools.cache
def _passes() -> tuple[tuple[re.Pattern[str], re.Pattern[str], str], ...]:
    """One after the other: where a text holds the first, the second is replaced by the third.

    They are made when the first text comes that is no plain ASCII: that takes as long as the start of a short command.
    """
    line_ends = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
    surrogates = re.compile("[\ud800-\udfff]")
    sequence = re.compile(
        # What a terminal reads as one command ends at the next escape at the latest: looking further takes quadratic
        # time.
        "(?:\x1b\\[|\x9b)[0-?]*+[ -/]*+[@-~]"
        "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x80-\x9f]*+(?:\x07|\x1b\\\\|\x9c)"
        "|\x1b[ -/]++[0-~]|\x1b[0-OQ-WYZ\\\\`-~]"
    )
    return (
        (re.compile("[\x1b\x80-\x9f]"), sequence, ""),
        (line_ends, line_ends, "\n"),
        (surrogates, surrogates, "?"),
        (_dropped(), _dropped(), ""),
        (_unseen(), _unseen(), r"\1"),
    )


@functools.cache
def _dropped() -> re.Pattern[str]:
    return re.compile(f"[{_NEVER}]+")


@functools.cache
def _unseen() -> re.Pattern[str]:
    """Many in a row write no script, but can spell a text that only programs see."""
    return re.compile("([\xad\u200c\u200d\ufe00-\ufe0f]{3})[\xad\u200c\u200d\ufe00-\ufe0f]+")


@functools.cache
def _not_in_a_field() -> re.Pattern[str]:
    return re.compile(f"[{_NEVER}\t\n\r{_LIKE_THEM}]")


@functools.cache
def _colours() -> re.Pattern[str]:
    return re.compile("(\x1b\\[[0-9;]{0,20}[AKm])")


def output(text: str) -> str:
    """What a person sees of a text of several lines; of a line that is written several times the last version."""
    return _guarded(carriage_returns(_obeyed(text)))


def safe(text: str) -> str:
    """The same of a text in which the keeper's own words stand: they pass."""
    return carriage_returns(_obeyed(text))


def coloured(text: str, *, up: bool = True) -> str:
    """The same for who reads it as it comes: with colours, what progress bars do, and carriage returns.

    up: whether it may go up to earlier lines, where they are all of the code's own.
    """
    if _is_plain(text):
        return text
    if "\x1b" not in text:
        return _guarded(_obeyed(text))
    parts = _colours().split(text)
    parts[::2] = [_guarded(_obeyed(part)) for part in parts[::2]]
    if not up:
        parts[1::2] = ["" if part.endswith("A") else part for part in parts[1::2]]
    return "".join(parts)


def field(text: str) -> str:
    """A text as a part of one line: what does not pass is shown as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return _unseen().sub(r"\1", _not_in_a_field().sub(lambda found: _escape(found[0]), text))


def said(word: str, text: str = "") -> str:
    """A line of the keeper's own. What a session has made of `text` is a field or an output."""
    return f"{OPEN}{word}{CLOSE} {text}".rstrip(" ")


def carriage_returns(text: str) -> str:
    """What a terminal would show of progress bars: of each line the last version."""
    if "\r" not in text:
        return text
    shown = []
    for line in text.replace("\r\n", "\n").split("\n"):
        parts = [part for part in line.split("\r") if part]
        shown.append(parts[-1] if parts else "")
    return "\n".join(shown)


def _is_plain(text: str) -> bool:
    return text.isascii() and not text.encode().translate(None, _PLAIN_BYTES)


def _others(text: str) -> str:
    """What of a text is no plain ASCII, in its order. Quick, and mostly short: what it has not, the text has not."""
    return text.encode(errors="surrogatepass").translate(None, _PLAIN_BYTES).decode(errors="surrogatepass")


def _obeyed(text: str) -> str:
    """A text without what a terminal would obey, or nobody would see. Carriage returns stay."""
    others = _others(text)
    if not others:
        return text
    for seen, found, instead in _passes():
        if others and seen.search(others):
            text = found.sub(instead, text)
            others = _others(text)  # what was apart may have come together
    return text


def _guarded(text: str) -> str:
    if not text.isascii():
        for mark in _LIKE_THEM:  # four searches are quick, also where there is nothing else
            text = text.replace(mark, _escape(mark))
    return text


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
