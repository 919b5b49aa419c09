"""Landlock: which files, and which other processes, a process can reach whatever its rights are. Runs in the kernel."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from kernelrepl.guest.system import libc

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_O_PATH = 0o10000000

EXECUTE = 1 << 0
READ = 1 << 2 | 1 << 3
LIST = 1 << 3
WRITE = 1 << 1 | sum(1 << bit for bit in (4, 5, 7, 8, 9, 10, 12, 13, 14))
"""Write, remove, make everything but devices, move between directories, truncate."""
_FILE_ONLY = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""The rights that make sense for what is no directory."""

FULL_ABI = 6
"""From here on it also keeps signals and abstract sockets to the processes it confines."""


def _handled(abi: int) -> tuple[int, int, int]:
    """Rights to files, to TCP, and scopes that this version knows."""
    files = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        if abi >= since:
            files |= 1 << bit
    return files, 3 if abi >= 4 else 0, 3 if abi >= FULL_ABI else 0


def _call(number: int, *arguments: object) -> int:
    result: int = libc().syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return result


def version() -> int:
    """The version of the interface; 0 where there is none."""
    try:
        return _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    except OSError:
        return 0


def restrict(abi: int, rules: Iterable[tuple[str, int]]) -> None:
    """Leave this thread only what the rules grant below their paths: no other file, no TCP. Raises OSError.

    abi: what the rules may count on, as `version` gave it. A path that does not exist grants nothing.
    """
    files, net, scopes = _handled(abi)
    attributes = struct.pack("=QQQ", files, net, scopes)[: 24 if scopes else 16 if net else 8]
    ruleset = _call(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        for path, rights in rules:
            _add(ruleset, path, rights & files)
        _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _add(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, _O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - pathlib costs a kernel's start more than it is worth
            rights &= _FILE_ONLY
        rule = struct.pack("=Qi", rights, descriptor)
        _call(_ADD, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0))
    finally:
        os.close(descriptor)
