"""Remove directory trees that hostile code made: unreadable, deeper than any path, full of links."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: Path) -> None:
    """Remove a directory and all in it, whatever it is like; nothing if it is not there.

    Nobody may be changing it meanwhile. What cannot be removed stays, as with shutil.rmtree(ignore_errors=True).
    """
    if not path.is_dir() or path.is_symlink():
        return
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(path)
        return
    _flatten(path)


def _flatten(top: Path) -> None:
    """Bring every directory up to the top before it is emptied: no path gets long and nothing recurses."""
    with contextlib.suppress(OSError):
        top.chmod(0o700)
        root = os.open(top, _OPEN)
        try:
            while _empty_one_level(root):
                pass
        finally:
            os.close(root)
        top.rmdir()


def _empty_one_level(root: int) -> bool:
    """Empty the directories at the top, hoisting what they hold; whether anything was done."""
    done = False
    for name in os.listdir(root):
        with contextlib.suppress(OSError):
            if not _is_directory(name, root):
                os.unlink(name, dir_fd=root)
            else:
                _hoist(name, root)
                os.rmdir(name, dir_fd=root)
            done = True
    return done


def _hoist(name: str, root: int) -> None:
    os.chmod(name, 0o700, dir_fd=root)
    directory = os.open(name, _OPEN, dir_fd=root)
    try:
        for child in os.listdir(directory):  # noqa: PTH208
            if _is_directory(child, directory):
                os.chmod(child, 0o700, dir_fd=directory)  # moving a directory takes writing to it
                os.rename(child, f"h-{secrets.token_hex(8)}", src_dir_fd=directory, dst_dir_fd=root)
            else:
                os.unlink(child, dir_fd=directory)
    finally:
        os.close(directory)


def _is_directory(name: str, where: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=where, follow_symlinks=False).st_mode)
