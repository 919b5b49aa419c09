"""Files in and out of a workspace that is hostile: everything code can put there, before and while one copies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernelrepl.errors import WorkspaceFileRefused
from kernelrepl.workspaces import beneath
from kernelrepl.workspaces.files import fetch, list_files, read_into, shown, write_from
from tests.support.mcp_hosts import COMMAND, DEADLINE_S, Place, command

SECRET = b"the secret of somebody else"
ROUNDS = 3000
"""How often a name is flipped while it is read."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(params=["openat2", "step by step"])
def _opening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to open a name; all that is refused is refused by both."""
    if request.param == "openat2":
        if not beneath.has_openat2():
            pytest.skip("this kernel has no openat2")
    else:
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)


@pytest.fixture
def root(tmp_path: Path, _opening: None) -> Path:
    path = tmp_path / "workspace"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file beside the workspace, in a directory of its own."""
    path = tmp_path / "outside" / "secret"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def contents(root: Path, path: str, limit: int = 1_000_000) -> bytes:
    out = io.BytesIO()
    assert read_into(root, path, out, limit) == len(out.getvalue())
    return out.getvalue()


def refusal(root: Path, path: str, limit: int = 1_000_000) -> str:
    """Why reading is refused. Nothing may have been written by then."""
    out = io.BytesIO()
    with pytest.raises(WorkspaceFileRefused) as caught:
        read_into(root, path, out, limit)
    assert out.getvalue() == b""
    return str(caught.value)


def put(root: Path, path: str, content: bytes = b"new", *, replace: bool = False) -> int:
    return write_from(root, path, io.BytesIO(content), replace=replace)


def put_refusal(root: Path, path: str, *, replace: bool = False) -> str:
    with pytest.raises(WorkspaceFileRefused) as caught:
        put(root, path, replace=replace)
    return str(caught.value)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# Plain files


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 12_000])
def test_a_file_comes_out_and_goes_in_as_it_is(root: Path, content: bytes) -> None:
    """Empty ones, and ones that are longer than a piece."""
    assert put(root, "there/and/back", content) == len(content)
    assert contents(root, "there/and/back", 10_000_000) == content
    assert stat.S_IMODE((root / "there/and/back").stat().st_mode) == 0o644
    assert names(root / "there/and") == ["back"]


@pytest.mark.parametrize("path", ["a/b", "./a/b", "a//b", "a/./b"])
def test_a_path_may_be_spelled_differently(root: Path, path: str) -> None:
    """As the shell completes it."""
    put(root, path)
    assert (root / "a" / "b").read_bytes() == b"new"
    assert contents(root, path) == b"new"


def test_a_fetched_file_has_the_rights_that_new_files_have(root: Path, tmp_path: Path) -> None:
    """Not those that code gave it: it is nobody's program yet."""
    put(root, "program")
    (root / "program").chmod(0o6777)
    assert fetch(root, "program", tmp_path / "program") == 3
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "program").stat().st_mode) == 0o666 & ~mask


def test_nothing_stays_open(root: Path, secret: Path) -> None:
    """After successes and refusals of every kind."""
    (root / "link").symlink_to(secret)
    os.mkfifo(root / "pipe")
    before = descriptors()
    for n in range(20):
        put(root, f"deep/er/{n}")
        contents(root, f"deep/er/{n}")
        list_files(root, 3)
        for path in ("link", "pipe", "deep", "none", "link/x"):
            refusal(root, path)
        put_refusal(root, "link/x")
        put_refusal(root, "deep")
    assert descriptors() == before


# Ways out


@pytest.mark.parametrize("path", ["../outside/secret", "a/../../outside/secret", "a/..", "..", "a/../b"])
def test_dots_lead_nowhere(root: Path, secret: Path, path: str) -> None:
    """Not even those that would stay inside: what is before them may be moved meanwhile."""
    put(root, "a/x")
    assert "'..'" in refusal(root, path)
    assert "'..'" in put_refusal(root, path, replace=True)
    assert secret.read_bytes() == SECRET


def test_an_absolute_path_is_refused(root: Path, secret: Path) -> None:
    """It would name files of the machine."""
    for path in (str(secret), "/etc/passwd", str(root / "a")):
        assert "absolute path" in refusal(root, path)
        assert "absolute path" in put_refusal(root, path, replace=True)
    assert secret.read_bytes() == SECRET


