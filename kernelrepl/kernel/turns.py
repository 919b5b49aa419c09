"""Let others go first.

An event loop gives everybody who is ready a turn, one after the other, and a call of a session needs a hundred turns.
A kernel that always has sent something has as many, so what it does in each of them is what every call waits for.
"""

from __future__ import annotations

import asyncio

_PASSES = 4
"""How many turns everybody else has between two of a heavy one."""
SHORTER = 8
"""By how much the turns of a heavy one are shorter."""


async def give_way(*, heavy: bool) -> None:
    """Let all that is ready have a turn; several if the one that asks has lately had many."""
    for _ in range(_PASSES if heavy else 1):
        await asyncio.sleep(0)
