"""What a keeper sets up for its own process."""

from __future__ import annotations

import logging
import logging.handlers
import resource
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

from kernelrepl.terminal_text import safe

_DESCRIPTORS = 1 << 16
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


def allow_descriptors() -> None:
    """A live session takes about a dozen. What kernels may open is theirs, and limited when they are confined."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
