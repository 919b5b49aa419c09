"""The system calls a confined process may make: an allowlist, compiled to a seccomp filter. Runs in the kernel.

Pure: `program` turns a tier and an architecture into bytes, `install` hands them to the operating system. What
is in no table answers ENOSYS, as an older system would, so that libraries fall back to what there is. What is
refused on purpose answers EPERM. A system call of a foreign architecture ends the process.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import platform
import struct
from collections.abc import Mapping

from kernelrepl.guest.system import libc

# name:x86_64:aarch64, "-" where an architecture has no such call. The order is that of the comparisons.
ALLOWED = """
read:0:63 write:1:64 open:2:- close:3:57 stat:4:- fstat:5:80 lstat:6:- poll:7:- lseek:8:62
mprotect:10:226 munmap:11:215 brk:12:214 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139
pread64:17:67 pwrite64:18:68 readv:19:65 writev:20:66 preadv:295:69 pwritev:296:70 preadv2:327:286
pwritev2:328:287 access:21:- pipe:22:- pipe2:293:59 select:23:- pselect6:270:72 sched_yield:24:124 mremap:25:216
msync:26:227 mincore:27:232 madvise:28:233 dup:32:23 dup2:33:- dup3:292:24 pause:34:- nanosleep:35:101
clock_nanosleep:230:115 getitimer:36:102 setitimer:38:103 alarm:37:- getpid:39:172 sendfile:40:71 accept:43:202
accept4:288:242 sendto:44:206 recvfrom:45:207 sendmsg:46:211 recvmsg:47:212 sendmmsg:307:269 recvmmsg:299:243
shutdown:48:210 getsockname:51:204 getpeername:52:205 getsockopt:55:209 fork:57:- vfork:58:-
execve:59:221 exit:60:93 exit_group:231:94 wait4:61:260 waitid:247:95 uname:63:160 flock:73:32 fsync:74:82
fdatasync:75:83 sync_file_range:277:84 truncate:76:45 ftruncate:77:46 getdents:78:- getdents64:217:61
getcwd:79:17 chdir:80:49 fchdir:81:50 rename:82:- renameat:264:38 renameat2:316:276 mkdir:83:- mkdirat:258:34
rmdir:84:- creat:85:- link:86:- linkat:265:37 unlink:87:- unlinkat:263:35 symlink:88:- symlinkat:266:36
readlink:89:- readlinkat:267:78 umask:95:166 gettimeofday:96:169 time:201:- clock_gettime:228:113
clock_getres:229:114 getrlimit:97:163 setrlimit:160:164 getrusage:98:165 sysinfo:99:179 times:100:153
getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177 getresuid:118:148 getresgid:120:150
getgroups:115:158 getppid:110:173 getpgrp:111:- getpgid:121:155 getsid:124:156 rt_sigpending:127:136
rt_sigtimedwait:128:137 rt_sigsuspend:130:133 rt_sigqueueinfo:129:138 sigaltstack:131:132 statfs:137:43
fstatfs:138:44 getpriority:140:141 sched_getparam:143:121 sched_getscheduler:145:120
sched_get_priority_max:146:125 sched_get_priority_min:147:126 sched_rr_get_interval:148:127
sched_getaffinity:204:123 sched_getattr:315:275 mlock:149:228 munlock:150:229 mlock2:325:284 arch_prctl:158:-
gettid:186:178 readahead:187:213 getxattr:191:8 lgetxattr:192:9 fgetxattr:193:10 listxattr:194:11
llistxattr:195:12 flistxattr:196:13 tkill:200:130 tgkill:234:131 kill:62:129 futex:202:98 futex_waitv:449:449
futex_wake:454:454 futex_wait:455:455 futex_requeue:456:456 epoll_create:213:- epoll_create1:291:20
epoll_ctl:233:21 epoll_wait:232:- epoll_pwait:281:22 epoll_pwait2:441:441 set_tid_address:218:96
set_robust_list:273:99 get_robust_list:274:100 fadvise64:221:223 timer_create:222:107
timer_settime:223:110 timer_gettime:224:108 timer_getoverrun:225:109 timer_delete:226:111 timerfd_create:283:85
timerfd_settime:286:86 timerfd_gettime:287:87 openat:257:56 openat2:437:437 close_range:436:436 newfstatat:262:79
faccessat:269:48 faccessat2:439:439 statx:332:291 ppoll:271:73 copy_file_range:326:285 eventfd:284:-
eventfd2:290:19 signalfd:282:- signalfd4:289:74 getcpu:309:168 getrandom:318:278 membarrier:324:283 rseq:334:293
restart_syscall:219:128 get_mempolicy:239:236 set_mempolicy:238:237 mbind:237:235 cachestat:451:451
pkey_alloc:330:289 pkey_free:331:290 pkey_mprotect:329:288 mseal:462:462 map_shadow_stack:453:453
sched_setaffinity:203:122 setpriority:141:140 pidfd_open:434:434 setsid:112:157 setpgid:109:154 chmod:90:-
fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 utime:132:- utimes:235:- utimensat:280:88 futimesat:261:-
chown:92:- fchown:93:55 lchown:94:- fchownat:260:54 connect:42:203 bind:49:200 listen:50:201 capget:125:90
sync:162:81 syncfs:306:267 munlockall:152:231 ioprio_get:252:31
"""

DENIED = """
ptrace:101:117 unshare:272:97 setns:308:268 mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51
fsopen:430:430 fsconfig:431:431 fsmount:432:432 fspick:433:433 open_tree:428:428 open_tree_attr:467:467
move_mount:429:429 mount_setattr:442:442 statmount:457:457 listmount:458:458 bpf:321:280 perf_event_open:298:241
userfaultfd:323:282 add_key:248:217 request_key:249:218 keyctl:250:219 kexec_load:246:104
kexec_file_load:320:294 init_module:175:105 finit_module:313:273 delete_module:176:106 syslog:103:116
personality:135:92 quotactl:179:60 quotactl_fd:443:443 memfd_secret:447:447 memfd_create:319:279 shmget:29:194
shmat:30:196 shmctl:31:195 shmdt:67:197 semget:64:190 semop:65:193 semctl:66:191 semtimedop:220:192 msgget:68:186
msgsnd:69:189 msgrcv:70:188 msgctl:71:187 mq_open:240:180 mq_unlink:241:181 mq_timedsend:242:182
mq_timedreceive:243:183 mq_notify:244:184 mq_getsetattr:245:185 fanotify_init:300:262 fanotify_mark:301:263
reboot:169:142 swapon:167:224 swapoff:168:225 iopl:172:- ioperm:173:- modify_ldt:154:- vmsplice:278:75
clock_settime:227:112 clock_adjtime:305:266 settimeofday:164:170 adjtimex:159:171 sethostname:170:161
setdomainname:171:162 io_uring_setup:425:425 io_uring_enter:426:426 io_uring_register:427:427
process_vm_readv:310:270 process_vm_writev:311:271 process_madvise:440:440 process_mrelease:448:448 kcmp:312:272
pidfd_getfd:438:438 pidfd_send_signal:424:424 open_by_handle_at:304:265 name_to_handle_at:303:264
execveat:322:281 setuid:105:146 setgid:106:144 setreuid:113:145 setregid:114:143 setresuid:117:147
setresgid:119:149 setgroups:116:159 setfsuid:122:151 setfsgid:123:152 capset:126:91 seccomp:317:277
landlock_create_ruleset:444:444 landlock_add_rule:445:445 landlock_restrict_self:446:446 setxattr:188:5
lsetxattr:189:6 fsetxattr:190:7 removexattr:197:14 lremovexattr:198:15 fremovexattr:199:16 setxattrat:463:463
removexattrat:466:466 acct:163:89 lookup_dcookie:212:18 nfsservctl:180:42 move_pages:279:239
migrate_pages:256:238 set_mempolicy_home_node:450:450 remap_file_pages:216:234 mlockall:151:230
ioprio_set:251:30 vhangup:153:58 uselib:134:- ustat:136:- sysfs:139:- _sysctl:156:- rt_tgsigqueueinfo:297:240
inotify_init:253:- inotify_init1:294:26 inotify_add_watch:254:27 inotify_rm_watch:255:28 splice:275:76 tee:276:77
io_setup:206:0 io_submit:209:2 io_getevents:208:4 io_cancel:210:3 io_destroy:207:1 io_pgetevents:333:292
"""

SPECIAL = """
socket:41:198 socketpair:53:199 clone:56:220 mmap:9:222 fallocate:285:47 setsockopt:54:208
ioctl:16:29 prctl:157:167 fcntl:72:25 prlimit64:302:261
mknod:133:- mknodat:259:33 sched_setscheduler:144:119 sched_setparam:142:118
sched_setattr:314:274 clone3:435:435
"""

DENIED_IN_TIER_2 = """
chown fchown lchown fchownat connect bind listen setsid setpgid pidfd_open mknod mknodat link linkat
"""
"""What only namespaces and a tree of its own make harmless: nothing else watches over the host's files there."""

