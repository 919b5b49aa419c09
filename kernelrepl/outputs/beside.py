"""Do what takes long beside the event loop, one thing at a time.

Threads of one interpreter share one processor. Were there a thread for each kernel that shows a lot, the event loop
would get its turn after all of them, a dozen times in each call of everybody else; so they queue for one.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

LARGE = 256 << 10
"""What has more bytes or characters is worth a thread."""
P = ParamSpec("P")
T = TypeVar("T")
_lane = ThreadPoolExecutor(1, "beside")
_frames = ThreadPoolExecutor(1, "frames")
"""A lane of its own, in which nothing takes longer than a fraction of a second."""


async def large(size: int, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do what takes as long as this size says: at once, or in turn with all else that is large."""
    if size <= LARGE:
        return work(*arguments, **named)
    return await _in(_lane, lambda: work(*arguments, **named))


async def apart(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do what takes some milliseconds and is bounded, in turn with all else of that kind."""
    return await _in(_frames, lambda: work(*arguments, **named))


async def _in(lane: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(lane, lambda: context.run(work))
