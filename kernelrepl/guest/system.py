"""The C library, for what Python has no function for. Runs in the kernel."""

from __future__ import annotations

import ctypes
import functools
from typing import Any


@functools.cache
def libc() -> Any:
    """Loaded once: each time makes a class for its functions, and a start asks for hundreds of them."""
    return ctypes.CDLL(None, use_errno=True)