_WITHOUT_EFFECT_IN_TIER_2 = "chmod fchmod fchmodat fchmodat2 utime utimes utimensat futimesat"
"""The same. Whoever copies a file, IPython at its start too, gives up when these fail."""

_UNSUPPORTED_IN_TIER_2 = "getxattr lgetxattr listxattr llistxattr"
"""The same, in words that whoever copies a file takes for an answer: a file system without them."""

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_CLONE_NEW = 0x7E020000
"""The CLONE_NEW… bits of `clone`."""

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NR, _ARCH = 0, 4
_SIGKILL = 9
_IOCTLS = (
    0x5401, 0x5411, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451,
)  # fmt: skip
"""TCGETS TIOCOUTQ TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX: whatever else a device can do stays out of reach."""
_FCNTLS_DENIED = (8, 10, 15, 1024, 1026, 1031)
"""F_SETOWN F_SETSIG F_SETOWN_EX make the system send signals; F_SETLEASE F_NOTIFY tell what others do with a file, and
each user has few of them; F_SETPIPE_SZ takes memory that is not counted."""
_SOL_SOCKET = 1
_BUFFER_SIZES = (7, 8, 32, 33)
"""SO_SNDBUF SO_RCVBUF and the same with FORCE: sockets keep the size that they are counted with."""
_SOCKET_PROGRAMS = (26, 50, 51, 52)
"""SO_ATTACH_FILTER SO_ATTACH_BPF and those for ports: code in the system, for networks."""
_SHARED_ANONYMOUS, _MAP_HUGETLB = 0x21, 0x40000
"""Of the flags of `mmap`. Pages that are shared and belong to no file are nobody's when they are no longer mapped, and
huge ones never are: neither stands in what a process takes."""
_CLONE_THREAD, _CLONE_FILES = 0x10000, 0x400
_PRCTLS = (2, 3, 15, 16, 21, 23, 29, 30, 36, 37, 38, 39, 40, 41, 42, 0x53564D41)
"""Readers, the thread's name, timer slack, subreaper, huge pages, names of memory areas."""
_PR_SET_PDEATHSIG = 1
_S_IFMT, _S_IFIFO = 0o170000, 0o010000
_AF_UNIX = 1
_SOCK_TYPE_MASK, _SOCK_STREAM = 0xF, 1


