"""Kernels that are ready before anybody has asked for one: confined, each in a directory of its own that is to be the
workspace of the session which takes it.

Only what is new takes one: a session without history, with what the keeper's own settings give, or a call without a
session. No code of anybody has run in it, and none will before it is taken.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kernelrepl.errors import KernelReplError
from kernelrepl.kernel import Kernel, KernelDied, start_kernel
from kernelrepl.kernel.flood import Budget
from kernelrepl.kernel.kernel import Handlers
from kernelrepl.model import Commit, JupyterRequest, Manifest, NotRestored
from kernelrepl.sessions.confinement import Confinement, Grants, SessionSpec
from kernelrepl.sessions.recorder import NullRecorder
from kernelrepl.sessions.services import Services
from kernelrepl.workspaces import directories

QUIET_S = 0.3
"""How long nothing has run before a kernel is made ready."""
_FAILED_S = 60.0


@dataclass(frozen=True)
class StandbyKernel:
    """A kernel nobody has taken yet, and what it was made for."""

    kernel: Kernel
    workspace: Path
    spec: SessionSpec


class Standby:
    """The spare kernels of one keeper."""

    def __init__(
        self,
        count: int,
        workspaces: Path,
        confinement: Confinement,
        grants: Grants,
        services: Services,
        warm: Callable[[], Awaitable[bool]],
        busy: Callable[[], bool],
    ) -> None:
        """warm: waits until kernels start fast here; whether they do. busy: whether code runs right now."""
        self._count = count
        self._workspaces = workspaces
        self._confinement = confinement
        self._grants = grants
        self._services = services
        self._warm = warm
        self._busy = busy
        self._prepared: list[StandbyKernel] = []
        self._wanted = asyncio.Event()
        self._wanted.set()

    @property
    def prepared(self) -> tuple[StandbyKernel, ...]:
        """Those that nobody has taken yet."""
        return tuple(self._prepared)

    def take(self, spec: SessionSpec) -> StandbyKernel | None:
        """One that was made for exactly this; limits may differ, they are told when it is taken."""
        for prepared in self._prepared:
            if replace(prepared.spec, limits=spec.limits) == spec and prepared.kernel.process.alive():
                self._prepared.remove(prepared)
                self._wanted.set()
                return prepared
        return None

    async def run(self) -> None:
        """Keep as many ready as there should be, made while nothing runs. Until it is cancelled."""
        try:
            await asyncio.to_thread(self._confinement.interpreter, self._confinement.python)
        except KernelReplError as error:
            self._services.emit("standby_failed", reason=str(error))
            return
        if not await self._warm() or not self._count:
            return
        while True:
            await self._wanted.wait()
            await asyncio.sleep(QUIET_S)
            if self._busy():
                continue
            for dead in [prepared for prepared in self._prepared if not prepared.kernel.process.alive()]:
                self._prepared.remove(dead)
                await discard(dead)
            if len(self._prepared) >= self._count:
                self._wanted.clear()
                continue
            try:
                self._prepared.append(await self._make())
            except (KernelReplError, KernelDied, OSError) as error:
                # Whoever asks for a kernel will be told; here nobody listens.
                self._services.emit("standby_failed", reason=str(error))
                await asyncio.sleep(_FAILED_S)

    async def _make(self) -> StandbyKernel:
        spec = await asyncio.to_thread(self._confinement.fix, self._grants)
        workspace = self._workspaces / directories.new_name()
        await asyncio.to_thread(self._confinement.make_workspace, workspace)
        kernel: Kernel | None = None
        try:
            launch = await self._confinement.launch(workspace, spec).planned()
            process = await self._services.launcher(launch)
            kernel, _ = await start_kernel(process, _nobody(), Manifest(), spec.limits, durable=True, budget=Budget())
            await kernel.ask(_nothing())
        except BaseException:
            if kernel is not None:
                await asyncio.shield(kernel.stop())
            self._confinement.exposure.forget(workspace.name)
            await asyncio.shield(asyncio.to_thread(directories.remove, workspace))
            raise
        return StandbyKernel(kernel, workspace, spec)

    async def close(self) -> None:
        """End those that nobody has taken."""
        spares, self._prepared = self._prepared, []
        await asyncio.gather(*map(discard, spares))


async def discard(prepared: StandbyKernel) -> None:
    """End it, and remove its directory."""
    await prepared.kernel.stop()
    await asyncio.to_thread(directories.remove, prepared.workspace)


def _nothing() -> JupyterRequest:
    """A cell that leaves nothing but memory that is the kernel's own by then, for which a first cell has to wait."""
    content = {"code": "None", "silent": True, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    header = {"msg_id": secrets.token_hex(16), "msg_type": "execute_request"}
    return JupyterRequest("execute_request", header, {**content, "stop_on_error": False})


def _nobody() -> Handlers:
    """Of a kernel that runs nothing: it has nothing to say."""

    async def commit(commit: Commit) -> None:
        return None

    async def stage(index: int, piece: bytes) -> None:
        return None

    def loaded(key: int | None, lost: tuple[NotRestored, ...]) -> None:
        return None

    return Handlers(
        lambda request: None, stage, commit, lambda *output: None, NullRecorder(), loaded, lambda verdict: None
    )