@pytest.mark.parametrize("path", ["", ".", "./", "./."])
def test_the_workspace_itself_is_no_file(root: Path, path: str) -> None:
    """There is a list for it."""
    assert "--list" in refusal(root, path)
    assert "--list" in put_refusal(root, path)


@pytest.mark.parametrize("path", ["a\0b", "a\ud800b"])
def test_what_no_name_can_have_is_refused(root: Path, path: str) -> None:
    """And not cut at the NUL."""
    put(root, "a")
    assert "no name that a file can have" in refusal(root, path)
    assert "no name that a file can have" in put_refusal(root, path)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_to_a_file_is_not_followed(root: Path, secret: Path, absolute: bool) -> None:
    """The refusal says what to do instead."""
    (root / "link").symlink_to(secret if absolute else "../outside/secret")
    reason = refusal(root, "link")
    assert "symbolic link" in reason
    assert "shutil.copyfile" in reason


def test_a_link_inside_the_workspace_is_not_followed_either(root: Path) -> None:
    """Where it leads may change at any time."""
    put(root, "file")
    (root / "link").symlink_to("file")
    assert "symbolic link" in refusal(root, "link")


def test_a_linked_directory_is_not_followed(root: Path, secret: Path) -> None:
    """Neither in the middle nor to make something behind it."""
    (root / "a").mkdir()
    (root / "a" / "out").symlink_to(secret.parent)
    assert "symbolic link" in refusal(root, "a/out/secret")
    for path in ("a/out/secret", "a/out/new", "a/out/new/er"):
        assert "link" in put_refusal(root, path, replace=True) or "no directory" in put_refusal(root, path)
    assert names(secret.parent) == ["secret"]
    assert secret.read_bytes() == SECRET


def test_a_magic_link_is_not_followed(root: Path) -> None:
    """A link to /proc leads to what this process has open."""
    (root / "self").symlink_to("/proc/self/root")
    (root / "fd").symlink_to("/proc/self/fd/0")
    assert "symbolic link" in refusal(root, "self/etc/passwd")
    assert "symbolic link" in refusal(root, "fd")


def test_a_workspace_that_is_a_link_is_refused(root: Path, secret: Path, tmp_path: Path) -> None:
    """Or that is not there; the refusal says how it comes back."""
    (tmp_path / "linked").symlink_to(secret.parent)
    for place in (tmp_path / "linked", tmp_path / "none"):
        assert "running code in its session" in refusal(place, "secret")
        assert "running code in its session" in put_refusal(place, "secret", replace=True)
        with pytest.raises(WorkspaceFileRefused):
            list_files(place)


# Things that are no files


def test_a_pipe_does_not_make_us_wait(root: Path) -> None:
    """Nobody ever writes into it."""
    os.mkfifo(root / "pipe")
    reason = refusal(root, "pipe")
    assert "pipe" in reason
    assert "only files can be copied" in reason


