"""Files in and out of a workspace, while hostile code may write in it at the same time.

No name is looked at first and opened later: a name is opened from a descriptor of the workspace in one step that
leaves the workspace neither by links nor by dots, and what was opened is asked what it is. Copies have a limit,
because a sparse file is as large as somebody says; a copy appears under its name when it is complete, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kernelrepl.errors import WorkspaceFileRefused, WorkspaceFileTooLarge
from kernelrepl.workspaces import own_files
from kernelrepl.workspaces.beneath import (
    DIRECTORY,
    HOLD,
    QUIETLY,
    complete,
    make_directories,
    make_directory,
    open_beneath,
    reopen,
)

LIMIT_BYTES = 1_000_000_000
LIST_ENTRIES = 1000
FOLDER_FILES = 10_000
"""The most that are copied at once."""
_CHUNK = 1 << 20
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
"""Something had the name of a directory first."""

_SEE = "`kernelrepl workspace SESSION --list` shows what is there"
_COPY = "let code in the session copy it with shutil.copyfile, and take the copy"
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}
_REASONS = {
    errno.ELOOP: ("is a symbolic link or leads through one, which is not followed", _COPY),
    errno.EXDEV: ("leads out of the workspace", "name a file inside"),
    errno.ENOENT: ("is not there", _SEE),
    errno.ENOTDIR: ("leads through something that is no directory", _SEE),
    errno.ENXIO: ("is a socket or a device", "only files can be copied: " + _SEE),
    errno.EACCES: ("must not be opened", "let code in the session give the permission with os.chmod"),
    errno.EAGAIN: ("is kept closed by code that runs", "try again, or end that code with python_interrupt"),
    errno.EEXIST: ("is there already", "--force replaces it"),
    errno.EISDIR: ("is a directory", "name another file, or remove the directory in the session"),
    errno.ENOSPC: ("cannot be written: the disk is full", "free some space"),
    errno.EDQUOT: ("cannot be written: the quota is used up", "free some space"),
}


@dataclass(frozen=True)
class Entry:
    """One thing in a workspace. Its name is escaped, so that it can be printed."""

    path: str
    kind: str
    size: int


@dataclass(frozen=True)
class Listing:
    """What is in a workspace, as far as it was looked at."""

    entries: list[Entry]
    more: bool
    """Whether there is more than was asked for."""
    closed: list[str]
    """Directories that could not be looked into."""


def read_into(root: Path, path: str, out: IO[bytes], limit: int = LIMIT_BYTES) -> int:
    """Copy a file of a workspace into a stream; returns its size. Raises WorkspaceFileRefused.

    If a file grows beyond the limit while it is read, some of it has been written by then.
    """
    parts = _parts(path)
    with _opened_root(root) as top, _refusing(path):
        owner = os.fstat(top).st_uid
        held = open_beneath(top, parts, HOLD)
    try:  # opening a pipe or a device would do something already
        status = os.fstat(held)
        with _refusing(path):
            if stat.S_ISLNK(status.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        _check_file(path, status, owner, limit)
        with _refusing(path):
            file = reopen(held, os.O_RDONLY | QUIETLY)
    finally:
        os.close(held)
    try:
        _check_file(path, os.fstat(file), owner, limit)
        size = 0
        while True:
            with _refusing(path):
                chunk = os.read(file, min(_CHUNK, limit + 1 - size))  # one byte more than fits tells that it does not
            if not chunk:
                return size
            size += len(chunk)
            if size > limit:
                raise _too_large(path, limit)
            out.write(chunk)
    finally:
        os.close(file)


def fetch(
    root: Path,
    path: str,
    target: Path,
    limit: int = LIMIT_BYTES,
    *,
    replace: bool = False,
    places: Sequence[str] = (),
) -> int:
    """Copy a file of a workspace to a file of ours, which has all of it or is not there; returns its size.

    places: where sessions write, resolved. Raises WorkspaceFileRefused, or an OSError that is about the target.
    """
    directory = own_files.open_directory(target.parent, places)
    try:
        with complete(directory, os.fsencode(target.name), 0o666, contextlib.nullcontext, replace=replace) as out:
            return read_into(root, path, out, limit)
    finally:
        os.close(directory)


def write_from(root: Path, path: str, source: IO[bytes], limit: int = LIMIT_BYTES, *, replace: bool = False) -> int:
    """Make a file of a workspace from a stream, with the directories that it needs; returns its size.

    It belongs to whom the workspace belongs. Raises WorkspaceFileRefused, or an OSError that is about the source.
    """
    parts = _parts(path)
    refusing = functools.partial(_refusing, path)
    size = 0
    with _opened_root(root) as top:
        with refusing():
            directory = make_directories(top, parts[:-1], _maker(root, os.fstat(top)))
        try:
            with complete(directory, parts[-1], 0o600, refusing, replace=replace) as out:
                while chunk := source.read(min(_CHUNK, limit + 1 - size)):
                    size += len(chunk)
                    if size > limit:
                        raise _too_large(path, limit)
                    with refusing():
                        out.write(chunk)
                with refusing():
                    _give_away(out.fileno(), os.fstat(top))
                    os.fchmod(out.fileno(), 0o644)
        finally:
            os.close(directory)
    return size


def list_files(root: Path, limit: int = LIST_ENTRIES) -> Listing:
    """What is in a workspace, what lies near the top first. Nothing is opened but directories.

    Raises WorkspaceFileRefused if there is no workspace. What changes meanwhile is shown as it was or is left out.
    """
    closed: list[str] = []
    with _opened_root(root) as top, contextlib.closing(_walk(top, closed)) as found:
        entries = [
            Entry(shown(os.fsdecode(b"/".join(parts))), kind, size)
            for parts, kind, size in itertools.islice(found, limit + 1)
        ]
    return Listing(sorted(entries[:limit], key=lambda entry: entry.path), len(entries) > limit, sorted(closed))


def files_below(root: Path, path: str, limit: int = FOLDER_FILES) -> list[str] | None:
    """The files in a folder of a workspace and in those below it, as paths from the workspace on.

    None if it is no folder. Only plain files are named. Raises WorkspaceFileRefused if there are more than `limit`.
    """
    folder = _parts(path)
    found: list[str] = []
    with _opened_root(root) as top:
        try:
            os.close(open_beneath(top, folder, DIRECTORY))
        except OSError:
            return None  # whoever reads it says what is wrong
        with contextlib.closing(_walk(top, [], folder)) as entries:
            for number, (parts, kind, _) in enumerate(entries):
                if number == 10 * limit or (len(found) == limit and kind == "file"):
                    raise _refused(path, f"has more than {limit} files", "let code in the session pack them into one")
                found += [os.fsdecode(b"/".join(parts))] if kind == "file" else []
    return sorted(found)


def _walk(
    top: int, closed: list[str], folder: Sequence[bytes] = ()
) -> Generator[tuple[list[bytes], str, int], None, None]:
    """What is below a folder: the names that lead there, what it is, its size."""
    to_visit: deque[list[bytes]] = deque([list(folder)])
    while to_visit:
        parts = to_visit.popleft()
        try:
            directory = open_beneath(top, parts, DIRECTORY)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.ENAMETOOLONG):
                closed.append(shown(os.fsdecode(b"/".join(parts))))
            continue  # else it is gone, or is no directory any more
        try:
            # One name after the other: all names of a directory may be more than there is memory.
            with contextlib.suppress(OSError), os.scandir(directory) as found:
                for entry in found:
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        here = [*parts, os.fsencode(entry.name)]
                        kind = _kind(status)
                        yield here, kind, status.st_size
                        if kind == "directory":
                            to_visit.append(here)
        finally:
            os.close(directory)


def _kind(status: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(status.st_mode), "unknown")


def shown(name: str) -> str:
    r"""A name as it can be printed: what a terminal would obey or cannot show is escaped, as bash reads it in $'…'."""
    return "".join(_escaped(character) for character in name)


def _escaped(character: str) -> str:
    code = ord(character)
    if character.isprintable() and character != "\\":
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if 0x80 <= code < 0x100 else character.encode("unicode_escape").decode()


# Errors


def _refused(
    path: str, why: str, remedy: str, kind: type[WorkspaceFileRefused] = WorkspaceFileRefused
) -> WorkspaceFileRefused:
    name = shown(path)
    return kind(name if len(name) <= 200 else name[:200] + "…", why, remedy)


def _too_large(path: str, limit: int) -> WorkspaceFileRefused:
    why = f"has more than {limit} bytes, which is the limit"
    return _refused(path, why, "--max-bytes raises it", WorkspaceFileTooLarge)


@contextlib.contextmanager
def _refusing(path: str) -> Iterator[None]:
    """What the system refuses in a workspace, in words and with what to do."""
    try:
        yield
    except OSError as error:
        known = _REASONS.get(error.errno or 0, (f"cannot be used: {error.strerror}", _SEE))
        raise _refused(path, *known) from error


def _parts(path: str) -> list[bytes]:
    """The names that a path leads through. Raises WorkspaceFileRefused."""
    if path.startswith("/"):
        raise _refused(path, "is an absolute path", "name it as seen from the workspace, without a slash at the front")
    try:
        parts = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")]
    except UnicodeEncodeError:
        parts = [b"\0"]
    if b".." in parts:
        raise _refused(path, "has '..' in it", "name it as seen from the workspace, without '..'")
    if any(b"\0" in part for part in parts):
        raise _refused(path, "is no name that a file can have", _SEE)
    if not parts:
        raise _refused(path, "is the workspace itself", "name a file in it: " + _SEE)
    return parts


def _check_file(path: str, status: os.stat_result, owner: int, limit: int) -> None:
    """Raises WorkspaceFileRefused for what is no plain file of this workspace alone, or too large."""
    kind = _kind(status)
    if kind == "directory":
        raise _refused(path, "is a directory", "name the files in it: " + _SEE)
    if kind != "file":
        raise _refused(path, f"is no file but a {kind}", "only files can be copied: " + _SEE)
    if status.st_nlink > 1:
        raise _refused(path, "has other names (hard links), which may be outside of the workspace", _COPY)
    if status.st_uid != owner:  # also a hard link to somebody's file whose name here is gone since it was opened
        raise _refused(path, "belongs to another user than the workspace", _COPY)
    if status.st_size > limit:
        raise _too_large(path, limit)


# Descriptors


@contextlib.contextmanager
def _opened_root(root: Path) -> Iterator[int]:
    try:
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        why = f"is no workspace that can be opened: {error.strerror}"
        raise _refused(str(root), why, "running code in its session makes it again if it was removed") from error
    try:
        yield top
    finally:
        os.close(top)


# Making


def _maker(root: Path, owner: os.stat_result) -> Callable[[bytes, int], None]:
    """How a directory is made that belongs to whom the workspace belongs. Raises OSError."""

    def make_and_give(name: bytes, directory: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            return
        # Beside the workspace, where nobody can put another in its place before it is given away.
        made = tempfile.mkdtemp(prefix=".kernelrepl-", dir=root.parent)
        try:
            os.chmod(made, 0o755)  # noqa: PTH101
            os.chown(made, owner.st_uid, owner.st_gid)
            os.rename(made, name, dst_dir_fd=directory)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.rmdir(made)  # noqa: PTH106
            if not isinstance(error, OSError) or error.errno not in _TAKEN:
                raise

    return make_and_give if os.geteuid() == 0 else make_directory


def _give_away(made: int, owner: os.stat_result) -> None:
    """What root makes in a workspace belongs to whom the workspace belongs: code in it runs with that one's rights."""
    if os.geteuid() == 0:
        os.fchown(made, owner.st_uid, owner.st_gid)
