"""Attempts to take more of the machine, or of the user whom sessions belong to, than the limits of a session say."""

from __future__ import annotations

from typing import Any

from kernelrepl.model import Resources
from tests.attacks.arena import Arena
from tests.attacks.attempt import Attempt, Scenario

SMALL = Resources(
    memory_bytes=300_000_000, workspace_bytes=50_000_000, tmp_bytes=50_000_000, processes=128, open_files=1024
)
"""What is reached soon, on any machine. Attempts stop at a little more than twice as much."""
WIDE = Resources(memory_bytes=300_000_000, workspace_bytes=50_000_000, tmp_bytes=500_000_000, processes=128)
HOLD = """
import ctypes, fcntl, mmap, os, socket, tempfile, threading, time
def hold(seconds=6.0):
    time.sleep(seconds)
    return "done"
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
def mapped(size, protection, flags, fd=-1):
    found = LIBC.mmap(None, size, protection, flags, fd, 0)
    if found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return found
def touch(start, size, step=4096, write=True):
    if write:
        ctypes.memset(start, 1, size)
        return
    for at in range(start, start + size, step):
        ctypes.string_at(at, 1)
def in_children(act, count):
    for _ in range(count):
        if os.fork() == 0:
            act()
            time.sleep(60)
            os._exit(0)
def full(pair):
    pair[0].setblocking(False)
    try:
        while True:
            pair[0].send(b"x" * 65536)
    except BlockingIOError:
        return pair
def errno_of(act):
    import errno
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
"""
ENDED = {
    "max_memory_bytes": "ended for its memory",
    "max_workspace_bytes": "stopped for its files",
    "queue of a socket": "ended for what it sent",
}


def counted(code: str) -> Scenario:
    """What becomes of code that takes something and keeps it: it is ended, and the reply names the limit."""

    async def scenario(arena: Arena) -> str:
        execution = await arena.execution(HOLD + code)
        for word, said in ENDED.items():
            if execution.status != "ok" and word in (execution.note or ""):
                return said
        return arena.said(execution)

    return scenario


def _memory(name: str, code: str, right: str = "ended for its memory", **options: Any) -> Attempt:
    return Attempt(name, counted(code), right, **{"resources": SMALL, **options})


