"""Attempts on namespaces, on the system itself, and on the ways around a filter of system calls."""

from __future__ import annotations

from kernelrepl.guest.isolation import seccomp as syscalls
from tests.attacks.attempt import ALL, Attempt

X86 = ("x86_64",)
MACHINE_CODE = """
import ctypes, mmap
def run(code):
    page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    result = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    if result < 0:
        raise OSError(-result & 0xFFFFFFFF, "")
"""
NEW = {
    "mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000,
    "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000, "time": 0x80,
}  # fmt: skip
CLONE = f"""
def clone(flags):
    child = call("clone", flags | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
each(*(attempt(clone, flags) for flags in {[flag for name, flag in NEW.items() if name != "time"]}))
"""
DENIED = f"""
names = sorted(set({syscalls.names_of(syscalls.DENIED)}) & set(NUMBERS))
found = {{}}
for name in names:
    said = in_child(lambda: call(NUMBERS[name], -1, -1, -1, -1, -1, -1))
    if said != "EPERM":
        found[name] = said
"EPERM" if names and not found else f"done: {{found}}"
"""
UNKNOWN = """
known = {*NUMBERS.values(), 335, 336}  # the last two are the system's own way back from a probe; no filter sees them
found = {}
for number in [n for n in (*range(600), 1000, 4096, 1 << 20, (1 << 30) - 1) if n not in known]:
    said = in_child(lambda: call(number, -1, -1, -1, -1, -1, -1))
    if said != "ENOSYS":
        found[number] = said
"ENOSYS" if not found else f"done: {found}"
"""


def _probe(name: str, *calls: str, machines: tuple[str, ...] = ALL) -> Attempt:
    """Calls whose arguments the system itself would answer with something else than the filter, where it can."""
    code = "each(" + ", ".join(f"attempt(call, {found})" for found in calls) + ")"
    return Attempt(name, code, "EPERM", machines=machines)


NAMESPACES = (
    *(Attempt(f"unshare the {name} namespace", f"in_child(lambda: call('unshare', {flag}))", "EPERM")
      for name, flag in NEW.items()),
    Attempt("clone into new namespaces", CLONE, "EPERM"),
    Attempt("clone3", "import struct\n"
            "each(attempt(call, 'clone3', struct.pack('11Q', 0x10000000, *[0] * 3, 17, *[0] * 6), 88),"
            " attempt(call, 'clone3', 0, 0))", "ENOSYS"),
    Attempt("enter a namespace", "each(*(attempt(lambda: call('setns', os.open(f'/proc/{p}/ns/{n}', 0), 0)) for n in"
            " ('mnt', 'user') for p in ('self', host.keeper)))", "ENOENT EPERM", "EACCES EPERM|EACCES"),
    Attempt("enter the namespaces of a process", "attempt(call, 'setns', 0, 0x10000000)", "EPERM"),
)  # fmt: skip

