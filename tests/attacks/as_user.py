"""Run a command as an ordinary user, from a root shell, without changing anything of the host.

`python -m tests.attacks.as_user -- COMMAND ...`

What an ordinary user could not walk to (a Python or a project below a home of mode 0700) is shown to it, read
only, in a mount namespace that ends with the command.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from kernelrepl.workspaces import removal

UID = 1001
FORKED = "KERNELREPL_ATTACKS_FORKED"
"""Set where kernels are to be forked from a zygote."""
ROOT = Path(__file__).resolve().parents[2]
_CLONE_NEWNS = 0x20000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 0x1000, 0x4000, 1 << 18


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    if libc.mount(*arguments):
        raise OSError(ctypes.get_errno(), f"mount {target}")


def _closed(path: Path) -> Path | None:
    """The outermost directory above a path that others may not pass."""
    for above in reversed(path.parents):
        if not above.stat().st_mode & 0o001:
            return above
    return None


def open_up(paths: Iterable[Path]) -> None:
    """In a mount namespace of our own, let everybody walk to these paths."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("", "/", "", _MS_REC | _MS_PRIVATE)
    behind: dict[Path, list[Path]] = {}
    for path in sorted({path.resolve() for path in paths}):
        closed = _closed(path)
        shown = behind.setdefault(closed, []) if closed is not None else []
        if not any(other in path.parents for other in shown):
            shown.append(path)
    for closed, shown in behind.items():
        opened = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in shown]
        _mount("kernelrepl-tests", str(closed), "tmpfs", 0, "mode=0755,size=1m")
        for path, descriptor in opened:
            path.mkdir(parents=True)
            _mount(f"/proc/self/fd/{descriptor}", str(path), "", _MS_BIND | _MS_REC)
            _mount("", str(path), "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
            os.close(descriptor)


def become(uid: int) -> None:
    """Be this user, and of no group but its own, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def environment(home: Path) -> dict[str, str]:
    """What such a user has: a home of its own, and nothing of root's; tests write nothing into the project."""
    return {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": f"-p no:cacheprovider --basetemp={home}/pytest",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "hypothesis"),
        **({FORKED: os.environ[FORKED]} if FORKED in os.environ else {}),
    }


def make_home() -> Path:
    """A directory that belongs to the user; whoever makes it removes it with `trees.remove`."""
    home = Path(tempfile.mkdtemp(prefix="kr-home-"))
    os.chown(home, UID, UID)
    return home


def command(arguments: list[str], home: Path) -> list[str]:
    """The command line that runs another one as the user: for whoever wants to start it without waiting."""
    return [sys.executable, "-m", "tests.attacks.as_user", "--home", str(home), "--", *arguments]


def _enter(home: Path, arguments: list[str]) -> NoReturn:
    open_up([Path(sys.prefix), Path(sys.base_prefix), ROOT, home])
    become(UID)
    os.chdir(ROOT)
    found = shutil.which(arguments[0], path=environment(home)["PATH"])
    os.execve(found or arguments[0], arguments, environment(home))


def main() -> int:
    """Run the command and return its exit code."""
    if os.geteuid() != 0:
        sys.exit("this gives up being root: start it as root, or run the command as it is")
    arguments = sys.argv[1:]
    if arguments[:1] == ["--home"]:
        _enter(Path(arguments[1]), arguments[3:])
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    home = make_home()
    try:
        return subprocess.run(command(arguments, home), cwd=ROOT, check=False).returncode
    finally:
        removal.remove(home)


if __name__ == "__main__":
    sys.exit(main())
