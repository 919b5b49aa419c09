"""What leads into a process before it is confined: environments, links, interpreters; and grants that meet them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernelrepl.errors import AccessRefused, InterpreterExposed
from kernelrepl.sandbox import Exposure, describe, led, resolve_access
from kernelrepl.sandbox.exposure import of_the_person
from kernelrepl.sessions.confinement import base_environment
from kernelrepl.workspaces import entrances
from tests.conftest import Sessions
from tests.sessions.test_interpreters import NEEDED, make
from tests.support.mcp_hosts import COMMAND

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have it: with data, and an environment that kernels can run in."""
    place = tmp_path_factory.mktemp("project")
    make(place / ".venv", NEEDED)
    for above in (place, place.parent, place.parent.parent):  # sessions may be users of their own
        above.chmod(above.stat().st_mode | 0o011)
    for name in ("data", "src"):
        (place / name).mkdir()
        (place / name).chmod(0o777)
    return place


def python_of(project: Path) -> str:
    return str(project / ".venv/bin/python")


def packages_of(project: Path) -> Path:
    return next((project / ".venv").glob("lib/python*/site-packages"))


def test_an_environment_leads_nowhere_that_a_session_writes(tmp_path: Path) -> None:
    """Only what is the same for everybody, is there, and is what it should be."""
    written, mine = tmp_path / "written", tmp_path / "mine"
    for place in (written, mine):
        place.mkdir()
    (tmp_path / "link").symlink_to(written)
    (mine / "through").symlink_to(written / "x")
    environ = {
        "PYTHONPATH": f":relative:.:{written}:{mine}:{tmp_path}/link:{mine}/through:{tmp_path}/nowhere:{mine}",
        "PATH": f":bin:/usr/bin:{written}/bin:/usr/bin",
        "HOME": str(written / "home"), "TMPDIR": "tmp", "VIRTUAL_ENV": f"{tmp_path}/link/venv",
        "LANG": "/x/de_DE", "LC_ALL": "../de", "LC_CTYPE": "de_DE.UTF-8@euro", "TZ": f":{written}/zone",
        "LD_PRELOAD": "x", "PYTHONHOME": "/x", "PYTHONSTARTUP": "x", "OPENSSL_CONF": "x", "LOCPATH": "x",
    }  # fmt: skip
    assert base_environment(environ, written, [str(written)]) == {
        "PYTHONPATH": str(mine), "PATH": "/usr/bin", "LC_CTYPE": "de_DE.UTF-8@euro", "LANG": "C.UTF-8",
    }  # fmt: skip


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", ":Europe/Berlin", "UTC", "CET-1CEST,M3.5.0,M10.5.0/3", "<+03>-3", ":/etc/localtime", ""]
)
def test_honest_settings_stay(zone: str) -> None:
    """As they were."""
    environ = {"TZ": zone, "LANG": "en_US.UTF-8", "HOME": "/root", "PATH": "/usr/bin:/bin", "USER": "me"}
    assert base_environment(environ, Path("/c")) == {**environ, "MPLCONFIGDIR": "/c/matplotlib"}


@pytest.mark.parametrize(
    "zone", ["/tmp/zone", ":/tmp/zone", "../zone", ":a/../../b", "./zone", "/usr/share/zoneinfo/../x"]
)
def test_a_time_zone_is_no_path(zone: str) -> None:
    """Anywhere but where the system has them."""
    assert "TZ" not in base_environment({"TZ": zone}, Path("/c"))
    assert "TZ" not in entrances.of_keeper({"TZ": zone}, "/d")


def test_a_keeper_starts_from_nothing_of_a_session(tmp_path: Path) -> None:
    """Nor from where whoever starts it happens to be."""
    environ = {
        "PYTHONPATH": f":x:{tmp_path}/w:/abs", "LD_LIBRARY_PATH": ":/lib/mine", "LD_PRELOAD": "libjemalloc.so",
        "LD_AUDIT": "./x", "PYTHONHOME": str(tmp_path), "PYTHONINSPECT": "1", "OPENSSL_CONF": "/etc/ssl/o.cnf",
        "A": "b",
    }  # fmt: skip
    assert entrances.of_keeper(environ, str(tmp_path)) == {
        "PYTHONPATH": "/abs", "LD_LIBRARY_PATH": "/lib/mine", "LD_PRELOAD": "libjemalloc.so",
        "OPENSSL_CONF": "/etc/ssl/o.cnf", "A": "b",
    }  # fmt: skip


