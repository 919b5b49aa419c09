"""What a keeper sets up for its own process."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import logging.handlers
import os
import resource
import secrets
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

from kernelrepl.outputs.terminal_text import safe
from kernelrepl.packages import uv

_DESCRIPTORS = 1 << 16
_SWITCH_S = 0.0005
"""How long a thread may keep the interpreter while another waits. What decodes or stores a lot beside the event loop
would keep that waiting ten times as long otherwise, at each of its system calls."""
RELEASE_S = 2.0
"""Giving back takes a millisecond for 4 MB, in which nobody else gets memory: better often than much at once."""
MOST_RELEASE_S = 16.0
"""How seldom it is tried where nothing can be given back."""
_FREED_BYTES = 8 << 20
"""Over the least that it has been, so much may be worth giving back."""
_GAINED_BYTES = 1 << 20
_COLLECTED = (10_000, 20, 20)
"""After how many new objects garbage is looked for. Decoding what a kernel shows makes hundreds of thousands of them,
none of which is garbage yet, and nobody gets a turn while they are looked through."""
_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
_ARENAS = 2
_OWN_PAGES_BYTES = 4 << 20
"""What is as long or longer gets pages of its own, which go back to the system when it is freed. Left alone, the C
library raises that with each such piece, and keeps most of what came from kernels between what lasts. Chunks of values
and what is received at once are shorter: with new pages for each, a commit of numbers would take twice as long."""
_KEPT_BYTES = 16 << 20
"""So much that is free may be kept for the next commit, until `release_memory` gives it back."""
_LOG_BYTES = 1_000_000
_BURST = 100
_LINES_A_SECOND = 0.1
_MOST_KEYS = 1000
"""Of so many sessions the lines are counted; who was silent for longest is forgotten first."""


class LineLimit(logging.Filter):
    """Lets each session, and each place in the source, write so many lines into the log.

    A session that makes the keeper log without end would push everything else out of the rotated files. After
    `_BURST` lines it has one each ten seconds, which says how many were left out before it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._known: OrderedDict[Hashable, tuple[float, float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line may be written; counts it in any case."""
        session = getattr(record, "session", None)
        key = ("place", record.pathname, record.lineno) if session is None else ("session", session)
        now = self._clock()
        lines, last, missing = self._known.pop(key, (float(_BURST), now, 0))
        lines = min(lines + (now - last) * _LINES_A_SECOND, _BURST)
        passes = lines >= 1
        self._known[key] = (lines - passes, now, 0 if passes else missing + 1)
        if len(self._known) > _MOST_KEYS:
            self._known.popitem(last=False)
        if passes and missing:
            record.msg = f"({missing} lines like this were left out) {record.msg}"
        return passes


class _Entries(logging.Formatter):
    """Writes entries that begin at the margin, and nothing else there, whatever is in them."""

    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record)).replace("\n", "\n    ")


def set_up_log(data_dir: Path) -> None:
    """A rotating log beside the database. The log is the only thing a keeper writes for people."""
    directory = data_dir / "logs"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(directory / "keeper.log", maxBytes=_LOG_BYTES, backupCount=3)
    handler.setFormatter(_Entries("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.addFilter(LineLimit())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("kernelrepl").setLevel(logging.INFO)


def hash_seed(data_dir: Path) -> str:
    """The seed of hashes of all kernels, made once: objects that remember a hash are right in the next one, too.

    To be called by who holds the data directory. Raises OSError.
    """
    path = data_dir / "hash_seed"
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = int(path.read_text())
        if 0 < found < 1 << 32:
            return str(found)
    seed = str(1 + secrets.randbelow((1 << 32) - 1))
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(seed)
    new.replace(path)
    return seed


def installer() -> str:
    """Return the program with which a keeper installs packages for sessions. Raises InstallerMissing."""
    return uv.find()


def prepare() -> None:
    """Set the limits of this process for many sessions."""
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_COLLECTED)
    _allow_descriptors()
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_ARENA_MAX, _ARENAS)  # else each thread has one, and keeps there what it needed once
        mallopt(_MMAP_THRESHOLD, _OWN_PAGES_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def resident_bytes() -> int:
    """Return how much memory this process takes, by its pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def release_memory() -> None:
    """Give memory back to the system that was needed and is free, until cancelled.

    The C library keeps it for a next time: after one session that made the keeper hold 300 MB it would take them for
    ever. Where the C library has no call for it, this returns at once.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    least, pause = resident_bytes(), RELEASE_S
    while True:
        await asyncio.sleep(pause)
        before = resident_bytes()
        if before <= least + _FREED_BYTES:
            least, pause = min(least, before), RELEASE_S
            continue
        # Much may have come from one kernel and be garbage, in which nothing new is made: then nobody looks.
        await asyncio.to_thread(lambda: (gc.collect(), trim(0)))
        after = resident_bytes()
        least = min(least, after)
        # What is held for long, is not looked for as often.
        pause = RELEASE_S if after < before - _GAINED_BYTES else min(2 * pause, MOST_RELEASE_S)


def _allow_descriptors() -> None:
    """A live session takes about a dozen. What kernels may open is theirs, and limited when they are confined."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
