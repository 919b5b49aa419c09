"""Start a kernel process: a cold spawn. It inherits the channel and the sockets it listens on, and nothing else.

`zygote` starts them faster, and hands them over as the same `Process`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kernelrepl.errors import KernelStartFailed
from kernelrepl.kernel.priority import Background
from kernelrepl.model import Resources
from kernelrepl.outputs import terminal_text
from kernelrepl.packages import layers
from kernelrepl.sandbox import bootstrap
from kernelrepl.workspaces import directories, removal

if TYPE_CHECKING:
    from kernelrepl.kernel.cgroups import Group

SOCKET_PATH_BYTES = 107
SOCKETS = 4
"""Shell, output, stdin and control, in the order of their numbers."""
MODULE = "kernelrepl.guest.start"
_LOG_BYTES = 64 << 10


@dataclass(frozen=True)
class Launch:
    """How to start a kernel. Pure data."""

    python: str
    runtime_dir: Path
    workspace: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    module: str = MODULE
    plan: Mapping[str, Any] | None = None
    """How the kernel confines itself; None: not at all."""
    confine: Callable[[], Mapping[str, Any] | None] | None = None
    """Makes the plan, when a kernel is to be started: it asks the interpreter where it keeps its packages, and what it
    lacks."""
    resources: Resources = field(default_factory=Resources)
    most_file_bytes: int | None = None
    """How large a file may be that its code writes, if less than the plan says."""
    scratch: Path | None = None
    """A directory for temporary files, made with the process and gone with it."""

    async def planned(self) -> Launch:
        """The same with its plan. Raises what making it raises."""
        return self if self.confine is None else replace(self, plan=await asyncio.to_thread(self.confine))

    @property
    def home(self) -> str:
        """Where the kernel itself sees its workspace."""
        return str(self.workspace) if self.plan is None else str(self.plan["workspace"])

    @property
    def packages(self) -> str:
        """Where the kernel itself sees the packages of its session."""
        return str(layers.home(self.workspace)) if self.plan is None else str(self.plan["packages"])


class Parent(Protocol):
    """Of whom a kernel process is the child."""

    how: str
    """How it starts its children."""

    def collect(self, pid: int, then: Callable[[int | None], None]) -> None:
        """Reap a child that has ended, and tell with which code, as `subprocess` does. None: nobody knows."""


class _Spawned:
    """A child of this process."""

    how = "cold"

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    def collect(self, pid: int, then: Callable[[int | None], None]) -> None:
        then(self._popen.wait())


@dataclass(frozen=True)
class Ends:
    """What a process has from its keeper, as the keeper has it."""

    directory: Path
    channel: socket.socket
    log: int


class Process:
    """A kernel process. Its end is noticed through a pidfd, never by polling.

    The process that was started may only wait for the one that holds a kernel's namespace: `adopt` tells which.
    From then on that one is signalled (it passes interrupts on to the kernel) and watched.
    """

    def __init__(self, launch: Launch, ends: Ends, parent: Parent, pid: int, pidfd: int) -> None:
        self.launch = launch
        self.python = launch.python
        self.pid = pid
        self.directory = ends.directory
        self.channel = ends.channel
        self.ended = asyncio.Event()
        self.background = Background()
        self.exit_code: int | None = None
        self.group: Group | None = None
        """The control group that it is in, with all that it starts, where kernels have one."""
        self.out_of_memory = False
        """Whether the system ended it for its memory, when it has ended."""
        self._log = ends.log
        self._parent = parent
        self.how = parent.how
        self.first_pid = pid
        self._loop = asyncio.get_running_loop()
        self._pidfd = pidfd
        self._kernel = -1
        self._loop.add_reader(self._pidfd, self._on_end)

    def adopt(self, pid: int) -> None:
        """This child of the process holds the kernel. Raises OSError if it has ended already."""
        self._kernel = os.pidfd_open(pid)
        self.pid = pid

    def kernel_pid(self) -> int:
        """The process that runs the code of the session, as this side numbers it."""
        if self._kernel >= 0:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])
        return self.pid

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._end_kernel()
        # Its children go with it. Before it is reaped its number, and so that of its group, cannot be another's.
        self._end_group()
        self._parent.collect(self.first_pid, self._collected)

    def _collected(self, code: int | None) -> None:
        self.exit_code = code
        self.out_of_memory = self.group is not None and self.group.out_of_memory()
        if self._kernel >= 0:
            os.close(self._kernel)
            self._kernel = -1
        self.ended.set()

    def _end_kernel(self) -> None:
        if self._kernel >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._kernel, signal.SIGKILL)

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.first_pid, signal.SIGKILL)

    def alive(self) -> bool:
        """Whether the process runs right now, even if its end has not been noticed yet."""
        poll = select.poll()  # `select` knows none of the descriptors above 1023, which many sessions have
        for descriptor in (self._pidfd, self._kernel):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        return self._pidfd >= 0 and not poll.poll(0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process; nothing if it has ended."""
        target = self._kernel if self._kernel >= 0 else self._pidfd
        if target >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(target, number)

    async def kill(self) -> None:
        """End the process and everything it started, and wait until it is gone."""
        if self._kernel >= 0:
            self._end_kernel()  # the first process of its world: all others there end with it
        elif self._pidfd >= 0:
            self._end_group()
            with contextlib.suppress(ProcessLookupError):  # it may not have its own group yet
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        await self.ended.wait()

    def log(self) -> str:
        """The beginning of what the process wrote before it served, as it may be shown: code of a session may have."""
        try:
            return terminal_text.output(os.read(self._log, _LOG_BYTES).decode(errors="replace"))
        except OSError:
            return ""

    async def close(self) -> None:
        self.channel.close()
        os.close(self._log)
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.group is not None:
            with contextlib.suppress(OSError):  # the keeper looks again when it ends
                await asyncio.to_thread(self.group.remove)
        if self.launch.scratch is not None:
            await asyncio.to_thread(removal.remove, self.launch.scratch)


