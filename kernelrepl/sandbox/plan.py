"""Turn what a session is granted into a plan that the guest carries out. Reads the host's tree, changes nothing."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernelrepl.errors import AccessRefused
from kernelrepl.model import Resources
from kernelrepl.sandbox.exposure import clash, of_the_person
from kernelrepl.sandbox.interpreter import Interpreter
from kernelrepl.workspaces.entrances import within

Plan = dict[str, Any]
"""What `guest.confine.enter` takes: JSON values only."""

WORKSPACE = "/workspace"
"""Where a session finds its workspace, wherever it is on the host."""
PACKAGES = "/site-packages"
"""Where it finds its own packages."""
IDENTITY = 1000
NAMESPACES = ("user", "mount", "pid", "net", "ipc", "uts", "cgroup")
_FIRST_UID = 1879048192
_UIDS = 1 << 27
"""A range that no distribution hands out to people, services or containers."""
_INODES = 100_000
_SIGNALS = 1024

_SYSTEM = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store")
_ROOT_LINKS = ("/lib", "/lib32", "/lib64")
_DATA = (
    "/usr/share/zoneinfo", "/usr/share/fonts", "/usr/local/share/fonts", "/usr/share/fontconfig", "/usr/share/locale",
    "/usr/share/i18n", "/usr/share/icu", "/usr/share/proj", "/usr/share/gdal", "/usr/share/tcltk", "/usr/share/mime",
    "/usr/share/ca-certificates", "/etc/alternatives", "/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/fonts",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types",
)  # fmt: skip
_LOADERS = ("ld-*.so*", "ld-linux*.so*")
_PASSWD = f"session:x:{IDENTITY}:{IDENTITY}:session:{WORKSPACE}:/none\nnobody:x:65534:65534:nobody:/:/none\n"
_FILES = {
    "/etc/passwd": _PASSWD,
    "/etc/group": f"session:x:{IDENTITY}:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost kernelrepl\n",
    "/etc/hostname": "kernelrepl\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_PARTS = ("bin", "lib", "lib64", "pyvenv.cfg")
"""What is shown of a prefix that holds more than a Python installation."""
_SHARED = ("/usr", "/usr/local", "/")


@dataclass(frozen=True)
class Access:
    """Paths of the host that a person lets a session reach, resolved when the session was made."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


@dataclass(frozen=True)
class Surroundings:
    """What is the same for all sessions of a keeper."""

    never: tuple[Path, ...] = ()
    """Directories of our own: neither they nor what holds them is ever shown."""
    environment: Mapping[str, str] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    """Directories with code that every kernel runs, wherever its interpreter keeps its own."""


def uid_of(workspace: str) -> int:
    """The user that a session runs as, where the keeper is root: always the same for the same workspace."""
    digest = hashlib.sha256(workspace.encode()).digest()
    return _FIRST_UID + int.from_bytes(digest[:8], "big") % _UIDS


def holds(outer: Path, inner: Path) -> bool:
    """Whether a path is, or lies above, another one. Both resolved."""
    return inner == outer or outer in inner.parents


def resolve_access(
    read: Iterable[str],
    write: Iterable[str],
    never: Iterable[Path],
    sources: Iterable[str] = (),
    written: Iterable[str] = (),
) -> Access:
    """Check and resolve what is to be granted. Raises AccessRefused, which says what to do.

    sources: from where what is not confined takes its code; nothing of it can be granted to write to.
    written: where sessions write already; what a link in there leads to is what one of them likes.
    """
    sources = tuple(sources)
    kept = [path.resolve() for path in never]
    found: dict[str, list[str]] = {"read": [], "write": []}
    for kind, paths in (("read", read), ("write", write)):
        for given in paths:
            path = Path(given).expanduser()
            if not path.is_absolute():
                raise AccessRefused(given, "is not absolute; give a path that begins with / or ~/")
            entered = within(str(path), written)
            path = path.resolve()
            if entered is not None and str(path) != os.path.join(entered[0], *entered[1]):  # noqa: PTH118
                raise AccessRefused(
                    given,
                    f"is a symbolic link or leads through one, in {entered[0]}, where a session may write; name what"
                    " the link leads to, if you trust it",
                )
            if not path.exists():
                raise AccessRefused(given, "does not exist; create it, or leave it out")
            if not (path.is_dir() or path.is_file()):
                raise AccessRefused(given, "is neither a file nor a directory; grant the directory that holds the data")
            if any(holds(path, mine) or holds(mine, path) for mine in kept):
                raise AccessRefused(
                    given, "holds, or lies in, kernelrepl's own directories; grant a directory beside them"
                )
            if any(
                holds(path, Path(place)) for place in (*_SYSTEM, WORKSPACE, "/proc", "/dev", "/tmp", "/run", "/sys")
            ):
                raise AccessRefused(given, "would cover what a kernel needs itself; grant a directory of data")
            if kind == "write":
                check_write(given, str(path), sources)
            found[kind].append(str(path))
    return Access(tuple(found["read"]), tuple(found["write"]))


