"""Packages of a session: asked for in a cell, installed by the keeper, there after a kill, and nobody else's."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernelrepl.errors import InstallerMissing, InvalidArgument, PackagesNotInstalled
from kernelrepl.guest.packages import arranged
from kernelrepl.mcp.results import describe
from kernelrepl.packages import Installed, Packages, Policy, installation, layers, uv
from kernelrepl.packages.policy import parse
from kernelrepl.workspaces import directories
from tests.conftest import RUN_TIMEOUT_S, Sessions, serving
from tests.support.forking import forking
from tests.support.wheels import SlowIndex, index_of, make_wheel

pytestmark = pytest.mark.anyio

ALL = Policy.of("*")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A directory of wheels: `tidy`, which needs `broom`."""
    place = tmp_path / "index"
    make_wheel(place, "broom", "1.0", {"broom/__init__.py": "BRISTLES = 40\n"})
    make_wheel(place, "broom", "2.0", {"broom/__init__.py": "BRISTLES = 80\n"})
    code = "import broom\nclass Room:\n    def __init__(self, name): self.name = name\n"
    make_wheel(place, "tidy", "1.1", {"tidy/__init__.py": code}, requires=["broom<2"])
    return place


@pytest.fixture
def packages(index: Path) -> Packages:
    """Code may have what it asks for, from the index of this module."""
    return packages_of(index, ALL)


@pytest.fixture
def slow_index(index: Path) -> Iterator[SlowIndex]:
    with SlowIndex(index).served() as slow:
        yield slow


def packages_of(index: Path, policy: Policy, most_bytes: int | None = 100_000_000) -> Packages:
    return Packages(policy, most_bytes, {**os.environ, **index_of(index)})


async def text(sessions: Sessions, code: str, session_id: str = "s") -> str:
    return describe(await sessions.run(code, session_id))


@pytest.mark.parametrize(
    "command",
    [
        "%pip install tidy",
        "pip install -q tidy",
        "!pip install tidy",
        "!pip3 install --user tidy  # now",
        "!python -m pip install -U tidy",
        "import sys\n!{sys.executable} -m pip install tidy",
        "!uv pip install tidy",
        "%uv pip install tidy",
        "!uv add tidy",
        "%%bash\npip install tidy",
        "said = !pip install tidy",
    ],
)
async def test_each_way_to_ask_installs(sessions: Sessions, command: str) -> None:
    """It can be imported in the next cell, with what it needs, and is there after a kill."""
    assert "installed broom 1.0, tidy 1.1" in await text(sessions, command)
    assert await sessions.value("import tidy, broom\nroom = tidy.Room('hall')\nbroom.BRISTLES") == "40"
    await sessions.kill()
    assert await sessions.value("room.name, type(room) is tidy.Room, broom.BRISTLES") == "('hall', True, 40)"


async def test_a_package_is_the_sessions_own(sessions: Sessions) -> None:
    """Another session has nothing of it, and neither sees where the first one has its own."""
    await sessions.run("%pip install tidy")
    other = await sessions.run("import tidy", "other")
    assert other.output.error is not None
    assert other.output.error.name == "ModuleNotFoundError"
    assert (
        await sessions.value(
            "import os; os.listdir('/site-packages') if os.path.isdir('/site-packages') else []", "other"
        )
        == "[]"
    )


async def test_code_cannot_change_its_packages(sessions: Sessions) -> None:
    """They may be the same files as those of other sessions."""
    await sessions.run("%pip install tidy\nimport tidy, os")
    for act in (
        "open(tidy.__file__, 'a')",
        "os.remove(tidy.__file__)",
        "os.chmod(tidy.__file__, 0o777)",
        "os.rename(os.path.dirname(tidy.__file__), 'mine')",
        "open(os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(tidy.__file__))), 'x'), 'w')",
        "os.link(tidy.__file__, 'mine.py')",
    ):
        execution = await sessions.run(act)
        assert execution.output.error is not None, act
        assert execution.output.error.name in ("PermissionError", "OSError"), act


