"""Limits that the system itself keeps for a kernel with all its processes: control groups, version 2.

Only where the group that a keeper is in is its own to divide (delegated by systemd or a container, or all of the
machine's to root), which is found out by doing it. What is counted otherwise is counted all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kernelrepl.kernel.process import Launch, Launcher, Process
from kernelrepl.model import Resources

_OOM = re.compile(r"^oom [1-9]\d*$(?s:.*)^oom_kill [1-9]", re.M)
"""Its own limit was reached, and that killed something: `oom_kill` alone may be for want of memory elsewhere."""
_END_S = 0.5
_ATTENDANTS = 2
"""Processes of ours that are in the group of a kernel."""
CONTROLLERS: Mapping[str, Callable[[Resources], dict[str, int | None]]] = {
    "memory": lambda found: {"memory.max": found.memory_bytes, "memory.swap.max": 0, "memory.oom.group": 1},
    "pids": lambda found: {"pids.max": None if found.processes is None else found.processes + _ATTENDANTS},
}
"""What is written into the files of a group, by the controller that has them. None: nothing."""


class NotDelegated(Exception):
    """There are no groups for kernels here. Says why."""


def own_directory(cgroup: str, mountinfo: str) -> Path:
    """Where the group of a process is, by what /proc says of it. Raises NotDelegated."""
    path = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::/")), "/..")
    for line in mountinfo.splitlines() if ".." not in path.split("/") else ():
        before, _, after = line.partition(" - ")
        root, place = (_unescaped(word) for word in before.split()[3:5])
        if after.split()[0] == "cgroup2" and f"{path}/".startswith(root.rstrip("/") + "/"):
            return Path(place) / path[len(root.rstrip("/")) :].lstrip("/")
    raise NotDelegated("cgroup version 2 is not mounted here")


def _unescaped(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def find(owner: Path) -> Groups:
    """Groups below that of this process, as `Groups.open`. Raises NotDelegated."""
    try:
        texts = [Path(f"/proc/self/{name}").read_text() for name in ("cgroup", "mountinfo")]
    except OSError as error:
        raise NotDelegated(f"/proc cannot be read: {error.strerror}") from error
    return Groups.open(own_directory(*texts), owner)


def found(owner: Path) -> tuple[Groups | None, str]:
    """The same, and in words which there are, or why none."""
    try:
        groups = find(owner)
    except NotDelegated as error:
        return None, f"none: {error}"
    return groups, groups.label


@dataclass(frozen=True)
class Group:
    """Of one kernel."""

    directory: Path

    def out_of_memory(self) -> bool:
        """Whether the system ended it because it took too much memory."""
        try:
            return _OOM.search((self.directory / "memory.events").read_text()) is not None
        except OSError:
            return False

    def remove(self) -> None:
        """End what is left in it, and remove it. Raises OSError while something has not ended yet."""
        with contextlib.suppress(OSError):  # Linux has it since 5.14
            (self.directory / "cgroup.kill").write_text("1")
        until = time.monotonic() + _END_S
        while True:
            try:
                self.directory.rmdir()
                return
            except OSError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.01)  # what was killed is about to end


class Groups:
    """Of one keeper. Made with `open`. Safe in any thread."""

    def __init__(self, base: Path, prefix: str, controllers: Iterable[str]) -> None:
        self.controllers = tuple(controllers)
        self.label = f"{' and '.join(self.controllers)}, in {base}"
        self.base = base
        """The group below which those of the kernels are made."""
        self._prefix = prefix
        self._home: Path | None = None
        """Where the keeper has gone itself, if it had to: processes are only in groups that are not divided."""
        self._enabled: list[str] = []
        self._count = 0

    @classmethod
    def open(cls, base: Path, owner: Path, wanted: Iterable[str] = CONTROLLERS) -> Groups:
        """Find out by trying whether kernels can have groups below this one. Raises NotDelegated.

        owner: a directory of the keeper's own, by which the next one knows what it left.
        """
        try:
            known = (base / "cgroup.controllers").read_text().split()
        except OSError as error:
            raise NotDelegated(f"{base} cannot be read: {error.strerror}") from error
        found = [name for name in wanted if name in known]
        if not found:
            raise NotDelegated(f"{base} has none of the controllers {', '.join(wanted)}")
        groups = cls(base, f"kernelrepl-{hashlib.sha256(os.fsencode(owner)).hexdigest()[:12]}", found)
        try:
            groups.sweep()
            groups._divide()
            trial = groups._make(Resources())
            try:
                groups._enter(trial.directory)
            finally:
                groups._enter(groups._home or base)
                trial.directory.rmdir()
        except OSError as error:
            groups.close()
            why = "other processes are in it" if error.errno == errno.EBUSY else error.strerror
            raise NotDelegated(f"{base} cannot be divided: {why}") from error
        return groups

    def _divide(self) -> None:
        try:
            self._enable()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            home = self.base / f"{self._prefix}-keeper"
            home.mkdir(exist_ok=True)
            self._home = home
            self._enter(home)
            self._enable()

    def _enable(self) -> None:
        control = self.base / "cgroup.subtree_control"
        for name in self.controllers:
            if name not in control.read_text().split():
                control.write_text(f"+{name}")
                self._enabled.append(name)

    def _enter(self, directory: Path) -> None:
        (directory / "cgroup.procs").write_text(str(os.getpid()))

    def _make(self, resources: Resources) -> Group:
        self._count += 1
        group = Group(self.base / f"{self._prefix}-{os.getpid()}-{self._count}")
        group.directory.mkdir()
        try:
            for name in self.controllers:
                for file, value in CONTROLLERS[name](resources).items() if name in CONTROLLERS else ():
                    if value is not None:
                        _write(group.directory / file, value)
        except BaseException:
            group.directory.rmdir()
            raise
        return group

    def place(self, pid: int, resources: Resources) -> Group:
        """Put a process, which has no children yet, into a group of its own. Raises OSError."""
        group = self._make(resources)
        try:
            (group.directory / "cgroup.procs").write_text(str(pid))
        except BaseException:
            group.directory.rmdir()
            raise
        return group

    def sweep(self) -> None:
        """Remove what has ended: of this keeper, and of one before it that was killed."""
        for left in self.base.glob(f"{self._prefix}-*"):
            with contextlib.suppress(OSError):
                left.rmdir()

    def close(self) -> None:
        """Leave the group as it was found, if it was ours alone: other keepers may have use for the controllers."""
        self.sweep()
        if self._home is None:
            return
        with contextlib.suppress(OSError):
            for name in self._enabled:
                (self.base / "cgroup.subtree_control").write_text(f"-{name}")
            self._enter(self.base)
            self._home.rmdir()


def _write(file: Path, value: int) -> None:
    """Write into a file of a group, which is there or made by nobody."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if "swap" in file.name:  # where the system counts none
            return
        raise
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


class GroupLauncher:
    """Starts kernels as another launcher does, each in a group of its own."""

    def __init__(self, launcher: Launcher, groups: Groups, emit: Callable[..., None]) -> None:
        self._launcher = launcher
        self._groups = groups
        self._emit = emit

    async def __call__(self, launch: Launch) -> Process:
        """Raises KernelStartFailed."""
        process = await self._launcher(launch)
        try:
            process.group = await asyncio.to_thread(self._groups.place, process.pid, launch.resources)
        except OSError as error:
            self._emit("cgroup_failed", reason=error.strerror)  # what is counted otherwise holds alone
        except BaseException:
            await asyncio.shield(_end(process))
            raise
        return process


async def _end(process: Process) -> None:
    await process.kill()
    await process.close()
