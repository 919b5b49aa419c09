"""Our sessions through the Python API, with a keeper, a data directory and a home of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from kernelrepl.client import tools
from kernelrepl.discovery import PREFIX
from kernelrepl.errors import KernelReplError
from tests.benchmarks.checkpointing.options import Options
from tests.benchmarks.checkpointing.series import Series, Side, Trouble, enough, growth, megabytes
from tests.benchmarks.checkpointing.states import ADD, LOOP, State
from tests.benchmarks.session import Place, bare_kernel

STATE, EMPTY = "state", "empty"
LIFTED = ("MAX_VARIABLE_BYTES", "MAX_SESSION_BYTES", "MAX_MEMORY_BYTES")
SAVE_DEADLINE_S = 300
READY_S = 60.0
WHO = "open('/proc/self/stat').read().rpartition(')')[2].split()[19] + ' ' + str(__import__('os').getpid())"
"""When the kernel's process began, and its number in its own namespace."""
DIGEST_BYTES = 32
_STORED = "SELECT data, digests FROM components WHERE to_commit IS NULL AND session = ?"


@contextlib.asynccontextmanager
async def keeper(directory: Path) -> AsyncIterator[Place]:
    """A keeper that the API of this process finds, with lifted limits; ended by its process id."""
    place = Place(directory)
    place.environment["HOME"] = str(place.short / "home")
    Path(place.environment["HOME"]).mkdir()
    place.environment |= {PREFIX + name: "unlimited" for name in LIFTED}
    place.environment[PREFIX + "SAVE_DEADLINE_S"] = str(SAVE_DEADLINE_S)
    before = dict(os.environ)
    os.environ.update(place.environment)
    try:
        yield place
    finally:
        await tools.close()
        os.environ.clear()
        os.environ.update(before)
        await asyncio.to_thread(place.close)


