"""Start a kernel, in two steps: what is the same for every session, then what belongs to one. Runs in the kernel.

The first needs no session, no sockets and no threads: a process that has done it can fork, and each child goes on
with the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler  # noqa: F401
import logging
import os
import platform
import resource
import signal
import socket
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import tornado.platform.asyncio  # noqa: F401
import zmq
from IPython.core.profiledir import ProfileDir
from jupyter_client.session import new_id
from traitlets import Any as AnyTrait
from traitlets.config import Config

from kernelrepl.guest import frames, handshake, imports, lifeline, packages, wire
from kernelrepl.guest.checkpoint.saving import Durability
from kernelrepl.guest.interrupts import Interrupts
from kernelrepl.guest.ipython.kernel import GuestKernel, NoShellThread, Parts  # first: it keeps the debugger out
from kernelrepl.guest.ipython.mending import Repair
from kernelrepl.guest.ipython.output import (
    GuestStream,
    OutputRecorder,
    RecordingSession,
    flush_cell,
    reserve_descriptors,
)
from kernelrepl.guest.originals import Originals
from kernelrepl.guest.pickling import mappings

from ipykernel.control import ControlThread  # isort: skip
from ipykernel.iostream import IOPubThread  # isort: skip
from ipykernel.kernelapp import IPKernelApp  # isort: skip

OUT_CACHE = 64
ARGUMENTS = ["session"]
"""What code finds as `sys.argv`: the name that its messages of use begin with, and nothing to parse."""


class GuestIOPubThread(IOPubThread):
    """Misses no subscription: the keeper waits for the welcome to its own."""

    def _handle_event(self, msg: Any) -> None:
        super()._handle_event(msg)
        # A send takes notice of what has arrived meanwhile, and then the loop is not told of it any more.
        self._xpub_stream.flush(zmq.POLLIN)


class GuestApp(IPKernelApp):
    """Starts the pieces of a kernel without those a session does not need: TCP, debugger, history, poller."""

    name = "kernelrepl-kernel"
    recorder: OutputRecorder = AnyTrait()  # type: ignore[assignment]
    listening: list[int] = AnyTrait()  # type: ignore[assignment]
    user_module = AnyTrait()
    originals: Originals = AnyTrait()  # type: ignore[assignment]
    variables: dict[str, str] = AnyTrait({})  # type: ignore[assignment]
    """What IPython has put into the environment."""

    # What does not happen, or later: `initialize` is the first step

    def load_config_file(self, suppress_errors: bool | None = None) -> None:
        """A person's IPython profile does not reach into a session."""

    def init_profile_dir(self) -> None:
        """Made by `open`: it is a directory of the session's."""
        self.profile_dir = ProfileDir()

    def _run_startup_files(self) -> None:
        """Without a profile IPython takes them from the directory it starts in: files of the session."""

    def init_config_files(self) -> None:
        """There are none."""

    def init_connection_file(self) -> None:
        """Connection info comes over the channel."""

    def write_connection_file(self, **kwargs: Any) -> None:
        """There is no connection file."""

    def log_connection_info(self) -> None:
        """Nobody connects who does not know already."""

    def init_poller(self) -> None:
        """The keeper's death is noticed by signal and by the channel."""

    def init_sockets(self) -> None:
        """Made by `open`."""

    def init_io(self) -> None:
        """Done by `open`."""

    def init_heartbeat(self) -> None:
        """The keeper looks at the process, not at its heartbeat."""

    def init_signal(self) -> None:
        """SIGINT belongs to `interrupts`."""

    def init_crash_handler(self) -> None:
        """Errors of the kernel itself go to its log."""

    def init_kernel(self) -> None:
        self.kernel = GuestKernel.instance(
            parent=self,
            session=self.session,
            log=self.log,
            profile_dir=self.profile_dir,
            user_module=self.user_module,
            user_ns=self.user_module.__dict__,
            recorder=self.recorder,
        )
        self.kernel.record_ports({})

    # The second step

    def open(self, key: bytes, sockets: list[int]) -> None:
        """Serve on these listening sockets: shell, output, stdin, control."""
        from zmq.eventloop.zmqstream import ZMQStream

        self.listening = list(sockets)
        reserve_descriptors()
        self.shell_port, self.iopub_port, self.stdin_port, self.control_port = 1, 2, 3, 4
        self.session.key = key
        self.session.session = new_id()  # of this process, as its number is
        self.session.pid = os.getpid()
        self._open_profile()
        super().init_sockets()
        self._open_streams()
        kernel = self.kernel
        kernel.control_stream = ZMQStream(self.control_socket, self.control_thread.io_loop)
        kernel.shell_stream = ZMQStream(self.shell_socket)
        kernel.control_thread, kernel.iopub_thread = self.control_thread, self.iopub_thread
        kernel.iopub_socket, kernel.stdin_socket = self.iopub_socket, self.stdin_socket
        # Last: each thread that starts takes the interpreter from this one for a while.
        for thread in (self.iopub_thread, self.control_thread, *self.streams):
            thread.start()
        kernel.shell.displayhook.pub_socket = kernel.shell.display_pub.pub_socket = self.iopub_socket

    def _open_profile(self) -> None:
        place = Path(os.environ.get("IPYTHONDIR") or Path.home() / ".ipython")
        place.mkdir(parents=True, exist_ok=True)
        self.ipython_dir = self.kernel.shell.ipython_dir = str(place)
        self.profile_dir.location = str(place / "profile_default")

    def _bind_socket(self, s: Any, port: int) -> int:
        """Listen on what the keeper has opened: where it is, is nothing that code in here could change."""
        s.setsockopt(zmq.USE_FD, self.listening[port - 1])
        s.bind("ipc://kernelrepl")
        return port

    def init_control(self, context: zmq.Context[Any]) -> None:
        self.control_socket = context.socket(zmq.ROUTER)
        self.control_socket.linger = 1000
        self.control_port = self._bind_socket(self.control_socket, self.control_port)
        self.control_socket.router_handover = 1
        self.control_thread = ControlThread(daemon=True)
        self.shell_channel_thread = NoShellThread()

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        self.iopub_socket = context.socket(zmq.XPUB)
        self.iopub_socket.linger = 1000
        self.iopub_port = self._bind_socket(self.iopub_socket, self.iopub_port)
        self.configure_tornado_logger()
        self.iopub_thread = GuestIOPubThread(self.iopub_socket, pipe=False, session=self.session)
        self.iopub_socket = self.iopub_thread.background_socket

    def _open_streams(self) -> None:
        self.streams = []
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            stream = GuestStream(self.session, self.iopub_thread, name, self.recorder)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)  # the way to put it back
            stream.watch(descriptor)
            self.streams.append(stream)
        self.displayhook = sys.displayhook
        self.patch_io()


