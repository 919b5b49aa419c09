"""Attempts on processes that are not the session's own."""

from __future__ import annotations

from tests.attacks.attempt import Attempt

BOTH = "for p in (host.victim, host.keeper)"
VECTORS = """
import ctypes
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(64)
here = Vector(ctypes.addressof(buffer), 64)
"""
PROCESSES = (
    Attempt("a signal", f"each(*(attempt(os.kill, p, n) {BOTH} for n in (0, 15, 9)))", "ESRCH", "EPERM"),
    Attempt("a signal to everybody", "said = attempt(os.kill, -1, 28)\n'nobody hears it' if said == 'done' else said",
            "ESRCH", "nobody hears it"),
    Attempt("a signal to a group", f"each(*(attempt(os.killpg, p, 9) {BOTH}))", "ESRCH", "EPERM|EPERM ESRCH"),
    Attempt("a signal to a thread", f"each(*(attempt(call, 'tgkill', p, p, 9) {BOTH}),"
            f" *(attempt(call, 'tkill', p, 9) {BOTH}))", "ESRCH", "EPERM"),
    Attempt("a signal with a message", "import ctypes\n"
            "info = ctypes.create_string_buffer(b'\\x0a\\0\\0\\0\\0\\0\\0\\0\\xff\\xff\\xff\\xff', 128)\n"
            f"each(*(attempt(call, 'rt_sigqueueinfo', p, 10, info) {BOTH}),"
            f" *(attempt(call, 'rt_tgsigqueueinfo', p, p, 10, info) {BOTH}))", "EPERM ESRCH", "EPERM"),
    Attempt("a signal to its own group",
            "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)\n"
            "said = attempt(os.kill, 0, signal.SIGUSR1)\n'only its own' if said == 'done' else said",
            "only its own", "only its own|EPERM"),
    Attempt("a signal to the first of its processes",
            "said = [attempt(os.kill, 1, n) for n in (9, 19, 15)]\n"
            "'it goes on' if os.getppid() == 1 and not wait_until(lambda: os.getppid() != 1, 0.2) else '"
            " '.join(set(said))",
            "it goes on", "EPERM"),
    Attempt("a handle of a process", f"each(*(attempt(os.pidfd_open, p) {BOTH}))", "ESRCH", "EPERM"),
    Attempt("a handle from /proc", "import signal\n"
            f"each(*(attempt(lambda: call('pidfd_send_signal', os.open(f'/proc/{{p}}', os.O_RDONLY), 9, 0, 0)) {BOTH}),"
            " attempt(lambda: call('pidfd_send_signal', os.open('/proc/self', os.O_RDONLY), 0, 0, 0)))",
            "ENOENT EPERM", "EACCES"),
    Attempt("a descriptor of another process", "attempt(call, 'pidfd_getfd', call('pidfd_open', os.getpid()), 0, 0)"
            " if 'done' == attempt(call, 'pidfd_open', os.getpid()) else attempt(call, 'pidfd_getfd', 0, 0,"
            " 0)", "EPERM"),
    Attempt("who is told by a signal", "import fcntl\nends = os.pipe()\n"
            f"each(*(attempt(fcntl.fcntl, ends[0], fcntl.F_SETOWN, p) {BOTH}), attempt(fcntl.fcntl, ends[0], 10, 9),"
            " attempt(fcntl.fcntl, ends[0], 15, b'\\1\\0\\0\\0' + host.victim.to_bytes(4, 'little')))", "EPERM"),
    Attempt("signals by a ready descriptor", "import fcntl\n"
            "attempt(fcntl.ioctl, os.pipe()[0], 0x5452, b'\\1\\0\\0\\0')", "EPERM"),
    Attempt("trace a process", f"each(*(attempt(call, 'ptrace', n, p, 0, 0) {BOTH} for n in (16, 0x4206)))", "EPERM"),
    Attempt("be traced", "in_child(lambda: call('ptrace', 0, 0, 0, 0))", "EPERM"),
    Attempt("read memory of a process", VECTORS + "each(*(attempt(call, 'process_vm_readv', p, ctypes.byref(here), 1,"
            f" ctypes.byref(here), 1, 0) {BOTH}))", "EPERM"),
    Attempt("write memory of a process", VECTORS + "each(*(attempt(call, 'process_vm_writev', p, ctypes.byref(here), 1,"
            f" ctypes.byref(here), 1, 0) {BOTH}))", "EPERM"),
    Attempt("compare processes", "attempt(call, 'kcmp', os.getpid(), host.victim, 0, 0, 0)", "EPERM"),
    Attempt("limits of a process", "import struct\n"
            "each(attempt(call, 'prlimit64', host.victim, 7, struct.pack('QQ', 16, 16), 0),"
            f" *(attempt(call, 'prlimit64', p, 7, 0, b' ' * 16) {BOTH}))", "EPERM"),
    Attempt("processors of a process", f"each(*(attempt(os.sched_setaffinity, p, {{0}}) {BOTH}))", "ESRCH", "EPERM"),
    Attempt("priority of a process", f"each(*(attempt(os.setpriority, 0, p, 19) {BOTH}),"
            " attempt(os.setpriority, os.PRIO_USER, 65534, 19))", "ESRCH|EPERM ESRCH", "EPERM|EPERM ESRCH"),
    Attempt("a higher priority for itself", "each(attempt(os.setpriority, 0, 0, -5))", "EACCES"),
    Attempt("scheduling of a process", f"each(*(attempt(call, 'sched_setattr', p, b'\\x30' + b'\\0' * 47, 0) {BOTH}))",
            "EPERM"),
    Attempt("a scheduling class of real time", "import ctypes\n"
            "call('sched_setscheduler', 0, 1, ctypes.byref(ctypes.c_int(1)))\n"
            "'done' if os.sched_getscheduler(0) != 0 else 'nothing changed'", "nothing changed"),
    Attempt("disk priority of a process", f"each(*(attempt(call, 'ioprio_set', 1, p, 0x6000) {BOTH}))", "EPERM"),
    Attempt("memory advice for a process", VECTORS + "each(attempt(call, 'process_madvise', 0, ctypes.byref(here),"
            " 1, 20, 0),"
            " attempt(call, 'process_mrelease', 0, 0))", "EPERM"),
    Attempt("pages of a process", f"each(*(attempt(call, 'move_pages', p, 0, 0, 0, 0, 0) {BOTH}),"
            f" *(attempt(call, 'migrate_pages', p, 64, b' ' * 8, b' ' * 8) {BOTH}))", "EPERM"),
    Attempt("a timer that signals another thread", "import ctypes, struct\n"
            "event = struct.pack('qiii', 0, 10, 4, host.victim) + b'\\0' * 44\n"
            "attempt(call, 'timer_create', 0, event, ctypes.byref(ctypes.c_int()))", "EINVAL"),
    Attempt("let others trace it", "attempt(call, 'prctl', 0x59616D61, host.victim, 0, 0, 0)", "EPERM"),
    Attempt("hide from the keeper", "each(attempt(call, 'prctl', 4, 0, 0, 0, 0))", "EPERM"),
    Attempt("outlive the keeper", "each(attempt(call, 'prctl', 1, 0, 0, 0, 0), attempt(call, 'prctl', 1, 15, 0, 0, 0))",
            "EPERM"),
    Attempt("join a group of others", f"each(*(attempt(os.setpgid, 0, p) {BOTH}))", "EPERM"),
    Attempt("robust lists of others", f"import ctypes\nfound = ctypes.c_void_p()\n"
            f"each(*(attempt(call, 'get_robust_list', p, ctypes.byref(found), ctypes.byref(ctypes.c_size_t()))"
            f" {BOTH}))",
            "ESRCH", "EPERM"),
    Attempt("descriptors of the first of its processes",
            "each(attempt(os.listdir, '/proc/1/fd'), attempt(read, '/proc/1/mem'), attempt(write, '/proc/1/mem',"
            " 'r+b'))",
            "EACCES", "EACCES"),
)  # fmt: skip
GROUPS = {"processes": PROCESSES}
