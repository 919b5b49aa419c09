"""Start a kernel process: a cold spawn. The channel is the only thing it inherits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kernelrepl.errors import KernelStartFailed

SOCKET_PATH_BYTES = 107
_LOG_BYTES = 64 << 10


@dataclass(frozen=True)
class Launch:
    """How to start a kernel. Pure data."""

    python: str
    runtime_dir: Path
    workspace: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    module: str = "kernelrepl.guest.kernel"


class Process:
    """A kernel process. Its end is noticed through a pidfd, never by polling."""

    def __init__(
        self, popen: subprocess.Popen[bytes], directory: Path, channel: socket.socket, python: str = ""
    ) -> None:
        self._popen = popen
        self.python = python
        self.pid = popen.pid
        self.directory = directory
        self.channel = channel
        self.ended = asyncio.Event()
        self.exit_code: int | None = None
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._pidfd, self._on_end)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        # Its children go with it. Before it is reaped its number, and so that of its group, cannot be another's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.exit_code = self._popen.wait()
        self.ended.set()

    def alive(self) -> bool:
        """Whether the process runs right now, even if its end has not been noticed yet."""
        return self._pidfd >= 0 and not select.select([self._pidfd], [], [], 0)[0]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process; nothing if it has ended."""
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, number)

    async def kill(self) -> None:
        """End the process and everything in its group, and wait until it is gone."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        await self.ended.wait()

    def log(self) -> str:
        """The end of what the process wrote before it served."""
        try:
            return (self.directory / "log").read_bytes()[-_LOG_BYTES:].decode(errors="replace")
        except OSError:
            return ""

    def close(self) -> None:
        self.channel.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def spawn(launch: Launch) -> Process:
    """Start a kernel process. Must be called in the thread that runs the event loop, which must outlive it.

    Raises KernelStartFailed when the interpreter cannot be started or the socket path would be too long.
    """
    directory = launch.runtime_dir / f"k-{secrets.token_hex(4)}"
    if len(os.fsencode(directory / "s-5")) > SOCKET_PATH_BYTES:
        raise KernelStartFailed(
            f"the path {directory} is too long for a socket; set KERNELREPL_RUNTIME_DIR to a shorter one"
        )
    ours, theirs = socket.socketpair()
    try:
        directory.mkdir(mode=0o700, parents=True)
        with (directory / "log").open("wb") as log:
            popen = subprocess.Popen(
                [launch.python, "-P", "-m", launch.module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                cwd=launch.workspace,
                env=dict(launch.environment),
                start_new_session=True,
            )
    except OSError as error:
        ours.close()
        shutil.rmtree(directory, ignore_errors=True)
        raise KernelStartFailed(f"{error.strerror}: {error.filename or launch.python}") from error
    finally:
        theirs.close()
    ours.setblocking(False)
    return Process(popen, directory, ours, launch.python)


Launcher = Callable[[Launch], Process]
