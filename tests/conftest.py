"""Fixtures: real parts in directories of their own, gone without a trace after each test."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

from kernelrepl import discovery
from kernelrepl.keeper.metrics import Metrics
from kernelrepl.kernel import spawn
from kernelrepl.kernel.process import Launcher
from kernelrepl.model import ExecutionResult, Limits, Resources, StoredComponent
from kernelrepl.packages import Packages
from kernelrepl.sandbox import Tier, probe
from kernelrepl.sessions.capacity import KernelCapacity
from kernelrepl.sessions.confinement import Confinement, Grants, base_environment
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.manager import Manager, Origin
from kernelrepl.sessions.services import Services
from kernelrepl.sessions.session import Session
from kernelrepl.store import Store, seals
from kernelrepl.store.database import Database
from tests.support.forking import forking

pytest_plugins = ["tests.flakes"]

RUN_TIMEOUT_S = 180.0
"""A deadline, not a measurement: what takes longer hangs."""

COLD = pytest.mark.parametrize("launcher", [pytest.param(spawn, id="cold")])
"""On a test whose kernels have to start as interpreters of their own: in another environment than the zygote's."""

settings.register_profile("kernelrepl", deadline=None)
settings.load_profile("kernelrepl")


@pytest.hookimpl(trylast=True)  # after pytest has put together what shares a parametrized fixture
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each worker of xdist its share of the slow tests, so that none is left for the end.

    `--dist worksteal` gives each an equal part of the list to begin with, and takes away only from the ends of these
    parts. The slow ones come after a quarter of each: the lanes that run beside the tests of the gate are short.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    dealt: list[pytest.Item] = []
    for number in range(workers):
        share = slow[number::workers]
        others = max((len(items) - len(dealt)) // (workers - number) - len(share), 0)
        part, rest = rest[:others], rest[others:]
        dealt += [*part[: others // 4], *share, *part[others // 4 :]]
    if workers:
        items[:] = [*dealt, *rest]


def pytest_configure() -> None:
    """Let what tests start notice Ctrl-C: where a shell has started the tests in the background, it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """Short, because socket paths are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def environ(data_dir: Path, runtime_dir: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a program that uses its own keeper; that keeper is gone afterwards.

    Its kernels start cold: a zygote takes a keeper longer than most of these tests take.
    """
    home = tmp_path / "home"
    home.mkdir()
    yield {**environment_of(data_dir, runtime_dir, home), "KERNELREPL_WARM_START": "off"}
    end_keeper(data_dir)
    assert_nothing_left(data_dir)


@pytest.fixture(scope="module")
def shared_environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The same for all tests of a module: one keeper, many sessions."""
    base = tmp_path_factory.mktemp("shared")
    data_dir, home = base / "data", base / "home"
    data_dir.mkdir(mode=0o700)
    home.mkdir()
    runtime_dir = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
    yield environment_of(data_dir, runtime_dir, home)
    end_keeper(data_dir)
    shutil.rmtree(runtime_dir, ignore_errors=True)
    assert_nothing_left(data_dir)


def environment_of(data_dir: Path, runtime_dir: Path, home: Path) -> dict[str, str]:
    """As little as an MCP host gives, directories of its own, and kernels only for those who ask."""
    return {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "KERNELREPL_DATA_DIR": str(data_dir),
        "KERNELREPL_RUNTIME_DIR": str(runtime_dir),
        "KERNELREPL_STANDBY": "0",  # what is there does not depend on how long a test takes
    }


def end_keeper(data_dir: Path) -> None:
    """End the keeper of a data directory, if there is one, and wait until it is gone."""
    found = discovery.read_keeper(data_dir)
    if found is None:
        return
    try:
        process = psutil.Process(found["pid"])
        if "keeper" not in process.cmdline():
            return  # a stale file, and its number belongs to somebody else by now
        process.terminate()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return
    psutil.wait_procs([process], timeout=RUN_TIMEOUT_S)


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Every process whose working directory or environment belongs to a data directory.

    Almost every test asks this in the end, of all processes that there are: each costs two system calls.
    """
    told = f"\0KERNELREPL_DATA_DIR={data_dir}\0".encode()
    places = {_identity(directory) for directory in (data_dir, *(data_dir / "workspaces").glob("*"))} - {None}
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.NoSuchProcess):
            if _identity(Path(f"/proc/{pid}/cwd")) in places or told in _environment(pid):
                found.append(psutil.Process(pid))
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    """What two paths to the same directory have in common. None if there is none: a zombie works nowhere."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _environment(pid: int) -> bytes:
    """The environment of a process, each entry between two null bytes. Nothing of one that ended, or is another's."""
    with contextlib.suppress(OSError):
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
    return b""


def works_in(process: psutil.Process, *directories: Path) -> bool:
    """Whether a process works in one of these directories, whatever path it sees it under."""
    place = _identity(Path(f"/proc/{process.pid}/cwd"))
    return place is not None and any(_identity(directory) == place for directory in directories)


def assert_nothing_left(data_dir: Path) -> None:
    """No process of a data directory may outlive its test."""
    _, alive = psutil.wait_procs(processes_of(data_dir), timeout=10)
    names = [process.cmdline() for process in alive]
    for process in alive:
        process.kill()
    assert not names


@functools.cache
def this_tier() -> Tier:
    """What confines kernels on this machine: all tests run so."""
    with tempfile.TemporaryDirectory(prefix="kr-") as directory:
        tier = probe(sys.executable, base_environment(os.environ, Path(directory)), Path(directory))
    assert tier.number, tier.why
    return tier


async def stored_bytes(store: Store, component: StoredComponent) -> bytes:
    """The bytes of a component, as a kernel gets them. Fails the test if some are missing."""
    assert not await store.missing([component])
    found = bytearray()
    portion = bytearray(1000)

    def write(data: memoryview, offset: int) -> None:
        portion[offset : offset + len(data)] = data

    async for size, intact in store.pour([component], write, len(portion)):
        assert intact
        found += portion[:size]
    return bytes(found)


async def change(store: Store, job: Callable[[Database], Any]) -> None:
    """Write to the database behind the keeper's back, as if it had always been so: what the disk changes is noticed."""

    def sealed(db: Database) -> None:
        job(db)
        seals.seal_all(db)

    await store._writer.run(sealed)


class Sessions:
    """A manager in this process, used the way a server uses it."""

    def __init__(self, manager: Manager, store: Store, metrics: Metrics) -> None:
        self.manager = manager
        self.metrics = metrics
        self.store = store

    async def submit(self, code: str, session_id: str = "s", **options: Any) -> tuple[Session, Execution]:
        """Start code; returns at once."""
        grants = Grants(
            options.pop("limits", Limits()),
            options.pop("python", None),
            resources=options.pop("resources", Resources()),
            read=options.pop("read", ()),
            write=options.pop("write", ()),
        )
        options.setdefault("request_id", secrets.token_hex(8))
        handle = await self.manager.execute(code, session_id, Origin("test", grants), **options)
        assert handle.session is not None
        return handle.session, handle.execution

    async def run(self, code: str, session_id: str = "s", **options: Any) -> ExecutionResult:
        """Run code to its end."""
        _, job = await self.submit(code, session_id, **options)
        return await asyncio.wait_for(asyncio.shield(job.result), RUN_TIMEOUT_S)

    async def value(self, expression: str, session_id: str = "s") -> str | None:
        """The repr of an expression. Fails the test if it raises."""
        execution = await self.run(expression, session_id)
        assert execution.status == "ok", execution.output.error
        return execution.output.result

    async def kill(self, session_id: str = "s") -> None:
        """kill -9 of the session's kernel."""
        session = self.manager.loaded()[session_id]
        assert session.slot.kernel is not None
        await session.slot.kernel.process.kill()

    async def rows(self, query: str, *parameters: Any) -> list[Any]:
        return await self.store._reader.run(lambda db: db.execute(query, parameters).fetchall())


@pytest.fixture
def make_store() -> type[Store]:
    """What `sessions` keeps its state in; a test that needs another store puts it here by parametrization."""
    return Store


@pytest.fixture
async def launcher() -> AsyncIterator[Launcher]:
    """What starts the kernels of `sessions`: by fork, as a keeper does. COLD is another one."""
    async with forking() as launcher:
        yield launcher


def ignore(event: str, **data: object) -> None:
    """Nobody looks at what is observed."""


@contextlib.asynccontextmanager
async def serving(
    data_dir: Path,
    runtime_dir: Path,
    cache: Path,
    launcher: Launcher,
    make_store: type[Store] = Store,
    packages: Packages | None = None,
) -> AsyncIterator[Sessions]:
    """Real kernels, a real database, no keeper process in between."""
    store = make_store(data_dir / "python_sessions.db")
    store.open()
    environment = base_environment(os.environ, cache)
    tier = await asyncio.to_thread(this_tier)
    metrics = Metrics()
    confinement = Confinement(tier, sys.executable, runtime_dir, (data_dir, runtime_dir), environment)
    services = Services(launcher, store, metrics, KernelCapacity(metrics), packages or Packages())
    manager = Manager(data_dir, confinement, services)
    yield Sessions(manager, store, metrics)
    await manager.close()
    store.close()


@pytest.fixture
def packages() -> Packages:
    """What installs packages for `sessions`. A module whose sessions get some has a fixture of its own."""
    return Packages()


@pytest.fixture
async def sessions(
    data_dir: Path,
    runtime_dir: Path,
    tmp_path: Path,
    make_store: type[Store],
    launcher: Launcher,
    packages: Packages,
) -> AsyncIterator[Sessions]:
    """Sessions of a test, and no process of theirs afterwards."""
    async with serving(data_dir, runtime_dir, tmp_path / "cache", launcher, make_store, packages) as served:
        yield served
    assert_nothing_left(data_dir)
