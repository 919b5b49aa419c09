"""What processes look at before they are confined, as the system sees it: a keeper and all its kernels under strace.

A real keeper is started as an agent host would start it: in a folder that a session may write to, with an environment
that leads there by every variable that a loader, an interpreter or a library reads.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CALLS = "%file,clone,clone3,fork,vfork,seccomp,prctl,fchdir"
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))")
_MADE = re.compile(r"= (\d+)(?: /\* (\d+) in strace's PID NS \*/)?$")
_TEXT = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_LOCK = "keeper.lock"
BAIT = """
import os
names = ("sitecustomize", "usercustomize", "numpy", "json", "encodings", "kernelrepl", "zmq", "ipykernel", "site", "os")
for base in {places!r}:
    for name in names:
        open(f"{{base}}/{{name}}.py", "w").write("")
        os.makedirs(f"{{base}}/{{name}}", exist_ok=True)
        open(f"{{base}}/{{name}}/__init__.py", "w").write("")
    for name in ("site-packages", ".ipython/profile_default/startup", "de_DE.UTF-8/LC_MESSAGES", "lib"):
        os.makedirs(f"{{base}}/{{name}}", exist_ok=True)
    for name in ("pyvenv.cfg", "bait.pth", "matplotlibrc", "ipython_config.py", "openssl.cnf", "libbait.so",
                 "fonts.conf", ".ipython/profile_default/startup/bait.py", "libc.so.6", "python", "lib/libc.so.6"):
        open(f"{{base}}/{{name}}", "w").write("")
