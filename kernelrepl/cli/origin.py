"""Sessions of pyhub-mcptools become sessions here.

This process reads the file as a database and moves bytes. Only the kernel of a session opens its values, in its
sandbox: they are pickles, and run what whoever made the file likes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import keyword
import re
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kernelrepl.cli.base import given, written
from kernelrepl.cli.calls import Caller
from kernelrepl.cli.terminal import FAILED, say
from kernelrepl.errors import InvalidArgument, InvalidSessionId, KeeperUnavailable, KernelReplError
from kernelrepl.model import counted
from kernelrepl.outputs.terminal_text import field
from kernelrepl.validation import check_code, check_session_id
from kernelrepl.workspaces import files as workspace_files
from kernelrepl.workspaces import own_files

if TYPE_CHECKING:
    from kernelrepl.store.pyhub import PyhubDatabase, PyhubSession, PyhubValue

PROGRAM = "pyhub-mcptools"
MAX_FILE_BYTES = 4 << 30
MAX_VALUES_BYTES = 200_000_000
"""Of one session, together. A session here keeps half of it, if nobody says otherwise."""
MAX_NAME_CHARS = 200
MOST_NAMED = 100
"""Values of one session that are named because they are not here."""
MOST_FAILURES = 3
"""Values of one session that may end its kernel or go beyond its limits, before the others are left out."""
_PAGE_BYTES, _PAGE_ROWS, _MAX_ROW_BYTES = 4 << 20, 500, 40 << 20
_PLACE = ".import-origin"
"""The file in a workspace that brings values in. The cell that loads them removes it."""
_MAGIC = b"SQLite format 3\0"
_BAD_CHARACTERS = re.compile(r"[^A-Za-z0-9._\-:@+]+")
_NOT_AT_FRONT = re.compile(r"\A[^A-Za-z0-9]+")

LOAD = f"""\
# kernelrepl import-origin: these are the values that {PROGRAM} had stored.
def _import_origin(path):
    import os, pickle
    values = {{}}
    with open(path, "rb") as file:
        while head := file.readline():
            name, size = head.decode().split()
            data = file.read(int(size))
            try:
                values[name] = pickle.loads(data)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                print(f"{{name}}: {{type(error).__name__}}: {{error}}"[:300].replace("\\n", " "))
    os.remove(path)
    globals().update(values)
