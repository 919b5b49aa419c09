"""The filter of system calls, run on paper: what it answers for each call and argument, on both architectures."""

from __future__ import annotations

import errno
import functools
import platform
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl.guest.isolation import seccomp as syscalls

ALLOW, KILL = "allow", "kill"
MACHINES = ("x86_64", "aarch64")
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386 = 0x40000003


def answer(code: bytes, number: int, arguments: tuple[int, ...] = (), arch: int = AUDIT["x86_64"]) -> str:
    """What a filter returns: allow, kill, or the name of an error. A machine for the six instructions it uses."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(value & (2**64 - 1) for value in padded))
    at, loaded = 0, 0
    while True:
        operation, jump, otherwise, k = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        if operation == 0x20:
            (loaded,) = struct.unpack_from("=I", data, k)
        elif operation == 0x54:
            loaded &= k
        elif operation in (0x15, 0x35, 0x45):
            holds = {0x15: loaded == k, 0x35: loaded >= k, 0x45: bool(loaded & k)}[operation]
            at += jump if holds else otherwise
        else:
            assert operation == 0x06, f"instruction {operation:#x}"
            if k & 0xFFFF0000 == 0x00050000:
                return errno.errorcode[k & 0xFFFF] if k & 0xFFFF else "0"
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}[k]


program = functools.cache(syscalls.program)


def ask(tier: int, machine: str, name: str, *arguments: int) -> str | None:
    """What a tier answers to a call by name; None where the architecture has no such call."""
    number = syscalls.numbers(machine).get(name)
    if number is None:
        return None
    return answer(program(tier, machine), number, arguments, AUDIT[machine])


@pytest.fixture(params=[(tier, machine) for tier in (1, 2) for machine in MACHINES], ids=str)
def place(request: pytest.FixtureRequest) -> tuple[int, str]:
    found: tuple[int, str] = request.param
    return found


def test_it_fits_into_what_the_system_takes(place: tuple[int, str]) -> None:
    """At most 4096 instructions, and each ends."""
    code = program(*place)
    assert len(code) % 8 == 0
    assert len(code) // 8 < 4096


def test_no_number_is_in_two_tables(place: tuple[int, str]) -> None:
    """A typing error would let one call pass for another."""
    _, machine = place
    column = 1 + MACHINES.index(machine)
    words = " ".join((syscalls.ALLOWED, syscalls.DENIED, syscalls.SPECIAL)).split()
    names = [word.split(":")[0] for word in words]
    assert sorted(set(names)) == sorted(names)
    numbers = [word.split(":")[column] for word in words if word.split(":")[column] != "-"]
    assert sorted(set(numbers)) == sorted(numbers)


def test_what_is_denied_is_denied_and_what_is_unknown_is_not_there(place: tuple[int, str]) -> None:
    """EPERM for what is refused on purpose; ENOSYS for the rest, so that libraries fall back."""
    tier, machine = place
    denied = set(syscalls.names_of(syscalls.DENIED))
    if tier == 2:
        denied |= set(syscalls.DENIED_IN_TIER_2.split())
    assert {ask(tier, machine, name) for name in denied} - {None} == {"EPERM"}
    code = program(tier, machine)
    known = set(syscalls.numbers(machine).values())
    for number in set(range(600)) - known:
        assert answer(code, number, arch=AUDIT[machine]) == "ENOSYS"


def test_other_architectures_are_killed(place: tuple[int, str]) -> None:
    """Whatever the number: the same numbers mean other calls there."""
    code = program(*place)
    for arch in (I386, AUDIT["x86_64"], AUDIT["aarch64"], 0):
        if arch != AUDIT[place[1]]:
            assert {answer(code, number, arch=arch) for number in range(500)} == {KILL}


@given(st.integers(0x40000000, 0xFFFFFFFF))
def test_x32_is_killed(number: int) -> None:
    """Its calls have a bit of their own on x86_64."""
    assert answer(program(1, "x86_64"), number) == KILL


@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_of_socket_families_there_is_one(high: int, family: int) -> None:
    """Whatever stands in the upper half of the argument, which the system does not look at."""
    for tier in (1, 2):
        expected = ALLOW if family == 1 else "EACCES"
        assert ask(tier, "x86_64", "socket", high << 32 | family, 1) == expected
        assert ask(tier, "aarch64", "socketpair", high << 32 | family, 1) == expected


ARGUMENTS = [
    ("socket", (1, 2), ALLOW, "EACCES"),  # a datagram goes where no connection was allowed
    ("socket", (1, 1 | 0o2000000 | 0o4000), ALLOW, ALLOW),
    ("socketpair", (1, 2), ALLOW, "EACCES"),
    ("clone", (0x11,), ALLOW, ALLOW),
    ("clone", (0x3D0F00,), ALLOW, ALLOW),
    *(("clone", (0x11 | new,), "EPERM", "EPERM") for new in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000)),
    *(("clone", (0x11 | new,), "EPERM", "EPERM") for new in (0x20000000, 0x40000000)),
    ("clone3", (), "ENOSYS", "ENOSYS"),
    ("ioctl", (0, 0x5401), ALLOW, ALLOW),
    ("ioctl", (0, 0x5412), "EPERM", "EPERM"),  # TIOCSTI
    ("ioctl", (0, 0x7FFF_0000_5412), "EPERM", "EPERM"),
    ("ioctl", (0, 0x541C), "EPERM", "EPERM"),  # TIOCLINUX
    ("fcntl", (0, 4), ALLOW, ALLOW),
    ("fcntl", (0, 8), "EPERM", "EPERM"),
    ("fcntl", (0, 10), "EPERM", "EPERM"),
    ("fcntl", (0, 15), "EPERM", "EPERM"),
    ("prctl", (1, 9), ALLOW, ALLOW),
    ("prctl", (1, 0), "EPERM", "EPERM"),  # outliving the parent
    ("prctl", (15, 0), ALLOW, ALLOW),
    ("prctl", (4, 1), "EPERM", "EPERM"),
    ("prctl", (22, 2), "EPERM", "EPERM"),
    ("prlimit64", (0,), ALLOW, ALLOW),
    ("prlimit64", (1,), "EPERM", "EPERM"),
    ("clone", (0x3D0F00 & ~0x400,), "EPERM", "EPERM"),  # a thread with descriptors of its own
    ("clone", (0x11 | 0x400,), ALLOW, ALLOW),
    ("mmap", (0, 4096, 3, 0x22), ALLOW, ALLOW),
    ("mmap", (0, 4096, 3, 0x01), ALLOW, ALLOW),
    ("mmap", (0, 4096, 3, 0x21), "EPERM", "EPERM"),
    ("mmap", (0, 4096, 3, 0x23), "EPERM", "EPERM"),
    ("mmap", (0, 4096, 3, 1 << 40 | 0x21), "EPERM", "EPERM"),
    ("mmap", (0, 4096, 3, 0x40022), "ENOMEM", "ENOMEM"),
    ("fallocate", (3, 0), ALLOW, ALLOW),
    *(("fallocate", (3, mode), "ENOTSUP", "ENOTSUP") for mode in (1, 2, 3, 8, 0x10, 0x11, 0x20, 0x40, 1 << 31)),
    ("setsockopt", (3, 1, 2), ALLOW, ALLOW),
    ("setsockopt", (3, 0, 7), ALLOW, ALLOW),
    *(("setsockopt", (3, 1, size), "0", "0") for size in (7, 8, 32, 33, 1 << 32 | 7)),
    *(("setsockopt", (3, 1, code), "EPERM", "EPERM") for code in (26, 50, 51, 52)),
    *(("fcntl", (0, command), "EPERM", "EPERM") for command in (1024, 1026, 1031)),
    *(("fcntl", (0, command), ALLOW, ALLOW) for command in (5, 6, 7, 36, 37, 1030, 1032, 1033)),
    ("mknodat", (0, 0, 0o010600), ALLOW, "EPERM"),
    ("mknodat", (0, 0, 0o020600), "EPERM", "EPERM"),
    ("mknodat", (0, 0, 0o060600), "EPERM", "EPERM"),
    ("sched_setscheduler", (), "0", "0"),
    ("sched_setattr", (), "EPERM", "EPERM"),
    ("kill", (1, 9), ALLOW, ALLOW),
    ("connect", (), ALLOW, "EPERM"),
    ("fchmodat", (), ALLOW, "0"),
    ("setpriority", (0, 0, 5), ALLOW, ALLOW),
    ("setpriority", (0, 7, 5), ALLOW, "EPERM"),
    ("sched_setaffinity", (0,), ALLOW, ALLOW),
    ("sched_setaffinity", (7,), ALLOW, "EPERM"),
    ("setsid", (), ALLOW, "EPERM"),
]


@pytest.mark.parametrize(("name", "arguments", "in_tier_1", "in_tier_2"), ARGUMENTS)
def test_what_the_arguments_decide(name: str, arguments: tuple[int, ...], in_tier_1: str, in_tier_2: str) -> None:
    """The same on both architectures."""
    for machine in MACHINES:
        assert ask(1, machine, name, *arguments) == in_tier_1
        assert ask(2, machine, name, *arguments) == in_tier_2


def special() -> Iterator[str]:
    yield from syscalls.names_of(syscalls.SPECIAL)


def test_every_rule_about_arguments_is_tried() -> None:
    """A new one needs its lines above."""
    assert set(special()) - {"sched_setparam", "mknod"} <= {name for name, *_ in ARGUMENTS}


def test_an_unknown_machine_has_no_filter() -> None:
    """And so no kernel."""
    with pytest.raises(syscalls.UnsupportedMachine, match="no system call filter for riscv64"):
        syscalls.program(1, "riscv64")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks the system for its own numbers")
def test_the_numbers_are_those_of_this_system() -> None:
    """A few that every Python can call both ways."""
    import ctypes
    import os

    libc = ctypes.CDLL(None)
    numbers = syscalls.numbers("x86_64")
    assert libc.syscall(numbers["getpid"]) == os.getpid()
    assert libc.syscall(numbers["getuid"]) == os.getuid()
    assert libc.syscall(numbers["getppid"]) == os.getppid()
