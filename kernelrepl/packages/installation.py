"""Install packages for sessions: what is asked for, by whom, whether it may be, and how it becomes a layer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import canonicalize_name

from kernelrepl.errors import InstallFailed, KernelReplError, PackagesNotInstalled
from kernelrepl.packages import layers
from kernelrepl.packages.layers import Layer, Package
from kernelrepl.packages.policy import Policy, parse
from kernelrepl.packages.uv import Uv, size
from kernelrepl.workspaces import removal

CODE = "code"
PERSON = "person"
REQUESTS = 30
"""How often code of one session may ask in an hour: a request is what a session can say to an index outside."""
_HOUR_S = 3600.0
_CACHE = "packages-cache"
_log = logging.getLogger("kernelrepl")


@dataclass(frozen=True)
class Installed:
    """What an installation brought."""

    layer: int | None
    """The number of the new layer; None: all was there already."""
    packages: tuple[Package, ...] = ()


@dataclass(frozen=True)
class Packages:
    """This object installs packages for all sessions of a keeper."""

    policy: Policy = field(default_factory=Policy)
    most_bytes: int | None = None
    """What the packages of one session may take."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """The environment of uv."""
    _locks: weakref.WeakValueDictionary[str, asyncio.Lock] = field(default_factory=weakref.WeakValueDictionary)
    _asked: dict[str, deque[float]] = field(default_factory=dict)

    async def request(self, session_id: str, workspace: Path, python: str, given: Sequence[str]) -> Installed:
        """Install what code of a session asks for, if it may have that. Raises KernelReplError."""
        wanted = parse(given)
        names = [str(one) for one in wanted]
        try:
            self._count(session_id, names)
            self.policy.check(session_id, wanted)
        except KernelReplError:
            _log.info("packages refused session=%r names=%r", session_id, names)
            raise
        return await self.add(session_id, workspace, python, given, by=CODE)

    def _count(self, session_id: str, names: Sequence[str]) -> None:
        now = asyncio.get_running_loop().time()
        times = self._asked.setdefault(session_id, deque(maxlen=REQUESTS))
        if len(times) == REQUESTS and now - times[0] < _HOUR_S:
            raise PackagesNotInstalled(
                names, f"code of a session asks at most {REQUESTS} times in an hour; a person is not limited"
            )
        times.append(now)

    async def add(
        self, session_id: str, workspace: Path, python: str, given: Sequence[str], *, by: str = PERSON
    ) -> Installed:
        """Install packages for a session. Raises InvalidArgument, InstallerMissing, PackagesNotInstalled."""
        wanted = parse(given)
        names = [str(one) for one in wanted]
        lock = self._locks.setdefault(workspace.name, asyncio.Lock())
        async with lock:
            try:
                found = await self._install(workspace, python, names, {canonicalize_name(w.name) for w in wanted}, by)
            except (InstallFailed, OSError) as error:
                why = str(error) if isinstance(error, InstallFailed) else f"{error.strerror}: {error.filename}"
                _log.info("packages failed session=%r names=%r", session_id, names)
                raise PackagesNotInstalled(names, why) from error
        _log.info(
            "packages installed session=%r names=%r by=%s got=%r",
            session_id, names, by, [f"{one.name}=={one.version}" for one in found.packages],
        )  # fmt: skip
        return found

    async def _install(self, workspace: Path, python: str, names: list[str], asked: set[str], by: str) -> Installed:
        place = await asyncio.to_thread(layers.prepare, workspace)
        known = await asyncio.to_thread(layers.read, place)
        left = None if self.most_bytes is None else self.most_bytes - sum(layer.size_bytes for layer in known)
        if left is not None and left <= 0:
            raise InstallFailed("the packages of the session take all of max_package_bytes; raise that setting")
        uv = Uv(python, workspace.parent.parent / _CACHE, self.environ, left)
        there = {canonicalize_name(name): version for name, version in (await uv.present()).items()}
        own = {canonicalize_name(one.name): one.version for layer in reversed(known) for one in layer.packages}
        # What kernels have from the environment stays; of what the session has, only what is asked for changes.
        fixed = {**{name: version for name, version in own.items() if name not in asked}, **there}
        with tempfile.TemporaryDirectory(prefix="kernelrepl-packages-") as directory:
            scratch = Path(directory)
            needed = await uv.resolve(names, [f"{name}=={version}" for name, version in fixed.items()], scratch)
            has = {**own, **there}
            new = [one for one in needed if has.get(canonicalize_name(one.name)) != one.version]
            if not new:
                return Installed(None, tuple(one for one in needed if canonicalize_name(one.name) in asked))
            unfinished = await asyncio.to_thread(layers.begin, place)
            try:
                await uv.install(new, unfinished, scratch)
                number = max(layers.numbers(place), default=0) + 1
                taken = await asyncio.to_thread(size, unfinished)
                if left is not None and taken > left:
                    raise InstallFailed("it takes more than is left of max_package_bytes; raise that setting")
                at = datetime.now(UTC).isoformat(timespec="seconds")
                layer = Layer(number, tuple(names), by, at, taken, tuple(new))
                await asyncio.to_thread(layers.finish, unfinished, layer)
            except BaseException:
                with contextlib.suppress(OSError):
                    await asyncio.shield(asyncio.to_thread(removal.remove, unfinished))
                raise
        return Installed(number, tuple(new))
