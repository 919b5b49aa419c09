"""Attempts on the keeper: by the protocol it speaks with a kernel, and by what it does for its user."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os

from kernelrepl.errors import InvalidSessionId, KernelReplError, WorkspaceFileRefused
from kernelrepl.outputs import notebook, sanitize
from kernelrepl.workspaces import files, removal, usage
from tests.attacks.arena import Arena
from tests.attacks.attempt import THROUGH, Attempt, Scenario

CHANNEL = "channel = get_ipython().kernel.saving.channel\n"
KERNEL = "kernel = get_ipython().kernel\nfrom jupyter_client.session import Session\n"


def survives(code: str) -> Scenario:
    """Whatever it does, it costs this kernel: another session notices nothing, and this one goes on."""

    async def scenario(arena: Arena) -> str:
        await arena.sessions.run("kept = 7", "other")
        await arena.sessions.run("kept = 8")
        told = f"import types\nhost = types.SimpleNamespace(**{arena.targets.known()!r})\n"
        with contextlib.suppress(KernelReplError):
            await arena.sessions.run("import os, socket, sys, time\n" + told + code, timeout_s=20.0)
        values = await arena.sessions.value("kept"), await arena.sessions.value("kept", "other")
        return "its own loss" if values == ("8", "7") else f"{THROUGH}: {values}"

    return scenario


async def forged_reply(arena: Arena) -> str:
    """What a kernel says of another request than the one it runs is not believed."""
    code = KERNEL + (
        "for parent in ('forged', ''):\n"
        "    header = {'header': {'msg_id': parent, 'session': 'x', 'username': 'x', 'date': '2020', 'version': '5.3',"
        " 'msg_type': 'execute_request'}}\n"
        "    kernel.session.send(kernel.iopub_socket, 'stream', {'name': 'stdout', 'text': 'forged'}, parent=header)\n"
        "    kernel.session.send(kernel.iopub_socket, 'status', {'execution_state': 'idle'}, parent=header)\n"
        "1"
    )
    await arena.sessions.run("y = 1", "other")
    execution = await arena.sessions.run(code)
    other = await arena.sessions.run("print('true')", "other")
    told = execution.output.stdout + other.output.stdout
    return "not believed" if told == "true\n" else f"{THROUGH}: {told!r}"


async def forged_idle(arena: Arena) -> str:
    """Saying that it is idle does not end an execution."""
    code = KERNEL + (
        "kernel.session.send(kernel.iopub_socket, 'status', {'execution_state': 'idle'}, parent=kernel.get_parent())\n"
        "import time; time.sleep(0.3); z = 'after'"
    )
    execution = await arena.sessions.run(code)
    return "not believed" if "z" in execution.saved.created else THROUGH


async def wrong_key(arena: Arena) -> str:
    """Messages that are signed with another key are nobody's."""
    code = KERNEL + (
        "other = Session(key=b'wrong')\n"
        "other.send(kernel.iopub_socket, 'stream', {'name': 'stdout', 'text': 'forged'}, parent=kernel.get_parent())\n"
    )
    execution = await arena.sessions.run(code)
    return "not believed" if "forged" not in execution.output.stdout else THROUGH


async def asks_for_input(arena: Arena) -> str:
    """There is no keyboard: an error, at once, however often."""
    code = "n = 0\nfor _ in range(1000):\n    try:\n        input()\n    except Exception:\n        n += 1\nn"
    return "an error each" if await arena.sessions.value(code) == "1000" else THROUGH


async def markup(arena: Arena) -> str:
    """What acts in a notebook does not come through as it is."""
    html = "<script>act()</script><b onclick=act()>b</b><img src=x onerror=act()>"
    code = f"from IPython.display import HTML, Javascript, display\ndisplay(HTML({html!r}), Javascript('act()'))"
    execution = await arena.sessions.run(code)
    shown = [sanitize.bundle(found.get("data", {}))[0] for found in notebook.outputs(execution.output)]
    text = repr(shown)
    return "not shown" if len(shown) == 2 and "act()" not in text else f"{THROUGH}: {text[:300]}"


# The keeper as a deputy


async def odd_ids(arena: Arena) -> str:
    """None of them is a session, and none a path."""
    for name in ("../x", "a/../../b", "a\0b", "x" * 300, "", ".", "..", "a\n", "\u0430dmin\u200b", "~", "a b", "-x"):
        try:
            await arena.sessions.run("1", name)
        except InvalidSessionId:
            continue
        return f"{THROUGH}: {name!r}"
    return "refused"


