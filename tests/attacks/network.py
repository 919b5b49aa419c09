"""Attempts on the network, and on sockets of the host."""

from __future__ import annotations

from tests.attacks.attempt import Attempt

SOCKET = "attempt(call, 'socket', {}, {}, {})"
NETWORK = (
    Attempt("TCP", "attempt(connect, socket.AF_INET, ('127.0.0.1', host.tcp4))", "EACCES", control=True),
    Attempt("TCP over IPv6", "attempt(connect, socket.AF_INET6, ('::1', host.tcp6))", "EACCES"),
    Attempt("UDP", "attempt(connect, socket.AF_INET, ('127.0.0.1', host.udp), socket.SOCK_DGRAM)", "EACCES",
            control=True),
    Attempt("raw IP", SOCKET.format(2, 3, 1), "EACCES"),
    Attempt("ping sockets", SOCKET.format(2, 2, 1), "EACCES"),
    Attempt("packets of a device", SOCKET.format(17, 3, 0x300), "EACCES"),
    Attempt("netlink", "each(" + ", ".join(SOCKET.format(16, 3, n) for n in (0, 9, 12, 15, 16)) + ")", "EACCES"),
    Attempt("vsock", SOCKET.format(40, 1, 0), "EACCES"),
    Attempt("the system's cryptography", SOCKET.format(38, 5, 0), "EACCES"),
    Attempt("bluetooth", SOCKET.format(31, 3, 1), "EACCES"),
    Attempt("XDP", SOCKET.format(44, 3, 0), "EACCES"),
    Attempt("TIPC", "each(" + SOCKET.format(30, 1, 0) + ", attempt(call, 'socketpair', 30, 1, 0, 0))", "EACCES"),
    Attempt("CAN", SOCKET.format(29, 3, 1), "EACCES"),
    Attempt("multipath TCP", SOCKET.format(2, 1, 262), "EACCES"),
    Attempt("families nobody uses", "each(*(attempt(call, 'socket', family, kind, 0) for family in"
            " (3, 4, 5, 6, 9, 15, 21, 24, 33, 39, 41, 42, 43, 45, 46) for kind in (1, 2, 3, 5)))", "EACCES"),
    Attempt("data before the connection",
            "attempt(lambda: socket.socket(socket.AF_INET).sendto(b'x', 0x20000000, ('127.0.0.1', host.tcp4)))",
            "EACCES"),
    Attempt("listen on a port", "attempt(socket.create_server, ('127.0.0.1', 0))", "EACCES"),
    Attempt("look up a name", "attempt(socket.getaddrinfo, 'example.org', 80)", "gaierror", "gaierror"),
    Attempt("a URL", "import urllib.request\n"
            "attempt(urllib.request.urlopen, f'http://127.0.0.1:{host.tcp4}', timeout=2)", "URLError", "URLError"),
    Attempt("a family with bits above it", "each(*(" + SOCKET.format("2 | bit << 32", "1", "0") +
            " for bit in (1, 1 << 31)))", "EACCES"),
    Attempt("a kind with bits above it", "attempt(connect, socket.AF_UNIX, host.datagram,"
            " socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)", "ENOENT", "EACCES"),
    Attempt("a unix socket by path", "attempt(connect, socket.AF_UNIX, host.stream)", "ENOENT", "EPERM", control=True),
    Attempt("a unix socket by a relative path", "os.chdir('/')\n"
            "attempt(connect, socket.AF_UNIX, 'proc/self/root' + host.stream)", "ENOENT", "EPERM"),
    Attempt("an abstract unix socket", "attempt(connect, socket.AF_UNIX, host.abstract)", "ECONNREFUSED", "EPERM",
            control=True),
    Attempt("a datagram to a unix socket", "attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
            ".sendto(b'x', host.datagram))", "ENOENT", "EACCES", control=True),
    Attempt("a datagram from a pair", "attempt(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]"
            ".sendto(b'x', host.datagram))", "ENOENT", "EACCES"),
    Attempt("a raw unix socket", "attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_RAW)"
            ".sendto(b'x', host.datagram))", "ENOENT", "EACCES"),
    Attempt("sequenced packets", "attempt(connect, socket.AF_UNIX, host.stream, socket.SOCK_SEQPACKET)",
            "ENOENT", "EACCES"),
    Attempt("a pair of another family", "each(*(attempt(call, 'socketpair', family, 1, 0, 0) for family in (2, 10,"
            " 16)))",
            "EACCES"),
    Attempt("a listening socket outside", "attempt(lambda: socket.socket(socket.AF_UNIX).bind(host.folder + '/new'))",
            "ENOENT", "EPERM"),
    Attempt("sockets that services have", "each(*(attempt(connect, socket.AF_UNIX, path) for path in"
            " ('/run/docker.sock', '/var/run/docker.sock', '/run/dbus/system_bus_socket', '/run/systemd/private',"
            " '/run/containerd/containerd.sock', '/tmp/.X11-unix/X0', '/run/nscd/socket')))", "ENOENT", "EPERM"),
    Attempt("the sockets it inherited", """
said = []
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        inherited = socket.socket(fileno=os.dup(fd))
    except OSError:
        continue
    with inherited:
        for address in (host.stream, host.abstract, ("127.0.0.1", host.tcp4)):
            said.append(attempt(inherited.connect, address))
"done" if "done" in said else "refused" if said else "none to try" """, "refused", control=False),
    Attempt("io_uring", "each(attempt(call, 'io_uring_setup', 1, b'\\0' * 120), attempt(call, 'io_uring_enter', 0,"
            " 0, 0, 0),"
            " attempt(call, 'io_uring_register', 0, 0, 0, 0))", "EPERM"),
    Attempt("devices by sockets", "import fcntl\n"
            "attempt(fcntl.ioctl, socket.socket(socket.AF_UNIX), 0x8927, b'lo' + b'\\0' * 38)", "EPERM"),
)  # fmt: skip
GROUPS = {"network": NETWORK}
