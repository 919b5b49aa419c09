"""How deep values may be nested: pickling recurses in C, and must end before the stack does. Runs in the kernel."""

from __future__ import annotations

import contextlib
import resource
import sys
import traceback
from collections.abc import Iterator

DEPTH = 12_000
"""Twice this depth was measured to fit into the stack; what it costs is in C, about 350 bytes for each level."""
_STACK_BYTES = 8 << 20
_OWN_FRAMES = 40
"""Pickling itself recurses without frames of Python; user code that recurses has one for each call."""


def is_too_deep(error: BaseException) -> bool:
    """Whether a value is nested too deep for the ordinary limit, though not by code of the user that recurses."""
    cause = error if isinstance(error, RecursionError) else error.__cause__
    if not isinstance(cause, RecursionError):
        return False
    frames = sum(1 for _ in traceback.walk_tb(cause.__traceback__))
    return frames <= _OWN_FRAMES and _stack_bytes() >= _STACK_BYTES


@contextlib.contextmanager
def deeper() -> Iterator[None]:
    """Allow what the stack can take."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _stack_bytes() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
