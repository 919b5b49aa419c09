"""Limits of memory, processes, files and output: what passes them is stopped, the rest goes on, and it is said."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from kernelrepl.kernel import client, holdings, usage
from kernelrepl.kernel.flood import Amount, FloodLimits
from kernelrepl.kernel.holdings import Holdings
from kernelrepl.model import Failure, Resources, amount
from kernelrepl.sessions import endings, resource_monitor
from kernelrepl.workspaces import usage as workspace_usage
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

LIBC = ctypes.CDLL(None)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *3 * (ctypes.c_int,), ctypes.c_long)
LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
"""Python's own `mmap` keeps the descriptor."""
SMALL = Resources(memory_bytes=700_000_000, processes=128, workspace_bytes=20_000_000, workspace_files=200)
AFTER = "variables are as they were before it, and the next call restores them"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often: tests wait for what is seen."""
    monkeypatch.setattr(resource_monitor, "FILES_S", 0.1)
    monkeypatch.setattr(resource_monitor, "IDLE_S", 0.1)
    monkeypatch.setattr(resource_monitor, "MOST_IDLE_S", 0.1)


# Memory


async def test_too_much_memory_is_a_memory_error_where_the_system_can_say_it(sessions: Sessions) -> None:
    """Nothing is lost, and the reply says which limit it was."""
    await sessions.run("x = 1", resources=SMALL)
    execution = await sessions.run("big = bytearray(900_000_000)")
    assert execution.output.error is not None
    assert execution.output.error.name == "MemoryError"
    assert execution.note == "the memory limit of this session is 700 MB (max_memory_bytes)"
    assert await sessions.value("x") == "1"
    assert (await sessions.run("x")).restored is None


@pytest.mark.parametrize(
    "code",
    [
        "import time\nfor n in range(25): open(f'/dev/shm/{n}', 'wb').write(b'x' * 18_000_000)\n"
        "b = bytearray(b'x') * 400_000_000",
        "import mmap, time\nkept = [mmap.mmap(-1, 18_000_000) for _ in range(25)]\n"
        "for m in kept: m.write(b'x' * len(m)); m.madvise(mmap.MADV_DONTNEED)\n"
        "b = bytearray(b'x') * 400_000_000",
        "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n        b = bytearray(b'x') * 250_000_000\n"
        "        time.sleep(100)\ntime.sleep(100)",
    ],
    ids=["shared", "mapped and let go", "in children"],
)
async def test_memory_that_no_single_process_is_limited_in_is_counted(sessions: Sessions, code: str) -> None:
    """Its kernel is ended with all that it started; what was committed comes back."""
    await sessions.run("x = 1", resources=SMALL)
    execution = await sessions.run(f"x = 2\n{code}\ntime.sleep(100)")
    assert execution.status == "crashed"
    assert execution.note == f"memory limit 700 MB reached (max_memory_bytes), so its kernel was ended; {AFTER}"
    again = await sessions.run("x")
    assert again.output.result == "1"
    assert again.restored is not None


async def test_memory_that_grows_between_two_calls_is_counted(sessions: Sessions) -> None:
    """The next call says what became of the kernel."""
    await sessions.run("x = 1", resources=SMALL)
    session = sessions.manager.loaded()["s"]
    kernel = session.slot.kernel
    assert kernel is not None
    await sessions.run(
        "import threading, time\ndef grow():\n    global b\n    time.sleep(0.3)\n"
        "    for n in range(25): open(f'/dev/shm/{n}', 'wb').write(b'x' * 18_000_000)\n"
        "    b = bytearray(b'x') * 400_000_000\nthreading.Thread(target=grow).start()"
    )
    await kernel.ended.wait()
    again = await sessions.run("x")
    assert again.output.result == "1"
    assert again.note == "memory limit 700 MB reached (max_memory_bytes): the kernel was ended between two calls"


async def test_shared_pages_are_counted_once() -> None:
    """A pool of workers shares most of what it has with its parent."""
    here = [os.getpid()]
    assert 0 < usage.proportional(here).total <= usage.resident(here) * 1.1
    assert usage.resident([2**22 + 1]) == usage.proportional([2**22 + 1]).total == 0


# What the system holds


async def test_what_is_held_is_not_looked_at_while_a_first_reply_is_on_its_way(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that has run nothing holds nothing; its files may be from before, and are counted at once."""
    looked: list[list[int]] = []
    counted = threading.Event()
    look, files = Holdings.look, workspace_usage.files

    def count(*arguments: Any) -> workspace_usage.Files:
        counted.set()
        return files(*arguments)

    def noted(self: Holdings, pids: Any) -> Any:
        looked.append(pids)
        return look(self, pids)

    monkeypatch.setattr(resource_monitor, "BUSY_S", 3600.0)
    monkeypatch.setattr(workspace_usage, "files", count)
    monkeypatch.setattr(Holdings, "look", noted)
    await sessions.run("1")
    assert await asyncio.to_thread(counted.wait, 60)
    assert looked == []