async def test_a_person_decides(index: Path, data_dir: Path, runtime_dir: Path, tmp_path: Path) -> None:
    """Code is told what the person can do; what the person adds is there in the running kernel, also a busy one."""
    async with (
        forking() as launcher,
        serving(data_dir, runtime_dir, tmp_path / "cache", launcher, packages=packages_of(index, Policy())) as sessions,
    ):
        said = await text(sessions, "%pip install tidy 'broom<2'")
        assert "NotInstalled: tidy, broom<2 not installed: a person has to agree" in said
        assert "`kernelrepl packages s add tidy 'broom<2'`" in said
        assert "kernelrepl/guest" not in said
        session, running = await sessions.submit(
            "import time\nwhile not __import__('os').path.exists('go'): time.sleep(0.02)"
        )
        found = await session.slot.install(["tidy"])
        assert [one.name for one in found.packages] == ["broom", "tidy"]
        (session.launch.workspace / "go").touch()
        await running.result
        assert await sessions.value("import tidy; tidy.__name__") == "'tidy'"
        assert (await session.slot.install(["tidy"])).layer is None


@pytest.mark.parametrize(
    ("allowed", "asked", "may"),
    [
        ("*", "tidy", True),
        (("tidy",), "tidy==1.1", True),
        (("Tidy",), "tidy", True),
        (("broom",), "tidy", False),
        ("off", "tidy", False),
        ("ask", "tidy", False),
    ],
)
def test_the_setting_says_what_code_may_have(allowed: str | tuple[str, ...], asked: str, may: bool) -> None:
    """Names are compared as indexes compare them; what a package needs comes along."""
    refusal = Policy.of(allowed).refusal("s", parse([asked]))
    assert (refusal is None) is may


@pytest.mark.parametrize(
    "asked",
    [
        "", "-r requirements.txt", "--index-url=http://127.0.0.1/", "./tidy", "/tmp/tidy-1.whl", "tidy @ file:///x",
        "git+https://example.org/x", "https://example.org/x.whl", "tidy; python_version > '3'", "tidy\nbroom",
        "é", "a" * 300,
    ],
)  # fmt: skip
def test_a_request_names_packages_only(asked: str) -> None:
    """An option, a file or an address is none, whoever asks."""
    with pytest.raises(InvalidArgument, match="is no package"):
        parse([asked])


async def test_what_cannot_be_installed_leaves_nothing(sessions: Sessions, index: Path) -> None:
    """Each reason is told, and the session goes on."""
    make_wheel(index, "needy", "1.0", {"needy.py": ""}, requires=["nowhere-at-all"])
    make_wheel(index, "clash", "1.0", {"clash.py": ""}, requires=["numpy<1.0"])
    make_wheel(index, "other", "1.0", {"other.py": ""}, tag="cp39-cp39-win_amd64")
    (index / "source-1.0.tar.gz").write_bytes(b"")
    for asked, why in (
        ("nowhere", "nowhere was not found"),
        ("needy", "nowhere-at-all was not found"),
        ("seabron", "did you mean seaborn?"),
        ("'sklearn>1'", "did you mean scikit-learn?"),
        ("clash", "numpy"),
        ("other", "other"),
        ("source", "source"),
        ("tidy>=2", "tidy"),
        ("'broom>1' tidy", "broom"),
        ("-r x.txt", "is no package"),
    ):
        execution = await sessions.run(f"%pip install {asked}")
        assert execution.output.error is not None, asked
        assert execution.output.error.name == "NotInstalled"
        assert why in execution.output.error.message, execution.output.error.message
        assert execution.committed
    workspace = await sessions.manager.workspace("s")
    assert not list(layers.home(workspace).iterdir())
    assert "installed" in await text(sessions, "%pip install tidy")


async def test_a_later_request_changes_only_what_it_names(sessions: Sessions) -> None:
    """The newer version is in front; a module that is loaded stays, and that is told."""
    await sessions.run("%pip install broom==1.0\nimport broom")
    said = await text(sessions, "%pip install broom==2.0")
    assert "installed broom 2.0" in said
    assert "until the kernel restarts: broom" in said
    assert await sessions.value("broom.BRISTLES") == "40"
    await sessions.kill()
    assert await sessions.value("broom.BRISTLES") == "80"
    refused = await sessions.run("%pip install tidy")  # it needs the older one
    assert refused.output.error is not None
    assert "broom" in refused.output.error.message
    assert "already there: broom 2.0" in await text(sessions, "%pip install broom")


