"""Real things of the host that an attempt reaches for, and the look at them afterwards, from outside."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psutil


class Targets:
    """All with rights so wide that nothing but the sandbox stands before them. A context manager."""

    def __init__(self) -> None:
        self.token = str(10**12 + secrets.randbelow(10**12))
        self._stack = contextlib.ExitStack()
        self._listeners: dict[str, socket.socket] = {}

    def __enter__(self) -> Targets:
        with contextlib.ExitStack() as stack:
            self.place = Path(tempfile.mkdtemp(prefix="ka-", dir="/tmp"))
            stack.callback(shutil.rmtree, self.place, ignore_errors=True)
            self._make_files()
            self.shm = Path("/dev/shm") / f"ka-{self.token}"
            self.shm.write_text(self.token)
            self.shm.chmod(0o666)
            stack.callback(self.shm.unlink, missing_ok=True)
            for name, family, kind, address in (
                ("tcp4", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
                ("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
                ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
                ("stream", socket.AF_UNIX, socket.SOCK_STREAM, str(self.place / "stream")),
                ("datagram", socket.AF_UNIX, socket.SOCK_DGRAM, str(self.place / "datagram")),
                ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, f"\0ka-{self.token}"),
            ):
                with contextlib.suppress(OSError):  # a host may have no IPv6
                    self._listeners[name] = stack.enter_context(_listening(family, kind, address))
            for name in ("stream", "datagram"):
                (self.place / name).chmod(0o777)
            self.victim = self._start_victim()
            stack.callback(self._end_victim)
            self._before = self._looks()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _make_files(self) -> None:
        self.place.chmod(0o755)
        self.secret, self.writable = self.place / "secret", self.place / "writable"
        self.folder, self.home = self.place / "folder", self.place / "home"
        self.folder.mkdir()
        self.folder.chmod(0o777)
        for path, mode in ((self.secret, 0o644), (self.writable, 0o666), (self.folder / "file", 0o666)):
            path.write_text(self.token)
            path.chmod(mode)
        with contextlib.suppress(OSError):
            os.setxattr(self.secret, "user.secret", self.token.encode())
        (self.place / "link").symlink_to("secret")
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "id_ed25519").write_text(self.token)
        self.program = self.place / "program"
        self.program.write_text(f"#!/bin/sh\necho > {self.folder}/ran\n")
        self.program.chmod(0o755)

    def _start_victim(self) -> subprocess.Popen[bytes]:
        """A process to which one signal stays pending, so that it is seen to have come."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
        try:
            return subprocess.Popen(["/bin/sleep", f"600.{self.token}"], start_new_session=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _end_victim(self) -> None:
        self.victim.kill()
        self.victim.wait()

    def known(self) -> dict[str, Any]:
        """What an attempt is told of them: names and numbers."""
        ports = {name: self._port(name) for name in ("tcp4", "tcp6", "udp")}
        return {
            "token": self.token,
            "place": str(self.place),
            "secret": str(self.secret),
            "writable": str(self.writable),
            "folder": str(self.folder),
            "link": str(self.place / "link"),
            "key": str(self.home / ".ssh" / "id_ed25519"),
            "program": str(self.program),
            "shm": str(self.shm),
            "stream": str(self.place / "stream"),
            "datagram": str(self.place / "datagram"),
            "abstract": f"\0ka-{self.token}",
            "victim": self.victim.pid,
            "keeper": os.getpid(),
            "disks": sorted(os.listdir("/sys/block")) or ["sda"],  # noqa: PTH208
            **ports,
        }

    def _port(self, name: str) -> int:
        listener = self._listeners.get(name)
        return 9 if listener is None else int(listener.getsockname()[1])

    def disturbed(self) -> tuple[str, ...]:
        """What is not as it was, or has been reached."""
        now = self._looks()
        found = [f"{name}: {before!r} became {now.get(name)!r}" for name, before in self._before.items() if
                 now.get(name) != before]  # fmt: skip
        found += [f"{name} is new" for name in now if name not in self._before]
        for name, listener in self._listeners.items():
            with contextlib.suppress(BlockingIOError):
                if listener.type == socket.SOCK_DGRAM:
                    found.append(f"the {name} socket received {listener.recv(100)!r}")
                else:
                    listener.accept()[0].close()
                    found.append(f"the {name} socket was connected to")
        return tuple(found)

    def _looks(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in (self.place, *self.place.rglob("*"), self.shm):
            status = path.lstat()
            kept = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size, status.st_mtime_ns)
            content = path.read_text() if stat.S_ISREG(status.st_mode) else ""
            found[str(path)] = (*kept, content, _attributes(path))
        found["victim"] = _conditions(self.victim)
        return found


def _listening(family: int, kind: int, address: Any) -> socket.socket:
    listener = socket.socket(family, kind)
    try:
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _attributes(path: Path) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path)}
    except OSError:
        return {}


def _conditions(process: subprocess.Popen[bytes]) -> Any:
    """That it lives, and under which conditions: all that one process may change of another."""
    if process.poll() is not None:
        return f"ended with {process.returncode}"
    known = psutil.Process(process.pid)
    status = Path(f"/proc/{process.pid}/status").read_text()
    return (
        re.findall(r"^(?:SigPnd|ShdPnd):\t(\w+)$", status, re.M),
        known.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP),
        known.nice(),
        known.cpu_affinity(),
        known.rlimit(psutil.RLIMIT_NOFILE),
        known.ionice(),
        Path(f"/proc/{process.pid}/oom_score_adj").read_text(),
    )
