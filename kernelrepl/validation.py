"""What a call may ask for. Pure: each check returns, or raises an error that names the remedy."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

from kernelrepl.errors import InvalidArgument, InvalidSessionId

_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-:@+]{0,99}\Z")
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9._\-:@+]")
MAX_CODE_BYTES = 5_000_000
MAX_TIMEOUT_S = 7 * 24 * 3600.0


def check_session_id(session_id: str) -> str:
    """The id itself. Raises InvalidSessionId."""
    if not session_id:
        raise InvalidSessionId(session_id, "is empty")
    if len(session_id) > 100:
        raise InvalidSessionId(session_id, f"has {len(session_id)} characters")
    if not _SESSION_ID.match(session_id):
        bad = _NOT_IN_ID.search(session_id)
        raise InvalidSessionId(session_id, f"begins with {session_id[0]!r}" if bad is None else _character(bad[0]))
    return session_id


def _character(character: str) -> str:
    """Names what cannot be seen, or looks like a letter that is allowed."""
    name = unicodedata.name(character, f"U+{ord(character):04X}")
    return f"has the character {character!r} ({name}), which is not allowed"


def close_ids(session_id: str, names: Iterable[str]) -> list[str]:
    """Ids that somebody may have meant; upper and lower case are easily confused."""
    names = list(names)
    same = [name for name in names if name.casefold() == session_id.casefold()]
    return (same + [name for name in difflib.get_close_matches(session_id, names, 3) if name not in same])[:3]


def check_code(code: str) -> None:
    size = len(code.encode(errors="replace"))
    if size > MAX_CODE_BYTES:
        raise InvalidArgument(
            f"the code has {size} bytes and may have {MAX_CODE_BYTES};"
            " put data into a file in the workspace and read it there"
        )
    if not code.isascii():
        try:
            code.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"the code has a character at position {error.start} that is not Unicode text; write it as an escape"
            ) from error
    if "\0" in code:
        raise InvalidArgument("the code contains a NUL character; write it as \\0 inside a string")


def check_timeout(timeout_s: float | None) -> None:
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise InvalidArgument(
            f"timeout is {timeout_s:g} seconds; it must be above 0 and at most {MAX_TIMEOUT_S:g}, or left out"
        )