def planted(code: str, *names: str) -> Scenario:
    """A session lays something into its workspace, and the keeper copies it, lists it and removes all of it."""

    async def scenario(arena: Arena) -> str:
        said = await arena.outcome(code + "\n'made'")
        if said != "made":
            return said
        root = arena.workspace("s")
        files.list_files(root)
        for name in names:
            out = io.BytesIO()
            try:
                async with asyncio.timeout(10):
                    await asyncio.to_thread(files.read_into, root, name, out, 1_000_000)
            except WorkspaceFileRefused:
                with contextlib.suppress(WorkspaceFileRefused):
                    files.write_from(root, name, io.BytesIO(b"attacked"), replace=False)
                continue
            return f"{THROUGH}: {name} gave {out.getvalue()[:40]!r}"
        await arena.manager.loaded()["s"].hibernate()
        arena.manager.confinement.make_workspace(root)
        await asyncio.to_thread(removal.remove, root)
        return "refused" if not root.exists() else f"{THROUGH}: it is not removed"

    return scenario


async def swapped(arena: Arena) -> str:
    """A name that changes between a file and a link while the keeper copies it."""
    code = (
        "import threading\n"
        "def flip():\n"
        "    write('a', 'wb', b'own'); os.symlink(host.secret, 'b')\n"
        "    while not os.path.exists('stop'):\n"
        "        os.rename('a', 'x'); os.rename('b', 'a'); os.rename('x', 'b')\n"
        "        os.rename('a', 'x'); os.rename('b', 'a'); os.rename('x', 'b')\n"
        "flipping = threading.Thread(target=flip); flipping.start(); 'made'"
    )
    await arena.outcome(code)
    root, seen = arena.workspace("s"), set()
    for _ in range(2000):
        out = io.BytesIO()
        with contextlib.suppress(WorkspaceFileRefused):
            files.read_into(root, "a", out, 1_000_000)
            seen.add(out.getvalue())
    await arena.outcome("write('stop'); flipping.join(); 'stopped'")
    return "refused" if seen <= {b"own", b""} else f"{THROUGH}: {seen}"


async def swapped_while_walked(arena: Arena) -> str:
    """A directory that changes places with a link while the keeper counts, hands over and removes what is there."""
    outside = arena.manager.data_dir / "closed"
    inner = outside / "inner"
    inner.mkdir(parents=True)
    (inner / "large").write_bytes(b"x" * 3_000_000)
    os.utime(inner, (1, 1))
    inner.chmod(0)

    def seen() -> list[tuple[int, ...]]:
        return [(s.st_mode, s.st_uid, s.st_nlink, s.st_atime_ns) for s in (outside.stat(), inner.stat())]

    before = seen()
    code = (
        "import threading\n"
        f"os.makedirs('way/inner'); os.symlink({str(outside)!r}, 'link')\n"
        "def flip():\n"
        "    while True:\n"
        "        attempt(call, 'renameat2', HERE, b'way', HERE, b'link', 2)\n"
        "flipping = threading.Thread(target=flip, daemon=True); flipping.start(); 'made'"
    )
    said = await arena.outcome(code)
    if said != "made":
        return said
    root = arena.workspace("s")
    sizes = [usage.files(root, None, None).size for _ in range(3000)]
    if os.geteuid() == 0:
        confinement = arena.manager.confinement
        for _ in range(100):
            os.chown(root, 0, 0)
            confinement.make_workspace(root)
    await asyncio.to_thread(removal.remove, root)
    found = f"sizes up to {max(sizes)}, {seen()}"
    return "its own only" if max(sizes) < 3_000_000 and seen() == before else f"{THROUGH}: {found}, before {before}"


async def terminal_codes(arena: Arena) -> str:
    """Names in a list do not act on a terminal."""
    await arena.outcome("for name in ('\\x1b[2Jx', 'a\\nb', 'c\\rd', '\\udc80'): write(name)\n'made'")
    shown = "".join(entry.path for entry in files.list_files(arena.workspace("s")).entries)
    return "shown" if shown.isprintable() else f"{THROUGH}: {shown!r}"


async def handed_over(arena: Arena) -> str:
    """A keeper that gives a workspace to its user gives away nothing that is only linked there."""
    await arena.outcome("os.symlink(host.secret, 'link'); os.symlink(host.folder, 'way'); 'made'")
    await arena.manager.loaded()["s"].hibernate()
    root = arena.workspace("s")
    if os.geteuid() == 0:
        os.chown(root, 0, 0)
    arena.manager.confinement.make_workspace(root)
    return "its own only"