class TextBars(types.ModuleType):
    """Progress bars are text: where ipywidgets is, tqdm takes this for a notebook, and an agent sees no widget."""

    def __getattr__(self, name: str) -> Any:
        if name not in ("tqdm", "trange"):
            raise AttributeError(name)
        from tqdm import std

        return getattr(std, name)


def prepare() -> GuestApp:
    """The first step: a kernel application without a session."""
    mappings.install()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.cache_size = OUT_CACHE
    config.InteractiveShell.banner1 = ""
    config.IPKernelApp.log_level = 40
    config.InlineBackend.close_figures = True
    recorder, before = OutputRecorder(), dict(os.environ)
    app: GuestApp = GuestApp.instance(config=config, recorder=recorder)
    app.user_module = types.ModuleType("__main__", doc="The namespace of the session")
    app.session = RecordingSession(key=b"none yet", signature_scheme="hmac-sha256", parent=app)
    app.session.recorder = recorder
    app.initialize([])
    sys.modules.setdefault("tqdm.autonotebook", TextBars("tqdm.autonotebook"))
    app.log.setLevel(logging.ERROR)  # set before, it is put back to debug by the application's own set-up
    app.variables = {name: value for name, value in os.environ.items() if before.get(name) != value}
    handshake.versions()
    app.originals = Originals()
    return app


def _be_another(app: GuestApp) -> None:
    """What each process has of its own; `random` sees to it itself."""
    os.environ.update(app.variables)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    tempfile.tempdir = None
    platform._uname_cache = None  # type: ignore[attr-defined]  # it has the name of the host
    if "jedi" in sys.modules:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        sys.modules["jedi.settings"].cache_directory = str(caches / "jedi")  # type: ignore[attr-defined]
        sys.modules["parso.cache"]._default_cache_path = caches / "parso"  # type: ignore[attr-defined]
    matplotlib = sys.modules.get("matplotlib")
    with contextlib.suppress(AttributeError, KeyError):  # of another version: it names directories that are not here
        for asked in (matplotlib.get_configdir, matplotlib.get_cachedir):  # type: ignore[union-attr]
            answer = dict(zip(asked.__code__.co_freevars, asked.__closure__, strict=True))
            answer["called"].cell_contents = False


def serve(channel: wire.Channel, sockets: list[int], app: GuestApp | None = None) -> None:
    """Serve one session over the channel and the four listening sockets: shell, output, stdin, control.

    app: what this process was forked with, if it was.
    """
    if app is not None:
        _be_another(app)
    interrupts = Interrupts()
    interrupts.install()
    start = handshake.introduce(channel)
    app = app or prepare()  # meanwhile the keeper sends what is to be restored
    interrupts.originals = app.originals
    app.open(start["connection"]["key"].encode(), sockets)
    kernel = app.kernel
    if start["most_file_bytes"] is not None:
        # Now, when IPython has written what it writes, and before anything of the session is loaded.
        resource.setrlimit(resource.RLIMIT_FSIZE, (start["most_file_bytes"],) * 2)
    os.chdir(start["workspace"])
    packages.on_path(start["packages"])
    imports.find_in_working_directory()
    sys.argv[:] = ARGUMENTS
    sys.orig_argv[:] = [sys.executable]
    kernel.shell.user_ns["_dh"][:] = [Path.cwd()]  # where `%cd -` leads; a process that forks is somewhere else
    saving = Durability(channel, kernel.shell, app.user_module, interrupts, start)
    streams = tuple(app.streams)
    kernel.attach(Parts(interrupts, saving, streams))  # before the restore: what comes back may lead to any of it
    report = saving.restoring.restore(start)
    kernel.shell.mending = Repair(kernel.shell.user_ns, kernel.shell.user_ns_hidden, streams, interrupts.originals)
    flush_cell(streams, app.recorder, {})
    app.recorder.take()  # what loading the session printed is no output of its first cell
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
        channel.send(frames.build("ready", **report))
        app.kernel.saving.packages.ready = True
        app.kernel.saving.restoring.rest()

    loop.add_callback(ready)
    run = app.start
    while not (app.kernel.shutting_down or loop.asyncio_loop.is_closed()):  # type: ignore[attr-defined]
        # A cell may have stopped the loop, and a handler that it left for a signal may raise in here.
        try:
            run()
        except BaseException as error:
            app.log.error("an error reached the event loop", exc_info=error)
        run = loop.start
