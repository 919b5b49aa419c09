"""One live kernel: process, channel and Jupyter client, started and ended together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kernelrepl.errors import KernelStartFailed, SandboxUnavailable, StorageFailed
from kernelrepl.guest import frames, wire
from kernelrepl.kernel import zmtp
from kernelrepl.kernel.channel import HostChannel, text_of, versions_of
from kernelrepl.kernel.client import JupyterClient, Message, OnFlood, OnMessage, OnOutput
from kernelrepl.kernel.commits import Draft
from kernelrepl.kernel.delivery import Delivery, Library
from kernelrepl.kernel.flood import Budget, Verdict
from kernelrepl.kernel.losses import Losses
from kernelrepl.kernel.process import Process
from kernelrepl.model import Commit, JupyterRequest, Limits, Manifest, NotRestored, Restored
from kernelrepl.outputs import beside
from kernelrepl.outputs.terminal_text import field

START_TIMEOUT_S = 60.0
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


class Kernel:
    """Started with `start`, ended with `stop`."""

    def __init__(self, process: Process, handlers: Handlers, budget: Budget | None = None) -> None:
        """budget: what it may take of the keeper's time, together with those before it."""
        self.process = process
        self.budget = budget or Budget()
        self.python = ""
        self.packages: dict[str, str] = {}
        self._handlers = handlers
        self._channel: HostChannel | None = None
        self._client: JupyterClient | None = None
        self._serving: asyncio.Task[None] | None = None
        self.loading: int | None = None
        """The component that is being loaded."""
        self._delivery: Delivery | None = None
        self._audited = asyncio.Event()
        self._adopted = asyncio.Event()
        self._losses = Losses(Manifest())
        self._draft = Draft()
        self._pid = process.pid
        self._end = asyncio.ensure_future(process.ended.wait())

    @property
    def ended(self) -> asyncio.Event:
        return self.process.ended

    @property
    def pid(self) -> int:
        """Of the process that runs the code."""
        return self._pid

    async def start(self, manifest: Manifest, limits: Limits, durable: bool) -> Restored:
        """Bring the kernel up, confined as its launch says, and restore the session into it.

        Raises KernelDied (with the component that was loading), KernelStartFailed and SandboxUnavailable.
        """
        self._channel = await HostChannel.open(self.process.channel, budget=self.budget)
        self._channel.hurry = self.ended
        self._losses = Losses(manifest)
        key = secrets.token_hex(16)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._confine()
                await self._introduce(manifest, limits, durable, key)
                report = await self._until_ready(manifest)
                self._pid = self.process.kernel_pid()
                self._client = JupyterClient(
                    self.process.directory,
                    key,
                    self._on_output,
                    self._on_flood,
                    on_message=lambda message: self._handlers.message(message),
                    budget=self.budget,
                )
                await self._unless_dead(self._client.wait_for_output())
        except wire.WireError as error:
            await self.process.kill()
            if self.loading is not None:  # also where what is loaded has broken the protocol: it may be skipped then
                raise KernelDied(self.process.exit_code, self.loading) from error
            why = f"{describe_exit(self.process.exit_code)}: {self.process.python}"
            if not isinstance(error, wire.ChannelClosed):
                why = f"it broke the protocol with its keeper ({field(str(error)):.200}): {self.process.python}"
            raise KernelStartFailed(why, self.process.log()) from error
        except TimeoutError as error:
            await self.process.kill()
            if self.loading is not None:
                raise KernelDied(self.process.exit_code, self.loading) from error
            raise KernelStartFailed(f"it was not ready after {START_TIMEOUT_S:g} s", self.process.log()) from error
        except zmtp.Broken as error:
            await self.process.kill()
            raise KernelStartFailed(f"it cannot be connected to: {error}", self.process.log()) from error
        except OSError as error:
            await self.process.kill()
            raise KernelStartFailed(f"there is no room for what is to be restored: {error.strerror}") from error
        self._serving = asyncio.create_task(self._serve())
        return report

    async def adopt(self, handlers: Handlers, limits: Limits, durable: bool) -> None:
        """Give a kernel that has run nothing to a session. Raises KernelDied."""
        assert self._channel is not None
        assert self._delivery is not None
        self._handlers = handlers
        self._delivery.library = handlers.library
        with contextlib.suppress(wire.WireError):
            await self._channel.send(frames.build("adopt", durable=durable, limits=_limits(limits)))
        await self._unless_dead(self._adopted.wait())

    async def _confine(self) -> None:
        """Tell the process how to confine itself. No code of the session has run in it when it answers."""
        assert self._channel is not None
        plan = self.process.launch.plan
        await self._channel.send(frames.build("confine", plan=plan))
        if plan is None or plan["tier"] != 1:
            return
        header, payload = await self._channel.recv()
        frames.check(header, frames.KERNEL, len(payload))
        _raise_refusal(header)
        if header["type"] != "forked":
            raise wire.WireError(f"unexpected frame {header['type']!r:.40} before the kernel was confined")
        try:
            self.process.adopt(header["pid"])
        except OSError as error:
            with contextlib.suppress(wire.WireError):  # it may have said why before it ended
                _raise_refusal((await self._channel.recv())[0])
            raise wire.ChannelClosed(f"the kernel ended before it was confined: {error.strerror}") from error

    async def _introduce(self, manifest: Manifest, limits: Limits, durable: bool, key: str) -> None:
        assert self._channel is not None
        hello, payload = await self._channel.recv()
        _raise_refusal(hello)
        if hello["type"] != "hello" or hello.get("protocol") != wire.PROTOCOL:
            raise wire.WireError(f"the kernel speaks another protocol: {hello!r:.200}")
        frames.check(hello, frames.KERNEL, len(payload))
        self.python, self.packages = text_of(hello["python"], 40), versions_of(hello["packages"])
        start = {
            "connection": {"key": key},
            "workspace": self.process.launch.home,
            "confined": self.process.launch.plan is not None,
            "durable": durable,
            "most_file_bytes": self.process.launch.most_file_bytes,
            "limits": _limits(limits),
            "names": manifest.names,
            "stories": manifest.stories,
            "execution_count": manifest.execution_count,
        }
        self._delivery = Delivery(self._channel, self._handlers.library, self.process.kill)
        await self._delivery.start(start, manifest)

    async def _until_ready(self, manifest: Manifest) -> Restored:
        assert self._channel is not None
        assert self._delivery is not None
        known = {part.key for part in manifest.components}
        untouched = True
        while True:
            header, payload = await self._channel.recv()
            frames.check(header, frames.KERNEL, len(payload))
            if untouched and header["type"] in ("loading", "ready"):
                # Until now it ran nothing of the session, and somebody waits for it.
                self.process.background.look([self.process.kernel_pid()])
                untouched = False
            match header["type"]:
                case "loading" if header["component"] in known:
                    self.loading = header["component"]
                case "emptied":
                    self._delivery.emptied(header)
                case "loaded":
                    self.loading = None
                case "part" if header["of"] == "ready":
                    self._losses.add(header["path"], header["value"])
                case "ready":
                    return self._losses.restored(header)
                case other:
                    raise wire.WireError(f"unexpected frame {other!r:.40} during the start")

    async def _serve(self) -> None:
        """Answer the channel until it closes. A kernel that breaks the protocol is killed."""
        assert self._channel is not None
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
        assert self._delivery is not None
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
        assert self._channel is not None
        if self._channel.heavy:
            return await beside.apart(work, *arguments)
        return work(*arguments)

    async def _stage(self, header: dict[str, Any], payload: bytes) -> None:
        # A piece that cannot be stored shows when its commit is published: the digests are missing there.
        with contextlib.suppress(StorageFailed):
            await self._handlers.stage(header["component"], payload)

    async def _commit(self, header: dict[str, Any], payload: bytes) -> None:
        assert self._channel is not None
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

    def has_to_load(self, key: int) -> bool:
        """Whether a component waits until it is needed."""
        return self._delivery is not None and self._delivery.waits(key)

    async def execute(self, msg_id: str, code: str) -> Message:
        """Run code and return the message of its reply. Raises KernelDied."""
        assert self._client is not None
        message: Message = await self._unless_dead(self._client.execute(msg_id, code))
        return message

    async def ask(self, request: JupyterRequest) -> Message | None:
        """Pass a Jupyter client's request on; returns the reply, if its kind has one. Raises KernelDied."""
        assert self._client is not None
        message: Message | None = await self._unless_dead(self._client.ask(request))
        return message

    def answer(self, value: str) -> None:
        """What a person typed, for code that waits for it."""
        if self._client is not None:
            self._client.answer(value)

    async def _unless_dead(self, work: Awaitable[Any]) -> Any:
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._end}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            # What the kernel committed before it died is still in the channel: let it be stored first.
            if self._serving is not None:
                await self._serving
            raise KernelDied(self.process.exit_code, self.loading)
        finally:
            task.cancel()

    async def audit(self) -> None:
        """Let the kernel, which is at rest, commit what its commits have missed. Gives up in the end."""
        if self._channel is None or not self.process.alive():
            return
        self._audited.clear()
        with contextlib.suppress(wire.WireError, TimeoutError, KernelDied):
            async with asyncio.timeout(AUDIT_TIMEOUT_S):
                await self._channel.send(frames.build("audit"))
                await self._unless_dead(self._audited.wait())

    def _on_output(self, parent: str, kind: str, content: dict[str, Any]) -> None:
        self._handlers.output(parent, kind, content)

    def _on_flood(self, verdict: Verdict) -> None:
        self._handlers.flood(verdict)

    def interrupt(self) -> None:
        self.process.signal(signal.SIGINT)

    async def stop(self) -> None:
        """End the process and free all it had. Idempotent, and safe after its death."""
        await self.process.kill()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            await delivery.stop()
        if self._client is not None:
            await self._client.close()
        if self._channel is not None:
            self._channel.close()
        await self.process.close()


def _limits(limits: Limits) -> dict[str, Any]:
    return {
        "variable_bytes": limits.variable_bytes,
        "session_bytes": limits.session_bytes,
        "deadline_s": limits.save_deadline_s,
    }


def _raise_refusal(header: dict[str, Any]) -> None:
    if header["type"] == "refused":
        raise SandboxUnavailable(str(header.get("reason"))[:500])


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