async def test_what_the_environment_has_stays(sessions: Sessions, index: Path) -> None:
    """A package that the environment has is not installed again, and never in another version."""
    import packaging

    make_wheel(index, "packaging", packaging.__version__, {"packaging/__init__.py": ""})
    make_wheel(index, "packaging", "1.0", {"packaging/__init__.py": ""})
    assert "already there: packaging" in await text(sessions, "%pip install packaging")
    refused = await sessions.run("%pip install packaging==1.0")
    assert refused.output.error is not None
    assert "packaging" in refused.output.error.message


async def test_a_kernel_without_a_session_gets_none(sessions: Sessions) -> None:
    """Nothing would be kept; it says so."""
    from kernelrepl.sessions.manager import Origin

    handle = await sessions.manager.execute_once("%pip install tidy", Origin(), timeout_s=None)
    await handle.wait()
    error = handle.result().output.error
    await sessions.manager.discard(handle)
    assert error is not None
    assert "a call without session_id keeps nothing" in error.message


async def test_packages_take_no_more_than_they_may(
    index: Path, data_dir: Path, runtime_dir: Path, tmp_path: Path
) -> None:
    """One large file, and many small ones: the session is told, and nothing of them stays."""
    make_wheel(index, "large", "1.0", {"large.bin": b"\0" * 8_000_000})
    make_wheel(index, "many", "1.0", {f"many/{number}.bin": b"\0" * 100_000 for number in range(40)})
    limited = packages_of(index, ALL, 2_000_000)
    async with (
        forking() as launcher,
        serving(data_dir, runtime_dir, tmp_path / "cache", launcher, packages=limited) as sessions,
    ):
        for name in ("large", "many"):
            execution = await sessions.run(f"%pip install {name}")
            assert execution.output.error is not None, name
            assert "max_package_bytes" in execution.output.error.message, execution.output.error.message
        assert "installed" in await text(sessions, "%pip install tidy")
        assert len(list(layers.home(await sessions.manager.workspace("s")).iterdir())) == 1


async def test_an_interrupt_ends_the_wait(
    index: Path, data_dir: Path, runtime_dir: Path, tmp_path: Path, slow_index: SlowIndex
) -> None:
    """What is being installed goes on, and can be imported when it is done, without a restart."""
    slow = Packages(ALL, None, {**os.environ, "UV_DEFAULT_INDEX": slow_index.address, "UV_NO_CONFIG": "1"})
    async with (
        forking() as launcher,
        serving(data_dir, runtime_dir, tmp_path / "cache", launcher, packages=slow) as sessions,
    ):
        session, running = await sessions.submit("%pip install tidy")
        await asyncio.to_thread(slow_index.asked.wait, RUN_TIMEOUT_S)
        await session.interrupt(running)
        result = await running.result
        assert result.status == "interrupted", result.output
        again = await sessions.run("%pip install tidy")
        assert again.output.error is not None
        assert "other packages are being installed" in again.output.error.message
        slow_index.open.set()
        place = layers.home(session.launch.workspace)
        async with asyncio.timeout(RUN_TIMEOUT_S):
            while not layers.numbers(place):
                await asyncio.sleep(0.05)
            while (await sessions.run("import tidy")).status != "ok":
                await asyncio.sleep(0.05)


