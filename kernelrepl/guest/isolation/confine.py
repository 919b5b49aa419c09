"""Confine this process, before any code of a session runs in it. Runs in the kernel.

The keeper decides what a session may reach and sends it as a plan, pure data; here it is carried out. Every
step either succeeds or raises `Refused`: nothing goes on half confined.

    tier 1  namespaces of its own (user, mount, pid, network, ipc, uts, cgroup), a tree that holds only what
            the plan names, Landlock where there is one, a filter of system calls, no rights, limits
    tier 2  Landlock on the host's own tree, the stricter filter, no rights, limits
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from typing import Any

from kernelrepl.guest import lifeline
from kernelrepl.guest.isolation import attendants, landlock
from kernelrepl.guest.isolation import seccomp as syscalls
from kernelrepl.guest.system import libc as _libc

_NEW = {
    "mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000,
    "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18
_MNT_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2 = 428, 429, 437
_HERE, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_EMPTY_PATH = 1, 4
_O_PATH, _RESOLVE_NO_SYMLINKS = 0o10000000, 4
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 24, 38, 47
_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63

_NEWROOT, _OLD = "/new", "/old"
_DEVICES = ("null", "full", "random", "urandom")
"""Without `zero`: who maps it gets memory that belongs to no process."""
_LINKS = {
    "/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2", "/etc/mtab": "/proc/self/mounts",
}  # fmt: skip
_HIDDEN = (
    "acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "tty", "cmdline", "config.gz", "consoles", "crypto",
    "interrupts", "iomem", "ioports", "kallsyms", "kcore", "keys", "key-users", "kmsg", "kpagecgroup", "kpagecount",
    "kpageflags", "latency_stats", "locks", "modules", "mtrr", "pagetypeinfo", "sched_debug", "schedstat",
    "slabinfo", "softirqs", "swaps", "sysrq-trigger", "timer_list", "vmallocinfo", "zoneinfo",
)  # fmt: skip
"""What /proc tells of the machine rather than of the session's own processes."""
_PROC_IN_TIER_2 = (
    "cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "sys", "uptime", "version", "vmstat",
    *(f"self/{name}" for name in (
        "cgroup", "cmdline", "comm", "environ", "fd", "io", "limits", "maps", "mountinfo", "mounts", "smaps",
        "smaps_rollup", "stat", "statm", "status",
    )),
)  # fmt: skip
"""What may be read of the host's own /proc: the machine's size, and of processes the kernel's own, but not its network,
which is the host's. The command lines of other processes are as good as files of theirs."""


class Refused(Exception):
    """A step failed, and with it the confinement. `step` and `number` (errno) say which and why."""

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(f"{step}: {error.strerror or error}")
        self.step = step
        self.number = error.errno or 0


@contextlib.contextmanager
def _step(name: str, seam: Callable[[str], None]) -> Iterator[None]:
    try:
        seam(name)
        yield
    except OSError as error:
        raise Refused(name, error) from error


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _unshare(names: list[str]) -> None:
    _check(_libc().unshare(sum(_NEW[name] for name in names)), f"namespaces {', '.join(names)}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(_libc().mount(*arguments), f"mount {target}")


def _system_call(number: int, what: str, *arguments: Any) -> int:
    passed = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
    return _check(_libc().syscall(ctypes.c_long(number), *passed), what)


def _set_attributes(path: str, flags: int, reach: int = _AT_RECURSIVE) -> None:
    """Add flags to a mount and, unless told otherwise, to all below it; those that it has stay."""
    attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)
    _system_call(_MOUNT_SETATTR, f"protect {path}", _HERE, path.encode(), reach, attributes, 32)


def _pivot(new: str, old: str) -> None:
    _system_call(_PIVOT_ROOT[os.uname().machine], "pivot_root", new.encode(), old.encode())


def threads() -> int:
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def prepare() -> None:
    """Make ahead what is the same for every plan: a process that forks does it once, and the first process of a
    namespace and its kernel need it both."""
    with contextlib.suppress(syscalls.UnsupportedMachine):  # whoever is to be confined is told
        for tier in (1, 2):
            syscalls.program(tier)


