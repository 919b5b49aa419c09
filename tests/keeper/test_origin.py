"""`kernelrepl import-origin`: a database that pyhub-mcptools itself has written, and what becomes of its sessions."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from kernelrepl.cli.origin import session_id
from kernelrepl.client import connection as client
from tests.support import pyhub_writer
from tests.support.mcp_hosts import COMMAND, Place, call, command, kill_9, run

PACKAGES = ("pyhub-mcptools==0.9.8", "django>=5.2,<6", "asgiref")
"""It and what its writer of databases imports."""
TIMEOUT_S = 180.0
"""A deadline, not a measurement: what takes longer hangs."""

TABLES = """
import collections, datetime, decimal, fractions, uuid
import numpy as np, pandas as pd
frame = pd.DataFrame({"n": [1, 2, None], "s": ["a", "b", "c"]}, index=pd.date_range("2024-01-01", periods=3))
series = pd.Series([1.5, 2.5], name="rate")
groups = pd.Categorical(["low", "high", "low"])
array = np.arange(12, dtype="float32").reshape(3, 4)
many = pd.MultiIndex.from_product([[1, 2], ["x", "y"]])
price, third = decimal.Decimal("1.10"), fractions.Fraction(1, 3)
key, queue = uuid.UUID(int=7), collections.deque([1, 2], maxlen=5)
"""
SESSIONS: dict[str, tuple[list[str], str]] = {
    "numbers": (
        ["n = 10 ** 40\nx = 0.1\nyes = True\nnothing = None\nprint('n is', n)", "n += 1\nn"],
        "(n, x, yes, nothing) == (10 ** 40 + 1, 0.1, True, None)",
    ),
    "texts": (
        ["s = 'naïve \\U0001f600\\0 end'\nb = b'\\x00\\xff'"],
        "s[-3:] == 'end' and s[6] == '\\U0001f600' and b == b'\\x00\\xff'",
    ),
    "boxes": (
        ["d = {'a': [1, (2, 3)], 4: {5, 6}}\nf = frozenset([1])"],
        "(d, f) == ({'a': [1, (2, 3)], 4: {5, 6}}, frozenset([1]))",
    ),
    "itself": (["loop = [1]\nloop.append(loop)"], "loop[0] == 1 and loop[1] is loop"),
    "counted": (["counts = Counter('banana')"], "counts['a'] == 3 and type(counts).__name__ == 'Counter'"),
    "moments": (
        ["when = datetime.datetime(2024, 2, 29, 12)\nhow_long = datetime.timedelta(days=2)"],
        "(str(when), how_long.days) == ('2024-02-29 12:00:00', 2)",
    ),
    "normal": (["normal = statistics.NormalDist(1, 2)"], "(normal.mean, normal.stdev) == (1.0, 2.0)"),
    "large": (["blob = bytes(range(256)) * 20000"], "blob == bytes(range(256)) * 20000"),
    "code": (["def double(x):\n    return 2 * x\nclass Point:\n    pass\nkept = double(4)"],
             "kept == 8 and 'double' not in globals() and 'Point' not in globals()"),
    "failing": (["before = 1", "print('so far')\nbefore / 0", "after = 2"], "(before, after) == (1, 2)"),
    "내 세션": (["name = '세션'"], "name == '세션'"),
    "a/b c": (["there = [1]"], "there == [1]"),
    "a b/c": (["there = [2]"], "there == [2]"),
    "x" * 120: (["long = 1"], "long == 1"),
    "-front": (["dash = 1"], "dash == 1"),
    "Case": (["big = 1"], "big == 1 and 'small' not in globals()"),
    "case": (["small = 1"], "small == 1 and 'big' not in globals()"),
    "empty": (["gone = 1\ndel gone"], "'gone' not in globals()"),
    "table": (
        [TABLES],
        "frame.shape == (3, 2) and frame.n.sum() == 3 and str(frame.index[2]) == '2024-01-03 00:00:00'"
        " and series.tolist() == [1.5, 2.5] and series.name == 'rate' and list(groups) == ['low', 'high', 'low']"
        " and array.dtype == 'float32' and array.shape == (3, 4) and array.sum() == 66 and many[3] == (2, 'y')"
        " and str(price) == '1.10' and third * 3 == 1 and key.int == 7 and (list(queue), queue.maxlen) == ([1, 2], 5)",
    ),
    "table-2": (
        ["import collections\nz = 1 - 2j\nc = bytearray(b'abc')\ngroups = collections.defaultdict(list, a=[1])"],
        "(z, c, type(c), groups, groups.default_factory) == (1 - 2j, b'abc', bytearray, {'a': [1]}, list)",
    ),
}  # fmt: skip
"""Of each session its code, and what has to be true of its values. There are twenty."""


def missing(what: str) -> None:
    """What a machine lacks is a reason to skip, except where everything is to be tested."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI tests everything")
    pytest.skip(what)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that pyhub-mcptools has written, in an environment of its own."""
    base = tmp_path_factory.mktemp("pyhub")
    venv.create(base / "venv", symlinks=True)
    python = str(base / "venv" / "bin" / "python")
    options = ("--python", python, "install", "--quiet", "--no-deps", "--no-compile", "--disable-pip-version-check")
    done = subprocess.run([sys.executable, "-m", "pip", *options, *PACKAGES], capture_output=True, text=True)
    if done.returncode:
        missing(f"pyhub-mcptools 0.9.8 cannot be installed: {done.stderr.strip()[-300:]}")
    (base / "data").mkdir()
    plain = [(name, cells) for name, (cells, _) in SESSIONS.items() if not name.startswith("table")]
    tables = [(name, cells) for name, (cells, _) in SESSIONS.items() if name.startswith("table")]
    for sessions, libraries in ((plain, {}), (tables, {"PYTHONPATH": sysconfig.get_path("purelib")})):
        words = [python, pyhub_writer.__file__, str(base / "data")]
        environment = {"PATH": os.defpath, "HOME": str(base), **libraries}
        subprocess.run(words, input=json.dumps(sessions), text=True, check=True, env=environment, timeout=TIMEOUT_S)
    return base / "data" / "python_sessions.db"


@pytest.fixture
def file(written: Path, tmp_path: Path) -> Path:
    """A copy of it, that a test may change."""
    (tmp_path / "origin").mkdir()
    return Path(shutil.copy(written, tmp_path / "origin"))


def imports(environ: Mapping[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [str(COMMAND), "import-origin", *map(str, arguments)]
    return subprocess.run(
        words, env=dict(environ), cwd="/", capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def bytes_beside(file: Path) -> dict[str, tuple[bytes, int]]:
    """All files in the directory of a file, with their contents and times."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in file.parent.iterdir()}


