"""One pass over the namespace: find what changed since the last commit, and what of it can be saved.

Values that share something mutable are pickled together, what does not fit is left out, and the
difference to the committed state becomes a delta. Runs in the kernel, main thread only.
"""

from __future__ import annotations

import sys
import time
import types
from dataclasses import replace
from typing import Any

import xxhash

from kernelrepl.guest import explain
from kernelrepl.guest.components import closure, group
from kernelrepl.guest.pickler import Stream, dump
from kernelrepl.guest.state import Component, Delta, Name, State, Unsaved
from kernelrepl.guest.summary import summarize
from kernelrepl.guest.survey import ATOMS, Survey, megabytes, too_large

SUMMARY_S = 0.05
SUMMARIES_S = 0.25


class Capture(Survey):
    """One capture."""

    _summaries_s = 0.0

    def run(self) -> Delta:
        snap = self.snapshot
        found = snap.user_names()
        roots = {name: snap.identify(value) for name, value in found.items()}
        for name, value in self.own.items():
            root = snap.own_roots.get(name)
            if root is None:
                root = snap.own_roots[name] = snap.next_root
                snap.next_root += 1
            found[name], roots[name] = value, root
            self.values[root] = value
            self._dump_plain(root, value)
        for root, value in snap.pinned.items():
            self._visit(root, value)
        for name, value in found.items():
            self._visit(roots[name], value)
        failed = self._failed()
        unsaved = {
            name: self._explain(name, found[name], root, failed) for name, root in roots.items() if root in failed
        }
        names = {name: root for name, root in roots.items() if root not in failed}
        self._drop_too_large(names, found, unsaved)
        parts = self._components(names, found, unsaved)
        return self._delta(names, found, unsaved, parts)

    def _drop_too_large(self, names: dict[str, int], found: dict[str, Any], unsaved: dict[str, Unsaved]) -> None:
        limit = self.snapshot.limits.variable_bytes
        if limit is None:
            return
        for name, root in list(names.items()):
            if root in self.reused:
                continue
            if sum(self._size(part) for part in closure([root], self.references)) > limit:
                del names[name]
                unsaved[name] = Unsaved(explain.type_name(found[name]), name, too_large(limit), root)

    def _components(self, names: dict[str, int], found: dict[str, Any], unsaved: dict[str, Unsaved]) -> list[Component]:
        """Group what is left, dropping names until the session fits its limit."""
        limit = self.snapshot.limits.session_bytes
        while True:
            pinned = [root for root in self.snapshot.pinned if not closure([root], self.references) & set(self.errors)]
            parts, broken = self._grouped({*names.values(), *pinned})
            if broken:
                self.errors.update(broken)
                for name, root in list(names.items()):
                    bad = closure([root], self.references) & set(broken)
                    if bad:
                        del names[name]
                        error = broken[min(bad)]
                        text = self._passed_limit(error) or explain.reason(error, found[name])
                        unsaved[name] = Unsaved(explain.type_name(found[name]), name, text, root)
                continue
            total = sum(part.size_bytes for part in parts) + self.snapshot.frozen_bytes
            if limit is None or total <= limit:
                return parts
            dropped = self._largest_new(names)
            if dropped is None:
                return parts
            text = (
                f"the session would be larger than its limit of {megabytes(limit)}; delete variables you no longer need"
            )
            for name in dropped:
                unsaved[name] = Unsaved(explain.type_name(found[name]), name, text, names.pop(name))

    def _largest_new(self, names: dict[str, int]) -> list[str] | None:
        """All names of the value that frees most for each of them, among those that are new or changed."""
        bound: dict[int, list[str]] = {}
        for name, root in names.items():
            bound.setdefault(root, []).append(name)
        sizes = {}
        for root, aliases in bound.items():
            reached = closure([root], self.references)
            prints = self.snapshot.state.prints
            inside = any(part != root and prints.get(part) != self._print(part) for part in reached)
            if all(not name.startswith("*") and (inside or self._changed(name, root)) for name in aliases):
                sizes[root] = sum(self._size(part) for part in reached) / len(aliases)
        return bound[max(sizes, key=lambda root: sizes[root])] if sizes else None

    def _grouped(self, wanted: set[int]) -> tuple[list[Component], dict[int, BaseException]]:
        roots = closure(wanted, self.references)
        arrays: dict[int, set[int]] = {}
        for root in roots:
            for array, owner in self.streams[root].array_roots if root in self.streams else ():
                arrays.setdefault(id(owner), set()).add(id(array))
        shared = frozenset(owner for owner, views in arrays.items() if len(views) > 1)
        touched: dict[int, list[int]] = {}
        for root in sorted(roots):
            stream = self.streams.get(root)
            if stream is None:
                touched[root] = []
                continue
            touched[root] = [id(thing) for thing in stream.shareable]
            touched[root] += [id(owner) for _, owner in stream.array_roots if id(owner) in shared]
        parts: list[Component] = []
        broken: dict[int, BaseException] = {}
        for members in group(touched, {root: self.references.get(root, ()) for root in roots}):
            reused = self.reused.get(members[0])
            if reused is not None and reused.roots == members:
                parts.append(reused)
                continue
            stream = self.streams[members[0]] if len(members) == 1 else None
            if stream is None or any(id(owner) in shared for _, owner in stream.array_roots):
                try:
                    stream = self._dump_group(members, shared)
                except BaseException as error:  # noqa: BLE001 - user reducers
                    broken.update(dict.fromkeys(members, error))
                    continue
            references = {ref for root in members for ref in self.references.get(root, ())} - set(members)
            parts.append(
                Component(
                    members,
                    tuple(sorted(references)),
                    _fingerprint(members, stream),
                    stream.size_bytes,
                    stream.has_code,
                    stream,
                )
            )
        return parts, broken

    def _dump_group(self, members: tuple[int, ...], shared: frozenset[int]) -> Stream:
        snap = self.snapshot
        values = [self.values[root] for root in members]
        own = frozenset(id(value) for value in values)
        limit = snap.limits.variable_bytes
        room = None if limit is None else limit * len(members)  # views bring all of the memory that they share
        with snap.interrupts.deadline(snap.limits.deadline_s * len(members)):
            stream, memo = dump(values, snap.around, snap.identify, own, shared, room)
        self.kept.append(memo)
        return stream

    def _print(self, root: int) -> bytes:
        if root in self.reused:
            return self.snapshot.state.prints.get(root, b"")
        stream = self.streams[root]
        return _fingerprint((), stream)

    def _changed(self, name: str, root: int) -> bool:
        before = self.snapshot.state.names.get(name)
        if before is None:
            return True
        return self.snapshot.state.prints.get(before.root) != self._print(root)

    def _delta(
        self, names: dict[str, int], found: dict[str, Any], unsaved: dict[str, Unsaved], parts: list[Component]
    ) -> Delta:
        snap, before = self.snapshot, self.snapshot.state
        delta = Delta()
        now: dict[str, Name] = {}
        for name, root in names.items():
            known = before.names.get(name)
            changed = self._changed(name, root)
            if known is not None and known.root == root and not changed:
                now[name] = known
                continue
            now[name] = delta.names[name] = Name(
                root,
                explain.type_name(found[name]),
                self._shown_size(found[name], root),
                "" if name.startswith("*") else self._summary(found[name]),
            )
            if name.startswith("*") or name == "_":
                continue
            if known is None and name not in before.unsaved:
                delta.created.append(name)
            elif changed:
                delta.changed.append(name)
        unsaved = {name: replace(entry, summary=self._summary(found[name])) for name, entry in unsaved.items()}
        delta.unsaved = {name: entry for name, entry in unsaved.items() if before.unsaved.get(name) != entry}
        gone = (set(before.names) | set(before.unsaved)) - set(now) - set(unsaved) - snap.unloaded
        delta.deleted = sorted(gone)
        live = {part.key: part for part in parts}
        for key, part in live.items():
            known_part = before.live.get(key)
            if known_part is None or known_part.roots != part.roots:
                delta.components.append(part)
            elif known_part.fingerprint != part.fingerprint:
                delta.components.append(part)
                self._note_if_unstable(part, names)
        delta.changed = [
            name for name in delta.changed if names[name] not in snap.unstable or self._may_touch(name, names)
        ]
        delta.closed = sorted(set(before.live) - set(live))
        held = {root for part in parts for root in part.roots}
        delta.after = State(
            names=now,
            unsaved=unsaved,
            live={
                key: Component(p.roots, p.references, p.fingerprint, p.size_bytes, p.has_code)
                for key, p in live.items()
            },
            prints={root: self._print(root) for root in held},
            objects={
                root: self.values[root] for root in held | {entry.root for entry in unsaved.values() if entry.root}
            },
        )
        return delta

    def _summary(self, value: Any) -> str:
        """A few words about a value; none if it takes too long, or all of them together have taken too long."""
        if self._summaries_s > SUMMARIES_S:
            return ""
        began = time.perf_counter()
        try:
            with self.snapshot.interrupts.deadline(SUMMARY_S):
                return summarize(value)
        except BaseException:  # noqa: BLE001 - a library's own code may fail on what a user did to its objects
            return ""
        finally:
            self._summaries_s += time.perf_counter() - began

    def _note_if_unstable(self, part: Component, names: dict[str, int]) -> None:
        """Some objects (figures) pickle to other bytes each time: pickle again what changed without being named."""
        if self.mentioned is None or any(names.get(name) in part.roots for name in self.mentioned):
            return
        try:
            again = self._dump_group(part.roots, frozenset())
            once_more = self._dump_group(part.roots, frozenset())
        except BaseException:  # noqa: BLE001 - user reducers
            return
        if _fingerprint(part.roots, again) != _fingerprint(part.roots, once_more):
            self.snapshot.unstable.update(part.roots)

    def _may_touch(self, name: str, names: dict[str, int]) -> bool:
        """Whether the code, or a function of the session that it names, names this value or one it is tied to."""
        if self.mentioned is None:
            return True
        namespace = self.snapshot.around.namespace
        part = self.snapshot.state.live.get(names[name])
        tied = {name} if part is None else {other for other, root in names.items() if root in part.roots}
        seen: set[str] = set()
        work = list(self.mentioned)
        while work:
            mentioned = work.pop()
            if mentioned in tied:
                return True
            if mentioned not in seen:
                seen.add(mentioned)
                value = namespace.get(mentioned)
                if isinstance(value, types.FunctionType):
                    work.extend(value.__code__.co_names)
        return False

    def _shown_size(self, value: Any, root: int) -> int:
        if type(value) in ATOMS:
            return sys.getsizeof(value)
        known = self.snapshot.around.arrays.size_bytes(value)
        if known is not None:
            return known
        if type(value) in (list, tuple, dict, set, frozenset):
            return max(sys.getsizeof(value), self._size(root))
        return self._size(root)


def _fingerprint(members: tuple[int, ...], stream: Stream) -> bytes:
    digest = xxhash.xxh3_128(repr(members).encode())
    digest.update(stream.data)
    for buffer in stream.buffers:
        digest.update(buffer)
    return digest.digest()
