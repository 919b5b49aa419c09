"""Pickle roots of the namespace, each on its own.

That gives its fingerprint, what it shares with others, what it refers to, and whether it can be saved at
all. Only roots that may have changed are looked at; of the others the last look counts. Runs in the
kernel, main thread only.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import xxhash

from kernelrepl.guest.checkpoint import diagnosis
from kernelrepl.guest.checkpoint.proving import MAX_BYTES, Trial, may_lack, possible, tried_all
from kernelrepl.guest.checkpoint.reach import reach
from kernelrepl.guest.checkpoint.state import PLACED, RootScan, Unsaved
from kernelrepl.guest.checkpoint.view import View
from kernelrepl.guest.components import closure
from kernelrepl.guest.depth import is_too_deep
from kernelrepl.guest.interrupts import DeadlinePassed
from kernelrepl.guest.neutral import is_a, is_atom
from kernelrepl.guest.pickling.ones import refuse_copy
from kernelrepl.guest.pickling.pickler import dump
from kernelrepl.guest.pickling.proven import CannotLoad
from kernelrepl.guest.pickling.segments import Segment, Segmented, dump_segments, is_long
from kernelrepl.guest.pickling.stream import Stream, TooLarge
from kernelrepl.guest.restore.loader import Loader

_EXPLAIN_S = 1.0
_SECOND_TRY_S = 1.0
_EXPLAIN_LIMIT_BYTES = 64 << 20


class Survey:
    """What is known of each root.

    suspects: the roots that may have changed since the last survey; None for all of them.
    """

    def __init__(self, view: View, own: dict[str, Any], suspects: set[int] | None) -> None:
        self.view = view
        self.own = own
        """The session's own values, by names that no variable can have."""
        self.suspects = suspects
        self.fresh: dict[int, RootScan] = {}
        """The scans of this pass."""
        self.values: dict[int, Any] = {}
        """The values of these."""
        self.kept: list[Any] = []
        self.touches_known: set[int] = set()
        """Long containers of which it is known for certain what they touch."""
        self.loaded = False
        """Whether all that is here has just been loaded."""
        self.rescan = False
        """Whether nothing is taken over of the last scan of a long container."""

    def scan_of(self, root: int) -> RootScan:
        """Return the latest scan of a root."""
        fresh = self.fresh.get(root)
        return self.view.state.scans[root] if fresh is None else fresh

    def value(self, root: int) -> Any:
        return self.values[root] if root in self.values else self.view.state.objects[root]

    def is_changed(self, root: int) -> bool:
        """Return whether a root is new or other than at the last scan."""
        fresh = self.fresh.get(root)
        return fresh is not None and not fresh.same_as(self.view.state.scans.get(root))

    def visit(self, root: int, value: Any) -> None:
        """Scan a root that is new or suspect, and the entities that it refers to."""
        work = [(root, value)]
        while work:
            root, value = work.pop()
            if root in self.fresh:
                continue
            known = root in self.view.state.scans
            if known and self.suspects is not None and root not in self.suspects:
                continue
            self.values[root] = value
            if is_atom(value):
                if not known:
                    self.dump_plain(root, value)
                continue
            references = self._dump_root(root, value)
            work.extend((self.view.identify(entity), entity) for entity in references)

    def dump_plain(self, root: int, value: Any) -> None:
        """A value of built-in types, with nothing that others may share."""
        limit = self.view.limits.variable_bytes
        if type(value) in (str, bytes) and limit is not None and len(value) > limit:
            self.fresh[root] = RootScan(error=TooLarge(limit))
            return
        stream = Stream(pickle.dumps([value], protocol=5), [], [], [], [], False, inert=True)
        self.fresh[root] = RootScan(fingerprint((), stream), stream.size_bytes, stream=stream)

    def _dump_root(self, root: int, value: Any) -> list[Any]:
        """Scan a root; returns the entities that it refers to."""
        stream, segments, in_segments = self._stream_of(root, value)
        if stream is None:
            return []
        entities = stream.references
        touched = dict.fromkeys(in_segments or (id(thing) for thing in stream.shareable))
        touched.update(dict.fromkeys(id(owner) for _, owner in stream.array_roots))
        self.fresh[root] = RootScan(
            fingerprint((), stream),
            stream.size_bytes,
            in_segments if in_segments and not stream.array_roots else tuple(touched),
            tuple((id(array), id(owner)) for array, owner in stream.array_roots),
            tuple(sorted(self.view.identify(entity) for entity in entities)),
            stream.words,
            stream.reaches,
            has_code=stream.has_code,
            plain=stream.plain,
            segments=segments,
            freed=stream.freed,
            lost=diagnosis.lost_parts(stream.lost),
            stream=stream,
        )
        return entities

    def _stream_of(self, root: int, value: Any) -> tuple[Stream | None, tuple[Segment, ...], tuple[int, ...]]:
        view = self.view
        seconds = _SECOND_TRY_S if view.habits.is_slow(value) else view.limits.deadline_s
        for attempt in (1, 2):
            try:
                with view.interrupts.deadline(seconds):
                    found = self._dump(root, value)
            except BaseException as error:  # noqa: BLE001
                # User reducers may raise anything. A container that another thread changes gets a second try.
                if attempt == 1 and type(error) is RuntimeError and "changed" in str(error):
                    continue
                if is_a(error, DeadlinePassed):
                    view.habits.note_slow(value, slow=True)
                words, ids, may_change_anything = reach(value, view.context.namespace)
                self.fresh[root] = RootScan(
                    words=words, reaches=ids, may_change_anything=may_change_anything, error=error
                )
                return None, (), ()
            view.habits.note_slow(value, slow=False)
            return found
        return None, (), ()

    def _dump(self, root: int, value: Any) -> tuple[Stream, tuple[Segment, ...], tuple[int, ...]]:
        view = self.view
        limit = view.limits.variable_bytes
        known = view.state.scans.get(root)
        # One that was pickled whole shares objects within itself, or with others.
        whole = not is_long(value) or view.context.tables.find(value) is not None
        if not whole and (known is None or known.segments or self.rescan):
            before = () if known is None or self.rescan else known.segments
            found = self._segmented(value, before, limit)
            if found is None and before:
                found = self._segmented(value, (), limit)
            if found is not None:
                self.kept.append(found.kept)
                if found.touches_known:
                    self.touches_known.add(root)
                return found.stream, found.segments, found.touched
        stream, memo = dump([value], view.context, view.identify, frozenset({id(value)}), limit_bytes=limit)
        self.kept.append(memo)
        return stream, (), ()

    def _segmented(self, value: Any, before: tuple[Segment, ...], limit: int | None) -> Segmented | None:
        view = self.view
        try:
            return dump_segments(value, view.context, view.identify, before, view.holders.get, limit)
        except Exception as error:
            if is_too_deep(error):
                return None
            raise

    def visit_failed(self, found: dict[str, Any]) -> None:
        """Look again at what could not be loaded for want of a name, if names were bound."""
        view = self.view
        if not any(name not in view.bound or view.bound[name] is not value for name, value in found.items()):
            return
        for root in view.context.proven.forget_missing():
            if root in view.state.objects and root not in self.fresh:
                if self.suspects is not None:
                    self.suspects.add(root)
                self.visit(root, view.state.objects[root])

    def prove(self) -> None:
        """Find out of what is new whether it could be loaded again; what could not be has an error from here on."""
        proven = self.view.context.proven
        if self.loaded:
            # What says nothing of its attributes is tried when it is saved the next time.
            proven.trust(
                kind
                for scan in self.fresh.values()
                for kind, one in (scan.stream.doubtful.items() if scan.stream is not None else ())
                if scan.stream is not None and kind in scan.stream.telling and not may_lack(one)
            )
            return
        doubtful: dict[int, Stream] = {}
        for root, scan in self.fresh.items():
            if scan.error is not None or scan.stream is None:
                continue
            failure = proven.failure(root, scan.print)
            if failure is not None:
                self.fresh[root] = replace(scan, error=failure, stream=None)
            elif scan.stream.doubtful and scan.stream.size_bytes <= MAX_BYTES:
                before = self.view.state.scans.get(root)
                as_before = before is not None and before.error is None and before.print == scan.print
                if not (as_before and proven.knows(scan.stream.doubtful)):
                    doubtful[root] = scan.stream
        if not doubtful or not possible():
            return
        loader = Loader(self.view.context.namespace, self.view.context.main_module, self.view.context.shell)
        loader.objects = {**self.view.state.objects, **self.values}
        for trial, tried in tried_all(doubtful, loader):
            self._learn(trial, tried)

    def _learn(self, trial: Trial, tried: Mapping[int, Stream]) -> None:
        proven = self.view.context.proven
        proven.give_up(kind for root in trial.slow for kind in tried[root].doubtful)
        for root in trial.loaded:
            proven.trust(tried[root].telling)
        self._complete(trial.lacks, tried)
        for root, reason in trial.reasons.items():
            if refuse_copy(self.values[root]):
                del self.fresh[root]
                self.visit(root, self.values[root])
                continue
            scan = self.fresh[root]
            proven.fail(root, scan.print, reason)
            self.fresh[root] = replace(scan, error=CannotLoad(reason), stream=None)

    def _complete(self, lacks: Mapping[type, frozenset[str]], tried: Mapping[int, Stream]) -> None:
        """Pickle with their attributes what would come back without them; as before where these cannot be pickled."""
        context = self.view.context
        for kind, names in lacks.items():
            for attributes in (names, frozenset[str]()):
                context.proven.lack(kind, attributes)
                context.forget(kind)
                again = [root for root, stream in tried.items() if kind in stream.doubtful]
                for root in again:
                    del self.fresh[root]
                    self.visit(root, self.values[root])
                if not any(self.fresh[root].error for root in again):
                    break

    def look_closer(self) -> None:
        """Ask again what long containers touch, if something else touches what nobody had before.

        An object in them may have been replaced by one that looks the same.
        """
        before = {} if self.rescan else self.view.state.scans
        known = {root for root, scan in self.fresh.items() if scan.segments and root in before} - self.touches_known
        holders = self.view.holders
        others = [scan.touched for root, scan in self.fresh.items() if root not in known and self.is_changed(root)]
        if not known or all(key in holders for touched in others for key in touched):
            return
        self.rescan = True
        for root in sorted(known):
            del self.fresh[root]
            self.visit(root, self.values[root])

    def references(self) -> dict[int, tuple[int, ...]]:
        """Of each root that refers to others, to which."""
        found = {root: scan.references for root, scan in self.view.state.scans.items() if scan.references}
        for root, scan in self.fresh.items():
            if scan.references:
                found[root] = scan.references
            else:
                found.pop(root, None)
        return found

    def errors(self) -> dict[int, BaseException]:
        """Of each root that cannot be saved, why."""
        scans = self.view.state.scans
        found = {root: scan.error for root, scan in scans.items() if scan.error and root not in self.fresh}
        found.update((root, scan.error) for root, scan in self.fresh.items() if scan.error)
        return {root: error for root, error in found.items() if error is not None}

    def failed(self, references: Mapping[int, tuple[int, ...]]) -> dict[int, int]:
        """Roots that cannot be saved: root -> the root whose own fault it is."""
        errors = self.errors()
        if not errors:
            return {}
        users: dict[int, list[int]] = {}
        for root, refs in references.items():
            for ref in refs:
                users.setdefault(ref, []).append(root)
        failed: dict[int, int] = {}
        for origin in errors:
            for root in closure([origin], users):
                failed.setdefault(root, origin)
        return failed

    def unsaved(self, found: dict[str, Any], roots: dict[str, int], failed: dict[int, int]) -> dict[str, Unsaved]:
        """What to say of each name whose value is not saved, or not as it is."""
        told = {}
        for name, root in roots.items():
            if root in failed:
                told[name.removeprefix(PLACED)] = self.explain(name, found[name], root, failed[root])
            elif not name.startswith("*"):
                if self.scan_of(root).freed:
                    told[f"{name:.900}.locked"] = diagnosis.freed(name, root)
                told.update(diagnosis.lost(name, self.scan_of(root).lost, root))
        return told

    def explain(self, name: str, value: Any, root: int, origin: int) -> Unsaved:
        """Why a name cannot be saved."""
        culprit_value = self.value(origin)
        known = self.view.state.unsaved.get(name.removeprefix(PLACED))
        if name.startswith(PLACED):
            name, value = name.removeprefix(PLACED), value[-1]
            culprit_value = value if origin == root else culprit_value
        kind = diagnosis.type_name(value)
        if known is not None and known.root == root and self.suspects is not None and origin not in self.suspects:
            return known
        error = self.scan_of(origin).error
        assert error is not None
        passed = self.passed_limit(error)
        if passed is not None:
            return Unsaved(kind, name, passed, root)
        if is_too_deep(error):
            using = "" if origin == root else f"it uses {diagnosis.label(self.value(origin))}: "
            return Unsaved(kind, name, f"{using}{diagnosis.TOO_DEEP}", root)
        if is_a(error, CannotLoad):
            using = "" if origin == root else f"it uses {diagnosis.label(self.value(origin))}: "
            return Unsaved(kind, name, f"{using}its bytes cannot be loaded again ({error})", root)
        try:
            with self.view.interrupts.deadline(_EXPLAIN_S):
                path, culprit, deeper = diagnosis.find_culprit(culprit_value, name, self._fails)
        except BaseException:  # noqa: BLE001 - user reducers again; the first error is reason enough
            path, culprit, deeper = name, culprit_value, None
        reason = diagnosis.reason(deeper or error, culprit)
        if origin != root:
            reason = f"it uses {diagnosis.label(culprit_value)}, which cannot be saved: {reason}"
        return Unsaved(kind, path[:300], reason, root)

    def passed_limit(self, error: BaseException) -> str | None:
        limits = self.view.limits
        if is_a(error, TooLarge) and limits.variable_bytes is not None:
            return too_large(limits.variable_bytes)
        if is_a(error, DeadlinePassed):
            return f"saving it took longer than {limits.deadline_s:g} s and was stopped"
        return None

    def _fails(self, value: Any) -> BaseException | None:
        view = self.view
        try:
            dump([value], view.context, view.identify, frozenset({id(value)}), limit_bytes=_EXPLAIN_LIMIT_BYTES)
        except DeadlinePassed:
            raise
        except BaseException as error:  # noqa: BLE001 - user reducers may raise anything
            return error
        return None


def fingerprint(members: tuple[int, ...], stream: Stream) -> bytes:
    digest = xxhash.xxh3_128(repr((members, len(stream.data), len(stream.buffers))).encode())
    digest.update(b"".join(stream.sums))
    return digest.digest()


def megabytes(size: int) -> str:
    return f"{size / 1e6:g} MB" if size >= 100_000 else f"{size} bytes"


def too_large(limit_bytes: int) -> str:
    return (
        f"it is larger than the limit of {megabytes(limit_bytes)} for one variable; "
        "write it to a file in the workspace, or raise max_variable_bytes for new sessions"
    )
