"""The kernel's side of durability: one commit after every execution.

Runs in the kernel, main thread only.
"""

from __future__ import annotations

import itertools
import json
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kernelrepl.guest import code_sources, frames, imports, wire
from kernelrepl.guest.beside import Beside
from kernelrepl.guest.checkpoint.audit import Audits
from kernelrepl.guest.checkpoint.environment import Environment
from kernelrepl.guest.checkpoint.restoring import Restoring
from kernelrepl.guest.checkpoint.snapshot import Snapshot
from kernelrepl.guest.checkpoint.state import PLACED, CaptureLimits, Delta, Unsaved
from kernelrepl.guest.code_names import stored_attributes, words_of
from kernelrepl.guest.interrupts import Interrupts
from kernelrepl.guest.mailbox import Mailbox
from kernelrepl.guest.neutral import name_of
from kernelrepl.guest.packages import Packages
from kernelrepl.guest.pickling.chunks import new_views
from kernelrepl.guest.pickling.pickler import PicklingContext
from kernelrepl.guest.restore.loader import MAGIC
from kernelrepl.guest.settings.hooks import Hooks
from kernelrepl.guest.settings.options import Options

INLINE_BYTES = 1 << 20
"""Components up to this size travel in the commit frame itself."""


@dataclass(frozen=True)
class _Commit:
    """What one commit brings, and why."""

    cause: str
    delta: Delta
    failure: str | None
    request: str = ""
    outcome: dict[str, Any] | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    missed: int = 0
    """How many changes the analysis of code had missed."""