def test_a_pipe_with_a_writer_is_refused(root: Path) -> None:
    """What is in it is not taken out."""
    os.mkfifo(root / "pipe")
    held = os.open(root / "pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(held, b"x")
        assert "pipe" in refusal(root, "pipe")
        assert os.read(held, 10) == b"x"
    finally:
        os.close(held)


def test_a_socket_is_refused(root: Path) -> None:
    """Whether or not somebody listens."""
    with contextlib.chdir(root), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        listener.listen()
        assert "socket" in refusal(root, "socket")
    assert "socket" in refusal(root, "socket")


@pytest.mark.parametrize(("kind", "number"), [(stat.S_IFCHR, (1, 5)), (stat.S_IFCHR, (5, 0)), (stat.S_IFBLK, (7, 250))])
def test_a_device_is_refused(root: Path, kind: int, number: tuple[int, int]) -> None:
    """/dev/zero, a terminal, and a disk that is not there."""
    try:
        os.mknod(root / "device", kind | 0o600, os.makedev(*number))
    except PermissionError:
        pytest.skip("devices cannot be made here")
    reason = refusal(root, "device")
    assert "device" in reason or "must not be opened" in reason
    assert "file" not in [entry.kind for entry in list_files(root).entries]


def test_a_directory_is_refused(root: Path) -> None:
    """The refusal says to name files."""
    put(root, "d/f")
    assert "name the files in it" in refusal(root, "d")
    assert "no directory" in refusal(root, "d/f/g")
    assert "is a directory" in put_refusal(root, "d", replace=True)
    assert "no directory" in put_refusal(root, "d/f/g", replace=True)


def test_what_is_not_there_is_said(root: Path) -> None:
    """With the command that shows what is."""
    for path in ("none", "no/thing"):
        reason = refusal(root, path)
        assert "is not there" in reason
        assert "--list" in reason


def test_a_hard_link_is_refused(root: Path, secret: Path) -> None:
    """A second name may be that of a file outside."""
    os.link(secret, root / "mine")
    assert "hard links" in refusal(root, "mine")


@as_root
def test_a_file_of_another_user_is_refused(root: Path) -> None:
    """As that of a hard link whose name has gone between opening and asking."""
    put(root, "file")
    os.chown(root / "file", 12345, 12345)
    assert "another user" in refusal(root, "file")


def test_a_file_under_a_lease_does_not_make_us_wait(root: Path) -> None:
    """Who holds a lease can keep an ordinary open waiting for a minute."""
    put(root, "file")
    previous = signal.signal(signal.SIGIO, signal.SIG_IGN)
    held = os.open(root / "file", os.O_RDWR)
    try:
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert "try again" in refusal(root, "file")
    finally:
        os.close(held)
        signal.signal(signal.SIGIO, previous)
    assert contents(root, "file") == b"new"


# Sizes


def test_a_sparse_file_does_not_fill_the_disk(root: Path, tmp_path: Path) -> None:
    """A terabyte that takes no place in there would take a terabyte out here."""
    with (root / "huge").open("wb") as file:
        file.truncate(1 << 40)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(WorkspaceFileRefused, match="1000000000 bytes, which is the limit; --max-bytes"):
        fetch(root, "huge", out / "huge")
    assert names(out) == []
    assert [(entry.path, entry.size) for entry in list_files(root).entries] == [("huge", 1 << 40)]


def test_the_limit_is_exact(root: Path, tmp_path: Path) -> None:
    """A file of just that size passes, in both directions."""
    content = b"x" * 1000
    put(root, "file", content)
    assert contents(root, "file", 1000) == content
    assert "more than 999 bytes" in refusal(root, "file", 999)
    assert write_from(root, "in", io.BytesIO(content), 1000) == 1000
    with pytest.raises(WorkspaceFileRefused, match="more than 999 bytes"):
        write_from(root, "over", io.BytesIO(content), 999)
    assert names(root) == ["file", "in"]


def test_a_file_that_grows_while_it_is_read_ends_at_the_limit(root: Path, tmp_path: Path) -> None:
    """The size that it had when it was opened does not count; nothing of it stays."""
    (root / "growing").write_bytes(b"x")

    class Feeding(io.BytesIO):
        def write(self, data: object) -> int:
            with (root / "growing").open("ab") as file:
                file.write(b"y" * 50_000)
            return super().write(data)  # type: ignore[arg-type]

    out = Feeding()
    with pytest.raises(WorkspaceFileRefused, match="more than 1000000 bytes"):
        read_into(root, "growing", out, 1_000_000)
    assert len(out.getvalue()) <= 1_000_000


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system refuses to write more into a file, as it does when a disk or a quota is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [65_537, 200_000, 3_000_000])
def test_a_write_that_fails_leaves_nothing(root: Path, tmp_path: Path, size: int) -> None:
    """Outside it is an error of the system, inside a refusal; also if only the last byte does not fit."""
    (root / "big").write_bytes(b"x" * size)
    out = tmp_path / "out"
    out.mkdir()
    with files_up_to(65_536):
        with pytest.raises(OSError, match="File too large"):
            fetch(root, "big", out / "big")
        with pytest.raises(WorkspaceFileRefused, match="File too large"):
            put(root, "new", b"x" * size)
    assert (names(out), names(root)) == ([], ["big"])


# What is there already


@pytest.fixture
def occupied() -> dict[str, Callable[[Path, Path], None]]:
    """What may have the name of a new file."""
    return {
        "file": lambda path, secret: path.write_bytes(b"old") and None,
        "link": lambda path, secret: path.symlink_to(secret),
        "dangling": lambda path, secret: path.symlink_to(secret.parent / "made by a link"),
        "pipe": lambda path, secret: os.mkfifo(path),
        "hard link": lambda path, secret: os.link(secret, path),
    }


