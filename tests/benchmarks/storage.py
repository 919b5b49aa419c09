"""Which pages and chunks suit the database: every pair of sizes with the real store, one table from one run.

`python -m tests.benchmarks.storage [--pages BYTES ...] [--chunks KIB ...] [--megabytes N] [-n COMMITS] [--turns N]
[--json FILE] [--directory DIR]`

Each pair has a process and a database of its own, in which one large value is stored as a kernel sends it, ahead of its
commit in pieces. Then come cells that change a number, cells that change one place in the large value, and the large
value is read, from the page cache and from the disk. Every second turn goes through the pairs the other way round, so
that what else the machine does meets all of them; figures are medians over all turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import wire
from tests.benchmarks.session import machine, measure_disk, percentile, timed

if TYPE_CHECKING:
    from kernelrepl.model import Commit
    from kernelrepl.store import Store

PAGES = (4096, 8192, 16384, 32768)
CHUNKS_KIB = (64, 128, 256, 512, 1024)
DISK_TIMES = 50
LARGE, SMALL = 1, 2
"""Roots of the two values."""

HEAD = [
    "page", "chunk KiB", "store s", "CPU", "x += 1 ms", "p90", "CPU", "log KB", "one place ms", "p90", "CPU", "log KB",
    "kept KB", "read s", "CPU", "cold s", "file",
]  # fmt: skip
LEGEND = """store: the large value for the first time. x += 1: the row of an execution and its commit; one place: the
same for a cell that changes one byte of the large value. CPU: user plus system, of all threads, which says more than
the time before it where others work. log KB: what each of them writes into the log, kept: what the file grows by for a
changed place. read: all of the large value through the store; cold: after the system has forgotten the file. file: its
size by the value's."""
LOGGED = 3
"""Cells between two looks at the size of the log: so few that it is not begun anew."""


def commit(root: int, name: str, size: int, data: bytes | None, runs: Any, count: int) -> Commit:
    """A cell that made or changed one value."""
    from kernelrepl.model import Commit, NewComponent, Saved

    outcome = {"status": "ok", "execution_count": count, "duration_s": 0.0, "error": None}
    return Commit(
        cause="execution",
        request="message",
        names={name: (root, "ndarray", size)},
        unsaved={},
        deleted=(),
        summaries={name: "a few words"},
        components=(NewComponent(0, (root,), (), (size,), False, data, True, runs),),
        closed=(),
        magic="a70d",
        python="3.11.7",
        packages="{}",
        saved=Saved(changed=(name,)),
        outcome=outcome,
        outputs="[]",
    )