def test_the_address_space_of_a_process_is_read_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading it takes longest. One that maps what has no name is read each time, and a new process at once."""
    read: list[str] = []
    plain = holdings._read

    def counting(path: str) -> bytes:
        read.append(path)
        return plain(path)

    monkeypatch.setattr(holdings, "_read", counting)
    monkeypatch.setattr(holdings, "ROUND_S", 60.0)
    here = f"/proc/{os.getpid()}/maps"
    held = Holdings(tmp_path, str(tmp_path), ())
    held.look([os.getpid()])
    memory = held.memory_bytes
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        held.look([os.getpid(), child.pid])
        child.kill()
    assert (read.count(here), read.count(f"/proc/{child.pid}/maps")) == (1, 1)
    assert held.memory_bytes > memory > 0
    with (tmp_path / "file").open("wb+") as file:
        file.write(b"x" * 4096)
        file.flush()
        address = LIBC.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    (tmp_path / "file").unlink()
    held.look([os.getpid()])
    assert (read.count(here), held.removed_bytes()) == (1, 0)
    monkeypatch.setattr(holdings, "AREAS_S", 0.0)
    held.look([os.getpid()])
    assert (read.count(here), held.removed_bytes()) == (2, None)
    monkeypatch.setattr(holdings, "AREAS_S", 3600.0)
    LIBC.munmap(address, 4096)
    held.look([os.getpid()])
    assert (read.count(here), held.removed_bytes()) == (3, 0)


def test_processes_are_looked_at_in_turn_when_time_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With time for one a look, each has been looked at after as many looks as there are, and again after as many."""
    looked: list[int] = []
    plain = usage.face

    def noted(pid: int) -> Any:
        looked.append(pid)
        return plain(pid)

    monkeypatch.setattr(usage, "face", noted)
    monkeypatch.setattr(holdings, "ROUND_S", -1.0)
    held = Holdings(tmp_path, str(tmp_path), ())
    pids = sorted(psutil.pids(), key=lambda pid: 977 * pid % 4099)[:40]  # in a set they have another order
    for _ in range(3 * len(pids)):
        held.look(pids)
    assert looked == pids * 3
    looked.clear()
    for _ in range(len(pids)):
        held.look(pids[1::2])  # the others have ended
    assert looked == (pids[1::2] * 3)[: len(pids)]


# Processes and files


async def test_too_many_processes_are_an_error_that_names_the_limit(sessions: Sessions) -> None:
    """A fork bomb ends at its limit, and so do threads."""
    await sessions.run("import os, signal, threading, time", resources=SMALL)
    execution = await sessions.run(
        "pids = []\ntry:\n    for _ in range(200):\n        pid = os.fork()\n        if pid == 0: time.sleep(100)\n"
        "        pids.append(pid)\nfinally:\n    for pid in pids: os.kill(pid, 9); os.waitpid(pid, 0)"
    )
    assert execution.output.error is not None
    assert execution.output.error.name == "BlockingIOError"
    assert execution.note == "this session may have 128 processes and threads (max_processes)"
    assert int(await sessions.value("len(pids)") or 0) < 128


async def test_a_workspace_that_is_full_can_be_tidied_and_not_written(sessions: Sessions) -> None:
    """What fills it is interrupted; then files can be removed, and with them comes the room to write."""
    await sessions.run("import os, time; x = 1", resources=SMALL)
    said = "the files of the session take more than 20 MB (max_workspace_bytes)"
    execution = await sessions.run(
        "y = 2\nfor i in range(10**6):\n    open(f'f{i}', 'wb').write(b'x' * 10**6)\n    time.sleep(0.02)"
    )
    assert execution.status == "interrupted"
    assert (execution.note or "").startswith(said)
    session = sessions.manager.loaded()["s"]
    kernel = session.slot.kernel
    assert kernel is not None
    await kernel.ended.wait()
    full = await sessions.run("open('more', 'wb').write(b'x' * 10**6)")
    assert full.output.error is not None
    assert full.output.error.message.startswith("[Errno 27]")
    assert said in (full.note or "")
    kernel = session.slot.kernel
    assert kernel is not None
    execution = await sessions.run("for name in os.listdir(): os.remove(name)\nx, y")
    assert execution.output.result == "(1, 2)"
    assert execution.note is None
    execution = await sessions.run("open('more', 'wb').write(b'x' * 10**6)")
    assert execution.output.result == "1000000"
    assert execution.note == "there is room for files again: the kernel was ended between two calls"


async def test_why_a_kernel_was_ended_is_told_after_the_answer_of_a_cell(sessions: Sessions) -> None:
    """The cell has its answer and the kernel is not done with it: it is the next one that has to hear it."""
    await sessions.run("import time; x = 1")
    late = "k = get_ipython().kernel; s = k.session.send\ndef send(stream, kind, *a, **k):\n"
    late += (
        "    if kind == 'execute_reply': time.sleep(600)\n    return s(stream, kind, *a, **k)\nk.session.send = send"
    )
    execution = await sessions.run(late)
    assert execution.status == "ok"
    session = sessions.manager.loaded()["s"]
    assert session.current is not None
    assert session.current.result.done()
    session.on_overrun("it takes too much", True)
    execution = await sessions.run("x")
    assert execution.output.result == "1"
    assert execution.note == "it takes too much: the kernel was ended between two calls"


