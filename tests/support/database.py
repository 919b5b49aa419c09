"""The threads of a store that read and write its database: for tests that look behind it, or change rows themselves.

The product gives nobody these threads: whoever has them can write what no publication would.
"""

from __future__ import annotations

from kernelrepl.store import Store
from kernelrepl.store.worker import Worker


def writer(store: Store) -> Worker:
    return store._writer


def reader(store: Store) -> Worker:
    return store._reader
