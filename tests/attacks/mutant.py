"""A kernel that forgets rules of its confinement. Run in place of kernelrepl.guest.start, as an ordinary user only."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from kernelrepl.guest import lifeline, start
from kernelrepl.guest.isolation import attendants, confine, landlock
from kernelrepl.guest.isolation import seccomp as syscalls
from kernelrepl.guest.system import libc
from tests.attacks.configurations import MUTATION

Plan = dict[str, Any]
_ALLOW = syscalls._ret(syscalls._ALLOW)
_AS_COLUMNS = {"x86_64": 1, "aarch64": 2}


def _patch_program(change: Callable[[bytes], bytes]) -> None:
    made = syscalls.program

    def changed(tier: int, machine: str | None = None) -> bytes:
        return change(made(tier, machine))

    syscalls.program = changed  # type: ignore[assignment]


def forget_rule(name: str) -> None:
    """Allow a system call whatever its arguments are."""
    special = syscalls._special
    family = {"mknod": ("mknod", "mknodat"), "chmod": ("chmod", "fchmod", "fchmodat", "fchmodat2"),
              "getxattr": ("getxattr", "lgetxattr")}.get(name, (name,))  # fmt: skip

    def changed(tier: int) -> dict[str, bytes]:
        rules = special(tier)
        assert any(one in rules for one in family), name
        return {key: _ALLOW if key in family else body for key, body in rules.items()}

    syscalls._special = changed


def allow(name: str) -> None:
    """Allow what is refused on purpose."""
    family = {
        "link": ("link", "linkat"),
        "mknod": ("mknod", "mknodat"),
        "chown": ("chown", "fchown", "fchownat", "lchown"),
    }
    names = family.get(name, (name,))
    for table in ("DENIED", "DENIED_IN_TIER_2"):
        words = getattr(syscalls, table).split()
        moved = [word for word in words if word.split(":")[0] in names]
        setattr(syscalls, table, " ".join(word for word in words if word not in moved))
        if table == "DENIED":
            syscalls.ALLOWED += " " + " ".join(moved)


def any_architecture() -> None:
    """Do not look at the architecture."""
    _patch_program(lambda code: code[24:])


def any_table() -> None:
    """Do not look for numbers of the x32 table."""
    bound = syscalls._op(syscalls._JGE, syscalls._X32_BIT, 0, 1) + syscalls._ret(syscalls._KILL)
    _patch_program(lambda code: code.replace(bound, b""))


def allow_unknown() -> None:
    """Allow what is in no table."""
    _patch_program(lambda code: code[:-8] + _ALLOW)


def _patch_mounts(lost: int) -> None:
    show = confine._show
    confine._show = lambda source, target, flags: show(source, target, flags & ~lost)


def _patch_tmpfs(lost: int) -> None:
    mount = confine._mount

    def changed(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
        mount(source, target, kind, flags & ~lost if kind == "tmpfs" else flags, options)

    confine._mount = changed


def _patch_attributes(path: str) -> None:
    protect = confine._set_attributes

    def changed(where: str, flags: int, reach: int = confine._AT_RECURSIVE) -> None:
        if where != path:
            protect(where, flags, reach)

    confine._set_attributes = changed  # type: ignore[assignment]


def _patch_prctl(lost: int) -> None:
    """Make one option of prctl do nothing."""

    class Libc:
        def __getattr__(self, name: str) -> Any:
            return getattr(ctypes.CDLL(None, use_errno=True), name)

        def prctl(self, option: int, *arguments: Any) -> int:
            return 0 if option == lost else int(ctypes.CDLL(None, use_errno=True).prctl(option, *arguments))

    confine._libc = Libc  # type: ignore[assignment, attr-defined]


def _keep_rights() -> None:
    def changed(plan: Plan, seam: Callable[[str], None]) -> None:
        libc().prctl(38, ctypes.c_ulong(1), 0, 0, 0)

    confine._drop_rights = changed


def _open_attendant() -> None:
    attendants._PR_SET_DUMPABLE = 23  # asks for a right that it has not, instead


def _without_scopes() -> None:
    handled = landlock._handled
    landlock._handled = lambda abi: (*handled(abi)[:2], 0)


def _everything_readable() -> None:
    rules = confine._rules
    confine._rules = lambda plan: [*rules(plan), ("/", landlock.READ)]


def _all_of_proc() -> None:
    rules = confine._rules
    confine._rules = lambda plan: [*rules(plan), ("/proc", landlock.READ)]


def _host_proc() -> None:
    """Show the host's processes, as without a namespace for them there is nothing else to show."""
    confine._proc = lambda: confine._show("/proc", "/proc", 0)


def _plan(change: Callable[[Plan], Any]) -> None:
    enter = confine.enter

    def changed(plan: Plan, *more: Any) -> None:
        change(plan)
        enter(plan, *more)

    confine.enter = changed  # type: ignore[assignment]


def _no_pid_namespace(plan: Plan) -> None:
    plan["namespaces"].remove("pid")


FORGOTTEN: dict[str, Callable[[], None]] = {
    "architecture": any_architecture,
    "x32": any_table,
    "unknown": allow_unknown,
    "filter": lambda: _plan(lambda plan: plan.update(filter=False)),
    "landlock": lambda: _plan(lambda plan: plan.update(landlock=None)),
    "mounts:read-only": lambda: _patch_mounts(confine._ATTR_RDONLY),
    "mounts:noexec": lambda: _patch_mounts(confine._ATTR_NOEXEC),
    "mounts:nosuid": lambda: _patch_mounts(confine._ATTR_NOSUID),
    "tmpfs:noexec": lambda: _patch_tmpfs(confine._MS_NOEXEC),
    "tmpfs:size": lambda: _plan(lambda plan: plan.update(tmpfs=dict.fromkeys(plan["tmpfs"], "mode=1777"))),
    "tree:read-only": lambda: _patch_attributes("/"),
    "proc-sys": lambda: _patch_attributes(confine._NEWROOT + "/proc/sys"),
    "hidden": lambda: setattr(confine, "_HIDDEN", ()),
    "environment": lambda: _plan(lambda plan: plan.update(environment=dict(os.environ))),
    "death": lambda: setattr(lifeline, "die_with_parent", lambda: None),
    "no-new-privs": lambda: _patch_prctl(38),
    "capabilities": _keep_rights,
    "attendant": _open_attendant,
    "pid": lambda: _plan(_no_pid_namespace),
    "proc-mount": _host_proc,
    "proc": _all_of_proc,
    "scopes": _without_scopes,
    "files": _everything_readable,
}


def forget(mutation: str) -> None:
    """Forget the rules that are named, joined by +. Raises OSError for what is not known."""
    for name in mutation.split("+"):
        kind, _, what = name.partition(":")
        if name in FORGOTTEN:
            FORGOTTEN[name]()
        elif kind == "rule":
            forget_rule(what)
        elif kind == "deny":
            allow(what)
        elif kind == "limit":
            _plan(lambda plan, what=what: plan["limits"].pop(what))  # type: ignore[misc]
        else:
            raise OSError(errno.EINVAL, f"no such mutation: {name}")


if __name__ == "__main__":
    assert os.geteuid() != 0, "nothing of this is ever tried as root"
    forget(os.environ[MUTATION])
    start.main(sys.argv[1:])
