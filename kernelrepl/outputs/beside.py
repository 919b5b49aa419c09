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


async def large(size: int, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do what takes as long as this size says: at once, or in turn with all else that is large."""
    if size <= LARGE:
        return work(*arguments, **named)
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_lane, lambda: context.run(work, *arguments, **named))