def enter(plan: dict[str, Any], forked: Callable[[int], None], seam: Callable[[str], None] = lambda step: None) -> None:
    """Confine this process by a plan, or raise Refused.

    In tier 1 the caller goes on in a grandchild; what the processes in between are for, `attendants` tells.
    `forked` is called in the first of them with the pid of the second, which holds the namespace.
    seam: called before each step with its name; what it raises (OSError) is the step's failure.
    """
    with _step("single thread", seam):
        if threads() != 1:
            raise OSError(errno.EBUSY, "another thread runs already and would not be confined")
    tell = None
    if plan["tier"] == 1:
        tell = _enter_namespaces(plan, forked, seam)
    else:
        lifeline.stand_back()
        with _step("uid", seam):
            _become(plan["uid"])
    with _step("limits", seam):
        for name, value in plan["limits"].items():
            _limit(getattr(resource, f"RLIMIT_{name.upper()}"), value + (_data_bytes() if name == "data" else 0))
    if "user" in plan["namespaces"] and plan["uid"] is not None:
        with _step("user namespace", seam):
            _unshare(["user"])
            _libc().prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
            _map_identity(plan["identity"], plan["uid"], plan["uid"])
    _drop_rights(plan, seam)
    lifeline.die_with_parent()
    # Others may look at how much memory it takes, and its own /proc entries belong to it.
    _libc().prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    os.environ.clear()
    os.environ.update(plan["environment"])
    with _step("Landlock", seam):
        _restrict(plan)

    def protect() -> None:
        if plan["filter"]:
            with _step("system call filter", seam):
                syscalls.install(syscalls.program(plan["tier"]))

    if tell is None:
        protect()
    else:
        with _step("kernel process", seam):
            attendants.fork_kernel(tell, protect)
    with _step("workspace", seam):  # last: nobody looks around there who is not confined
        os.chdir(plan["workspace"])


def _enter_namespaces(plan: dict[str, Any], forked: Callable[[int], None], seam: Callable[[str], None]) -> int:
    """Go on in a child, in namespaces of its own; returns where the kernel's end is to be told."""
    wanted = set(plan["namespaces"])
    outer = [name for name in ("user", "pid") if name in wanted and not (name == "user" and plan["uid"] is not None)]
    with _step("user and pid namespaces", seam):
        uid, gid = os.getuid(), os.getgid()
        _unshare(outer)
        if "user" in outer:
            _map_identity(plan["identity"], uid, gid)
    lifeline.die_with_parent()
    ready, go = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(ready)
        forked(child)
        os.close(go)
        os.close(tell)
        attendants.wait_outside(child, told)
    os.close(go)
    os.close(told)
    os.read(ready, 1)  # until the keeper knows of this process
    os.close(ready)
    os.setsid()  # what a session sends to its own process group stays in the namespace
    lifeline.die_with_parent()
    lifeline.stand_back()
    with _step("namespaces", seam):
        inner = [name for name in ("mount", "net", "ipc", "uts", "cgroup") if name in wanted]
        _unshare(inner)
    with _step("tree", seam):
        _build(plan)
    if "uts" in wanted:
        with _step("host name", seam):
            name = b"kernelrepl"
            _check(_libc().sethostname(name, len(name)), "sethostname")
    with _step("uid", seam):
        _become(plan["uid"])
    return tell


def _map_identity(inside: int, uid: int, gid: int) -> None:
    """Of all users of the host this namespace knows one."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{inside} {uid} 1"), ("gid_map", f"{inside} {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def _become(uid: int | None) -> None:
    """Give up being root for a user that nothing belongs to."""
    if uid is None:
        return
    for capability in range(_LAST_CAPABILITY + 1):
        _libc().prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _libc().prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _data_bytes() -> int:
    """What this process has reserved already. A zygote's libraries reserve a gigabyte that nobody has used."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[5]) * resource.getpagesize()


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _drop_rights(plan: dict[str, Any], seam: Callable[[str], None]) -> None:
    with _step("capabilities", seam):
        _libc().prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(4), 0, 0, 0)
        for capability in range(_LAST_CAPABILITY + 1):
            _libc().prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
        _check(_libc().capset(header, (ctypes.c_uint32 * 6)()), "capset")
    with _step("no_new_privs", seam):
        _check(_libc().prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "no_new_privs")


# The tree of tier 1


