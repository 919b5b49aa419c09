"""Attempts of one session on another, in both directions: the older on the younger, and the younger on the older."""

from __future__ import annotations

from kernelrepl.model import Resources
from tests.attacks.arena import Arena
from tests.attacks.attempt import THROUGH, Attempt, Scenario

PREPARE = """
import tempfile
write("mine", "wb", b"mine")
write(tempfile.gettempdir() + "/mine", "wb", b"mine")
os.chmod("mine", 0o666)
temporary = tempfile.gettempdir()
temporary
"""


def between(code: str, prepare: str = PREPARE) -> Scenario:
    """Two sessions do as `prepare` says, and then each attacks the other."""

    async def scenario(arena: Arena) -> str:
        told = {}
        for name in ("a", "b"):
            arena.more = {"name": name}
            temporary = await arena.outcome(prepare, name)
            kernel = arena.kernel(name)
            told[name] = {
                "name": name,
                "workspace": str(arena.workspace(name)),
                "temporary": temporary,
                "kernel": kernel.pid,
                "first": kernel.process.pid,
                "sockets": str(kernel.process.directory),
            }
        said = set()
        for name, other in (("a", "b"), ("b", "a")):
            arena.more = {"other": told[other]}
            said.add(await arena.outcome(f"other = types.SimpleNamespace(**host.other)\n{code}", name))
        for name in ("a", "b"):
            if (arena.workspace(name) / "mine").read_bytes() != b"mine":
                return f"{THROUGH}: the file of {name} is changed"
            if not arena.kernel(name).process.alive():
                return f"{THROUGH}: the kernel of {name} has ended"
        return " ".join(sorted(said))

    return scenario


