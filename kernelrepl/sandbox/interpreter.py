"""Where a Python interpreter keeps itself: what a confined kernel must be able to see of it."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernelrepl.errors import InterpreterLacks, KernelStartFailed

_QUESTION = """
import json, os, site, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(json.dumps({
    "executable": sys.executable,
    "version": "%d.%d" % sys.version_info[:2],
    "prefixes": [sys.prefix, sys.base_prefix, sys.exec_prefix],
    "path": [os.path.abspath(entry) for entry in sys.path if entry],
    "user_base": site.getuserbase() if site.ENABLE_USER_SITE else None,
    "packages": {name: version(name) for name in ("ipykernel", "cloudpickle", "xxhash")},
}))
"""
_TIMEOUT_S = 30.0
PYTHON = (3, 11)
NEEDED = {"ipykernel": "7", "cloudpickle": "", "xxhash": ""}
"""What the interpreter of a kernel must have, and from which version on."""


@dataclass(frozen=True)
class Interpreter:
    """Paths as the interpreter itself names them."""

    executable: str
    version: str
    prefixes: tuple[str, ...]
    path: tuple[str, ...]
    user_base: str | None


def describe(python: str, environment: Mapping[str, str]) -> Interpreter:
    """Ask an interpreter; once for each. Raises KernelStartFailed when it does not answer, InterpreterLacks."""
    return _describe(python, tuple(sorted(environment.items())))


@functools.lru_cache(maxsize=64)
def _describe(python: str, environment: tuple[tuple[str, str], ...]) -> Interpreter:
    command = [python, "-c", _QUESTION]  # in a directory without modules: old ones know no -P
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=dict(environment), cwd="/", check=False
        )
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise KernelStartFailed(f"{getattr(error, 'strerror', None) or error}: {python}") from error
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        lacks = _lacks(found["version"], found["packages"])
        if lacks:
            raise InterpreterLacks(python, found["version"], lacks)
        return Interpreter(
            executable=str(Path(found["executable"])),
            version=found["version"],
            prefixes=tuple(dict.fromkeys(found["prefixes"])),
            path=tuple(dict.fromkeys(found["path"])),
            user_base=found["user_base"],
        )
    except (ValueError, LookupError, TypeError) as error:
        raise KernelStartFailed(f"it exited with code {done.returncode}: {python}", done.stderr) from error


def _lacks(version: str, packages: Mapping[str, str | None]) -> list[str]:
    """What kernels need and an interpreter has not, as pip wants to be told; "python" if it is too old itself."""
    if _numbers(version) < PYTHON:
        return ["python"]
    return [name + f">={least}" * bool(least) for name, least in NEEDED.items() if _older(packages.get(name), least)]


def _older(version: str | None, least: str) -> bool:
    return version is None or (bool(least) and _numbers(version)[0] < int(least))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