MEMORY = (
    _memory("a file in memory that is not mapped", "for _ in range(14):\n    fd = call('memfd_create', b'ka', 8)\n"
            "    for _ in range(50): os.write(fd, b'x' * 1_000_000)\n    time.sleep(0.05)\nhold()",
            "error: PermissionError: [Errno 1] memfd_create|error: OSError: [Errno 1] memfd_create"),
    _memory("page tables", "size = 300 << 30\nat = mapped(size, 1, 0x4022)\nLIBC.madvise(at, size, 15)\n"
            "touch(at, size, 2 << 20, False)\nhold()"),
    _memory("page tables of many processes", "def act():\n    size = 40 << 30\n    at = mapped(size, 1, 0x4022)\n"
            "    LIBC.madvise(at, size, 15)\n    touch(at, size, 2 << 20, False)\nin_children(act, 8)\nhold()"),
    _memory("large buffers of sockets", "kept = []\nfor _ in range(150):\n    pair = socket.socketpair()\n"
            "    for end in pair: end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)\n"
            "    kept.append(full(pair))\nsize = pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)\n"
            "'as it was' if size <= 212992 else hold()", "as it was"),
    _memory("buffers of many sockets", "def act():\n    global kept\n"
            "    kept = [full(socket.socketpair()) for _ in range(450)]\nin_children(act, 6)\nhold()"),
    _memory("sockets that nobody accepts", "server = socket.socket(socket.AF_UNIX)\nserver.bind('/tmp/s')\n"
            "server.listen(4096)\nfor _ in range(3000):\n    peer = socket.socket(socket.AF_UNIX)\n"
            "    peer.connect('/tmp/s')\n    full([peer])\n    peer.close()\nhold()", tiers=(1,)),
    _memory("datagrams that nobody reads", "kept = []\nfor n in range(300):\n    server = socket.socket(socket.AF_UNIX,"
            " socket.SOCK_DGRAM)\n    server.bind(f'/tmp/d{n}')\n    kept.append(server)\n    for _ in range(9):\n"
            "        peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n        peer.connect(f'/tmp/d{n}')\n"
            "        errno_of(lambda: full([peer]))\n        peer.close()\nhold()", tiers=(1,)),
    _memory("sockets in sockets", "outer = socket.socketpair()\nfor _ in range(60):\n"
            "    kept = [full(socket.socketpair()) for _ in range(15)]\n"
            "    fds = [end.fileno() for pair in kept for end in pair]\n"
            "    socket.send_fds(outer[0], [b'x'], fds)\n    del kept\nhold()",
            "ended for its memory|error: OSError: [Errno 109] Too many references: cannot splice"),
    _memory("shared pages that nobody maps", "for _ in range(7):\n    at = mapped(96 << 20, 3, 0x21)\n"
            "    for part in range(0, 96 << 20, 8 << 20):\n        touch(at + part, 8 << 20)\n"
            "        LIBC.madvise(at + part, 8 << 20, 4)\nhold()", "error: PermissionError: [Errno 1] mmap"),
    _memory("shared pages of Python's own maps", "kept = []\nfor _ in range(20):\n"
            "    kept.append(mmap.mmap(-1, 24 << 20))\n    kept[-1].write(b'x' * (24 << 20))\n"
            "    kept[-1].madvise(mmap.MADV_DONTNEED)\nhold()", resources=WIDE),
    _memory("shared pages of the zeros", "fd = os.open('/dev/zero', os.O_RDWR)\nfor _ in range(7):\n"
            "    at = mapped(96 << 20, 3, 1, fd)\n    for part in range(0, 96 << 20, 8 << 20):\n"
            "        touch(at + part, 8 << 20)\n        LIBC.madvise(at + part, 8 << 20, 4)\nhold()",
            "error: FileNotFoundError: [Errno 2] No such file or directory: '/dev/zero'",
            tier_2="error: PermissionError: [Errno 13] Permission denied: '/dev/zero'"),
    _memory("huge pages", "errno_of(lambda: mapped(2 << 20, 3, 0x40022))", "ENOMEM|EPERM"),
    _memory("a process whose first thread has ended", "def act():\n    def go():\n        global m\n"
            "        m = bytearray(b'x') * 120_000_000\n        time.sleep(60)\n"
            "    threading.Thread(target=go).start()\n    time.sleep(1)\n    call('exit', 0)\n"
            "in_children(act, 6)\nhold()"),
    _memory("processes whose parent has ended", "def act():\n    if os.fork() == 0:\n        global b\n"
            "        b = bytearray(b'x') * 120_000_000\n        time.sleep(60)\n    os._exit(0)\n"
            "in_children(act, 4)\nhold()"),
    _memory("records of locks", "def act():\n    for n in range(450):\n        fd = os.open(f'/tmp/l{n}{os.getpid()}',"
            " os.O_CREAT | os.O_RDWR)\n        for at in range(0, 1000, 2):\n            fcntl.lockf(fd, fcntl.LOCK_EX,"
            " 1, at)\nin_children(act, 8)\nhold(52)", tiers=(1,)),
    _memory("watches of many descriptors", "import select\ndef act():\n    ends = [os.pipe()[0] for _ in range(400)]\n"
            "    global kept\n    kept = []\n    for _ in range(150):\n        poll = select.epoll()\n"
            "        for fd in ends: poll.register(fd, 0)\n        kept.append(poll)\nin_children(act, 40)\nhold(15)"),
    _memory("pieces of address space", "def act():\n    size = 60_000 * 4096\n    at = mapped(size, 0, 0x4022)\n"
            "    LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
            "    for n in range(0, 60_000, 2): LIBC.mprotect(at + n * 4096, 4096, 1)\nin_children(act, 40)\nhold(15)"),
    _memory("larger pipes", "each(*(errno_of(lambda: fcntl.fcntl(os.pipe()[0], 1031, 1 << 20)) for _ in range(3)))",
            "EPERM"),
    _memory("files of /tmp and of /dev/shm", "for place in (tempfile.gettempdir(), '/dev/shm'):\n"
            "    for n in range(30):\n        with open(f'{place}/{n}', 'wb') as file: file.write(b'x' * 10_000_000)\n"
            "hold()", resources=WIDE, tiers=(1,)),
    _memory("descriptors of one thread alone", "in_child(lambda: call('clone', 0x10900, 0, 0, 0, 0))", "EPERM"),
)  # fmt: skip

