"""The keeper: one process per data directory. Owns the database and the kernels, serves its sockets (`server`).

Wiring only: concrete classes, the clock, signals and the environment enter here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import zmq
import zmq.asyncio

from kernelrepl import __version__, config, discovery
from kernelrepl.errors import KeeperUnavailable, StorageFailed
from kernelrepl.jupyter.gateway import Gateway
from kernelrepl.keeper import process
from kernelrepl.keeper.connection import Connection, grants
from kernelrepl.keeper.metrics import Metrics
from kernelrepl.keeper.server import ClientSockets
from kernelrepl.kernel import GroupLauncher, WarmLauncher, cgroups, spawn
from kernelrepl.kernel.process import Launcher
from kernelrepl.packages import Packages, Policy, installation
from kernelrepl.sandbox import Exposure, probe, resolved
from kernelrepl.sessions.capacity import KernelCapacity
from kernelrepl.sessions.confinement import Confinement, base_environment, exposed, start_environment
from kernelrepl.sessions.manager import Manager, Origin
from kernelrepl.sessions.retention import Expiry
from kernelrepl.sessions.services import Services
from kernelrepl.sessions.standby import Standby
from kernelrepl.store import Store
from kernelrepl.workspaces import directories, losses

EXIT_GRACE_S = 10.0
STORAGE_RETRY_S = 60.0
ASK_INTERPRETER_S = 10.0
"""Clients wait for the answer to their hello for 20 seconds."""
SILENT_S = 60.0
"""An interpreter that did not answer is not asked again for so long."""
MOST_SILENT = 100
TIDY_PAUSE_S = 0.05
"""Many changes may come together, and a look at all sessions is not for each of them."""
MOST_SOCKETS = 1 << 14
"""Of all kernels together: each takes six, and without this there would be places for 170 of them."""
_EVERYDAY = ("called", "executed", "committed")
_log = logging.getLogger("kernelrepl")
_WORD_CHARS = 500


def _word(value: object) -> str:
    """A value of an event as the log has it: on one line, and of a bounded length."""
    word = repr(value[:_WORD_CHARS] if isinstance(value, str) else value)
    return word if len(word) <= 2 * _WORD_CHARS else word[:_WORD_CHARS] + "…"


ClientHandler = Callable[["Keeper", Connection, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one client after the hellos. Injected, so that the keeper knows no protocol of its clients."""


