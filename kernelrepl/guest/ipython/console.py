"""What a terminal has and a session has not: a shell, a keyboard, a debugger, an editor.

Asking for one of them is an error at once that says what to do instead; nothing is run, and nothing waits
for an answer that cannot come. Runs in the kernel.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import IPython
import IPython.terminal.embed
from IPython.core.autocall import IPyAutocall
from IPython.core.error import StdinNotImplementedError

from kernelrepl.guest import packages

_SCRIPTS = frozenset(
    {"bash", "sh", "script", "perl", "ruby", "python", "python2", "python3", "pypy", "cmd", "!", "sx", "system"}
)
_INSTALLERS = frozenset({"pip", "conda", "mamba", "micromamba", "uv"})
_EDITORS = frozenset({"edit", "ed"})
_SHOWN_CHARS = 100


class NoShell(RuntimeError):
    """Code wants to run a command line."""

    def __init__(self, command: str) -> None:
        super().__init__(f"a session has no shell, so {_short(command)} was not run; {instead(command)}")


_INSTEAD = {
    "ls": "os.listdir('.') lists a directory",
    "dir": "os.listdir('.') lists a directory",
    "cat": "open('FILE').read() reads a file",
    "head": "open('FILE').readlines()[:10] reads the head of a file",
    "tail": "open('FILE').readlines()[-10:] reads the end of a file",
    "wc": "len(open('FILE').readlines()) counts lines",
    "grep": "[line for line in open('FILE') if 'TEXT' in line] finds lines",
    "find": "list(pathlib.Path('.').rglob('*')) finds files",
    "pwd": "os.getcwd() tells the working directory",
    "mkdir": "os.makedirs('NAME') makes a directory",
    "rm": "os.remove('FILE') and shutil.rmtree('DIRECTORY') remove",
    "cp": "shutil.copy('FROM', 'TO') copies",
    "mv": "shutil.move('FROM', 'TO') moves",
    "touch": "open('FILE', 'a').close() makes a file",
    "echo": "print('TEXT') prints",
    "env": "os.environ has the environment",
    "unzip": "shutil.unpack_archive('FILE') unpacks",
    "tar": "shutil.unpack_archive('FILE') unpacks, and shutil.make_archive packs",
    "curl": "there is no network; have the file put into the workspace",
    "wget": "there is no network; have the file put into the workspace",
    "git": "there is neither git nor a network; have the files put into the workspace",
}
_PYTHON = re.compile(r"python[\d.]*")
_OF_PYTHON = "of programs a session has Python alone: subprocess.run([sys.executable, 'FILE.py'])"


def instead(command: str) -> str:
    """What to do where a command line cannot be run."""
    if command.startswith("%"):  # a magic, then what it would run
        command = command.partition("\n")[2] or command.partition(" ")[2]
    words = command.split()
    while words and ("=" in words[0] or words[0] in ("sudo", "time")):
        words = words[1:]
    name = words[0].rpartition("/")[2] if words else ""
    module = words[2] if _PYTHON.fullmatch(name) and words[1:2] == ["-m"] and len(words) > 2 else name
    if module in _INSTALLERS or module == "pip3":
        return f"for packages, {how_to_install(_wanted(words))}"
    return f"{_INSTEAD[name]}; {_OF_PYTHON}" if name in _INSTEAD else f"write it in Python; {_OF_PYTHON}"


def _wanted(words: list[str]) -> list[str]:
    """Return what a command line would install: its words without options."""
    given = words[words.index("install") + 1 :] if "install" in words else []
    return [word for word in given if not word.startswith("-")]


def how_to_install(names: list[str]) -> str:
    """Return how code gets packages."""
    it = "it" if len(names) == 1 else "them"
    return f"`%pip install {' '.join(names) or 'NAME'}` installs {it} for this session"


class NoInstaller(RuntimeError):
    """Code wants of an installer what a session has not: the environment is shared by all sessions."""

    def __init__(self, tool: str, line: str) -> None:
        how = how_to_install(_wanted(line.split()))
        more = "importlib.metadata.distributions() lists what there is"
        super().__init__(f"{_short(f'%{tool} {line}'.strip())} was not run; {how}, {more}")


def installs(name: str, line: str, cell: str | None = None) -> list[str] | None:
    """Return the packages that a magic would install, or None if it does nothing, or something else as well."""
    if cell is None:
        return packages.wanted(f"{name} {line}") if name in _INSTALLERS else None
    lines = [text for text in cell.splitlines() if text.strip() and not text.lstrip().startswith("#")]
    found = [packages.wanted(text) for text in lines] if name in ("bash", "sh") else []
    return [package for names in found for package in names or ()] if found and None not in found else None


class NoEditor(RuntimeError):
    """Code wants to open an editor."""

    def __init__(self, line: str) -> None:
        super().__init__(f"a session has no editor, so {_short(f'%edit {line}'.strip())} did nothing; write the file")


class NoInput(StdinNotImplementedError):
    """Code wants to ask a person."""

    def __init__(self, function: str) -> None:
        super().__init__(f"{function}() has nobody to ask: no person sits at a session; pass the value in the code")


_NOBODY = (
    "a debugger has nobody to talk to: no person sits at a session; "
    "print the values, or look at the variables in the next call"
)
FOR_ALL = "%pdb on would stop the code of agents as well; after an error, %debug opens the debugger"


class NoDebugger(RuntimeError):
    """Code wants to stop in a debugger."""

    def __init__(self, why: str = _NOBODY) -> None:
        super().__init__(why)


class NoShutdown(RuntimeError):
    """Code wants to end its kernel."""

    def __init__(self) -> None:
        super().__init__("code does not end its own kernel; reset=True of python_repl gives the session a fresh one")


REFUSALS = (packages.NotInstalled, NoShutdown, NoShell, NoInstaller, NoEditor, NoInput, NoDebugger)


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


_STORED = (
    "[store] variables of a session last by themselves, and need no %store; what %store itself keeps, aliases too, "
    "is gone with this kernel"
)


def remark(name: str, line: str) -> str | None:
    """What is to be said of a line magic that does less here than people expect of it, or None."""
    return _STORED if name == "store" and ">" not in line else None


class SessionExit(IPyAutocall):
    """`exit` and `quit`: they end the cell, as they would end a script."""

    rewrite = False

    def __call__(self, code: object = None, keep_kernel: bool = False) -> NoReturn:
        raise SystemExit if code is None else SystemExit(code)


def install() -> None:
    """Make IPython's own prompt an error. Once per process."""

    def embed(*args: Any, **kwargs: Any) -> NoReturn:
        raise NoInput("embed")

    IPython.embed = IPython.terminal.embed.embed = embed
