"""Which sessions Jupyter clients are attached to, and where they come in."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zmq.asyncio

from kernelrepl import discovery
from kernelrepl.errors import InvalidArgument, KernelReplError, StorageFailed, UnknownSession
from kernelrepl.jupyter.kernel_server import KernelServer
from kernelrepl.jupyter.notebooks import NotebookFiles
from kernelrepl.jupyter.sockets import CHANNELS, Address, KernelSockets
from kernelrepl.kernel import KernelDied
from kernelrepl.sessions.confinement import SessionSpec
from kernelrepl.sessions.manager import Manager, Origin
from kernelrepl.store import Store
from kernelrepl.validation import check_session_id

IN_USE_S = 60.0
"""An address that is nobody's in particular is in use until nobody has been heard there for so long."""
_AGAIN_S = 0.3
"""After so long those who were connected to an earlier keeper have come back."""
MOST_KNOWN = 10_000
_TRIES, _PAUSE_S = 40, 0.05
"""An address may be in use for a moment by who had it before."""
_FILE = "connection.json"


@dataclass(frozen=True)
class AttachRequest:
    """What a client wants to be attached to. Without session and notebook: a new session that goes with it."""

    session_id: str | None = None
    notebook: str | None = None
    """The path of a file, which has a session of its own."""
    address: Address | None = None
    """Where the client looks for a kernel already. None: somewhere new."""
    restart: bool = False
    """It wants a new kernel."""
    again: bool = False
    """It was attached to an earlier keeper."""
    throwaway: bool = False
    """The session was made for it alone."""


@dataclass
class Attached:
    """Where somebody is attached."""

    server: KernelServer
    sockets: KernelSockets
    owner: str | None
    """The connection with which it ends. None: it stays."""
    throwaway: bool
    left: asyncio.Event
    """Set when a client there has asked to end the kernel."""


