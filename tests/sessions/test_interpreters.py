"""Sessions in an interpreter of the person's own, which knows nothing of this package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kernelrepl.errors import InterpreterLacks
from kernelrepl.sandbox import interpreter
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

NEEDED = ("ipykernel", "cloudpickle", "xxhash")


def needed(names: tuple[str, ...]) -> Iterator[metadata.Distribution]:
    """Distributions with all that they need."""
    waiting, seen = list(names), set[str]()
    while waiting:
        name = waiting.pop().lower()
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        yield found
        for text in found.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)


def make(place: Path, names: tuple[str, ...]) -> str:
    """An environment with these packages; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    packages = next(place.glob("lib/python*/site-packages"))
    ours = Path(sysconfig.get_path("purelib"))
    for distribution in needed(names):
        for file in distribution.files or ():
            source = ours / file
            if ".." not in file.parts and source.is_file() and "tests" not in file.parts:
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, packages / file)
    return str(place / "bin" / "python")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with what kernels need, and no more."""
    return make(tmp_path_factory.mktemp("own") / "venv", NEEDED)


async def test_a_session_runs_in_the_interpreter_that_it_was_given(sessions: Sessions, python: str) -> None:
    """With everything it can do elsewhere, and with nothing of ours but the guest's code."""
    code = "import sys, importlib.util, os\nclass A: pass\nx = A(); x.v = [1]\ndef f(): return x.v\nsys.prefix"
    execution = await sessions.run(code, python=python)
    assert execution.status == "ok", execution.output.error
    assert execution.output.result == repr(str(Path(python).parent.parent))
    look = (
        "[name for name in ('mcp', 'pydantic', 'sqlite_utils', 'kernelrepl.config') if importlib.util.find_spec(name)]"
    )
    assert await sessions.value(look) == "[]"
    assert await sessions.value("[name for name in ('PYTHONPATH', 'VIRTUAL_ENV') if name in os.environ]") == "[]"
    await sessions.kill()
    assert await sessions.value("f(), type(x).__name__, sys.prefix != sys.base_prefix") == "([1], 'A', True)"
    [[stored]] = await sessions.rows("SELECT packages FROM sessions")
    assert "ipykernel" in stored
    assert "numpy" not in stored


async def test_one_interpreter_has_many_names(sessions: Sessions, python: str) -> None:
    """In one directory they are one, for which kernels are ready; in another environment it is another."""
    confinement = sessions.manager.confinement
    name = Path(confinement.python).with_name(f"python{sys.version_info.major}.{sys.version_info.minor}")
    assert name.exists()
    assert confinement.interpreter_of(str(name)) == (confinement.python, "")
    assert confinement.interpreter_of("") == (confinement.python, "")
    assert confinement.interpreter_of(python) == (python, "")
    assert confinement.interpreter_of("/nowhere/python")[0] == confinement.python


async def test_what_an_interpreter_lacks_is_told_with_the_command_that_installs_it(
    sessions: Sessions, tmp_path: Path
) -> None:
    """And nothing has run; with it installed, the same session runs."""
    python = make(tmp_path / "venv", ("cloudpickle",))
    with pytest.raises(InterpreterLacks) as caught:
        await sessions.run("1", python=python)
    assert f"{python} -m pip install 'ipykernel>=7' 'xxhash'" in str(caught.value)
    shutil.rmtree(tmp_path / "venv")
    assert make(tmp_path / "venv", NEEDED) == python
    execution = await sessions.run("6 * 7", python=python)
    assert execution.output.result == "42"


@pytest.mark.parametrize(
    ("version", "packages", "lacks"),
    [
        ("3.11", {"ipykernel": "7.1.0", "cloudpickle": "3", "xxhash": "3.5"}, []),
        ("3.14", {"ipykernel": "10.0", "cloudpickle": "3", "xxhash": "3.5"}, []),
        ("3.10", {"ipykernel": "7.1.0", "cloudpickle": "3", "xxhash": "3.5"}, ["python"]),
        ("3.12", {"ipykernel": "6.30", "cloudpickle": None, "xxhash": "3.5"}, ["ipykernel>=7", "cloudpickle"]),
        ("3.12", {}, ["ipykernel>=7", "cloudpickle", "xxhash"]),
    ],
)
def test_what_kernels_need_is_asked_of_every_interpreter(
    version: str, packages: dict[str, str | None], lacks: list[str]
) -> None:
    """Versions as they are written."""
    assert interpreter._lacks(version, packages) == lacks
