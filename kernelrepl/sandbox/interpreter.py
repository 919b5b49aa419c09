"""Where a Python interpreter keeps itself: what a confined kernel must be able to see of it, and nobody may write to.

Whoever is asked runs unconfined. So nothing of an interpreter is run that lies where a session writes: what leads to it
is looked at before it is started, and it looks itself before it goes on to the next place.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kernelrepl.errors import InterpreterExposed, InterpreterLacks, KernelStartFailed
from kernelrepl.workspaces.entrances import met

_QUESTION = """
import sys
if sys.path and not sys.path[0]:
    del sys.path[0]
import json, os, site
places = json.loads(sys.stdin.read())
configured = []
def look(*paths):
    for path in paths:
        real = os.path.realpath(path)
        for place in places:
            if (real + "/").startswith(place + "/") or (place + "/").startswith(real + "/"):
                print(json.dumps({"exposed": path, "place": place}))
                sys.exit()
def prefixes():
    return [sys.prefix, sys.base_prefix, sys.exec_prefix]
def add_directory(directory, *more):
    look(directory)
    return add_directory_as_it_is(directory, *more)
def add_file(directory, name, *more):
    file = os.path.join(directory, name)
    look(file)
    configured.append(file)
    with open(file, "rb") as lines:
        for line in lines.read().decode("utf-8", "replace").splitlines():
            if line.strip() and not line.startswith(("#", "import ", "import\\t")):
                look(os.path.join(directory, line.rstrip()))
    known = add_file_as_it_is(directory, name, *more)
    look(*sys.path)
    return known
look(sys.executable, *sys.path)
add_directory_as_it_is, add_file_as_it_is = site.addsitedir, site.addpackage
site.addsitedir, site.addpackage = add_directory, add_file
custom = site.execsitecustomize, getattr(site, "execusercustomize", None)
site.execsitecustomize = site.execusercustomize = lambda: None
site.main()
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
def editable():
    found = []
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("__editable__"):
            found += getattr(module, "MAPPING", {}).values()
            for more in getattr(module, "NAMESPACES", {}).values():
                found += more
    for distribution in metadata.distributions():
        try:
            about = json.loads(distribution.read_text("direct_url.json") or "{}")
            url = about.get("url", "")
            if not (about.get("dir_info", {}).get("editable") and url.startswith("file://")):
                continue
            from urllib.request import url2pathname
            project = os.path.realpath(url2pathname(url[7:]))
            if not any((os.path.realpath(entry) + "/").startswith(project + "/") for entry in sys.path + found):
                found.append(project)
        except (ValueError, AttributeError, OSError):
            continue
    return found
def users():
    if not site.ENABLE_USER_SITE:
        return None
    return site.getusersitepackages()
written = editable()
look(*(sys.path + written + ([users()] if users() else [])))
known = list(sys.path), list(sys.modules)
custom[0]()
if site.ENABLE_USER_SITE and custom[1]:
    custom[1]()
look(*sys.path)
if known != (list(sys.path), list(sys.modules)):
    written = editable()
print(json.dumps({
    "executable": sys.executable,
    "version": "%d.%d" % sys.version_info[:2],
    "prefixes": prefixes(),
    "path": [os.path.abspath(entry) for entry in sys.path if entry],
    "user_base": site.getuserbase() if site.ENABLE_USER_SITE else None,
    "user_site": users(),
    "editable": written,
    "configured": configured,
    "packages": {name: version(name) for name in ("ipykernel", "cloudpickle", "xxhash")},
}))
"""
_TIMEOUT_S = 30.0
_BESIDE = ("bin", "lib", "lib64", "pyvenv.cfg")
"""What of a prefix belongs to an interpreter, where much else lies in it."""
_LIBRARIES = ("lib", "lib64")
_READ = (*_LIBRARIES, "pyvenv.cfg", "pybuilddir.txt")
"""What an interpreter reads in the directory of its program and in the one above, before it can be asked for anything.
Whoever may write the program, or all that is beside it, may write to what holds them both."""
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
    user_site: str | None = None
    """Where it looks for packages of the user's, whether there are any or not."""
    editable: tuple[str, ...] = ()
    """Code that is imported from where it is written, by finders rather than by the path."""
    configured: tuple[str, ...] = ()
    """The .pth files that it has read."""


_State = tuple[int, int, int, int] | None


@dataclass(frozen=True)
class _Known:
    """What an interpreter has said, when that was, and what it was held against."""

    python: Interpreter
    stamp: tuple[_State, ...]
    places: tuple[str, ...]


_known: dict[tuple[str, tuple[tuple[str, str], ...]], _Known] = {}
_MOST = 64
_MOST_LED = 1000


