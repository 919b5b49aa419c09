"""Debuggers for code whose person can answer: `breakpoint()`, `%debug` and pdb ask in the notebook, as `input()` does.

For an agent nobody is there, so every way into a debugger is an error at once. Runs in the kernel.
"""

from __future__ import annotations

import bdb
import contextlib
import functools
import pdb
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from kernelrepl.guest.ipython.console import NoDebugger

_MACHINERY = frozenset({"IPython", "asyncio", "ipykernel", "kernelrepl", "tornado", "traitlets", "zmq"})
"""Packages in which nobody steps: what calls a cell, and what comes after it."""
_ENDED_BY = "_kernelrepl_ended_by"


class Debuggers:
    """All debuggers of one kernel. Made once per process."""

    def __init__(self, attended: Callable[[], bool]) -> None:
        """attended: whether a person can answer what the running code asks."""
        self._attended = attended
        self._entered: bdb.Bdb | None = None
        self._follows: Any = None
        """The trace function of a debugger that goes on with the next statement of the cell."""

    def install(self) -> None:
        """Guard every way into a debugger. Once per process."""
        from IPython.core import debugger

        for name in ("set_trace", "run", "runeval", "runcall", "interaction"):
            setattr(pdb.Pdb, name, self._guarded(name, getattr(pdb.Pdb, name)))
        for name in ("set_trace", "interaction"):
            setattr(debugger.Pdb, name, self._guarded(name, getattr(debugger.Pdb, name)))
        for kind in (pdb.Pdb, debugger.Pdb, debugger.InterruptiblePdb):
            setattr(kind, "stop_here", _only_in_code(kind.stop_here))  # noqa: B010 - they are methods
            setattr(kind, "_cmdloop", _ask)  # noqa: B010
        sys.breakpointhook = self._breakpoint
        # An interrupt ends the debugger with its cell. Its own handler would keep that from the kernel.
        pdb.Pdb.nosigint = property(lambda one: True, lambda one, value: None)  # type: ignore[attr-defined]

    def check(self) -> None:
        """Raise NoDebugger if nobody can answer."""
        if not self._attended():
            raise NoDebugger

    def _breakpoint(self, *args: Any, header: str | None = None, **kwargs: Any) -> None:
        from IPython.core import debugger

        self.check()
        debugger.set_trace(sys._getframe(1), header)

    def _guarded(self, name: str, entry: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(entry)
        def enter(one: Any, *args: Any, **kwargs: Any) -> Any:
            self.check()
            self._entered = one
            if name == "set_trace" and not args and kwargs.get("frame") is None:
                kwargs["frame"] = sys._getframe(1)  # that of the code, not this one
            vars(one).pop(_ENDED_BY, None)
            found = entry(one, *args, **kwargs)
            if (ended_by := vars(one).pop(_ENDED_BY, None)) is not None:
                raise ended_by  # IPython goes on with the code after an interrupt at the prompt
            if name == "set_trace":
                _leave_machinery(sys._getframe(1))
            return found

        return enter

    def pause(self) -> None:
        """A statement of a cell has ended: follow nothing until the next one."""
        if self._entered is not None and (tracer := sys.gettrace()) is not None:
            sys.settrace(None)
            self._follows = tracer

    def resume(self) -> None:
        """The next statement of the cell begins."""
        if self._follows is not None:
            sys.settrace(self._follows)
            self._follows = None

    def end_cell(self) -> None:
        """Follow nothing that runs after a cell: neither the kernel's own code nor the cell of an agent."""
        entered, self._entered, self._follows = self._entered, None, None
        if entered is None:
            return
        sys.settrace(None)
        with contextlib.suppress(Exception):  # whatever the class of the session's own makes of it
            if (stop := getattr(bdb.Bdb, "stop_trace", None)) is not None:  # from 3.14 on it may follow in another way
                stop(entered)


def _ask(one: Any) -> None:
    """Let the person type commands until the code goes on. An interrupt ends it, and is remembered."""
    try:
        one.cmdloop()
    except KeyboardInterrupt as error:
        vars(one)[_ENDED_BY] = error
        raise


def _is_machinery(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _MACHINERY


def _only_in_code(entry: Callable[..., Any]) -> Callable[..., Any]:
    """Let a debugger stop nowhere but in code of the session, and of the libraries that it calls."""

    @functools.wraps(entry)
    def stop_here(one: Any, frame: FrameType) -> Any:
        return False if _is_machinery(frame) else entry(one, frame)

    return stop_here


def _leave_machinery(frame: FrameType | None) -> None:
    """Follow none of the frames that called the cell."""
    while frame is not None:
        if _is_machinery(frame):
            frame.f_trace = None
        frame = frame.f_back
