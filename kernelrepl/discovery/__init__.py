"""Find the keeper of a data directory, or start one. Shared by everything that connects to it.

The proxy imports this at every start, so it stays with the standard library.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from kernelrepl.errors import InvalidSettings, KeeperRunning, KeeperSilent, KeeperUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOL = 1
PREFIX = "KERNELREPL_"
SESSION_SETTINGS = (
    "python", "max_variable_bytes", "max_session_bytes", "max_output_chars", "save_deadline_s", "max_memory_bytes",
    "max_processes", "max_open_files", "max_workspace_bytes", "max_workspace_files", "max_tmp_bytes", "allow_read",
    "allow_write", "structured",
)  # fmt: skip
"""Settings that a client brings along for the sessions it creates; a keeper has none of whoever started it."""
AGENT = "agent"
OPERATOR = "operator"
SOCKET_PATH_BYTES = 107
_LONGEST_SOCKET = len("/k-00000000/s-5")
_HELLO_BYTES = 1 << 16
_HELLO_TIMEOUT_S = 20.0
_SHOW_TIMEOUT_S = 5.0
HANDOVER_S = 20.0
"""How long a new keeper waits for one that is ending."""
SHOW_YOURSELF = 1
"""What a keeper is sent that lives and cannot be found: SIGHUP. The module that names signals takes long to load."""


def config_file() -> Path:
    if chosen := os.environ.get(PREFIX + "CONFIG"):
        return Path(chosen)
    return _user_dir("XDG_CONFIG_HOME", ".config") / "config.toml"


def default_data_dir() -> Path:
    return _user_dir("XDG_DATA_HOME", ".local/share")


def cache_dir() -> Path:
    return _user_dir("XDG_CACHE_HOME", ".cache")


def _user_dir(variable: str, usual: str) -> Path:
    """Our directory in a base directory of XDG, whose specification says to ignore a path that is not absolute."""
    base = Path(os.environ.get(variable, ""))
    return (base if base.is_absolute() else Path.home() / usual) / "kernelrepl"


def data_dir(environ: Mapping[str, str]) -> Path:
    """The data directory that these settings mean, absolute."""
    if chosen := environ.get(PREFIX + "DATA_DIR"):
        return absolute(chosen, PREFIX + "DATA_DIR")
    file = config_file()
    if file.exists():
        import tomllib

        try:
            chosen = tomllib.loads(file.read_text()).get("data_dir")
        except (OSError, ValueError) as error:
            raise InvalidSettings(f"{file} cannot be read: {error}; correct it") from error
        if chosen:
            return absolute(chosen, f"data_dir in {file}")
    return default_data_dir().absolute()


def absolute(chosen: Any, name: str) -> Path:
    """The directory that a setting means. Raises InvalidSettings for one that nobody can find again.

    A relative one would be another place for each program that is started somewhere else.
    """
    try:
        path = Path(chosen).expanduser()
    except (TypeError, RuntimeError) as error:
        raise InvalidSettings(f"{name} = {str(chosen)!r} is no directory: {error}; give an absolute path") from error
    if not path.is_absolute() or "\0" in str(path):
        raise InvalidSettings(f"{name} = {str(chosen)!r} is not absolute; give a path that begins with / or ~/")
    return path


def runtime_dir(data: Path, chosen: Path | None, environ: Mapping[str, str]) -> Path:
    """Where the sockets of this data directory are. Short enough for a socket path whatever the platform says."""
    if chosen is not None:
        return absolute(chosen, PREFIX + "RUNTIME_DIR")
    import hashlib  # imports inside functions keep the start of a proxy short

    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    base = environ.get("XDG_RUNTIME_DIR")
    # Not ours is what sudo leaves in the environment; what is not absolute is to be ignored, says its specification.
    if base and Path(base).is_absolute() and _is_ours(Path(base)):
        path = Path(base) / "kernelrepl" / name
        if len(os.fsencode(path)) + _LONGEST_SOCKET <= SOCKET_PATH_BYTES:
            return path
    return Path("/tmp") / f"kernelrepl-{os.getuid()}" / name


def _is_ours(path: Path) -> bool:
    try:
        return path.is_dir() and path.stat().st_uid == os.getuid()
    except OSError:
        return False


def check_sockets_fit(runtime: Path) -> None:
    """Raises KeeperUnavailable for a directory whose path leaves no room for the name of a socket."""
    spare = SOCKET_PATH_BYTES - _LONGEST_SOCKET - len(os.fsencode(runtime))
    if spare < 0:
        raise KeeperUnavailable(
            f"the path of the runtime directory {runtime} is {-spare} bytes too long for sockets;"
            f" set {PREFIX}RUNTIME_DIR to a shorter one"
        )


def make_private(path: Path, setting: str) -> None:
    """Create a directory that only we can enter. Raises KeeperUnavailable, which names the setting that chose it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (path, path.parent) if path.parent.name.startswith("kernelrepl") else (path,):
            if {part.lstat().st_uid, part.stat().st_uid} != {os.getuid()}:
                raise KeeperUnavailable(f"{part} belongs to another user; set {setting} to a directory of yours")
            if part.stat().st_mode & 0o077:
                part.chmod(0o700)
    except OSError as error:
        raise _unusable(path, setting, error) from error