class Trial:
    """One pair of sizes, in the process that has them."""

    def __init__(self, path: Path, megabytes: int, commits: int) -> None:
        self._path = path
        self._size = megabytes << 20
        self._commits = commits
        self._count = 0
        self.times: dict[str, list[float]] = {}
        self.cpu: dict[str, float] = {}
        self.log: dict[str, float] = {}

    @contextlib.contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        began = time.process_time()
        with timed(self.times.setdefault(kind, [])):
            yield
        self.cpu[kind] = self.cpu.get(kind, 0.0) + (time.process_time() - began) * 1000

    async def run(self) -> dict[str, Any]:
        """All samples, in milliseconds and bytes."""
        from kernelrepl.model import Limits
        from kernelrepl.store import Store

        self._limits = Limits(None, None)
        store = Store(self._path, max_history_bytes=None)
        store.open()
        try:
            session, _ = await store.create_session("s", "w", {})
            await self._store(store, session)
            first = await self._file_bytes(store)
            await self._cells("one place", self._place, store, session)
            grown = (await self._file_bytes(store) - first) / (self._commits + LOGGED)
            await self._cells("x += 1", self._number, store, session)
        finally:
            store.close()
        await self._read("read")
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        await self._read("cold")
        cpu = {kind: spent / len(self.times[kind]) for kind, spent in self.cpu.items()}
        return {
            "times_ms": self.times, "cpu_ms": cpu, "log_bytes": self.log, "kept_bytes": grown,
            "file_ratio": first / self._size,
        }  # fmt: skip

    async def _store(self, store: Store, session: int) -> None:
        pieces = [os.urandom(wire.PIECE_BYTES) for _ in range(self._size // wire.PIECE_BYTES)]
        with self._timed("store"):
            for piece in pieces:
                await store.stage(session, 0, piece)
            await store.publish(session, None, commit(LARGE, "large", self._size, None, None, 0), self._limits, None)

    async def _cells(self, kind: str, make: Callable[[], Commit], store: Store, session: int) -> None:
        for number in range(self._commits + LOGGED):
            if number == LOGGED:
                self.log[kind] = self._path.with_name(self._path.name + "-wal").stat().st_size / LOGGED
            self._count += 1
            what = make()
            with self._timed(kind) if number >= LOGGED else contextlib.nullcontext():
                row = await store.start_execution(session, f"r{self._count}", "benchmark", "x += 1")
                await store.publish(session, row, what, self._limits, None)

    def _number(self) -> Commit:
        return commit(SMALL, "x", 28, b"%028d" % self._count, None, self._count)

    def _place(self) -> Commit:
        chunks = self._size // wire.CHUNK_BYTES
        at = 1 + self._count * 97 % (chunks - 2)
        runs = ((LARGE, 0, at), (-1, 0, 1), (LARGE, at + 1, chunks - at - 1))
        return commit(LARGE, "large", self._size, os.urandom(wire.CHUNK_BYTES), runs, self._count)

    async def _read(self, kind: str) -> None:
        from kernelrepl.kernel.window import Window
        from kernelrepl.store import Store

        store, window = Store(self._path, max_history_bytes=None), Window()
        store.open()
        try:
            [info] = await store.list_sessions()
            [part] = [entry for entry in (await store.manifest(info.key)).components if entry.key == LARGE]
            with self._timed(kind):
                size = 0
                async for portion, _ in store.pour([part], functools.partial(window.write, 0), wire.SLOT_BYTES):
                    size += portion
            if size != self._size:
                raise RuntimeError(f"{size} bytes came back of {self._size}")
        finally:
            store.close()

    async def _file_bytes(self, store: Store) -> int:
        """The size of the database without its log."""
        from tests.support.database import writer  # here: it loads the store, which has the size of chunks from then on

        await writer(store).run(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        return self._path.stat().st_size


def child(page: int, chunk: int, megabytes: int, commits: int, directory: str) -> None:
    """Print the samples of one pair. The sizes are set before anything has read them."""
    wire.CHUNK_BYTES = chunk
    from kernelrepl.store import worker

    worker.PAGE_BYTES = page
    with tempfile.TemporaryDirectory(prefix="kr-bench-", dir=directory) as place:
        trial = Trial(Path(place) / "python_sessions.db", megabytes, commits)
        print(json.dumps(asyncio.run(trial.run())))


def measure(page: int, chunk: int, options: argparse.Namespace) -> dict[str, Any]:
    """One pair in a process of its own."""
    arguments = (page, chunk, options.megabytes, options.n, str(options.directory.absolute()))
    program = f"from tests.benchmarks.storage import child; child(*{arguments!r})"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pool(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The samples of all turns together."""
    kinds = results[0]["times_ms"]
    return {
        "times_ms": {kind: [value for result in results for value in result["times_ms"][kind]] for kind in kinds},
        "cpu_ms": {kind: statistics.median(result["cpu_ms"][kind] for result in results) for kind in kinds},
        "log_bytes": results[0]["log_bytes"],
        "kept_bytes": statistics.median(result["kept_bytes"] for result in results),
        "file_ratio": statistics.median(result["file_ratio"] for result in results),
    }


def row(page: int, chunk: int, found: dict[str, Any]) -> list[str]:
    """One line of the table."""
    times = {kind: statistics.median(values) for kind, values in found["times_ms"].items()}
    line = [str(page), str(chunk >> 10)]
    for kind in ("store", "x += 1", "one place", "read", "cold"):
        cell = kind in found["log_bytes"]
        unit = 1 if cell else 1000
        line.append(f"{times[kind] / unit:.2f}")
        if cell:
            line.append(f"{percentile(found['times_ms'][kind], 90):.2f}")
        if kind != "cold":
            line.append(f"{found['cpu_ms'][kind] / unit:.2f}")
        if cell:
            line.append(f"{found['log_bytes'][kind] / 1000:.0f}")
        if kind == "one place":
            line.append(f"{found['kept_bytes'] / 1000:.0f}")
    return [*line, f"{found['file_ratio']:.3f}"]


def table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(line[at]) for line in (HEAD, *rows)) for at in range(len(HEAD))]
    for line in (HEAD, *rows):
        yield "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.storage", description=__doc__)
    parser.add_argument("--pages", type=int, nargs="+", default=PAGES, metavar="BYTES", help="page sizes")
    parser.add_argument("--chunks", type=int, nargs="+", default=CHUNKS_KIB, metavar="KIB", help="chunk sizes")
    parser.add_argument("--megabytes", type=int, default=512, metavar="N", help="the large value, in MiB (512)")
    parser.add_argument("-n", type=int, default=40, metavar="COMMITS", help="commits of each kind and turn (40)")
    parser.add_argument("--turns", type=int, default=2, metavar="N", help="databases of each pair (2)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all samples here as well")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), metavar="DIR", help="a place on the disk to measure on"
    )
    options = parser.parse_args(arguments)
    before, load = machine(), os.getloadavg()[0]
    disk = measure_disk(options.directory.absolute(), DISK_TIMES)
    pairs = [(page, chunk << 10) for page in options.pages for chunk in options.chunks]
    found: dict[tuple[int, int], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    for turn in range(options.turns):
        for pair in reversed(pairs) if turn % 2 else pairs:
            page, chunk = pair
            found[pair].append(measure(page, chunk, options))
    pooled = {pair: pool(results) for pair, results in found.items()}
    print(before)
    print(f"{disk.name}: {statistics.median(disk.ours):.2f} ms; load {load:.2f}, at the end {os.getloadavg()[0]:.2f}")
    print(LEGEND)
    for line in table([row(page, chunk, result) for (page, chunk), result in pooled.items()]):
        print(line)
    if options.json is not None:
        rows = [{"page_bytes": page, "chunk_bytes": chunk, **result} for (page, chunk), result in pooled.items()]
        content = {"machine": before, "megabytes": options.megabytes, "disk": disk.as_json(), "rows": rows}
        options.json.write_text(json.dumps(content, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
