"""How the end of a kernel is told to whoever ran code in it. Pure."""

from __future__ import annotations

import re
import signal

from kernelrepl.guest.wire import EXIT_BROKEN
from kernelrepl.model import Failure, Resources, Status, amount
from kernelrepl.outputs.terminal_text import field

_BY_SIGNAL = {
    signal.SIGSEGV: "C code crashed, or a recursion was deeper than the stack",
    signal.SIGBUS: "C code crashed, or a file that was mapped into memory became shorter",
    signal.SIGABRT: "C code gave up, or the code called os.abort or closed descriptors that it had not opened",
    signal.SIGKILL: "the code or somebody else sent it, or the machine had run out of memory",
    signal.SIGALRM: "signal.alarm or setitimer went off, and the code had taken away the handler",
}
_AFTER = "variables are as they were before it, and the next call restores them"


def note(died: str, exit_code: int | None, stopped_by: Status | None, stopped_for: str | None = None) -> str:
    """What happened to an execution whose kernel ended.

    died: how the process ended, in words. stopped_for: what it took too much of, if that is why.
    """
    if stopped_for is not None:
        return f"{stopped_for}, so its kernel was ended; {_AFTER}"
    if stopped_by == "timeout":
        return f"it ran into its timeout and did not react to interrupts, so its kernel was ended; {_AFTER}"
    if stopped_by is not None:
        return f"its kernel was ended to stop it; {_AFTER}"
    why = _why(exit_code)
    return f"the kernel did not survive this execution ({died}{f': {why}' if why else ''}); {_AFTER}"


def _why(exit_code: int | None) -> str | None:
    if exit_code is None:
        return None
    if exit_code == EXIT_BROKEN:
        return "the code broke what the kernel itself works with, like a function or module of the standard library"
    if exit_code >= 0:
        return "the code ended the process; sys.exit and exit end only the cell"
    return _BY_SIGNAL.get(-exit_code)  # type: ignore[call-overload, no-any-return]


# Errors of user code that come from where it runs

_NO_NETWORK = ("gaierror", "URLError", "ConnectionError", "ConnectError", "NameResolutionError", "MaxRetryError")
_OUTSIDE = re.compile(r"\[Errno (?:2|13|30)\] [\w -]+: '(/(?!workspace/|tmp/|dev/|proc/)[^']*)'$")


def hint(error: Failure, resources: Resources) -> str | None:
    """What to say about an error that a confined kernel's surroundings may have caused; None where they have not."""
    if error.name == "MemoryError" and resources.memory_bytes is not None:
        return f"the memory limit of this session is {amount(resources.memory_bytes)} (max_memory_bytes)"
    if error.name == "BlockingIOError" or error.message == "can't start new thread":
        return f"this session may have {resources.processes} processes and threads (max_processes)"
    if error.message.startswith("[Errno 24]"):
        return f"a process of this session may have {resources.open_files} open files (max_open_files)"
    if error.message.startswith("[Errno 27]") and resources.workspace_bytes is not None:
        return f"the files of this session may take {amount(resources.workspace_bytes)} (max_workspace_bytes)"
    if error.message.startswith("[Errno 28]") and resources.tmp_bytes is not None:
        return f"/tmp and /dev/shm may hold {amount(resources.tmp_bytes)} each (max_tmp_bytes)"
    if error.name in _NO_NETWORK or (error.name, error.message) == ("PermissionError", "[Errno 13] Permission denied"):
        return "there is no network in the sandbox; `kernelrepl put` brings files into the session"
    if (error.name, error.message) == ("PermissionError", "[Errno 1] Operation not permitted"):
        return (
            "the sandbox refuses this; for memory that processes share, take multiprocessing.shared_memory or a file in"
            " /dev/shm, in a new interpreter also in place of mmap.mmap(-1, …)"
        )
    if outside := _OUTSIDE.match(error.message):
        return (
            f"{field(outside[1])} is not a file of this session; it reaches files of the host when a person grants them"
            " (`kernelrepl grant`), or brings a copy (`kernelrepl put`)"
        )
    return None
