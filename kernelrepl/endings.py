"""How the end of a kernel is told to whoever ran code in it. Pure."""

from __future__ import annotations

import signal

from kernelrepl.guest.wire import EXIT_BROKEN
from kernelrepl.model import Status

_BY_SIGNAL = {
    signal.SIGSEGV: "C code crashed, or a recursion was deeper than the stack",
    signal.SIGBUS: "C code crashed, or a file that was mapped into memory became shorter",
    signal.SIGABRT: "C code gave up, or the code called os.abort or closed descriptors that it had not opened",
    signal.SIGKILL: "the code or somebody else sent it, or the machine had run out of memory",
    signal.SIGALRM: "signal.alarm or setitimer went off, and the code had taken away the handler",
}
_AFTER = "variables are as they were before it, and the next call restores them"


def note(died: str, exit_code: int | None, stopped_by: Status | None) -> str:
    """What happened to an execution whose kernel ended. `died`: how the process ended, in words."""
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
