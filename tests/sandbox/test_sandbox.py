"""Confined kernels as their users meet them: what works inside, what is granted, who they run as, what is announced."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernelrepl.errors import AccessRefused, SandboxTooWeak, SandboxUnavailable
from kernelrepl.model import Limits, Resources
from kernelrepl.sandbox import Access, Tier, resolve_access, uid_of
from kernelrepl.sessions.confinement import Confinement, Grants, SessionSpec
from kernelrepl.workspaces import removal
from tests.conftest import Sessions, this_tier

pytestmark = pytest.mark.anyio


# What works inside


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("import os; os.getcwd(), os.path.expanduser('~')", "('/workspace', '/workspace')"),
        ("import getpass, os; getpass.getuser() == os.environ['USER']", "True"),
        ("import pandas as pd; pd.DataFrame({'a': [1, 2]}).to_csv('t.csv'); len(pd.read_csv('t.csv'))", "2"),
        (
            "import pandas as pd; pd.DataFrame({'a': [1.5]}).to_parquet('t.pq'); float(pd.read_parquet('t.pq').a[0])",
            "1.5",
        ),
        ("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.savefig('f.png'); plt.close()", None),
        (
            "import numpy as np; from sklearn.ensemble import RandomForestClassifier as Forest\n"
            "from sklearn.model_selection import cross_val_score\nX = np.arange(400.0).reshape(200, 2)\n"
            "cross_val_score(Forest(5), X, X[:, 0] % 4 > 1, n_jobs=2, cv=2).shape",
            "(2,)",
        ),
        (
            "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as pool: r = pool.map(abs, [-1, -2])\nr",
            "[1, 2]",
        ),
        ("import multiprocessing as m\nwith m.get_context('spawn').Pool(1) as pool: r = pool.map(abs, [-3])\nr", "[3]"),
        (
            "from multiprocessing import shared_memory\nshm = shared_memory.SharedMemory(create=True, size=10)\n"
            "shm.buf[0] = 7; v = shm.buf[0]; shm.close(); shm.unlink(); del shm\nv",
            "7",
        ),
        (
            "import mmap, os\nm = mmap.mmap(-1, 5000)\nif os.fork() == 0:\n    m[4990:4994] = b'mine'; os._exit(0)\n"
            "os.wait(); r = type(m) is mmap.mmap, len(m), m.size(), m[4988:]; m.close(); del m\nr",
            "(True, 5000, 5000, b'\\x00\\x00mine\\x00\\x00\\x00\\x00\\x00\\x00')",
        ),
        (
            "import mmap\nm = mmap.mmap(fileno=-1, length=10, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)\n"
            "m.resize(9000); c = mmap.mmap(-1, 10, access=mmap.ACCESS_COPY); r = len(m), len(c); del m, c\nr",
            "(9000, 10)",
        ),
        (
            "import mmap\nfor length in (0, -1, 1 << 60):\n    try: mmap.mmap(-1, length)\n"
            "    except (OSError, OverflowError) as error: print(type(error).__name__, end=' ')",
            None,
        ),
        (
            "import multiprocessing as m\nc = m.get_context('fork')\n"
            "a = c.Array('i', 4); v = c.Value('d', 1.5); q = c.Queue()\n"
            "def work():\n    a[1] = 7; v.value += 1; q.put(list(a))\n"
            "p = c.Process(target=work); p.start(); r = q.get(), p.join(), a[1], v.value; del a, v, q, p\nr",
            "([0, 7, 0, 0], None, 7, 2.5)",
        ),
        (
            "import multiprocessing as m\nwith m.get_context('fork').Manager() as h:\n"
            "    d = h.dict(); d['a'] = 1; r = dict(d); del d\ndel h\nr",
            "{'a': 1}",
        ),
        (
            "import numpy as np, joblib\nx = np.zeros(300_000); w = np.memmap('w.bin', 'f8', 'w+', shape=2)\n"
            "r = joblib.Parallel(2, max_nbytes='1M')(joblib.delayed(np.sum)(x) for _ in range(2)); del x, w\n"
            "[float(v) for v in r]",
            "[0.0, 0.0]",
        ),
        ("import threading; t = threading.Thread(target=print); t.start(); t.join()", None),
        ("import asyncio; await asyncio.sleep(0, 'slept')", "'slept'"),
        (
            "import asyncio, sys\np = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(6)', stdout=-1)"
            "\nout, _ = await p.communicate(); del p\nout",
            "b'6\\n'",
        ),
        (
            "import sqlite3\nwith sqlite3.connect('d.db') as db:\n db.execute('PRAGMA journal_mode=WAL')\n"
            " db.execute('CREATE TABLE t (a)'); db.execute('INSERT INTO t VALUES (4)')\n"
            "r = sqlite3.connect('d.db').execute('SELECT a FROM t').fetchall(); del db\nr",
            "[(4,)]",
        ),
        ("import subprocess, sys; subprocess.check_output([sys.executable, '-c', 'print(5)'])", "b'5\\n'"),
        ("import tempfile\nwith tempfile.NamedTemporaryFile() as f: n = f.name[:5]\ndel f\nn", "'/tmp/'"),
        (
            "from zoneinfo import ZoneInfo; from datetime import datetime\n"
            "str(datetime(2026, 7, 1, tzinfo=ZoneInfo('Europe/Berlin')).utcoffset())",
            "'2:00:00'",
        ),
        ("import os; sorted(os.listdir('/dev'))[:3], os.access('/', os.W_OK)", "(['fd', 'full', 'null'], False)"),
        ("import os; os.mkfifo('pipe'); os.symlink('t.csv', 'link'); os.chmod('pipe', 0o600)", None),
    ],
)
async def test_what_people_do_works(sessions: Sessions, code: str, shown: str | None) -> None:
    """The scientific stack, processes, files; each in a session of its own."""
    execution = await sessions.run(code)
    assert execution.status == "ok", execution.output.error
    if shown is not None:
        assert execution.output.result == shown


async def test_no_network_and_no_program_but_python(sessions: Sessions) -> None:
    """An ordinary error each, of the class that people handle."""
    for code, error in (
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:1')", "URLError"),
        ("import socket; socket.create_connection(('127.0.0.1', 1))", "PermissionError"),
        ("import subprocess; subprocess.run(['ls'])", "FileNotFoundError"),
        ("import os; os.kill(1, 9); os.listdir('/home')", "FileNotFoundError"),
    ):
        execution = await sessions.run(code)
        assert execution.output.error is not None, code
        assert execution.output.error.name == error


async def test_signals_are_those_of_an_ordinary_process(sessions: Sessions) -> None:
    """The first process of a namespace would not get most of them; a kernel is another."""
    assert await sessions.value("import os; os.getpid() > 1, os.getppid()") == "(True, 1)"
    execution = await sessions.run("import signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert execution.status == "crashed"
    assert "SIGTERM" in (execution.note or "")


async def test_orphans_do_not_stay_as_zombies(sessions: Sessions) -> None:
    """Whoever forks twice leaves its grandchild to the first process, which waits for it."""
    await sessions.run("import os, time")
    await sessions.run(
        "for _ in range(20):\n    if os.fork() == 0:\n        if os.fork() == 0: os._exit(0)\n        os._exit(0)\n"
        "    os.wait()\ntime.sleep(0.3)"
    )
    left = "[p for p in os.listdir('/proc') if p.isdigit() and ') Z ' in open(f'/proc/{p}/stat').read()]"
    assert await sessions.value(left) == "[]"


# What is granted


async def test_what_is_granted_is_readable_and_no_more(sessions: Sessions, tmp_path: Path) -> None:
    """Fixed when the session is made; another caller with other settings changes nothing."""
    data = tmp_path / "shared"
    data.mkdir()
    (data / "a.txt").write_text("granted")
    tmp_path.chmod(0o755)
    read = f"open({str(data / 'a.txt')!r}).read()"
    granted = await sessions.run(read, read=(str(data),))
    assert granted.output.result == "'granted'"
    refused = await sessions.run(f"open({str(data / 'a.txt')!r}, 'a')")
    assert refused.output.error is not None
    assert refused.output.error.name in ("OSError", "PermissionError")
    assert (await sessions.run(read, "other")).status == "error"
    assert (await sessions.run(read, "other", read=(str(data),))).status == "error"
    await sessions.kill()
    assert (await sessions.run(read)).output.result == "'granted'"


async def test_a_granted_folder_to_write_to(sessions: Sessions, tmp_path: Path) -> None:
    """What it writes is there on the host, and cannot be run."""
    data = tmp_path / "out"
    data.mkdir()
    data.chmod(0o777)
    code = f"import os; os.chdir({str(data)!r}); open('r.txt', 'w').write('made'); os.access('r.txt', os.X_OK)"
    assert (await sessions.run(code, write=(str(data),))).output.result == "False"
    assert (data / "r.txt").read_text() == "made"


async def test_grant_adds_and_takes_away(sessions: Sessions, tmp_path: Path) -> None:
    """The kernel is started again for it, and its variables are there."""
    data = tmp_path / "later"
    data.mkdir()
    tmp_path.chmod(0o755)
    (data / "a").write_text("x")
    await sessions.run("kept = 5")
    assert (await sessions.manager.grant("s", [str(data)], [], []))[0] == Access((str(data),), ())
    assert await sessions.value(f"kept, open({str(data / 'a')!r}).read()") == "(5, 'x')"
    assert (await sessions.manager.grant("s", [], [str(data)], []))[0] == Access((), (str(data),))
    assert (await sessions.manager.grant("s", [], [], [str(data)]))[0] == Access()
    assert (await sessions.run(f"open({str(data / 'a')!r})")).status == "error"


async def test_a_path_that_has_become_a_link_is_not_followed(sessions: Sessions, tmp_path: Path) -> None:
    """Who may write beside a granted folder must not choose what it means."""
    data, secret = tmp_path / "shared", tmp_path / "secret"
    data.mkdir()
    secret.mkdir()
    await sessions.run("1", read=(str(data),))
    await sessions.kill()
    data.rmdir()
    data.symlink_to(secret)
    with pytest.raises(AccessRefused, match="leads elsewhere"):
        await sessions.run("1")


def test_what_can_be_granted(tmp_path: Path) -> None:
    """Resolved once; never our own directories, what holds them, or what a kernel needs itself."""
    own = tmp_path / "own"
    (own / "inner").mkdir(parents=True)
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    os.mkfifo(tmp_path / "fifo")
    assert resolve_access([str(tmp_path / "link")], [str(data)], [own]) == Access((str(data),), (str(data),))
    for path, why in (
        (own, "own directories"),
        (own / "inner", "own directories"),
        (tmp_path, "own directories"),
        (Path("/"), "own directories"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "fifo", "neither a file nor a directory"),
        ("data", "not absolute"),
        ("/proc", "needs itself"),
        ("/usr", "needs itself"),
    ):
        with pytest.raises(AccessRefused, match=why):
            resolve_access([str(path)], [], [own])


# Who it runs as, and what is announced


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's kernels run as that user")
async def test_as_root_each_session_has_a_user_of_its_own(sessions: Sessions) -> None:
    """Nothing of the host belongs to it, and its workspace does; two sessions have different ones."""
    await sessions.run("open('mine', 'w').close()")
    await sessions.run("open('mine', 'w').close()", "other")
    owners = {}
    for name in ("s", "other"):
        session = sessions.manager.loaded()[name]
        owners[name] = (session.launch.workspace / "mine").stat().st_uid
        assert owners[name] == session.launch.workspace.stat().st_uid == uid_of(session.launch.workspace.name)
        status = Path(f"/proc/{session.pid}/status").read_text()
        assert f"Uid:\t{owners[name]}\t{owners[name]}\t" in status
    assert owners["s"] != owners["other"]
    assert await sessions.value("import os; os.getuid(), os.getgroups()") in ("(1000, [])", "(1000, [1000])")


async def test_the_sandbox_stands_in_replies_and_lists(sessions: Sessions) -> None:
    """So that nobody takes an unconfined kernel for a confined one."""
    execution = await sessions.run("1")
    (view,) = await sessions.manager.list_sessions()
    assert execution.sandbox == view.sandbox == this_tier().label


def with_tier(sessions: Sessions, tier: Tier | None) -> None:
    """As if another keeper took the data directory over."""
    confinement = dataclasses.replace(sessions.manager.confinement, tier=tier)
    sessions.manager.confinement = confinement
    sessions.manager.sandbox = confinement.label
    sessions.manager._sessions.clear()


async def test_what_hostile_code_left_does_not_run_with_less_in_its_way(sessions: Sessions) -> None:
    """A session made in a sandbox is not opened in a weaker one; its variables can still be listed."""
    await sessions.run("x = 1")
    session = sessions.manager.loaded()["s"]
    await session.hibernate()
    for tier in (None, Tier(2, 7)):
        with_tier(sessions, tier)
        if tier is None or this_tier().number == 1:
            with pytest.raises(SandboxTooWeak, match=r"start the keeper where that sandbox is possible"):
                await sessions.run("x")
        assert [variable.name for variable in await sessions.manager.list_variables("s")] == ["x"]
    with_tier(sessions, this_tier())
    assert await sessions.value("x") == "1"


async def test_where_nothing_confines_nothing_runs(sessions: Sessions) -> None:
    """It is said what is missing and what to do, the session stays, and later it runs."""
    with_tier(sessions, Tier(0, why="tier 1: user namespaces: Operation not permitted"))
    with pytest.raises(SandboxUnavailable, match=r"user namespaces: Operation not permitted.*apparmor_restrict"):
        await sessions.run("x = 1")
    with_tier(sessions, this_tier())
    assert await sessions.value("1 + 1") == "2"


def test_a_session_from_outside_the_sandbox_may_enter_it_and_not_go_back() -> None:
    """What it was made in is raised with it."""
    place = Path("/nowhere")
    off, on = Confinement(None, "python", place), Confinement(Tier(1, 7), "python", place)
    stored = off.fix(Grants())
    assert stored.sandbox == "off"
    raised = on.admit("s", stored)
    assert raised.sandbox == "tier 1"
    assert SessionSpec.load(json.loads(json.dumps(raised.dump()))) == raised
    with pytest.raises(SandboxTooWeak):
        off.admit("s", raised)


def test_rows_from_before_there_was_a_sandbox_are_read() -> None:
    """With the defaults for what they have not."""
    old = {"limits": dataclasses.asdict(Limits()), "python": None, "sandbox": "off"}
    assert SessionSpec.load(old) == SessionSpec(Limits(), None, "off", Resources(), Access())


def test_only_the_config_file_switches_the_sandbox_off(environ: dict[str, str], tmp_path: Path) -> None:
    """Neither the environment nor any tool does."""

    def doctor(**more: str) -> Any:
        command = [sys.executable, "-m", "kernelrepl", "doctor"]
        return subprocess.run(command, env={**environ, **more}, capture_output=True, text=True, check=False)

    by_environment = doctor(KERNELREPL_SANDBOX="off")
    assert by_environment.returncode == 1
    assert "KERNELREPL_SANDBOX does not switch the sandbox off: only a person does" in by_environment.stderr
    on = doctor()
    assert "sandbox: tier " in on.stdout
    assert "read a file of the host: refused (" in on.stdout
    file = tmp_path / "config.toml"
    file.write_text('sandbox = "off"\n')
    off = doctor(KERNELREPL_CONFIG=str(file))
    assert f"sandbox: off, by {file}; kernels run with your own rights" in off.stdout


def test_trees_that_hostile_code_made_are_removed(tmp_path: Path) -> None:
    """Closed, deeper than Python recurses and paths are long, with links to what is not theirs."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    top = tmp_path / "top"
    (top / "closed" / "inner").mkdir(parents=True)
    (top / "closed" / "inner" / "file").write_text("")
    (top / "link").symlink_to(outside)
    here = Path.cwd()
    os.chdir(top)
    for _ in range(3000):
        os.mkdir("d" * 20)  # noqa: PTH102 - the path is too long for any other way
        os.symlink(outside, "link") if not os.path.lexists("link") else None  # noqa: PTH211
        os.chdir("d" * 20)
    os.chdir(here)
    (top / "closed" / "inner").chmod(0)
    (top / "closed").chmod(0)
    removal.remove(top)
    assert not top.exists()
    assert (outside / "kept").exists()
    removal.remove(top)
    (tmp_path / "link").symlink_to(outside)
    removal.remove(tmp_path / "link")
    assert (outside / "kept").exists()


def test_less_than_the_whole_sandbox_is_said_in_the_first_reply(environ: dict[str, str], tmp_path: Path) -> None:
    """Once for each session, in words that a model sees which is shown no structure."""
    file = tmp_path / "config.toml"
    file.write_text('sandbox = "off"\n')

    def run(code: str) -> tuple[str, str]:
        command = [sys.executable, "-m", "kernelrepl", "exec", "-s", "s", code]
        more = {**environ, "KERNELREPL_CONFIG": str(file)}
        done = subprocess.run(command, env=more, capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    warning = "⟦sandbox⟧ off, by config.toml: this code runs with all rights of the person who started it\n"
    assert run("1 + 1") == ("2\n", warning)
    assert run("import os; os.getuid()") == (f"{os.getuid()}\n", "")
