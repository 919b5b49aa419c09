"""One client, one session, processes that die: what was acknowledged is there once, what was not is not there."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import Client

from kernelrepl import discovery
from tests.faults.keeper import ROOT
from tests.faults.points import FAULT, KEEPER_POINTS, LATE, arm

DEADLINE_S = 60.0
"""A deadline, not a measurement: what takes longer hangs."""
MOST_CELLS = 12
"""Within so many cells every armed fault is reached: the third cell that stages is at most the ninth."""

SETUP = """
import os, signal
import numpy as np
n = 0
log = []
last = 0
big = np.arange(400_000.0)

def ran(number):
    with open({ran!r}, "a") as file:
        file.write(f"{{number}}\\n")

def look():
    whole = bool((big == np.arange(400_000.0) + big[0]).all())
    with open({seen!r}, "w") as file:
        file.write(repr({{"n": n, "log": log, "last": last, "big": int(big[0]), "whole": whole}}))
"""
CELL = "n += 1; log.append({i}); last = {i}; ran({i})"
BIG = "; big = np.arange(400_000.0) + {i}"
SUICIDE = "; os.kill(os.getpid(), signal.SIGKILL)"


class Keepers:
    """The keepers of one data directory: faulty ones are started here, others by the proxy when one is missing."""

    def __init__(self, environ: dict[str, str], data_dir: Path, fault_file: Path) -> None:
        self.environ = environ
        self.data_dir = data_dir
        self.fault_file = fault_file
        self._faulty: subprocess.Popen[bytes] | None = None

    @property
    def faulty(self) -> bool:
        """Whether the keeper that runs can be ended at a point."""
        return self._faulty is not None

    async def start_faulty(self, *, late: bool = False) -> None:
        """Put a faulty keeper in the place of the one that runs, if one does, before a proxy can start another."""
        with self._nobody_starts_one():
            await self._end_current()
            self._faulty = await self._start(late)

    @contextlib.contextmanager
    def _nobody_starts_one(self) -> Iterator[None]:
        descriptor = os.open(self.data_dir / "start.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    async def _end_current(self) -> None:
        found = discovery.read_keeper(self.data_dir)
        if found is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found["pid"], signal.SIGKILL)
            assert await asyncio.to_thread(discovery.wait_for_end, found["pid"], DEADLINE_S)
        self.close()

    async def _start(self, late: bool) -> subprocess.Popen[bytes]:
        read_end, write_end = os.pipe()
        ready = os.fdopen(read_end)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.faults.keeper", "--ready-fd", str(write_end)],
                stdin=subprocess.DEVNULL,
                pass_fds=(write_end,),
                start_new_session=True,
                cwd="/",
                env={**self.environ, FAULT: str(self.fault_file), **({LATE: "1"} if late else {})},
            )
        finally:
            os.close(write_end)
        with ready:
            line = await asyncio.wait_for(asyncio.to_thread(ready.readline), DEADLINE_S)
        assert json.loads(line) == {"ok": True}, line
        return process

    def close(self) -> None:
        """End the faulty keeper, if one is left, and take note of its end."""
        if self._faulty is not None:
            self._faulty.kill()
            self._faulty.wait()
            self._faulty = None


def shared(path: Path) -> Path:
    """A directory that test, keeper and kernels write to, whoever they run as."""
    found = path / "shared"
    found.mkdir(exist_ok=True)
    found.chmod(0o777)
    return found


@contextlib.asynccontextmanager
async def keepers(environ: dict[str, str], data_dir: Path, fault_file: Path) -> AsyncIterator[Keepers]:
    """Keepers whose faulty one is gone afterwards. Every keeper gets the same import path for its kernels."""
    environ["PYTHONPATH"] = str(ROOT)
    environ["KERNELREPL_ALLOW_WRITE"] = str(fault_file.parent)
    found = Keepers(environ, data_dir, fault_file)
    try:
        yield found
    finally:
        found.close()


@dataclass
class Expected:
    """The session as the replies say it must be."""

    log: list[int] = field(default_factory=list)
    big: int = 0

    def acknowledge(self, i: int, big: bool) -> None:
        """Cell i is stored."""
        self.log.append(i)
        if big:
            self.big = i

    def namespace(self) -> dict[str, Any]:
        """What `look` must see."""
        last = self.log[-1] if self.log else 0
        return {"n": len(self.log), "log": self.log, "last": last, "big": self.big, "whole": True}


class Trial:
    """Runs numbered cells through one client, kills what is between it and the database, and compares."""

    def __init__(self, client: Client, keepers: Keepers, directory: Path, label: str) -> None:
        self.expected = Expected()
        self.replies: dict[str, tuple[str, bool]] = {}
        """Status and `committed` of each numbered cell, by its code."""
        self._client = client
        self._keepers = keepers
        self._label = label
        self._ran = directory / "ran"
        self._seen = directory / "seen"
        self._i = 0
        self._fault = "none"

    async def begin(self) -> None:
        """Make the session, with an empty log."""
        self._ran.touch()
        self._ran.chmod(0o666)
        reply = await self._run(SETUP.format(ran=str(self._ran), seen=str(self._seen)))
        self._check(reply["status"] == "ok" and reply["committed"], f"the set-up failed: {reply}")

    async def survive(self, point: str, nth: int) -> None:
        """Run cells until a process has ended at the nth pass of a point, and then some."""
        self._fault = f"{point}:{nth}"
        if not self._keepers.faulty:
            await self._keepers.start_faulty()
        arm(self._keepers.fault_file, point, nth)
        for _ in range(MOST_CELLS):
            # A restore needs a kernel that has ended.
            await self.cell(SUICIDE if point == "mid_restore" else "")
            if not self._keepers.fault_file.exists():
                break
            if point == "mid_restore":
                await self.cell()
                if not self._keepers.fault_file.exists():
                    break
        else:
            self._check(False, "no process came to this point")
        if point in KEEPER_POINTS:
            self._keepers.close()  # it ended; the proxy has started another one since
        await self.compare()
        await self.cell()
        await self.compare()

    async def cell(self, end: str = "") -> None:
        """Run one numbered cell and take note of what its reply promises."""
        self._i += 1
        i, big = self._i, self._i % 3 == 0
        code = (CELL + (BIG if big else "")).format(i=i) + end
        reply = await self._run(code)
        status, committed = reply["status"], reply["committed"]
        self._check((status, committed) in (("ok", True), ("crashed", False)), f"cell {i} gave {reply}")
        self.replies[code] = (status, committed)
        if committed:
            self.expected.acknowledge(i, big)

    async def _run(self, code: str) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            result = await self._client.call_tool("python_repl", {"code": code, "session_id": "s"})
        self._check(not result.is_error, f"{code!r} was refused: {result.content}")
        reply = result.structured_content
        assert reply is not None
        self._check(not reply["not_saved"], f"a value was not saved: {reply}")
        lost = reply["restored"] and reply["restored"]["not_restored"]
        self._check(not lost, f"lost at a restore: {lost}")
        return dict(reply)

    async def compare(self) -> None:
        """Compare namespace, rows and effects outside with what the replies said. Raises AssertionError."""
        self._seen.unlink(missing_ok=True)
        reply = await self._run("look()")
        self._check(reply["status"] == "ok", f"the namespace is torn: {reply}")
        self._compare_namespace(ast.literal_eval(self._seen.read_text()))
        self._compare_rows()
        self._compare_effects()

    def _compare_namespace(self, found: dict[str, Any]) -> None:
        log, expected = found["log"], self.expected.log
        lost = [i for i in expected if i not in log]
        self._check(not lost, f"acknowledged and lost: {lost}")
        doubled = sorted({i for i in log if log.count(i) > 1})
        self._check(not doubled, f"doubled: {doubled}")
        ghosts = [i for i in log if i not in expected]
        self._check(not ghosts, f"not acknowledged and yet there: {ghosts}")
        self._check(found == self.expected.namespace(), f"a mixture: {found}, not {self.expected.namespace()}")

    def _compare_rows(self) -> None:
        uri = f"{(self._keepers.data_dir / 'python_sessions.db').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            rows = db.execute("SELECT code, status, commit_id IS NOT NULL FROM executions").fetchall()
        numbered = [row for row in rows if row[0] in self.replies]
        found = {code: (status, bool(committed)) for code, status, committed in numbered}
        self._check(len(numbered) == len(found), "an execution has two rows")
        wrong = {code: (said, found.get(code)) for code, said in self.replies.items() if found.get(code) != said}
        self._check(not wrong, f"rows differ from replies: {wrong}")

    def _compare_effects(self) -> None:
        ran = [int(line) for line in self._ran.read_text().split()]
        twice = sorted({i for i in ran if ran.count(i) > 1})
        self._check(not twice, f"ran twice: {twice}")
        never = [i for i in self.expected.log if i not in ran]
        self._check(not never, f"acknowledged, but never ran: {never}")

    def _check(self, holds: bool, message: str) -> None:
        assert holds, f"{message} ({self._label}, fault {self._fault}, after cell {self._i})"