SYSTEM = (
    _probe("programs in the system", "'bpf', 0, b'\\1' + b'\\0' * 119, 120", "'bpf', 5, b'\\1' + b'\\0' * 119, 120"),
    _probe("performance counters", "'perf_event_open', b'\\1\\0\\0\\0\\x80' + b'\\0' * 123, 0, -1, -1, 0"),
    _probe("faults for user code", "'userfaultfd', 1"),
    _probe("keys", "'keyctl', 0, -4, 0", "'add_key', b'user', b'a', b'b', 1, -4", "'request_key', b'user', b'a', 0, 0"),
    _probe("load another system", "'kexec_load', 0, 0, 0, 0", "'kexec_file_load', -1, -1, 0, 0, 0"),
    _probe("modules", "'init_module', 0, 0, b''", "'finit_module', -1, b'', 0", "'delete_module', b'ka', 0"),
    _probe("the system's log", "'syslog', 3, b' ' * 64, 64", "'syslog', 10, 0, 0"),
    _probe("personality", "'personality', 0xFFFFFFFF", "'personality', 0x0040000"),
    _probe("quotas", "'quotactl', 0x80000100, b'/dev/ka', 0, 0", "'quotactl_fd', -1, 0, 0, 0"),
    _probe("secret memory", "'memfd_secret', 0"),
    _probe("shared memory of System V", "'shmget', 0x6B61, 4096, 0o1600", "'shmat', -1, 0, 0", "'shmctl', -1, 0, 0"),
    _probe("semaphores of System V", "'semget', 0x6B61, 1, 0o1600", "'semctl', -1, 0, 0, 0"),
    _probe("queues of System V", "'msgget', 0x6B61, 0o1600", "'msgctl', -1, 0, 0"),
    _probe("message queues", "'mq_open', b'ka', 0o102, 0o600, 0", "'mq_unlink', b'ka'"),
    _probe("restart the machine", "'reboot', 0, 0, 0, 0"),
    _probe("swap", "'swapon', b'/ka', 0", "'swapoff', b'/ka'"),
    _probe("ports of the machine", "'iopl', 0", "'ioperm', 0x80, 1, 0", machines=X86),
    _probe("descriptor tables", "'modify_ldt', 0, b' ' * 64, 64", "'modify_ldt', 1, b'\\0' * 16, 16", machines=X86),
    _probe("pages into a pipe", "'vmsplice', os.pipe()[1], 0, 0, 0"),
    _probe("set the clock", "'clock_settime', 0, b'\\0' * 16", "'settimeofday', b'\\0' * 16, 0",
           "'adjtimex', b'\\0' * 208", "'clock_adjtime', 0, b'\\0' * 208"),
    _probe("rename the machine", "'sethostname', b'ka', 2", "'setdomainname', b'ka', 2"),
    _probe("accounting", "'acct', b'ka'", "'vhangup'"),
    _probe("lock all memory", "'mlockall', 1"),
    _probe("filters and domains of its own", "'seccomp', 2, 0, 0", "'landlock_create_ruleset', 0, 0, 1",
           "'landlock_restrict_self', -1, 0"),
    _probe("asynchronous input and output", "'io_setup', 1, b'\\0' * 8"),
    Attempt("whatever is refused on purpose", DENIED, "EPERM"),
    Attempt("whatever nobody knows", UNKNOWN, "ENOSYS"),
)  # fmt: skip

ABI = (
    Attempt("the 32-bit gate", MACHINE_CODE + "in_child(run, bytes.fromhex('b814000000cd8048c7c000000000c3'))",
            "SIGSYS", machines=X86),
    Attempt("the x32 table", "in_child(lambda: call(0x40000000 | 39))", "SIGSYS", machines=X86),
    Attempt("the x32 table, its own numbers", "in_child(lambda: call(0x40000000 | 521, 0, 0, 0, 0))", "SIGSYS",
            machines=X86),
    Attempt("a number with bits above it", "each(attempt(call, 1 << 32 | NUMBERS['ptrace'], 16, host.victim, 0, 0),"
            " attempt(call, 1 << 63 | NUMBERS['unshare'], 0x10000000))", "EPERM|ENOSYS"),
    Attempt("a call from its own machine code", MACHINE_CODE +
            "run_ = lambda: run(b'\\xb8' + NUMBERS['ptrace'].to_bytes(4, 'little') + bytes.fromhex('0f05c3'))\n"
            "in_child(run_)", "EPERM", machines=X86),
    Attempt("a clone's flags with bits above them", "in_child(lambda: call('clone', 1 << 40 | 0x10000000 | 17, 0, 0,"
            " 0, 0)"
            " or os._exit(0))", "EPERM"),
    Attempt("a way back through another filter", "in_child(lambda: call('prctl', 22, 2, b'\\0' * 16, 0, 0))", "EPERM"),
    Attempt("undo that no rights are gained", "each(attempt(call, 'prctl', 38, 0, 0, 0, 0),"
            " attempt(call, 'prctl', 28, 0, 0, 0, 0), attempt(call, 'prctl', 8, 1, 0, 0, 0),"
            " attempt(call, 'prctl', 35, 1, 0, 0, 0), attempt(call, 'prctl', 59, 1, 0, 0, 0))", "EINVAL EPERM"),
)  # fmt: skip
GROUPS = {"namespaces": NAMESPACES, "system": SYSTEM, "ways around the filter": ABI}
