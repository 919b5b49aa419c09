"""Attempts to run other programs, and to gain rights by them."""

from __future__ import annotations

from tests.attacks.attempt import Attempt

COPY = """
import shutil
def copied(place):
    target = os.path.join(place, "program")
    shutil.copyfile(os.path.realpath(sys.executable), target)
    os.chmod(target, 0o755)
    return execute(target, "-c", "0")
"""
EXECUTION = (
    Attempt("a shell", "each(*(execute(path, '-c', 'exit') for path in ('/bin/sh', '/usr/bin/sh', '/bin/bash')))",
            "ENOENT", "EACCES|EACCES ENOENT", control=True),
    Attempt("a program of the host", "execute(host.program)", "ENOENT", "EACCES"),
    Attempt("programs that become root", "each(*(execute(p) for p in ('/usr/bin/su', '/usr/bin/passwd',"
            " '/usr/bin/mount',"
            " '/usr/bin/sudo', '/usr/bin/newgrp')))", "ENOENT", "EACCES|EACCES ENOENT"),
    Attempt("a program in the workspace", COPY + "copied('.')", "EACCES"),
    Attempt("a program in /tmp", COPY + "import tempfile\ncopied(tempfile.gettempdir())", "EACCES"),
    Attempt("a program in /dev/shm", COPY + "copied('/dev/shm')", "EACCES", tiers=(1,)),
    Attempt("a script in the workspace", "write('script', 'wb', f'#!{sys.executable}\\n'.encode())\n"
            "attempt(os.chmod, 'script', 0o755)\nexecute('./script')", "EACCES"),
    Attempt("a program by the loader", COPY + "copied('.')\n"
            "import glob\n[loader] = glob.glob('/lib*/ld-linux*')[:1]\n"
            "'done' if not os.spawnv(os.P_WAIT, loader, [loader, './program', '-c', '0']) else 'the loader fails'",
            "the loader fails", tiers=(1,)),
    Attempt("a library in the workspace", "import ctypes, _ctypes, shutil\nshutil.copyfile(_ctypes.__file__,"
            " 'mine.so')\n"
            "attempt(ctypes.CDLL, './mine.so')", "OSError", tiers=(1,)),
    Attempt("a file in memory to be run", "each(*(attempt(call, 'memfd_create', b'ka', flags) for flags in"
            " (0, 1, 2, 3, 8, 0x10, 0x11)))", "EPERM"),
    Attempt("a program by its descriptor", "fd = os.open(os.path.realpath(sys.executable), os.O_RDONLY)\n"
            "in_child(lambda: call('execveat', fd, b'', 0, 0, 0x1000))", "EPERM"),
    Attempt("become root", "each(*(attempt(act, 0) for act in (os.setuid, os.setgid, os.seteuid, os.setegid)),"
            " attempt(os.setresuid, 0, 0, 0), attempt(os.setgroups, [0]))", "EPERM"),
    Attempt("become nobody", "attempt(os.setuid, 65534)", "EPERM"),
    Attempt("rights of its own", """
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
names = ["CapInh", "CapPrm", "CapEff", "CapAmb"] + ["CapBnd"] * (host.tier == 1)  # only who has rights takes that away
wrong = {name: status[name] for name in names if int(status[name], 16)}
wrong |= {name: status[name] for name, right in (("NoNewPrivs", "1"), ("Seccomp", "2")) if status[name] != right}
f"done: {wrong}" if wrong else "none" """, "none"),
    Attempt("take rights", "import struct\n"
            "each(attempt(call, 'capset', struct.pack('Ii', 0x20080522, 0), b'\\xff' * 24),"
            " attempt(call, 'prctl', 47, 2, 21, 0, 0))", "EPERM"),
    Attempt("a program with rights in the workspace", "write('mine')\n"
            "each(attempt(os.setxattr, 'mine', 'security.capability', b'\\1\\0\\0\\2' + b'\\xff' * 16))", "EPERM"),
    Attempt("a program that becomes its owner", "write('mine', 'wb', b'x')\nos.chmod('mine', 0o4755)\n"
            "mount = [m.split()[5] for m in open('/proc/self/mountinfo') if m.split()[4] == '/workspace'][0]\n"
            "'harmless' if 'nosuid' in mount and 'noexec' in mount and 'nodev' in mount else 'done'",
            "harmless", tiers=(1,)),
)  # fmt: skip
GROUPS = {"execution": EXECUTION}
