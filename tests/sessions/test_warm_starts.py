"""Kernels that are forked from a warm process: like any other, only sooner."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import mmap
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kernelrepl.errors import SandboxUnavailable
from kernelrepl.kernel import Launch, WarmLauncher, spawn
from kernelrepl.kernel.process import Process
from kernelrepl.kernel.zygote import Zygote, ZygoteFailed
from kernelrepl.model import Resources
from kernelrepl.sessions.confinement import Grants
from tests.conftest import RUN_TIMEOUT_S, Sessions

pytestmark = pytest.mark.anyio

MADV_COLLAPSE = 25


class Watched:
    """Starts kernels as it is told, and knows how each was started."""

    def __init__(self, warm: WarmLauncher) -> None:
        self.warm = warm
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, event: str, **data: Any) -> None:
        self.events.append((event, data))

    async def __call__(self, launch: Launch) -> Process:
        await self.warm.warm(launch.python, launch.environment)
        return await self.warm(launch)

    def zygotes(self) -> list[int]:
        return [zygote.pid for zygote in self.warm._zygotes.values()]


@pytest.fixture
def preload() -> tuple[str, ...]:
    return ("json",)


@pytest.fixture
async def launcher(preload: tuple[str, ...]) -> AsyncIterator[Watched]:
    """Forks; here its `events` can be seen."""
    events: list[tuple[str, dict[str, Any]]] = []
    watched = Watched(WarmLauncher(preload, lambda event, **data: events.append((event, data))))
    watched.events = events
    yield watched
    await watched.warm.close()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = parent(pid)
        found.append(pid)
    return found


def pid_of(sessions: Sessions, session_id: str = "s") -> int:
    pid = sessions.manager.loaded()[session_id].pid
    assert pid is not None
    return pid


LOOK = """
import os, sys, signal, threading, json, resource, gc, random, warnings, tempfile, platform
print(json.dumps({
    "names": sorted(name for name in globals() if not name.startswith("__")),
    "hidden": sorted(get_ipython().user_ns_hidden),
    "inputs": len(In), "outputs": dict(Out), "count": get_ipython().execution_count,
    "main": __name__, "doc": __doc__, "cwd": os.getcwd(), "listing": os.listdir("."),
    "environment": dict(sorted(os.environ.items())),
    "descriptors": sorted(os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
                          for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")),
    "threads": sorted(thread.name for thread in threading.enumerate()),
    "native": len(os.listdir("/proc/self/task")),
    "signals": [str(signal.getsignal(n)).split(" at ")[0] for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    "limits": [resource.getrlimit(getattr(resource, n))
               for n in sorted(dir(resource)) if n.startswith("RLIMIT_") and n != "RLIMIT_DATA"],
    "host": platform.node(), "arguments": [sys.argv, sys.orig_argv],
    "recursion": sys.getrecursionlimit(), "path": sys.path, "collects": gc.isenabled(), "threshold": gc.get_threshold(),
    "switch": sys.getswitchinterval(), "umask": os.umask(0o22), "temporary": tempfile.gettempdir(),
    "status": [line for line in open("/proc/self/status") if line.startswith(("Uid", "Gid", "Groups", "Cap", "NoNew",
               "Seccomp:", "NSpid", "SigIgn", "SigBlk", "SigCgt"))],
    "filters": [str(entry[:1]) for entry in warnings.filters],
    "log": [str(type(handler)) for handler in __import__("logging").getLogger().handlers],
    "last": [name for name in dir(sys) if name.startswith("last_")],
    "events": {name: len(found) for name, found in get_ipython().events.callbacks.items()},
    "extensions": sorted(get_ipython().extension_manager.loaded),
    "magics": len(get_ipython().magics_manager.magics["line"]),
    "before": [repr(get_ipython().last_execution_result), get_ipython().last_execution_succeeded, _ih, _oh,
               list(get_ipython().history_manager.get_range()), len(__import__("linecache").cache),
               sorted(name for name in vars(get_ipython().displayhook) if "count" in name)],
    "places": [get_ipython().profile_dir.location, get_ipython().ipython_dir],
}))
"""


async def looks(sessions: Sessions, session_id: str) -> dict[str, Any]:
    execution = await sessions.run(LOOK, session_id)
    assert execution.status == "ok", execution.output.error
    found: dict[str, Any] = json.loads(execution.output.stdout)
    return found


async def test_a_forked_kernel_finds_what_any_other_finds(sessions: Sessions, launcher: Watched) -> None:
    """Nothing of the process that it was forked from can be seen, but its modules."""
    forked = await looks(sessions, "forked")
    assert launcher.zygotes()[0] in ancestors(pid_of(sessions, "forked"))
    object.__setattr__(sessions.manager.services, "launcher", spawn)
    cold = await looks(sessions, "cold")
    assert launcher.zygotes()[0] not in ancestors(pid_of(sessions, "cold"))
    status = [found.pop("status") for found in (forked, cold)]
    for line, other in zip(*status, strict=True):
        if not line.startswith(("Uid", "Gid", "NSpid")):
            assert line == other
    assert forked == cold


async def test_what_is_the_same_for_all_kernels_is_made_before_they_are_forked(sessions: Sessions) -> None:
    """The filter of system calls for each tier, and the way to what has no function in Python."""
    code = "from kernelrepl.guest.isolation.seccomp import program\nfrom kernelrepl.guest.system import libc\n"
    code += "program.cache_info().misses, libc.cache_info().misses"
    assert await sessions.value(code) == "(2, 1)"
    object.__setattr__(sessions.manager.services, "launcher", spawn)
    tier = sessions.manager.confinement.tier
    assert tier is not None
    made = int(tier.number > 0)
    assert await sessions.value(code, "cold") == f"({made}, 1)"


async def test_magics_are_loaded_before_a_kernel_is_forked(sessions: Sessions) -> None:
    """IPython loads them when it looks at them: twenty milliseconds, in the first cell that names its shell."""
    assert await sessions.value("import sys; 'IPython.core.magics.execution' in sys.modules") == "True"


async def test_the_memory_of_a_zygote_lies_in_large_pages(sessions: Sessions, launcher: Watched) -> None:
    """Each fork copies a table with an entry for each page. What is hardly filled stays small."""
    try:
        with mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.write(bytes(8 << 20))
            memory.madvise(MADV_COLLAPSE)
    except OSError:
        pytest.skip("no large pages here, or a system before Linux 6.1")
    assert await sessions.value("1 + 1") == "2"
    found = {"AnonHugePages:": 0}
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while not found["AnonHugePages:"]:  # how much depends on where the system has put it
            await asyncio.sleep(0.1)
            lines = Path(f"/proc/{launcher.zygotes()[0]}/smaps_rollup").read_text().splitlines()
            found = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}


@pytest.mark.parametrize("preload", [("json",), ("pandas",)])
async def test_libraries_know_that_they_are_in_a_kernel(sessions: Sessions) -> None:
    """Whoever loads them: a zygote, a cell, or what brings a session back. pandas is no wider in a terminal."""
    await sessions.run("import pandas as pd; from pandas import options")
    assert await sessions.value("pd.get_option('display.max_columns'), options.display.max_columns") == "(20, 20)"
    await sessions.kill()
    assert await sessions.value("pd.get_option('display.max_columns'), options.display.max_columns") == "(20, 20)"


async def test_kernels_of_one_zygote_share_no_chance(sessions: Sessions) -> None:
    """Two that are forked from the same state go their own ways."""
    code = "import random, uuid, tempfile, os\n(random.random(), uuid.uuid4().hex, tempfile.mktemp(), os.urandom(4))"
    first, second = [(await sessions.run(code, name)).output.result for name in "ab"]
    assert first is not None
    assert second is not None
    assert not set(first.strip("()").split(", ")) & set(second.strip("()").split(", "))


PARSED = """
import jedi.settings, parso.cache
parsed = [str(path) for found in parso.cache.parser_cache.values() for path in found]
found = get_ipython().kernel.do_complete('x = 1\\nx.bit_l', 13)['matches']
(any(path.endswith('builtins.pyi') for path in parsed), found, jedi.settings.cache_directory,
 str(parso.cache._default_cache_path))
"""


@pytest.mark.parametrize("preload", [("jedi",)])
async def test_what_completions_need_of_python_is_parsed_before_the_fork(sessions: Sessions, launcher: Watched) -> None:
    """As soon as nobody asks for one. And where a kernel keeps what it parses itself is its own place."""
    for number in range(200):
        execution = await sessions.run(PARSED, f"s{number}")
        if str(execution.output.result).startswith("(True"):
            break
        await asyncio.sleep(0.6)
    assert launcher.zygotes()[0] in ancestors(pid_of(sessions, f"s{number}"))
    assert execution.output.result == "(True, ['bit_length'], '/tmp/.cache/jedi', '/tmp/.cache/parso')"


@pytest.mark.parametrize("preload", [("jedi",)])
async def test_parsing_ahead_leaves_no_file(launcher: Watched, tmp_path: Path) -> None:
    """Nor does it read one: whoever could write it would have code run before there is a sandbox."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.defpath}
    assert await launcher.warm.warm(sys.executable, environment)
    zygote = psutil.Process(launcher.zygotes()[0])
    before, quiet = zygote.cpu_times(), 0
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while quiet < 10 or zygote.cpu_times() == before:
            quiet = quiet + 1 if zygote.status() == psutil.STATUS_SLEEPING else 0
            await asyncio.sleep(0.1)
    assert not (home / ".cache").exists()


@pytest.mark.parametrize("preload", [("numpy",)])
async def test_kernels_of_one_zygote_share_no_chance_of_numpy(sessions: Sessions) -> None:
    """Its global generator has a state of its own."""
    code = "import numpy as np\nnp.random.random()"
    assert (await sessions.run(code, "a")).output.result != (await sessions.run(code, "b")).output.result
    execution = await sessions.run("import sys\n'numpy' in sys.modules", "c")
    assert execution.output.result == "True"


@pytest.mark.parametrize("preload", [("matplotlib.pyplot", "pandas")])
async def test_figures_of_a_forked_kernel_are_drawn_as_ever(sessions: Sessions) -> None:
    """The library was loaded before there was a session, and its settings are nobody's."""
    execution = await sessions.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.figure(); plt.plot([3, 4])")
    assert len(execution.output.figures) == 2
    execution = await sessions.run(
        "import matplotlib, os\nmatplotlib.get_cachedir(), os.path.isdir(matplotlib.get_cachedir())"
    )
    assert execution.output.result == "('/tmp/.matplotlib', True)"
    names = {name for (name,) in await sessions.rows("SELECT name FROM names")}
    assert not names & {"*numpy.random", "*random", "*pandas"}


async def test_sessions_outlive_the_zygote(sessions: Sessions, launcher: Watched) -> None:
    """Its kernels go with it; the next call starts a new one, and the session is as it was."""
    await sessions.run("x = [1]\ndef f(): return x")
    before = launcher.zygotes()
    os.kill(before[0], signal.SIGKILL)
    process = sessions.manager.loaded()["s"].slot.kernel
    assert process is not None
    await asyncio.wait_for(process.ended.wait(), 10)
    execution = await sessions.run("f()")
    assert execution.output.result == "[1]"
    assert execution.restored is not None
    assert launcher.zygotes() != before
    assert launcher.zygotes()[0] in ancestors(pid_of(sessions))


async def test_a_zygote_that_dies_while_a_cell_runs_loses_that_cell_and_says_so(
    sessions: Sessions, launcher: Watched
) -> None:
    """As any death of a kernel."""
    await sessions.run("x = 1")
    _, job = await sessions.submit("x = 2\nimport time; time.sleep(60)")
    await asyncio.wait_for(job.began.wait(), 10)
    os.kill(launcher.zygotes()[0], signal.SIGKILL)
    execution = await asyncio.wait_for(asyncio.shield(job.result), 30)
    assert execution.status == "crashed"
    assert await sessions.value("x") == "1"


@pytest.mark.parametrize(
    ("code", "note"), [("import os; os._exit(7)", "code 7"), ("import os; os.kill(os.getpid(), 9)", "SIGKILL")]
)
async def test_how_a_forked_kernel_ended_is_told(sessions: Sessions, code: str, note: str) -> None:
    """The process that started it is not the keeper, which has to know nevertheless."""
    execution = await sessions.run(code)
    assert execution.status == "crashed"
    assert note in (execution.note or "")


@pytest.mark.parametrize("preload", [("tests.support.preloads.thread",), ("tests.support.preloads.native",)])
async def test_a_library_that_starts_threads_is_no_reason_not_to_start(
    sessions: Sessions, launcher: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with threads cannot be forked safely: kernels are started one by one, and the log says why."""
    with_tests(sessions, monkeypatch)
    assert await sessions.value("1 + 1") == "2"
    [(event, data)] = launcher.events
    assert event == "zygote_failed"
    assert "threads" in data["reason"]


@pytest.mark.parametrize(
    "preload", [("no_such_module", "tests.support.preloads.broken", "tests.support.preloads.leaves", "json")]
)
async def test_a_library_that_cannot_be_loaded_is_left_out(
    sessions: Sessions, launcher: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says so, and whoever imports it in a session will see."""
    with_tests(sessions, monkeypatch)
    assert await sessions.value("1 + 1") == "2"
    [(_, data)] = launcher.events
    assert data["left_out"] == {
        "tests.support.preloads.broken": "RuntimeError: broken",
        "tests.support.preloads.leaves": "SystemExit: 3",
    }
    assert launcher.zygotes()[0] in ancestors(pid_of(sessions))


@pytest.mark.parametrize("preload", [("tests.support.preloads.reserves",)])
async def test_what_a_library_has_reserved_before_is_no_memory_of_a_session(
    sessions: Sessions, launcher: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for what the session takes: it starts with less than that, and has all of it."""
    with_tests(sessions, monkeypatch)
    loaded = await sessions.run(
        "import sys; 'tests.support.preloads.reserves' in sys.modules", resources=Resources(memory_bytes=600_000_000)
    )
    assert loaded.output.result == "True", launcher.events
    assert launcher.zygotes()[0] in ancestors(pid_of(sessions))
    assert (await sessions.run("len(bytes(400_000_000))")).output.result == "400000000"
    execution = await sessions.run("bytes(700_000_000)")
    assert execution.output.error is not None
    assert execution.output.error.name == "MemoryError"
    assert await sessions.value("1 + 1") == "2"


@pytest.mark.parametrize("preload", [("tests.support.preloads.restless",)])
async def test_audits_of_the_cells_that_warm_up_may_find_something(
    sessions: Sessions, launcher: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They commit then, and the zygote waits for no answer that nobody gives."""
    with_tests(sessions, monkeypatch)
    assert await sessions.value("1 + 1") == "2"
    assert launcher.zygotes()[0] in ancestors(pid_of(sessions))


def with_tests(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels find the tests' own modules."""
    confinement = sessions.manager.confinement
    environment = {**confinement.environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    monkeypatch.setattr(sessions.manager, "confinement", dataclasses.replace(confinement, environment=environment))


async def test_a_forked_kernel_that_cannot_be_confined_does_not_start(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails closed, and says which step failed."""
    confinement = sessions.manager.confinement
    if confinement.tier is None or not confinement.tier.number:
        pytest.skip("nothing is confined here")
    tier = dataclasses.replace(confinement.tier, landlock=99)
    monkeypatch.setattr(sessions.manager, "confinement", dataclasses.replace(confinement, tier=tier))
    with pytest.raises(SandboxUnavailable, match="Landlock"):
        await sessions.run("1")


@pytest.mark.parametrize("start", [lambda python: Zygote.start(python, {}, ())])
@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
async def test_an_interpreter_that_does_not_start_is_told(start: Callable[[str], Any], python: str) -> None:
    """And nothing waits for it."""
    with pytest.raises(ZygoteFailed):
        await start(python)


async def test_nothing_of_a_zygote_is_left(sessions: Sessions, launcher: Watched) -> None:
    """Neither itself nor what it has forked."""
    await sessions.run("x = 1", "a")
    await sessions.run("x = 1", "b")
    pids = [pid_of(sessions, "a"), pid_of(sessions, "b"), *launcher.zygotes()]
    await launcher.warm.close()
    for session in sessions.manager.loaded().values():
        assert session.slot.kernel is not None
        await asyncio.wait_for(session.slot.kernel.ended.wait(), 10)
    async with asyncio.timeout(10):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await asyncio.sleep(0.02)


async def test_a_kernel_that_nobody_waits_for_any_more_ends(sessions: Sessions, launcher: Watched) -> None:
    """Whoever asked for it was cancelled before the zygote had answered."""
    await sessions.run("1")
    [zygote] = launcher.warm._zygotes.values()
    confinement = sessions.manager.confinement
    launch = confinement.launch(sessions.manager.data_dir, confinement.fix(Grants()))
    before, descriptors = children(zygote.pid), len(list(Path("/proc/self/fd").iterdir()))
    asking = asyncio.create_task(zygote.fork(launch))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(10):
        while zygote._forks or zygote._reaped or children(zygote.pid) != before:
            await asyncio.sleep(0.01)
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
    assert await sessions.value("2", "other") == "2"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