def check_write(given: str, path: str, sources: Iterable[str]) -> None:
    """Raise AccessRefused where code would be written that runs with the person's rights, or before confinement."""
    code = clash(path, sources)
    if code is not None:
        raise AccessRefused(
            given,
            f"holds, or lies in, {code}, from where Python takes what it runs before it is confined: a session could"
            " change that. Grant the folders beside it that are to be written to, such as data/ or results/, or give"
            " this one with allow_read; or let KERNELREPL_PYTHON, and PYTHONPATH, lead elsewhere."
            f" `kernelrepl grant SESSION --revoke {path}` takes it from a session that has it",
        )
    code = of_the_person(path)
    if code is not None:
        raise AccessRefused(
            given,
            f"holds, or is, what programs of yours read when they start ({code}): a session could have them run"
            " something. Grant a folder of data in it, or give this one with allow_read."
            f" `kernelrepl grant SESSION --revoke {path}` takes it from a session that has it",
        )


def _importable(entry: Path) -> list[Path]:
    """Of a directory that Python searches, what can be imported: not what else lies in a project."""
    found = []
    for child in sorted(entry.iterdir()):
        package = child.is_dir() and child.name.isidentifier() and any(child.glob("__init__.*"))
        if package or child.suffix in (".py", ".so", ".pyd", ".zip", ".dist-info", ".egg-info", ".pth"):
            found.append(child)
    return found


def _installation(python: Interpreter, never: Iterable[Path]) -> tuple[list[str], list[str]]:
    """Paths that hold an interpreter with its packages, and those whose programs may be run."""
    kept = [path.resolve() for path in never]
    shown: list[Path] = []
    run: list[Path] = []

    def show(path: Path) -> None:
        if path.exists() and not any(holds(path.resolve(), mine) for mine in kept):
            shown.append(path)

    for prefix in map(Path, python.prefixes):
        if str(prefix) in _SHARED:
            show(prefix / "lib")
            for program in (prefix / "bin" / f"python{python.version}", prefix / "bin" / "python3"):
                show(program)
                run.append(program)
        elif any(holds(prefix.resolve(), mine) for mine in (*kept, Path.home())):
            for part in _PARTS:
                show(prefix / part)
            run += [prefix / "bin", prefix / "lib"]
        else:
            show(prefix)
            run.append(prefix)
    for entry in map(Path, python.path):
        if any(holds(path, entry) for path in shown) or not entry.exists():
            continue
        if entry.is_file() or entry.name in ("site-packages", "dist-packages"):
            show(entry)
        else:
            for child in _importable(entry):
                show(child)
    executable = Path(python.executable)
    if executable.exists():
        run += [executable, executable.resolve()]
        if not any(holds(path, executable) for path in shown):
            show(executable)
    return [str(path) for path in shown], [str(path) for path in run]


def _loaders() -> list[str]:
    """The dynamic loaders: without them no program starts."""
    found = []
    for directory in ("/lib64", "/lib", "/usr/lib", "/usr/lib64"):
        for pattern in _LOADERS:
            found += [str(path) for path in Path(directory).glob(pattern)]
            found += [str(path.resolve()) for path in Path(directory).glob(pattern)]
    return sorted(set(found))


def _mounts(paths: Iterable[str], mode: str) -> list[list[str]]:
    """Each path where it is called so, and where it really is: both are asked for."""
    found = []
    for path in paths:
        real = str(Path(path).resolve())
        found.append([real, path, mode])
        if real != path:
            found.append([real, real, mode])
    return found


def _outermost(mounts: list[list[str]]) -> list[list[str]]:
    """Without those that another one with the same source tree and mode shows already."""
    kept: list[list[str]] = []
    for source, target, mode in sorted(mounts, key=lambda mount: (len(Path(mount[1]).parts), mount[1])):
        for other_source, other_target, other_mode in kept:
            if mode == other_mode and holds(Path(other_target), Path(target)):
                inside = Path(target).relative_to(other_target)
                if Path(other_source) / inside == Path(source) or (Path(other_source) / inside).is_symlink():
                    break
        else:
            kept.append([source, target, mode])
    return kept


@dataclass(frozen=True)
class _Common:
    """What the plans of all sessions with the same interpreter have."""

    mounts: tuple[tuple[str, ...], ...]
    links: tuple[tuple[str, str], ...]
    execute: tuple[str, ...]