class UnsupportedMachine(OSError):
    """There is no table of system calls for this architecture."""


def numbers(machine: str) -> Mapping[str, int]:
    """The system calls in the tables, by name. Raises UnsupportedMachine."""
    if machine not in _AUDIT:
        raise UnsupportedMachine(errno.ENOSYS, f"no system call filter for {machine}; x86_64 and aarch64 have one")
    column = 1 if machine == "x86_64" else 2
    found = {}
    for word in " ".join((ALLOWED, DENIED, SPECIAL)).split():
        parts = word.split(":")
        if parts[column] != "-":
            found[parts[0]] = int(parts[column])
    return found


def names_of(table: str) -> list[str]:
    return [word.split(":")[0] for word in table.split()]


def _op(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jt, jf, k)


def _ret(value: int) -> bytes:
    return _op(_RET, value)


def _refuse(number: int = errno.EPERM) -> bytes:
    return _ret(_ERRNO | number)


def _load(argument: int) -> bytes:
    """Load the lower half of an argument: the kernel takes these as 32 bits, whatever stands above."""
    return _op(_LD, 16 + 8 * argument)


def _one_of(values: tuple[int, ...], then: bytes, otherwise: bytes) -> bytes:
    """Two ways for the value that is loaded."""
    return b"".join(_op(_JEQ, value, 0, 1) + then for value in values) + otherwise


def _rule(body: bytes, number: int) -> bytes:
    """Do `body`, which returns on every path, for one system call."""
    steps = len(body) // 8
    assert 0 < steps < 256
    return _op(_JEQ, number, 0, steps) + body