class Ours:
    """Calls of one state and of an empty session beside it."""

    def __init__(self, place: Place, side: Side, state: State, options: Options) -> None:
        self._place, self._side, self._state, self._options = place, side, state, options
        self._turn = 0

    async def call(self, code: str, session: str = STATE, limit_s: float | None = None) -> tuple[Any, float]:
        """A result and the milliseconds that it took. Raises Trouble."""
        limit_s = limit_s or self._options.limit_s
        try:
            async with asyncio.timeout(limit_s):
                began = time.perf_counter()
                result = await tools.python_repl(code, session_id=session)
                spent = (time.perf_counter() - began) * 1000
        except TimeoutError as error:
            raise Trouble(f"took over {limit_s:.0f} s, was interrupted") from error
        except KernelReplError as error:
            raise Trouble(f"{type(error).__name__}: {error}"[:300]) from error
        if result["status"] != "ok" or not result["committed"]:
            raise Trouble(f"{result['status']}, committed: {result['committed']}: {result['error']}"[:300])
        for missed in result["not_saved"]:
            self._side.note(f"{missed['name']} was not saved: {missed['reason']}")
        return result, spent

    async def _pair(self, series: Series, code: str, limit_s: float | None = None) -> None:
        """A cell of the state and a cheap one of the empty session, in turns first."""
        self._turn += 1
        if self._turn % 2:
            series.empty.append((await self.call(ADD, EMPTY))[1])
        result, spent = await self.call(code, limit_s=limit_s)
        series.total.append(spent)
        series.cell.append(result["duration_s"] * 1000)
        series.part.append(spent - series.cell[-1])
        if not self._turn % 2:
            series.empty.append((await self.call(ADD, EMPTY))[1])

    def size(self) -> float:
        """The database with its log and whatever else is kept, without the files of the sessions."""
        return megabytes(self._place.data, "workspaces")

    async def cells(self) -> dict[str, str]:
        """Build the state and run what is measured; returns what a restore must bring back."""
        state, options = self._state, self._options
        series = self._kind("build")
        for session in (EMPTY, STATE):  # so that the start of a kernel is not counted
            await self.call("x = 0", session, options.build_limit_s)
        with growth(series, self.size):
            for code in state.build:
                await self._pair(series, code, options.build_limit_s)
        for name in (name for name in state.cells if name in options.cells):
            series = self._kind(name)
            codes = state.codes(name)
            try:
                with growth(series, self.size):
                    while not enough(series, options.repeats or state.repeats, options.budget_s):
                        await self._pair(series, next(codes))
            except Trouble as trouble:
                series.trouble = str(trouble)
        if "mixed" in options.cells and state.mixed:
            series = self._kind("mixed")
            one, two = await self._spent(), await self._spent()  # asking is a cell as well, and has a commit
            try:
                with growth(series, self.size):
                    for _, code in state.sequence():
                        if enough(series, state.mixed, options.mixed_budget_s):
                            break
                        await self._pair(series, code)
            except Trouble as trouble:
                series.trouble = str(trouble)
            series.commits_ms = max(await self._spent() - two - (two - one), 0.0)
        return {code: (await self.call(code))[0]["result"] for code in (*state.checks, state.needs)}

    async def _spent(self) -> float:
        """How long the commits of the session have taken in its kernel, in milliseconds."""
        result, _ = await self.call("get_ipython().kernel.saving.spent_s")
        return float(result["result"]) * 1000

    def _kind(self, name: str) -> Series:
        self._side.cells[name] = Series()
        return self._side.cells[name]

    async def restore(self, expected: dict[str, str]) -> None:
        """Kill the kernel, and time what the next calls take; then read what is stored, as a measure of the disk."""
        times = self._side.restore
        needs = self._state.needs
        for _ in range(self._options.restores_of(self._state.size_bytes)):
            await self._kill(EMPTY)
            _, spent = await self.call("1 + 1", EMPTY, self._options.build_limit_s)
            times.setdefault("empty", []).append(spent)
            await self._kill(STATE)
            for name, code in (("first", "1 + 1"), ("needs", needs), ("again", needs)):
                _, spent = await self.call(code, limit_s=self._options.build_limit_s)
                times.setdefault(name, []).append(spent)
            found = {code: (await self.call(code))[0]["result"] for code in expected}
            for code, value in found.items():
                if value != expected[code]:
                    self._side.note(f"after the restore {code} is {value}, not {expected[code]}")
            try:
                spent, size = await asyncio.to_thread(read_stored, self._place.data / "python_sessions.db")
            except sqlite3.Error as error:
                self._side.note(f"what is stored could not be read: {error}")
                continue
            times.setdefault("stored bytes", []).append(spent)
            times.setdefault("stored MB", []).append(size)

    async def _kill(self, session: str) -> None:
        """SIGKILL for a kernel's process, which is known by its start and its own number."""
        result, _ = await self.call(WHO, session)
        start, number = result["result"].strip("'").split()
        found = [pid for pid in self._below_keeper() if _identity(pid) == (start, number)]
        if len(found) != 1:
            raise Trouble(f"the kernel's process was not found among {len(found)}")
        os.kill(found[0], signal.SIGKILL)
        await asyncio.to_thread(
            psutil.wait_procs, [psutil.Process(found[0])] if psutil.pid_exists(found[0]) else [], 10
        )

    def _below_keeper(self) -> list[int]:
        return [child.pid for child in psutil.Process(self._place.keeper_pid()).children(recursive=True)]

    async def loops(self) -> None:
        """A loop of the user in the session and in a bare kernel, in turns."""
        ours = self._side.loops.setdefault("own", [])
        bare = self._side.loops.setdefault("bare ipykernel", [])

        async def here() -> None:
            ours.append(float((await self.call(LOOP))[0]["result"]))

        async with bare_kernel(self._place, "loop") as (_, client):
            await client.wait_for_ready(timeout=READY_S)

            async def there() -> None:
                request = client.execute(LOOP, user_expressions={"spent": "spent"})
                message: dict[str, Any] = {"parent_header": {}}
                while message["parent_header"].get("msg_id") != request:  # answers to earlier questions
                    message = await client.get_shell_msg(timeout=READY_S)
                bare.append(float(message["content"]["user_expressions"]["spent"]["data"]["text/plain"]))

            for turn in range(self._state.loop):
                for run in (here, there) if turn % 2 else (there, here):
                    await run()


def _identity(pid: int) -> tuple[str, str]:
    """When a process began, and its number in the innermost namespace."""
    try:
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "", ""
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return start, numbers.split()[-1]


def read_stored(database: Path) -> tuple[float, float]:
    """Read the stored bytes of the session and write them into memory: milliseconds and MB."""
    began = time.perf_counter()
    memory = os.memfd_create("stored")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            ((session,),) = db.execute("SELECT id FROM sessions WHERE session_id = ?", [STATE]).fetchall()
            for data, digests in db.execute(_STORED, [session]).fetchall():
                if data is not None:
                    os.write(memory, data)
                for at in range(0, len(digests or b""), DIGEST_BYTES):
                    digest = digests[at : at + DIGEST_BYTES]
                    ((chunk,),) = db.execute("SELECT data FROM chunks WHERE digest = ?", [digest]).fetchall()
                    os.write(memory, chunk)
        return (time.perf_counter() - began) * 1000, os.fstat(memory).st_size / 1e6
    finally:
        os.close(memory)


async def measure(state: State, options: Options, directory: Path) -> Side:
    """Everything about one state. What does not work is noted, not raised."""
    side = Side("ours")
    async with keeper(directory) as place:
        ours = Ours(place, side, state, options)
        try:
            expected = await ours.cells()
            if "loop" in options.cells and state.loop:
                await ours.loops()
            if "restore" in options.cells:
                await ours.restore(expected)
        except Trouble as trouble:
            side.note(str(trouble))
        except Exception as error:  # noqa: BLE001 - the other states are measured all the same
            side.note(f"{type(error).__name__}: {error}")
    return side
