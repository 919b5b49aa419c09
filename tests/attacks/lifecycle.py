"""Attempts to outlive, to outwait, or to slip through while a kernel starts or ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import psutil
import pytest

from kernelrepl.errors import KernelReplError
from kernelrepl.sessions import interruption
from kernelrepl.sessions.manager import Origin
from tests.attacks.arena import Arena
from tests.attacks.attempt import THROUGH, Attempt, Scenario


def of_kernel(arena: Arena, session_id: str = "s") -> list[psutil.Process]:
    """All processes of a session: the waiter, and whatever is below it now."""
    top = psutil.Process(arena.kernel(session_id).process.first_pid)
    return [top, *top.children(recursive=True)]


async def gone(processes: list[psutil.Process]) -> str:
    """Whether they are, soon."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 10)
    for process in alive:
        process.kill()
    return "all gone" if not alive else f"{THROUGH}: {alive}"


def ends(code: str) -> Scenario:
    """Whatever its code does, everything ends when the session is deleted."""

    async def scenario(arena: Arena) -> str:
        said = await arena.outcome(code)
        if said != "made":
            return said
        found = of_kernel(arena)
        await arena.manager.delete("s", Origin("attacks"))
        return await gone(found)

    return scenario


def timed_out(code: str) -> Scenario:
    """Code that does not want to end is ended by its timeout, with all that it started."""

    async def scenario(arena: Arena) -> str:
        await arena.sessions.run("kept = 5")
        found = of_kernel(arena)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interruption, "INTERRUPT_GRACE_S", 0.5)
            execution = await arena.sessions.run(code, timeout_s=0.5)
        if execution.status not in ("timeout", "crashed"):
            return f"{THROUGH}: {execution.status}"
        if await arena.sessions.value("kept") != "5":
            return f"{THROUGH}: what was kept is lost"
        await arena.manager.delete("s", Origin("attacks"))
        return await gone(found)

    return scenario


DAEMON = """
def daemon():
    if os.fork() == 0:
        for n in range(1, 65):
            try:
                signal.signal(n, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        attempt(os.setsid)
        if os.fork() == 0:
            attempt(os.setsid)
            attempt(call, "prctl", 1, 0, 0, 0, 0)
            os.closerange(0, 100)
            while True:
                time.sleep(0.01)
        os._exit(0)
    os.wait()
"""


async def killed(arena: Arena) -> str:
    """Of a kernel that is killed, nothing stays."""
    await arena.outcome(DAEMON + "for _ in range(5): daemon()\n'made'")
    found = of_kernel(arena)
    await arena.sessions.kill()
    return await gone(found)


async def kernel_only_killed(arena: Arena) -> str:
    """The same if only the process that runs the code is killed."""
    await arena.outcome(DAEMON + "for _ in range(5): daemon()\n'made'")
    found = of_kernel(arena)
    os.kill(arena.kernel("s").pid, signal.SIGKILL)
    await arena.kernel("s").process.ended.wait()
    return await gone(found)


async def waiter_killed(arena: Arena) -> str:
    """When the process that waits for a kernel outside is killed, the system ends the kernel, even without a keeper."""
    await arena.outcome("import gc, threading\n" + DAEMON + "daemon()\n'made'")
    found = of_kernel(arena)
    process = arena.kernel("s").process
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_end_kernel", lambda: None)
        os.kill(process.first_pid, signal.SIGKILL)
        await process.ended.wait()
        return await gone(found)


async def forks_while_it_ends(arena: Arena) -> str:
    """Processes that make processes while they are being ended, at most 60 at a time."""
    code = """
def chain():
    while True:
        if os.fork():
            os._exit(0)
        time.sleep(0.001)
for _ in range(30):
    if os.fork() == 0:
        chain()
'made'"""
    await arena.outcome(code)
    top = arena.kernel("s").process.pid
    found = of_kernel(arena)
    await arena.manager.delete("s", Origin("attacks"))
    left = [process for process in psutil.process_iter() if process.ppid() == top or process in found]
    return await gone(left)


async def killed_while_it_starts(arena: Arena) -> str:
    """At any moment of the confinement: the call fails or succeeds, and nothing stays."""
    children = psutil.Process()
    for delay in (0.0, 0.05, 0.15, 0.3):
        started = asyncio.ensure_future(arena.sessions.run("1", f"s-{int(delay * 1000)}"))
        await asyncio.sleep(delay)
        victims = [child for child in children.children(recursive=True) if child.name().startswith("python")]
        for child in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        with contextlib.suppress(KernelReplError):
            await started
        if await gone(victims) != "all gone":
            return THROUGH
    return "all gone"


async def number_is_used_again(arena: Arena) -> str:
    """Whoever gets the number of a kernel that has ended is not signalled for it."""
    await arena.outcome("'made'")
    process = arena.kernel("s").process
    await process.kill()
    process.signal(signal.SIGKILL)
    await process.kill()
    return "nobody is hit" if process._kernel == -1 and process._pidfd == -1 else THROUGH


async def stale_socket(arena: Arena) -> str:
    """The directory of a kernel's sockets goes with the kernel."""
    await arena.outcome("'made'")
    directory = arena.kernel("s").process.directory
    await arena.manager.loaded()["s"].hibernate()
    return "gone with it" if not directory.exists() else f"{THROUGH}: {list(directory.iterdir())}"


IGNORING = """
import signal
for n in range(1, 65):
    try:
        signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
"""
LIFECYCLE = (
    Attempt("a daemon that forks twice", ends("import signal\n" + DAEMON + "for _ in range(5):"
            " daemon()\n'made'"), "all gone"),
    Attempt("a daemon that outlives a kill", killed, "all gone"),
    Attempt("a daemon that outlives its kernel", kernel_only_killed, "all gone"),
    Attempt("a daemon that outlives its waiter", waiter_killed, "all gone", tiers=(1,)),
    Attempt("fork while it is ended", forks_while_it_ends, "all gone"),
    Attempt("stop itself", timed_out("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"), "all gone"),
    Attempt("stop all its processes", timed_out(
            "import os, signal\nchild = os.fork()\nif not child:\n    import time; time.sleep(600)\n"
            "os.kill(child, signal.SIGSTOP); os.kill(os.getpid(), signal.SIGSTOP)"), "all gone"),
    Attempt("ignore every signal", timed_out(IGNORING + "while True: pass"), "all gone"),
    Attempt("catch every interrupt", timed_out("while True:\n    try:\n        while True: pass\n    except"
            " BaseException: pass"),
            "all gone"),
    Attempt("close its outputs and spin", timed_out("import os\nos.closerange(3, 60)\nwhile True: pass"), "all gone"),
    Attempt("a thread that goes on", timed_out("import threading\ndef go():\n    while True: pass\n"
            "threads = [threading.Thread(target=go) for _ in range(3)]\n[t.start() for t in threads]\n[t.join() for"
            " t in threads]"),
            "all gone"),
    Attempt("be killed while it starts", killed_while_it_starts, "all gone"),
    Attempt("a number that is used again", number_is_used_again, "nobody is hit"),
    Attempt("a socket that stays", stale_socket, "gone with it"),
)  # fmt: skip
GROUPS = {"lifecycle": LIFECYCLE}