@pytest.mark.parametrize("what", ["file", "link", "dangling", "pipe", "hard link"])
def test_what_is_there_stays_without_force(
    root: Path, secret: Path, what: str, occupied: dict[str, Callable[[Path, Path], None]]
) -> None:
    """And with it the name is given to the new file; what it meant before is not touched."""
    occupied[what](root / "name", secret)
    reason = put_refusal(root, "name")
    assert "is there already; --force replaces it" in reason
    assert names(root) == ["name"]
    assert put(root, "name", replace=True) == 3
    assert not (root / "name").is_symlink()
    assert (root / "name").read_bytes() == b"new"
    assert (names(secret.parent), secret.read_bytes()) == (["secret"], SECRET)
    assert names(root) == ["name"]


@pytest.mark.parametrize("noreplace", [True, False])
def test_what_is_made_while_one_copies_stays(root: Path, monkeypatch: pytest.MonkeyPatch, noreplace: bool) -> None:
    """Code may have written something of the same name in the meantime; also where the system cannot rename so."""
    if not noreplace:
        monkeypatch.setattr(beneath, "_RENAME_NOREPLACE", 1 << 30)

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            (root / "name").write_bytes(b"of the session")
            return super().read(size)

    with pytest.raises(WorkspaceFileRefused, match="--force"):
        write_from(root, "name", Slow(b"new"))
    assert (names(root), (root / "name").read_bytes()) == (["name"], b"of the session")


def test_a_fetched_file_replaces_only_with_force(root: Path, tmp_path: Path) -> None:
    """A link that has the name is replaced, not written through."""
    put(root, "file")
    target, other = tmp_path / "file", tmp_path / "other"
    other.write_bytes(b"other")
    target.symlink_to(other)
    with pytest.raises(FileExistsError):
        fetch(root, "file", target)
    assert fetch(root, "file", target, replace=True) == 3
    assert (target.is_symlink(), target.read_bytes(), other.read_bytes()) == (False, b"new", b"other")


def test_a_refused_file_leaves_the_old_one(root: Path, secret: Path, tmp_path: Path) -> None:
    """Even with force."""
    (root / "link").symlink_to(secret)
    target = tmp_path / "kept"
    target.write_bytes(b"old")
    before = names(tmp_path)
    with pytest.raises(WorkspaceFileRefused):
        fetch(root, "link", target, replace=True)
    assert (target.read_bytes(), names(tmp_path)) == (b"old", before)


def test_a_source_that_fails_leaves_nothing(root: Path) -> None:
    """Its error is not blamed on the workspace."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"):
        write_from(root, "name", Broken())
    assert names(root) == []


@as_root
def test_what_root_puts_in_belongs_to_the_workspace(root: Path) -> None:
    """Files and the directories that were made for them, not those that were there."""
    (root / "there").mkdir()
    os.chown(root, 12345, 54321)
    put(root, "there/made/file")
    owners = {path: (path.stat().st_uid, path.stat().st_gid) for path in sorted(root.rglob("*"))}
    assert owners == {
        root / "there": (0, 0),
        root / "there/made": (12345, 54321),
        root / "there/made/file": (12345, 54321),
    }
    assert contents(root, "there/made/file") == b"new"


@as_root
def test_only_what_root_made_itself_is_given_away(root: Path) -> None:
    """Code of the session has put another directory of root's in the place of the new one, at every moment."""
    precious = root / "precious"
    precious.mkdir()
    os.chown(root, 12345, 12345)
    real = os.mkdir

    def mkdir_and_swap(path: object, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode, dir_fd=dir_fd)  # type: ignore[arg-type]
        if (root / "made").exists():
            (root / "made").rename(root / "gone")
            precious.rename(root / "made")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir_and_swap)
        with contextlib.suppress(WorkspaceFileRefused):
            put(root, "made/file")
    kept = precious if precious.exists() else root / "made"
    made = root / "gone" if precious not in (kept,) else root / "made"
    assert (kept.stat().st_uid, made.stat().st_uid) == (0, 12345)
    assert names(root.parent) == ["workspace"]


# Names that change while one copies


