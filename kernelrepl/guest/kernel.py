"""The kernel of one session: IPython, plus a commit before every reply.

Started by the keeper with one inherited socket, the channel. Reads there how to start and what to
restore, then serves the Jupyter protocol. After each execution it sends what changed and waits for
`committed`; only then does the execute_reply go out, so durability holds for every client.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Awaitable, Iterator
from typing import Any

from kernelrepl.guest import lifeline, wire


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
    import zmq
    from ipykernel.control import ControlThread
    from ipykernel.iostream import IOPubThread
    from ipykernel.ipkernel import IPythonKernel
    from ipykernel.kernelapp import IPKernelApp
    from traitlets import Any as AnyTrait
    from traitlets import Type

from kernelrepl.guest import console  # noqa: E402
from kernelrepl.guest.greeting import introduce  # noqa: E402
from kernelrepl.guest.interrupts import Interrupts  # noqa: E402
from kernelrepl.guest.mending import Mending  # noqa: E402
from kernelrepl.guest.output import GuestStream, Recorder, RecordingSession, flush_cell  # noqa: E402
from kernelrepl.guest.saving import Saving  # noqa: E402
from kernelrepl.guest.shell import GuestShell  # noqa: E402

OUT_CACHE = 64
RECURSION_LIMIT = sys.getrecursionlimit()


class _NoShellThread:
    """Stands for the shell channel thread that this kernel does without: false, yet asked for its parent."""

    parent_thread = threading.main_thread()

    def __bool__(self) -> bool:
        return False


class GuestKernel(IPythonKernel):
    """Commits before it replies."""

    shell_class = Type(GuestShell)
    shell_channel_thread = AnyTrait(_NoShellThread())
    _execute_sleep = 0.0
    _supports_kernel_subshells = False

    interrupts: Interrupts = AnyTrait()  # type: ignore[assignment]
    recorder: Recorder = AnyTrait()  # type: ignore[assignment]
    saving: Saving = AnyTrait()  # type: ignore[assignment]
    streams: Any = AnyTrait(())
    shutting_down = False

    def pre_handler_hook(self) -> None:
        """SIGINT stays with `interrupts`."""

    def post_handler_hook(self) -> None:
        """SIGINT stays with `interrupts`."""

    def start(self) -> None:
        super().start()
        self._pid = os.getpid()
        console.install()
        os.register_at_fork(after_in_child=self.saving.channel.close)
        for kind in ("comm_open", "comm_msg", "comm_close"):
            self.shell_handlers[kind] = functools.partial(self._comm, self.shell_handlers[kind])

    @property
    def forked(self) -> bool:
        """Whether this is a child that a cell forked."""
        return os.getpid() != self._pid

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
        result = handler(stream, ident, message)
        if result is not None:
            await result
        if not self.saving.in_cell:
            self.saving.audits.disturb()

    def do_complete(self, code: str, cursor_pos: int) -> Any:
        self.saving.restoring.need_all()
        return super().do_complete(code, cursor_pos)

    def do_inspect(self, *args: Any, **kwargs: Any) -> Any:
        self.saving.restoring.need_all()
        return super().do_inspect(*args, **kwargs)

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
        self.shell.mending.end_cell()
        try:
            flush_cell(self.streams, self.recorder, parent.get("header", {}))
        except Exception as error:
            self.log.error("the end of the output is lost", exc_info=error)
        self._forget_inputs()
        outcome = {
            "status": reply["status"],
            "execution_count": reply.get("execution_count", 0),
            "duration_s": time.perf_counter() - began,
            "error": [reply.get("ename", ""), reply.get("evalue", "")] if reply["status"] == "error" else None,
        }
        with self._own_recursion_limit():
            self._saved = self.saving.commit(request, outcome, self.recorder.take())
        self._saved_request = request
        return reply

    @contextlib.contextmanager
    def _own_recursion_limit(self) -> Iterator[None]:
        """Pickling trusts the limit to end before the stack does; the code may have raised it as it likes."""
        users = sys.getrecursionlimit()
        sys.setrecursionlimit(min(users, RECURSION_LIMIT))
        try:
            yield
        finally:
            sys.setrecursionlimit(users)

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


class GuestIOPubThread(IOPubThread):
    """Misses no subscription: the keeper waits for the welcome to its own."""

    def _handle_event(self, msg: Any) -> None:
        super()._handle_event(msg)
        # A send takes notice of what has arrived meanwhile, and then the loop is not told of it any more.
        self._xpub_stream.flush(zmq.POLLIN)


class GuestApp(IPKernelApp):
    """Starts the pieces of a kernel without those a session does not need: TCP, debugger, history, poller."""

    name = "kernelrepl-kernel"
    recorder: Recorder = AnyTrait()  # type: ignore[assignment]
    listening: list[int] = AnyTrait()  # type: ignore[assignment]

    def _bind_socket(self, s: Any, port: int) -> int:
        """Listen on what the keeper has opened: where it is, is nothing that code in here could change."""
        s.setsockopt(zmq.USE_FD, self.listening[port - 1])
        s.bind("ipc://kernelrepl")
        return port

    def init_heartbeat(self) -> None:
        """The keeper looks at the process, not at its heartbeat."""

    def load_config_file(self, suppress_errors: bool | None = None) -> None:
        """A person's IPython profile does not reach into a session."""

    def init_poller(self) -> None:
        """The keeper's death is noticed by signal and by the channel."""

    def init_signal(self) -> None:
        """SIGINT belongs to `interrupts`."""

    def init_crash_handler(self) -> None:
        """Errors of the kernel itself go to its log."""

    def init_connection_file(self) -> None:
        """Connection info comes over the channel."""

    def write_connection_file(self, **kwargs: Any) -> None:
        """There is no connection file."""

    def init_control(self, context: zmq.Context[Any]) -> None:
        self.control_socket = context.socket(zmq.ROUTER)
        self.control_socket.linger = 1000
        self.control_port = self._bind_socket(self.control_socket, self.control_port)
        self.control_socket.router_handover = 1
        self.control_thread = ControlThread(daemon=True)
        self.shell_channel_thread = _NoShellThread()

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        self.iopub_socket = context.socket(zmq.XPUB)
        self.iopub_socket.linger = 1000
        self.iopub_port = self._bind_socket(self.iopub_socket, self.iopub_port)
        self.configure_tornado_logger()
        self.iopub_thread = GuestIOPubThread(self.iopub_socket, pipe=False, session=self.session)
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket

    def init_io(self) -> None:
        self.streams = []
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            stream = GuestStream(self.session, self.iopub_thread, name, self.recorder)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)  # the way to put it back
            stream.watch(descriptor)
            self.streams.append(stream)
        self.displayhook = sys.displayhook
        self.patch_io()

    def init_kernel(self) -> None:
        from zmq.eventloop.zmqstream import ZMQStream

        self.control_thread.start()
        self.kernel = GuestKernel.instance(
            parent=self,
            session=self.session,
            control_stream=ZMQStream(self.control_socket, self.control_thread.io_loop),
            shell_stream=ZMQStream(self.shell_socket),
            control_thread=self.control_thread,
            iopub_thread=self.iopub_thread,
            iopub_socket=self.iopub_socket,
            stdin_socket=self.stdin_socket,
            log=self.log,
            profile_dir=self.profile_dir,
            user_module=self.user_module,
            user_ns=self.user_module.__dict__,
            recorder=self.recorder,
            streams=tuple(self.streams),
        )
        self.kernel.record_ports({})

    user_module = AnyTrait()


