"""Trees that are changed while the keeper counts, removes or gives away: it never leaves them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernelrepl.kernel.process import Launch, spawn
from kernelrepl.workspaces import beneath, directories, removal, usage
from kernelrepl.workspaces.usage import files

ROUNDS = 200
LARGE = 3_000_000
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
as_user = pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")


@pytest.fixture(params=["openat2", "step by step"], autouse=True)
def _opening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to open a name."""
    if request.param == "openat2":
        if not beneath.has_openat2():
            pytest.skip("this kernel has no openat2")
    else:
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)


class Outside:
    """A directory that nobody may touch, with a closed one of the same name as one inside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        inner = path / "inner"
        inner.mkdir(parents=True)
        (inner / "large").write_bytes(b"x" * LARGE)
        os.utime(inner, (1, 1))
        inner.chmod(0)
        self._before = self._state()

    def _state(self) -> list[tuple[int, ...]]:
        found = [os.lstat(self.path), os.lstat(self.path / "inner")]
        return [(s.st_mode, s.st_uid, s.st_nlink, s.st_ctime_ns, s.st_atime_ns) for s in found]

    def untouched(self) -> bool:
        return self._state() == self._before


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    found = Outside(tmp_path / "outside")
    yield found
    (found.path / "inner").chmod(0o700)


def workspace(tmp_path: Path, outside: Outside, depth: int = 1) -> Path:
    """Names `way` and `link` are to be swapped: `way/inner` is there behind either."""
    top = tmp_path / "workspace"
    (top / "way" / "inner").mkdir(parents=True)
    (top / "link").symlink_to(outside.path)
    with at(top):
        for _ in range(depth):
            os.mkdir("d")  # noqa: PTH102 - the path is too long for any other way
            os.chdir("d")
    return top


@contextlib.contextmanager
def at(place: Path) -> Iterator[None]:
    here = Path.cwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(here)


def swap(top: Path) -> None:
    """Both names at once; nothing if one of them is gone."""
    beneath.libc().renameat2(-100, bytes(top / "way"), -100, bytes(top / "link"), 2)


@contextlib.contextmanager
def swapping(top: Path) -> Iterator[None]:
    """A thread that does it all the time."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            swap(top)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def at_each_opening(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], number: int) -> None:
    """Do it just before directory number so and so is opened, or unlinked from, however that is done."""
    counter = itertools.count()

    def before(original: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object, **options: object) -> object:
            if next(counter) == number:
                act()
            return original(*arguments, **options)

        return called

    for name in ("open", "scandir", "stat", "rmdir", "unlink", "rename", "chown"):
        monkeypatch.setattr(os, name, before(getattr(os, name)))
    monkeypatch.setattr(beneath, "open_beneath", before(beneath.open_beneath))


# Counting


@pytest.mark.parametrize("number", range(14))
def test_a_swap_at_any_moment_of_a_count_leads_nowhere(
    tmp_path: Path, outside: Outside, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Neither sizes nor modes of what is outside."""
    top = workspace(tmp_path, outside)
    with monkeypatch.context() as patch:
        at_each_opening(patch, lambda: swap(top), number)
        found = files(top, None, None)
    assert found.size < LARGE
    assert outside.untouched()


def test_swaps_all_the_time_lead_a_count_nowhere(tmp_path: Path, outside: Outside) -> None:
    """The same without knowing when."""
    top = workspace(tmp_path, outside)
    with swapping(top):
        assert max(files(top, None, None).size for _ in range(ROUNDS)) < LARGE
    assert outside.untouched()


def test_a_tree_deeper_than_what_is_kept_open_is_counted_to_the_end(tmp_path: Path, outside: Outside) -> None:
    """With few descriptors, and on the way back up too."""
    top = workspace(tmp_path, outside, depth=3000)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = beneath.MOST_OPEN + 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, limit[1]))
    try:
        found = files(top, None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert found.count == 3003
    removal.remove(top)
    assert not top.exists()
    assert outside.untouched()


def test_a_deep_tree_that_moves_while_it_is_counted_is_too_much(
    tmp_path: Path, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way up leads elsewhere then: that is noticed, nothing there is read."""
    top = workspace(tmp_path, outside, depth=200)
    original = usage._Count.look
    counted = itertools.count()

    def look(self: usage._Count, directory: int) -> list[bytes]:
        if next(counted) == 150:
            os.rename("d/d/d/d/d/d/d/d/d/d", "moved")  # noqa: PTH104
        return original(self, directory)

    (top / "way" / "inner").rmdir()
    (top / "way").rmdir()
    (top / "link").unlink()
    monkeypatch.setattr(usage._Count, "look", look)
    with at(top):
        assert files(top, None, 1000).count == 1001


def test_each_name_of_a_file_counts(tmp_path: Path) -> None:
    """So no second name makes it less."""
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "other").hardlink_to(tmp_path / "file")
    assert files(tmp_path, None, None).size >= 200_000


