"""Where an attempt is made: a manager with confined kernels, targets of the host, and a look at both afterwards."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from kernelrepl.errors import KernelReplError
from kernelrepl.keeper.metrics import Metrics
from kernelrepl.kernel import spawn
from kernelrepl.kernel.process import Launcher
from kernelrepl.model import ExecutionResult, Resources
from kernelrepl.sessions.capacity import KernelCapacity
from kernelrepl.sessions.confinement import base_environment
from kernelrepl.sessions.manager import Manager
from kernelrepl.sessions.services import Services
from kernelrepl.store import Store
from kernelrepl.workspaces import removal
from tests.attacks.as_user import FORKED, ROOT
from tests.attacks.attempt import NO_KERNEL, Attempt, Outcome
from tests.attacks.configurations import UNCONFINED, Arranged, Configuration, tier_of
from tests.attacks.targets import Targets
from tests.conftest import Sessions, ignore, processes_of
from tests.support.forking import forking

SECRET = "ATTACKED_SECRET"
"""A variable of the keeper's environment that no session may see."""
_INSIDE = (Path(__file__).parent / "inside.py").read_text()
_TIMEOUT_S = 60.0


class Arena:
    """Sessions, and what they attack."""

    def __init__(self, sessions: Sessions, targets: Targets, resources: Resources) -> None:
        self.sessions = sessions
        self.targets = targets
        self.manager = sessions.manager
        self.resources = resources
        self.more: dict[str, Any] = {}
        """What else code in a session is told."""

    async def outcome(self, code: str, session_id: str = "s") -> str:
        """Run code in a session; what it says, or what ended it."""
        return self.said(await self.execution(code, session_id))

    async def execution(self, code: str, session_id: str = "s") -> ExecutionResult:
        """Run code in a session that knows what it may reach for."""
        confinement = self.manager.confinement
        assert confinement.tier is not None
        places = {"data": str(self.manager.data_dir), "runtime": str(confinement.runtime_dir)}
        told = _told({**self.targets.known(), **places, "tier": confinement.tier.number, **self.more})
        return await self.sessions.run(told + code, session_id, resources=self.resources)

    def said(self, execution: ExecutionResult) -> str:
        """What an execution says, or what ended it."""
        if execution.status != "ok" or execution.output.result is None:
            error = execution.output.error
            return f"{execution.status}: {error.name}: {error.message}" if error is not None else execution.status
        return str(ast.literal_eval(execution.output.result))

    def workspace(self, session_id: str) -> Path:
        """Where the host has it."""
        return self.manager.loaded()[session_id].launch.workspace

    def kernel(self, session_id: str) -> Any:
        """The live kernel of a session."""
        kernel = self.manager.loaded()[session_id].slot.kernel
        assert kernel is not None
        return kernel


def _told(known: Mapping[str, Any]) -> str:
    return f"{_INSIDE}\nimport types\nhost = types.SimpleNamespace(**{dict(known)!r})\n"


@contextlib.asynccontextmanager
async def starts() -> AsyncIterator[Launcher]:
    """How kernels start: each as an interpreter of its own, or all forked from one process."""
    if FORKED not in os.environ:
        yield spawn
        return
    async with forking() as fork:  # an attempt may kill that one, too: then it is a cold start
        yield fork


@contextlib.asynccontextmanager
async def arena(configuration: Configuration, resources: Resources) -> AsyncIterator[Arena]:
    """One for each attempt. Everything it made is gone afterwards, and if not it is said."""
    base = Path(tempfile.mkdtemp(prefix="ka-"))
    runtime_dir = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
    data_dir = base / "data"
    data_dir.mkdir(mode=0o700)
    store = Store(data_dir / "python_sessions.db")
    try:
        store.open()
        environment = base_environment({**os.environ, "PYTHONPATH": str(ROOT)}, base / "cache")
        own = (data_dir, runtime_dir)
        confinement = Arranged(
            tier_of(configuration), sys.executable, runtime_dir, own, environment, configuration=configuration
        )
        async with starts() as launcher:
            manager = Manager(data_dir, confinement, Services(launcher, store, ignore, KernelCapacity(ignore)))
            with Targets() as targets:
                try:
                    yield Arena(Sessions(manager, store, Metrics()), targets, resources)
                finally:
                    await manager.close()
    finally:
        store.close()
        shutil.rmtree(runtime_dir, ignore_errors=True)
        removal.remove(base)


async def carry_out(attempt: Attempt, configuration: Configuration) -> Outcome:
    """Make one attempt, in sessions that nobody used before."""
    if configuration == UNCONFINED:
        return _control(attempt)
    os.environ[SECRET] = SECRET
    async with arena(configuration, attempt.resources) as ground:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if isinstance(attempt.code, str):
                    said = await ground.outcome(attempt.code)
                else:
                    said = await attempt.code(ground)
        except KernelReplError as error:
            said = f"{NO_KERNEL}: {type(error).__name__}: {error}"[:1000]
        except TimeoutError:
            said = "it hangs"
        disturbed = ground.targets.disturbed()
        data_dir = ground.manager.data_dir
    left = [f"a process is left: {process.pid}" for process in processes_of(data_dir)]
    return Outcome(attempt.name, said, (*disturbed, *left))


def _control(attempt: Attempt) -> Outcome:
    """The same in a process that nothing confines: if it fails there too, it proves nothing."""
    assert attempt.control, attempt.name
    assert isinstance(attempt.code, str), attempt.name
    assert os.geteuid() != 0, "root could do harm"
    *body, last = ast.parse(attempt.code).body
    code = "\n".join([*map(ast.unparse, body), f"print({ast.unparse(last)})"])
    with Targets() as targets, tempfile.TemporaryDirectory(prefix="ka-") as place:
        command = [sys.executable, "-c", _told({**targets.known(), "tier": 0}) + code]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        return Outcome(attempt.name, done.stdout.strip() or done.stderr[-300:])