def build_app(start: dict[str, Any], recorder: Recorder, sockets: list[int]) -> GuestApp:
    """The kernel application, sockets bound, not yet serving."""
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.cache_size = OUT_CACHE
    config.InteractiveShell.banner1 = ""
    config.IPKernelApp.log_level = 40
    config.InlineBackend.close_figures = True
    app: GuestApp = GuestApp.instance(config=config, recorder=recorder, listening=list(sockets))
    info = start["connection"]
    app.shell_port, app.iopub_port, app.stdin_port, app.control_port = 1, 2, 3, 4
    app.user_module = types.ModuleType("__main__", doc="The namespace of the session")
    app.session = RecordingSession(key=info["key"].encode(), signature_scheme="hmac-sha256", parent=app)
    app.session.recorder = recorder
    app.initialize([])
    app.log.setLevel(logging.ERROR)  # set before, it is put back to debug by the application's own set-up
    return app


def serve(channel: wire.Channel, sockets: list[int]) -> None:
    """Serve one session over the channel and the four listening sockets: shell, output, stdin, control."""
    interrupts = Interrupts()
    interrupts.install()
    start = introduce(channel)
    recorder = Recorder()
    app = build_app(start, recorder, sockets)
    kernel = app.kernel
    if start["most_file_bytes"] is not None:
        # Now, when IPython has written what it writes, and before anything of the session is loaded.
        resource.setrlimit(resource.RLIMIT_FSIZE, (start["most_file_bytes"],) * 2)
    kernel.interrupts = interrupts
    os.chdir(start["workspace"])
    kernel.saving = Saving(channel, kernel.shell, app.user_module, interrupts, start)
    report = kernel.saving.restoring.restore(start)
    kernel.shell.mending = Mending(kernel.shell.user_ns, kernel.shell.user_ns_hidden, kernel.streams)
    flush_cell(kernel.streams, recorder, {})
    recorder.take()  # what loading the session printed is no output of its first cell
    lifeline.die_with_channel(channel.fileno())
    _run(app, channel, report)


def _run(app: GuestApp, channel: wire.Channel, report: dict[str, Any]) -> None:
    from tornado.ioloop import IOLoop

    loop = IOLoop.current()

    def ready() -> None:
        # A signal that arrives while the loop waits must wake it, whichever thread the system gave it to.
        waker, wakeup = socket.socketpair()
        for end in (waker, wakeup):
            end.setblocking(False)
        asyncio.get_running_loop().add_reader(waker, lambda: waker.recv(4096))
        app.wakeup = wakeup
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        asyncio.get_running_loop().add_reader(channel.fileno(), app.kernel.saving.serve_keeper)
        channel.send({"type": "ready", **report})
        app.kernel.saving.restoring.rest()

    loop.add_callback(ready)
    run = app.start
    while not (app.kernel.shutting_down or loop.asyncio_loop.is_closed()):  # type: ignore[attr-defined]
        # A cell may have stopped the loop, and a handler that it left for a signal may raise in here.
        try:
            run()
        except Exception as error:
            app.log.error("an error reached the event loop", exc_info=error)
        run = loop.start
