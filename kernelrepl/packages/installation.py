"""Install packages for sessions: what is asked for, by whom, whether it may be, and how it becomes a layer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from kernelrepl.errors import InstallFailed, PackagesNotInstalled
from kernelrepl.packages import layers, uv
from kernelrepl.packages.layers import Layer, Package
from kernelrepl.packages.names import suggestion
from kernelrepl.packages.policy import Policy, parse
from kernelrepl.workspaces import directories, removal

CODE = "code"
PERSON = "person"
REQUESTS = 30
"""How often code of one session may ask in an hour: a request is what a session can say to an index outside."""
MOST_LAYERS = 200
"""Each is a directory in which Python looks for every module."""
CACHE_BYTES = 5_000_000_000
"""From what on the files that uv keeps for the next installation are removed. Layers have theirs all the same."""
_HOUR_S = 3600.0
_CACHE = "packages-cache"
_ARCHIVES = "archive-v0"
Ask = Callable[[str], Awaitable[bool | None]]
"""Asks a person to agree to something, and returns whether they do; None: nobody can be asked."""
_log = logging.getLogger("kernelrepl")


@dataclass(frozen=True)
class Installed:
    """What an installation brought."""

    layer: int | None
    """The number of the new layer; None: all was there already."""
    packages: tuple[Package, ...] = ()


@dataclass(frozen=True)
class Packages:
    """This object installs packages for all sessions of a keeper, one request after the other."""

    policy: Policy = field(default_factory=Policy)
    most_bytes: int | None = None
    """What the packages of one session may take."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """The environment of the keeper."""
    written: Callable[[], Iterable[str]] = tuple
    """Where sessions write."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asked: dict[str, deque[float]] = field(default_factory=dict)

    async def request(self, session_id: str, workspace: Path, python: str, given: Sequence[str], ask: Ask) -> Installed:
        """Install what code of a session asks for, if it may have that. Raises KernelReplError.

        ask: asks the person about what the policy does not allow; None: nobody can be asked.
        """
        self._count(session_id)
        wanted = parse(given)
        names = [str(one) for one in wanted]
        refusal = self.policy.refusal(session_id, wanted)
        if not self.policy.is_off:
            uv.find(tuple(self.written()))  # nobody is asked for what cannot be done
        if refusal is not None and not self.policy.is_off:
            agreed = await ask(f"Code in session {session_id!r} asks for packages: {', '.join(names)}. Install them?")
            if agreed is not None:
                refusal = None if agreed else PackagesNotInstalled(names, "the person was asked, and did not agree")
        if refusal is not None:
            _log.info("packages refused session=%r names=%r", session_id, names)
            raise refusal
        return await self.add(session_id, workspace, python, given, by=CODE)

    def _count(self, session_id: str) -> None:
        """Raise PackagesNotInstalled if code of this session has asked too often. Nothing of it is logged then."""
        now = asyncio.get_running_loop().time()
        for other in [other for other, times in self._asked.items() if now - times[-1] >= _HOUR_S]:
            del self._asked[other]
        times = self._asked.setdefault(session_id, deque(maxlen=REQUESTS))
        if len(times) == REQUESTS and now - times[0] < _HOUR_S:
            why = f"code of a session asks at most {REQUESTS} times in an hour; a person is not limited"
            raise PackagesNotInstalled(["packages"], why)
        times.append(now)

    async def add(
        self, session_id: str, workspace: Path, python: str, given: Sequence[str], *, by: str = PERSON
    ) -> Installed:
        """Install packages for a session. Raises InvalidArgument, InstallerMissing, PackagesNotInstalled."""
        wanted = parse(given)
        names = [str(one) for one in wanted]
        asked: set[str] = {canonicalize_name(one.name) for one in wanted}
        _log.info("packages asked session=%r names=%r by=%s", session_id, names, by)
        try:
            async with self._lock:
                found = await self._install(workspace, python, names, asked, by)
        except FileNotFoundError as error:
            raise PackagesNotInstalled(names, "the session has been deleted") from error
        except (InstallFailed, OSError) as error:
            why = str(error) if isinstance(error, InstallFailed) else str(error.strerror)
            _log.info("packages failed session=%r names=%r why=%r", session_id, names, why)
            why = why if by == PERSON else uv.without_addresses(why)
            if isinstance(error, InstallFailed):
                why += suggestion(why, sorted(asked))
            raise PackagesNotInstalled(names, why) from error
        got = [f"{one.name}=={one.version}" for one in found.packages]
        _log.info("packages installed session=%r names=%r by=%s got=%r", session_id, names, by, got)
        return found

    async def _install(self, workspace: Path, python: str, names: list[str], asked: set[str], by: str) -> Installed:
        place = await asyncio.to_thread(layers.prepare, workspace)
        known = await asyncio.to_thread(layers.read, place)
        left = None if self.most_bytes is None else self.most_bytes - sum(layer.size_bytes for layer in known)
        if left is not None and left <= 0:
            raise InstallFailed("the packages of the session take all of max_package_bytes; raise that setting")
        if len(known) >= MOST_LAYERS:
            raise InstallFailed(f"a session has at most {MOST_LAYERS} installations; name several packages in one")
        written = tuple(self.written())
        cache = workspace.parent.parent / _CACHE
        cache.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=cache) as scratch, _tidied(cache):
            environ = uv.environment(self.environ, written)
            runner = uv.Uv(uv.find(written), python, cache, Path(scratch), environ, left)
            await runner.check()
            there = await runner.present()
            own: dict[str, str] = {
                canonicalize_name(one.name): one.version for layer in reversed(known) for one in layer.packages
            }
            # What kernels have from the environment stays; of what the session has, only what is asked for changes.
            fixed = {**{name: version for name, version in own.items() if name not in asked}, **there}
            needed = await runner.resolve(names, [f"{name}=={version}" for name, version in fixed.items()])
            has = {**own, **there}
            new = [one for one in needed if not _is_there(one, has)]
            if not new:
                return Installed(None, tuple(one for one in needed if canonicalize_name(one.name) in asked))
            at = datetime.now(UTC).isoformat(timespec="seconds")
            number = max(layers.numbers(place), default=0) + 1
            layer = Layer(number, tuple(names), by, at, 0, tuple(new))
            await _build(runner, workspace, layer, left)
        return Installed(number, tuple(new))