def _special(tier: int) -> dict[str, bytes]:
    """What is decided by arguments."""
    allow, deny = _ret(_ALLOW), _refuse()
    no_network = _refuse(errno.EACCES)
    stream_only = (
        _load(0) + _op(_JEQ, _AF_UNIX, 1, 0) + no_network
        + _load(1) + _op(_AND, _SOCK_TYPE_MASK) + _one_of((_SOCK_STREAM,), allow, no_network)
    )  # fmt: skip
    unix_only = _load(0) + _one_of((_AF_UNIX,), allow, no_network)
    rules = {
        "socket": unix_only if tier == 1 else stream_only,
        "socketpair": unix_only if tier == 1 else stream_only,
        # A thread whose descriptors are not those of its process could hide what they hold.
        "clone": _load(0)
        + _op(_JSET, _CLONE_NEW, 0, 1)
        + deny
        + _op(_AND, _CLONE_THREAD | _CLONE_FILES)
        + _one_of((_CLONE_THREAD,), deny, allow),
        "mmap": _load(3)
        + _op(_JSET, _MAP_HUGETLB, 0, 1)
        + _refuse(errno.ENOMEM)
        + _op(_AND, _SHARED_ANONYMOUS)
        + _one_of((_SHARED_ANONYMOUS,), deny, allow),
        # All that is more than `posix_fallocate` takes room where no limit of the system looks.
        "fallocate": _load(1) + _one_of((0,), allow, _refuse(errno.EOPNOTSUPP)),
        # To ask for another size is a wish, which the system may leave unfulfilled as well.
        "setsockopt": _load(1)
        + _op(_JEQ, _SOL_SOCKET, 1, 0)
        + allow
        + _load(2)
        + _one_of(_BUFFER_SIZES, _refuse(0), b"")
        + _one_of(_SOCKET_PROGRAMS, deny, allow),
        "clone3": _refuse(errno.ENOSYS),  # its flags are behind a pointer; libraries fall back to clone
        "ioctl": _load(1) + _one_of(_IOCTLS, allow, deny),
        "fcntl": _load(1) + _one_of(_FCNTLS_DENIED, deny, allow),
        # Undoing the death with the parent would let a kernel outlive its keeper.
        "prctl": _load(0)
        + _op(_JEQ, _PR_SET_PDEATHSIG, 0, 4)
        + _load(1)
        + _one_of((_SIGKILL,), allow, deny)
        + _one_of(_PRCTLS, allow, deny),
        "prlimit64": _load(0) + _one_of((0,), allow, deny),
        "mknod": _load(1) + _op(_AND, _S_IFMT) + _one_of((_S_IFIFO,), allow, deny),
        "mknodat": _load(2) + _op(_AND, _S_IFMT) + _one_of((_S_IFIFO,), allow, deny),
        # libzmq ends the process when this fails; nothing depends on its being done.
        "sched_setscheduler": _refuse(0),
        "sched_setparam": _refuse(0),
        "sched_setattr": deny,
    }
    if tier != 1:
        own = _load(1) + _one_of((0,), allow, deny)
        rules["setpriority"] = own
        rules["sched_setaffinity"] = _load(0) + _one_of((0,), allow, deny)
        rules |= dict.fromkeys(_WITHOUT_EFFECT_IN_TIER_2.split(), _refuse(0))
        rules |= dict.fromkeys(_UNSUPPORTED_IN_TIER_2.split(), _refuse(errno.EOPNOTSUPP))
    return rules


@functools.cache
def program(tier: int, machine: str | None = None) -> bytes:
    """The filter of a tier, as an array of `struct sock_filter`. Raises UnsupportedMachine."""
    machine = machine or platform.machine()
    known = numbers(machine)
    special = _special(tier)
    denied = set(names_of(DENIED))
    if tier != 1:
        denied |= set(DENIED_IN_TIER_2.split())
    code = [_op(_LD, _ARCH), _op(_JEQ, _AUDIT[machine], 1, 0), _ret(_KILL), _op(_LD, _NR)]
    if machine == "x86_64":
        code += [_op(_JGE, _X32_BIT, 0, 1), _ret(_KILL)]
    # First: the system remembers by itself what is allowed whatever the arguments are, and asks for these each time.
    for name, body in special.items():
        if name in known and name not in denied:
            code.append(_rule(body, known[name]))
    for name in names_of(ALLOWED):
        if name in known and name not in special and name not in denied:
            code.append(_rule(_ret(_ALLOW), known[name]))
    for name in sorted(denied):
        if name in known:
            code.append(_rule(_refuse(), known[name]))
    code.append(_refuse(errno.ENOSYS))
    return b"".join(code)


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(code: bytes) -> None:
    """Filter the system calls of this thread and of all it starts. Raises OSError."""
    description = _Program(len(code) // 8, code)
    if libc().prctl(22, ctypes.c_ulong(2), ctypes.byref(description), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, "seccomp filter: not accepted by this system")
