"""Reach what lies below a directory that hostile code may write to: by descriptors, never by a path that is looked up
twice.

A name is opened from the descriptor of its directory, in one step that follows no link and enters no other mount. What
was opened is asked what it is, and what is done is done to that descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_OPENAT2 = 437  # the same number on every architecture
_NO_XDEV = 0x01
_RESOLVE = 0x08 | 0x04 | 0x02 | _NO_XDEV  # RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV
_RENAME_NOREPLACE = 1
_AT_EMPTY_PATH = 0x1000
HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""Hold what has a name without opening it: a pipe, a device, a closed directory too."""
QUIETLY = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
"""A pipe does not make us wait, a terminal does not become ours, a child does not inherit it."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | QUIETLY
MOST_OPEN = 64
"""So many directories above the one that is read are kept open."""


class Evasive(OSError):
    """A directory is closed again as soon as it is opened, or moved while something below it is read."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@functools.cache
def libc() -> ctypes.CDLL:
    """The C library, for what `os` has not."""
    found = ctypes.CDLL(None, use_errno=True)
    found.syscall.restype = ctypes.c_long
    found.syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
    return found


def _openat2(directory: int, path: bytes, flags: int, resolve: int = _RESOLVE) -> int:
    """Open what a path leads to below a directory, over no link of any kind. Raises OSError."""
    how = _OpenHow(flags, 0, resolve)
    while True:
        found = int(libc().syscall(_OPENAT2, directory, path, ctypes.byref(how), ctypes.sizeof(how)))
        if found >= 0:
            return found
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