@contextlib.contextmanager
def flipping(flip: Callable[[int], None]) -> Iterator[threading.Event]:
    """A thread that changes names again and again; the event is set when it has done its rounds."""
    done, stop = threading.Event(), threading.Event()
    broken: list[BaseException] = []

    def work() -> None:
        try:
            for n in range(ROUNDS):
                if stop.is_set():
                    return
                flip(n)
        except BaseException as error:
            broken.append(error)
            raise
        finally:
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        assert not broken


def flip_file(root: Path, secret: Path) -> Callable[[int], None]:
    """`name` is a file of the session, then a link to the secret, and so on."""

    def flip(n: int) -> None:
        fresh = root / "fresh"
        if n % 2:
            fresh.write_bytes(b"mine")
        else:
            fresh.symlink_to(secret)
        fresh.rename(root / "name")

    return flip


def flip_directory(root: Path, secret: Path) -> Callable[[int], None]:
    """`name` is a directory of the session, then a link to the directory of the secret, and so on."""
    (root / "name").mkdir()
    (root / "name" / "secret").write_bytes(b"mine")
    (root / "other").symlink_to(secret.parent)

    def flip(n: int) -> None:
        # Both names at once: there is always one of the two behind the name.
        assert beneath.libc().renameat2(-100, bytes(root / "name"), -100, bytes(root / "other"), 2) == 0

    return flip


def test_a_name_that_flips_to_a_link_never_leaks(root: Path, secret: Path) -> None:
    """What comes out is the session's own, or nothing."""
    seen = {"mine": 0, "refused": 0}
    with flipping(flip_file(root, secret)) as done:
        while not done.is_set():
            out = io.BytesIO()
            try:
                read_into(root, "name", out)
            except WorkspaceFileRefused:
                seen["refused"] += 1
                assert out.getvalue() == b""
            else:
                seen["mine"] += 1
                assert out.getvalue() == b"mine"
    assert min(seen.values()) > 0, seen


def test_a_directory_that_flips_to_a_link_never_leaks(root: Path, secret: Path) -> None:
    """Neither to read nor to write behind it, nor in the list."""
    seen = {"mine": 0, "refused": 0}
    (secret.parent / "only outside").touch()
    with flipping(flip_directory(root, secret)) as done:
        while not done.is_set():
            with contextlib.suppress(WorkspaceFileRefused):
                put(root, "name/put", replace=True)
            assert not [entry for entry in list_files(root).entries if "only outside" in entry.path]
            out = io.BytesIO()
            try:
                read_into(root, "name/secret", out)
            except WorkspaceFileRefused:
                seen["refused"] += 1
            else:
                seen["mine"] += 1
                assert out.getvalue() == b"mine"
    assert min(seen.values()) > 0, seen
    assert (names(secret.parent), secret.read_bytes()) == (["only outside", "secret"], SECRET)


def test_a_target_that_flips_to_a_link_is_never_written_through(root: Path, secret: Path) -> None:
    """Renaming gives the name away; it follows nothing."""
    with flipping(flip_file(root, secret)) as done:
        while not done.is_set():
            put(root, "name", replace=True)
            with contextlib.suppress(WorkspaceFileRefused):
                put(root, "name")
    assert secret.read_bytes() == SECRET


# Systems without openat2

