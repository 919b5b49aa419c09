"""Read and write the configuration files of MCP hosts, and note what was changed, so that it can be taken back.

The note has only the part of the file that changed: configuration files hold the keys of other servers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kernelrepl import discovery
from kernelrepl.errors import HostFileRefused

_CONTEXT = 2
"""So many lines are shown around a change."""


@dataclass(frozen=True)
class Note:
    """What turned one text into another. A file that was not there has no digest."""

    before: str | None
    after: str
    offset: int
    removed: str
    inserted: int
    has_new_group: bool
    """Whether the object or table of all servers came with the entry."""
    directories: tuple[str, ...]
    """The directories that were made for the file."""

    def undone(self, text: str | None) -> str | None:
        """The text before the change; None if this is not the text after it. Check `before` for a file to remove."""
        if text is None or _digest(text) != self.after:
            return None
        earlier = text[: self.offset] + self.removed + text[self.offset + self.inserted :]
        return earlier if self.before is None or _digest(earlier) == self.before else None


def note(before: str | None, after: str, has_new_group: bool, directories: tuple[str, ...]) -> Note:
    """Describe a change: `before` is None if there was no file."""
    old = before or ""
    shorter = min(len(old), len(after))
    start = next((i for i in range(shorter) if old[i] != after[i]), shorter)
    end = next((i for i in range(shorter - start) if old[-1 - i] != after[-1 - i]), shorter - start)
    return Note(
        None if before is None else _digest(before),
        _digest(after),
        start,
        old[start : len(old) - end],
        len(after) - end - start,
        has_new_group,
        directories,
    )


class Notes:
    """The notes of all files, each in a file of its own that only this user reads."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._directory = data_dir / "hosts"

    def make_room(self) -> None:
        """Create the directory of the notes, before anything is changed that could not be noted."""
        discovery.make_private(self._data_dir, discovery.PREFIX + "DATA_DIR")
        with _refusing(self._directory):
            self._directory.mkdir(mode=0o700, exist_ok=True)

    def find(self, path: Path) -> Note | None:
        """Return the note of a file; None also for one that cannot be read."""
        try:
            found = json.loads(self._file(path).read_text(encoding="utf-8"))
            return Note(**{**found, "directories": tuple(found["directories"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, path: Path, made: Note) -> None:
        """Store the note of a file instead of an earlier one."""
        _replace(self._file(path), json.dumps(asdict(made)).encode())

    def forget(self, path: Path) -> None:
        """Remove the note of a file."""
        self._file(path).unlink(missing_ok=True)

    def _file(self, path: Path) -> Path:
        return self._directory / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def read(path: Path) -> str | None:
    """Return the text of a file, line ends as they are; None if there is none."""
    with _refusing(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise HostFileRefused(str(path), "is not a file", "give the path of a file with --file")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read()
        finally:
            os.close(descriptor)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise HostFileRefused(str(path), f"is not UTF-8 in line {line}", "store it as UTF-8, then try again") from None


def write(path: Path, before: str | None, after: str) -> tuple[str, ...]:
    """Replace a file at once, and return the directories that were made for it. `before` is what `read` returned."""
    try:
        data = after.encode("utf-8")
    except UnicodeEncodeError:
        raise HostFileRefused(str(path), "cannot hold a path that is not UTF-8", "install it elsewhere") from None
    with _refusing(path):
        missing = [parent for parent in path.parents if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
    if read(path) != before:
        raise HostFileRefused(str(path), "was changed by another program in this moment", "try again")
    _replace(path, data)
    return tuple(map(str, missing))


def remove(path: Path, directories: tuple[str, ...]) -> None:
    """Remove a file, and directories that were made for it as far as they are empty."""
    with _refusing(path):
        path.unlink()
    with contextlib.suppress(OSError):
        for directory in directories:
            Path(directory).rmdir()


def difference(path: Path, before: str | None, after: str | None) -> str:
    """Return a change as a diff, with one hunk: everything before and after it is equal."""
    old, new = _lines(before), _lines(after)
    shorter = min(len(old), len(new))
    start = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    end = next((i for i in range(shorter - start) if old[-1 - i] != new[-1 - i]), shorter - start)
    first = max(0, start - _CONTEXT)
    last = min(end, _CONTEXT)
    lines = [f" {line}" for line in old[first:start]]
    lines += [f"-{line}" for line in old[start : len(old) - end]]
    lines += [f"+{line}" for line in new[start : len(new) - end]]
    lines += [f" {line}" for line in old[len(old) - end : len(old) - end + last]]
    spans = [
        f"{first + (count > 0)},{count}" for count in (len(old) - end + last - first, len(new) - end + last - first)
    ]
    titles = [f"--- {'/dev/null' if before is None else path}", f"+++ {'/dev/null' if after is None else path}"]
    return "\n".join([*titles, f"@@ -{spans[0]} +{spans[1]} @@", *lines])


def _lines(text: str | None) -> list[str]:
    lines = (text or "").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    with _refusing(path):
        try:
            with open(new, "xb", opener=_private) as file:
                file.write(data)
                file.flush()
                if path.exists():
                    _be_like(new, path)
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    """Open a file that only its owner reads, until it is made like the one that it replaces: hosts keep keys in it."""
    return os.open(path, flags, 0o600)


def _be_like(new: Path, path: Path) -> None:
    """Give a file what another one has besides its bytes: mode, attributes and owner, but not its times."""
    shutil.copystat(path, new)
    os.utime(new)
    status = path.stat()
    with contextlib.suppress(OSError):  # only root gives files away
        os.chown(new, status.st_uid, status.st_gid)


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Make an error of the system one that says what to do."""
    try:
        yield
    except OSError as error:
        remedy = "make it readable and writable, or give another place with --file"
        raise HostFileRefused(str(path), f"cannot be changed: {error.strerror}", remedy) from error
