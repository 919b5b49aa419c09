"""The kernel's side of durability: restore at the start, one commit after every execution.

Runs in the kernel, main thread only.
"""

from __future__ import annotations

import asyncio
import builtins
import dis
import json
import threading
import types
from collections.abc import Iterator
from typing import Any

from kernelrepl.guest import wire
from kernelrepl.guest.audit import Audits
from kernelrepl.guest.chunks import Known, checksums, new_views
from kernelrepl.guest.hooks import Hooks
from kernelrepl.guest.interrupts import Interrupts
from kernelrepl.guest.options import Options
from kernelrepl.guest.pickler import Surroundings
from kernelrepl.guest.restore import MAGIC, Loader, Stored
from kernelrepl.guest.snapshot import Snapshot
from kernelrepl.guest.state import Delta, Limits, Name
from kernelrepl.guest.surroundings import ENVIRONMENT, Environment
from kernelrepl.guest.words import stores_attributes, words_of

INLINE_BYTES = 1 << 20
"""Components up to this size travel in the commit frame itself."""


class Saving:
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
        self.environment = Environment(start["workspace"], Options(shell))
        limits = start["limits"]
        self.snapshot = Snapshot(
            Surroundings(shell.user_ns, main_module, shell),
            shell.user_ns_hidden,
            interrupts,
            Limits(limits["variable_bytes"], limits["session_bytes"], limits["deadline_s"]),
        )
        self.stories: dict[str, str] = {}
        self.in_cell = False
        self._mentioned: set[str] = set()
        self._stores = False
        self._own_threads: int | None = None
        self._hooks = Hooks(shell, self.snapshot.is_own)
        self._had_threads = False
        self._tasks_before: set[asyncio.Task[Any]] = set()
        self._left_running: set[asyncio.Task[Any]] = set()
        self.behind = False
        self._commits = 0
        self._audit_wanted = False
        self.audits = Audits(self, lambda: self.channel.send({"type": "audited"}))

    def begin_cell(self, request: str) -> None:
        """Tell the keeper that this request runs from here on. Does not wait: what is sent survives our death."""
        self.in_cell = True
        self.audits.cancel()
        self._hooks.begin()
        if self._own_threads is None:
            self._own_threads = threading.active_count()  # before any user code: all of them are the kernel's
        self._had_threads = self._has_threads()
        self._tasks_before = asyncio.all_tasks()
        self.snapshot.begin()
        self.channel.send({"type": "begin", "request": request})

    def mention(self, code: types.CodeType) -> None:
        """Note the names in code that is about to run."""
        self._mentioned.update(words_of(code))
        self._stores = self._stores or stores_attributes(code)
        self.snapshot.around.imported.update(name for name in _names(code) if "." in name)

    def _since_last(self) -> frozenset[str] | None:
        """The names through which state may have changed; None if it may have changed by other ways."""
        mentioned, self._mentioned = frozenset(self._mentioned), set()
        stores, self._stores = self._stores, False
        self._hooks.note(mentioned, stores)
        tasks = self._left_running | (asyncio.all_tasks() - self._tasks_before)
        self._left_running = {task for task in tasks if not task.done()}
        threads = self._had_threads or self._has_threads()
        return None if tasks or threads or self.behind or self._hooks.active() else mentioned

    def _has_threads(self) -> bool:
        return self._own_threads is not None and threading.active_count() > self._own_threads

    def stirs(self) -> bool:
        """Whether threads or tasks of the session run between its cells."""
        return self._has_threads() or any(not task.done() for task in self._left_running)

    def serve_keeper(self) -> None:
        """The keeper has sent something while no commit waits for it: it wants an audit before it stops us."""
        header, _ = self.channel.recv()
        self._audit_wanted = self._audit_wanted or header["type"] == "audit"
        self._audit_if_wanted()

    def _audit_if_wanted(self) -> None:
        if self._audit_wanted and not self.in_cell:
            self._audit_wanted = False
            self.audits.finish()

    # What a lost name says

    def story(self, name: str | None) -> str | None:
        """What to tell about a name that the session had and this kernel has not."""
        return self.stories[name] if name is not None and self._is_lost(name) else None

    def _is_lost(self, name: str) -> bool:
        """Whether nobody has bound a lost name again; what IPython has put under it (`open`) does not count."""
        space, hidden = self.shell.user_ns, self.shell.user_ns_hidden
        return name in self.stories and (name not in space or (name in hidden and hidden[name] is space[name]))

    def lost_builtin(self, code: types.CodeType) -> str | None:
        """The story of a lost name that code would silently take for something else of the same name."""
        if not self.stories:
            return None
        for name in _reads(code):
            if self._is_lost(name) and (hasattr(builtins, name) or name in self.shell.user_ns):
                return self.stories[name]
        return None

    # Restore

    def restore(self, start: dict[str, Any], segments: list[list[memoryview]]) -> dict[str, Any]:
        """Load what the keeper sent. Returns the report for the `ready` frame."""
        snap, shell = self.snapshot, self.shell
        shell.execution_count = start["execution_count"] + 1
        parts = {}
        for entry, data in zip(start["components"], segments, strict=True):
            parts[entry["roots"][0]] = Stored(
                key=entry["roots"][0],
                roots=tuple(entry["roots"]),
                references=tuple(entry["references"]),
                segments=tuple(data),
                has_code=entry["code"],
                magic=entry["magic"],
                python=entry["python"],
                skip=entry["skip"],
            )
        bound: dict[int, list[str]] = {}
        for name, (root, *_) in start["names"].items():
            if not name.startswith("*"):
                bound.setdefault(root, []).append(name)
        loader = Loader(shell.user_ns, self.main_module, shell, bound)
        root, *_ = start["names"].get(ENVIRONMENT, (None,))
        failed: list[tuple[str, str]] = []
        if root in parts:
            # First of all: modules are found through the session's own import path.
            loader.load({root: parts[root]}, self._note_loading)
            if root in loader.objects:
                failed = self.environment.apply({ENVIRONMENT: loader.objects[root]})
        loader.load({key: part for key, part in parts.items() if key != root}, self._note_loading)
        if parts:
            self.channel.send({"type": "loaded"})
        snap.around.imported.update(loader.imported)
        snap.next_root = max([snap.next_root, *(root + 1 for part in parts.values() for root in part.roots)])
        for root, value in loader.objects.items():
            snap.adopt(root, value)
        names, not_restored, own = self._bind(start["names"], loader)
        self.stories = dict(start["stories"])
        for entry in not_restored:
            self.stories[entry["name"]] = _lost(entry)
        snap.unloaded = set(self.stories)
        self._freeze(parts, loader)
        own.pop(ENVIRONMENT, None)
        for what, why in failed + self.environment.apply(own):
            not_restored.append({"name": what, "type": "", "reason": why})
        # What was never stored is as gone as what failed, and whoever comes back may not have been there.
        not_restored += [
            {"name": name, "type": "", "reason": story}
            for name, story in start["stories"].items()
            if name != "_" and not name.startswith("*")
        ]
        loaded = [part for part in parts.values() if part.key not in loader.failures]
        for part in loaded:
            snap.chunks.add(part.key, checksums(part.segments), part.size_bytes)
        stored = [part.roots for part in loaded]
        snap.rebase(names, stored, self.environment.own_values)
        restored = sorted(name for name in names if not name.startswith("*") and name != "_")
        return {"restored": restored, "not_restored": not_restored}

    def _note_loading(self, part: Stored) -> None:
        self.channel.send({"type": "loading", "component": part.key})

    def _bind(
        self, names: dict[str, Any], loader: Loader
    ) -> tuple[dict[str, Name], list[dict[str, str]], dict[str, Any]]:
        bound: dict[str, Name] = {}
        lost: list[dict[str, str]] = []
        own: dict[str, Any] = {}
        for name, (root, kind, size) in names.items():
            if root not in loader.objects:
                key = loader.holder.get(root, 0)
                reason = loader.failures.get(key, "its bytes are missing from the store")
                if not name.startswith("*") and name != "_":
                    lost.append({"name": name, "type": kind, "reason": reason})
                continue
            value = loader.objects[root]
            bound[name] = Name(root, kind, size)
            if name.startswith("*"):
                own[name] = value
                self.snapshot.adopt_own(name, root)
                continue
            self.shell.user_ns[name] = value
            if name == "_":
                self.shell.displayhook._ = value
        return bound, lost, own

    def _freeze(self, parts: dict[int, Stored], loader: Loader) -> None:
        """Components that could not be loaded stay in the store; what they refer to must stay as well."""
        snap = self.snapshot
        for key in loader.failures:
            snap.frozen_bytes += parts[key].size_bytes
            for root in parts[key].references:
                if root in loader.objects:
                    snap.pinned[root] = loader.objects[root]

    # Commit

    def commit(self, request: str, outcome: dict[str, Any], outputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Send what an execution changed and wait until it is in the store.

        Returns what became of it: {"committed", "saved", "not_saved"}. Never raises for a failed commit: what
        could not be stored stays different from the store and is sent again by the next commit.
        """
        self.in_cell = False
        words = self._since_last()
        harmless = words is not None and self.snapshot.is_harmless(words)
        suspects = self._suspects(words)
        delta, failure = self._capture(suspects, harmless=harmless)
        saved = self._commit("execution", request, outcome, outputs, delta, failure)
        self.audits.after(suspects, harmless=harmless)
        self._audit_if_wanted()
        return saved

    def _suspects(self, words: frozenset[str] | None) -> set[int] | None:
        try:
            return None if words is None else self.snapshot.suspects(words)
        except Exception:  # noqa: BLE001 - what cannot be analysed may have changed anything
            return None

    def commit_audit(self, roots: set[int], *, missed: bool) -> None:
        """Store what an audit has found. `missed`: nothing but a cell can have changed it."""
        behind = self.behind  # what the last commit could not store, comes with this one
        delta, failure = self._capture(None if behind else self.snapshot.tied(roots), audit=not behind)
        if delta.empty and failure is None:
            self.behind = False
            return
        found = [*delta.created, *delta.changed, *delta.deleted] if missed and not behind else []
        self._commit("audit", "", None, [], delta, failure, missed=len(found))

    def _capture(self, suspects: set[int] | None, **kind: bool) -> tuple[Delta, str | None]:
        if not self.durable:
            return Delta(), None
        try:
            return self.snapshot.capture(self.environment.own_values, suspects, **kind), None
        except BaseException as error:  # noqa: BLE001 - a reply that tells is better than no reply
            return Delta(), f"internal error while saving: {type(error).__name__}: {error}"[:500]

    def _commit(
        self,
        cause: str,
        request: str,
        outcome: dict[str, Any] | None,
        outputs: list[dict[str, Any]],
        delta: Delta,
        failure: str | None,
        missed: int = 0,
    ) -> dict[str, Any]:
        self._commits += 1
        self._send(cause, request, outcome, outputs, delta, failure, missed)
        answer = self._answer()
        not_saved = [
            {"name": name, "type": entry.type, "path": entry.path, "reason": entry.reason}
            for name, entry in delta.unsaved.items()
            if name != "_"
        ]
        self.behind = answer["type"] != "committed" or failure is not None
        if answer["type"] != "committed":
            self.snapshot.chunks = Known()  # whatever the store has not, comes with the next commit
            return {"committed": False, "saved": Delta().saved, "not_saved": not_saved}
        if self.durable and failure is None:
            self.snapshot.accept(delta)
            self.stories = {name: story for name, story in self.stories.items() if self._is_lost(name)}
        return {"committed": True, "saved": delta.saved, "not_saved": not_saved}

    def _answer(self) -> dict[str, Any]:
        while True:
            header, _ = self.channel.recv()
            if header["type"] in ("committed", "failed") and header["commit"] == self._commits:
                return header
            self._audit_wanted = self._audit_wanted or header["type"] == "audit"

    def _send(
        self,
        cause: str,
        request: str,
        outcome: dict[str, Any] | None,
        outputs: list[dict[str, Any]],
        delta: Delta,
        failure: str | None,
        missed: int,
    ) -> None:
        entries: list[dict[str, Any]] = []
        inline: list[wire.Buffer] = [json.dumps(outputs, ensure_ascii=True, default=str).encode() if outputs else b""]
        room = wire.PIECE_BYTES
        for index, part in enumerate(delta.components):
            assert part.stream is not None
            buffers: list[wire.Buffer] = [part.stream.data, *part.stream.buffers]
            entry = {
                "roots": part.roots,
                "references": part.references,
                "segments": [memoryview(buffer).nbytes for buffer in buffers],
                "code": part.has_code,
            }
            runs = None if part.size_bytes <= wire.ROW_BYTES else self.snapshot.chunks.runs(part.stream.sums)
            if runs is not None:
                entry["runs"] = runs
            views = new_views(buffers, runs)
            size = sum(view.nbytes for view in views)
            if size <= min(INLINE_BYTES, room):
                inline.extend(views)
                room -= size
            else:
                entry["staged"] = True
                self._stage(index, views)
            entries.append(entry)
        self.channel.send(
            {
                "type": "commit",
                "commit": self._commits,
                "cause": cause,
                "request": request,
                "outcome": outcome,
                "outputs_bytes": len(inline[0]),
                "names": {name: [e.root, e.type, e.size_bytes, e.summary] for name, e in delta.names.items()},
                "unsaved": {name: [e.type, e.path, e.reason, e.summary] for name, e in delta.unsaved.items()},
                "deleted": delta.deleted,
                "components": entries,
                "closed": delta.closed,
                "magic": MAGIC,
                "failure": failure,
                "missed": missed,
                "saved": delta.saved,
            },
            inline,
        )

    def _stage(self, index: int, views: list[memoryview]) -> None:
        # The keeper cuts each frame into chunks: only the last one of a frame may be short.
        header = {"type": "stage", "commit": self._commits, "component": index}
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


def _lost(entry: dict[str, str]) -> str:
    kind = f" (a {entry['type']})" if entry["type"] else ""
    return f"name {entry['name']!r}{kind} is stored but could not be restored: {entry['reason']}"


def _reads(code: types.CodeType) -> Iterator[str]:
    """The global names that code reads: not those that it assigns, and not the names of attributes."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _reads(constant)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