_WITHOUT = """
import ctypes, struct, sys, io
from pathlib import Path
from kernelrepl.workspaces import beneath, files
from kernelrepl.errors import WorkspaceFileRefused
# Load the number of the system call; openat2 fails with the error that was asked for, all others are allowed.
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x50000 | int(sys.argv[1])), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("HBBI", *step) for step in steps)
held = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(held))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(77)
assert not beneath.has_openat2()
root = Path(sys.argv[2])
files.write_from(root, "a/b", io.BytesIO(b"new"))
out = io.BytesIO()
files.read_into(root, "a/b", out)
assert out.getvalue() == b"new"
for path in ("link", "out/secret"):
    try:
        files.read_into(root, path, io.BytesIO())
    except WorkspaceFileRefused as error:
        print(error)
"""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_system_without_openat2_is_found_out(tmp_path: Path, secret: Path, number: int) -> None:
    """An old kernel says that it does not know it, an old container that it is forbidden."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "link").symlink_to(secret)
    (root / "out").symlink_to(secret.parent)
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(number), str(root)], capture_output=True, text=True, timeout=DEADLINE_S
    )
    if done.returncode == 77:
        pytest.skip("no filter can be set here")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("symbolic link") == 2


# Lists and names

UGLY = {
    b"plain": "plain",
    "größe.csv".encode(): "größe.csv",
    b"bell\x07\x1b[31m": "bell\\x07\\x1b[31m",
    b"two\nlines\ttab": "two\\nlines\\ttab",
    b"latin\xe9": "latin\\xe9",
    "c1\x85".encode(): "c1\\u0085",
    "left\u202eright".encode(): "left\\u202eright",
    "tag\U000e0041".encode(): "tag\\U000e0041",
    b"back\\slash": "back\\\\slash",
    b"\xff\xfe": "\\xff\\xfe",
}


@pytest.mark.parametrize("name", UGLY)
def test_a_name_is_shown_without_acting_on_a_terminal(root: Path, name: bytes) -> None:
    """Lists and refusals escape it in such a way that bash reads it back; the file can be copied all the same."""
    path = os.fsdecode(name)
    put(root, path)
    assert contents(root, path) == b"new"
    [entry] = list_files(root).entries
    assert (entry.path, entry.kind, entry.size) == (UGLY[name], "file", 3)
    assert shown(path).isprintable()
    reason = refusal(root, path, 2)
    assert reason.isprintable()
    assert UGLY[name] in reason
    back = subprocess.run(["bash", "-c", f"printf %s $'{shown(path)}'"], capture_output=True, env={"LC_ALL": "C.UTF-8"})
    assert back.stdout == name


def test_a_long_name_is_shown_short(root: Path) -> None:
    """As a refusal; a name that is too long for the system is one."""
    for path in ("n" * 5000, "d/" * 5000):
        assert len(refusal(root, path)) < 400


def test_a_list_says_what_things_are(root: Path, secret: Path) -> None:
    """Links are shown and not followed."""
    put(root, "d/file", b"12345")
    (root / "link").symlink_to(secret)
    (root / "out").symlink_to(secret.parent)
    os.mkfifo(root / "pipe")
    listing = list_files(root)
    assert [(entry.path, entry.kind) for entry in listing.entries] == [
        ("d", "directory"),
        ("d/file", "file"),
        ("link", "symbolic link"),
        ("out", "symbolic link"),
        ("pipe", "pipe"),
    ]
    assert (listing.more, listing.closed) == (False, [])


def test_a_list_has_an_end(root: Path) -> None:
    """At exactly as many as were asked for there is no more; one more is said and not shown."""
    for n in range(30):
        (root / f"d{n % 3}").mkdir(exist_ok=True)
        (root / f"d{n % 3}" / str(n)).touch()
    assert not list_files(root, 33).more
    listing = list_files(root, 32)
    assert (len(listing.entries), listing.more) == (32, True)
    assert {"d0", "d1", "d2"} <= {entry.path for entry in list_files(root, 5).entries}
    assert list_files(root, 0).entries == []


def test_a_list_of_a_deep_tree_has_an_end(root: Path) -> None:
    """Deeper than a path can be long, and deeper than Python can call."""
    at = os.open(root, os.O_RDONLY)
    for _ in range(900):
        os.mkdir("directory", dir_fd=at)
        below = os.open("directory", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    try:
        listing = list_files(root)
        assert len(listing.entries) >= 400
        assert listing.closed or len(listing.entries) == 900
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=True)


def test_a_directory_that_is_closed_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may look into all of them, so it is asked in a process that is not root."""
    put(root, "closed/file")
    (root / "closed").chmod(0)
    code = (
        "import sys, os, pathlib\nfrom kernelrepl.workspaces.files import list_files\nos.getuid() or os.setuid(12345)\n"
    )
    code += "print(list_files(pathlib.Path(sys.argv[1])).closed)"
    if os.geteuid() == 0:
        open_way = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
        open_way.chmod(0o755)
        root = root.rename(open_way / "workspace")
        root.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True)
    if os.geteuid() == 0:
        subprocess.run(["rm", "-rf", str(root.parent)], check=True)
    else:
        (root / "closed").chmod(0o700)
    assert done.stdout == "['closed']\n", done.stderr


# The commands


