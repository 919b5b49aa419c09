"""One live kernel: process, channel and Jupyter client, which serve and end together. `startup` makes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kernelrepl.errors import KernelReplError, PackagesNotInstalled, StorageFailed
from kernelrepl.guest import frames, wire
from kernelrepl.kernel.channel import HostChannel
from kernelrepl.kernel.client import JupyterClient, Message, OnFlood, OnMessage, OnOutput
from kernelrepl.kernel.commits import Draft
from kernelrepl.kernel.delivery import Delivery, Library
from kernelrepl.kernel.losses import Losses
from kernelrepl.kernel.process import Process
from kernelrepl.model import Commit, JupyterRequest, Limits, NotRestored
from kernelrepl.outputs import beside
from kernelrepl.outputs.terminal_text import field
from kernelrepl.packages import Installed

START_TIMEOUT_S = 60.0
_REQUEST_S = 0.01
"""What it takes to look at a request for packages."""
AUDIT_TIMEOUT_S = 10.0
"""How long an audit may take before the kernel is stopped without."""
_log = logging.getLogger("kernelrepl")


class KernelDied(Exception):
    """The process ended. `loading` is the component it was loading, if it was."""

    def __init__(self, exit_code: int | None, loading: int | None = None) -> None:
        super().__init__(describe_exit(exit_code))
        self.exit_code = exit_code
        self.loading = loading


@dataclass(frozen=True)
class Handlers:
    """What a kernel needs from the session that owns it."""

    begin: Callable[[str], None]
    """The kernel has begun to run a request. When it dies, this tells what ran and what did not."""
    stage: Callable[[int, bytes], Awaitable[None]]
    commit: Callable[[Commit], Awaitable[None]]
    """Returns when the commit is in the store; raises StorageFailed otherwise."""
    output: OnOutput
    library: Library
    loaded: Callable[[int | None, tuple[NotRestored, ...]], None]
    """A component that waited until it was needed has been loaded, by key, or these names of it are lost."""
    flood: OnFlood
    """The kernel sends too much: what runs is to be interrupted, or the kernel to be ended."""
    broke: Callable[[str], None] = lambda reason: None
    """The kernel has sent what no kernel sends, and is ended for that."""
    message: OnMessage = lambda message: None
    """What it publishes, as it comes."""
    install: Callable[[list[str]], Awaitable[Installed]] | None = None
    """Installs packages that code asks for. Raises KernelReplError. None: for nobody."""


@dataclass(frozen=True)
class Parts:
    """These are the parts of a kernel that has been started, and what it said of itself."""

    process: Process
    channel: HostChannel
    delivery: Delivery
    client: JupyterClient
    losses: Losses
    python: str
    packages: dict[str, str]
    closing: contextlib.AsyncExitStack
    """Closes all of these when the process has ended."""


class Kernel:
    """A kernel that runs the code of one session. `startup.start_kernel` makes it, and `stop` ends it."""

    def __init__(self, parts: Parts, handlers: Handlers, *, loading: int | None = None) -> None:
        """loading: the component that it is loading already."""
        self.process = parts.process
        self.budget = parts.channel.budget
        self.python = parts.python
        self.packages = parts.packages
        self.pid = parts.process.kernel_pid()
        """The process that runs the code."""
        self.loading = loading
        """The component that is being loaded."""
        self._handlers = handlers
        self._channel = parts.channel
        self._channel.may_rest = True
        self._delivery = parts.delivery
        self._client = parts.client
        self._losses = parts.losses
        self._closing = parts.closing
        self._audited = asyncio.Event()
        self._adopted = asyncio.Event()
        self._draft = Draft()
        self._installing: asyncio.Task[None] | None = None
        self._end = asyncio.ensure_future(parts.process.ended.wait())
        self._serving = asyncio.create_task(self._serve())

    @property
    def ended(self) -> asyncio.Event:
        return self.process.ended

    async def adopt(self, handlers: Handlers, limits: Limits, durable: bool) -> None:
        """Give a kernel that has run nothing to a session. Raises KernelDied."""
        self._handlers = handlers
        self._delivery.library = handlers.library
        self._client.report_to(handlers.output, handlers.flood, handlers.message)
        with contextlib.suppress(wire.WireError):
            await self._channel.send(frames.build("adopt", durable=durable, limits=limits_for_kernel(limits)))
        await self._unless_dead(self._adopted.wait())

    async def _serve(self) -> None:
        """Answer the channel until it closes. A kernel that breaks the protocol is killed."""
        self.budget.held.overdue = lambda: asyncio.ensure_future(self._break("it sent half of something large"))
        try:
            while True:
                # Not by names of this loop: they would hold a frame of up to 28 MB until the next one comes.
                await self._take(*await self._channel.recv())
        except wire.ChannelClosed:
            pass
        except wire.WireError as error:
            await self._break(f"the kernel broke the protocol with its keeper ({error!s:.200})")
        except Exception:  # noqa: BLE001 - it must cost this kernel, not the keeper
            _log.exception("a frame of a kernel could not be handled")  # once: the kernel ends with it
            await self._break("the kernel sent what its keeper could not handle (see the log)")
        finally:
            self._draft = Draft()  # what was to come has nobody now: whoever still holds this kernel must not hold that
            self.budget.held.close()

    async def _take(self, header: dict[str, Any], payload: bytes) -> None:
        frames.check(header, frames.KERNEL, len(payload))
        match header["type"]:
            case "begin":
                self._handlers.begin(header["request"][:200])
            case "stage":
                await self._stage(header, payload)
            case "part" if header["of"] == "commit":
                await self._beside(self._draft.add, header["path"], header["value"])
                await self.budget.held.hold("draft", self._draft.held)
            case "part" if header["of"] == "loaded":
                self._losses.add(header["path"], header["value"])
            case "commit":
                await self._commit(header, payload)
            case "audited":
                self._audited.set()
            case "adopted":
                self._adopted.set()
            case "want":
                self._delivery.want(header)
            case "emptied":
                self._delivery.emptied(header)
            case "install":
                await self._begin_install(header["request"], header["names"])
            case "loading":
                self.loading = header["component"]
            case "loaded":
                self._handlers.loaded(self.loading, self._losses.lost(header))
                self.loading = None
            case other:
                raise wire.WireError(f"unexpected frame {other!r:.40}")

    async def _break(self, reason: str) -> None:
        """End a kernel for what it sent, and have that told."""
        self._handlers.broke(field(reason))
        await self.process.kill()

    async def _beside(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do what is to be done with a frame, beside the event loop if that takes long."""
        if self._channel.heavy:
            return await beside.apart(work, *arguments)
        return work(*arguments)

    async def _stage(self, header: dict[str, Any], payload: bytes) -> None:
        # A piece that cannot be stored shows when its commit is published: the digests are missing there.
        with contextlib.suppress(StorageFailed):
            await self._handlers.stage(header["component"], payload)

    async def _commit(self, header: dict[str, Any], payload: bytes) -> None:
        draft, self._draft = self._draft, Draft()
        about = (header, payload, self.python, json.dumps(self.packages))
        large = len(payload) > beside.LARGE
        commit = await (
            beside.large(len(payload), draft.finish, *about) if large else self._beside(draft.finish, *about)
        )
        self._channel.charge(commit)
        reason = None
        try:
            await self._handlers.commit(commit)
        except StorageFailed as error:
            reason = str(error)[:500]
        except Exception as error:  # noqa: BLE001 - without an answer the kernel would wait for ever
            _log.exception("a commit failed")
            reason = f"internal error: {error!r:.200}"
        del draft, commit
        self.budget.held.let_go("draft")
        await self._channel.send(frames.build("committed", commit=header["commit"], reason=reason))

    async def _begin_install(self, request: int, names: list[Any]) -> None:
        """Install what the kernel asks for, while it is heard on."""
        if not all(type(name) is str for name in names):
            raise wire.WireError("malformed frame 'install': a name is not a text")
        self.budget.spend(_REQUEST_S)
        if self._installing is not None and not self._installing.done():  # code has stopped waiting for it
            reason = "other packages are being installed for the session; ask again when that is done"
            await self.tell_installed(Installed(None), request=request, reason=reason)
            return
        self._installing = asyncio.create_task(self._install(request, names))

    async def _install(self, request: int, names: list[str]) -> None:
        found, reason = Installed(None), None
        try:
            if self._handlers.install is None:
                raise PackagesNotInstalled(names, "nothing is kept of a kernel without a session")
            found = await self._handlers.install(names)
        except KernelReplError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - without an answer the kernel would wait for ever
            _log.exception("packages could not be installed")
            reason = f"internal error: {error!r:.200}"
        await self.tell_installed(found, request=request, reason=reason)

    async def tell_installed(self, found: Installed, *, request: int = 0, reason: str | None = None) -> None:
        """Tell the kernel of packages. request: the one that this answers, or 0."""
        packages = [[one.name, one.version] for one in found.packages]
        answer = frames.build("installed", request=request, layer=found.layer, packages=packages, reason=reason)
        with contextlib.suppress(wire.WireError, TimeoutError):  # it has ended, or reads nothing
            async with asyncio.timeout(AUDIT_TIMEOUT_S):
                await self._channel.send(answer)

    def has_to_load(self, key: int) -> bool:
        """Whether a component waits until it is needed."""
        return self._delivery.waits(key)

    async def execute(self, msg_id: str, code: str) -> Message:
        """Run code and return the message of its reply. Raises KernelDied."""
        message: Message = await self._unless_dead(self._client.execute(msg_id, code))
        return message

    async def ask(self, request: JupyterRequest) -> Message | None:
        """Pass a Jupyter client's request on; returns the reply, if its kind has one. Raises KernelDied."""
        message: Message | None = await self._unless_dead(self._client.ask(request))
        return message

    def answer(self, value: str) -> None:
        """What a person typed, for code that waits for it."""
        self._client.answer(value)

    async def _unless_dead(self, work: Awaitable[Any]) -> Any:
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._end}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            # What the kernel committed before it died is still in the channel: let it be stored first.
            await self._serving
            raise KernelDied(self.process.exit_code, self.loading)
        finally:
            task.cancel()

    async def audit(self) -> None:
        """Let the kernel, which is at rest, commit what its commits have missed. Gives up in the end."""
        if not self.process.alive():
            return
        self._audited.clear()
        with contextlib.suppress(wire.WireError, TimeoutError, KernelDied):
            async with asyncio.timeout(AUDIT_TIMEOUT_S):
                await self._channel.send(frames.build("audit"))
                await self._unless_dead(self._audited.wait())

    def interrupt(self) -> None:
        self.process.signal(signal.SIGINT)

    async def stop(self) -> None:
        """End the process and free all it had. Idempotent, and safe after its death."""
        await self.process.kill()
        await asyncio.gather(self._serving, return_exceptions=True)  # what it has asked for comes to its end first
        if self._installing is not None:
            self._installing.cancel()
            await asyncio.gather(self._installing, return_exceptions=True)
        await self._closing.aclose()


def limits_for_kernel(limits: Limits) -> dict[str, Any]:
    """Return limits as frames tell them to a kernel."""
    return {
        "variable_bytes": limits.variable_bytes,
        "session_bytes": limits.session_bytes,
        "deadline_s": limits.save_deadline_s,
    }


def describe_exit(code: int | None) -> str:
    """How a process ended, for people."""
    if code is None:
        return "it did not answer"
    if code < 0:
        try:
            return f"it was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"it was ended by signal {-code}"
    return f"it exited with code {code}"