DISK = (
    _memory("files that have no name", "kept = []\nfor n in range(15):\n    kept.append(open(f'f{n}', 'wb', 0))\n"
            "    os.remove(f'f{n}')\n    kept[-1].write(b'x' * 10_000_000)\nhold()", "stopped for its files"),
    _memory("files that never had a name", "kept = []\nfor n in range(15):\n    kept.append(os.open('.',"
            " os.O_TMPFILE | os.O_RDWR))\n    os.write(kept[-1], b'x' * 10_000_000)\nhold()", "stopped for its files"),
    _memory("files without a name in a child", "def act():\n    for n in range(15):\n"
            "        fd = os.open(f'f{n}', os.O_CREAT | os.O_RDWR)\n        os.remove(f'f{n}')\n"
            "        os.write(fd, b'x' * 10_000_000)\nin_children(act, 1)\nhold()", "stopped for its files"),
    _memory("files that are only mapped", "for n in range(15):\n    fd = os.open(f'f{n}', os.O_CREAT | os.O_RDWR)\n"
            "    os.write(fd, b'x' * 10_000_000)\n    at = mapped(10_000_000, 1, 1, fd)\n    os.close(fd)\n"
            "    os.remove(f'f{n}')\n    LIBC.munmap(at + 4096, 9_990_000)\nhold()", "stopped for its files"),
    _memory("files in the queue of a socket", "ends = socket.socketpair()\nfor n in range(15):\n"
            "    fd = os.open(f'f{n}', os.O_CREAT | os.O_RDWR)\n    os.remove(f'f{n}')\n"
            "    os.write(fd, b'x' * 10_000_000)\n    socket.send_fds(ends[0], [b'x'], [fd])\n    os.close(fd)\n"
            "hold(20)", "ended for what it sent"),
    _memory("room beyond the end of a file", "fd = os.open('f', os.O_CREAT | os.O_RDWR)\n"
            "each(*(errno_of(lambda: call('fallocate', fd, mode, 0, 200_000_000)) for mode in (1, 3, 0x10, 0x11, 0x40,"
            " 1 | 1 << 40)))", "ENOTSUP"),
    _memory("room in a file", "fd = os.open('f', os.O_CREAT | os.O_RDWR)\n"
            "errno_of(lambda: os.posix_fallocate(fd, 0, 200_000_000))", "EFBIG"),
)  # fmt: skip

OF_THE_USER = (
    Attempt("instances of inotify", "each(attempt(call, 'inotify_init1', 0), attempt(call, 'inotify_init')"
            " if 'inotify_init' in NUMBERS else 'EPERM')", "EPERM"),
    Attempt("notes about a directory", "import fcntl\n"
            "attempt(fcntl.fcntl, os.open('.', 0), fcntl.F_NOTIFY, 4)", "EPERM"),
    Attempt("a lease on a file", "import fcntl\nopen('f', 'w').close()\n"
            "attempt(fcntl.fcntl, os.open('f', 0), fcntl.F_SETLEASE, fcntl.F_RDLCK)", "EPERM"),
    Attempt("many descriptors in flight", HOLD + "a, b = socket.socketpair()\nfds = [os.open('/dev/null', 0)] * 250\n"
            "sent = 0\ntry:\n    for _ in range(5):\n        socket.send_fds(a, [b'x'], fds)\n        sent += 250\n"
            "except OSError: pass\n'done' if sent > 750 else 'too many'", "too many"),
    Attempt("timers of the user", "import ctypes\ndef more():\n    for _ in range(3000):\n"
            "        call('timer_create', 1, 0, ctypes.byref(ctypes.c_int()))\nattempt(more)", "EAGAIN"),
    Attempt("programs on a socket", "import socket, struct\nends = socket.socketpair()\n"
            "each(*(attempt(ends[0].setsockopt, socket.SOL_SOCKET, n, b'\\0' * 16) for n in (26, 50, 51, 52)))",
            "EPERM"),
)  # fmt: skip

OF_OTHERS = (
    Attempt("paths of the host by its sockets", """
import socket, stat
found = []
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            for ask in (socket.socket.getsockname, socket.socket.getpeername):
                found.append(ask(socket.socket(fileno=os.dup(fd))))
    except OSError:
        continue
f"done: {found}" if host.runtime in str(found) else "no paths" """, "no paths"),
)  # fmt: skip
GROUPS = {"limits": (*MEMORY, *DISK), "of the user": OF_THE_USER, "of others": OF_OTHERS}
