"""Start one kernel: make a `Kernel` of a process that has run nothing yet, with its session restored into it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any

from kernelrepl.errors import KernelStartFailed, SandboxUnavailable
from kernelrepl.guest import frames, wire
from kernelrepl.kernel import zmtp
from kernelrepl.kernel.channel import HostChannel, text_of, versions_of
from kernelrepl.kernel.client import JupyterClient
from kernelrepl.kernel.delivery import Delivery
from kernelrepl.kernel.flood import Budget
from kernelrepl.kernel.kernel import (
    START_TIMEOUT_S,
    Handlers,
    Kernel,
    KernelDied,
    Parts,
    describe_exit,
    limits_for_kernel,
)
from kernelrepl.kernel.losses import Losses
from kernelrepl.kernel.process import Process
from kernelrepl.model import Limits, Manifest, Restored
from kernelrepl.outputs.terminal_text import field
from kernelrepl.packages import layers


async def start_kernel(
    process: Process, handlers: Handlers, manifest: Manifest, limits: Limits, *, durable: bool, budget: Budget
) -> tuple[Kernel, Restored]:
    """Bring a kernel up, confined as its launch says, and restore the session into it. `Kernel.stop` ends it.

    budget: what it may take of the keeper's time, together with those before it. If the start fails, the process is
    ended and all that it had is freed. Raises KernelDied (with the component that was loading), KernelStartFailed and
    SandboxUnavailable.
    """
    closing = contextlib.AsyncExitStack()
    closing.push_async_callback(process.close)
    try:
        return await _Startup(process, handlers, closing).run(manifest, limits, durable, budget)
    except BaseException:
        await asyncio.shield(_abandon(process, closing))
        raise


async def _abandon(process: Process, closing: contextlib.AsyncExitStack) -> None:
    """End a process that has not become a kernel, and free what it had."""
    await process.kill()
    await closing.aclose()


class _Startup:
    """This class takes one process through its start."""

    def __init__(self, process: Process, handlers: Handlers, closing: contextlib.AsyncExitStack) -> None:
        """closing: gets what is opened on the way, so that it is closed at the end, or when the start fails."""
        self._process = process
        self._handlers = handlers
        self._closing = closing
        self._loading: int | None = None
        """The component that is being loaded."""

    async def run(self, manifest: Manifest, limits: Limits, durable: bool, budget: Budget) -> tuple[Kernel, Restored]:
        """Bring the kernel up. The errors are those of `start_kernel`; what was opened is not closed."""
        process, handlers = self._process, self._handlers
        channel = await HostChannel.open(process.channel, budget=budget)
        self._closing.callback(channel.close)
        channel.hurry = process.ended
        losses = Losses(manifest)
        key = secrets.token_hex(16)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._confine(channel)
                python, packages = await _hear_hello(channel)
                delivery = Delivery(channel, handlers.library, process.kill)
                self._closing.push_async_callback(delivery.stop)
                await delivery.send_start(self._start_fields(manifest, limits, durable, key), manifest)
                restored = await self._until_ready(channel, delivery, losses, manifest)
                client = JupyterClient(
                    process.directory,
                    key,
                    handlers.output,
                    handlers.flood,
                    on_message=handlers.message,
                    budget=budget,
                )
                self._closing.push_async_callback(client.close)
                await self._until_heard(client)
        except (wire.WireError, TimeoutError, zmtp.Broken, OSError) as error:
            await process.kill()
            raise self._failure(error) from error
        parts = Parts(process, channel, delivery, client, losses, python, packages, self._closing)
        return Kernel(parts, handlers, loading=self._loading), restored

    def _failure(self, error: Exception) -> Exception:
        """Return what to raise for an error that ended the start, when the process has ended."""
        process = self._process
        if self._loading is not None and isinstance(error, wire.WireError | TimeoutError):
            # Also where what is loaded has broken the protocol: it may be skipped then.
            return KernelDied(process.exit_code, self._loading)
        match error:
            case wire.ChannelClosed():
                why = f"{describe_exit(process.exit_code)}: {process.python}"
            case wire.WireError():
                why = f"it broke the protocol with its keeper ({field(str(error)):.200}): {process.python}"
            case TimeoutError():
                why = f"it was not ready after {START_TIMEOUT_S:g} s"
            case OSError():
                return KernelStartFailed(f"there is no room for what is to be restored: {error.strerror}")
            case _:
                why = f"it cannot be connected to: {error}"
        return KernelStartFailed(why, process.log())

    async def _confine(self, channel: HostChannel) -> None:
        """Tell the process how to confine itself. No code of the session has run in it when it answers."""
        plan = self._process.launch.plan
        await channel.send(frames.build("confine", plan=plan))
        if plan is None or plan["tier"] != 1:
            return
        header, payload = await channel.recv()
        frames.check(header, frames.KERNEL, len(payload))
        _raise_refusal(header)
        if header["type"] != "forked":
            raise wire.WireError(f"unexpected frame {header['type']!r:.40} before the kernel was confined")
        try:
            self._process.adopt(header["pid"])
        except OSError as error:
            with contextlib.suppress(wire.WireError):  # it may have said why before it ended
                _raise_refusal((await channel.recv())[0])
            raise wire.ChannelClosed(f"the kernel ended before it was confined: {error.strerror}") from error

    def _start_fields(self, manifest: Manifest, limits: Limits, durable: bool, key: str) -> dict[str, Any]:
        launch = self._process.launch
        return {
            "connection": {"key": key},
            "workspace": launch.home,
            "confined": launch.plan is not None,
            "durable": durable,
            "most_file_bytes": launch.most_file_bytes,
            "limits": limits_for_kernel(limits),
            "names": manifest.names,
            "stories": manifest.stories,
            "execution_count": manifest.execution_count,
            "packages": {"home": launch.packages, "layers": layers.numbers(layers.home(launch.workspace))},
        }

    async def _until_ready(
        self, channel: HostChannel, delivery: Delivery, losses: Losses, manifest: Manifest
    ) -> Restored:
        """Give the kernel what it asks for until it is ready, and return what it has restored."""
        known = {part.key for part in manifest.components}
        untouched = True
        while True:
            header, payload = await channel.recv()
            frames.check(header, frames.KERNEL, len(payload))
            if untouched and header["type"] in ("loading", "ready"):
                # Before it runs anything of the session, if it could not do that itself.
                self._process.background.look([self._process.kernel_pid()])
                untouched = False
            match header["type"]:
                case "loading" if header["component"] in known:
                    self._loading = header["component"]
                case "emptied":
                    delivery.emptied(header)
                case "loaded":
                    self._loading = None
                case "part" if header["of"] == "ready":
                    losses.add(header["path"], header["value"])
                case "ready":
                    return losses.restored(header)
                case other:
                    raise wire.WireError(f"unexpected frame {other!r:.40} during the start")

    async def _until_heard(self, client: JupyterClient) -> None:
        """Wait until no output of the kernel can be missed. Raises KernelDied."""
        heard = asyncio.ensure_future(client.wait_for_output())
        ended = asyncio.ensure_future(self._process.ended.wait())
        try:
            await asyncio.wait({heard, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not heard.done():
                raise KernelDied(self._process.exit_code, self._loading)
            heard.result()
        finally:
            heard.cancel()
            ended.cancel()


async def _hear_hello(channel: HostChannel) -> tuple[str, dict[str, str]]:
    """Return the versions of Python and of packages that a kernel has, which is confined by then."""
    hello, payload = await channel.recv()
    _raise_refusal(hello)
    if hello["type"] != "hello" or hello.get("protocol") != wire.PROTOCOL:
        raise wire.WireError(f"the kernel speaks another protocol: {hello!r:.200}")
    frames.check(hello, frames.KERNEL, len(payload))
    return text_of(hello["python"], 40), versions_of(hello["packages"])


def _raise_refusal(header: dict[str, Any]) -> None:
    if header["type"] == "refused":
        raise SandboxUnavailable(str(header.get("reason"))[:500])
