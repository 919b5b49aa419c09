"""Run a keeper as a process: settings and log first, then the keeper; say to whoever started it how it went."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from typing import Any

from kernelrepl import config, discovery
from kernelrepl.errors import KernelReplError
from kernelrepl.keeper import process
from kernelrepl.keeper.keeper import ClientHandler, Keeper

_log = logging.getLogger("kernelrepl")


def run(handler: ClientHandler, ready_fd: int | None, **seams: Any) -> int:
    """Run a keeper in this process. Says on `ready_fd`, as one JSON line, that it serves or why it cannot."""

    def say(answer: dict[str, Any]) -> None:
        if ready_fd is not None:
            with os.fdopen(ready_fd, "w") as pipe:
                pipe.write(json.dumps(answer) + "\n")

    async def serve() -> None:
        await Keeper(settings, handler, **seams).run(lambda: say({"ok": True}))

    try:
        settings = config.load()
        discovery.make_private(settings.data_dir, config.PREFIX + "DATA_DIR")
        process.set_up_log(settings.data_dir)
        asyncio.run(serve())
    except KernelReplError as error:
        _log.error("%s", error)
        with contextlib.suppress(OSError):
            say({"error": str(error)})
        return 1
    except OSError as error:
        _log.exception("the keeper failed")
        place = error.filename or "the data directory"
        with contextlib.suppress(OSError):
            say({"error": f"{place} cannot be used: {error.strerror}; free some space or make it writable"})
        return 1
    except Exception:
        _log.exception("the keeper failed")
        raise
    return 0