def _is_there(package: Package, has: Mapping[str, str]) -> bool:
    version = has.get(canonicalize_name(package.name))
    return version is not None and Version(version).public == Version(package.version).public


async def _build(runner: uv.Uv, workspace: Path, layer: Layer, left: int | None) -> None:
    """Make a layer of a session. Raises InstallFailed and OSError; nothing of it is left then."""
    unfinished = layers.begin(layers.home(workspace))
    try:
        await runner.install(layer.packages, unfinished)
        taken = await asyncio.to_thread(uv.size, unfinished)
        if left is not None and taken > left:
            raise InstallFailed("it takes more than is left of max_package_bytes; raise that setting")
        finishing = asyncio.ensure_future(
            asyncio.to_thread(layers.finish, unfinished, replace(layer, size_bytes=taken))
        )
        try:
            await asyncio.shield(finishing)
        except asyncio.CancelledError:
            await asyncio.wait({finishing})  # if it has its name, it is complete
            raise
        if await asyncio.to_thread(_is_deleted, workspace):
            raise FileNotFoundError
    except BaseException:
        with contextlib.suppress(OSError):
            await asyncio.shield(asyncio.to_thread(removal.remove, unfinished))
        raise


def _is_deleted(workspace: Path) -> bool:
    """Return whether a session is gone, and remove its packages then."""
    if workspace.exists():
        return False
    removal.remove(directories.packages(workspace))
    return True


@contextlib.contextmanager
def _tidied(cache: Path) -> Iterator[None]:
    """Remove at the end what a failed installation leaves in the cache. No other may be under way."""
    before = set(_names(cache / _ARCHIVES))
    try:
        yield
    except BaseException:
        for name in set(_names(cache / _ARCHIVES)) - before:
            removal.remove(cache / _ARCHIVES / name)
        raise
    finally:
        for name in _names(cache):
            if name.startswith(".tmp") and not name.startswith(".tmp-"):
                removal.remove(cache / name)


def sweep(workspaces: Path) -> None:
    """Remove what a keeper that was killed left of installations, and a cache that has grown large."""
    layers.sweep(workspaces)
    cache = workspaces.parent / _CACHE
    for name in _names(cache):
        if name.startswith(".tmp"):
            removal.remove(cache / name)
    if uv.size(cache) > CACHE_BYTES:
        removal.remove(cache)


def _names(place: Path) -> list[str]:
    try:
        return [entry.name for entry in place.iterdir()]
    except OSError:
        return []