def test_a_keeper_starts_from_nothing_of_a_session_whose_place_is_a_link(tmp_path: Path) -> None:
    """As it is written, and where it is; a neighbour of that name is not in it; and no locale is a path."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    here = str(tmp_path)
    environ = {
        "PYTHONPATH": f"{here}/real/w:{here}/link/w:{here}/real2", "LANG": f"{here}/de_DE", "LC_ALL": "../de",
        "LC_CTYPE": "C.UTF-8",
    }  # fmt: skip
    assert entrances.of_keeper(environ, f"{here}/link") == {"PYTHONPATH": f"{here}/real2", "LC_CTYPE": "C.UTF-8"}
    assert [entrances.lies_in(path, "/a") for path in ("/a", "/a/b", "/ab", "/")] == [True, True, False, False]
    assert entrances.lies_in("/a", "/")


def test_each_link_on_the_way_counts(tmp_path: Path) -> None:
    """Whoever may write where one of them lies chooses where they lead."""
    (tmp_path / "a").symlink_to("b/../c")
    (tmp_path / "b").mkdir()
    (tmp_path / "c").symlink_to("/usr")
    here = str(tmp_path)
    assert entrances.ways(f"{here}/a/lib/./x") == [f"{here}/a", f"{here}/c", "/usr/lib/x"]
    assert entrances.led_by(f"{here}/a/lib", [f"{here}/c"]) == f"{here}/c"
    (tmp_path / "loop").symlink_to("loop")
    assert len(entrances.ways(f"{here}/loop")) < 50


async def test_what_holds_an_interpreter_of_kernels_is_not_granted_to_write(
    sessions: Sessions, project: Path, tmp_path: Path
) -> None:
    """Whole, a part, by a link; beside it and to read it is; and so is an environment that no kernel runs in."""
    python = python_of(project)
    (tmp_path / "link").symlink_to(project / ".venv/lib")
    code = tmp_path / "code"
    code.mkdir()
    (packages_of(project) / "more.pth").write_text(f"{code}\n")
    for place in (project, project / ".venv", packages_of(project) / "zmq", tmp_path / "link", code):
        with pytest.raises(AccessRefused, match="data/ or results/"):
            await sessions.run("1", f"s-{place.name}", python=python, write=(str(place),))
    (packages_of(project) / "more.pth").unlink()
    assert (await sessions.run("1", "other", write=(str(project),))).status == "ok"
    with pytest.raises(InterpreterExposed, match="--revoke"):
        await sessions.run("1", "late", python=python)
    await sessions.manager.grant("other", [], [], [str(project)])
    allowed = await sessions.run("1", "data", python=python, write=(str(project / "data"),), read=(str(project),))
    assert allowed.status == "ok"
    with pytest.raises(AccessRefused, match="holds, or lies in"):
        await sessions.manager.grant("other", [], [str(project)], [])
    with pytest.raises(AccessRefused, match="holds, or lies in"):  # where this process has its own code
        await sessions.manager.grant("other", [], [str(Path(__file__).parents[2] / "kernelrepl")], [])


async def test_a_grant_that_has_come_to_hold_an_interpreter_ends(sessions: Sessions, tmp_path: Path) -> None:
    """Sessions that were made before are looked at again whenever a kernel of theirs starts."""
    tmp_path.chmod(0o755)
    place = tmp_path / "later"
    place.mkdir()
    place.chmod(0o777)
    await sessions.run("1", write=(str(place),))
    await sessions.kill()
    python = make(tmp_path / "venv", NEEDED)
    next((tmp_path / "venv").glob("lib/python*/site-packages")).joinpath("x.pth").write_text(f"{place}\n")
    with pytest.raises(InterpreterExposed, match=str(place)):
        await sessions.run("1", "other", python=python)
    sessions.manager.confinement.exposure.note("a session of another keeper", make(place / "venv", NEEDED), ())
    with pytest.raises(AccessRefused, match="--revoke"):
        await sessions.run("1")


def test_an_interpreter_is_asked_again_when_something_is_installed(project: Path, tmp_path: Path) -> None:
    """And nothing of it is run that a session could have written: it says so before it goes there."""
    ran = tmp_path / "ran"
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "sitecustomize.py").write_text(f"open({str(ran)!r}, 'w').close()")
    python, places = python_of(project), [str(hostile)]
    assert describe(python, {}, places).executable == python
    for text in (f"{hostile}\n", f"import sys; sys.path.append({str(hostile)!r})\n"):
        (packages_of(project) / "hostile.pth").write_text(text)
        with pytest.raises(InterpreterExposed):
            describe(python, {}, places)
        assert not ran.exists()
    (packages_of(project) / "hostile.pth").unlink()
    assert describe(python, {}, places).executable == python
    for link in (hostile / "python", tmp_path / "python"):
        link.symlink_to(python if link.parent == hostile else hostile / "python")
        with pytest.raises(InterpreterExposed):
            describe(str(link), {}, places)


@pytest.mark.parametrize("entries", ["", ":{place}", "relative", "{place}:", "{place}"])
def test_a_program_that_takes_code_from_where_it_is_started_says_so(
    environ: dict[str, str], tmp_path: Path, entries: str
) -> None:
    """It cannot help that, but what it starts takes none from there."""
    place, here = tmp_path / "place", tmp_path / "here"
    for directory in (place, here, here / "relative"):
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(
            "import os, sys\nwith open(os.environ['RAN'], 'a') as ran: print(os.getpid(), sys.argv[1:2], file=ran)"
        )
    (place / "sitecustomize.py").unlink()
    ran = tmp_path / "ran"
    given = {**environ, "PYTHONPATH": entries.format(place=place), "RAN": str(ran)}
    done = subprocess.run([str(COMMAND), "exec", "1 + 1"], env=given, cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    leads = entries not in ("", "{place}")
    assert ("PYTHONPATH is empty or relative" in done.stderr) == leads
    assert (len(ran.read_text().splitlines()) if ran.exists() else 0) == leads  # this process alone


def test_what_lies_beside_an_interpreter_is_no_part_of_it(project: Path, tmp_path: Path) -> None:
    """A directory may hold both, and is refused only if a session may write what is read there."""
    python = tmp_path / "person" / "tools" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(python_of(project))
    copy = python.parent / "copy"
    shutil.copy(Path(sys.executable).resolve(), copy)
    tools = python.parent
    for place in (tools / "data", tools / "bin", tools.parent / "data", tools / "lib2", tmp_path / "lib"):
        assert entrances.met(led(str(python)), [str(place)]) is None, place
    for place in (tools, tools.parent, python, tools / "lib", tools / "pyvenv.cfg", tools.parent / "lib64", project,
                  project / ".venv" / "lib" / "x"):  # fmt: skip
        assert entrances.met(led(str(python)), [str(place)]) is not None, place
    assert entrances.met(led(str(copy)), [str(tmp_path / "lib" / "python3.99")]) is not None  # it would be found there
    assert entrances.met(led(str(python)), [str(tmp_path / "lib")]) is None


def test_what_starts_later_in_a_home_is_not_granted_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell's files, keys, settings of other programs; data of them is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".", ".bashrc", ".ssh", ".config/autostart", ".local/bin", ".local/share/jupyter/kernels", "data",
                 ".cache/models", ".local/share/game"):  # fmt: skip
        place = tmp_path / name
        place.mkdir(parents=True, exist_ok=True)
        refused = of_the_person(str(place.resolve())) is not None
        assert refused == (not name.startswith(("data", ".cache/", ".local/share/game"))), name
        if refused:
            with pytest.raises(AccessRefused, match="programs of yours"):
                resolve_access([], [str(place)], [])
            assert resolve_access([str(place)], [], []).read == (str(place.resolve()),)


def test_what_was_granted_counts_as_long_as_a_kernel_may_have_it() -> None:
    """And no longer."""
    exposure = Exposure(("/data",))
    exposure.note("a", sys.executable, ["/x"])
    exposure.note("a", sys.executable, ["/y"], before=True)
    assert set(exposure.written()) == {"/data", "/x", "/y"}
    exposure.note("a", sys.executable, ["/y"])
    assert exposure.written() == ("/data", "/y")
    exposure.forget("a")
    assert exposure.written() == ("/data",)
