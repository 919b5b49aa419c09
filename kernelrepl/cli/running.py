"""Run code and show what it shows as it comes: `exec`, `wait` and `interrupt`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from kernelrepl.cli.calls import Caller, Piece, Reply
from kernelrepl.cli.terminal import (
    CANNOT_RUN,
    DIED,
    FAILED,
    INTERRUPTED,
    TIMED_OUT,
    TextStream,
    remarked,
    say,
    say_json,
    worded,
    write,
)
from kernelrepl.errors import KernelReplError

TYPE_CHECKING = False  # without `typing`, which takes as long to load as all else here
if TYPE_CHECKING:
    from typing import Any

LONGEST_WAIT_S = 7 * 24 * 3600.0
_PATIENCE_S = 3.0
"""How long code may show nothing before a terminal is told that it still runs."""


class Printer:
    """This object prints what an execution shows: results and output to stdout, all else to stderr.

    The same text comes twice, in parts while the code runs and whole with the reply. Each is printed once.
    """

    def __init__(self) -> None:
        self._streams = {"stdout": TextStream(sys.stdout), "stderr": TextStream(sys.stderr)}
        self._printed: dict[str, int] = {}
        """Of each kind, the characters or the pieces that were printed."""
        self._cleared = False
        self._began = time.monotonic()
        self._quiet_since = self._began
        self._progress = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._has_progress_line = False

    def show(self, pieces: list[Piece]) -> None:
        """Print what has come."""
        self._end_progress()
        for piece in pieces:
            kind, text = piece["kind"], piece["text"]
            if kind == "cleared":
                self._cleared = True
                continue
            if kind == "error":  # what it is to be taken for is said with the reply
                continue
            if self._cleared:
                self._cleared = False
                self._printed.clear()  # the reply has only what comes from here on
            self._count(kind, text)
            self._print(kind, text)
        self._quiet_since = time.monotonic()

    def finish(self, pieces: list[Piece]) -> None:
        """Print what of the whole has not been printed yet."""
        self._end_progress()
        before, self._printed = self._printed, {}
        for piece in pieces:
            kind, text = piece["kind"], piece["text"]
            had, size = before.get(kind, 0), self._size(kind, text)
            before[kind] = max(0, had - size)
            if had < size:
                self._print(kind, text[had:] if kind in self._streams else text)
        for stream in self._streams.values():
            stream.end()

    def idle(self) -> None:
        """Tell a person that the code still runs, on a line that the next output takes away."""
        now = time.monotonic()
        if self._progress and now - self._quiet_since >= _PATIENCE_S:
            for stream in self._streams.values():
                if stream.in_line:
                    return  # it is in the middle of a line of the code's own
            write(sys.stderr, f"\r\x1b[K… running for {_seconds(now - self._began)}")
            self._has_progress_line = True

    def remark(self, text: str) -> None:
        """Print a line of ours, apart from what the code shows."""
        self._end_progress()
        for stream in self._streams.values():
            stream.end()
        if self._streams["stderr"].in_line or (self._streams["stdout"].in_line and sys.stdout.isatty()):
            self._streams["stderr"].in_line = self._streams["stdout"].in_line = False
            say("", err=True)
        say(text, err=True)

    def again(self) -> None:
        """Begin anew: the code runs again, as the keeper has ended that ran it."""
        self.remark("⟦note⟧ the keeper has ended; the code runs again")
        self._printed.clear()

    def close(self) -> None:
        """Leave a terminal as a shell wants it."""
        self._end_progress()
        for stream in self._streams.values():
            stream.end()

    @staticmethod
    def _size(kind: str, text: str) -> int:
        return len(text) if kind in ("stdout", "stderr") else 1

    def _count(self, kind: str, text: str) -> None:
        if kind != "updated":  # the reply has no such pieces: it shows each display as it is at the end
            self._printed[kind] = self._printed.get(kind, 0) + self._size(kind, text)

    def _print(self, kind: str, text: str) -> None:
        if (stream := self._streams.get(kind)) is not None:
            stream.write(text)
        else:
            self._streams["stderr" if kind == "error" else "stdout"].line(text)

    def _end_progress(self) -> None:
        if self._has_progress_line:
            write(sys.stderr, "\r\x1b[K")
            self._has_progress_line = False


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def run(
    code: str,
    session_id: str | None,
    *,
    timeout: float | None = None,
    detach: bool = False,
    as_json: bool = False,
    save_figures: Callable[[Reply], None] | None = None,
) -> int:
    """Run code, print what it shows, and return the exit code of the command."""
    options = {"session_id": session_id, "timeout": timeout}
    arguments = {"code": code, "wait": 0 if detach else LONGEST_WAIT_S}
    arguments |= {name: value for name, value in options.items() if value is not None}
    return _follow("python_repl", session_id, arguments, as_json=as_json, save_figures=save_figures, detach=detach)


def wait(session_id: str, *, timeout: float | None = None, as_json: bool = False) -> int:
    """Wait for the code that runs in a session, print what it shows, and return the exit code of the command."""
    arguments = {"session_id": session_id, "wait": LONGEST_WAIT_S if timeout is None else timeout}
    return _follow("python_wait", session_id, arguments, as_json=as_json, may_go_on=timeout is not None)


def interrupt(session_id: str, *, force: bool = False, as_json: bool = False) -> int:
    """Interrupt the code that runs in a session, print its outcome, and return the exit code of the command."""
    with Caller(live=True) as keeper:
        reply = keeper.call("python_interrupt", session_id=session_id, force=force)
        if reply.structured["status"] == "running":
            reply = keeper.call("python_wait", session_id=session_id, wait=LONGEST_WAIT_S)
    if as_json:
        say_json(reply.structured)
    else:
        print_reply(Printer(), reply)
    return 0


def _follow(
    tool: str,
    session_id: str | None,
    arguments: dict[str, Any],
    *,
    as_json: bool = False,
    detach: bool = False,
    may_go_on: bool = False,
    save_figures: Callable[[Reply], None] | None = None,
) -> int:
    """Call a tool that runs or awaits code, and print what it shows meanwhile and at the end."""
    printer = Printer()
    show = None if as_json or detach else printer.show
    idle = None if as_json else printer.idle
    request_id: str | None = None
    stopped = False
    try:
        try:
            with Caller(live=True) as keeper:
                try:
                    again = printer.again if session_id is None else None
                    reply = keeper.call(tool, show=show, idle=idle, again=again, **arguments)
                finally:
                    request_id = keeper.request_id
        except KeyboardInterrupt:
            printer.close()
            if request_id is None or session_id is None or tool != "python_repl":
                return INTERRUPTED
            # The code is being interrupted: what it still says is worth having.
            stopped = True
            with Caller(operator=True, live=True) as keeper:
                reply = keeper.call("keeper_outcome", session_id=session_id, request_id=request_id)
    except KernelReplError as error:
        printer.close()
        say(f"kernelrepl: {worded(str(error))}", err=True)
        return CANNOT_RUN
    if as_json:
        say_json(reply.structured)
    else:
        print_reply(printer, reply, has_saved=save_figures is not None)
    if save_figures is not None:
        save_figures(reply)
    if stopped:
        return INTERRUPTED
    if detach and reply.structured["status"] == "running":
        return 0
    _explain(arguments.get("code", ""), reply.structured)
    return exit_code(reply.structured, may_go_on)


def _explain(code: str, result: dict[str, Any]) -> None:
    """Say so where the name of a file was taken for code."""
    error = result["error"]
    if error is not None and error["name"] == "NameError" and code.endswith(".py") and len(code.split()) == 1:
        say(f"there is no file '{code}', so it was run as code", err=True)


def exit_code(result: dict[str, Any], may_go_on: bool = False) -> int:
    """Return what a command exits with after code with this result. may_go_on: that it still runs is no failure."""
    status, error = result["status"], result["error"]
    if status == "error" and error is not None and error["name"] == "SystemExit":
        return _asked_for(error["message"])
    codes = {"ok": 0, "timeout": TIMED_OUT, "interrupted": INTERRUPTED, "crashed": DIED}
    codes["running"] = TIMED_OUT if may_go_on else FAILED
    return codes.get(status, FAILED)


def _asked_for(message: str) -> int:
    """What `sys.exit(message)` makes of a program."""
    if message in ("", "None"):
        return 0
    try:
        return int(message) & 0xFF
    except ValueError:
        return FAILED


def print_reply(printer: Printer, reply: Reply, *, has_saved: bool = False) -> None:
    """Print what of a reply has not been printed, and what the keeper says of it. has_saved: its figures are files."""
    error = reply.structured["error"]
    leaves = error is not None and error["name"] == "SystemExit"
    pieces = [piece for piece in reply.pieces if not leaves or piece["kind"] != "error"]
    printer.finish(pieces)
    if leaves:
        if _asked_for(error["message"]) == FAILED and error["message"] != str(FAILED):
            printer.remark(error["message"])
    elif error is not None and not any(piece["kind"] == "error" for piece in reply.pieces):
        printer.remark(error["traceback"] or f"{error['name']}: {error['message']}")
    for line in reply.remarks:
        printer.remark(remarked(line))
    if reply.images and not has_saved:
        figures = "1 figure" if len(reply.images) == 1 else f"{len(reply.images)} figures"
        printer.remark(f"⟦{figures}⟧ --save-figures DIRECTORY writes what code draws into files")
    printer.close()


def source_of(argument: str | None, file: str | None) -> str:
    """Return the code that a command line means. Raises OSError or UnicodeDecodeError for a file.

    argument: code, the name of a Python file, `-` for standard input, or None for that too. file: a file, for sure.
    """
    if file is not None:
        argument = None
    elif argument is not None and argument != "-":
        if not is_file(argument):
            return argument
        file = argument
    if file is not None and file != "-":
        with open(file, encoding="utf-8-sig") as opened:  # noqa: PTH123 - pathlib takes its time to load
            return opened.read()
    if sys.stdin.isatty():
        say("reading code from the terminal; Ctrl-D on a line of its own runs it, Ctrl-C leaves", err=True)
    return sys.stdin.read()


def is_file(argument: str) -> bool:
    """Whether an argument that may be code names a Python file that is there."""
    return argument.endswith(".py") and "\n" not in argument and os.path.isfile(argument)  # noqa: PTH113
