"""Where something is missing that confines a kernel, there is no kernel: nothing falls back to less."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kernelrepl.errors import SandboxUnavailable
from kernelrepl.kernel import Launch
from kernelrepl.sandbox import Tier
from kernelrepl.sessions.confinement import Confinement, SessionSpec
from tests.attacks.as_user import ROOT
from tests.attacks.broken import LACKS
from tests.conftest import Sessions, this_tier

pytestmark = pytest.mark.anyio
STEPS = (
    "single thread", "user and pid namespaces", "namespaces", "tree", "host name", "uid", "limits", "capabilities",
    "no_new_privs", "Landlock", "kernel process", "system call filter",
)  # fmt: skip


class Lacking(Confinement):
    """Starts kernels on a system that lacks something."""

    lacks = ""

    def launch(self, workspace: Path, fixed: SessionSpec) -> Launch:
        """With another module, which is told by its environment."""
        launch = super().launch(workspace, fixed)
        environment = {**launch.environment, LACKS: self.lacks, "PYTHONPATH": str(ROOT)}
        return replace(launch, module="tests.attacks.broken", environment=environment)


@pytest.fixture
def lacking(sessions: Sessions) -> Callable[[str, Tier], None]:
    """Let the next kernel start where something is missing."""

    def arrange(lacks: str, tier: Tier) -> None:
        if tier.number == 1 and this_tier().number != 1:
            pytest.skip("tier 1 is not possible here")
        now = sessions.manager.confinement
        found = Lacking(tier, now.python, now.runtime_dir, now.never, now.environment)
        object.__setattr__(found, "lacks", lacks)
        sessions.manager.confinement = found

    return arrange


async def refused(sessions: Sessions) -> str:
    """Why nothing started. Nothing ran by then, and nothing is left."""
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(SandboxUnavailable) as caught:
        await sessions.run("open('ran', 'w').close()")
    (workspace,) = (sessions.manager.data_dir / "workspaces").iterdir()
    assert not list(workspace.iterdir())
    _, left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=10)
    assert not left
    return caught.value.why


@pytest.mark.parametrize("step", STEPS + (("user namespace",) if os.geteuid() == 0 else ()))
async def test_a_step_that_fails_is_named(sessions: Sessions, lacking: Callable[[str, Tier], None], step: str) -> None:
    """Each of tier 1, whatever the system says."""
    lacking(f"{step}={errno.EPERM}", this_tier())
    assert await refused(sessions) == f"{step}: {os.strerror(errno.EPERM)}"


@pytest.mark.parametrize(
    ("lacks", "why"),
    [
        ("seccomp", "system call filter: Invalid argument"),
        ("unshare", "user and pid namespaces: Operation not permitted"),
        ("proc", "tree: Operation not permitted"),
        ("half a tree", "tree: Input/output error"),
        ("one thread", "single thread: another thread runs already"),
        ("a rule of Landlock", "Landlock: Invalid argument"),
        ("no bug", "ZeroDivisionError: a bug"),
        ("a known machine", "system call filter: Function not implemented"),
    ],
)
async def test_what_tier_1_lacks_is_said(
    sessions: Sessions, lacking: Callable[[str, Tier], None], lacks: str, why: str
) -> None:
    """Before any code of a session; where the failure comes from the system, not from a seam."""
    if "Landlock" in lacks and not this_tier().landlock:
        pytest.skip("there is no Landlock here")
    lacking(lacks, this_tier())
    assert why in await refused(sessions)


@pytest.mark.skipif(os.geteuid() == 0, reason="as root there is no tier 2; an ordinary user tries this below")
@pytest.mark.parametrize(
    ("lacks", "why"),
    [
        ("seccomp", "system call filter: Invalid argument"),
        ("Landlock ENOSYS", "Landlock: version 6 is needed, and there is none"),
        ("Landlock EOPNOTSUPP", "Landlock: version 6 is needed, and there is none"),
        *((f"Landlock {version}", f"version 6 is needed, and there is version {version}") for version in range(1, 6)),
        ("one thread", "single thread: another thread runs already"),
    ],
)
async def test_what_tier_2_lacks_is_said(
    sessions: Sessions, lacking: Callable[[str, Tier], None], lacks: str, why: str
) -> None:
    """The same where Landlock is all there is before the files of the host."""
    lacking(lacks, Tier(2, 6))
    assert why in await refused(sessions)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has tried it above")
def test_all_of_this_as_an_ordinary_user() -> None:
    """Who meets other errors than root, and tier 2."""
    tests = [sys.executable, "-m", "pytest", "-q", "-n", "0", str(Path(__file__))]
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks.as_user", "--", *tests],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


async def test_landlock_that_was_there_must_be_there(sessions: Sessions, lacking: Callable[[str, Tier], None]) -> None:
    """What the keeper has found and announced is not silently left out."""
    lacking("Landlock ENOSYS", replace(this_tier(), landlock=6))
    assert "version 6 is needed, and there is none" in await refused(sessions)


async def test_tier_1_holds_without_landlock(sessions: Sessions, lacking: Callable[[str, Tier], None]) -> None:
    """Where there never was one: it is the one thing to do without, and the rest is there."""
    lacking("Landlock ENOSYS", replace(this_tier(), landlock=0))
    execution = await sessions.run("import socket; socket.socket(socket.AF_INET)")
    assert execution.output.error is not None
    assert execution.output.error.name == "PermissionError"


async def test_it_starts_again_where_nothing_is_missing(
    sessions: Sessions, lacking: Callable[[str, Tier], None]
) -> None:
    """A session that could not start is not spoilt."""
    before = sessions.manager.confinement
    lacking("seccomp", this_tier())
    await refused(sessions)
    sessions.manager.confinement = before
    sessions.manager._sessions.clear()
    assert await sessions.value("1 + 1") == "2"
