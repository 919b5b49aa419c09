"""Which modules have been loaded since one looked last. Runs in the kernel.

There are a thousand, and a forked kernel copies the page of each object that it only looks at: so it looks at new ones.
"""

from __future__ import annotations

import itertools
import sys

Mark = tuple[int, str]
"""How many there were, and the name of the last one."""
NONE: Mark = (0, "")


def mark() -> Mark:
    return len(sys.modules), next(reversed(sys.modules), "")


def since(before: Mark) -> list[str] | None:
    """The names of those that came after a mark, in their order; None if some have gone or changed places."""
    count, last = before
    new = len(sys.modules) - count
    # At once, because other threads may load some meanwhile.
    names = list(itertools.islice(reversed(sys.modules), max(new, 0) + 1))
    return names[-2::-1] if new >= 0 and names[-1] == last else None