HOSTILE = {
    "a .pth": {"x.py": "", "evil.pth": "import os; open('/tmp/pwned', 'w')"},
    "a sitecustomize": {"sitecustomize.py": "raise SystemExit", "usercustomize.py": "raise SystemExit"},
    "a standard module": {"json.py": "raise SystemExit", "os.py": "", "encodings/__init__.py": "raise SystemExit"},
    "our own name": {"kernelrepl/__init__.py": "raise SystemExit", "IPython/__init__.py": "raise SystemExit"},
    "scripts": {"x-1.0.data/scripts/python3": "#!/bin/sh\n", "x-1.0.data/data/etc/x": "", "x-1.0.data/headers/x.h": ""},
    "paths above": {f"{'../' * above}above.py": "" for above in range(1, 9)},
    "paths above, inside": {f"a/{'../' * above}above.py": "" for above in range(1, 9)},
    "entry points": {"x.py": "", "x-1.0.dist-info/entry_points.txt": "[console_scripts]\n../../../../x = x:main\n"},
    "absolute paths": {"/tmp/absolute.py": ""},
    "paths of data": {f"x-1.0.data/data/{'../' * above}above.py": "" for above in range(1, 9)},
    "our record": {".kernelrepl.json": "{}"},
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_wheel_reaches_its_session_alone(
    sessions: Sessions, index: Path, data_dir: Path, tmp_path: Path, kind: str
) -> None:
    """It is unpacked in its place or refused; the kernel starts again, and no other session notices anything."""
    make_wheel(index, "x", "1.0", HOSTILE[kind], links={"link": "/etc"} if kind == "a .pth" else {})
    await sessions.run("1")
    before = _outside(tmp_path)
    said = await text(sessions, "%pip install x")
    assert "installed x 1.0" in said or "NotInstalled: x not installed: " in said
    assert _outside(tmp_path) == before
    await sessions.kill()
    assert await sessions.value("import json, os, sys; json.dumps([1]), os.getcwd() != '/'") == "('[1]', True)"
    assert await sessions.value("1 + 1", "other") == "2"
    for layer in layers.read(layers.home(await sessions.manager.workspace("s"))):
        assert [one.name for one in layer.packages] == ["x"]


def _outside(base: Path) -> set[str]:
    """All files of the test but those in layers, in the cache of uv and of the database."""
    found = set()
    for directory, _, files in os.walk(base):
        if not re.search("/packages-cache(/|$)|/packages/[0-9a-f]+/site-packages/", f"{directory}/"):
            found |= {f"{directory}/{name}" for name in files if not name.startswith("python_sessions.db")}
    return found | {str(path) for path in (Path("/tmp/pwned"), Path("/tmp/absolute.py")) if path.exists()}


async def test_packages_go_with_their_session(sessions: Sessions) -> None:
    """A session that is deleted leaves none, and one of the same name has none."""
    from kernelrepl.sessions.manager import Origin

    await sessions.run("%pip install tidy")
    place = layers.home(await sessions.manager.workspace("s"))
    assert layers.numbers(place) == [1]
    await sessions.manager.delete("s", Origin())
    assert not place.parent.exists()
    execution = await sessions.run("import tidy")
    assert execution.status == "error"


async def test_what_a_killed_keeper_left_is_swept(tmp_path: Path) -> None:
    """Layers that were not finished, and packages of sessions that are gone; nothing that a session has put there."""
    workspaces = tmp_path / "workspaces"
    theirs = tmp_path / "somebody" / ".new-x"
    theirs.mkdir(parents=True)
    for name in ("a", "b", "c"):
        (workspaces / name).mkdir(parents=True)
        layers.begin(layers.prepare(workspaces / name))
        (layers.home(workspaces / name) / "1").mkdir()
    (workspaces / "a" / "site-packages").symlink_to(theirs.parent)
    (workspaces / "c" / "site-packages" / ".new-y").mkdir(parents=True)
    (workspaces / "b").rmdir()
    directories.sweep_workspaces(workspaces, {"a"})
    installation.sweep(workspaces)
    for name in ("a", "c"):  # of c there is a workspace with files: its row may come back with a copy
        assert [entry.name for entry in layers.home(workspaces / name).iterdir()] == ["1"]
    assert not layers.home(workspaces / "b").parent.exists()
    assert theirs.exists()
    assert (workspaces / "c" / "site-packages" / ".new-y").exists()


def test_uv_is_given_nothing_that_leads_to_code(tmp_path: Path) -> None:
    """Its index and its proxy are the person's; where it writes, and for which Python, is not for them to say."""
    given = {
        "UV_DEFAULT_INDEX": "i", "UV_INDEX_MINE_PASSWORD": "s", "HTTPS_PROXY": "h", "UV_PYTHON": "p", "UV_TARGET": "t",
        "UV_COMPILE_BYTECODE": "1", "UV_PROJECT": "/x", "PYTHONPATH": "x", "A": "b",
        "UV_CONFIG_FILE": f"{tmp_path}/uv.toml", "SSL_CERT_FILE": "/etc/ssl/cert.pem",
    }  # fmt: skip
    kept = {
        name: given[name] for name in ("UV_DEFAULT_INDEX", "UV_INDEX_MINE_PASSWORD", "HTTPS_PROXY", "SSL_CERT_FILE")
    }
    assert uv.environment(given, [str(tmp_path)]) == {**kept, "PATH": "/usr/bin:/bin"}
    assert uv.environment(given)["UV_CONFIG_FILE"] == given["UV_CONFIG_FILE"]


def test_no_uv_is_run_that_a_session_could_have_written() -> None:
    """Wherever it is found."""
    found = Path(uv.find())
    with pytest.raises(InstallerMissing):
        uv.find([str(found.parent)])


async def test_nobody_is_asked_for_what_cannot_be_done(tmp_path: Path) -> None:
    """Where there is no installer, code hears that at once, and not a command that would fail as well."""

    async def ask(question: str) -> bool | None:
        pytest.fail(question)

    packages = Packages(written=lambda: [str(Path(uv.find()).parent)])
    with pytest.raises(InstallerMissing):
        await packages.request("s", tmp_path, "python", ["tidy"], ask)
    off = Packages(Policy.of("off"), written=packages.written)
    with pytest.raises(PackagesNotInstalled, match="off"):
        await off.request("s", tmp_path, "python", ["tidy"], ask)


def test_what_code_reads_of_an_index_has_no_addresses() -> None:
    """They may have a token in them, or tell paths of the host."""
    said = "Failed to fetch: `https://user:token@host/simple/x/` of x/y in /home/somebody/wheels, 1/2"
    assert uv.without_addresses(said) == "Failed to fetch: `the package index of x/y in a file 1/2"


def test_layers_stand_in_their_places_the_latest_first() -> None:
    """Also those that came while the session slept."""
    path = ["", "/site-packages/1", "/usr/lib", "/site-packages/10", "/site-packages/x", "/site-packages/2"]
    assert arranged(path, "/site-packages") == [
        "", "/site-packages/10", "/usr/lib", "/site-packages/2", "/site-packages/x", "/site-packages/1",
    ]  # fmt: skip


async def test_a_layer_that_came_while_the_session_slept_is_the_first(sessions: Sessions) -> None:
    """The order of the import path is stored, and the latest layer is not in it."""
    session, running = await sessions.submit("%pip install broom==1.0")
    await running.result
    await session.hibernate()
    await session.slot.install(["broom==2.0"])
    assert await sessions.value("import broom; broom.BRISTLES") == "80"


async def test_a_kernel_waits_for_no_frame_that_was_read_already(sessions: Sessions) -> None:
    """A cell reads what has come for the event loop as well, which has been told of it and looks afterwards."""
    session, running = await sessions.submit("get_ipython().kernel.saving.serve_keeper()")
    assert (await running.result).status == "ok"
    kernel = session.slot.kernel
    assert kernel is not None
    for number in range(30):
        told = kernel.tell_installed(Installed(None))
        _, result = await asyncio.gather(told, sessions.run(f"%pip install tidy\n{number}"))
        assert result.output.result == str(number)


async def test_too_many_packages_end_no_kernel(sessions: Sessions) -> None:
    """They are refused before anybody is asked, and the session keeps what it has."""
    await sessions.run("kept = object()")
    for names in ([f"n{number}" for number in range(200)], ["n" * 5000]):
        execution = await sessions.run(f"%pip install {' '.join(names)}")
        assert execution.output.error is not None
        assert "too many packages" in execution.output.error.message
    assert "object" in str(await sessions.value("kept"))


async def test_code_asks_only_so_often(sessions: Sessions) -> None:
    """Nothing is looked up then, and no line of the log is written."""
    code = "for _ in range(31):\n    try:\n        get_ipython().run_line_magic('pip', 'install !')\n"
    await sessions.run(f"{code}    except Exception as error:\n        said = str(error)")
    assert "30 times in an hour" in str(await sessions.value("said"))


async def test_sessions_share_no_record(sessions: Sessions, index: Path) -> None:
    """A wheel that brings a file of its name is unpacked once for both."""
    make_wheel(index, "x", "1.0", {".kernelrepl.json": "{}", "x.py": ""})
    await sessions.run("%pip install x", "a")
    await sessions.run("%pip install x tidy", "b")
    found = [layers.read(layers.home(await sessions.manager.workspace(name)))[0] for name in ("a", "b")]
    assert [layer.requested for layer in found] == [("x",), ("x", "tidy")]
