"""Control groups for kernels: where they are found, what they hold, and that nothing of them stays."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernelrepl.kernel import GroupLauncher, NotDelegated, cgroups, spawn
from kernelrepl.kernel.process import Launcher
from kernelrepl.model import Resources
from kernelrepl.sessions import resource_monitor
from tests.conftest import Sessions, ignore

MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 {root} {place} rw,relatime shared:9 - cgroup2 cgroup2 rw
"""
SLICE = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-u7.service"
HOG = "import sys; sys.stdin.read(1); b = bytearray(b'x') * 200_000_000"


@pytest.mark.parametrize(
    ("path", "root", "place", "found"),
    [
        ("/", "/", "/sys/fs/cgroup", "/sys/fs/cgroup"),
        ("/", "/", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"),
        (SLICE, "/", "/sys/fs/cgroup", f"/sys/fs/cgroup{SLICE}"),
        ("/docker/ab/x", "/docker/ab", "/sys/fs/cgroup", "/sys/fs/cgroup/x"),
        ("/docker/ab", "/docker/ab", r"/a\040place", "/a place"),
        ("/docker/abc", "/docker/ab", "/sys/fs/cgroup", None),
        ("/../other", "/", "/sys/fs/cgroup", None),
    ],
)
def test_a_group_is_found_by_what_the_system_says(path: str, root: str, place: str, found: str | None) -> None:
    """Hybrid hosts, systemd's, containers that see all or a part; not one that is outside of what is seen."""
    cgroup, mounts = f"4:memory:/process/x\n0::{path}\n", MOUNTS.format(root=root, place=place)
    if found is not None:
        assert cgroups.own_directory(cgroup, mounts) == Path(found)
        return
    with pytest.raises(NotDelegated):
        cgroups.own_directory(cgroup, mounts)


@pytest.mark.parametrize(
    ("cgroup", "mounts"), [("4:memory:/x\n", MOUNTS), ("0::/\n", MOUNTS.splitlines()[0]), ("", "")]
)
def test_a_system_without_groups_of_version_2_is_told(cgroup: str, mounts: str) -> None:
    """Only then is it said that there are none."""
    with pytest.raises(NotDelegated, match="not mounted"):
        cgroups.own_directory(cgroup, mounts.format(root="/", place="/x"))


def test_a_place_that_cannot_be_divided_is_left_as_it_was(tmp_path: Path) -> None:
    """None of the controllers, and one where nothing that is made has what groups have."""
    base = tmp_path / "base"
    with pytest.raises(NotDelegated, match="cannot be read"):
        cgroups.Groups.open(base, tmp_path)
    base.mkdir()
    (base / "cgroup.controllers").write_text("hugetlb misc\n")
    (base / "cgroup.subtree_control").write_text("\n")
    with pytest.raises(NotDelegated, match="none of the controllers memory, pids"):
        cgroups.Groups.open(base, tmp_path)
    (base / "cgroup.controllers").write_text("cpuset memory\n")
    with pytest.raises(NotDelegated, match="No such file"):
        cgroups.Groups.open(base, tmp_path)
    assert sorted(os.listdir(base)) == ["cgroup.controllers", "cgroup.subtree_control"]  # noqa: PTH208


def test_what_killed_a_kernel_is_read_from_its_group(tmp_path: Path) -> None:
    """Its own limit, not that of the machine."""
    group = cgroups.Group(tmp_path)
    assert not group.out_of_memory()
    for own, killed, said in ((0, 0, False), (3, 0, False), (0, 1, False), (12, 1, True)):
        events = f"low 0\nhigh 0\nmax 9\noom {own}\noom_kill {killed}\noom_group_kill {killed}\n"
        (tmp_path / "memory.events").write_text(events)
        assert group.out_of_memory() == said


# What the system does

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root divides the machine's own group")


def own() -> Path:
    try:
        return cgroups.own_directory(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    except (OSError, NotDelegated) as error:
        pytest.skip(str(error))


@as_root
def test_groups_are_made_entered_and_removed(tmp_path: Path) -> None:
    """With whatever controllers there are; a successor removes what a killed keeper left."""
    base = own()
    control = base / "cgroup.subtree_control"
    before = control.read_text().split()
    wanted = (base / "cgroup.controllers").read_text().split()[:1]
    if not wanted:
        pytest.skip("there are no controllers")
    try:
        groups = cgroups.Groups.open(base, tmp_path, wanted)
        with subprocess.Popen(["sleep", "60"]) as child:
            group = groups.place(child.pid, Resources())
            assert (group.directory / "cgroup.procs").read_text().split() == [str(child.pid)]
            with contextlib.suppress(OSError):
                group.directory.rmdir()
            assert group.directory.exists()
            group.remove()
            assert child.wait() == -9
        left = groups.place(os.getpid(), Resources())
        (base / "cgroup.procs").write_text(str(os.getpid()))
        cgroups.Groups.open(base, tmp_path / "another", wanted).close()
        assert left.directory.exists()
        cgroups.Groups.open(base, tmp_path, wanted).close()
        assert not list(base.glob("kernelrepl-*"))
    finally:
        for name in set(wanted) - set(before):
            control.write_text(f"-{name}")
    assert control.read_text().split() == before


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[cgroups.Groups]:
    """Of a machine where kernels can have them: pytest as root with version 2 alone, or in a group of its own."""
    try:
        found = cgroups.find(tmp_path)
    except NotDelegated as error:
        pytest.skip(f"no control groups for kernels here: {error}")
    yield found
    found.close()
    assert not list(found.base.glob("kernelrepl-*"))


def test_a_group_holds_memory_and_processes(groups: cgroups.Groups) -> None:
    """Swap too; what is killed for it is told from what is not."""
    with subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE) as child:
        group = groups.place(child.pid, Resources(memory_bytes=60_000_000))
        child.communicate(b"x")
        assert child.returncode == -9
    assert group.out_of_memory()
    group.remove()
    code = "import os, sys, time\nsys.stdin.read(1)\ntry:\n    for _ in range(9): os.fork() or time.sleep(60)\n"
    code += "except BlockingIOError: os._exit(7)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        group = groups.place(child.pid, Resources(processes=4))
        child.communicate(b"x")
        assert child.returncode == 7
    assert not group.out_of_memory()
    group.remove()


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> Launcher:
    return GroupLauncher(spawn, request.getfixturevalue("groups"), ignore)


@pytest.mark.anyio
async def test_a_kernel_that_the_system_ends_for_its_memory_is_told_so(
    sessions: Sessions, groups: cgroups.Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody counts."""
    monkeypatch.setattr(resource_monitor, "BUSY_S", 1000.0)
    monkeypatch.setattr(resource_monitor, "IDLE_S", 1000.0)
    small = Resources(memory_bytes=600_000_000)
    grow = "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n        b = bytearray(b'x') * 250_000_000\n"
    execution = await sessions.run(f"{grow}        time.sleep(99)\ntime.sleep(99)", resources=small)
    assert execution.status == "crashed"
    assert "memory limit 600 MB reached (max_memory_bytes), so its kernel was ended" in (execution.note or "")
    assert len(list(groups.base.glob("kernelrepl-*"))) <= 3


@as_root
def test_a_group_that_was_given_to_a_user_is_divided(tmp_path: Path, groups: cgroups.Groups) -> None:
    """The process goes into a leaf, unless another is in the way, and comes back."""
    unit = groups.base / "kernelrepl-test-unit"
    unit.mkdir()
    tmp_path.chmod(0o777)
    code = f"""
import os, subprocess, sys
sys.path.insert(0, {str(Path(cgroups.__file__).parents[2])!r})
from pathlib import Path
from kernelrepl.kernel import cgroups
os.setgroups([]); os.setgid(12345); os.setuid(12345)
unit = Path({str(unit)!r})
def attempt():
    try:
        found = cgroups.find(Path('/tmp'))
    except cgroups.NotDelegated as error:
        return str(error)
    with subprocess.Popen(['sleep', '60']) as child:
        found.place(child.pid, cgroups.Resources()).remove()
    found.close()
    return found.controllers
print(attempt(), flush=True)
sys.stdin.readline()
print(attempt(), flush=True)
names = [path.name for path in unit.iterdir() if path.is_dir()]
print(names, (unit / 'cgroup.subtree_control').read_text().split())
"""
    try:
        with subprocess.Popen([sys.executable, "-c", f"input()\n{code}"], stdin=-1, stdout=-1, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            with subprocess.Popen(["sleep", "60"]) as other:
                for pid in (child.pid, other.pid):
                    (unit / "cgroup.procs").write_text(str(pid))
                for path in (unit, *(unit / f"cgroup.{name}" for name in ("procs", "subtree_control", "threads"))):
                    os.chown(path, 12345, 12345)
                print(file=child.stdin, flush=True)
                assert "other processes are in it" in child.stdout.readline()
                other.kill()
            print(file=child.stdin, flush=True)
            assert child.stdout.readline().strip() == str(groups.controllers)
            assert child.stdout.readline().strip() == "[] []"
    finally:
        unit.rmdir()