"""


def lacks() -> str:
    """Why it cannot be looked at here; empty if it can. What a machine lacks fails where everything is tested."""
    if shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("strace is missing; apt install strace")
        return "it needs strace: apt install strace"
    return ""


def hostile(environ: dict[str, str], workspace: Path, granted: Path) -> dict[str, str]:
    """The same environment, with everything in it that could lead a new process to what a session wrote."""
    lists = f":relative:.:{workspace}"
    return {
        **environ,
        "PYTHONPATH": f"{lists}:{environ.get('PYTHONPATH', '')}",
        "PATH": f"{lists}:{environ['PATH']}",
        "PYTHONHOME": str(workspace),
        "PYTHONSTARTUP": "sitecustomize.py",
        "PYTHONUSERBASE": str(workspace),
        "PYTHONPYCACHEPREFIX": str(granted),
        "PYTHONINSPECT": "1",
        "LD_PRELOAD": f"{workspace}/libbait.so",
        "LD_LIBRARY_PATH": lists,
        "LD_AUDIT": "./libbait.so",
        "LOCPATH": str(workspace),
        "LANG": f"{granted}/de_DE.UTF-8",
        "LC_ALL": "../de_DE.UTF-8",
        "TZ": f":{granted}/zone",
        "TZDIR": str(workspace),
        "OPENSSL_CONF": str(workspace / "openssl.cnf"),
        "MPLCONFIGDIR": str(granted),
        "MATPLOTLIBRC": str(granted),
        "FONTCONFIG_FILE": str(granted / "fonts.conf"),
        "FONTCONFIG_PATH": str(granted),
        "IPYTHONDIR": str(granted / ".ipython"),
        "JUPYTER_CONFIG_DIR": str(granted),
        "TMPDIR": str(granted),
        "XDG_CACHE_HOME": str(workspace),
        "XDG_CONFIG_HOME": "relative",
        "VIRTUAL_ENV": str(granted),
    }


START = """
import json, os, sys
from kernelrepl import discovery
sock, answer = discovery.connect_or_start(json.loads(sys.argv[1]), "operator", {"client": "test", "settings": {}})
print("connected", flush=True)
sys.stdin.read()
"""


def traced(log: Path, environ: str, cwd: Path) -> subprocess.Popen[str]:
    """A client that starts a keeper and stays connected until its input ends; everything below it is written down."""
    command = ["strace", "-f", "-y", "-s", "4096", "--decode-pids=pidns", "-e", f"trace={CALLS}", "-o", str(log)]
    return subprocess.Popen(
        [*command, sys.executable, "-P", "-c", START, environ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


@dataclass
class _One:
    """A process: where it is, and how far."""

    cwd: str
    role: str = "client"
    """client, keeper (which may look at workspaces once it has its lock), or kernel: all that it starts."""
    free: bool = True
    """Whether it is confined, or may look wherever it likes."""
    ran: bool = False
    """Whether it is a program of its own already."""
    moved: bool = False
    """Whether it has a tree of its own."""

    def child(self, thread: bool) -> _One:
        """What it starts."""
        if self.role == "keeper" and not thread:
            return _One(self.cwd, "kernel", free=False)
        return _One(self.cwd, self.role, self.free, self.ran, self.moved)


@dataclass
class Looks:
    """What was found in a trace."""

    bad: list[str] = field(default_factory=list)
    """Each look at a place of a session by a process that was not confined."""
    kinds: set[str] = field(default_factory=set)
    """Which processes there were, by what they run; "confined" if one was confined in the end."""


def _of(command: str) -> str:
    found = re.search(r"kernelrepl\.guest\.\w+", command)
    return found[0] if found else "describe" if '"-S", "-c"' in command else "keeper" if '"keeper"' in command else ""


def looks(log: Path, places: Iterable[Path], cwd: Path, workspaces: Path, *, off: bool = False) -> Looks:
    """Read a trace: no process but the client looks at these places before it is confined.

    off: there is no sandbox, and a kernel has come as far when it goes into its workspace. To mount what was granted is
    no look: that is a descriptor for nothing else, over no link.
    """
    written = [os.path.realpath(place) for place in places]
    found, known, starting = Looks(), dict[str, _One](), dict[str, bool]()
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        pid, resumed, rest, call, arguments = match.groups()
        if pid not in known:  # the call of whoever has started it has not returned yet
            parent = next(reversed(starting), None)
            known[pid] = _One(str(cwd)) if parent is None else known[parent].child(starting[parent])
        one = known[pid]
        name, text = (resumed, rest) if resumed else (call, arguments)
        if name in ("clone", "clone3", "fork", "vfork"):
            starting.setdefault(pid, "CLONE_THREAD" in text)
            made = _MADE.search(text)
            if made is not None:
                known.setdefault(made[2] or made[1], one.child(starting[pid]))
            if "unfinished" not in text:
                del starting[pid]
        elif not resumed:
            _step(one, name, text, written, found, str(workspaces) if off else None)
    return found


def _step(one: _One, name: str, text: str, written: list[str], found: Looks, workspaces: str | None) -> None:
    if name in ("seccomp", "prctl"):
        if "SECCOMP_SET_MODE_FILTER" in text or "PR_SET_SECCOMP" in text:
            one.free = True
            found.kinds.add("confined")
        return
    paths = [os.path.normpath(os.path.join(at or one.cwd, path)) for at, path in _TEXT.findall(text) if path]  # noqa: PTH118
    if name == "pivot_root":
        one.moved = True
    if name == "execve":
        kind = _of(text)
        if kind == "keeper":
            one.role, one.free = "keeper", False
        elif one.role == "client":
            return
        found.kinds.add(kind)
        paths, one.ran = paths[:1], True
    if one.role == "keeper" and any(path.endswith(_LOCK) for path in paths):
        one.free = True
    if name == "chdir" and paths:
        one.cwd = paths[0]
        if workspaces is not None and one.ran and paths[0].startswith(f"{workspaces}/"):
            one.free = True
            found.kinds.add("its own")
    if one.free or "O_PATH" in text:
        return
    for path in paths:
        seen = path.removeprefix("/old")
        if one.moved and name == "newfstatat" and seen in written:
            continue  # of what kind a grant is, for the rule that it gets
        if any(seen == place or seen.startswith(f"{place}/") for place in written):
            found.bad.append(f"{one.role}: {name}({text}"[:300])
