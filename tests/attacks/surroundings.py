"""Attempts on what a process inherits: terminal, environment, descriptors, limits."""

from __future__ import annotations

from kernelrepl.model import Resources
from tests.attacks.attempt import Attempt

SMALL = Resources(tmp_bytes=4_000_000, workspace_bytes=8_000_000, open_files=256, processes=64)
"""What is there may be used up; this is used up sooner."""
FULL = """
def fill(path, size=64_000_000):
    written = 0
    with open(path, "wb") as file:
        while written < size:
            written += file.write(b"x" * 500_000)
            file.flush()
"""
BOMB = """
ready, go = os.pipe()
children, said = [], "done"
for _ in range(200):
    try:
        child = os.fork()
    except OSError as error:
        import errno
        said = errno.errorcode[error.errno]
        break
    if not child:
        os.close(go)
        os.read(ready, 1)
        os._exit(0)
    children.append(child)
os.close(go)
for child in children:
    os.waitpid(child, 0)
said
"""
SURROUNDINGS = (
    Attempt("put keys into a terminal", "import fcntl\n"
            "each(*(attempt(call, 'ioctl', fd, request, b'x') for fd in (0, 1, 2) for request in"
            " (0x5412, 0x5412 | 1 << 32, 0x541C, 0x5412 | 1 << 63)))", "EPERM"),
    Attempt("take a terminal", "each(*(attempt(call, 'ioctl', 0, request, 0) for request in (0x540E, 0x5410, 0x5423)))",
            "EPERM"),
    Attempt("the terminal of the keeper", "each(*(attempt(read, p) for p in ('/dev/tty', '/dev/console', '/dev/pts/0',"
            " '/dev/ptmx', '/dev/tty1')))", "ENOENT", "EACCES|EACCES ENOENT|EACCES ENXIO"),
    Attempt("secrets in the environment", "seen = ' '.join((*os.environ, *os.environ.values())) +"
            " str(read('/proc/self/environ', 1 << 20))\n"
            "'done' if 'ATTACKED_SECRET' in seen else 'absent'", "absent"),
    Attempt("the environment it was started with",
            "seen = {v.split(b'=')[0].decode() for v in read('/proc/self/environ', 1 << 20).split(b'\\0') if v}\n"
            "more = seen - {'PATH', 'HOME', 'LANG', 'LC_ALL', 'LC_CTYPE', 'TZ', 'USER', 'LOGNAME', 'TMPDIR',"
            " 'PYTHONPATH',"
            " 'VIRTUAL_ENV', 'MPLCONFIGDIR', 'IPYTHONDIR', 'KERNELREPL_MUTATION'}\n"
            "f'done: {more}' if more else 'nothing else'", "nothing else"),
    Attempt("the environment of its code", "more = set(os.environ) & {'KERNELREPL_MUTATION', 'ATTACKED_SECRET'}\n"
            "'done' if more or os.environ['HOME'] != os.getcwd() or os.environ['USER'] != 'session' else 'replaced'",
            "replaced"),
    Attempt("inherited descriptors", """
kinds = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        kinds[fd] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        continue
harmless = ("socket:", "pipe:", "anon_inode:", "/dev/null", "/proc/")
more = {fd: to for fd, to in kinds.items() if not to.startswith(harmless) and not to.startswith(os.getcwd())
        and "(deleted)" not in to}
f"done: {more}" if more else "nothing else" """, "nothing else"),
    Attempt("raise limits", """
import resource
said = []
for name in ("CORE", "NOFILE", "DATA", "FSIZE", "NPROC"):
    which = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(which)[1]
    said.append("done" if hard == resource.RLIM_INFINITY else attempt(resource.setrlimit, which, (hard + 1, hard + 1)))
each(*said)""", "ValueError"),
    Attempt("use up descriptors", """
held, said = [], "done"
try:
    while len(held) < 5000:
        held.append(os.open("/dev/null", 0))
except OSError as error:
    import errno
    said = errno.errorcode[error.errno]
for fd in held:
    os.close(fd)
said""", "EMFILE", resources=SMALL),
    Attempt("one big file", FULL + "attempt(fill, 'big')", "EFBIG", resources=SMALL),
    Attempt("one big file that is empty", "attempt(os.truncate, os.open('big', os.O_CREAT | os.O_RDWR), 1 <<"
            " 40)", "EFBIG",
            resources=SMALL),
    Attempt("fill /tmp", FULL + "import tempfile\nattempt(lambda: [fill(tempfile.gettempdir() + f'/{n}', 2_000_000)"
            " for n in range(20)])",
            "ENOSPC", resources=SMALL, tiers=(1,)),
    Attempt("fill /dev/shm", FULL + "attempt(lambda: [fill(f'/dev/shm/{n}', 2_000_000) for n in range(20)])", "ENOSPC",
            resources=SMALL, tiers=(1,)),
    Attempt("fill the tree itself", FULL + "each(attempt(fill, '/big'), attempt(fill,"
            " '/dev/big'))", "EROFS|EACCES EROFS",
            tiers=(1,)),
    Attempt("many small files in /tmp", "attempt(lambda: [open(f'/tmp/{n}', 'w').close() for n in range(110_000)])",
            "ENOSPC", tiers=(1,)),
    Attempt("a bomb of processes", BOMB, "EAGAIN", resources=SMALL, tiers=(1,)),
    Attempt("a bomb of memory", "attempt(bytes, 1 << 34)", "MemoryError",
            resources=Resources(memory_bytes=1_000_000_000)),
    Attempt("a core dump", "import signal\nchild = os.fork()\nif not child:\n    os.abort()\nstatus ="
            " os.waitpid(child, 0)[1]\n"
            "'done' if os.WCOREDUMP(status) or any(n.startswith('core') for n in os.listdir()) else 'none'", "none"),
    Attempt("devices that are there", "import stat\n"
            "more = [d for d in os.listdir('/dev') if d not in ('null', 'zero', 'full', 'random', 'urandom', 'shm',"
            " 'fd',"
            " 'stdin', 'stdout', 'stderr')]\nf'done: {more}' if more else 'nothing else'", "nothing else", tiers=(1,)),
    Attempt("a debugger's port", "each(*(attempt(call, 'ioctl', os.open('/dev/null', 2), request, 0) for request in"
            " (0x1268, 0x5402, 0x5452, 0xC0045877, 0x40086602)))", "EPERM"),
    Attempt("paths of the keeper", "each(*(attempt(os.listdir, p) for p in (host.data, host.runtime,"
            " os.path.dirname(host.data))))", "ENOENT", "EACCES"),
)  # fmt: skip
GROUPS = {"surroundings": SURROUNDINGS}
