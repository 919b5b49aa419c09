"""Start the kernels of one session, without what killed the ones before."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kernelrepl.errors import KernelStartFailed
from kernelrepl.kernel import Kernel, KernelDied, Launch, start_kernel
from kernelrepl.kernel.flood import Budget
from kernelrepl.kernel.kernel import Handlers
from kernelrepl.model import Limits, Restored
from kernelrepl.sessions import results
from kernelrepl.sessions.recorder import Recorder
from kernelrepl.sessions.services import Services

STARTS_PER_CALL = 16
"""How often a kernel that dies while loading is started again, each time without what killed it."""


class Starter:
    """Of one session, through all its kernels."""

    def __init__(self, recorder: Recorder, services: Services, limits: Limits, *, durable: bool) -> None:
        self._recorder = recorder
        self._services = services
        self._limits = limits
        self._durable = durable
        self._budget: Budget | None = None
        self._suspect: int | None = None  # the component that the last kernel was loading when it died

    async def start(self, launch: Launch, handlers: Handlers) -> tuple[Kernel, Restored]:
        """A kernel with all restored that can be. Raises KernelStartFailed, SandboxUnavailable, AccessRefused."""
        for _ in range(STARTS_PER_CALL):
            try:
                kernel, restored = await self._start(launch, handlers)
            except KernelDied as error:
                if error.loading is None:
                    raise KernelStartFailed(str(error)) from error
                await self.note_death(error)
                continue
            if self._suspect is not None and not kernel.has_to_load(self._suspect):
                self._suspect = None
            return kernel, restored
        raise KernelStartFailed(f"it died {STARTS_PER_CALL} times while it restored the session")

    async def _start(self, launch: Launch, handlers: Handlers) -> tuple[Kernel, Restored]:
        kernel: Kernel | None = None
        try:
            manifest = await self._recorder.manifest()
            process = await self._services.launcher(await launch.planned())
            self._budget = budget = self._budget or Budget()
            kernel, restored = await start_kernel(
                process, handlers, manifest, self._limits, durable=self._durable, budget=budget
            )
            told = {entry.name for entry in restored.not_restored}
            more = tuple(entry for entry in manifest.damaged if entry.name not in told)
            restored = replace(restored, not_restored=(*restored.not_restored, *more))
            await self._recorder.note_versions(kernel)
        except BaseException:
            if kernel is not None:
                await asyncio.shield(kernel.stop())
            raise
        return kernel, restored

    async def adopt(self, kernel: Kernel, handlers: Handlers) -> None:
        """Take a kernel that has been started for whoever comes, and has nothing to restore. Raises KernelDied.

        Its versions have been noted with the session.
        """
        await kernel.adopt(handlers, self._limits, self._durable)
        self._budget = kernel.budget

    @property
    def has_suspect(self) -> bool:
        """Whether a component is suspected of having killed the last kernel."""
        return self._suspect is not None

    async def note_death(self, error: KernelDied) -> None:
        """Skip what killed the kernel when it was loaded: once may be anybody's kill -9, twice is the component."""
        if error.loading is not None and error.loading == self._suspect:
            await self._recorder.block(error.loading, results.deadly(error))
        self._suspect = error.loading

    def loaded(self, key: int | None) -> None:
        """A component that waited has been loaded."""
        if key == self._suspect:
            self._suspect = None
