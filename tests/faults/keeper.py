"""A keeper that can be ended around the publishing of a commit, and whose kernels are those of `guest`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from kernelrepl.keeper.run import run
from kernelrepl.kernel import Launch, spawn
from kernelrepl.kernel.process import Process
from kernelrepl.mcp.server import ClientHandler
from kernelrepl.model import Commit, ExecutionResult
from kernelrepl.sessions import manager
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.session import Session
from kernelrepl.store import Store
from tests.faults.points import FAULT, LATE, reach

ROOT = Path(__file__).resolve().parents[2]


class FaultyStore(Store):
    """Ends the process before or after a commit is in the database."""

    async def publish(self, *args: Any) -> int:
        """Publish, unless a fault is due."""
        reach("before_publish")
        size = await super().publish(*args)
        reach("after_publish")
        return size


class CredulousSession(Session):
    """Goes with a guest that commits late: believes a reply without a commit, and takes the commit afterwards."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._believed: dict[str, Execution] = {}

    def _result(self, job: Execution) -> ExecutionResult:
        if job.commit is not None:
            return super()._result(job)
        self._believed[job.msg_id] = job
        return ExecutionResult(
            self.session_id, "ok", job.live.output(), committed=True, restored=job.restored, request_id=job.request_id
        )

    async def on_commit(self, commit: Commit) -> None:
        await self._recorder.publish(self._believed.pop(commit.request), commit)


async def launch(plan: Launch) -> Process:
    """Start a faulty guest."""
    names = (FAULT, LATE)
    faults = {name: os.environ[name] for name in names if name in os.environ}
    environment = {**plan.environment, "PYTHONPATH": str(ROOT), **faults}
    return await spawn(dataclasses.replace(plan, module="tests.faults.guest", environment=environment))


def main() -> int:
    """Serve like `kernelrepl keeper`, with the seams replaced."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ready-fd", type=int, required=True)
    ready_fd = parser.parse_args().ready_fd
    if LATE in os.environ:
        manager.Session = CredulousSession  # type: ignore[attr-defined]
    return run(ClientHandler(), ready_fd, launcher=launch, make_store=FaultyStore)


if __name__ == "__main__":
    sys.exit(main())