@functools.cache
def has_openat2() -> bool:
    """Linux has it since 5.6. Some containers say that it is forbidden instead of that it is unknown."""
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(_openat2(top, b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    finally:
        os.close(top)
    return True


def open_beneath(top: int, parts: list[bytes], flags: int, *, over_mounts: bool = False) -> int:
    """Open what names lead to from a directory; without names the directory itself, anew. Raises OSError.

    over_mounts: also in another mount, which is the person's where sessions cannot mount.
    """
    if has_openat2():
        return _openat2(top, b"/".join(parts) or b".", flags, _RESOLVE & ~_NO_XDEV if over_mounts else _RESOLVE)
    at = os.dup(top)
    try:
        for part in parts[:-1]:
            step = os.open(part, HOLD, dir_fd=at)
            os.close(at)
            at = step
            # Of a link, this is a descriptor of the link.
            if stat.S_ISLNK(os.fstat(at).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        found = os.open(parts[-1] if parts else b".", flags, dir_fd=at)
    finally:
        os.close(at)
    if not over_mounts and _mount_of(found) != _mount_of(top):
        os.close(found)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return found


def _mount_of(descriptor: int) -> bytes:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().splitlines()
    return next((line for line in lines if line.startswith(b"mnt_id:")), b"")


def reopen(held: int, flags: int) -> int:
    """Open what is held, and nothing else: whatever has its name by now. It must be no link. Raises OSError."""
    return os.open(f"/proc/self/fd/{held}", flags & ~os.O_NOFOLLOW)


def make_directory(name: bytes, directory: int) -> None:
    """Make a directory in another, if nothing has its name. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o777, dir_fd=directory)


def make_directories(
    top: int, parts: list[bytes], make: Callable[[bytes, int], None] = make_directory, *, over_mounts: bool = False
) -> int:
    """A descriptor of the directory that names lead to; those that are missing are made. Raises OSError."""
    at = os.dup(top)
    try:
        for part in parts:
            make(part, at)
            step = open_beneath(at, [part], DIRECTORY, over_mounts=over_mounts)
            os.close(at)
            at = step
    except BaseException:
        os.close(at)
        raise
    return at


def give(held: int, uid: int, gid: int) -> None:
    """Change the owner of what is held: a link itself, not what it leads to. Raises OSError."""
    if libc().fchownat(held, b"", uid, gid, _AT_EMPTY_PATH):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass(slots=True)
class _Level:
    descriptor: int
    identity: tuple[int, int]


class Descent:
    """A way down into a tree, and up again. A context manager."""

    def __init__(self, top: Path, rights: int) -> None:
        """Begin in a directory whose own path nobody else can change. Raises OSError.

        rights: what the owner needs of each directory. Where it is missing and we are the owner, it is given.
        """
        self._rights = rights
        self._levels: list[_Level] = []
        self._enter(os.open(top, HOLD | os.O_DIRECTORY))

    def __enter__(self) -> Descent:
        return self

    def __exit__(self, *error: object) -> None:
        for level in self._levels:
            _close(level)

    @property
    def here(self) -> int:
        """The directory that has been reached, opened to be read."""
        return self._levels[-1].descriptor

    @property
    def top(self) -> int:
        """Where it began; open as long as the way is no longer than what is kept open."""
        return self._levels[0].descriptor

    @property
    def depth(self) -> int:
        return len(self._levels) - 1

    def down(self, name: bytes) -> None:
        """Go to a directory in this one. Raises OSError, and stays."""
        self._enter(open_beneath(self.here, [name], HOLD | os.O_DIRECTORY))
        if len(self._levels) > MOST_OPEN:
            _close(self._levels[-1 - MOST_OPEN])

    def up(self) -> None:
        """Go back to where `down` came from. Raises Evasive if that is somewhere else now."""
        left = self._levels.pop()
        try:
            if self._levels and self._levels[-1].descriptor < 0:
                self._levels[-1].descriptor = self._above(left.descriptor, self._levels[-1].identity)
        finally:
            _close(left)

    def _above(self, below: int, identity: tuple[int, int]) -> int:
        try:
            held = os.open("..", HOLD | os.O_DIRECTORY, dir_fd=below)
        except OSError as error:
            raise Evasive(error.errno, "closed meanwhile") from error
        try:
            if _identity(os.fstat(held)) != identity:
                raise Evasive(errno.ESTALE, "moved meanwhile")
            return self._readable(held)
        finally:
            os.close(held)

    def _enter(self, held: int) -> None:
        try:
            self._levels.append(_Level(self._readable(held), _identity(os.fstat(held))))
        finally:
            os.close(held)

    def _readable(self, held: int) -> int:
        """Open a directory that is held. Raises OSError, and Evasive if it is ours and cannot be opened."""
        status, user = os.fstat(held), os.geteuid()
        ours = user != 0 and status.st_uid == user
        try:
            if ours and status.st_mode & self._rights != self._rights:
                Path(f"/proc/self/fd/{held}").chmod(stat.S_IMODE(status.st_mode) | self._rights)
            return os.open(".", DIRECTORY, dir_fd=held)
        except PermissionError as error:
            if not ours:
                raise
            raise Evasive(error.errno, "closed meanwhile") from error


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _close(level: _Level) -> None:
    if level.descriptor >= 0:
        os.close(level.descriptor)
        level.descriptor = -1


def entries(directory: int) -> Iterator[os.DirEntry[str]]:
    """What is in a directory, one after the other: all names of it may be more than there is memory."""
    with contextlib.suppress(OSError), os.scandir(directory) as found:
        yield from found


def walk(descent: Descent, look: Callable[[int], list[bytes]], most_waiting: int | None = None) -> None:
    """Look into every directory once. `look` returns the names of those below that are to be looked into.

    What is gone, or no directory any more, is passed over. Raises Evasive, also when more than `most_waiting` names
    are kept at once.
    """
    waiting = [look(descent.here)]
    kept = len(waiting[0])
    while True:
        if most_waiting is not None and kept + len(waiting) > most_waiting:
            raise Evasive(errno.E2BIG, "more directories than can be kept in mind")
        if not waiting[-1]:
            waiting.pop()
            if not waiting:
                return
            descent.up()
            continue
        name = waiting[-1].pop()
        kept -= 1
        try:
            descent.down(name)
        except Evasive:
            raise
        except OSError:
            continue
        waiting.append(look(descent.here))
        kept += len(waiting[-1])


# Copies


@contextlib.contextmanager
def complete(
    directory: int, name: bytes, mode: int, errors: Callable[[], AbstractContextManager[None]], *, replace: bool
) -> Iterator[IO[bytes]]:
    """A file that gets its name when all of it is written, and is removed if that fails. `errors` is for its own."""
    temporary = f".kernelrepl-{secrets.token_hex(8)}".encode()
    with errors():
        if not replace:
            _check_free(directory, name)  # before anything is copied
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | QUIETLY, mode, dir_fd=directory)
    out = os.fdopen(file, "wb")
    try:
        yield out
        with errors():
            out.close()
            _rename(directory, temporary, name, replace=replace)
    except BaseException:
        for undo in (out.close, functools.partial(os.unlink, temporary, dir_fd=directory)):
            with contextlib.suppress(OSError):
                undo()
        raise


def _check_free(directory: int, name: bytes) -> None:
    """Raises FileExistsError if there is anything of this name, even a link that leads nowhere."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _rename(directory: int, old: bytes, new: bytes, *, replace: bool) -> None:
    if not replace:
        with contextlib.suppress(AttributeError):  # an old C library; then what is made at this moment is replaced
            if libc().renameat2(directory, old, directory, new, _RENAME_NOREPLACE) == 0:
                return
            number = ctypes.get_errno()
            if number not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):  # not every file system can
                raise OSError(number, os.strerror(number))
        _check_free(directory, new)
    os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)