@as_user
@pytest.mark.parametrize("mode", [0, 0o400, 0o100, 0o200])
def test_what_is_half_closed_is_counted(tmp_path: Path, mode: int) -> None:
    """A directory that may be listed but not searched hides nothing."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "file").write_bytes(b"x" * 100_000)
    closed.chmod(mode)
    found = files(tmp_path, None, None)
    assert found.count == 2
    assert found.size >= 100_000


# Removing


@pytest.mark.parametrize("number", range(24))
def test_a_swap_at_any_moment_of_a_removal_leads_nowhere(
    tmp_path: Path, outside: Outside, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """All inside goes, nothing outside."""
    top = workspace(tmp_path, outside, depth=80)
    with monkeypatch.context() as patch:
        at_each_opening(patch, lambda: swap(top), number)
        removal.remove(top)
    assert not top.exists()
    assert outside.untouched()


def test_a_tree_that_somebody_still_changes_is_removed(tmp_path: Path, outside: Outside) -> None:
    """Deep ones too, and nothing outside is."""
    for _ in range(5):
        top = workspace(tmp_path, outside, depth=300)
        with swapping(top):
            removal.remove(top)
        assert not top.exists()
    assert outside.untouched()


def test_a_removal_ends_though_somebody_goes_on_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made again and again stays at last."""
    top = tmp_path / "top"
    (top / "inner").mkdir(parents=True)
    monkeypatch.setattr(removal, "_MOST_AGAIN", 50)
    original = os.rmdir

    def rmdir(name: str | bytes, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            inner = os.open(name, os.O_RDONLY, dir_fd=dir_fd)
            os.close(os.open("again", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
            os.close(inner)
        original(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)
    removal.remove(top)
    assert (top / "inner" / "again").exists()


# Giving away


@as_root
@pytest.mark.parametrize("number", range(14))
def test_a_swap_at_any_moment_gives_nothing_outside_away(
    tmp_path: Path, outside: Outside, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What was looked at is what gets another owner."""
    top = workspace(tmp_path, outside)
    with monkeypatch.context() as patch:
        at_each_opening(patch, lambda: swap(top), number)
        directories.hand_over(top, 1879048200)
    assert outside.untouched()
    assert top.stat().st_uid == 1879048200


@as_root
def test_a_file_that_is_swapped_for_a_linked_one_keeps_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a name and the change."""
    top, other = tmp_path / "top", tmp_path / "other"
    top.mkdir()
    other.write_bytes(b"of somebody else")
    (top / "name").write_bytes(b"mine")
    (top / "linked").hardlink_to(other)
    original = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        found = original(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            beneath.libc().renameat2(-100, bytes(top / "name"), -100, bytes(top / "linked"), 2)
        return found

    monkeypatch.setattr(os, "fstat", fstat)
    directories.hand_over(top, 1879048200)
    assert other.stat().st_uid == 0


# What a kernel leaves


@pytest.mark.anyio
async def test_what_a_kernel_leaves_is_removed_while_others_go_on(tmp_path: Path, runtime_dir: Path) -> None:
    """Its temporary files may be as many as it likes."""
    scratch = runtime_dir / "t-scratch"
    process = await spawn(Launch(sys.executable, runtime_dir, tmp_path, {}, scratch=scratch))
    await process.kill()
    for number in range(20_000):
        (scratch / str(number)).touch()
    seen: set[int] = set()
    closing = asyncio.ensure_future(process.close())
    while not closing.done():
        await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            seen.add(len(os.listdir(scratch)))  # noqa: PTH208
    await closing
    assert not scratch.exists()
    assert seen - {0, 20_000}