def _unusable(path: Path, setting: str, error: OSError) -> KeeperUnavailable:
    if isinstance(error, FileExistsError):
        return KeeperUnavailable(f"{path} is no directory; move it away or set {setting} to another one")
    return KeeperUnavailable(
        f"the directory {path} cannot be used: {error.strerror}; make it writable or set {setting} to another one"
    )


def settings_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are settings of ours: a client sends them to the keeper with its hello."""
    return {name: value for name, value in environ.items() if name.startswith(PREFIX)}


def read_keeper(data: Path) -> dict[str, Any] | None:
    """What the keeper of this directory wrote about itself; None if there is none that could be believed."""
    try:
        found = json.loads((data / "keeper.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("pid"), int):
        return None
    return found if all(isinstance(found.get(name), str) for name in (AGENT, OPERATOR)) else None


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Wait until a process of ours has ended; whether it has."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(descriptor)


def connect(data: Path, which: str, hello: Mapping[str, Any]) -> tuple[socket.socket, dict[str, Any]] | None:
    """Connect to a running keeper and exchange hellos; None if there is none. Raises KeeperUnavailable."""
    keeper = read_keeper(data)
    if keeper is None:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(_HELLO_TIMEOUT_S)
    try:
        sock.connect(keeper[which])
        sock.sendall(json.dumps({"kernelrepl": PROTOCOL, **hello}).encode() + b"\n")
        answer = _read_line(sock)
    except TimeoutError as error:
        sock.close()
        raise KeeperSilent(keeper["pid"], _HELLO_TIMEOUT_S) from error
    except OSError:
        sock.close()
        return None
    if answer is None:
        sock.close()
        return None
    if answer.get("kernelrepl", 0) < PROTOCOL:
        sock.close()
        raise KeeperUnavailable("the running keeper is of an older version; `kernelrepl stop` ends it, then try again")
    if "error" in answer:
        sock.close()
        raise KeeperUnavailable(str(answer["error"]))
    sock.settimeout(None)
    return sock, answer


def holder(data: Path) -> int | None:
    """The process that holds a data directory, as it wrote into the lock; None while it starts or ends."""
    try:
        return int((data / "keeper.lock").read_text())
    except (OSError, ValueError):
        return None


def find(data: Path, which: str, hello: Mapping[str, Any]) -> tuple[socket.socket, dict[str, Any]] | None:
    """Connect to a running keeper, even if what it is found by has been cleaned away. Otherwise as `connect`."""
    found = connect(data, which, hello)
    if found is not None or not (data / "keeper.lock").exists():
        return found
    with _start_lock(data):
        return connect(data, which, hello) or _revive(data, which, hello)


def pid_of_keeper(data: Path) -> int | None:
    """The process of the keeper that holds a data directory; None if none does, or while one starts or ends."""
    if not (data / "keeper.lock").exists():
        return None
    with _start_lock(data):
        return _holding(data)


def _holding(data: Path) -> int | None:
    """The same, to be called under the start lock."""
    try:
        lock = os.open(data / "keeper.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None  # nobody holds it
    except BlockingIOError:
        return holder(data)
    finally:
        os.close(lock)


def _revive(data: Path, which: str, hello: Mapping[str, Any]) -> tuple[socket.socket, dict[str, Any]] | None:
    """Ask the keeper that holds the data directory to show itself again. To be called under the start lock.

    No other keeper starts meanwhile, so that trying its lock is in nobody's way.
    """
    pid = _holding(data)
    if pid is None:
        return None
    try:
        os.kill(pid, SHOW_YOURSELF)
    except OSError:
        return None
    deadline = time.monotonic() + _SHOW_TIMEOUT_S
    while time.monotonic() < deadline:
        found = connect(data, which, hello)
        if found is not None:
            return found
        time.sleep(0.02)  # nothing announces the end of a process that is no child, or a new file
    return None


@contextlib.contextmanager
def _start_lock(data: Path) -> Iterator[None]:
    """Of several that look for a keeper at once, one acts. Raises KeeperUnavailable."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data / "start.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(data, PREFIX + "DATA_DIR", error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _read_line(sock: socket.socket) -> dict[str, Any] | None:
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < _HELLO_BYTES:
        # What follows the hello belongs to another protocol and another reader: it is only looked at.
        ahead = sock.recv(_HELLO_BYTES, socket.MSG_PEEK)
        if not ahead:
            return None
        line += sock.recv(ahead.find(b"\n") + 1 or len(ahead))
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


_started: list[Any] = []
"""Keepers that this process started. They may outlive it; one that ended is waited for at the next occasion."""


@atexit.register
def _let_go() -> None:
    for process in _started:
        process.returncode = process.poll() or 0  # nothing warns about a child that lives on


def connect_or_start(
    environ: Mapping[str, str], which: str, hello: Mapping[str, Any]
) -> tuple[socket.socket, dict[str, Any]]:
    """Connect to the keeper, starting it if there is none. Of several that try at once, one starts it.

    Raises KeeperUnavailable with the reason the keeper gave.
    """
    data = data_dir(environ)
    found = connect(data, which, hello)
    if found is not None:
        return found
    for process in _started:
        process.poll()
    with _start_lock(data):
        found = connect(data, which, hello) or _revive(data, which, hello)
        if found is None:
            _start(data, environ)
            found = connect(data, which, hello)
    if found is None:
        raise KeeperUnavailable(f"the keeper started but cannot be reached; see {data / 'logs'}")
    return found


def _of_nobody(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what belongs to one client: the next one may not want its interpreter."""
    own = {PREFIX + name.upper() for name in SESSION_SETTINGS}
    return {name: value for name, value in environ.items() if name not in own}


def _start(data: Path, environ: Mapping[str, str]) -> None:
    """Start a keeper in a session of its own and wait until it serves, or has said why it cannot."""
    import subprocess

    from kernelrepl.workspaces.entrances import of_keeper

    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kernelrepl", "keeper", "--ready-fd", str(write_end)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(write_end,),
            start_new_session=True,
            cwd="/",
            env={**of_keeper(_of_nobody(environ), str(data)), PREFIX + "DATA_DIR": str(data)},
        )
    finally:
        os.close(write_end)
    with os.fdopen(read_end) as ready:
        line = ready.readline()
    try:
        answer = json.loads(line)
    except ValueError:
        code = process.wait()
        raise KeeperUnavailable(f"the keeper ended with code {code} before it served; see {data / 'logs'}") from None
    if "error" in answer:
        process.wait()
        raise KeeperUnavailable(str(answer["error"]))
    _started.append(process)


@contextlib.contextmanager
def exclusive(data_dir: Path) -> Iterator[int]:
    """Hold the data directory; the descriptor of its lock. Raises KeeperRunning if another process does.

    One that is about to end has taken its keeper.json away already; that one is waited for.
    """
    descriptor = os.open(data_dir / "keeper.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + HANDOVER_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if read_keeper(data_dir) is not None or time.monotonic() > deadline:
                    raise KeeperRunning(str(data_dir), holder(data_dir)) from None
                # flock knows no time limit, and nothing is served yet that this could hold up.
                time.sleep(0.02)
        os.ftruncate(descriptor, 0)  # what a keeper that was killed wrote
        yield descriptor
    finally:
        os.close(descriptor)