_import_origin({_PLACE!r})
del _import_origin
"""
FINISH = f"""\
# kernelrepl import-origin: the values came one by one, because not all could be loaded together.
globals().pop("_import_origin", None)
__import__("pathlib").Path({_PLACE!r}).unlink(missing_ok=True)
"""


@click.command("import-origin")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--prefix", default="", help="Put this in front of the id of each session.")
@click.option("--dry-run", is_flag=True, help="Only list what would be imported.")
@click.option(
    "--timeout", type=float, default=300, show_default=True, help="Give the values of a session so many seconds."
)
def import_origin(file: Path, prefix: str, dry_run: bool, timeout: float) -> None:
    """Import the sessions of pyhub-mcptools. FILE is its python_sessions.db, which stays as it is."""
    if prefix:
        check_session_id(f"{prefix}x")
    failed = 0
    with _database(file) as database, Caller(operator=True) as keeper:
        sessions = database.sessions()
        say(f"{field(str(file))}: {counted(len(sessions), 'session')} of {PROGRAM}")
        left_out = {"of sessions that were deleted there": database.orphans, "damaged": database.unreadable}
        for what, count in left_out.items():
            if count:
                say(f"rows left out: {count}, {what}", err=True)
        for session in sessions:
            one = _Import(database, keeper, session, session_id(session.id, prefix), timeout)
            try:
                failed += not (one.show() if dry_run else one.run())
            except (KeeperUnavailable, InvalidArgument):
                raise
            except KernelReplError as error:
                say(f"{one.target}: not imported: {error}", err=True)
                failed += 1
    if failed:
        sys.exit(FAILED)


def session_id(of: bytes, prefix: str = "") -> str:
    """The id that a session gets here: its own if it is allowed, else one that only depends on it and the prefix."""
    text = prefix + of[:400].decode(errors="replace")
    try:
        of.decode()
        if len(of) < 400:
            return check_session_id(text)
    except (UnicodeDecodeError, InvalidSessionId):
        pass
    kept = _NOT_AT_FRONT.sub("", _BAD_CHARACTERS.sub("-", text))[:80] or "session"
    return f"{kept}-{hashlib.sha256(of).hexdigest()[:8]}"


# The file


@contextlib.contextmanager
def _database(file: Path) -> Iterator[PyhubDatabase]:
    """The file as a database, from a copy: SQLite would make files beside the original, or change those it has."""
    from kernelrepl.store.pyhub import PyhubDatabase

    places = written()
    with tempfile.TemporaryDirectory(prefix="kernelrepl-") as directory:
        copy = Path(directory) / "copy.db"
        try:
            before = _files(file)
            for suffix in before:
                _copy(Path(f"{file}{suffix}"), Path(f"{copy}{suffix}"), places)
            changed = _files(file) != before
        except OSError as error:
            why = f"'{file}' cannot be read: {error.strerror}; name a file that you can read"
            raise InvalidArgument(why) from error
        if changed:
            raise InvalidArgument(f"'{file}' is being written to; stop {PROGRAM}, and try again")
        with PyhubDatabase(copy, str(file)) as database:
            yield database


def _files(file: Path) -> dict[str, tuple[int, int, int]]:
    """What the names of the file and of its log, if it has one, end with, and what tells that one has changed.

    Raises OSError, InvalidArgument.
    """
    found = {}
    for suffix in ("", "-wal", "-journal"):
        path = Path(f"{file}{suffix}")
        try:
            status = path.lstat()  # the log of what a link leads to lies elsewhere
        except FileNotFoundError:
            if not suffix:
                raise
            continue
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f"'{path}' is no plain file; name the python_sessions.db of {PROGRAM} itself")
        if suffix == "-journal" and status.st_size:
            raise InvalidArgument(f"'{path}' is what a crash has left half done; open '{file}' with {PROGRAM} once")
        if not suffix or status.st_size:
            found[suffix] = (status.st_size, status.st_mtime_ns, status.st_ino)
    if sum(size for size, *_ in found.values()) > MAX_FILE_BYTES:
        raise InvalidArgument(f"'{file}' has more than {MAX_FILE_BYTES} bytes, which is the limit")
    return found


def _copy(original: Path, copy: Path, places: Sequence[str]) -> None:
    with own_files.open_file(original, places) as source, copy.open("wb") as out:
        first = source.read(len(_MAGIC)) or b""
        if copy.suffix == ".db" and first != _MAGIC:
            raise InvalidArgument(f"'{original}' is no SQLite database; name the python_sessions.db of {PROGRAM}")
        out.write(first)
        shutil.copyfileobj(source, out, 1 << 20)


# One session


class _Import:
    """One session on its way from the file into the keeper."""

    def __init__(
        self, database: PyhubDatabase, keeper: Caller, session: PyhubSession, target: str, timeout_s: float
    ) -> None:
        """target: its id here."""
        self.target = target
        self._database = database
        self._keeper = keeper
        self._session = session
        self._timeout_s = timeout_s
        self._lost: dict[str, str] = {}
        self._values = self._fit(list(database.values(session)))
        about = [target, session.id.hex(), session.about, session.executions]
        about += [(value.row, value.name, value.size) for value in self._values]
        self._source = f"{PROGRAM}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]}"
        """What it is made of: the same file gives the same, and one that was used since does not."""

    def _fit(self, values: list[PyhubValue]) -> list[PyhubValue]:
        """Those that can be imported; why the others cannot is noted."""
        found: dict[str, PyhubValue] = {}
        size = 0
        for value in values:
            why = value.why or _why_no_name(value.name)
            if not why and size + value.size > MAX_VALUES_BYTES:
                why = f"the values of its session have more than {MAX_VALUES_BYTES} bytes"
            if why:
                self._lost[value.name] = why
            else:
                size += value.size
                found[value.name] = value
        return list(found.values())

    def _call(self, tool: str, **arguments: Any) -> Any:
        return self._keeper.call(tool, session_id=self.target, **arguments)

    def show(self) -> bool:
        """Say what would be imported; whether it would."""
        state = self._call("keeper_import_state", source=self._source).text
        words = {"whole": "is here already", "other": _OTHER, "begun": "would go on"}.get(state, "would be imported")
        say(f"{self.target}: {words}: {_counts(len(self._values), len(self._session.executions))}{self._renamed()}")
        self._say_lost()
        return bool(state != "other")

    def run(self) -> bool:
        """Import it, and say what came of it; whether it is here now."""
        state = self._call("keeper_import_state", source=self._source).text
        if state in ("whole", "other"):
            say(f"{self.target}: {'is here already' if state == 'whole' else _OTHER}", err=state == "other")
            return bool(state == "whole")
        executions = self._send_history()
        if not self._values:  # there is nothing that a kernel would have to do
            whole = "is here already" if state == "begun" else _counts(0, executions)
            say(f"{self.target}: {whole}{self._renamed()}")
            self._say_lost()
            return True
        if not self._load():
            say(f"{self.target}: its kernel does not run; try again", err=True)
            return False
        self._compare()
        kept = len(self._values) - sum(value.name in self._lost for value in self._values)
        say(f"{self.target}: {_counts(kept, executions)}{self._renamed()}")
        self._say_lost()
        return True

    def _renamed(self) -> str:
        its_own = self._session.id[:400].decode(errors="replace")
        return "" if its_own == self.target else f"; there it was {field(_short(repr(its_own)))}"

    def _say_lost(self) -> None:
        for name, why in list(self._lost.items())[:MOST_NAMED]:
            say(f"  not imported: {field(_short(name))}: {field(_short(why, 300))}")
        if len(self._lost) > MOST_NAMED:
            say(f"  not imported: {len(self._lost) - MOST_NAMED} more")

    # History

    def _send_history(self) -> int:
        """Returns how many executions were sent."""
        rows: list[dict[str, Any]] = []
        count = size = left_out = 0
        for one in self._database.executions(self._session):
            if one is None or not _is_code(one.code):
                left_out += 1
                continue
            row = {"number": count, "by": PROGRAM, **vars(one)}
            weight = len(json.dumps(row))
            if weight > _MAX_ROW_BYTES:
                left_out += 1
                continue
            if rows and (len(rows) == _PAGE_ROWS or size + weight > _PAGE_BYTES):
                self._call("keeper_import_history", source=self._source, rows=rows)
                rows, size = [], 0
            rows.append(row)
            size += weight
            count += 1
        self._call("keeper_import_history", source=self._source, rows=rows)  # without any, it makes the session
        if left_out:
            self._lost["(history)"] = f"{counted(left_out, 'execution')}, damaged or too large"
        return count

    # Values

    def _load(self) -> bool:
        """Let the session load its values; whether it came to the end of that."""
        if not self._load_part("values", self._values):
            return True
        failures = 0
        # Small ones first: what a session may take has an end.
        for value in sorted(self._values, key=lambda value: value.size):
            if failures == MOST_FAILURES:
                self._lost[value.name] = f"not tried, as {MOST_FAILURES} values before it could not be loaded or stored"
            elif why := self._load_part(f"value{value.row}", [value]):
                failures += 1
                self._lost[value.name] = why
        return not self._run("rest", FINISH)

    def _load_part(self, part: str, values: Sequence[PyhubValue]) -> str:
        """Put values into the workspace and run the code that loads them; returns why not, as `_run` does."""
        root = Path(self._call("keeper_workspace").text)
        with tempfile.TemporaryFile() as package:
            for value in values:
                data = self._database.data(value)
                if data is None:
                    self._lost[value.name] = "its bytes are damaged"
                    continue
                package.write(f"{value.name} {value.size}\n".encode())
                package.write(data)
            package.seek(0)
            workspace_files.write_from(root, _PLACE, package, replace=True)
        return self._run(part, LOAD)

    def _run(self, part: str, code: str) -> str:
        """Run code in the session; returns why it has not ended well or is not stored, and nothing if it is."""
        arguments = {"source": self._source, "part": part, "code": code, "timeout": self._timeout_s}
        result = self._call("keeper_import_values", **arguments).structured
        names = {value.name for value in self._values}
        for line in result["stdout"].splitlines():
            name, _, why = line.partition(": ")
            if name in names:
                self._lost[name] = why
        if result["status"] != "ok":
            return f"to load it ended with status {result['status']}"
        if result["committed"]:
            return ""
        self._call("python_interrupt", force=True)  # what is loaded now would keep all that follows from being stored
        return result["note"] or "it could not be stored"

    def _compare(self) -> None:
        """Note which values are not stored in the session now, and why: only the keeper knows that."""
        stored: dict[str, str] = {}
        cursor = None
        while True:
            more = given({"cursor": cursor})
            page = self._call("python_list_variables", limit=1000, **more).structured
            stored |= {v["name"]: "" if v["saved"] else v["reason"] or "it is not saved" for v in page["variables"]}
            cursor = page["next_cursor"]
            if cursor is None:
                break
        for value in self._values:
            why = stored.get(value.name, self._lost.get(value.name, "it is not there after it was loaded"))
            if why:
                self._lost[value.name] = why
            else:
                self._lost.pop(value.name, None)


_OTHER = "refused, as there is another session of this id, or this one was used there since; --prefix gives another id"


def _why_no_name(name: str) -> str:
    """Why a variable cannot have this name; empty if it can."""
    if len(name) > MAX_NAME_CHARS:
        return f"its name has {len(name)} characters, and may have {MAX_NAME_CHARS}"
    if not name.isidentifier() or keyword.iskeyword(name) or unicodedata.normalize("NFKC", name) != name:
        return "it is no name of a variable"
    return f"{PROGRAM} stores no name that begins with _" if name.startswith("_") else ""


def _counts(values: int, executions: int) -> str:
    return f"{counted(values, 'value')}, {counted(executions, 'execution')}"


def _is_code(text: str) -> bool:
    try:
        check_code(text)
    except InvalidArgument:
        return False
    return True


def _short(text: str, most: int = 100) -> str:
    return text if len(text) <= most else text[:most] + "…"