PROTOCOL = (
    Attempt("forge outputs of another request", forged_reply, "not believed"),
    Attempt("forge that it is idle", forged_idle, "not believed"),
    Attempt("sign with another key", wrong_key, "not believed"),
    Attempt("junk on the channel", survives(CHANNEL + "os.write(channel.fileno(), b'junk' * 1000); time.sleep(1)"),
            "its own loss"),
    Attempt("a frame without an end", survives(CHANNEL + "import struct\n"
            "os.write(channel.fileno(), struct.pack('!4sIQ', b'KRC1', 1 << 31, 1 << 62));"
            " time.sleep(1)"), "its own loss"),
    Attempt("malformed numbers and nesting", survives(CHANNEL +
            "body = b'{\"type\": \"begin\", \"request\": ' + b'[' * 100000 + b'NaN' + b']' * 100000 + b'}'\n"
            "import struct\nos.write(channel.fileno(), struct.pack('!4sIQ', b'KRC1', len(body), 0))\n"
            "channel._sock.sendall(body); time.sleep(1)"), "its own loss"),
    Attempt("read what the keeper answers", survives(CHANNEL + "channel._sock.settimeout(0.5)\nchannel._sock.recv(1"
            " << 20)"),
            "its own loss"),
    Attempt("close the channel", survives(CHANNEL + "channel.close(); time.sleep(1)"), "its own loss"),
    Attempt("close all descriptors", survives("os.closerange(3, 1000); time.sleep(1)"), "its own loss"),
    Attempt("a message of 150 MB", survives("kernel = get_ipython().kernel\nkernel.session.send(kernel.iopub_socket,"
            " 'stream', {'name': 'stdout', 'text': 'x' * 150_000_000}, parent=kernel.get_parent())"), "its own loss"),
    Attempt("very many tiny outputs", survives("for n in range(200_000): sys.stdout.write('x'); sys.stdout.flush()"),
            "its own loss"),
    Attempt("open a comm to the keeper", survives("from comm import create_comm\nfor n in range(100):\n"
            "    create_comm(target_name='jupyter.widget', data={'x': 'y' * 1000}).send({'a': 1})"), "its own loss"),
    Attempt("ask for input without end", asks_for_input, "an error each"),
    Attempt("markup that acts", markup, "not shown"),
    Attempt("listen again on what it inherited", survives("""
for fd in range(3, 40):
    try:
        sock = socket.socket(fileno=os.dup(fd))
        sock.listen(1000); sock.shutdown(socket.SHUT_RDWR); sock.close()
    except OSError:
        pass"""), "its own loss"),
)  # fmt: skip
DEPUTY = (
    Attempt("ids of sessions that are paths", odd_ids, "refused"),
    Attempt("a link for the keeper to read", planted(
            "os.symlink(host.secret, 'link'); os.symlink(os.path.dirname(host.secret), 'way');"
            " os.symlink('/proc/self/environ', 'magic')", "link", "way/secret", "magic"), "refused"),
    Attempt("a pipe for the keeper to wait for", planted("attempt(os.mkfifo, 'pipe')", "pipe"), "refused"),
    Attempt("a socket for the keeper to read", planted(
            "attempt(lambda: socket.socket(socket.AF_UNIX).bind('socket'))", "socket"), "refused"),
    Attempt("a file that is larger than the disk", planted(
            "attempt(os.truncate, os.open('sparse', os.O_CREAT | os.O_RDWR), 900_000_000)", "sparse"), "refused"),
    Attempt("a tree for the keeper to be lost in", planted(
            "for n in range(1500):\n    os.mkdir('d' * 20); os.chdir('d' * 20)\nos.symlink(host.folder, 'way')\n"
            "os.chdir(os.path.expanduser('~'))\nos.mkdir('closed'); os.chmod('closed', 0)", "../secret"), "refused"),
    Attempt("names that are no text", planted("os.mkdir(b'\\xff\\xfe'); open(b'\\xff\\xfe/\\x80',"
            " 'w').close()", "\udcff"),
            "refused"),
    Attempt("a name that is swapped while it is copied", swapped, "refused"),
    Attempt("a directory that is swapped while it is walked", swapped_while_walked, "its own only"),
    Attempt("names that act on a terminal", terminal_codes, "shown"),
    Attempt("a link in what changes hands", handed_over, "its own only"),
)  # fmt: skip
GROUPS = {"kernel protocol": PROTOCOL, "confused deputy": DEPUTY}