@contextlib.contextmanager
def furnish(launch: Launch) -> Iterator[tuple[Ends, list[int]]]:
    """Make what a kernel process is given: our ends, and the descriptors of its own (channel, sockets, log).

    Its own are closed at the end; ours too if it fails. Raises KernelStartFailed when the socket path would be too long
    or something cannot be made.
    """
    directory = directories.for_sockets(launch.runtime_dir)
    if len(os.fsencode(directory / "s-5")) > SOCKET_PATH_BYTES:
        raise KernelStartFailed(
            f"the path {directory} is too long for a socket; set KERNELREPL_RUNTIME_DIR to a shorter one"
        )
    ours, theirs = socket.socketpair()
    # Written by the kernel without ever waiting for us: what does not fit is lost.
    log, their_log = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(theirs)
            stack.callback(os.close, their_log)
            os.stat(launch.workspace)  # noqa: PTH116 - whoever comes to it later could not say so well
            directory.mkdir(mode=0o700, parents=True)
            if launch.scratch is not None:
                directories.make_private(launch.scratch)
            listening = [stack.enter_context(_listen(directory / f"s-{n + 1}")) for n in range(SOCKETS)]
            ours.setblocking(False)
            yield (
                Ends(directory, ours, log),
                [theirs.fileno(), *(sock.fileno() for sock in listening), their_log],
            )
    except BaseException as error:
        ours.close()
        os.close(log)
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise KernelStartFailed(f"{error.strerror}: {error.filename or launch.python}") from error
        raise


async def spawn(launch: Launch) -> Process:
    """Start a kernel process. Must be called in the thread that runs the event loop, which must outlive it.

    Raises KernelStartFailed when the interpreter cannot be started or the socket path would be too long.
    """
    with furnish(launch) as (ends, theirs):
        popen = _execute(launch, theirs)
        return Process(launch, ends, _Spawned(popen), popen.pid, os.pidfd_open(popen.pid))


def _execute(launch: Launch, theirs: list[int]) -> subprocess.Popen[bytes]:
    *inherited, log = theirs
    return subprocess.Popen(
        bootstrap.command(launch.python, launch.module, *map(str, inherited)),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=inherited,
        cwd="/",  # not where a session writes: what starts looks for code, and is not confined yet
        env=dict(launch.environment),
        start_new_session=True,
    )


def _listen(path: Path) -> socket.socket:
    """A socket at a path that the kernel cannot reach: it could put another one in its place.

    The kernel can ask the socket for its name, so that name does not say where it is.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
        listener.listen()
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


Launcher = Callable[[Launch], Awaitable[Process]]
