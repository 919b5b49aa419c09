"""One rule less, and the attempt that then comes to something else: proof that the rule is needed, or is not alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kernelrepl.guest.isolation import seccomp as syscalls
from tests.attacks.attempt import NO_KERNEL, Attempt, Outcome

Red = Literal["leaks", "differs", "no kernel", "still refused"]
"""What becomes of the attempt: it gets through; it is refused in other words; nothing starts; nothing changes."""


@dataclass(frozen=True)
class Mutation:
    """`name` is what `mutant` understands: rules that are forgotten together, joined by +."""

    name: str
    attempt: str
    red: Red
    tier: int = 1
    note: str = ""
    """Why it takes more than one, or what else holds."""


SWEEP = "whatever is refused on purpose"
WITH_LANDLOCK = "Landlock refuses it as well"
WITHOUT_RIGHTS = "the system refuses it without rights as well"

RULES = (
    Mutation("rule:socket", "netlink", "leaks"),
    Mutation("rule:socketpair", "a pair of another family", "differs", note="the system makes no such pairs"),
    Mutation("rule:clone", "clone into new namespaces", "leaks"),
    Mutation("rule:clone3", "clone3", "leaks"),
    Mutation("rule:ioctl", "signals by a ready descriptor", "leaks"),
    Mutation("rule:fcntl", "who is told by a signal", "leaks"),
    Mutation("rule:prctl", "hide from the keeper", "leaks"),
    Mutation("rule:prlimit64", "limits of a process", "leaks", 2),
    Mutation("deny:memfd_create", "a file in memory to be run", "leaks"),
    Mutation("rule:mmap", "shared pages that nobody maps", "leaks"),
    Mutation("rule:fallocate", "room beyond the end of a file", "leaks"),
    Mutation("rule:setsockopt", "large buffers of sockets", "leaks"),
    Mutation("rule:clone", "descriptors of one thread alone", "leaks"),
    Mutation("rule:fcntl", "notes about a directory", "leaks"),
    Mutation("rule:fcntl", "a lease on a file", "leaks"),
    Mutation("rule:fcntl", "larger pipes", "leaks"),
    Mutation("limit:sigpending", "timers of the user", "leaks"),
    Mutation("rule:mknod", "make a device", "differs", note=WITH_LANDLOCK),
    Mutation("rule:sched_setscheduler", "a scheduling class of real time", "differs", note=WITHOUT_RIGHTS),
    Mutation("rule:sched_setattr", "scheduling of a process", "leaks", 2),
    Mutation("rule:setpriority", "priority of a process", "leaks", 2),
    Mutation("rule:sched_setaffinity", "processors of a process", "leaks", 2),
    Mutation("rule:chmod", "change the mode of a file", "leaks", 2),
    Mutation("rule:utimensat", "change the times of a file", "leaks", 2),
    Mutation("rule:getxattr", "read extended attributes", "leaks", 2),
    Mutation("rule:socket", "a datagram to a unix socket", "leaks", 2),
    Mutation("rule:socketpair", "a datagram from a pair", "leaks", 2),
    Mutation("architecture", "the 32-bit gate", "leaks"),
    Mutation("x32", "the x32 table", "differs", note="this system has no such table"),
    Mutation("unknown", "whatever nobody knows", "leaks"),
    Mutation("filter", "whatever is refused on purpose", "leaks"),
)

TIER_2 = (
    Mutation("deny:connect", "a unix socket by path", "leaks", 2),
    Mutation("deny:bind", "a listening socket outside", "differs", 2, note=WITH_LANDLOCK),
    Mutation("deny:chown", "change the owner of a file", "leaks", 2),
    Mutation("deny:link", "link a file in", "differs", 2, note=WITH_LANDLOCK),
    Mutation("deny:inotify_init1", "instances of inotify", "leaks", 2),
    Mutation("deny:pidfd_open", "a handle of a process", "leaks", 2),
    Mutation("deny:setpgid", "join a group of others", "still refused", 2, note="another session's groups are closed"),
    Mutation("deny:mknod", "make a pipe", "differs", 2, note=WITH_LANDLOCK),
    Mutation("proc", "the command lines of others", "leaks", 2),
    Mutation("scopes", "a signal", "leaks", 2),
    Mutation("files", "read a file", "leaks", 2),
)

PLAN = (
    Mutation("mounts:read-only", "add a path file to the packages", "differs", note=WITH_LANDLOCK),
    Mutation("mounts:noexec+landlock", "a program in the workspace", "leaks", note=WITH_LANDLOCK),
    Mutation("mounts:nosuid", "a program that becomes its owner", "leaks"),
    Mutation("tmpfs:noexec+landlock", "a program in /tmp", "leaks", note=WITH_LANDLOCK),
    Mutation("tmpfs:size", "fill /tmp", "leaks"),
    Mutation("tmpfs:size", "many small files in /tmp", "leaks"),
    Mutation("tree:read-only+landlock", "write beside the tree", "leaks", note=WITH_LANDLOCK),
    Mutation("hidden", "addresses of the system", "leaks"),
    Mutation("proc-sys", "settings of the system", "differs", note=WITHOUT_RIGHTS),
    Mutation("environment", "the environment of its code", "leaks"),
    Mutation("death", "a daemon that outlives its waiter", "leaks"),
    Mutation("no-new-privs", "rights of its own", "no kernel", note="the system takes no filter without it"),
    Mutation("capabilities", "rights of its own", "leaks"),
    Mutation("limit:core", "raise limits", "leaks"),
    Mutation("limit:nofile", "use up descriptors", "leaks"),
    Mutation("limit:data", "a bomb of memory", "leaks"),
    Mutation("limit:nproc", "a bomb of processes", "leaks"),
    Mutation("limit:fsize", "one big file", "leaks"),
    Mutation("attendant", "descriptors of the first of its processes", "leaks"),
    Mutation("pid+proc-mount", "a signal", "differs", note=WITH_LANDLOCK),
    Mutation("pid+proc-mount+landlock", "a signal", "leaks"),
    Mutation("landlock", "its own memory as a file", "leaks"),
)

_STILL = {
    "acct", "fanotify_init", "fsmount", "fsopen", "fspick", "move_mount", "pivot_root", "reboot", "setdomainname",
    "setgroups", "sethostname", "swapoff", "syslog", "vhangup",
}  # fmt: skip
"""Without rights the system refuses them whatever their arguments are."""


def denied() -> tuple[Mutation, ...]:
    """Each system call that is refused on purpose, allowed alone."""
    names = [name for name in syscalls.names_of(syscalls.DENIED) if name in syscalls.numbers("x86_64")]
    return tuple(
        Mutation(f"deny:{name}", SWEEP, "still refused", note=WITHOUT_RIGHTS)
        if name in _STILL
        else Mutation(f"deny:{name}", SWEEP, "leaks")
        for name in names
    )


def verdict(mutation: Mutation, outcome: Outcome, attempt: Attempt) -> Red:
    """What became of the attempt."""
    if outcome.said.startswith(NO_KERNEL):
        return "no kernel"
    if outcome.leaked:
        return "leaks"
    return "differs" if outcome.wrong(attempt, mutation.tier) else "still refused"


MUTATIONS = (*RULES, *TIER_2, *PLAN)
