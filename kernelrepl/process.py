"""What a keeper sets up for its own process."""

from __future__ import annotations

import logging
import logging.handlers
import resource
from pathlib import Path

_DESCRIPTORS = 1 << 16
_LOG_BYTES = 1_000_000


def set_up_log(data_dir: Path) -> None:
    """A rotating log beside the database. The log is the only thing a keeper writes for people."""
    directory = data_dir / "logs"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(directory / "keeper.log", maxBytes=_LOG_BYTES, backupCount=3)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
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
