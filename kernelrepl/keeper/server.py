"""The two sockets of a keeper, and each client from its hello to its end.

What is said after the hellos is none of this module's business: it is served by what the keeper gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from kernelrepl import __version__, config, discovery
from kernelrepl.errors import InvalidSettings, KeeperUnavailable
from kernelrepl.keeper.connection import Connection

END_CLIENTS_S = 5.0
"""How long connections may take to end by themselves once they are closed."""
LINE_BYTES = 64 << 20
_log = logging.getLogger("kernelrepl")

Serve = Callable[[Connection, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one client after the hellos, until it has gone."""
InterpreterOf = Callable[[str], Awaitable[tuple[str, str]]]
"""Returns the interpreter for new sessions of a program that runs in this one, and why it is another one."""


class ClientSockets:
    """The sockets on which one keeper serves agents and operators."""

    def __init__(
        self,
        settings: config.Settings,
        runtime_dir: Path,
        serve: Serve,
        *,
        interpreter_of: InterpreterOf,
        stopping: asyncio.Event,
        changed: asyncio.Event,
    ) -> None:
        """interpreter_of: asked about each client that chooses no interpreter for its sessions.

        stopping: set when the keeper ends, which cancels clients. changed: gets set when a client has gone.
        """
        self._settings = settings
        self._runtime_dir = runtime_dir
        self._serve = serve
        self._interpreter_of = interpreter_of
        self._stopping = stopping
        self._changed = changed
        self._instance = secrets.token_hex(8)
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._servers: dict[str, asyncio.Server] = {}

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def visible(self) -> bool:
        """Return whether the sockets are where clients look for them."""
        return all(self._path(name).is_socket() for name in self._servers)

    async def listen(self) -> None:
        """Open the sockets anew. Raises KeeperUnavailable. Clients that are connected stay so."""
        self.close()
        try:
            for name, operator in ((discovery.AGENT, False), (discovery.OPERATOR, True)):
                server = await asyncio.start_unix_server(self._accept(operator), self._path(name), limit=LINE_BYTES)
                self._servers[name] = server
                self._path(name).chmod(0o600)
        except OSError as error:
            raise KeeperUnavailable(
                f"no socket can be made in {self._runtime_dir}: {error.strerror or error};"
                f" set {config.PREFIX}RUNTIME_DIR to a directory on a local disk"
            ) from error

    def close(self) -> None:
        """Close the sockets. Clients that are connected stay so."""
        for name in (discovery.AGENT, discovery.OPERATOR):
            if name in self._servers:
                self._servers.pop(name).close()
            with contextlib.suppress(OSError):
                self._path(name).unlink()  # we hold the lock of the data directory: what lies there is ours, or stale

    async def end_clients(self) -> None:
        """End all connections."""
        # Without another word: a proxy without an answer asks the next keeper, which knows the outcome.
        for writer in self._clients.values():
            writer.transport.abort()
        if self._clients:
            await asyncio.wait(self._clients, timeout=END_CLIENTS_S)
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _path(self, name: str) -> Path:
        return self._runtime_dir / f"{name}.sock"

    def _accept(
        self, operator: bool
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._clients[task] = writer
            try:
                connection = await self._exchange_hellos(reader, writer, operator)
                if connection is not None:
                    await self._serve(connection, reader, writer)
            except asyncio.CancelledError:
                if not self._stopping.is_set():
                    raise
            except Exception:  # noqa: BLE001 - one client must not end the keeper
                _log.exception("a client's connection failed")
            finally:
                self._clients.pop(task, None)
                self._changed.set()
                writer.close()

        return accept

    async def _exchange_hellos(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, operator: bool
    ) -> Connection | None:
        """Return who the client says it is; None if it has been told why it is not served."""
        answer: dict[str, Any] = {"kernelrepl": discovery.PROTOCOL, "version": __version__, "pid": os.getpid()}
        connection = None
        try:
            connection = await self._greet(json.loads(await reader.readline()), operator)
        except (ValueError, InvalidSettings, KeyError, TypeError, AttributeError) as error:
            known = isinstance(error, InvalidSettings)
            answer["error"] = (
                str(error) if known else "this socket expects a kernelrepl hello; use the kernelrepl command"
            )
        else:
            answer["instance"] = self._instance
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        return connection

    async def _greet(self, hello: dict[str, Any], operator: bool) -> Connection:
        environment = {str(key): str(value) for key, value in hello.get("settings", {}).items()}
        settings, note = config.for_client(self._settings, environment), ""
        if "python" not in settings.model_fields_set:
            python, note = await self._interpreter_of(str(hello.get("python") or ""))
            settings = settings.model_copy(update={"python": python})
        return Connection(
            name=str(hello["client"])[:100],
            settings=settings,
            note=note,
            operator=operator,
            id=str(hello.get("connection") or secrets.token_hex(8))[:64],
            outputs=bool(hello.get("outputs")),
            live=bool(hello.get("live")),
            resumed=frozenset(json.dumps(entry) for entry in hello.get("resumed", ())),
        )
