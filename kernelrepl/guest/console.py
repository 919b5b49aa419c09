"""What a terminal has and a session has not: a shell, a keyboard, a debugger, an editor.

Asking for one of them is an error at once that says what to do instead; nothing is run, and nothing waits
for an answer that cannot come. Runs in the kernel.
"""

from __future__ import annotations

import pdb
import sys
from typing import Any, NoReturn

import IPython
import IPython.terminal.embed
from IPython.core.autocall import IPyAutocall
from IPython.core.error import StdinNotImplementedError

_SCRIPTS = frozenset(
    {"bash", "sh", "script", "perl", "ruby", "python", "python2", "python3", "pypy", "cmd", "!", "sx", "system"}
)
_INSTALLERS = frozenset({"pip", "conda", "mamba", "micromamba", "uv"})
_EDITORS = frozenset({"edit", "ed"})
_SHOWN_CHARS = 100


class NoShell(RuntimeError):
    """Code wants to run a command line."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"a session has no shell, so {_short(command)} was not run; call the program from Python: "
            "import subprocess; subprocess.run(['PROGRAM', 'ARGUMENT'], capture_output=True, text=True)"
        )


class NoInstaller(RuntimeError):
    """Code wants to change the environment that all sessions share."""

    def __init__(self, tool: str, line: str) -> None:
        words = line.split()
        wanted = " ".join(words[words.index("install") + 1 :]) if "install" in words else ""
        super().__init__(
            f"a session installs no packages, so {_short(f'%{tool} {line}'.strip())} was not run; install packages "
            f"into the environment that runs the kernels: {sys.executable} -m pip install {wanted or 'NAME'}"
        )


class NoEditor(RuntimeError):
    """Code wants to open an editor."""

    def __init__(self, line: str) -> None:
        super().__init__(f"a session has no editor, so {_short(f'%edit {line}'.strip())} did nothing; write the file")


class NoInput(StdinNotImplementedError):
    """Code wants to ask a person."""

    def __init__(self, function: str) -> None:
        super().__init__(f"{function}() has nobody to ask: no person sits at a session; pass the value in the code")


class NoDebugger(RuntimeError):
    """Code wants to stop in a debugger."""

    def __init__(self) -> None:
        super().__init__(
            "a debugger has nobody to talk to: no person sits at a session; "
            "print the values, or look at the variables in the next call"
        )


class NoShutdown(RuntimeError):
    """Code wants to end its kernel."""

    def __init__(self) -> None:
        super().__init__("code does not end its own kernel; reset=True of python_repl gives the session a fresh one")


REFUSALS = (NoShutdown, NoShell, NoInstaller, NoEditor, NoInput, NoDebugger)


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")


def refusal(mark: str, name: str, line: str, cell: str = "") -> Exception | None:
    """The error of a magic that a session cannot serve, or None. `mark` is % or %%."""
    if name in _INSTALLERS:
        return NoInstaller(name, line)
    if name in _EDITORS:
        return NoEditor(line)
    if name in _SCRIPTS and (mark == "%%" or name in ("sx", "system")):
        return NoShell(f"{mark}{name} {line}".strip() + (f"\n{cell}".rstrip() if cell else ""))
    return None


class SessionExit(IPyAutocall):
    """`exit` and `quit`: they end the cell, as they would end a script."""

    rewrite = False

    def __call__(self, code: object = None, keep_kernel: bool = False) -> NoReturn:
        raise SystemExit if code is None else SystemExit(code)


def _no_debugger(*args: Any, **kwargs: Any) -> NoReturn:
    raise NoDebugger


def install() -> None:
    """Make every way into a prompt an error. Once per process."""
    sys.breakpointhook = _no_debugger
    for entry in ("set_trace", "run", "runeval", "runcall", "interaction"):
        setattr(pdb.Pdb, entry, _no_debugger)
    from IPython.core import debugger

    for entry in ("set_trace", "interaction"):
        setattr(debugger.Pdb, entry, _no_debugger)

    def embed(*args: Any, **kwargs: Any) -> NoReturn:
        raise NoInput("embed")

    IPython.embed = IPython.terminal.embed.embed = embed