def test_files_go_in_and_come_out_by_command(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """The session reads what was put, and what it writes is got."""
    (tmp_path / "in.txt").write_text("41")
    assert command(shared_environ, "exec", "-s", "files", "1").returncode == 0
    done = command(shared_environ, "put", "files", str(tmp_path / "in.txt"), "--to", "data/raw")
    assert (done.returncode, done.stdout, done.stderr) == (0, "data/raw/in.txt: 2 bytes\n", "")
    code = "n = open('data/raw/in.txt').read()\nopen('data/out.txt', 'w').write(str(int(n) + 1))"
    assert command(shared_environ, "exec", "-s", "files", code).returncode == 0
    out = tmp_path / "new" / "er"
    done = command(shared_environ, "get", "files", "data/out.txt", "data/raw/in.txt", "--to", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}/out.txt: 2 bytes\n{out}/in.txt: 2 bytes\n"
    assert ((out / "out.txt").read_text(), (out / "in.txt").read_text()) == ("42", "41")
    done = command(shared_environ, "get", "files", "data/out.txt", "data/raw/in.txt", "--to", "-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "4241", "")


def test_get_copies_to_the_current_directory(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """Where nothing is replaced without --force."""
    command(shared_environ, "exec", "-s", "here", "open('f', 'w').write('new')")
    arguments = [str(COMMAND), "get", "here", "f"]
    for options, code, content in (([], 0, "new"), ([], 1, "old"), (["--force"], 0, "new")):
        done = subprocess.run([*arguments, *options], env=shared_environ, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert (tmp_path / "f").read_text() == content
        (tmp_path / "f").write_text("old")
        assert ("--force" in done.stderr) == bool(code)


def test_put_replaces_only_with_force(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """The refusal is one line that says so."""
    (tmp_path / "f").write_text("new")
    command(shared_environ, "exec", "-s", "force", "open('f', 'w').write('old')")
    done = command(shared_environ, "put", "force", str(tmp_path / "f"))
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line == "kernelrepl: 'f' is there already; --force replaces it"
    assert command(shared_environ, "put", "force", str(tmp_path / "f"), "--force").returncode == 0
    assert command(shared_environ, "exec", "-s", "force", "open('f').read()").stdout == "'new'\n"


def test_workspace_prints_the_path_and_the_files(shared_environ: dict[str, str]) -> None:
    """The path alone can be used in scripts."""
    code = "import os\nopen('f', 'w').write('123')\nos.mkdir('d')\nos.symlink('/', 'root')\n"
    code += "open(b'\\x1b[2J\\xff', 'w').close()"
    command(shared_environ, "exec", "-s", "listed", code)
    root = Place(shared_environ).file("", "listed")
    done = command(shared_environ, "workspace", "listed")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{root}\n", "")
    done = command(shared_environ, "workspace", "listed", "--list")
    lines = [line.split(None, 1) for line in done.stdout.splitlines()[1:]]
    assert ["3", "f"] in lines
    assert ["0", "\\x1b[2J\\xff"] in lines
    assert re.search(r"\(directory\)  d$", done.stdout, re.M)
    assert re.search(r"\(symbolic link\)  root$", done.stdout, re.M)


def test_a_long_list_says_that_there_is_more(shared_environ: dict[str, str]) -> None:
    """On stderr, so that a script may count lines."""
    command(shared_environ, "exec", "-s", "many", "for n in range(1100): open(str(n), 'w').close()")
    done = command(shared_environ, "workspace", "many", "--list")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1001
    assert "only the first 1000" in done.stderr


@pytest.mark.slow
def test_code_that_lays_traps_gets_refusals(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """Each is one line on stderr with exit code 1, and nothing is copied."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    out = tmp_path / "out"
    code = f"""
import os
os.symlink({str(secret)!r}, 'link')
os.symlink({str(tmp_path)!r}, 'directory')
os.mkfifo('pipe')
open('huge', 'w').truncate(1 << 40)
"""
    without_limit = {**shared_environ, "KERNELREPL_MAX_WORKSPACE_BYTES": "unlimited"}
    assert command(without_limit, "exec", "-s", "traps", code).returncode == 0
    # A confined session cannot make it; what was there before the sandbox may have it.
    os.link(secret, Path(command(shared_environ, "workspace", "traps").stdout.strip()) / "hard")
    for path, word in (
        ("link", "symbolic link"),
        ("directory/secret", "symbolic link"),
        ("hard", "hard links"),
        ("pipe", "pipe"),
        ("huge", "--max-bytes"),
        ("directory", "symbolic link"),
        ("../x", "'..'"),
        (str(secret), "absolute path"),
        ("none", "is not there"),
        (".", "name a file in it"),
    ):
        for target in (str(out), "-"):
            done = command(shared_environ, "get", "traps", path, "--to", target, "--force")
            assert (done.returncode, done.stdout) == (1, "")
            [line] = done.stderr.splitlines()
            assert line.startswith("kernelrepl: ")
            assert word in line
    assert names(out) == []
    done = command(shared_environ, "put", "traps", str(secret), "--to", "directory", "--force")
    assert (done.returncode, done.stdout) == (1, "")
    assert secret.read_bytes() == SECRET


def test_max_bytes_is_kept(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """By both commands."""
    (tmp_path / "f").write_text("12345")
    command(shared_environ, "exec", "-s", "max", "1")
    done = command(shared_environ, "put", "max", str(tmp_path / "f"), "--max-bytes", "4")
    assert (done.returncode, done.stdout) == (1, "")
    assert "more than 4 bytes" in done.stderr
    assert command(shared_environ, "put", "max", str(tmp_path / "f"), "--max-bytes", "5").returncode == 0
    assert "more than 4 bytes" in command(shared_environ, "get", "max", "f", "--to", "-", "--max-bytes", "4").stderr


def test_a_session_that_is_not_there_is_said(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """With a close name; put says how to make it."""
    (tmp_path / "f").touch()
    command(shared_environ, "exec", "-s", "analysis", "1")
    for arguments in (("workspace", "analysys"), ("get", "analysys", "f"), ("put", "analysys", str(tmp_path / "f"))):
        done = command(shared_environ, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert "there is no session 'analysys': did you mean 'analysis'?" in line
        assert ("create it first by running code" in line) == (arguments[0] == "put")
    assert "`kernelrepl sessions`" in command(shared_environ, "workspace", "nothing-like-it").stderr
    done = command(shared_environ, "put", "nothing-like-it", str(tmp_path / "f"))
    assert "create it first by running code in it, for example `kernelrepl exec -s nothing-like-it 1`" in done.stderr
    assert "session name 'no/name'" in command(shared_environ, "workspace", "no/name").stderr


def test_files_outside_that_cannot_be_copied_are_said(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """One line, no traceback."""
    command(shared_environ, "exec", "-s", "outside", "open('f', 'w').write('x')")
    (tmp_path / "file").touch()
    (tmp_path / "d" / "f").mkdir(parents=True)
    for arguments, word in (
        (("put", "outside", str(tmp_path / "none")), "No such file"),
        (("put", "outside", "a/f", "b/f"), "two of the files are called 'f'"),
        (("get", "outside", "f", "d/f", "--to", str(tmp_path)), "two of the files are called 'f'"),
        (("get", "outside", "f", "--to", str(tmp_path / "file")), "cannot be copied"),
        (("get", "outside", "f", "--to", str(tmp_path / "d"), "--force"), "cannot be copied: Is a directory"),
        (("get", "outside", "f", "--to", "/proc/self"), "cannot be copied"),
    ):
        done = command(shared_environ, *arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        [line] = done.stderr.splitlines()
        assert line.startswith("kernelrepl: ")
        assert word in line
    assert names(tmp_path / "d") == ["f"]


def test_a_reader_may_stop_early(shared_environ: dict[str, str]) -> None:
    """As `head` does."""
    command(shared_environ, "exec", "-s", "pipes", "open('f', 'w').write('line\\n' * 1_000_000)")
    line = f"{COMMAND} get pipes f --to - | head -n 1"
    done = subprocess.run(["bash", "-c", line], env=shared_environ, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.stdout, done.stderr) == ("line\n", "")


def test_a_workspace_that_was_removed_comes_back_with_code(environ: dict[str, str], tmp_path: Path) -> None:
    """As the refusal says."""
    command(environ, "exec", "-s", "s", "1")
    command(environ, "stop")
    root = Place(environ).file("", "s")
    root.rmdir()
    (tmp_path / "f").touch()
    done = command(environ, "put", "s", str(tmp_path / "f"))
    assert done.returncode == 1
    assert "running code in its session makes it again" in done.stderr
    command(environ, "exec", "-s", "s", "1")
    assert command(environ, "put", "s", str(tmp_path / "f")).returncode == 0