def describe(python: str, environment: Mapping[str, str], places: Iterable[str] = ()) -> Interpreter:
    """Ask an interpreter, once for each as long as nothing is installed there.

    places: where sessions write, resolved. Raises KernelStartFailed when it does not answer, InterpreterLacks, and
    InterpreterExposed if a session could have written what it would run.
    """
    places = tuple(places)
    program = locate(python, environment)
    key = program, tuple(sorted(environment.items()))
    known = _known.get(key)
    state = None if known is None else _stamp(known.python)
    if known is not None and known.stamp == state and known.places == places:
        return known.python
    check(python, led(program), places)
    if known is None or known.stamp != state:
        found = _ask(python, program, environment, places)
        known = _Known(found, _stamp(found), places)
    check(python, sources(known.python), places)
    while len(_known) >= _MOST:
        _known.pop(next(iter(_known)), None)
    _known[key] = replace(known, places=places)
    return known.python


def locate(python: str, environment: Mapping[str, str]) -> str:
    """The absolute path of the program. Raises KernelStartFailed."""
    if python.startswith("/") and "\0" not in python:
        return python
    found = None if "/" in python else shutil.which(python, path=environment.get("PATH", os.defpath))
    if found is None:
        raise KernelStartFailed(f"{python!r} is neither an absolute path nor a program in a directory of PATH")
    return found


def led(program: str) -> list[str]:
    """What is read of an interpreter before it runs any Python: of each link that leads to it, and of its home."""
    found: list[str] = []
    waiting = [Path(program)]
    while waiting and len(found) < _MOST_LED:
        step = waiting.pop()
        found += [str(step), *(str(above / name) for above in list(step.parents)[:2] for name in _READ)]
        next_steps = [home / step.name for home in _homes(step)]
        with contextlib.suppress(OSError):
            next_steps.append(step.parent / step.readlink())
        if not next_steps:
            found += _searched(step)
        waiting += next_steps
    return list(dict.fromkeys(found))


def _searched(program: Path) -> Iterator[str]:
    """Where an interpreter looks for its library: upwards from its program, as far as to the first that there is."""
    for above in program.parents:
        yield from (str(above / name) for name in _LIBRARIES)
        if any(any((above / name).glob("python3*/os.py")) for name in _LIBRARIES):
            return


def _homes(program: Path) -> Iterator[Path]:
    """Of what a virtual environment was made, as its pyvenv.cfg says."""
    for above in list(program.parents)[:2]:
        try:
            lines = (above / "pyvenv.cfg").read_text(errors="replace").splitlines()
        except (OSError, ValueError):
            continue
        for line in lines:
            name, _, value = line.partition("=")
            if name.strip().lower() == "home" and value.strip().startswith("/"):
                yield Path(value.strip())


def sources(python: Interpreter) -> Iterator[str]:
    """From where an interpreter takes what it runs."""
    for prefix in python.prefixes:
        yield from parts(prefix)
    yield from python.path
    yield from python.editable
    if python.user_site is not None:
        yield python.user_site


def parts(prefix: str) -> list[str]:
    """What of a prefix belongs to an interpreter: all of it, unless it is one that much else lies in."""
    if prefix in ("/", "/usr", "/usr/local") or Path(prefix) in (Path.home(), *Path.home().parents):
        return [os.path.join(prefix, name) for name in _BESIDE]  # noqa: PTH118
    return [prefix]


def check(python: str, paths: Iterable[str], places: Iterable[str]) -> None:
    """Raise InterpreterExposed if one of these is where sessions write."""
    found = met(paths, places)
    if found is not None:
        raise InterpreterExposed(python, *found)


def _stamp(python: Interpreter) -> tuple[_State, ...]:
    """What changes when something is installed, removed or put elsewhere."""
    files = (*python.path, *python.prefixes, *python.configured, python.executable)
    return tuple(map(_state, (*files, *(f"{prefix}/pyvenv.cfg" for prefix in python.prefixes), python.user_site or "")))


def _state(path: str) -> _State:
    try:
        found = os.stat(path)  # noqa: PTH116 - dozens of them, at each start
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _ask(python: str, program: str, environment: Mapping[str, str], places: tuple[str, ...]) -> Interpreter:
    command = [program, "-S", "-c", _QUESTION]  # in a directory without modules: old ones know no -P
    try:
        done = subprocess.run(
            command,
            input=json.dumps(places),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=dict(environment),
            cwd="/",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise KernelStartFailed(f"{getattr(error, 'strerror', None) or error}: {python}") from error
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        if "exposed" in found:
            raise InterpreterExposed(python, found["exposed"], found["place"])
        lacks = _lacks(found["version"], found["packages"])
        if lacks:
            raise InterpreterLacks(python, found["version"], lacks)
        return Interpreter(
            executable=str(Path(found["executable"])),
            version=found["version"],
            prefixes=tuple(dict.fromkeys(found["prefixes"])),
            path=tuple(dict.fromkeys(found["path"])),
            user_base=found["user_base"],
            user_site=found["user_site"],
            editable=tuple(found["editable"]),
            configured=tuple(found["configured"]),
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
