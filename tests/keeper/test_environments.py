"""One keeper, programs in several environments: each gets sessions in its own."""

from __future__ import annotations

import platform
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

import kernelrepl
from tests.sessions.test_interpreters import make
from tests.support.mcp_hosts import DEADLINE_S, Place, command

OURS = Path(kernelrepl.__file__).parent.parent
FIRST = Path(sys.executable)


def environment(place: Path, *paths: str | Path, names: tuple[str, ...] = ()) -> Path:
    """Make an environment with these packages and what is found in these places; return its interpreter."""
    python = Path(make(place, names))
    packages = next(place.glob("lib/python*/site-packages"))
    (packages / "more.pth").write_text("".join(f"{path}\n" for path in paths))
    (packages / "only_here.py").write_text("answer = 42\n")
    return python


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another environment with kernelrepl and a module that the first has not."""
    return environment(tmp_path_factory.mktemp("second") / "venv", OURS, sysconfig.get_path("purelib"))


def run(python: Path, environ: Mapping[str, str], *arguments: str) -> str:
    """Run a command with the kernelrepl of an environment; return all that it printed. Fails if the command fails."""
    done = subprocess.run(
        [str(python), "-P", "-m", "kernelrepl", *arguments],
        env=dict(environ),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_each_program_has_its_own_python(environ: dict[str, str], second: Path) -> None:
    """Whoever started the keeper. A session keeps the one it first ran with, and code of the first has not both."""
    assert run(FIRST, environ, "exec", "-s", "first", "import sys; sys.prefix") == f"{sys.prefix!r}\n"
    assert run(second, environ, "exec", "-s", "second", "import only_here; only_here.answer") == "42\n"
    assert run(second, environ, "exec", "import sys; sys.prefix") == f"{str(second.parent.parent)!r}\n"
    assert run(second, environ, "exec", "-s", "first", "sys.prefix") == f"{sys.prefix!r}\n"
    assert command(environ, "exec", "-s", "second", "only_here.answer").stdout == "42\n"
    assert "ModuleNotFoundError" in command(environ, "exec", "-s", "first", "import only_here").stderr
    assert len(Place(environ).keepers()) == 1
    shown = run(second, environ, "doctor")
    assert f"  it runs in Python {platform.python_version()} ({FIRST})\n" in shown
    assert f"  new sessions from here run in {second}\n" in shown


def test_a_chosen_interpreter_wins_over_the_own(environ: dict[str, str], second: Path, tmp_path: Path) -> None:
    """By the variable of the client, or for all by config.toml."""
    command(environ, "exec", "1")
    chosen = {**environ, "KERNELREPL_PYTHON": str(second)}
    assert command(chosen, "exec", "import only_here; only_here.answer").stdout == "42\n"
    command(environ, "stop")
    (tmp_path / "config.toml").write_text(f"python = '{sys.executable}'\n")
    by_file = {**environ, "KERNELREPL_CONFIG": str(tmp_path / "config.toml")}
    assert run(second, by_file, "exec", "import sys; sys.prefix") == f"{sys.prefix!r}\n"


def test_an_own_python_without_what_kernels_need_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    """The session runs in that of the keeper; the first reply says so, and how to change it."""
    run(FIRST, environ, "exec", "1")
    bare = environment(tmp_path / "bare", OURS, names=("click",))
    printed = run(bare, environ, "exec", "-s", "s", "import sys; sys.prefix")
    assert f"new sessions of programs in {bare} run in {FIRST}: " in printed
    assert f"{bare} -m pip install 'ipykernel>=7' 'cloudpickle' 'xxhash'" in printed
    assert printed.startswith(f"{sys.prefix!r}\n")
    assert run(bare, environ, "exec", "-s", "s", "6 * 7") == "42\n"


def test_an_own_python_that_a_session_could_change_is_not_used(environ: dict[str, str], tmp_path: Path) -> None:
    """It would run before it is confined: a new session of that program has the keeper's, and says why."""
    shared = tmp_path / "shared"
    shared.mkdir()
    command(environ, "exec", "-s", "writes", "1")
    assert command(environ, "grant", "writes", "--write", str(shared)).returncode == 0
    inside = environment(shared / "venv", OURS, sysconfig.get_path("purelib"))
    printed = run(inside, environ, "exec", "-s", "s", "import sys; sys.prefix")
    assert f"code in a session may write to {shared}" in printed
    assert printed.startswith(f"{sys.prefix!r}\n")
