"""This module runs `uv`, which knows package indexes, resolves versions and unpacks wheels.

Its index, proxy and certificates are those of the person: the environment and the configuration files of uv. It runs
with the rights of the keeper, outside of any sandbox, so nothing that it reads is from where a session may write.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from kernelrepl.errors import InstallerMissing, InstallFailed
from kernelrepl.packages.layers import Package
from kernelrepl.workspaces.entrances import led_by

TIMEOUT_S = 900
OLDEST = Version("0.13")
"""Of which it is known that a wheel leads it to write nowhere else."""
_LOOK_S = 0.25
_BLOCK_BYTES = 4096
_MEMORY_BYTES = 4 << 30
"""What uv may take of memory: what a wheel says of itself is not bounded."""
_NICENESS = 5
_TOLD_CHARS = 2000
_WHEELS_ONLY = ("--only-binary", ":all:")
_QUIET = ("--no-progress", "--color", "never", "--quiet", "--no-python-downloads")
_FILES = (
    "NETRC", "SSL_CERT_DIR", "SSL_CERT_FILE", "UV_CONFIG_FILE", "UV_FIND_LINKS", "XDG_CONFIG_DIRS", "XDG_CONFIG_HOME",
)  # fmt: skip
"""Variables that name what uv reads."""
_WORDS = (
    "HOME", "LANG", "LC_ALL", "all_proxy", "http_proxy", "https_proxy", "no_proxy", "ALL_PROXY", "HTTP_PROXY",
    "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
_OF_INDEX = re.compile(
    "UV_(DEFAULT_INDEX|EXCLUDE_NEWER|EXTRA_INDEX_URL|HTTP_RETRIES|HTTP_TIMEOUT|INDEX|INDEX_STRATEGY|INDEX_URL"
    "|INSECURE_HOST|KEYRING_PROVIDER|NATIVE_TLS|NO_CONFIG|OFFLINE|SYSTEM_CERTS|INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD))"
)
_INDEX_ADDRESS = re.compile(r"[a-z+]+://\S+")


def environment(environ: Mapping[str, str], places: Iterable[str] = ()) -> dict[str, str]:
    """Return what of a keeper's environment uv is run with: how to reach an index, and nothing that leads to code.

    places: where sessions write; what is read from there is left out.
    """
    places = tuple(places)
    found = {name: value for name, value in environ.items() if name in _WORDS or _OF_INDEX.fullmatch(name)}
    for name in _FILES:
        paths = [part for part in re.split(r"[:, ]", environ.get(name, "")) if part.startswith("/")]
        if environ.get(name) and all(led_by(path, places) is None for path in paths):
            found[name] = environ[name]
    return {**found, "PATH": "/usr/bin:/bin"}


def find(places: Iterable[str] = ()) -> str:
    """Return the path of the program. Raises InstallerMissing.

    places: where sessions write; no program is taken from there.
    """
    try:
        import uv

        found: str | None = uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None or led_by(os.path.abspath(found), places) is not None:  # noqa: PTH100
        raise InstallerMissing
    return found


class Uv:
    """This object runs uv for one interpreter, with one cache and one directory for temporary files."""

    def __init__(
        self, program: str, python: str, cache: Path, scratch: Path, environ: Mapping[str, str], most_bytes: int | None
    ) -> None:
        """most_bytes: how much it may write."""
        self._program = program
        self._python = python
        self._cache = cache
        self._scratch = scratch
        self._environ = {**environ, "TMPDIR": str(scratch)}
        self._most_bytes = most_bytes

    async def check(self) -> None:
        """Raise InstallFailed if this uv is too old."""
        said = (await self._run("--version", plain=True)).split()
        try:
            version = Version(said[1])
        except (IndexError, InvalidVersion):
            raise InstallFailed(f"{self._program} is no uv; `pip install -U uv` beside kernelrepl") from None
        if version < OLDEST:
            raise InstallFailed(f"uv {version} is too old, {OLDEST} is needed; `pip install -U uv` beside kernelrepl")

    async def present(self) -> dict[str, str]:
        """Return the public versions that the environment of the interpreter has, by canonical name."""
        listed = json.loads(await self._run("pip", "list", "--format", "json"))
        return {canonicalize_name(one["name"]): Version(one["version"]).public for one in listed}

    async def resolve(self, wanted: Iterable[str], constraints: Iterable[str]) -> list[Package]:
        """Return all distributions that are needed, those that are there already too. Raises InstallFailed."""
        (self._scratch / "wanted").write_text("\n".join(wanted) + "\n")
        (self._scratch / "constraints").write_text("\n".join(constraints) + "\n")
        text = await self._run(
            "pip", "compile", *_WHEELS_ONLY, "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url",
            "--constraints", str(self._scratch / "constraints"), str(self._scratch / "wanted"),
        )  # fmt: skip
        return [_package(line) for line in text.replace("\\\n", " ").splitlines() if "==" in line]

    async def install(self, packages: Sequence[Package], target: Path) -> None:
        """Unpack these wheels into a directory. Raises InstallFailed."""
        lines = (" ".join((f"{p.name}=={p.version}", *(f"--hash={h}" for h in p.hashes))) for p in packages)
        (self._scratch / "locked").write_text("\n".join(lines) + "\n")
        await self._run(
            "pip", "install", *_WHEELS_ONLY, "--no-deps", "--require-hashes", "--no-compile-bytecode",
            "--link-mode", "hardlink", "--target", str(target), "--requirements", str(self._scratch / "locked"),
        )  # fmt: skip

    async def _run(self, *arguments: str, plain: bool = False) -> str:
        """Run one command and return what it printed. plain: without the options of those that install."""
        options = () if plain else ("--python", self._python, "--cache-dir", str(self._cache), *_QUIET)
        try:
            process = await asyncio.create_subprocess_exec(
                self._program, *arguments, *options,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=self._environ, cwd="/", start_new_session=True, umask=0o022,
            )  # fmt: skip
        except OSError as error:
            raise InstallFailed(f"uv cannot be started: {error.strerror}") from error
        said = asyncio.ensure_future(process.communicate())
        try:
            self._bound(process.pid)
            await self._watch(said, process.pid)
            stdout, stderr = said.result()
        finally:
            if not said.done():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.shield(said)
        if process.returncode:
            raise InstallFailed(self._reason(process.returncode, stderr.decode(errors="replace")))
        return stdout.decode(errors="replace")

    def _bound(self, pid: int) -> None:
        limits = [(resource.RLIMIT_DATA, _MEMORY_BYTES), (resource.RLIMIT_CPU, TIMEOUT_S)]
        if self._most_bytes is not None:
            limits.append((resource.RLIMIT_FSIZE, self._most_bytes))
        for which, most in limits:
            with contextlib.suppress(OSError, ValueError):  # it has ended, or its limit is lower already
                resource.prlimit(pid, which, (most, most))
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)

    async def _watch(self, said: asyncio.Future[tuple[bytes, bytes]], pid: int) -> None:
        """Wait for its end. Raises InstallFailed when it takes too long, or has written too much."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + TIMEOUT_S
        while not (await asyncio.wait({said}, timeout=_LOOK_S))[0]:
            if loop.time() > ends:
                raise InstallFailed(f"it was not done after {TIMEOUT_S:g} s; try again, what was loaded is kept")
            # Twice: a wheel may be written as it comes, and then once more unpacked.
            if self._most_bytes is not None and _written(pid) > 2 * self._most_bytes:
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


def without_addresses(said: str) -> str:
    """Return what uv said without the addresses of indexes and files: they may have what only the person knows."""
    return re.sub(r"(?<![\w.])/[^\s`'\"]{2,}", "a file", _INDEX_ADDRESS.sub("the package index", said))


def _package(line: str) -> Package:
    requirement, *hashes = line.split(" --hash=")
    name, _, version = requirement.partition(";")[0].strip().partition("==")
    return Package(name.partition("[")[0].strip(), version.strip(), tuple(one.strip() for one in hashes))


def _written(pid: int) -> int:
    """Return how many bytes a process has written so far; 0 if that is not known."""
    try:
        counts = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return 0
    return int(re.findall(r"^wchar: (\d+)$", counts, re.M)[0])


def size(place: Path) -> int:
    """Return how many bytes a tree takes on the disk, an empty file too. It follows no link."""
    total = 0
    for directory, directories, files in os.walk(place):
        total += len(directories) * _BLOCK_BYTES
        for name in files:
            with contextlib.suppress(OSError):
                taken = os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118
                total += max(-(-taken // _BLOCK_BYTES), 1) * _BLOCK_BYTES
    return total