EVERY = "for p in (other.kernel, other.first)"
DATABASE = "for name in ('', '-wal', '-shm')"
NEIGHBOURS = (
    Attempt("read a file of another session", between("attempt(read, other.workspace + '/mine')"), "ENOENT", "EACCES"),
    Attempt("list the files of another session", between("each(attempt(os.listdir, other.workspace),"
            " attempt(os.listdir, os.path.dirname(other.workspace)))"), "ENOENT", "EACCES"),
    Attempt("write to a file of another session", between("each(attempt(write, other.workspace + '/mine', 'wb'),"
            " attempt(write, other.workspace + '/new'), attempt(os.unlink, other.workspace + '/mine'))"),
            "ENOENT", "EACCES"),
    Attempt("climb to another session", between("each(*(attempt(read, up + os.path.basename(other.workspace) + '/mine')"
            " for up in ('../', './../', '/workspace/../', os.getcwd() + '/../')))"), "ENOENT", "EACCES ENOENT"),
    Attempt("climb to another session by its process", between("each(*(attempt(read, f'/proc/{p}/{way}/mine')"
            f" {EVERY} for way in ('cwd', 'root/workspace')))"), "EACCES ENOENT|ENOENT", "EACCES"),
    Attempt("move a file of another session", between("write('own')\n"
            "each(attempt(os.rename, other.workspace + '/mine', 'taken'),"
            " attempt(os.rename, 'own', other.workspace + '/mine'))"), "ENOENT", "EACCES"),
    Attempt("link a file of another session", between("each(attempt(os.link, other.workspace + '/mine', 'taken'),"
            " attempt(lambda: (os.symlink(other.workspace, 'way'), read('way/mine'))))"), "ENOENT", "EACCES EPERM"),
    Attempt("temporary files of another session", between(
            "mine = tempfile.gettempdir()\nwrite(mine + '/' + host.token, 'wb')\n"
            "'not there' if other.temporary == mine and host.tier == 1 else attempt(read, other.temporary + '/mine')"),
            "not there", "EACCES"),
    Attempt("what another session left in /tmp", between(
            "found = [n for n in os.listdir('/tmp') if n.startswith('from-') and n != f'from-{host.victim}' +"
            " other.name]\n"
            "'only its own' if not [n for n in found if n.endswith('-' + other.name)] else 'done'",
            "write(f'/tmp/from-{os.getpid()}-' + host.name) if host.tier == 1 else None\n"
            "write('mine', 'wb', b'mine'); 'mine'"), "only its own", tiers=(1,)),
    Attempt("shared memory of another session", between("attempt(read, '/dev/shm/shared-' + other.name)",
            "write('mine', 'wb', b'mine'); attempt(write, '/dev/shm/shared-' + host.name)"), "ENOENT"),
    Attempt("sockets of another session's kernel", between(
            "each(*(attempt(connect, socket.AF_UNIX, f'{other.sockets}/s-{n}') for n in (1, 2, 3, 4)))"),
            "ENOENT", "EPERM"),
    Attempt("put other sockets in their place", between(
            "each(attempt(os.listdir, other.sockets), attempt(os.unlink, other.sockets + '/s-1'),"
            " attempt(os.symlink, '/tmp', other.sockets + '/s-1'),"
            " attempt(lambda: socket.socket(socket.AF_UNIX).bind(other.sockets + '/s-9')))"),
            "ENOENT", "EACCES EEXIST EPERM"),
    Attempt("a socket another session listens on", between("attempt(connect, socket.AF_UNIX, '\\0from-' + other.name)",
            "write('mine', 'wb', b'mine'); listener = socket.socket(socket.AF_UNIX)\n"
            "attempt(lambda: (listener.bind('\\0from-' + host.name), listener.listen()))"), "ECONNREFUSED", "EPERM"),
    Attempt("memory of another session", between(f"each(*(attempt(read, f'/proc/{{p}}/{{n}}') {EVERY} for n in"
            " ('mem', 'maps', 'environ', 'smaps_rollup')))"), "EACCES ENOENT|ENOENT|EACCES EIO ENOENT", "EACCES"),
    Attempt("descriptors of another session", between(f"each(*(attempt(os.listdir, f'/proc/{{p}}/fd') {EVERY}))"),
            "EACCES ENOENT|ENOENT", "EACCES"),
    Attempt("signals to another session", between(f"each(*(attempt(os.kill, p, n) {EVERY} for n in (0, 2, 9)))"),
            "ESRCH", "EPERM"),
    Attempt("trace another session", between(f"each(*(attempt(call, 'ptrace', 16, p, 0, 0) {EVERY}),"
            f" *(attempt(call, 'process_vm_readv', p, 0, 0, 0, 0, 0) {EVERY}))"), "EPERM"),
    Attempt("limits of another session", between(f"each(*(attempt(call, 'prlimit64', p, 7, b'\\0' * 16, 0) {EVERY}),"
            f" *(attempt(os.setpriority, 0, p, 19) {EVERY}), *(attempt(os.sched_setaffinity, p, [0]) {EVERY}))"),
            "EPERM ESRCH", "EPERM"),
    Attempt("read the database", between(f"each(*(attempt(read, host.data + '/python_sessions.db' + name)"
            f" {DATABASE}))"),
            "ENOENT", "EACCES"),
    Attempt("write to the database", between(
            f"each(*(attempt(write, host.data + '/python_sessions.db' + name) {DATABASE}),"
            " attempt(os.unlink, host.data + '/python_sessions.db'), attempt(write, host.data + '/new'))"),
            "ENOENT", "EACCES"),
    Attempt("open the database with sqlite", between("import sqlite3\n"
            "attempt(lambda: sqlite3.connect(f'file:{host.data}/python_sessions.db?mode=rw', uri=True).execute("
            "'SELECT code FROM executions').fetchall())"), "OperationalError"),
    Attempt("use up what another session needs", between("import tempfile\n"
            "try:\n    with open('/tmp/full', 'wb') as file:\n        while file.write(b'x' * 100_000): file.flush()\n"
            "except OSError: pass\nos.unlink('/tmp/full')\n'its own only'"), "its own only",
            resources=Resources(tmp_bytes=2_000_000), tiers=(1,)),
)  # fmt: skip
GROUPS = {"another session": NEIGHBOURS}
