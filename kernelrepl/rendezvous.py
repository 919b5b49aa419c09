"""Find the keeper of a data directory, or start one. Shared by everything that connects to it.

The front imports this at every start, so it stays with the standard library, and platformdirs only
when the place is not given.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import select
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernelrepl.errors import KeeperUnavailable

PROTOCOL = 1
PREFIX = "KERNELREPL_"
AGENT = "agent"
OPERATOR = "operator"
SOCKET_PATH_BYTES = 107
_LONGEST_SOCKET = len("/k-00000000/s-5")
_HELLO_BYTES = 1 << 16
_HELLO_TIMEOUT_S = 20.0


def config_file() -> Path:
    if chosen := os.environ.get(PREFIX + "CONFIG"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_config_dir("kernelrepl", appauthor=False)) / "config.toml"


def default_data_dir() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("kernelrepl", appauthor=False))


def data_dir(environ: Mapping[str, str]) -> Path:
    """The data directory that these settings mean, absolute."""
    if chosen := environ.get(PREFIX + "DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    file = config_file()
    if file.exists():
        import tomllib

        try:
            chosen = tomllib.loads(file.read_text()).get("data_dir")
        except (OSError, ValueError) as error:
            raise KeeperUnavailable(f"{file} cannot be read: {error}; correct it") from error
        if chosen:
            return Path(chosen).expanduser().absolute()
    return default_data_dir().absolute()


def runtime_dir(data: Path, chosen: Path | None, environ: Mapping[str, str]) -> Path:
    """Where the sockets of this data directory are. Short enough for a socket path whatever the platform says."""
    if chosen is not None:
        return chosen.expanduser().absolute()
    import hashlib  # imports inside functions keep the start of a front short

    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    base = environ.get("XDG_RUNTIME_DIR")
    if base and Path(base).is_dir():
        path = Path(base) / "kernelrepl" / name
        if len(os.fsencode(path)) + _LONGEST_SOCKET <= SOCKET_PATH_BYTES:
            return path
    return Path("/tmp") / f"kernelrepl-{os.getuid()}" / name


def make_private(path: Path) -> None:
    """Create a directory that only we can enter. Raises KeeperUnavailable for one that is somebody else's."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (path, path.parent) if path.parent.name.startswith("kernelrepl") else (path,):
            info = part.lstat()
            if info.st_uid != os.getuid():
                raise KeeperUnavailable(
                    f"{part} belongs to another user; set {PREFIX}RUNTIME_DIR to a directory of yours"
                )
            if info.st_mode & 0o077:
                part.chmod(0o700)
    except OSError as error:
        raise KeeperUnavailable(
            f"{path} cannot be used: {error.strerror}; make it writable or choose another"
        ) from error


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
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


def connect(data: Path, which: str, hello: Mapping[str, Any]) -> tuple[socket.socket, dict[str, Any]] | None:
    """Connect to a running keeper and exchange hellos; None when there is none.

    Raises KeeperUnavailable if it speaks a protocol that this version does not.
    """
    keeper = read_keeper(data)
    if keeper is None:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(_HELLO_TIMEOUT_S)
    try:
        sock.connect(keeper[which])
        sock.sendall(json.dumps({"kernelrepl": PROTOCOL, **hello}).encode() + b"\n")
        answer = _read_line(sock)
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


def _read_line(sock: socket.socket) -> dict[str, Any] | None:
    # Byte by byte: what follows the hello belongs to another protocol and another reader.
    line = bytearray()
    while len(line) < _HELLO_BYTES:
        byte = sock.recv(1)
        if not byte:
            return None
        if byte == b"\n":
            break
        line += byte
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
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data / "start.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeeperUnavailable(
            f"the data directory {data} cannot be used: {error.strerror}; make it writable or set {PREFIX}DATA_DIR"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = connect(data, which, hello)
        if found is None:
            _start(data, environ)
            found = connect(data, which, hello)
    finally:
        os.close(lock)
    if found is None:
        raise KeeperUnavailable(f"the keeper started but cannot be reached; see {data / 'logs'}")
    return found


def _start(data: Path, environ: Mapping[str, str]) -> None:
    """Start a keeper in a session of its own and wait until it serves, or has said why it cannot."""
    import subprocess

    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "kernelrepl", "keeper", "--ready-fd", str(write_end)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(write_end,),
            start_new_session=True,
            cwd="/",
            env={**environ, PREFIX + "DATA_DIR": str(data)},
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