async def test_too_many_files_are_as_bad_as_too_large_ones(sessions: Sessions) -> None:
    """Each takes an inode of the disk, however small it is."""
    await sessions.run("import time", resources=SMALL)
    execution = await sessions.run("for i in range(10**6):\n    open(f'f{i}', 'w').close()\n    time.sleep(0.001)")
    assert execution.status == "interrupted"
    assert (execution.note or "").startswith("the session has more than 200 files (max_workspace_files)")


def test_files_are_counted_as_they_are_stored(tmp_path: Path) -> None:
    """What is sparse takes little, links are not followed, closed and deep directories are looked into."""
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    (tmp_path / "link").symlink_to("/")
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "file").write_bytes(b"x" * 50_000)
    closed.chmod(0)
    found = workspace_usage.files(tmp_path, None, None)
    assert found.count == 4
    assert 50_000 <= found.size < 200_000
    assert workspace_usage.files(tmp_path, 10_000, None).size > 10_000
    here = Path.cwd()
    os.chdir(tmp_path)
    for _ in range(30):
        os.mkdir("d" * 200)  # noqa: PTH102 - the path is too long for any other way
        os.chdir("d" * 200)
    os.chdir(here)
    assert workspace_usage.files(tmp_path, None, 100).count == 34
    assert workspace_usage.files(tmp_path, None, 20).count == 21


# Output


FLOOD = (
    "kernel = get_ipython().kernel\ndef flood():\n    content = {'data': {'text/plain': 'x' * 10**4}, 'metadata': {}}\n"
    "    kernel.session.send(kernel.iopub_socket, 'display_data', content, parent=kernel.get_parent())\n"
)


async def test_a_flood_of_output_past_the_kernels_own_bounds_ends(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the code is interrupted, then the kernel is ended; the reply says why."""
    limits = FloodLimits(drop=Amount(50, 1 << 20), interrupt=Amount(100, 2 << 20), kill=Amount(2000, 40 << 20))
    monkeypatch.setattr(client, "FloodLimits", lambda: limits)
    await sessions.run(f"x = 42\n{FLOOD}")
    mild = await sessions.run("while True: flood()")
    assert (mild.status, mild.note) == ("interrupted", "the code wrote too much")
    assert await sessions.value("x") == "42"
    stubborn = await sessions.run("while True:\n    try:\n        while True: flood()\n    except BaseException: pass")
    assert stubborn.status == "crashed"
    assert stubborn.note == f"the code wrote too much, so its kernel was ended; {AFTER}"
    assert await sessions.value("x") == "42"


# Wall clock


@pytest.mark.parametrize(
    "code",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import signal\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass\nos.kill(os.getpid(), 19)",
    ],
    ids=["stops itself", "ignores signals", "leaves a daemon"],
)
async def test_what_takes_no_interrupt_is_gone_after_its_timeout(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """With all that it started."""
    monkeypatch.setattr("kernelrepl.sessions.interruption.INTERRUPT_GRACE_S", 0.2)
    await sessions.run("x = 1")
    pid = sessions.manager.loaded()["s"].pid
    assert pid is not None
    execution = await sessions.run(code, timeout_s=0.3)
    assert execution.status == "timeout"
    assert not Path(f"/proc/{pid}").exists()
    assert await sessions.value("x") == "1"


# Words


@pytest.mark.parametrize(
    ("name", "message", "said"),
    [
        ("MemoryError", "", "memory limit of this session is 4 GB"),
        ("RuntimeError", "can't start new thread", "512 processes"),
        ("OSError", "[Errno 24] Too many open files: 'x'", "512 open files"),
        ("OSError", "[Errno 27] File too large", "may take 1 GB"),
        ("OSError", "[Errno 28] No space left on device", "hold 512 MB each"),
        ("gaierror", "[Errno -2] Name or service not known", "no network"),
        ("PermissionError", "[Errno 13] Permission denied", "no network"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/home/me/data.csv'", "kernelrepl grant"),
        ("OSError", "[Errno 30] Read-only file system: '/usr/lib/x'", "/usr/lib/x is not a file of this session"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'data.csv'", None),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/workspace/data.csv'", None),
        ("PermissionError", "[Errno 13] Permission denied: '/tmp/x'", None),
        ("PermissionError", "[Errno 1] Operation not permitted", "multiprocessing.shared_memory"),
        ("ValueError", "x", None),
    ],
)
def test_errors_that_come_from_the_sandbox_say_so(name: str, message: str, said: str | None) -> None:
    """And others do not."""
    found = endings.hint(Failure(name, message, ""), Resources())
    assert (found is None) if said is None else (found is not None and said in found)


def test_amounts_of_bytes_are_said_as_people_say_them() -> None:
    """In powers of ten, as the settings are written."""
    shown = [amount(size) for size in (4_000_000_000, 1_500_000, 20_000, 7)]
    assert shown == ["4 GB", "1.5 MB", "20 KB", "7 bytes"]