class Durability:
    """Owns the channel after the start."""

    def __init__(
        self,
        channel: wire.Channel,
        shell: Any,
        main_module: types.ModuleType,
        interrupts: Interrupts,
        start: dict[str, Any],
    ) -> None:
        self.channel = channel
        self.shell = shell
        self.main_module = main_module
        self.interrupts = interrupts
        self.durable = bool(start["durable"])
        of_packages = start["packages"]
        self.environment = Environment(
            start["workspace"], Options(shell), confined=start["confined"], packages=of_packages["home"]
        )
        self.beside = Beside()
        self.stirs = self.beside.runs
        context = PicklingContext(shell.user_ns, main_module, shell)
        context.others_run = self.stirs
        limits = CaptureLimits(**start["limits"])
        self.snapshot = Snapshot(context, shell.user_ns_hidden, interrupts, limits)
        self.in_cell = False
        self._mentioned: set[str] = set()
        self._stored: set[tuple[str, str]] = set()
        self._hooks = Hooks(shell, self.snapshot.is_own, interrupts.originals)
        self._kept_in_modules: dict[str, Any] = {}
        """What the last cell that could change it had changed in modules of the session's own files."""
        self.store_is_behind = False
        self._commits = 0
        self.spent_s = 0.0
        """How long all commits of executions have taken, from the end of the code until the store had them."""
        self._mailbox = Mailbox(channel)
        self.restoring = Restoring(self._mailbox, shell, main_module, self.snapshot, self.environment)
        self.packages = Packages(self._mailbox, interrupts, self.environment.give, of_packages)
        self.audits = Audits(self, lambda: self.channel.send(frames.build("audited")))

    def begin_cell(self, request: str) -> None:
        """Tell the keeper that this request runs from here on. Does not wait: what is sent survives our death."""
        self.in_cell = True
        self.audits.cancel()
        self.restoring.stir()
        self._hooks.begin()
        self.beside.begin()
        self.snapshot.begin()
        self.channel.send(frames.build("begin", request=request))

    def mention(self, code: types.CodeType) -> None:
        """Note the names in code that is about to run."""
        words = frozenset(words_of(code))
        self._mentioned |= words
        if self.durable:
            self.environment.options.notice(code, words, self.shell.user_ns)
        self.restoring.need(words)
        self._stored.update(stored_attributes(code))
        self.snapshot.note_imports(name for name in _names(code) if "." in name)

    def _since_last(self) -> frozenset[str] | None:
        """The names through which state may have changed; None if it may have changed by other ways."""
        mentioned, self._mentioned = frozenset(self._mentioned), set()
        stored, self._stored = frozenset(self._stored), set()
        try:
            self._hooks.note(mentioned, stored)
            hooked = self._hooks.active() or self.environment.options.meddling.is_out_of_sight()
        except BaseException:  # noqa: BLE001 - what cannot be asked may call anything
            hooked = True
        beside = self.beside.has_run()
        return None if beside or self.store_is_behind or hooked else mentioned

    def serve_keeper(self) -> None:
        """The keeper has sent something while nobody waits for it."""
        self._mailbox.collect()
        if not self.in_cell:
            self._serve_kept()

    def _serve_kept(self) -> None:
        """It wants an audit before it stops us, or brings what was asked for."""
        for header in self._mailbox.kept():
            if header["type"] == "audit":
                self.audits.finish()
            elif header["type"] == "data":
                self.restoring.take(header)
            elif header["type"] == "installed":
                self.packages.take(header)
            elif header["type"] == "adopt":
                # No code of anybody has run here yet, and now it is known for whom it will.
                self.shell.last_execution_result = None
                code_sources.forget(self.shell.compile)
                self.durable = header["durable"]
                self.snapshot.limit(CaptureLimits(**header["limits"]))
                self.channel.send(frames.build("adopted"))
        self.restoring.rest()

    # Commit

    def commit(self, request: str, outcome: dict[str, Any], outputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Send what an execution changed and wait until it is in the store.

        Returns what became of it: {"committed", "saved", "not_saved"}. Never raises for a failed commit: what
        could not be stored stays different from the store and is sent again by the next commit.
        """
        self.in_cell = False
        began = time.perf_counter()
        words = self._since_last()
        harmless = words is not None and self.snapshot.is_harmless(words)
        suspects = self._suspects(words)
        if suspects is None:
            self._kept_in_modules = imports.changed()
        self.snapshot.note_strays({**self._hooks.strays(), **self._kept_in_modules})
        delta, failure = self._capture(suspects, harmless=harmless)
        saved = self._commit(_Commit("execution", delta, failure, request, outcome, outputs))
        self.spent_s += time.perf_counter() - began
        self.audits.after(suspects, harmless=harmless)
        self._serve_kept()
        return saved

    def _suspects(self, words: frozenset[str] | None) -> set[int] | None:
        try:
            return None if words is None else self.snapshot.suspects(words)
        except BaseException:  # noqa: BLE001 - what cannot be analysed may have changed anything
            return None

    def commit_audit(self, roots: set[int], *, missed: bool) -> None:
        """Store what an audit has found. `missed`: nothing but a cell can have changed it."""
        store_is_behind = self.store_is_behind  # what the last commit could not store, comes with this one
        delta, failure = self._capture(
            None if store_is_behind else self.snapshot.tied(roots), audit=not store_is_behind
        )
        if delta.empty and failure is None:
            self.store_is_behind = False
            return
        found = [*delta.created, *delta.changed, *delta.deleted] if missed and not store_is_behind else []
        self._commit(_Commit("audit", delta, failure, missed=len(found)))

    def _capture(self, suspects: set[int] | None, **kind: bool) -> tuple[Delta, str | None]:
        if not self.durable:
            return Delta(), None
        try:
            return self.snapshot.capture({} if kind.get("harmless") else self._own_values(), suspects, **kind), None
        except BaseException as error:  # noqa: BLE001 - a reply that tells is better than no reply
            return Delta(), f"internal error while saving: {name_of(type(error))}: {error}"[:500]

    def _own_values(self) -> dict[str, Any]:
        values = self.environment.own_values()
        options = self.environment.options
        placed = {PLACED + name: record for name, record in options.placed.items()}
        told = {name: Unsaved("setting", name, why, 0) for name, why in options.told.items()}
        self.snapshot.note_settings(placed, told)
        return values

    def _commit(self, commit: _Commit) -> dict[str, Any]:
        self._commits += 1
        if commit.failure is None and (too_much := _too_much(commit.delta)) is not None:
            commit = replace(commit, delta=Delta(), failure=too_much)  # the next commit tries again
        self._send(commit)
        answer = self._answer()
        delta, failure = commit.delta, commit.failure
        not_saved = [
            {"name": name, "type": entry.type, "path": entry.path, "reason": entry.reason}
            for name, entry in itertools.islice(delta.unsaved.items(), _TOLD)
            if name != "_"
        ]
        self.store_is_behind = answer["reason"] is not None or failure is not None
        if answer["reason"] is not None:
            self.snapshot.distrust_store()
            return {"committed": False, "saved": Delta().saved, "not_saved": not_saved}
        if self.durable and failure is None:
            self.snapshot.accept(delta)
            self.restoring.forget_found()
        saved = {kind: names[:_TOLD] for kind, names in delta.saved.items()}
        return {"committed": True, "saved": saved, "not_saved": not_saved}

    def _answer(self) -> dict[str, Any]:
        while True:
            header = self._mailbox.receive("committed")
            if header["commit"] == self._commits:
                return header

    def _send(self, commit: _Commit) -> None:
        delta = commit.delta
        entries: list[dict[str, Any]] = []
        inline: list[wire.Buffer] = [json.dumps(commit.outputs).encode() if commit.outputs else b""]
        if len(inline[0]) > wire.MAX_OUTPUTS_BYTES:
            inline[0] = json.dumps([_LEFT_OUT]).encode()
        budget_bytes = wire.PIECE_BYTES
        runs_left, keys = wire.MAX_RUNS, set[int]()
        for index, part in enumerate(delta.components):
            assert part.stream is not None
            buffers: list[wire.Buffer] = [part.stream.data, *part.stream.buffers]
            entry = {
                "roots": part.roots,
                "references": part.references,
                "segments": [memoryview(buffer).nbytes for buffer in buffers],
                "code": part.has_code,
                "inert": part.stream.inert,
            }
            runs = self.snapshot.runs(part, part.stream.sums)
            if runs is not None:
                used = keys | {key for key, _, _ in runs if key >= 0}
                if len(runs) > runs_left or len(used) > wire.MAX_RUN_KEYS:
                    runs = None  # then all of it is sent
                else:
                    entry["runs"], keys = runs, used
                    runs_left -= len(runs)
            views = new_views(buffers, runs)
            size = sum(view.nbytes for view in views)
            if size <= min(INLINE_BYTES, budget_bytes):
                inline.extend(views)
                budget_bytes -= size
            else:
                entry["staged"] = True
                self._stage(index, views)
            entries.append(entry)
        self.channel.send(
            frames.build(
                "commit",
                commit=self._commits,
                cause=commit.cause,
                request=commit.request,
                outcome=commit.outcome,
                outputs_bytes=len(inline[0]),
                names={
                    name: [e.root, e.type[:_MOST], e.size_bytes, e.summary[:_MOST]] for name, e in delta.names.items()
                },
                unsaved={
                    name: [e.type[:_MOST], e.path[:_MOST], e.reason[:_MOST], e.summary[:_MOST]]
                    for name, e in delta.unsaved.items()
                },
                deleted=delta.deleted,
                components=entries,
                closed=delta.closed,
                magic=MAGIC,
                failure=commit.failure,
                missed=commit.missed,
                saved=delta.saved,
            ),
            inline,
        )

    def _stage(self, index: int, views: list[memoryview]) -> None:
        # The keeper cuts each frame into chunks: only the last one of a frame may be short.
        header = frames.build("stage", component=index)
        frame: list[memoryview] = []
        size = 0
        for view in views:
            for [piece] in wire.pieces([view]):
                if frame and (size % wire.CHUNK_BYTES or size + piece.nbytes > wire.PIECE_BYTES):
                    self.channel.send(header, frame)
                    frame, size = [], 0
                frame.append(piece)
                size += piece.nbytes
        if frame:
            self.channel.send(header, frame)


_TOLD = 200
"""How many names of each kind the metadata of a reply tell; the commit has all of them."""
_MOST = wire.MAX_SAID_CHARS
_LEFT_OUT = {
    "type": "stream",
    "content": {"name": "stderr", "text": f"[the outputs were left out: over {wire.MAX_OUTPUTS_BYTES >> 20} MB]\n"},
}


def _too_much(delta: Delta) -> str | None:
    """Why a commit would be more than the keeper takes; None if it is not."""
    parts = delta.components
    numbers = sum(len(part.roots) + len(part.references) for part in parts) + 3 * wire.MAX_RUNS
    numbers += sum(1 + len(part.stream.buffers) for part in parts if part.stream is not None)
    chars = sum(len(name) + len(e.type) + len(e.summary) for name, e in delta.names.items())
    chars += sum(len(n) + len(e.type) + len(e.path) + len(e.reason) + len(e.summary) for n, e in delta.unsaved.items())
    chars += sum(map(len, delta.deleted))
    chunks = 0
    for part in parts:
        if part.size_bytes > wire.ROW_BYTES and part.stream is not None:
            chunks += part.size_bytes // wire.CHUNK_BYTES + 1 + len(part.stream.buffers)
    what = [
        text
        for text, holds in (
            ("parts and references", numbers > wire.MAX_NUMBERS),
            ("functions, classes and values", max(len(parts), len(delta.closed)) > wire.MAX_COMPONENTS),
            ("names", len(delta.deleted) > wire.MAX_NAMES),
            ("characters in names and what is said about them", chars > wire.MAX_TEXT_CHARS * 3 // 4),
            ("parts of large values", chunks > wire.MAX_CHUNKS),
        )
        if holds
    ]
    if not what:
        return None
    return f"nothing was saved: it is more {what[0]} than one commit may bring; delete variables, or put less into one"


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
