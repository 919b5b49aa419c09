"""Let others go first.

An event loop gives everybody who is ready a turn, one after the other, and a call of a session needs a hundred turns.
A kernel that always has sent something has as many, so what it does in each of them is what every call waits for. And
while it is busy all the time, calls wait for a processor as well. So those that have lately taken much rest between
their turns while others are under way, the longer the more of them there are. None waits for another: each rests by
what itself has taken, and never for long, so that honest code which has much to tell gets on beside any number of them.
"""

from __future__ import annotations

import asyncio
import time

_PASSES = 4
"""How many turns everybody else has between two of a heavy one."""
SHORTER = 8
"""By how much the turns of a heavy one are shorter."""
_REST = 6
"""For how much longer than they work heavy ones rest, by an estimate that for small frames is half of the truth."""
_LONGEST_REST_S = 0.02
_UNDER_WAY_S = 0.05
"""So long after something came for a session that is not heavy, or from it, more is likely to come."""

_others_at = 0.0
_resting = 0


def come() -> None:
    """Note that something has come for a session that is not heavy, or from its kernel."""
    global _others_at
    _others_at = time.monotonic()


async def give_way(*, heavy: bool, took_s: float = 0.0) -> None:
    """Let all that is ready have a turn; several, and a rest, if the one that asks has lately had many.

    took_s: about how long its last turn was; 0 for one that may not rest.
    """
    global _resting
    if not heavy:
        await asyncio.sleep(0)
        return
    for _ in range(_PASSES):
        await asyncio.sleep(0)
    if took_s and time.monotonic() < _others_at + _UNDER_WAY_S:
        _resting += 1
        try:
            await asyncio.sleep(min(took_s * _REST * _resting, _LONGEST_REST_S))
        finally:
            _resting -= 1
