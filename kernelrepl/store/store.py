"""The sessions' memory: everything a keeper knows lives here, and only the keeper writes it.

One thread writes, in order; another reads, so that a list never waits behind a large commit. What a
public method returns is a type of `model`. Blobs are stored and handed out as bytes, never unpickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kernelrepl.errors import DatabaseTooNew, StorageFailed
from kernelrepl.guest import wire
from kernelrepl.model import (
    ALL,
    MAX_HISTORY_BYTES,
    Commit,
    Limits,
    Manifest,
    Page,
    PageRequest,
    Portion,
    Restored,
    SessionInfo,
    StoredComponent,
    Variable,
    Write,
)
from kernelrepl.store import executions, lists, reading, sessions
from kernelrepl.store.clock import stamp, utc_now
from kernelrepl.store.collecting import empty_log
from kernelrepl.store.collector import Collector
from kernelrepl.store.database import Database
from kernelrepl.store.live import manifest
from kernelrepl.store.publish import (
    Staged,
    Weight,
    chunked,
    dump_restored,
    finish_row,
    is_large,
    put_chunks,
    write_commit,
    written_bytes,
)
from kernelrepl.store.schema import is_known, look_at_tables, migrations
from kernelrepl.store.worker import Worker
from kernelrepl.validation import close_ids

UNLIMITED = Limits(None, None)
EMPTY_LOG_TRIES = 3
LOCAL_OWNER = "local"


@contextlib.contextmanager
def _synced_later(db: Database) -> Iterator[None]:
    """For what must outlive our process, not the power: without power the kernel and whoever could ask for it are gone.

    The next commit syncs it, in order.
    """
    db.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        db.execute("PRAGMA synchronous = FULL")


class Store:
    """Open with `open`, close with `close`.

    max_history_bytes: what the earlier states of one session may take; None: any number.
    """

    def __init__(
        self, path: Path, clock: Callable[[], datetime] = utc_now, *, max_history_bytes: int | None = MAX_HISTORY_BYTES
    ) -> None:
        self.path = path
        self._clock = clock
        self._writer = Worker(path, "store writer", read_only=False)
        self._reader = Worker(path, "store reader", read_only=True)
        self._staged: dict[int, Staged] = {}
        self._staged_bytes: dict[int, int] = {}
        self._most: dict[int, Weight] = {}
        self._collector = Collector(path, self._writer, self._waiting, max_history_bytes)

    # Life

    def open(self) -> None:
        """Open or create the database and bring it to this version. Raises StorageFailed."""
        try:
            # SQLite would open what it cannot write, and leave a log there that nobody can write either.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StorageFailed(
                f"{self.path} cannot be opened: {error.strerror}; make it a file that you can read and write and make"
                " its folder writable, or move it away"
            ) from error
        with contextlib.ExitStack() as opened:
            self._writer.open()
            opened.callback(self._writer.close)
            self._writer.submit(self._migrate).result()
            self._reader.open()
            opened.callback(self._reader.close)
            self._collector.open()
            opened.pop_all()

    def close(self) -> None:
        self._collector.close()
        self._reader.close()
        self._writer.close()

    def _migrate(self, db: Database) -> None:
        if not is_known(db):
            raise DatabaseTooNew(str(self.path))
        migrations.apply(db)
        look_at_tables(db)
        with db.atomic():
            db.execute("UPDATE executions SET status = status WHERE id < 0")  # whoever keeps us out is found now
            executions.note_crashes(db)

    def _now(self) -> str:
        return stamp(self._clock())

    # Sessions

    async def create_session(
        self, session_id: str, workspace: str, fixed: dict[str, Any], versions: sessions.Versions | None = None
    ) -> tuple[int, str | None]:
        """Insert a session; its key, and when one that had this id was deleted for its age, if so. That is told once.

        versions: of Python and its packages, where there is a kernel already.
        """
        row = sessions.Row(LOCAL_OWNER, session_id, workspace, fixed, versions)
        now = self._now()

        def job(db: Database) -> tuple[int, str | None]:
            with _synced_later(db):
                return sessions.create(db, row, now)

        return await self._writer.run(job)

    async def fix_session(self, session: int, fixed: dict[str, Any]) -> None:
        """Note anew what is fixed for a session."""
        await self._writer.run(lambda db: sessions.fix(db, session, fixed))

    async def rename_session(self, session: int, session_id: str) -> None:
        """Give a session another id. Raises SessionExists."""
        await self._writer.run(lambda db: sessions.rename(db, session, session_id))

    async def find_session(self, session_id: str) -> tuple[SessionInfo, dict[str, Any]] | None:
        """The session with this id and what was fixed at its creation."""
        return await self._reader.run(lambda db: lists.find_session(db, LOCAL_OWNER, session_id))

    async def recount(self, session: int) -> None:
        """Make anew from its rows what of a session was damaged."""
        now = self._now()
        await self._writer.run(lambda db: sessions.recount(db, session, now))

    async def damaged(self) -> list[str]:
        """What of the lists of sessions and notebooks is not what was written, in words."""
        return await self._reader.run(lambda db: sessions.damaged(db, LOCAL_OWNER))

    async def list_sessions(self, request: PageRequest = ALL) -> Page[SessionInfo]:
        """Sessions, the latest used first. Raises InvalidArgument for a cursor that is none."""
        return await self._reader.run(lambda db: lists.sessions(db, LOCAL_OWNER, request))

    async def count_sessions(self) -> int:
        return await self._reader.run(lambda db: lists.count_sessions(db, LOCAL_OWNER))

    async def similar_ids(self, session_id: str) -> list[str]:
        """Ids of sessions that somebody may have meant. Of many sessions only the latest used are looked at."""
        return await self._reader.run(lambda db: close_ids(session_id, lists.recent_ids(db, LOCAL_OWNER)))

    async def unused_sessions(self, since: datetime | None) -> list[SessionInfo]:
        """Sessions that nobody has used since then (None: no such), and those that are marked inactive."""
        before = "" if since is None else stamp(since)
        return await self._reader.run(lambda db: lists.unused_sessions(db, LOCAL_OWNER, before))

    async def workspaces(self) -> list[str]:
        """The names of the directories of all sessions."""
        return await self._reader.run(lambda db: [name for (name,) in db.execute("SELECT workspace FROM sessions")])

    async def granted(self) -> list[tuple[str, dict[str, Any]]]:
        """The directories of the sessions that may write elsewhere or have an interpreter of their own, and what is
        fixed for them."""
        return await self._reader.run(lists.granted)

    async def variables(self, session: int, request: PageRequest = ALL) -> Page[Variable]:
        """The variables of a session, by name."""
        return await self._reader.run(lambda db: lists.variables(db, session, request))

    async def note_versions(self, session: int, python: str, packages: dict[str, str]) -> None:
        """Note what its kernel runs, as each start of one does again."""

        def job(db: Database) -> None:
            with _synced_later(db):
                sessions.note_versions(db, session, (python, packages))

        await self._writer.run(job)

    async def clear_session(self, session: int) -> int:
        """Forget all variables; what was before stays as history. Returns how many variables went."""
        now = self._now()
        gone = await self._writer.run(lambda db: sessions.clear(db, session, now))
        self._collector.touched(session)
        await self._collector.collect()
        return gone

    async def mark_inactive(self, unused: Mapping[int, str]) -> None:
        """Note that sessions have been left alone since the time given for each. The next use makes it active again."""
        await self._writer.run(lambda db: sessions.mark_inactive(db, unused))

    async def delete_session(self, session: int, *, remember: bool = False) -> None:
        """Remove every row and byte of a session, from the write-ahead log too.

        remember: keep its id, so that whoever comes for it can be told that it is gone. Raises StorageFailed if
        another program reads the database all the time and so keeps the log from being emptied.
        """
        now = self._now()
        await self._collector.forget(session)  # most of what goes, in steps
        await self._writer.run(lambda db: sessions.delete(db, session, now if remember else None))
        await self._collector.tidy()
        for _ in range(EMPTY_LOG_TRIES):
            if await self._writer.run(empty_log):
                return
            await self._reader.run(lambda db: None)  # what it was reading is read by now
            await self._collector.quiet()
        raise StorageFailed(
            f"the session is deleted, but {self.path.name}-wal may still hold bytes of it: another program has the"
            " database open; close that program, and the next deletion or stop of the keeper empties the file"
        )

    # Executions

    async def start_execution(self, session: int, request_id: str, origin: str, code: str) -> int:
        """Note durably that code is about to run; returns the row's id."""
        now = self._now()

        def job(db: Database) -> int:
            taken = db.execute("SELECT 1 FROM executions WHERE request_id = ?", [request_id]).fetchone()
            # A client that counts its requests from 1 again must not fail for it.
            unique = request_id if taken is None else f"{request_id}-{secrets.token_hex(4)}"
            with _synced_later(db):
                return executions.insert_started(db, (session, unique, origin, code, now))

        return await self._writer.run(job, session)

    async def finish_execution(self, execution: int, status: str, outputs: str, restored: Restored | None) -> None:
        """Close the row of an execution that has no commit of its own, or correct its status."""
        outcome = (status, outputs, dump_restored(restored), self._now())
        await self._writer.run(lambda db: executions.finish(db, execution, outcome))

    async def import_executions(self, session: int, past: Sequence[executions.Past]) -> None:
        """Insert executions of another program, with its times. Those that are there already stay as they are."""
        await self._writer.run(lambda db: executions.insert_past(db, session, past), session)

    async def execution(self, request_id: str) -> reading.ExecutionRow | None:
        return await self._reader.run(lambda db: reading.execution(db, "request_id = ?", [request_id]))

    async def last_execution(self, session: int) -> reading.ExecutionRow | None:
        condition = "session = ? ORDER BY id DESC LIMIT 1"
        return await self._reader.run(lambda db: reading.execution(db, condition, [session]))

    async def executions(self, session: int, after: int, budget_bytes: int) -> list[reading.ExecutionRow]:
        """Executions of a session in their order, behind row `after`: as many as take `budget_bytes`, or one."""
        return await self._reader.run(lambda db: reading.executions(db, session, after, budget_bytes))

    async def latest_executions(self, session: int, count: int) -> list[reading.ExecutionRow]:
        """The last executions of a session in their order, without their outputs: fewer if those take very long."""
        return await self._reader.run(lambda db: reading.latest_executions(db, session, count))

    async def inputs(self, session: int, most: int) -> list[tuple[int, str]]:
        """Count and code of the last executions of a session, in their order."""
        return await self._reader.run(lambda db: reading.inputs(db, session, most))

    async def notebooks(self) -> dict[str, tuple[str, list[str]]]:
        """Of each notebook that is known, by its path: the id of its session, and those of its cells."""
        return await self._reader.run(lambda db: sessions.notebooks(db, LOCAL_OWNER))

    async def bind_notebook(
        self, path: str, session_id: str, cells: Sequence[str] = (), before: str | None = None
    ) -> None:
        """A notebook with these cells has this session from now on. before: the path that it had until now."""
        await self._writer.run(lambda db: sessions.bind_notebook(db, LOCAL_OWNER, path, session_id, cells, before))

    # Commits

    async def stage(self, session: int, component: int, data: bytes | bytearray, limits: Limits = UNLIMITED) -> None:
        """Store one piece of a large component ahead of its commit.

        Raises StorageFailed if the pieces that wait are more than a commit may have; then that commit fails.
        """

        def job(db: Database) -> None:
            waiting = self._staged_bytes.get(session, 0) + len(data)
            if limits.session_bytes is not None and waiting > limits.session_bytes:
                raise StorageFailed(f"{waiting} bytes came ahead of their commit; {limits.session_bytes} are allowed")
            ahead = self._staged.setdefault(session, {})
            # As many as a commit may have of each: small pieces are bounded by their number, not by their bytes.
            if not 0 <= component < wire.MAX_COMPONENTS or sum(map(len, ahead.values())) >= wire.MAX_CHUNKS:
                raise StorageFailed("more pieces came ahead of their commit than it may have; nothing of it is stored")
            with db.atomic():
                chunks = put_chunks(db, chunked(memoryview(data)))
            ahead.setdefault(component, []).extend(chunks)
            self._staged_bytes[session] = waiting

        await self._writer.run(job)
        await self._collector.wrote(len(data))

    async def publish(
        self, session: int, execution: int | None, commit: Commit, limits: Limits, restored: Restored | None
    ) -> int:
        """Make a commit the state of the session, together with the outcome of its execution.

        Returns about how many bytes it wrote, with those that were staged for it. Raises StorageFailed; then nothing
        of it is there.
        """
        now = self._now()

        def job(db: Database) -> tuple[int, int]:
            before = self._staged_bytes.get(session, 0)
            staged = self._pop_staged(session)
            with db.atomic():
                commit_id, closed = write_commit(db, session, execution, commit, staged, limits, now, self._most)
                if execution is not None and commit.outcome is not None:
                    finish_row(db, execution, commit_id, commit, restored, now)
            return before, closed

        before, closed = await self._writer.run(job, session, is_large=is_large(commit))
        self._collector.touched(session)
        written = written_bytes(commit)
        await self._collector.wrote(written + closed)
        return before + written

    async def discard_staged(self, session: int) -> None:
        """Forget pieces of a commit that will not come."""
        # In the writer's thread, whose these are; the database may be gone.
        await asyncio.wrap_future(self._writer.submit(lambda db: self._pop_staged(session)))

    def _pop_staged(self, session: int) -> Staged:
        self._staged_bytes.pop(session, None)
        return self._staged.pop(session, {})

    def _waiting(self) -> Iterator[bytes]:
        staged = (chunks for components in self._staged.values() for chunks in components.values())
        yield from (digest for chunks in staged for digest, _ in chunks)

    async def collect_if_due(self) -> None:
        """Remove history over its budget, and what nothing leads to, if enough has piled up. Raises StorageFailed."""
        await self._collector.collect_if_due()

    async def collect(self) -> None:
        """Remove history over its budget, and what nothing leads to. Commits go between. Raises StorageFailed."""
        await self._collector.collect()

    async def oldest_commit(self, session: int) -> int | None:
        """The oldest commit of a session that can still be read whole, as can all after it; None: it has none."""
        return await self._reader.run(lambda db: reading.oldest_commit(db, session))

    # Restore

    async def manifest(self, session: int) -> Manifest:
        return await self._reader.run(lambda db: manifest(db, session))

    async def missing(self, parts: Sequence[StoredComponent]) -> set[int]:
        """The rows of components that are not all there."""
        return await self._reader.run(lambda db: reading.missing(db, parts))

    async def pour(self, parts: Sequence[StoredComponent], write: Write, budget_bytes: int) -> AsyncIterator[Portion]:
        """Write the bytes of components, one after the other, in portions of at most `budget_bytes`; tells of each.

        `write` is called in another thread, for the next portion when the next one is asked for.
        """
        steps: Iterator[Portion] | None = None

        def step(db: Database) -> Portion:
            nonlocal steps
            steps = steps or reading.pour(db, parts, write, budget_bytes)
            return next(steps, (0, True))

        while (portion := await self._reader.run(step))[0]:
            yield portion

    async def block_component(self, session: int, key: int, reason: str) -> None:
        """Note that a component must not be loaded again. Its bytes stay."""

        def job(db: Database) -> None:
            with db.atomic():
                db.execute(
                    "UPDATE components SET blocked = ? WHERE session = ? AND key = ? AND to_commit IS NULL",
                    [reason, session, key],
                )

        await self._writer.run(job)