def _stamp(python: Interpreter) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when something is installed, removed or put elsewhere."""
    return tuple(map(_state, (*_SYSTEM, *_ROOT_LINKS, *_DATA, *python.prefixes, *python.path, python.executable)))


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - dozens of them, at each start
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


@functools.lru_cache(maxsize=16)
def _common(
    python: Interpreter, never: tuple[Path, ...], code: tuple[str, ...], stamp: tuple[tuple[int, int, int] | None, ...]
) -> _Common:
    """stamp: of when it was looked up."""
    installation, run = _installation(python, never)
    libraries = [path for path in _SYSTEM if Path(path).is_dir()]
    libraries += [path for path in _ROOT_LINKS if Path(path).is_dir() and not Path(path).is_symlink()]
    links = tuple((path, str(Path(path).readlink())) for path in _ROOT_LINKS if Path(path).is_symlink())
    mounts = _mounts(libraries, "rx") + _mounts(installation, "rx") + _mounts(code, "r")
    mounts += [[str(Path(path).resolve()), path, "r"] for path in _DATA if Path(path).exists()]
    return _Common(tuple(map(tuple, _outermost(mounts))), links, (*run, *_loaders()))


def _with_access(mounts: list[list[str]], access: Access) -> list[list[str]]:
    """Return mounts together with those of what was granted."""
    # One that holds an interpreter goes below it: nothing can be executed of what was granted.
    below = [path for path in access.read if any(holds(Path(path), Path(target)) for _, target, _ in mounts)]
    return [
        *([path, path, "r"] for path in below),
        *mounts,
        *([path, path, "r"] for path in access.read if path not in below),
        *([path, path, "rw"] for path in access.write),
    ]


def confined(
    *,
    tier: int,
    landlock: int,
    python: Interpreter,
    workspace: Path,
    packages: Path | None,
    uid: int | None,
    access: Access,
    resources: Resources,
    surroundings: Surroundings,
    scratch: Path,
) -> Plan:
    """The plan for one kernel. `scratch` is a directory for temporary files, used where there is no private /tmp."""
    common = _common(python, surroundings.never, surroundings.code, _stamp(python))
    inside = WORKSPACE if tier == 1 else str(workspace)
    temporary = "/tmp" if tier == 1 else str(scratch)
    mounts = _with_access([list(mount) for mount in common.mounts], access)
    mounts.append([str(workspace.resolve()), inside, "rw"])
    of_packages = PACKAGES if tier == 1 else str(packages)
    if packages is not None:
        mounts.append([str(packages.resolve()), of_packages, "rx"])  # libraries are mapped, nothing of it is run
    tmpfs = {}
    if tier == 1:
        for path, size in (("/tmp", resources.tmp_bytes), ("/dev/shm", resources.tmp_bytes)):
            limit = f",size={size},nr_inodes={_INODES}" if size is not None else ""
            tmpfs[path] = f"mode=1777{limit}"
    else:
        mounts.append([temporary, temporary, "rw"])
    return {
        "tier": tier,
        "namespaces": list(NAMESPACES) if tier == 1 else [],
        "landlock": landlock,
        "filter": True,
        "uid": uid,
        "identity": IDENTITY,
        "base": _base(),
        "workspace": inside,
        "packages": of_packages,
        "mounts": mounts,
        "tmpfs": tmpfs,
        "files": _FILES if tier == 1 else {},
        "links": dict(common.links) if tier == 1 else {},
        "execute": list(common.execute),
        "limits": _limits(resources),
        "environment": _environment(surroundings.environment, python, inside, temporary),
    }


def _base() -> str:
    """A directory to build the new tree on; it is covered in a namespace of its own and never written to."""
    return next(path for path in ("/tmp", "/mnt", "/var", "/usr") if Path(path).is_dir())


def _limits(resources: Resources) -> dict[str, int]:
    # A user has only so many signals and timers, and sessions may be of one user with other programs.
    found = {"core": 0, "nofile": resources.open_files, "sigpending": _SIGNALS, "msgqueue": 0}
    for name, value in (
        ("data", resources.memory_bytes), ("nproc", resources.processes), ("fsize", resources.workspace_bytes),
    ):  # fmt: skip
        if value is not None:
            found[name] = value
    return found


def _environment(base: Mapping[str, str], python: Interpreter, home: str, temporary: str) -> dict[str, str]:
    kept = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "VIRTUAL_ENV")
    found = {name: base[name] for name in kept if name in base}
    bins = dict.fromkeys(str(Path(place) / "bin") for place in python.prefixes)
    found |= {
        "PATH": ":".join(bins),
        "HOME": home,
        "USER": "session",
        "LOGNAME": "session",
        "TMPDIR": temporary,
        "XDG_CACHE_HOME": f"{temporary}/.cache",
        "MPLCONFIGDIR": f"{temporary}/.matplotlib",
        "IPYTHONDIR": f"{temporary}/.ipython",
    }
    if python.user_base is not None:
        found["PYTHONUSERBASE"] = python.user_base
    return found
