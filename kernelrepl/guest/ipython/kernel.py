"""The kernel of one session: IPython, plus a commit before every reply.

After each execution it sends what changed and waits for `committed`; only then does the execute_reply go out, so
durability holds for every client.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kernelrepl.guest import lifeline


@contextlib.contextmanager
def _without_debugger() -> Iterator[None]:
    """Import ipykernel as if debugpy were missing: it costs 70 ms and opens a TCP port."""
    missing = object()
    before = sys.modules.get("debugpy", missing)
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is missing:
            del sys.modules["debugpy"]
        else:
            sys.modules["debugpy"] = before  # type: ignore[assignment]


with _without_debugger():
    import ipykernel.debugger  # noqa: F401
    from ipykernel.ipkernel import IPythonKernel
    from traitlets import Any as AnyTrait
    from traitlets import Type, default

from kernelrepl.guest import depth  # noqa: E402
from kernelrepl.guest.checkpoint.saving import Durability  # noqa: E402
from kernelrepl.guest.interrupts import Interrupts  # noqa: E402
from kernelrepl.guest.ipython import console  # noqa: E402
from kernelrepl.guest.ipython.debugging import Debuggers  # noqa: E402
from kernelrepl.guest.ipython.output import (  # noqa: E402
    NAME_CHARS,
    ROW_CHARS,
    GuestStream,
    OutputRecorder,
    flush_cell,
    shortened,
)
from kernelrepl.guest.ipython.shell import GuestShell  # noqa: E402


class NoShellThread:
    """Stands for the shell channel thread that this kernel does without: false, yet asked for its parent."""

    parent_thread = threading.main_thread()

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True)
class Parts:
    """What a kernel works with for one session."""

    interrupts: Interrupts
    saving: Durability
    streams: tuple[GuestStream, ...]


class GuestKernel(IPythonKernel):
    """Commits before it replies. It serves a session from `attach` on."""

    shell_class = Type(GuestShell)
    shell_channel_thread = AnyTrait(NoShellThread())
    _execute_sleep = 0.0
    _supports_kernel_subshells = False

    interrupts: Interrupts = AnyTrait()  # type: ignore[assignment]
    recorder: OutputRecorder = AnyTrait()  # type: ignore[assignment]
    saving: Durability = AnyTrait()  # type: ignore[assignment]
    debuggers: Debuggers = AnyTrait()  # type: ignore[assignment]
    streams: tuple[GuestStream, ...] = AnyTrait(())  # type: ignore[assignment]
    context: contextvars.Context | None = None
    shutting_down = False
    pid = 0

    @default("debuggers")
    def _default_debuggers(self) -> Debuggers:
        return Debuggers(lambda: bool(self._allow_stdin))

    def attach(self, parts: Parts) -> None:
        """Serve a session in this process, with these parts.

        `shell.mending` comes later: it remembers how things are when the session has been restored.
        """
        self.pid = os.getpid()
        self.interrupts, self.saving, self.streams = parts.interrupts, parts.saving, parts.streams

    def detach(self) -> None:
        """Serve no session any more: this process is a zygote, and its children get parts of their own."""
        self.interrupts = self.saving = self.shell.mending = None  # type: ignore[assignment]
        self.streams = ()

    def pre_handler_hook(self) -> None:
        """SIGINT stays with `interrupts`."""

    def post_handler_hook(self) -> None:
        """SIGINT stays with `interrupts`."""

    def _publish_status(self, status: str, channel: str, parent: Any = None) -> None:
        """The keeper says when a kernel is busy; that this one is idle again means that all has been shown."""
        if status != "busy":
            super()._publish_status(status, channel, parent)

    def start(self) -> None:
        super().start()
        console.install()
        self.debuggers.install()
        self.context = contextvars.copy_context()
        self.shell_stream.on_recv(self._receive, copy=False)
        os.register_at_fork(after_in_child=self.saving.channel.close)
        for kind in ("comm_open", "comm_msg", "comm_close"):
            self.shell_handlers[kind] = functools.partial(self._comm, self.shell_handlers[kind])

    def _receive(self, message: Any) -> asyncio.Task[Any]:
        """All cells run in one context, whether they await or not: what one sets in it, the next one has."""
        task = asyncio.create_task(self.shell_main(None, message), context=self.context)
        return self.saving.beside.own(task)

    @property
    def forked(self) -> bool:
        """Whether this is a child that a cell forked."""
        return os.getpid() != self.pid

    async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
        try:
            await super().execute_request(stream, ident, parent)
        except BaseException:  # noqa: BLE001 - there would be no reply, ever
            lifeline.break_off(self.streams[-1].log_descriptor)

    def raw_input(self, prompt: object = "") -> Any:
        if not self._allow_stdin:
            raise console.NoInput("input")
        return super().raw_input(prompt)

    def getpass(self, prompt: str = "", stream: Any = None, **options: Any) -> Any:
        if not self._allow_stdin:
            raise console.NoInput("getpass")
        return super().getpass(prompt, stream, **options)

    def do_shutdown(self, restart: bool) -> Awaitable[dict[str, Any]]:
        """Asked for on the control channel, which has a thread of its own."""
        if threading.current_thread() is threading.main_thread():
            raise console.NoShutdown

        async def reply() -> dict[str, Any]:
            self.shutting_down = True
            return {"status": "ok", "restart": restart}

        return reply()

    async def _comm(self, handler: Any, stream: Any, ident: Any, message: Any) -> None:
        self.saving.restoring.need_all()
        try:
            with self.interrupts.user_code():
                result = handler(stream, ident, message)
            if result is not None:
                await result
        except (KeyboardInterrupt, SystemExit) as error:
            self.log.error("a widget's callback broke off", exc_info=error)
        if not self.saving.in_cell:
            self.saving.audits.disturb()

    def do_complete(self, code: str, cursor_pos: int) -> Any:
        nothing = {"matches": [], "cursor_start": cursor_pos, "cursor_end": cursor_pos, "metadata": {}, "status": "ok"}
        return self._help(super().do_complete, nothing, code, cursor_pos)

    def do_inspect(self, *args: Any, **kwargs: Any) -> Any:
        nothing = {"status": "ok", "data": {}, "metadata": {}, "found": False}
        return self._help(super().do_inspect, nothing, *args, **kwargs)

    def _help(self, find: Callable[..., Any], nothing: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Help asks objects of the session, whose code may do anything: end the kernel, or never come to an end."""
        self.saving.restoring.need_all()
        try:
            with self.interrupts.user_code():
                return find(*args, **kwargs)
        except (KeyboardInterrupt, SystemExit) as error:
            self.log.error("help was not found", exc_info=error)
            return nothing

    async def do_execute(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
        parent = self.get_parent("shell")
        request = str(parent.get("header", {}).get("msg_id", ""))
        began = time.perf_counter()
        self.recorder.start()
        self._forget_display()
        self.interrupts.expect_cell()
        self.saving.begin_cell(request)
        if kwargs.get("user_expressions"):
            self.saving.restoring.need_all()
        try:
            with self.interrupts.cell():
                reply: dict[str, Any] = await super().do_execute(code, silent, *args, **kwargs)
        except BaseException as error:  # noqa: BLE001
            if self.forked:
                os._exit(1)
            # Whatever leaves here means no reply, and a client that waits for ever.
            self.interrupts.finish_cell()
            reply = self._failed(error)
        if self.forked:
            os._exit(0)  # it has come to the end of the cell: the reply is not its own
        self.debuggers.end_cell()
        self.shell.mending.end_cell()
        try:
            flush_cell(self.streams, self.recorder, parent.get("header", {}))
        except BaseException as error:
            self.log.error("the end of the output is lost", exc_info=error)
        self._forget_inputs()
        outcome = {
            "status": reply["status"],
            "execution_count": reply.get("execution_count", 0),
            "duration_s": time.perf_counter() - began,
            "error": _words(reply) if reply["status"] == "error" else None,
        }
        with depth.bounded():
            self._saved = self.saving.commit(request, outcome, self.recorder.take())
        self._saved_request = request
        return reply

    def _failed(self, error: BaseException) -> dict[str, Any]:
        assert self.shell is not None
        self.log.error("an execution left IPython", exc_info=error)
        content = {
            "ename": type(error).__name__,
            "evalue": str(error),
            "traceback": [f"{type(error).__name__}: {error}"],
        }
        self.session.send(
            self.iopub_socket, "error", content, parent=self.get_parent("shell"), ident=self._topic("error")
        )
        count = max(self.shell.execution_count - 1, 0)
        return {"status": "error", "execution_count": count, "user_expressions": {}, "payload": [], **content}

    def _forget_display(self) -> None:
        """A display that failed or broke off in an earlier cell must not make this one count as failed."""
        assert self.shell is not None
        self.shell.displayhook.msg = None
        self.shell._last_traceback_during_displayhook = False

    def _forget_inputs(self) -> None:
        """`_i1`, `_i2` …: nobody uses them, each one would be looked at after every cell."""
        name = f"_i{self.shell.execution_count - 1}"
        self.shell.user_ns.pop(name, None)
        self.shell.user_ns_hidden.pop(name, None)

    def finish_metadata(self, parent: Any, metadata: dict[str, Any], reply_content: dict[str, Any]) -> dict[str, Any]:
        metadata = super().finish_metadata(parent, metadata, reply_content)
        if getattr(self, "_saved_request", None) == parent["header"]["msg_id"]:
            metadata["kernelrepl"] = self._saved
        return metadata

    @contextlib.contextmanager
    def _cancel_on_sigint(self, future: asyncio.Task[Any]) -> Iterator[None]:
        with self.interrupts.awaiting(future):
            yield


def _words(reply: dict[str, Any]) -> list[str]:
    """The class and the message of an error, as its row has them."""
    return [shortened(str(reply.get("ename", "")), NAME_CHARS), shortened(str(reply.get("evalue", "")), ROW_CHARS)]
