"""Warm starts: a process for each interpreter that has loaded what kernels need, and forks them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kernelrepl.kernel.process import MODULE, Launch, Process, furnish, spawn
from kernelrepl.sandbox import bootstrap

START_TIMEOUT_S = 120.0
RETRY_S = 60.0
"""How long nothing is tried again with an interpreter whose zygote failed."""
_MESSAGE_BYTES = 64 << 10
_LOG_BYTES = 64 << 10

Emit = Callable[..., None]


class ZygoteFailed(Exception):
    """It ended, or cannot fork. Kernels can be started without it."""


class Zygote:
    """One warm process. Made with `start`."""

    def __init__(self, popen: subprocess.Popen[bytes], control: socket.socket, log: int) -> None:
        self._popen = popen
        self._control = control
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[dict[str, str]] = self._loop.create_future()
        self.places: tuple[str, ...] = ()
        """From where it has code that its interpreter does not name: by finders, and by the system's loader."""
        self.left_out: dict[str, str] = {}
        """Modules that could not be loaded, and why; those that are not installed do not count."""
        self._forks: deque[asyncio.Future[tuple[int, int]]] = deque()
        self._reaped: dict[int, Callable[[int | None], None]] = {}
        self.ended = False
        self._loop.add_reader(control, self._on_message)

    @classmethod
    async def start(cls, python: str, environment: Mapping[str, str], preload: Sequence[str]) -> Zygote:
        """Start one and wait until it can fork. Raises ZygoteFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        log, their_log = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with theirs:
                popen = _execute(python, environment, preload, theirs.fileno(), their_log)
        except OSError as error:
            ours.close()
            os.close(log)
            raise ZygoteFailed(f"{error.strerror}: {python}") from error
        finally:
            os.close(their_log)
        zygote = cls(popen, ours, log)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                zygote.left_out = await zygote._ready
        except BaseException as error:
            zygote.close()
            if isinstance(error, TimeoutError):
                raise ZygoteFailed(f"it was not ready after {START_TIMEOUT_S:g} s") from error
            raise
        return zygote

    @property
    def pid(self) -> int:
        return self._popen.pid

    async def fork(self, launch: Launch) -> Process:
        """A kernel process. Raises ZygoteFailed, and KernelStartFailed for what would hinder any start."""
        with furnish(launch) as (ends, theirs):
            answer: asyncio.Future[tuple[int, int]] = self._loop.create_future()
            self._send({"type": "fork"}, theirs)
            self._forks.append(answer)
            try:
                pid, pidfd = await asyncio.shield(answer)
            except asyncio.CancelledError:
                answer.add_done_callback(self._disown)
                raise
            return Process(launch, ends, self, pid, pidfd)

    def _disown(self, answer: asyncio.Future[tuple[int, int]]) -> None:
        """End a child that nobody waits for any more."""
        if answer.exception() is None:
            pid, pidfd = answer.result()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            self.collect(pid, lambda code: None)

    how = "fork"

    def collect(self, pid: int, then: Callable[[int | None], None]) -> None:
        """A child has ended: have it reaped."""
        try:
            self._send({"type": "reap", "pid": pid})
        except ZygoteFailed:
            then(None)
        else:
            self._reaped[pid] = then

    def _send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        if self.ended:
            raise ZygoteFailed("it has ended")
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], list(descriptors))
        except OSError as error:
            raise ZygoteFailed(error.strerror or str(error)) from error

    def _on_message(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self.close()
            return
        try:
            self._take(json.loads(data), descriptors)
        except (ValueError, LookupError, TypeError, asyncio.InvalidStateError):
            self.close()  # it is not itself any more

    def _take(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        match message["type"]:
            case "ready":
                self.places = tuple(message["places"])
                self._ready.set_result(message["failed"])
            case "unfit":
                self._ready.set_exception(ZygoteFailed(message["reason"]))
            case "forked":
                self._answer((message["pid"], descriptors[0]))
            case "failed":
                self._answer(ZygoteFailed(message["reason"]))
            case "reaped":
                self._reaped.pop(message["pid"])(message["code"])

    def _answer(self, outcome: tuple[int, int] | ZygoteFailed) -> None:
        waiting = self._forks.popleft()
        if isinstance(outcome, ZygoteFailed):
            if not waiting.done():
                waiting.set_exception(outcome)
        elif not waiting.done():
            waiting.set_result(outcome)

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            text = os.read(self._log, _LOG_BYTES).decode(errors="replace").strip()
            if text:
                return text.splitlines()[-1][:300]
        return f"exit code {self._popen.returncode}"

    def close(self) -> None:
        """End it, and with it what it has forked."""
        if self.ended:
            return
        self.ended = True
        self._loop.remove_reader(self._control)
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        error = ZygoteFailed(f"it ended: {self._said()}")
        os.close(self._log)
        waiting: tuple[asyncio.Future[Any], ...] = (self._ready, *self._forks)
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting any more
        self._forks.clear()
        reaped, self._reaped = self._reaped, {}
        for then in reaped.values():
            then(None)


def _execute(
    python: str, environment: Mapping[str, str], preload: Sequence[str], control: int, log: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        bootstrap.command(python, "kernelrepl.guest.zygote", str(control), *preload),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[control],
        cwd="/",
        env=dict(environment),
        start_new_session=True,
    )


class WarmLauncher:
    """Starts kernels by fork where there is a zygote for their interpreter, else cold and has one made for the next."""

    def __init__(
        self,
        preload: Sequence[str],
        emit: Emit,
        loaded: Callable[[str, Sequence[str]], None] = lambda python, places: None,
    ) -> None:
        """loaded: told of each interpreter from where else its code came."""
        self._preload = tuple(preload)
        self._loaded = loaded
        self._emit = emit
        self._zygotes: dict[tuple[Any, ...], Zygote] = {}
        self._starting: dict[tuple[Any, ...], asyncio.Task[None]] = {}
        self._failed_at: dict[tuple[Any, ...], float] = {}

    async def __call__(self, launch: Launch) -> Process:
        """Raises KernelStartFailed."""
        if launch.module == MODULE:
            zygote = self.prepare(launch.python, launch.environment)
            if zygote is not None:
                try:
                    return await zygote.fork(launch)
                except ZygoteFailed as error:
                    self._emit("zygote_failed", python=launch.python, reason=str(error))
        return await spawn(launch)

    def prepare(self, python: str, environment: Mapping[str, str]) -> Zygote | None:
        """The zygote for an interpreter, if there is one; if not, one is started that later kernels find."""
        key = (python, *sorted(environment.items()))
        zygote = self._zygotes.get(key)
        if zygote is not None and not zygote.ended:
            return zygote
        now = asyncio.get_running_loop().time()
        if key not in self._starting and now >= self._failed_at.get(key, -RETRY_S) + RETRY_S:
            self._starting[key] = asyncio.create_task(self._start(key, python, environment))
        return None

    async def warm(self, python: str, environment: Mapping[str, str]) -> bool:
        """Wait until there is a zygote for an interpreter; whether there is."""
        if self.prepare(python, environment) is None:
            await asyncio.gather(*self._starting.values(), return_exceptions=True)
        return self.prepare(python, environment) is not None

    async def _start(self, key: tuple[Any, ...], python: str, environment: Mapping[str, str]) -> None:
        try:
            zygote = self._zygotes[key] = await Zygote.start(python, environment, self._preload)
            self._loaded(python, zygote.places)
            self._emit("zygote_started", python=python, pid=zygote.pid, left_out=zygote.left_out)
        except ZygoteFailed as error:
            self._failed_at[key] = asyncio.get_running_loop().time()
            self._emit("zygote_failed", python=python, reason=str(error))
        finally:
            del self._starting[key]

    async def close(self) -> None:
        """End all of them, and what they have forked."""
        for task in list(self._starting.values()):
            task.cancel()
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        for zygote in self._zygotes.values():
            zygote.close()
