"""Limits of memory, processes, files and output: what passes them is stopped, the rest goes on, and it is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernelrepl import endings, overseer, workspace_usage
from kernelrepl.kernel import jupyter, usage
from kernelrepl.kernel.meter import Amount, FloodLimits
from kernelrepl.model import Failure, Resources, amount
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

SMALL = Resources(memory_bytes=700_000_000, processes=128, workspace_bytes=20_000_000, workspace_files=200)
AFTER = "variables are as they were before it, and the next call restores them"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often: tests wait for what is seen."""
    monkeypatch.setattr(overseer, "FILES_S", 0.1)
    monkeypatch.setattr(overseer, "IDLE_S", 0.1)
    monkeypatch.setattr(overseer, "MOST_IDLE_S", 0.1)


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
        "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n        b = bytearray(b'x') * 250_000_000\n"
        "        time.sleep(100)\ntime.sleep(100)",
    ],
    ids=["shared", "in children"],
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
    session = sessions.manager._sessions["s"]
    kernel = session._kernel
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
    session = sessions.manager._sessions["s"]
    kernel = session._kernel
    assert kernel is not None
    await kernel.ended.wait()
    full = await sessions.run("open('more', 'wb').write(b'x' * 10**6)")
    assert full.output.error is not None
    assert full.output.error.message.startswith("[Errno 27]")
    assert said in (full.note or "")
    kernel = session._kernel
    assert kernel is not None
    execution = await sessions.run("for name in os.listdir(): os.remove(name)\nx, y")
    assert execution.output.result == "(1, 2)"
    await kernel.ended.wait()
    assert await sessions.value("open('more', 'wb').write(b'x' * 10**6)") == "1000000"


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
    monkeypatch.setattr(jupyter, "FloodLimits", lambda: limits)
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
    monkeypatch.setattr("kernelrepl.stopping.INTERRUPT_GRACE_S", 0.2)
    await sessions.run("x = 1")
    pid = sessions.manager._sessions["s"].pid
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
