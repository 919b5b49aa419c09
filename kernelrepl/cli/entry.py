"""Where the command line begins. What people and scripts type most is run without loading what parses options."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from kernelrepl import __version__
from kernelrepl.cli import terminal
from kernelrepl.errors import KernelReplError

ABOUT = f"""\
kernelrepl {__version__}: Python sessions that survive.

On its own, `kernelrepl` is an MCP server that talks to a host over pipes, not to a person at a terminal.

  kernelrepl install HOST             add it to an MCP host: claude-code, cursor, vscode, ...
  kernelrepl exec -s NAME 'x = 41'    run code in a session
  kernelrepl sessions                 list the sessions
  kernelrepl --help                   all commands
"""


def main() -> int:
    """Run the command of this process, and return its exit code."""
    terminal.prepare()
    arguments = sys.argv[1:]
    try:
        quick = _quick(arguments)
        return _with_options() if quick is None else quick()
    except KernelReplError as error:
        terminal.say(f"kernelrepl: {terminal.worded(str(error))}", err=True)
        return terminal.FAILED
    except KeyboardInterrupt:
        return terminal.INTERRUPTED


def _quick(arguments: Sequence[str]) -> Callable[[], int] | None:
    """Return what runs a command line that is as plain as most are; None if it has to be parsed."""
    match arguments:
        case [] if "_KERNELREPL_COMPLETE" not in os.environ:
            return _about
        case ["--version"]:
            return _version
        case ["sessions"]:
            return _sessions
        case ["exec", ("-s" | "--session"), str(name), str(code)] if not code.startswith("-"):
            return lambda: _run(code, name)
        case ["exec", str(code)] if not code.startswith("-"):
            return lambda: _run(code, None)
    return None


def _about() -> int:
    terminal.say(ABOUT, nl=False)
    return 0


def _version() -> int:
    terminal.say(f"kernelrepl, version {__version__}")
    return 0


def _sessions() -> int:
    from kernelrepl.cli import lists

    lists.sessions()
    return 0


def _run(code: str, session_id: str | None) -> int:
    from kernelrepl.cli import running

    if running.is_file(code):
        return _with_options()
    return running.run(code, session_id)


def _with_options() -> int:
    from kernelrepl.cli import commands

    return commands.main()