class Keeper:
    """Runs until it is told to stop, or nobody needs it."""

    def __init__(
        self,
        settings: config.Settings,
        handler: ClientHandler,
        *,
        launcher: Launcher | None = None,
        make_store: Callable[..., Store] = Store,
        exit_grace_s: float = EXIT_GRACE_S,
    ) -> None:
        self.settings = settings
        self.data_dir = settings.data_dir
        self.runtime_dir = discovery.runtime_dir(self.data_dir, settings.runtime_dir, os.environ)
        self.metrics = Metrics()
        self.stopping = asyncio.Event()
        self.groups = ""
        """Which control groups kernels have, or why none."""
        self._changed = asyncio.Event()
        self._silent: dict[str, float] = {}
        """Interpreters of clients that did not answer, and when."""
        self._exit_grace_s = exit_grace_s
        self._handler = handler
        self._launcher = launcher
        self._make_store = make_store
        self._sockets = ClientSockets(
            settings,
            self.runtime_dir,
            self._serve,
            interpreter_of=self._interpreter_of,
            stopping=self.stopping,
            changed=self._changed,
        )
        self.manager: Manager
        self.gateway: Gateway

    @property
    def connections(self) -> int:
        return self._sockets.connections

    def settings_as_json(self) -> dict[str, Any]:
        """Return the settings that it runs with, as `config.waiting` compares them with those of a client."""
        return config.dump(self.settings)

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until stopped. `ready` is called once the sockets answer.

        Raises KeeperRunning when the data directory has a keeper, StorageFailed for the database, and
        KeeperUnavailable for directories that cannot be used.
        """
        process.prepare()
        async with contextlib.AsyncExitStack() as stack:
            discovery.make_private(self.data_dir, config.PREFIX + "DATA_DIR")
            lock = stack.enter_context(discovery.exclusive(self.data_dir))
            discovery.check_sockets_fit(self.runtime_dir)
            discovery.make_private(self.runtime_dir, config.PREFIX + "RUNTIME_DIR")
            await asyncio.to_thread(directories.sweep_runtime, self.runtime_dir)
            database = self.data_dir / "python_sessions.db"
            workspaces = directories.workspaces(self.data_dir)
            lost = losses.of_database(database, workspaces)
            store = self._make_store(database, max_history_bytes=self.settings.max_history_bytes)
            store.open()
            stack.callback(store.close)
            context = zmq.asyncio.Context()
            context.set(zmq.MAX_SOCKETS, MOST_SOCKETS)
            stack.callback(context.destroy, 0)
            exposure = exposed((self.data_dir, self.runtime_dir), self.settings.python, await store.granted())
            groups, self.groups = await asyncio.to_thread(cgroups.found, self.runtime_dir)
            if groups is not None:
                stack.callback(groups.close)
            launcher = self._launcher or self._make_launcher(stack, exposure)
            capacity = KernelCapacity(
                self.emit,
                idle_timeout_s=self.settings.idle_timeout_s,
                max_live=self.settings.max_live,
                memory_bytes=self.settings.max_live_bytes,
            )
            grouped = launcher if groups is None else GroupLauncher(launcher, groups, self.emit)
            allowed, most = Policy.of(self.settings.packages), self.settings.max_package_bytes
            packages = Packages(allowed, most, os.environ, exposure.written)
            services = Services(grouped, store, self.emit, capacity, packages)
            sandbox = await self._confinement(exposure)
            self.manager = Manager(self.data_dir, sandbox, services)
            stack.push_async_callback(self.manager.close)
            self.manager.losses = losses.noted(lost or losses.of_rows(await store.damaged()))
            self.gateway = Gateway(self.manager, store, context, self.runtime_dir)
            stack.push_async_callback(self.gateway.close)
            await asyncio.to_thread(directories.sweep_workspaces, workspaces, await store.workspaces())
            await asyncio.to_thread(installation.sweep, workspaces)
            if isinstance(launcher, WarmLauncher):
                self._warm_up(launcher, services, stack)
            stack.callback(self._sockets.close)
            await self._sockets.listen()
            await self.gateway.reopen(Origin("jupyter", grants(self.settings)))
            stack.push_async_callback(self._sockets.end_clients)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.stopping.set)
            hidden = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(discovery.SHOW_YOURSELF, hidden.set)
            stack.enter_context(self._published(lock))
            expiry = Expiry(self.manager, store, self.settings.retention(), self.emit)
            for work in (self._housekeeping(), expiry.run(), self._show_when_asked(hidden), process.release_memory()):
                stack.callback(asyncio.create_task(work).cancel)
            ready()
            gc.collect()
            gc.freeze()  # what was imported stays: no collection needs to look at it again
            gc.enable()  # whoever started this may have imported without it
            _log.info("serving %s, pid %d", self.data_dir, os.getpid())
            await self.stopping.wait()
            _log.info("stopping")

    def _make_launcher(self, stack: contextlib.AsyncExitStack, exposure: Exposure) -> Launcher:
        if self.settings.warm_start == "off":
            return spawn
        warm = WarmLauncher(self.settings.preload, self.emit, exposure.loaded)
        stack.push_async_callback(warm.close)
        return warm

    def _warm_up(self, launcher: WarmLauncher, services: Services, stack: contextlib.AsyncExitStack) -> None:
        """Have ready soon what will be needed soon."""
        sandbox = self.manager.confinement
        self.manager.standby = Standby(
            self.settings.standby,
            directories.workspaces(self.data_dir),
            sandbox,
            grants(self.settings),
            services,
            lambda: launcher.warm(sandbox.python, sandbox.kernel_environment(sandbox.python)),
            self.manager.busy,
        )
        stack.push_async_callback(self.manager.standby.close)
        stack.push_async_callback(_end, asyncio.create_task(self.manager.standby.run()))

    async def _confinement(self, exposure: Exposure) -> Confinement:
        """Find out, by trying, how kernels can be confined here."""
        python = self.settings.python
        places = (*exposure.written(), *resolved(self.settings.allow_write))
        environment = base_environment(os.environ, discovery.cache_dir(), places)
        environment["PYTHONHASHSEED"] = process.hash_seed(self.data_dir)
        tier = None
        if self.settings.sandbox == "on":
            known = self.runtime_dir / "sandbox.json"
            # Where kernels start: what the interpreter says of itself there need not be asked again for the first one.
            start = start_environment(python, environment, self.runtime_dir, confined=True)
            tier = await asyncio.to_thread(probe, python, start, self.runtime_dir, known, places=places)
            _log.info("sandbox: %s%s", tier.label, f" ({tier.why})" if tier.why else "")
        else:
            _log.warning("sandbox: off, by config.toml; kernels run with your own rights")
        ours = (self.data_dir, self.runtime_dir, discovery.config_file(), discovery.cache_dir())
        never = tuple(place.resolve() for place in ours)
        confinement = Confinement(tier, python, self.runtime_dir, never, environment, exposure)
        # The first kernel needs to know it; nobody waits for it here, and what is wrong is said there.
        ready = asyncio.ensure_future(asyncio.to_thread(confinement.interpreter, python))
        ready.add_done_callback(lambda done: done.cancelled() or done.exception())
        return confinement

    async def _serve(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client after the hellos."""
        try:
            await self._handler(self, connection, reader, writer)
        finally:
            if connection.attached and not self.stopping.is_set():
                await asyncio.shield(self.gateway.release(connection.id))

    async def _interpreter_of(self, client: str) -> tuple[str, str]:
        """Return the interpreter for new sessions of a program that runs in this one, and why it is another one."""
        if client in ("", self.settings.python):
            return self.settings.python, ""
        clock = asyncio.get_running_loop().time
        if clock() - self._silent.get(client, -SILENT_S) < SILENT_S:
            return self.settings.python, f"{client} does not answer; sessions run in {self.settings.python}"
        try:
            asked = asyncio.to_thread(self.manager.confinement.interpreter_of, client)
            found, why = await asyncio.wait_for(asked, ASK_INTERPRETER_S)
        except TimeoutError:  # a hello is not kept waiting for a disk that is gone
            found, why = self.settings.python, f"{client} does not answer; sessions run in {self.settings.python}"
            if len(self._silent) >= MOST_SILENT:
                self._silent.clear()
            self._silent[client] = clock()
        if why:
            _log.info("%s", why)
        return found, why

    @contextlib.contextmanager
    def _published(self, lock: int) -> Iterator[None]:
        """keeper.json: how others find us. Written last, removed first; and in the lock who to ask if it is gone."""
        self._publish()
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(lock, 0)
            (self.data_dir / "keeper.json").unlink(missing_ok=True)

    async def _show_when_asked(self, hidden: asyncio.Event) -> None:
        """Come back into sight when somebody has cleaned away the sockets or keeper.json."""
        while True:
            await hidden.wait()
            hidden.clear()
            try:
                discovery.make_private(self.runtime_dir, config.PREFIX + "RUNTIME_DIR")
                if not self._sockets.visible():
                    await self._sockets.listen()
                self._publish()
                _log.info("shown again")
            except (OSError, KeeperUnavailable) as error:
                _log.error("cannot be shown again: %s", error)

    def _publish(self) -> None:
        path = self.data_dir / "keeper.json"
        content = {
            "pid": os.getpid(),
            "protocol": discovery.PROTOCOL,
            "version": __version__,
            discovery.AGENT: str(self.runtime_dir / "agent.sock"),
            discovery.OPERATOR: str(self.runtime_dir / "operator.sock"),
        }
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(content))
        temporary.chmod(0o600)
        temporary.replace(path)

    def emit(self, event: str, **data: Any) -> None:
        """Something has happened: for the log, for the metrics, and for the housekeeping."""
        self.metrics(event, **data)
        level = logging.DEBUG if event in _EVERYDAY else logging.INFO
        if _log.isEnabledFor(level):
            words = " ".join(f"{key}={_word(value)}" for key, value in data.items())
            _log.log(level, "%s %s", event, words, extra={"session": data.get("session")})
        self._changed.set()

    def _needed(self) -> bool:
        # What kernels still do can be kept by nobody once the data directory is gone.
        kernels = self.manager.live() > 0 and self.data_dir.exists()
        return bool(self.connections) or kernels or self.gateway.needed

    async def _housekeeping(self) -> None:
        """Stop idle kernels, and the keeper itself when nobody is connected and no kernel lives."""
        while True:
            self._changed.clear()
            try:
                due = await self.manager.tidy()
            except StorageFailed as error:
                _log.error("the database cannot be tidied: %s", error)
                due = STORAGE_RETRY_S
            unused = not self._needed()
            try:
                async with asyncio.timeout(self._exit_grace_s if unused else due):
                    await self._changed.wait()
                await asyncio.sleep(TIDY_PAUSE_S)
            except TimeoutError:
                if unused and not self._needed():
                    self.stopping.set()
                    return


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
