"""Attempts on files of the host."""

from __future__ import annotations

from tests.attacks.attempt import Attempt

RESOLVED = """
import struct
def beneath_nothing(path, resolve=0):
    opened = call("openat2", HERE, path.encode(), struct.pack("QQQ", 0, 0, resolve), 24)
    os.close(opened)
"""

UNCHANGED = """
def look(path):
    try:
        return tuple(os.stat(path))[:7], os.stat(path).st_mtime_ns
    except OSError:
        return None
def unchanged(act, path, *arguments):
    before, said = look(path), attempt(act, path, *arguments)
    return "no effect" if said == "done" and look(path) == before else said
"""
FILES = (
    Attempt("read a file", "attempt(read, host.secret)", "ENOENT", "EACCES", control=True),
    Attempt("list a directory", "attempt(os.listdir, host.folder)", "ENOENT", "EACCES", control=True),
    Attempt("stat a file", "attempt(os.stat, host.secret)", "ENOENT", "done", leaks_metadata=True, control=True),
    Attempt(
        "access a file", "attempt(call, 'access', host.secret.encode(), 4)", "ENOENT", "done", leaks_metadata=True,
        machines=("x86_64",), control=True,
    ),
    Attempt(
        "ask whether a file exists", "'done' if os.path.lexists(host.link) else 'no'", "no", "done",
        leaks_metadata=True, control=True,
    ),
    Attempt("read a link", "attempt(os.readlink, host.link)", "ENOENT", "done", leaks_metadata=True, control=True),
    Attempt("change the mode of a file", UNCHANGED + "unchanged(os.chmod, host.writable, 0o600)",
            "ENOENT", "no effect"),
    Attempt("change the mode of an open file", UNCHANGED + "fd = os.open('/' if host.tier == 1 else host.writable,"
            " os.O_PATH)\n"
            "unchanged(os.chmod, f'/proc/self/fd/{fd}', 0o700)", "EROFS", "no effect"),
    Attempt("change the times of a file", UNCHANGED + "unchanged(os.utime, host.writable, (1,"
            " 1))", "ENOENT", "no effect"),
    Attempt("change the owner of a file", "attempt(os.chown, host.writable, os.getuid(), -1)", "ENOENT", "EPERM"),
    Attempt(
        "read extended attributes", "each(attempt(os.getxattr, host.secret, 'user.secret'),"
        " attempt(os.listxattr, host.secret))", "ENOENT", "ENOTSUP", control=True,
    ),
    Attempt("set an extended attribute", "attempt(os.setxattr, host.writable, 'user.a', b'1')", "EPERM"),
    Attempt("write to a file", "attempt(write, host.writable, 'r+b')", "ENOENT", "EACCES"),
    Attempt("append to a file", "attempt(write, host.writable)", "ENOENT", "EACCES"),
    Attempt("truncate a file", "attempt(os.truncate, host.writable, 0)", "ENOENT", "EACCES"),
    Attempt("make a file", "attempt(write, host.folder + '/new')", "ENOENT", "EACCES"),
    Attempt("make a directory", "attempt(os.mkdir, host.folder + '/new')", "ENOENT", "EACCES"),
    Attempt("make a pipe", "attempt(os.mkfifo, host.folder + '/new')", "ENOENT", "EPERM"),
    Attempt("remove a file", "attempt(os.unlink, host.folder + '/file')", "ENOENT", "EACCES"),
    Attempt(
        "move a file out", "write('mine'); attempt(os.rename, 'mine', host.folder + '/new')", "ENOENT", "EACCES",
    ),
    Attempt("move a file in", "attempt(os.rename, host.folder + '/file', 'mine')", "ENOENT", "EACCES"),
    Attempt("exchange two files", "write('mine')\n"
            "attempt(call, 'renameat2', HERE, b'mine', HERE, (host.folder + '/file').encode(), 2)",
            "ENOENT", "EACCES"),
    Attempt("link a file in", "attempt(os.link, host.secret, 'mine')", "ENOENT", "EPERM"),
    Attempt("link a file out", "write('mine'); attempt(os.link, 'mine', host.folder + '/new')", "ENOENT", "EPERM"),
    Attempt("read through a link of its own", "os.symlink(host.secret, 'mine'); attempt(read, 'mine')",
            "ENOENT", "EACCES"),
    Attempt("write through a link of its own", "os.symlink(host.writable, 'mine'); attempt(write, 'mine')",
            "ENOENT", "EACCES"),
    Attempt("make a link outside", "attempt(os.symlink, 'x', host.folder + '/new')", "ENOENT", "EACCES"),
    Attempt("climb out by dots", "attempt(read, '../' * 40 + host.secret[1:])", "ENOENT", "EACCES"),
    Attempt("climb out by dots from a library", "attempt(read, os.path.dirname(os.__file__) + '/..' * 40 +"
            " host.secret)",
            "ENOENT", "EACCES"),
    Attempt("the root of a process", "each(*(attempt(read, f'/proc/{p}/root' + host.secret) for p in ('self',"
            " 'thread-self', os.getppid(), 1)))", "EACCES ENOENT", "EACCES"),
    Attempt("the directory of a process",
            "each(*(attempt(read, f'/proc/{p}/cwd' + '/..' * 40 + host.secret) for p in ('self', os.getppid(), 1)))",
            "EACCES ENOENT", "EACCES"),
    Attempt("open a path below a directory that is only held",
            "attempt(lambda: os.open('secret', os.O_RDONLY, dir_fd=os.open(host.place, os.O_PATH)))",
            "ENOENT", "EACCES"),
    Attempt("change to a directory that is only held",
            "def go():\n    os.fchdir(os.open(host.place, os.O_PATH)); read('secret')\nattempt(go)",
            "ENOENT", "EACCES"),
    Attempt("change to a directory", "def go():\n    os.chdir(host.place); read('secret')\nattempt(go)",
            "ENOENT", "EACCES"),
    Attempt("open with openat2", RESOLVED + "each(attempt(beneath_nothing, host.secret.encode().decode()),"
            " attempt(beneath_nothing, '..' + host.secret, 0x10))", "ENOENT", "EACCES ENOENT"),
    Attempt("open what is only held once more",
            "attempt(lambda: read(f'/proc/self/fd/{os.open(host.secret, os.O_PATH)}'))", "ENOENT", "EACCES"),
    Attempt("open by handle", "import ctypes\nhandle = ctypes.create_string_buffer(b'\\x80\\0\\0\\0', 140)\n"
            "each(attempt(call, 'name_to_handle_at', HERE, b'/', handle, ctypes.byref(ctypes.c_int()), 0),"
            " attempt(call, 'open_by_handle_at', os.open('.', os.O_RDONLY), handle, 0))", "EPERM"),
    Attempt("watch a directory", "attempt(lambda: call('inotify_add_watch', call('inotify_init1', 0),"
            " host.folder.encode(), 0xFFF))", "EPERM", control=True),
    Attempt("mark a directory with fanotify", "attempt(call, 'fanotify_init', 0x200, 0)", "EPERM"),
    Attempt("write to the Python library", "attempt(write, os.__file__)", "EACCES|EROFS", "EACCES"),
    Attempt("write to a package", "import IPython; attempt(write, IPython.__file__)", "EACCES|EROFS", "EACCES"),
    Attempt("add a module to the library", "attempt(write, os.path.dirname(os.__file__) + '/ka_new.py')",
            "EROFS", "EACCES|EROFS"),
    Attempt("add a path file to the packages",
            "import IPython; attempt(write, os.path.dirname(os.path.dirname(IPython.__file__)) + '/ka_new.pth')",
            "EROFS", "EACCES|EROFS"),
    Attempt("change the library's mode", UNCHANGED + "unchanged(os.chmod, os.__file__, 0o666)", "EROFS", "no effect"),
    Attempt("change the library's times", UNCHANGED + "unchanged(os.utime, os.__file__, (1, 1))", "EROFS", "no effect"),
    Attempt("remove a module of the library", "attempt(os.unlink, os.__file__)", "EROFS", "EACCES|EROFS"),
    Attempt("map the library to be written", "import mmap\n"
            "attempt(lambda: mmap.mmap(os.open(os.__file__, os.O_RDONLY), 4096, mmap.MAP_SHARED, mmap.PROT_WRITE))",
            "EACCES"),
    Attempt("write to the system's libraries", "each(attempt(write, '/usr/lib/ka_new'),"
            " attempt(os.mkdir, '/usr/lib/ka_new'))", "EROFS", "EACCES"),
    Attempt("write beside the tree", "each(attempt(write, '/ka_new'), attempt(os.mkdir, '/ka_new'),"
            " attempt(write, '/etc/passwd'), attempt(write, '/dev/ka_new'), attempt(os.rmdir, '/etc'))",
            "EROFS|EACCES EROFS", "EACCES"),
    Attempt("read /etc/shadow", "attempt(read, '/etc/shadow')", "ENOENT", "EACCES"),
    Attempt("read a key of ssh", "each(attempt(read, host.key), attempt(read,"
            " os.path.expanduser('~/.ssh/id_ed25519')))",
            "ENOENT", "EACCES ENOENT"),
    Attempt("write to /tmp of the host", "name = '/tmp/ka-new-' + host.token\n"
            "said = attempt(write, name)\n'private' if said == 'done' else said", "private", "EACCES"),
    Attempt("read /dev/shm of the host", "attempt(read, host.shm)", "ENOENT", "EACCES", control=True),
    Attempt("write to /dev/shm of the host", "attempt(write, host.shm, 'r+b')", "ENOENT", "EACCES"),
    Attempt("memory as a device", "each(*(attempt(read, d) for d in ('/dev/mem', '/dev/kmem', '/dev/port',"
            " '/dev/kmsg')))",
            "ENOENT", "EACCES ENOENT"),
    Attempt("disks as devices", "each(*(attempt(read, '/dev/' + d) for d in host.disks))", "ENOENT", "EACCES"),
    Attempt("devices that do more", "each(*(attempt(read, d) for d in ('/dev/fuse', '/dev/kvm', '/dev/net/tun',"
            " '/dev/loop-control', '/dev/vhost-net', '/dev/uinput', '/dev/ptmx', '/dev/userfaultfd')))",
            "ENOENT", "EACCES|ENOENT|EACCES ENOENT"),
    Attempt("make a device", "import stat\neach(*(attempt(os.mknod, 'mine', kind | 0o600, os.makedev(n, n)) for n in"
            " (0, 1)"
            " for kind in (stat.S_IFCHR, stat.S_IFBLK)))", "EPERM"),
    Attempt("control groups", "each(attempt(os.listdir, '/sys/fs/cgroup'), attempt(os.mkdir, '/sys/fs/cgroup/ka'),"
            " attempt(write, '/sys/fs/cgroup/cgroup.procs'))", "ENOENT", "EACCES"),
    Attempt("chroot", "attempt(os.chroot, '.')", "EPERM"),
    Attempt("mount", "each(attempt(call, 'mount', b'/', b'/tmp', b'', 0x1000, 0), attempt(call, 'mount', b'tmpfs',"
            " b'/tmp', b'tmpfs', 0, 0), attempt(call, 'mount', b'proc', b'/tmp', b'proc', 0, 0))", "EPERM"),
    Attempt("make a mount writable", "each(attempt(call, 'mount', b'', b'/', b'', 0x1020, 0),"
            " attempt(call, 'mount_setattr', HERE, b'/', 0, b'\\0' * 8 + b'\\1' + b'\\0' * 23, 32))", "EPERM"),
    Attempt("uncover what is covered", "each(*(attempt(call, 'umount2', path, 2) for path in (b'/proc/sys',"
            " b'/proc/kallsyms', b'/tmp', b'/workspace')))", "EPERM"),
    Attempt("mount by the newer calls", "each(attempt(call, 'fsopen', b'tmpfs', 0), attempt(call, 'open_tree', HERE,"
            " b'/', 1), attempt(call, 'move_mount', HERE, b'/', HERE, b'/tmp', 0), attempt(call, 'fspick', HERE,"
            " b'/', 0))",
            "EPERM"),
    Attempt("pivot_root", "attempt(call, 'pivot_root', b'.', b'.')", "EPERM"),
    Attempt("list mounts", "each(attempt(call, 'statmount', 0, 0, 0, 0), attempt(call, 'listmount', 0, 0, 0, 0))",
            "EPERM"),
)  # fmt: skip
GROUPS = {"files": FILES}