class Gateway:
    """Of one keeper."""

    def __init__(self, manager: Manager, store: Store, context: zmq.asyncio.Context, runtime_dir: Path) -> None:
        self._manager = manager
        self._store = store
        self._notebooks = NotebookFiles(store)
        self._context = context
        self._runtime_dir = runtime_dir
        self._servers: dict[str, KernelServer] = {}
        self._attached: dict[Address, Attached] = {}
        self._known: OrderedDict[Address, None] = OrderedDict()
        """Where somebody has been attached before."""
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def needed(self) -> bool:
        """Whether a client has been heard a moment ago that is known by nothing else."""
        now = asyncio.get_running_loop().time()
        return any(p.owner is None and now - p.sockets.last_heard < IN_USE_S for p in self._attached.values())

    async def attach(self, request: AttachRequest, origin: Origin, owner: str | None) -> tuple[str, Address]:
        """Serve a session to a client; returns the id of the session, and where. Raises KernelReplError."""
        session_id, throwaway = await self._session_of(request)
        address = request.address or self._new_address()
        before = self._attached.get(address)
        restart = request.restart or (before is None and address in self._known and not request.again)
        await self._manager.session(session_id, origin)  # made if there is none: what is wrong with it is said here
        if before is not None:
            if restart:
                await before.server.withdraw()
            await self._detach(before, keep=True)
        server = await self._server(session_id, origin)
        left = asyncio.Event()
        server.attaching += 1  # the last of those who are there may go meanwhile
        try:
            sockets = await self._listen(address, server, left.set)
        except BaseException:
            server.attaching -= 1
            await self._dismiss(server, throwaway)
            raise
        server.attaching -= 1
        server.iopub.all_sockets.add(sockets)
        self._attached[address] = Attached(server, sockets, owner, throwaway, left)
        self._known[address] = None
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        if restart:
            try:
                await server.restart(sockets)
            except (KernelDied, TimeoutError) as error:
                why = str(error) or "it was not ready in time"
                raise KernelReplError(f"the kernel cannot be restarted: {why}; see the keeper's log") from error
        else:
            self._spawn(self._wake(session_id, origin))
        if request.again:
            asyncio.get_running_loop().call_later(_AGAIN_S, server.iopub.tell_restart)
        return session_id, address

    async def _session_of(self, request: AttachRequest) -> tuple[str, bool]:
        if request.session_id is not None:
            return check_session_id(request.session_id), request.throwaway
        if request.notebook is None:
            return f"kernel-{secrets.token_hex(6)}", True
        return await self._notebooks.session_of(request.notebook), False

    async def _server(self, session_id: str, origin: Origin) -> KernelServer:
        trusted = await self._trusted(session_id)
        server = self._servers.get(session_id)
        if server is None:
            server = KernelServer(session_id, self._manager, self._store, origin, trusted=trusted)
            self._servers[session_id] = server
            self._manager.observe(session_id, server)
        return server

    async def _trusted(self, session_id: str) -> bool:
        found = await self._store.find_session(session_id)
        return found is not None and SessionSpec.load(found[1]).trust_output

    def _new_address(self) -> Address:
        directory = self._runtime_dir / f"j-{secrets.token_hex(4)}"
        ports = tuple(range(1, len(CHANNELS) + 1))
        return Address("ipc", str(directory / "s"), ports, secrets.token_hex(32))

    async def _listen(self, address: Address, server: KernelServer, leave: Callable[[], None]) -> KernelSockets:
        if address.transport == "ipc":
            directory = Path(address.ip).parent
            if directory.parent == self._runtime_dir:
                discovery.make_private(directory, "KERNELREPL_RUNTIME_DIR")
        for attempt in range(_TRIES):
            try:
                return KernelSockets(self._context, address, server.take, lambda: server.iopub.state, leave)
            except OSError as error:
                if attempt == _TRIES - 1:
                    raise InvalidArgument(f"{error.strerror}; give another address, or end who uses it") from error
                await asyncio.sleep(_PAUSE_S)
        raise AssertionError

    async def _wake(self, session_id: str, origin: Origin) -> None:
        """Have the kernel ready when the first cell comes. What is wrong is told there."""
        with contextlib.suppress(KernelReplError, KernelDied):
            await (await self._manager.session(session_id, origin)).wake()

    # What an attached client wants later

    def place(self, address: Address) -> Attached:
        """Raises InvalidArgument if nobody is attached there."""
        try:
            return self._attached[address]
        except KeyError:
            raise InvalidArgument("nothing is attached there; attach first") from None

    async def rename(self, address: Address, notebook: str, before: str | None) -> None:
        """The notebook of a client has another path now."""
        await self._notebooks.rename(notebook, self.place(address).server.session_id, before)

    async def trust(self, session_id: str, trusted: bool) -> None:
        """Let the outputs of a session act in notebooks, or no longer. Raises UnknownSession."""
        found = await self._store.find_session(check_session_id(session_id))
        if found is None:
            raise UnknownSession(session_id, await self._store.similar_ids(session_id))
        info, stored = found
        fixed = replace(SessionSpec.load(stored), trust_output=trusted)
        await self._store.fix_session(info.key, fixed.dump())
        if session_id in self._servers:
            self._servers[session_id].iopub.trusted = trusted

    # Staying attached

    async def connection_file(self, session_id: str, origin: Origin) -> Path:
        """A connection file of a session for whoever may read it. It stays good while there is a keeper."""
        directory = self._runtime_dir / f"j-{hashlib.sha256(session_id.encode()).hexdigest()[:8]}"
        file = directory / _FILE
        try:
            address = Address.load(json.loads(file.read_text()))
        except (OSError, ValueError, KernelReplError):
            address = replace(self._new_address(), ip=str(directory / "s"))
        if address not in self._attached:
            await self.attach(AttachRequest(session_id, address=address, again=True), origin, None)
        file.touch(mode=0o600)
        file.write_text(json.dumps({**address.dump(), "kernelrepl_session": session_id}, indent=1))
        return file

    async def reopen(self, origin: Origin) -> None:
        """Serve the connection files again that an earlier keeper has given out, and remove what else it left."""
        for directory in self._runtime_dir.glob("j-*"):
            try:
                session_id = str(json.loads((directory / _FILE).read_text())["kernelrepl_session"])
                if await self._store.find_session(session_id) is None:
                    raise UnknownSession(session_id, [])
                await self.connection_file(session_id, origin)
            except (OSError, ValueError, KeyError, KernelReplError):
                await asyncio.to_thread(shutil.rmtree, directory, True)

    # Ends

    async def detach(self, address: Address, owner: str) -> None:
        """A client has gone. Its session stays, unless it was made for that client alone."""
        place = self._attached.get(address)
        if place is not None and place.owner == owner:  # somebody else may have come to the same place
            await self._detach(place)

    async def release(self, owner: str) -> None:
        """All of a connection that has ended."""
        for place in [place for place in self._attached.values() if place.owner == owner]:
            await self._detach(place)

    async def _detach(self, place: Attached, *, keep: bool = False) -> None:
        self._attached = {address: one for address, one in self._attached.items() if one is not place}
        place.server.forget(place.sockets)
        place.left.set()
        await place.sockets.close()
        if keep:
            return
        with contextlib.suppress(StorageFailed):
            await self._notebooks.closed(place.server.session_id)
        await self._dismiss(place.server, place.throwaway)
        if place.sockets.address.transport == "ipc":
            directory = Path(place.sockets.address.ip).parent
            if directory.parent == self._runtime_dir:
                await asyncio.to_thread(shutil.rmtree, directory, True)

    async def _dismiss(self, server: KernelServer, throwaway: bool) -> None:
        """End the server of a session that nobody is attached to."""
        session_id = server.session_id
        if server.iopub.all_sockets or server.attaching:
            return
        if self._servers.get(session_id) is server:
            self._manager.observe(session_id, None)
            del self._servers[session_id]
        await server.close()
        if throwaway:
            with contextlib.suppress(KernelReplError):
                await self._manager.delete(session_id, Origin())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """The keeper ends. Clients find the next one where they found this one; their sessions stay."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for place in self._attached.values():
            await place.sockets.close()
        for server in self._servers.values():
            await server.close()
