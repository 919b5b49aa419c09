"""This module runs `uv`, which knows package indexes, resolves versions and unpacks wheels.

Its index, proxy and certificates are those of the person: the environment and the configuration files of uv.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from kernelrepl.errors import InstallerMissing, InstallFailed
from kernelrepl.packages.layers import Package

TIMEOUT_S = 900.0
_LOOK_S = 0.25
_TOLD_CHARS = 2000
_WHEELS_ONLY = ("--only-binary", ":all:")
_QUIET = ("--no-progress", "--color", "never", "--quiet", "--no-python-downloads")
_KEPT = (
    "HOME", "LANG", "LC_ALL", "NETRC", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS",
    "all_proxy", "http_proxy", "https_proxy", "no_proxy", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of a keeper's environment uv is run with: how to reach an index, and nothing that leads to code."""
    found = {name: value for name, value in environ.items() if name in _KEPT or name.startswith("UV_")}
    for name in ("UV_PYTHON", "UV_TARGET", "UV_PREFIX", "UV_CACHE_DIR", "UV_NO_CACHE", "UV_LINK_MODE"):
        found.pop(name, None)
    return {**found, "PATH": "/usr/bin:/bin"}


def find() -> str:
    """Return the path of the program. Raises InstallerMissing."""
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise InstallerMissing
    return found


class Uv:
    """This object runs uv for one interpreter, with one cache, and lets it write so many bytes."""

    def __init__(self, python: str, cache: Path, environ: Mapping[str, str], most_bytes: int | None) -> None:
        self._python = python
        self._cache = cache
        self._environ = environ
        self._most_bytes = most_bytes

    async def present(self) -> dict[str, str]:
        """Return the distributions that the environment of the interpreter has, by name. Raises InstallFailed."""
        lines = (await self._run("pip", "freeze")).splitlines()
        pinned = (line.partition("==") for line in lines if "==" in line and not line.startswith("-"))
        return {name: version for name, _, version in pinned}

    async def resolve(self, wanted: Iterable[str], constraints: Iterable[str], scratch: Path) -> list[Package]:
        """Return all distributions that are needed, those that are there already too. Raises InstallFailed."""
        (scratch / "wanted").write_text("\n".join(wanted) + "\n")
        (scratch / "constraints").write_text("\n".join(constraints) + "\n")
        text = await self._run(
            "pip", "compile", *_WHEELS_ONLY, "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url",
            "--constraints", str(scratch / "constraints"), str(scratch / "wanted"),
        )  # fmt: skip
        return [_package(line) for line in text.replace("\\\n", " ").splitlines() if "==" in line]

    async def install(self, packages: Sequence[Package], target: Path, scratch: Path) -> None:
        """Unpack these wheels into a directory. Raises InstallFailed."""
        lines = (" ".join((f"{p.name}=={p.version}", *(f"--hash={h}" for h in p.hashes))) for p in packages)
        (scratch / "locked").write_text("\n".join(lines) + "\n")
        await self._run(
            "pip", "install", *_WHEELS_ONLY, "--no-deps", "--require-hashes", "--link-mode", "hardlink",
            "--target", str(target), "--requirements", str(scratch / "locked"), grows=target,
        )  # fmt: skip

    async def _run(self, *arguments: str, grows: Path | None = None) -> str:
        """Run one command and return what it printed. grows: a directory that it fills, beside the cache."""
        growth = _growth(self._cache, grows)
        try:
            process = await asyncio.create_subprocess_exec(
                find(), *arguments, "--python", self._python, "--cache-dir", str(self._cache), *_QUIET,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=dict(self._environ), cwd="/", start_new_session=True, umask=0o022,
            )  # fmt: skip
        except OSError as error:
            raise InstallFailed(f"uv cannot be started: {error.strerror}") from error
        if self._most_bytes is not None:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (self._most_bytes,) * 2)
        said = asyncio.ensure_future(process.communicate())
        try:
            await self._watch(said, growth)
            stdout, stderr = said.result()
        finally:
            if not said.done():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.shield(said)
        if process.returncode:
            raise InstallFailed(self._reason(process.returncode, stderr.decode(errors="replace")))
        return stdout.decode(errors="replace")

    async def _watch(self, said: asyncio.Future[tuple[bytes, bytes]], growth: Callable[[], int]) -> None:
        """Wait for its end. Raises InstallFailed when it takes too long, or has written too much."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + TIMEOUT_S
        while not (await asyncio.wait({said}, timeout=_LOOK_S))[0]:
            if loop.time() > ends:
                raise InstallFailed(f"it was not done after {TIMEOUT_S:g} s; try again, what was loaded is kept")
            if self._most_bytes is not None and await asyncio.to_thread(growth) > self._most_bytes:
                raise InstallFailed(self._too_large())

    def _too_large(self) -> str:
        return f"it takes more than the {self._most_bytes} bytes that are left of max_package_bytes; raise that setting"

    def _reason(self, code: int, said: str) -> str:
        if code == -signal.SIGXFSZ or "File too large" in said:
            return self._too_large()
        if code < 0:
            return f"uv was ended by {signal.Signals(-code).name}"
        text = said.strip().removeprefix("error: ").removeprefix("No solution found when resolving dependencies")
        text = text.strip().removeprefix("cause: ").replace("\n\n", "\n")
        return (text[:_TOLD_CHARS] or f"uv exited with code {code}").rstrip(".")


def _package(line: str) -> Package:
    requirement, *hashes = line.split(" --hash=")
    name, _, version = requirement.partition(";")[0].strip().partition("==")
    return Package(name.partition("[")[0].strip(), version.strip(), tuple(one.strip() for one in hashes))


def _growth(cache: Path, target: Path | None) -> Callable[[], int]:
    """Return a function that tells how many bytes have been unpacked since now."""
    archives = cache / "archive-v0"
    before = set(_names(archives))

    def grown() -> int:
        new = [archives / name for name in _names(archives) if name not in before]
        new += [cache / name for name in _names(cache) if name.startswith(".tmp")]
        return sum(size(place) for place in (*new, *([] if target is None else [target])))

    return grown


def _names(place: Path) -> list[str]:
    try:
        return os.listdir(place)  # noqa: PTH208 - names are enough
    except OSError:
        return []


def size(place: Path) -> int:
    """Return how many bytes the files in a tree have. It follows no link."""
    total = 0
    for directory, _, files in os.walk(place):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118
    return total
