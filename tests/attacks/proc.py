"""Attempts by way of /proc and /sys."""

from __future__ import annotations

from tests.attacks.attempt import Attempt

PROC = (
    Attempt("the keeper's environment", "each(*(attempt(read, f'/proc/{p}/environ', 9999) for p in (host.keeper,"
            " os.getppid())))", "EACCES ENOENT", "EACCES"),
    Attempt("the keeper's memory", "each(*(attempt(read, f'/proc/{p}/mem') for p in (host.keeper, os.getppid())))",
            "EACCES ENOENT", "EACCES"),
    Attempt("the keeper's maps", "each(*(attempt(read, f'/proc/{p}/maps') for p in (host.keeper, os.getppid())))",
            "EACCES ENOENT", "EACCES"),
    Attempt("the keeper's descriptors", "each(*(attempt(os.listdir, f'/proc/{p}/fd') for p in (host.keeper,"
            " os.getppid())))", "EACCES ENOENT", "EACCES"),
    Attempt("the keeper's executable", "each(*(attempt(read, f'/proc/{p}/exe') for p in (host.keeper,"
            " os.getppid())))", "EACCES ENOENT", "EACCES"),
    Attempt("the keeper's command line", "attempt(read, f'/proc/{host.keeper}/cmdline')", "ENOENT", "EACCES"),
    Attempt("the namespaces of others", "each(*(attempt(os.readlink, f'/proc/{p}/ns/mnt') for p in (host.keeper,"
            " os.getppid())))", "EACCES ENOENT", "EACCES"),
    Attempt("the command lines of others", """
def found():
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                if host.token.encode() in read(f"/proc/{p}/cmdline", 9999):
                    return "done"
            except OSError as error:
                if p == str(host.victim):
                    return "EACCES"
    return "not there"
try:
    said = found()
except OSError as error:
    said = "EACCES"
said""", "not there", "EACCES", control=True),
    Attempt("list all processes", """
said = attempt(os.listdir, "/proc")
if said == "done":
    seen = {int(p) for p in os.listdir("/proc") if p.isdigit()}
    said = "only its own" if seen == {1, os.getpid()} else "done"
said""", "only its own", "EACCES", control=True),
    Attempt("its own memory as a file", "attempt(write, '/proc/self/mem', 'r+b', b'')", "EACCES"),
    Attempt("escape being killed for memory", "each(attempt(write, '/proc/self/oom_score_adj', 'wb', b'-1000'),"
            " attempt(write, '/proc/self/oom_adj', 'wb', b'-17'))", "EACCES"),
    Attempt("settings of the system", "each(*(attempt(write, '/proc/sys/' + name, 'wb', b'1') for name in"
            " ('kernel/core_pattern', 'kernel/hostname', 'net/ipv4/ip_forward', 'vm/drop_caches',"
            " 'user/max_user_namespaces'"
            ", 'fs/binfmt_misc/register', 'kernel/ns_last_pid', 'kernel/modprobe')))",
            "EROFS|ENOENT EROFS", "EACCES ENOENT|EACCES"),
    Attempt("the system's emergency keys", "attempt(write, '/proc/sysrq-trigger', 'wb', b'?')", "EACCES|ENOENT"),
    Attempt("memory of the system", "attempt(read, '/proc/kcore')", "EACCES|ENOENT"),
    Attempt("addresses of the system", "each(attempt(read, '/proc/kallsyms'), attempt(read, '/proc/modules'))",
            "EACCES|EACCES ENOENT", control=True),
    Attempt("messages of the system", "attempt(read, '/proc/kmsg')", "EACCES"),
    Attempt("keys of others", "each(attempt(read, '/proc/keys'), attempt(read, '/proc/key-users'))", "EACCES"),
    Attempt("the machine's own story", "each(*(attempt(read, '/proc/' + name) for name in ('cmdline', 'iomem',"
            " 'interrupts', 'timer_list', 'locks', 'slabinfo', 'zoneinfo', 'swaps') if os.path.exists('/proc/' +"
            " name)))",
            "EACCES", control=True),
    Attempt("directories of drivers", "each(*(attempt(os.listdir, '/proc/' + name) for name in ('bus', 'fs', 'irq',"
            " 'driver', 'tty') if os.path.exists('/proc/' + name)))", "EACCES", control=True),
    Attempt("map users anew", "each(*(attempt(write, '/proc/self/' + name, 'wb', b'0 0 1') for name in"
            " ('uid_map', 'gid_map', 'setgroups')))", "EACCES"),
    Attempt("labels and filters of its own", "each(*(attempt(write, '/proc/self/' + name, 'wb', b'0') for name in"
            " ('attr/current', 'attr/exec', 'coredump_filter', 'clear_refs', 'timerslack_ns', 'loginuid')"
            " if os.path.exists('/proc/self/' + name)))", "EACCES"),
    Attempt("sockets of the host", """
said = each(attempt(read, "/proc/net/unix"), attempt(read, "/proc/net/tcp"), attempt(read, "/proc/self/net/unix"))
if said == "done":
    seen = read("/proc/net/unix", 1 << 20) + read("/proc/net/tcp", 1 << 20)
    said = "done" if host.token.encode() in seen or f":{host.tcp4:04X}".encode() in seen else "only its own"
said""", "only its own", "EACCES", control=True),
    Attempt("/sys", "each(attempt(os.listdir, '/sys'), attempt(read, '/sys/kernel/uevent_seqnum'),"
            " attempt(os.listdir, '/sys/class/net'))", "ENOENT", "EACCES"),
    Attempt("file systems of the system", "each(*(attempt(os.listdir, '/sys/' + name) for name in ('kernel/debug',"
            " 'kernel/tracing', 'kernel/security', 'fs/bpf')))", "ENOENT", "EACCES|EACCES ENOENT"),
)  # fmt: skip
GROUPS = {"proc and sys": PROC}
