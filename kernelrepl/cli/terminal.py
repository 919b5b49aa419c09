"""Print for a person or into a pipe. Of the standard library, so that commands start fast."""

from __future__ import annotations

import os
import re
import sys

from kernelrepl.outputs.terminal_text import OPEN, coloured, output, safe

TYPE_CHECKING = False  # without `typing`, which takes as long to load as all else here
if TYPE_CHECKING:
    from typing import TextIO

FAILED = 1
"""A command failed; in `exec`, `wait` and `import`, the code did, as in `python FILE`."""
WRONG_USAGE = 2
TIMED_OUT = 124
"""As `timeout` has it, and so the next one."""
CANNOT_RUN = 125
"""Of commands that run code: not the code failed, but what should run it."""
INTERRUPTED = 130
"""By Ctrl-C, as shells have it."""
DIED = 137
"""The kernel was killed or has crashed, as shells have it for a process that is killed."""
READER_LEFT = 141
"""Nobody reads the output any more, as shells have it."""

_PLAIN_AGAIN = "\x1b[0m"
_UNFINISHED = "\x1b[^a-zA-Z~\x07]{0,40}$"
"""The beginning of what a terminal reads as a command, at the end of a piece. Compiled for the first of them only."""
_WORDS = (
    ("python_list_sessions", "`kernelrepl sessions`"),
    ("python_list_variables", "`kernelrepl variables`"),
    ("python_clear_session", "`kernelrepl clear`"),
    ("python_delete_session", "`kernelrepl delete`"),
    ("python_interrupt", "`kernelrepl interrupt`"),
    ("python_wait", "`kernelrepl wait`"),
    ("python_repl", "`kernelrepl exec`"),
    ("without a session_id", "without -s NAME"),
    ("without session_id", "without -s NAME"),
    ("give a session_id", "give -s NAME"),
    ("`wait` or `timeout` seconds", "--timeout seconds"),
    ("session_id ", "session name "),
)
"""What agents know by another name. Only ever replaced in words of our own."""
_ABOUT_NAMES = tuple(f"{OPEN}{word}" for word in ("files", "not saved", "restored", "not restored"))


def worded(text: str) -> str:
    """Words of the keeper, which speak of the tools of agents, as they are said to who types commands."""
    for theirs, ours in _WORDS:
        text = text.replace(theirs, ours)
    return text


def remarked(line: str) -> str:
    """The same of a remark, which may be about names of the session's."""
    return line if line.startswith(_ABOUT_NAMES) else worded(line)


def prepare() -> None:
    """Let nothing that a session prints be more than the terminal's encoding can take."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print for a person, whose terminal obeys nothing of it."""
    write(sys.stderr if err else sys.stdout, safe(str(text)) + ("\n" if nl else ""))


def say_json(value: object) -> None:
    """Print a value for a program. JSON leaves one character as it is that no terminal is to get."""
    import json

    say(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


def answer(question: str) -> str:
    """Ask a person and return the line that is typed, which ends with a line feed; "" if nothing more can come.

    Raises KeyboardInterrupt for Ctrl-C, at whatever moment it comes: `input` loses one that comes between its last
    look at signals and its read, and waits on.
    """
    import select
    import signal

    signalled, signals = os.pipe()
    os.set_blocking(signals, False)
    before = signal.set_wakeup_fd(signals)
    try:
        say(question, err=True, nl=False)
        while sys.stdin not in select.select([sys.stdin, signalled], [], [])[0]:
            os.read(signalled, 1)
        return sys.stdin.readline()
    finally:
        signal.set_wakeup_fd(before)
        os.close(signalled)
        os.close(signals)


def write(stream: TextIO, text: str) -> None:
    """Write and flush. The command ends where nobody reads any more."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go, and is not to be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(READER_LEFT)


class TextStream:
    """One of our streams, as a session writes to it: what comes in pieces is cleaned as if it had come in one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
        self._held = ""
        self._styled = False
        self.in_line = False
        """Whether what was written last has not ended its line."""

    def write(self, text: str) -> None:
        """Write the text of a session. What may be the half of something waits for the other half."""
        text = self._held + text
        end = len(text) if self._coloured else self._settled(text)
        if (unfinished := re.compile(_UNFINISHED).search(text, max(0, end - 60), end)) is not None:
            end = unfinished.start()
        text, self._held = text[:end], text[end:]
        self._write(text)

    @staticmethod
    def _settled(text: str) -> int:
        """Where the line begins that progress bars may write again: a pipe gets the last version of it."""
        line = text.rfind("\n") + 1
        return line if "\r" in text[line:] else len(text)

    def end(self) -> None:
        """Write what has waited. What comes next is not coloured, or hidden, by what came before."""
        text, self._held = self._held, ""
        self._write(text)
        if self._styled:
            self._styled = False
            write(self._stream, _PLAIN_AGAIN)

    def end_line(self) -> None:
        """Begin a new line, unless one has begun."""
        self.end()
        if self.in_line:
            write(self._stream, "\n")
            self.in_line = False

    def line(self, text: str) -> None:
        """Write a text of a session on lines of its own."""
        self.end_line()
        self._write(text.rstrip("\n") + "\n")

    def _write(self, text: str) -> None:
        if text:
            if self.in_line and not self._coloured and text.startswith("\r") and not text.startswith("\r\n"):
                write(self._stream, "\n")  # what the line was before is written already
            shown = coloured(text, up=False) if self._coloured else output(text)
            self._styled = self._styled or "\x1b" in shown
            write(self._stream, shown)
            self.in_line = not shown.endswith("\n") if shown else self.in_line