def holds(environ: Mapping[str, str], session: str, condition: str) -> bool:
    """Whether a condition is true, as the session itself sees it."""
    return "True" in command(environ, "exec", "-s", session, condition).stdout.splitlines()


def history(environ: Mapping[str, str], session: str) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(command(environ, "export", session).stdout)["cells"]
    return cells


@pytest.mark.slow
@pytest.mark.anyio
async def test_twenty_sessions_come_in_with_equal_values(
    shared_environ: dict[str, str], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value, each piece of code with what it showed and when; and the file is as it was."""
    before = bytes_beside(file)
    shown = imports(shared_environ, file, "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert len(re.findall("would be imported", shown.stdout)) == len(SESSIONS) == 20
    assert command(shared_environ, "sessions").stdout == ""
    done = imports(shared_environ, file)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert bytes_beside(file) == before
    assert "not imported" not in done.stdout
    for name, value in shared_environ.items():
        monkeypatch.setenv(name, value)
    async with client.connect(operator=True) as operator:
        for name in SESSIONS:
            await is_there(operator, file, name)
        shown_there = (await cells_of(operator, "numbers"))[0]["outputs"]
        failed = (await cells_of(operator, "failing"))[1]
    assert shown_there == [{"output_type": "stream", "name": "stdout", "text": f"n is {10**40}\n"}]
    assert failed["metadata"]["kernelrepl"]["status"] == "error"
    assert [output.get("ename") for output in failed["outputs"]] == [None, "ZeroDivisionError"]
    again = imports(shared_environ, file)
    assert (again.returncode, again.stdout.count("is here already")) == (0, 20)
    assert len(history(shared_environ, "case")) == 3  # its code, what loaded its values, and a condition


async def is_there(operator: Client, file: Path, name: str) -> None:
    """Fails unless a session has its values, as it sees them itself, and its history with the times of the file."""
    cells, condition = SESSIONS[name]
    target = session_id(name.encode())
    assert (await run(operator, condition, target))["result"] == "True", name
    found = await cells_of(operator, target)
    assert [cell["source"] for cell in found][: len(cells)] == cells
    assert found[len(cells)]["source"].startswith("# kernelrepl import-origin") is (name != "empty")
    times = [cell["metadata"]["kernelrepl"]["started_at"] for cell in found[: len(cells)]]
    query = "SELECT strftime('%Y-%m-%dT%H:%M:%S.000Z', executed_at) FROM execution_history WHERE session_id = ?"
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as origin:
        assert times == [at for (at,) in origin.execute(f"{query} ORDER BY id", [name])]


async def cells_of(operator: Client, session: str) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = (await call(operator, "keeper_history", session_id=session))["cells"]
    return cells


# Files of our own making, in the form of the other program

SCHEMA = """
CREATE TABLE sessions (session_id TEXT PRIMARY KEY, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    last_accessed TIMESTAMP DEFAULT CURRENT_TIMESTAMP, total_executions INTEGER DEFAULT 0,
    is_active BOOLEAN DEFAULT TRUE);
CREATE TABLE session_variables (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,
    variable_name TEXT NOT NULL, variable_type TEXT NOT NULL, pickled_value BLOB NOT NULL, size_bytes INTEGER,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    UNIQUE(session_id, variable_name));
CREATE TABLE execution_history (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, code TEXT NOT NULL,
    output TEXT, error TEXT, executed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, execution_time_ms INTEGER);
"""


@contextlib.contextmanager
def made(path: Path, sessions: Mapping[str, Mapping[str, bytes]], runs: Sequence[str] = ()) -> Iterator[Any]:
    """A database in the form of pyhub-mcptools, open as long as the block lasts. runs: code in each session."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(f"PRAGMA journal_mode = WAL; {SCHEMA}")
        for name, values in sessions.items():
            db.execute("INSERT INTO sessions (session_id) VALUES (?)", [name])
            for variable, data in values.items():
                row = [name, variable, "?", data, len(data)]
                db.execute("INSERT INTO session_variables VALUES (NULL, ?, ?, ?, ?, ?, NULL, NULL)", row)
            for code in runs:
                db.execute("INSERT INTO execution_history (session_id, code, output) VALUES (?, ?, '')", [name, code])
        yield db


class Calls:
    """An object whose pickle calls something when it is opened."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self.call = (what, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_only_the_kernel_of_the_session_opens_pickles(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """One says in which process it was opened, and one ends that process."""
    values = {
        "opener": pickle.dumps(Calls(os.getpid)),
        "good": pickle.dumps([1]),
        "deadly": pickle.dumps(Calls(os._exit, 3)),
        "rubbish": b"gASVAAAA rubbish",
        "deep": b"(" * 100_000 + b"." ,
        "unknown": pickle.dumps(Calls(os.getpid)).replace(b"getpid", b"gutpid"),
        "leaves": pickle.dumps(Calls(sys.exit, 3)),
        "no name": pickle.dumps(1),
        "_hidden": pickle.dumps(2),
        "last": pickle.dumps("end"),
    }  # fmt: skip
    for name, session, stored in (("pids.db", "pids", {"opener": values["opener"]}), ("h.db", "hostile", values)):
        with made(tmp_path / name, {session: stored}):
            pass
    assert imports(shared_environ, tmp_path / "pids.db").returncode == 0
    assert holds(shared_environ, "pids", "opener == __import__('os').getpid()")
    done = imports(shared_environ, tmp_path / "h.db")
    assert (done.returncode, done.stderr) == (0, "")
    lost = dict(re.findall("^  not imported: (.+?): (.*)$", done.stdout, re.M))
    assert lost.keys() == values.keys() - {"opener", "good", "last"}
    assert lost["deadly"] == "to load it ended with status crashed"
    assert lost["leaves"] == "SystemExit: 3"
    assert holds(shared_environ, "hostile", "(good, last) == ([1], 'end')")
    assert imports(shared_environ, tmp_path / "h.db").stdout.count("is here already") == 1


def test_a_session_gets_as_much_as_it_may_have(environ: dict[str, str], tmp_path: Path) -> None:
    """The small values come in, and those beyond its limit are named with the reason."""
    values = {f"v{number}": pickle.dumps(bytes([number]) * 400_000) for number in range(4)} | {"small": pickle.dumps(1)}
    with made(tmp_path / "a.db", {"s": values}):
        pass
    limited = {**environ, "KERNELREPL_MAX_SESSION_BYTES": "1000000", "KERNELREPL_MAX_VARIABLE_BYTES": "500000"}
    done = imports(limited, tmp_path / "a.db")
    assert (done.returncode, done.stderr) == (0, "")
    lost = re.findall("^  not imported: (v[0-3]): the session would be larger", done.stdout, re.M)
    assert len(lost) == 2, done.stdout
    kept = [f"{name} == bytes([{name[1:]}]) * 400_000" for name in values if name not in (*lost, "small")]
    assert holds(limited, "s", " and ".join(["small == 1", *kept]))


def test_a_log_beside_the_file_counts_and_stays(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """What was committed but not moved into the file yet is in there only."""
    (tmp_path / "at rest").mkdir()
    with made(tmp_path / "live.db", {"logged": {"x": pickle.dumps(5)}}):
        for path in (tmp_path / "live.db", tmp_path / "live.db-wal"):
            shutil.copy(path, tmp_path / "at rest")
    file = tmp_path / "at rest" / "live.db"
    file.parent.chmod(0o500)
    before = bytes_beside(file)
    assert set(before) == {"live.db", "live.db-wal"}
    done = imports(shared_environ, file)
    assert bytes_beside(file) == before
    assert (done.returncode, done.stderr) == (0, "")
    assert holds(shared_environ, "logged", "x == 5")
    file.parent.chmod(0o700)


def test_another_session_is_never_written_to(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """The person says how: a prefix gives it another id. What is not taken is told, and the rest comes in."""
    command(shared_environ, "exec", "-s", "mine", "x = 'my own'")
    with made(tmp_path / "a.db", {"mine": {"x": pickle.dumps(1)}, "theirs": {"x": pickle.dumps(2)}}):
        pass
    done = imports(shared_environ, tmp_path / "a.db")
    assert done.returncode == 1
    assert done.stderr.startswith("mine: refused")
    assert holds(shared_environ, "mine", "x == 'my own'")
    assert holds(shared_environ, "theirs", "x == 2")
    assert imports(shared_environ, tmp_path / "a.db", "--prefix", "old:").returncode == 0
    assert holds(shared_environ, "old:mine", "x == 1")
    with made(tmp_path / "b.db", {"theirs": {"x": pickle.dumps(3)}}):
        pass
    assert imports(shared_environ, tmp_path / "b.db").returncode == 1  # the same id, but another session
    assert holds(shared_environ, "theirs", "x == 2")


@pytest.mark.parametrize("victim", ["command", "keeper"])
def test_an_import_that_was_killed_goes_on(shared_environ: dict[str, str], tmp_path: Path, victim: str) -> None:
    """Nothing is doubled, and each session is whole in the end."""
    names = [f"{victim}{number}" for number in range(3)]
    runs = ["x = 1", "y = 2"]
    with made(tmp_path / "a.db", {name: {"x": pickle.dumps(name)} for name in names}, runs):
        pass
    place = Place(shared_environ)
    words = [str(COMMAND), "import-origin", str(tmp_path / "a.db")]
    with subprocess.Popen(words, env=shared_environ, cwd="/", stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith(f"{names[0]}:") for line in process.stdout)
        if victim == "command":
            process.send_signal(signal.SIGKILL)
        else:
            kill_9(place.keeper)
        process.communicate(timeout=TIMEOUT_S)
    done = imports(shared_environ, tmp_path / "a.db")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[1:]] == names
    for name in names:
        assert holds(shared_environ, name, f"x == {name!r}")
        cells = [cell["source"] for cell in history(shared_environ, name)]
        assert cells[:2] == runs
        assert cells.count("x = 1") == cells.count("y = 2") == 1


def test_without_a_sandbox_nothing_is_opened(environ: dict[str, str], tmp_path: Path) -> None:
    """A pickle runs what its maker likes."""
    (tmp_path / "config.toml").write_text('sandbox = "off"\n')
    environ = {**environ, "KERNELREPL_CONFIG": str(tmp_path / "config.toml")}
    with made(tmp_path / "a.db", {"s": {"x": pickle.dumps(1)}}):
        pass
    done = imports(environ, tmp_path / "a.db")
    assert (done.returncode, done.stdout.count("s:")) == (1, 0)
    assert "in a sandbox only" in done.stderr
    assert command(environ, "sessions").stdout == ""


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0", b"SQLite format 3\0" + b"\xff" * 5000])
def test_what_is_no_database_is_refused(shared_environ: dict[str, str], tmp_path: Path, content: bytes) -> None:
    """With a word on what to name."""
    path = tmp_path / "f.db"
    path.write_bytes(content)
    done = imports(shared_environ, path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "name the python_sessions.db" in done.stderr
    assert path.read_bytes() == content


def test_what_is_no_plain_file_is_refused(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """A pipe would be waited for, a sparse file is as large as it says, and a journal is half of a change."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    with made(tmp_path / "half.db", {}):
        pass
    (tmp_path / "link").symlink_to("half.db")
    (tmp_path / "half.db-journal").write_bytes(b"x")
    for name, why in (
        ("pipe", "is no plain file"),
        (".", "is no plain file"),
        ("link", "is no plain file"),
        ("sparse", "which is the limit"),
        ("half.db", "left half done"),
        ("nothing", "cannot be read: No such file"),
    ):
        done = imports(shared_environ, tmp_path / name)
        assert (done.returncode, done.stdout) == (1, "")
        assert why in done.stderr