def _build(plan: dict[str, Any]) -> None:
    """Change to a root that holds only what the plan names."""
    _mount("", "/", "", _MS_REC | _MS_PRIVATE)
    base = plan["base"]
    _mount("kernelrepl", base, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    os.mkdir(base + _OLD)  # noqa: PTH102
    _pivot(base, base + _OLD)
    os.chdir("/")
    os.mkdir(_NEWROOT)  # noqa: PTH102
    _mount("kernelrepl", _NEWROOT, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=4m")
    for path, options in plan["tmpfs"].items():
        _directory(path)
        _mount("kernelrepl", _NEWROOT + path, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    _devices()
    _proc()
    for source, target, mode in plan["mounts"]:
        _bind(source, target, mode)
    for path, text in plan["files"].items():
        _directory(os.path.dirname(path))  # noqa: PTH120
        with open(_NEWROOT + path, "w") as file:  # noqa: PTH123
            file.write(text)
    for path, goal in {**plan["links"], **_LINKS}.items():
        _directory(os.path.dirname(path))  # noqa: PTH120
        if not os.path.lexists(_NEWROOT + path):
            os.symlink(goal, _NEWROOT + path)  # noqa: PTH211
    os.chdir(_NEWROOT)
    _pivot(".", ".")
    _check(_libc().umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")
    _set_attributes("/", _ATTR_RDONLY, 0)  # the tree itself, not what is mounted in it


def _directory(path: str) -> None:
    os.makedirs(_NEWROOT + path, mode=0o755, exist_ok=True)  # noqa: PTH103


def _place(source: int, target: str) -> None:
    """Make what a mount can cover: a directory or an empty file, as its source is."""
    if stat.S_ISDIR(os.fstat(source).st_mode):
        _directory(target)
    else:
        _directory(os.path.dirname(target))  # noqa: PTH120
        with contextlib.suppress(FileExistsError):
            os.close(os.open(_NEWROOT + target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _bind(source: str, target: str, mode: str) -> None:
    """Show a part of the host's tree. mode: r reads, x also executes, w also writes (and never executes)."""
    flags = _ATTR_NOSUID | _ATTR_NODEV
    if "w" not in mode:
        flags |= _ATTR_RDONLY
    if "x" not in mode:
        flags |= _ATTR_NOEXEC
    _show(source, target, flags)


def _show(source: str, target: str, flags: int) -> None:
    """Mount a part of the old tree, protected before it can be seen.

    The source is resolved already. Should a link have taken its place since, by another session that may write
    there, then this fails: nothing is followed.
    """
    how = (ctypes.c_uint64 * 3)(_O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS)
    opened = _system_call(_OPENAT2, _OLD + source, _HERE, (_OLD + source).encode(), how, 24)
    try:
        _place(opened, target)
        flag = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
        tree = _system_call(_OPEN_TREE, source, opened, b"", flag)
        try:
            attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)
            _system_call(_MOUNT_SETATTR, source, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes, 32)
            goal = (_NEWROOT + target).encode()
            _system_call(_MOVE_MOUNT, target, tree, b"", _HERE, goal, _MOVE_EMPTY_PATH)
        finally:
            os.close(tree)
    finally:
        os.close(opened)


def _devices() -> None:
    for name in _DEVICES:
        _show(f"/dev/{name}", f"/dev/{name}", _ATTR_NOSUID | _ATTR_NOEXEC)


def _proc() -> None:
    """A view of its own processes only, the machine's secrets covered, nothing to be written outside of them."""
    _directory("/proc")
    _mount("proc", _NEWROOT + "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    os.mkdir(_NEWROOT + "/.hidden", 0o000)  # noqa: PTH102
    os.close(os.open(_NEWROOT + "/.nothing", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o000))
    _mount(_NEWROOT + "/proc/sys", _NEWROOT + "/proc/sys", "", _MS_BIND | _MS_REC)
    _set_attributes(_NEWROOT + "/proc/sys", _ATTR_RDONLY)
    for name in _HIDDEN:
        path = f"{_NEWROOT}/proc/{name}"
        if os.path.lexists(path):
            cover = "/.hidden" if os.path.isdir(path) else "/.nothing"  # noqa: PTH112
            _mount(_NEWROOT + cover, path, "", _MS_BIND)


def _restrict(plan: dict[str, Any]) -> None:
    """Landlock, where the host has it; in tier 1 all else holds without it, in tier 2 nothing does."""
    needed = plan["landlock"]
    if needed is None:
        return
    found = landlock.version()
    if found < needed:
        have = f"version {found}" if found else "none"
        raise OSError(errno.ENOSYS, f"version {needed} is needed, and there is {have}; Linux 6.12 or later has it")
    if not found:
        return
    if plan["tier"] != 1:
        for name in _PROC_IN_TIER_2:
            # The system forgets entries of /proc under pressure, and makes new ones to which no rule applies.
            with contextlib.suppress(OSError):
                os.open(f"/proc/{name}", _O_PATH | os.O_CLOEXEC)
    landlock.restrict(found, _rules(plan))


def _rules(plan: dict[str, Any]) -> list[tuple[str, int]]:
    """What Landlock grants: in tier 1 the tree once more, for whoever should get past the mounts."""
    rights = {"r": landlock.READ, "w": landlock.READ | landlock.WRITE, "x": landlock.READ}
    rules = [(path, landlock.EXECUTE | landlock.READ) for path in plan["execute"]]
    rules += [(target, rights[mode[-1]]) for _, target, mode in plan["mounts"]]
    rules += [(path, rights["w"]) for path in plan["tmpfs"]]
    proc = ["/proc"] if plan["tier"] == 1 else [f"/proc/{name}" for name in _PROC_IN_TIER_2]
    rules += [(path, landlock.READ) for path in (*plan["files"], *proc)]
    if plan["tier"] == 1:
        rules.append(("/", landlock.LIST))  # what is in this tree may be seen
    rules += [(f"/dev/{name}", landlock.READ | 1 << 1) for name in _DEVICES]
    return rules
