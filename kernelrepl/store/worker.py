"""A thread that owns one SQLite connection and does its work in order.

The event loop never waits for a disk: it hands over a function and awaits the result.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kernelrepl.errors import StorageFailed
from kernelrepl.store.database import Database

T = TypeVar("T")
_BUSY_TIMEOUT_S = 5.0
_MOST_PASSED = 100
"""How often a large job is passed by small ones."""
PAGE_BYTES = 4096
"""Of new databases, by measurement. One that is there keeps its own: SQLite cannot change it beside a log."""


@dataclass
class _Job:
    do: Callable[[Database], object]
    future: Future[object]
    session: int | None
    """The session whose job it is, if it may change places with jobs of others."""
    is_large: bool
    passed: int = 0


class _Queue:
    """Jobs in the order in which they came, but that small ones of a session pass large ones of other sessions."""

    def __init__(self) -> None:
        self._jobs: list[_Job | None] = []
        self._lock = threading.Lock()
        self._coming: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put(self, job: _Job | None) -> None:
        """Add a job, or None for the end."""
        with self._lock:
            at = len(self._jobs)
            if job is not None and job.session is not None and not job.is_large:
                while at and (other := self._jobs[at - 1]) is not None and _lets_pass(other, job):
                    other.passed += 1
                    at -= 1
            self._jobs.insert(at, job)
        self._coming.put(None)

    def get(self) -> _Job | None:
        """Wait for the next job."""
        self._coming.get()
        with self._lock:
            return self._jobs.pop(0)


def _lets_pass(large: _Job, job: _Job) -> bool:
    return large.is_large and large.session != job.session and large.passed < _MOST_PASSED


class Worker:
    """One thread, one connection."""

    def __init__(self, path: Path, name: str, *, read_only: bool) -> None:
        self.path = path
        self._read_only = read_only
        self._jobs = _Queue()
        self._opened: Future[None] = Future()
        self._file: tuple[int, int] | None = None
        self._log = path.with_name(path.name + "-wal")
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def open(self) -> None:
        """Start the thread and open the database. Raises StorageFailed."""
        self._thread.start()
        self._opened.result()

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    async def run(self, job: Callable[[Database], T], session: int | None = None, *, is_large: bool = False) -> T:
        """Do `job(db)` in the thread. Errors of SQLite become StorageFailed, as does a database that was deleted.

        session: the row of the session that alone is concerned; then a small job does not wait for large ones of other
        sessions that have not begun.
        """

        def secured(db: Database) -> T:
            self._refuse_if_moved()
            result = job(db)
            self._secure(db)
            return result

        return await asyncio.wrap_future(self.submit(secured, session, is_large=is_large))

    def submit(self, job: Callable[[Database], T], session: int | None = None, *, is_large: bool = False) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put(_Job(job, future, session, is_large))  # type: ignore[arg-type]
        return future

    def _main(self) -> None:
        try:
            db = self._connect()
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            self._opened.set_exception(translate(error, self.path))
            return
        self._file = _identity(self.path)
        self._opened.set_result(None)
        try:
            while (item := self._jobs.get()) is not None:
                self._do(db, item.do, item.future)
                del item  # the next one may be long in coming, and a commit has many bytes
        finally:
            db.close()

    def _do(self, db: Database, job: Callable[[Database], object], future: Future[object]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(job(db))
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            if db.conn.in_transaction:
                db.rollback()
            future.set_exception(translate(error, self.path))

    def _refuse_if_moved(self) -> None:
        """SQLite goes on in a file that was deleted: what is written there is gone with us. Raises StorageFailed."""
        if _identity(self.path) != self._file:
            raise StorageFailed(
                f"{self.path} was deleted or replaced while it was in use; put it back,"
                f" or `kill {os.getpid()}` and the next call starts with what is there"
            )

    def _secure(self, db: Database) -> None:
        """Bring a commit into the database itself when somebody has deleted the write-ahead log that holds it."""
        if self._read_only or self._log.exists():
            return
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StorageFailed(f"{self._log} was deleted while it was in use, and {self.path} is locked; try again")

    def _connect(self) -> Database:
        if self._read_only:
            target, uri = f"{self.path.as_uri()}?mode=ro", True
        else:
            target, uri = str(self.path), False
        connection = sqlite3.connect(target, uri=uri, timeout=_BUSY_TIMEOUT_S)
        # A text that the disk has changed must cost no more than its row, whose seal tells.
        connection.text_factory = _text
        db = Database(connection, execute_plugins=False)
        try:
            if not self._read_only:
                _refuse_foreign(db, self.path)
                db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                db.execute("PRAGMA journal_mode = WAL").fetchall()
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA foreign_keys = ON")
                db.execute("PRAGMA secure_delete = ON").fetchall()
        except BaseException:
            db.close()
            raise
        return db


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")


def _refuse_foreign(db: Database, path: Path) -> None:
    """Leave the database of another program as it is. Raises StorageFailed."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}
    if tables and "_sqlite_migrations" not in tables:
        raise StorageFailed(f"{path} is the database of another program; move it away or set KERNELREPL_DATA_DIR")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def translate(error: BaseException, path: Path) -> BaseException:
    """A StorageFailed that names the remedy, for any error of SQLite."""
    if not isinstance(error, sqlite3.Error):
        return error
    text = str(error)
    if "locked" in text or "busy" in text:
        hint = "another program has it open; close that program"
    elif "full" in text:
        hint = "the disk is full; free some space"
    elif "readonly" in text:
        hint = "it, or its folder, is read-only; make it writable"
    elif "not a database" in text or "malformed" in text:
        hint = "it is not a database or is damaged; move it away to start anew"
    elif "no such " in text or "already exists" in text:
        hint = "it is no database of kernelrepl or is damaged; move it away to start anew"
    elif "unable to open" in text:
        hint = "make it a file that you can read and write, in a folder that you can write"
    elif "disk I/O" in text:
        hint = "the disk is full or fails; free some space, check it, and try again"
    else:
        hint = "`kernelrepl doctor` shows where it is"
    failed = StorageFailed(f"{path}: {text}: {hint}")
    failed.__cause__ = error
    return failed
