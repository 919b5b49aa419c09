"""One pass over the namespace: find what changed since the last commit, and what of it can be saved.

Values that share something mutable are pickled together, what does not fit is left out, and the
difference to the committed state becomes a delta. The cost follows what may have changed: for the rest, the
last look at each root and the components as they are stand. Runs in the kernel, main thread only.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import xxhash

from kernelrepl.guest import wire
from kernelrepl.guest.checkpoint import diagnosis
from kernelrepl.guest.checkpoint.state import CommittedState, Component, Delta, Name, RootScan, Unsaved
from kernelrepl.guest.checkpoint.summary import summarize
from kernelrepl.guest.checkpoint.survey import Survey, fingerprint, megabytes, too_large
from kernelrepl.guest.components import closure, group
from kernelrepl.guest.neutral import is_atom
from kernelrepl.guest.pickling.pickler import dump
from kernelrepl.guest.pickling.stream import Stream

MOST_NAMES = wire.MAX_NAMES - 100
"""What the session itself has under names of its own comes on top."""
_NAMES_CHARS = wire.MAX_TEXT_CHARS // 4
SUMMARY_S = 0.05
SUMMARIES_S = 0.25

References = Mapping[int, tuple[int, ...]]


class Capture(Survey):
    """One capture. `audit`: no code is known that could have changed anything. `harmless`: it bound names, no more."""

    audit = False
    harmless = False
    refs: References = MappingProxyType({})
    _summaries_s = 0.0

    def visit_suspects(self) -> None:
        """Look at what may have changed, as far as it is still there."""
        view = self.view
        for root in sorted(self.suspects or ()):
            value = view.state.objects.get(root)
            if root in view.state.scans and root in view.state.objects:
                self.visit(root, value)

    def whole(self) -> Delta:
        """The difference between the namespace and what is committed."""
        view = self.view
        found, left_out = self._fitting(view.user_names())
        roots = {name: view.identify(value) for name, value in found.items()}
        found |= view.placed
        roots |= {name: view.identify(value) for name, value in view.placed.items()}
        own = {name: root for name, root in view.own_roots.items() if name in view.state.names}
        roots |= own
        found |= {name: view.state.objects[root] for name, root in own.items()}
        for name, value in self.own.items():
            root = view.own_root(name)
            found[name], roots[name] = value, root
            self.values[root] = value
            self.dump_plain(root, value)
        self._visit_all(found, roots)
        self.visit_failed(found)
        self.look_closer()
        self.prove()
        self.refs = self.references()
        failed = self.failed(self.refs)
        unsaved = self.unsaved(found, roots, failed)
        unsaved |= {name: diagnosis.stray(name, value) for name, value in view.strays.items()}
        unsaved |= view.told
        unsaved |= left_out
        names = {name: root for name, root in roots.items() if root not in failed}
        self._drop_too_large(names, found, unsaved)
        live, regrouped = self._components(names, found, unsaved)
        return self._delta(names, found, unsaved, live, regrouped)

    def _fitting(self, found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Unsaved]]:
        """As many names as a session may have, those first that it has already, and what to say of the others.

        The others are looked at again by the next commit.
        """
        left_out = {}
        long = [name for name in list(self.view.context.namespace) if type(name) is str]
        long = [name for name in long if len(name) > wire.MAX_NAME_CHARS]
        if long:
            reason = f"a name may have at most {wire.MAX_NAME_CHARS} characters; these {len(long)} names have more"
            left_out["*long names"] = Unsaved("", f"{long[0][:60]}…", reason, 0)
        if len(found) <= MOST_NAMES and len(found) * wire.MAX_NAME_CHARS <= _NAMES_CHARS:
            return found, left_out
        before = self.view.state
        names = sorted(found, key=lambda name: name not in before.names and name not in before.unsaved)
        chars = itertools.accumulate(map(len, names))
        kept = sum(taken <= _NAMES_CHARS for taken in itertools.islice(chars, MOST_NAMES))
        if kept < len(names):
            reason = (
                f"a session may have at most {MOST_NAMES} names; {len(names) - kept} more are not saved, from"
                f" {names[kept]:.60} on; put values into a dict or a list"
            )
            left_out["*further names"] = Unsaved("", f"{names[kept]:.60}", reason, 0)
        return {name: found[name] for name in names[:kept]}, left_out

    def _visit_all(self, found: dict[str, Any], roots: dict[str, int]) -> None:
        view = self.view
        scans = view.state.scans
        for root, value in view.pinned.items():
            self.visit(root, value)
        for name, root in roots.items():
            if root not in scans:
                self.visit(root, found[name])
        if self.suspects is None:
            for name, root in roots.items():
                self.visit(root, found[name])

    def _drop_too_large(self, names: dict[str, int], found: dict[str, Any], unsaved: dict[str, Unsaved]) -> None:
        limit = self.view.limits.variable_bytes
        if limit is None:
            return
        before = self.view.state.names
        for name, root in list(names.items()):
            if name in before and root not in self.fresh and root not in self.refs:
                continue
            if sum(self.scan_of(part).size_bytes for part in closure([root], self.refs)) > limit:
                del names[name]
                unsaved[name] = Unsaved(diagnosis.type_name(found[name]), name, too_large(limit), root)

    def _components(
        self, names: dict[str, int], found: dict[str, Any], unsaved: dict[str, Unsaved]
    ) -> tuple[dict[int, Component], set[int]]:
        """Group what is left, dropping names until the session fits its limit. Returns also what was grouped anew."""
        limit = self.view.limits.session_bytes
        while True:
            bad = set(self.errors())
            pinned = [root for root in self.view.pinned if not bad or not closure([root], self.refs) & bad]
            live, regrouped, broken = self._grouped({*names.values(), *pinned})
            if broken:
                for root, error in broken.items():
                    self.fresh[root] = replace(self.scan_of(root), error=error, stream=None)
                for name, root in list(names.items()):
                    hit = closure([root], self.refs) & set(broken)
                    if hit:
                        del names[name]
                        error = broken[min(hit)]
                        text = self.passed_limit(error) or diagnosis.reason(error, found[name])
                        unsaved[name] = Unsaved(diagnosis.type_name(found[name]), name, text, root)
                continue
            total = sum(part.size_bytes for part in live.values()) + self.view.frozen_bytes
            dropped = None if limit is None or total <= limit else self._largest_new(names)
            if limit is None or dropped is None:
                return live, regrouped
            text = (
                f"the session would be larger than its limit of {megabytes(limit)}; delete variables you no longer need"
            )
            for name in dropped:
                unsaved[name] = Unsaved(diagnosis.type_name(found[name]), name, text, names.pop(name))

    def _largest_new(self, names: dict[str, int]) -> list[str] | None:
        """All names of the value that frees most for each of them, among those that are new or changed."""
        bound: dict[int, list[str]] = {}
        for name, root in names.items():
            bound.setdefault(root, []).append(name)
        sizes = {}
        scans, part_of = self.view.state.scans, self.view.part_of
        for root, aliases in bound.items():
            reached = closure([root], self.refs)
            inside = any(
                part != root and (part not in part_of or scans[part].print != self.scan_of(part).print)
                for part in reached
            )
            if all(not name.startswith("*") and (inside or self.has_changed(name, root)) for name in aliases):
                sizes[root] = sum(self.scan_of(part).size_bytes for part in reached) / len(aliases)
        return bound[max(sizes, key=lambda root: sizes[root])] if sizes else None

    # Components

    def _grouped(self, wanted: set[int]) -> tuple[dict[int, Component], set[int], dict[int, BaseException]]:
        """The components that hold what is wanted, the roots that were grouped anew, and what cannot be pickled."""
        state, part_of = self.view.state, self.view.part_of
        alive = closure(wanted, self.refs)
        loose = self._loosened(alive)
        kept = {key: part for key, part in state.live.items() if part.roots[0] not in loose}
        touched = {root: self.scan_of(root).touched for root in sorted(loose & alive)}
        broken: dict[int, BaseException] = {}
        for members in group(touched, {root: self.refs.get(root, ()) for root in touched}):
            before = state.live.get(part_of.get(members[0], 0))
            if before is not None and before.roots == members and not any(map(self.is_changed, members)):
                kept[before.key] = before
                continue
            try:
                part = self.component_of(members)
            except BaseException as error:  # noqa: BLE001 - user reducers
                broken.update(dict.fromkeys(members, error))
                continue
            kept[part.key] = part
        return kept, loose, broken

    def _loosened(self, alive: set[int]) -> set[int]:
        """The roots whose component may be another than before, with all that they could be tied to."""
        view = self.view
        changed = {root for root in self.fresh if self.is_changed(root)}
        work = [root for root in alive if root in changed or root not in view.part_of]
        work += [root for root in view.part_of if root not in alive]
        loose: set[int] = set()
        while work:
            root = work.pop()
            if root in loose:
                continue
            loose.add(root)
            part = view.state.live.get(view.part_of.get(root, 0))
            if part is not None:
                work.extend(part.roots)
            if root not in alive:
                continue
            work.extend(self.refs.get(root, ()))
            if part is None or root in changed:
                holders = map(view.holders.get, self.scan_of(root).touched)
                work.extend({holder for holder in holders if holder is not None and holder in alive})
        return loose

    def component_of(self, members: tuple[int, ...]) -> Component:
        owners: dict[int, set[int]] = {}
        for root in members:
            for array, owner in self.scan_of(root).views:
                owners.setdefault(owner, set()).add(array)
        shared = frozenset(owner for owner, arrays in owners.items() if len(arrays) > 1)
        references = {ref for root in members for ref in self.refs.get(root, ())} - set(members)
        refs = tuple(sorted(references))
        if len(members) == 1 and not shared:
            # Alone it is pickled as it was looked at; if that is some time ago, then again, when it is sent.
            scan = self.scan_of(members[0])
            digest = xxhash.xxh3_128(repr(members).encode() + scan.print).digest()
            return Component(members, refs, digest, scan.size_bytes, scan.has_code, scan.stream)
        stream = self._dump_group(members, shared)
        return Component(members, refs, fingerprint(members, stream), stream.size_bytes, stream.has_code, stream)

    def stored(self, members: tuple[int, ...]) -> Component:
        """A component that is in the store and has been looked at; one that fell apart counts as not stored."""
        touched = {root: self.scan_of(root).touched for root in members}
        if group(touched, {root: self.refs.get(root, ()) for root in touched}) == [members] and not any(
            self.scan_of(root).error for root in members
        ):
            return replace(self.component_of(members), stream=None)
        return Component(members, (), b"", 0, False)

    def _dump_group(self, members: tuple[int, ...], shared: frozenset[int]) -> Stream:
        view = self.view
        values = [self.value(root) for root in members]
        own = frozenset(id(value) for value in values)
        limit = view.limits.variable_bytes
        budget_bytes = None if limit is None else limit * len(members)  # views bring all of the memory that they share
        plain = all(self.scan_of(root).plain for root in members)
        with view.interrupts.deadline(view.limits.deadline_s * len(members)):
            stream, memo = dump(values, view.context, view.identify, own, shared, budget_bytes, plain)
        self.kept.append(memo)
        return stream

    # The difference

    def has_changed(self, name: str, root: int) -> bool:
        before = self.view.state.names.get(name)
        if before is None:
            return True
        known = self.view.state.scans.get(before.root)
        return known is None or known.print != self.scan_of(root).print

    def _delta(
        self,
        names: dict[str, int],
        found: dict[str, Any],
        unsaved: dict[str, Unsaved],
        live: dict[int, Component],
        regrouped: set[int],
    ) -> Delta:
        view, before = self.view, self.view.state
        delta = Delta(regrouped=regrouped, bound={name: found[name] for name in found if not name.startswith("*")})
        now: dict[str, Name] = {}
        for name, root in names.items():
            known = before.names.get(name)
            if (
                known is not None
                and known.root == root
                and (root not in self.fresh or not self.has_changed(name, root))
            ):
                now[name] = known
                continue
            changed = self.has_changed(name, root)
            now[name] = delta.names[name] = Name(
                root,
                diagnosis.type_name(found[name]),
                self.shown_size(found[name], root),
                "" if name.startswith("*") else self.summary(found[name]),
            )
            if name.startswith("*") or name == "_":
                continue
            if known is None and name not in before.unsaved:
                delta.created.append(name)
            elif changed:
                delta.changed.append(name)
        for name, entry in unsaved.items():
            if before.unsaved.get(name) != entry:
                unsaved[name] = delta.unsaved[name] = replace(
                    entry, summary=self.summary(found.get(name, view.strays.get(name)))
                )
                if before.unsaved.get(name) == unsaved[name]:
                    del delta.unsaved[name]
        gone = (set(before.names) | set(before.unsaved)) - set(now) - set(unsaved) - view.unloaded
        delta.deleted = sorted(gone)
        steady: set[int] = set()
        for key, part in list(live.items()):
            known_part = before.live.get(key)
            same_roots = known_part is not None and known_part.roots == part.roots
            if known_part is not None and same_roots and self._is_same(known_part, part):
                live[key] = known_part
                if part is not known_part:
                    steady.update(part.roots)  # it only looks different
            elif known_part is None or not same_roots or known_part.fingerprint != part.fingerprint:
                delta.components.append(self.with_stream(part))
        delta.changed = [name for name in delta.changed if names[name] not in steady]
        delta.closed = sorted(set(before.live) - set(live))
        delta.after = self._state(now, unsaved, live)
        return delta

    def _state(self, names: dict[str, Name], unsaved: dict[str, Unsaved], live: dict[int, Component]) -> CommittedState:
        held = {root for part in live.values() for root in part.roots}
        held |= {entry.root for entry in unsaved.values() if entry.root}
        if unsaved:
            held = closure(held, self.refs)
        scans: dict[int, RootScan] = {}
        for root in held:
            scans[root] = self.scan_of(root)
        return CommittedState(
            names=names,
            unsaved=unsaved,
            live={key: part if part.stream is None else replace(part, stream=None) for key, part in live.items()},
            objects={root: self.value(root) for root in held},
            scans=scans,
        )

    def summary(self, value: Any) -> str:
        """A few words about a value; none if it takes too long, or all of them together have taken too long."""
        if self._summaries_s > SUMMARIES_S:
            return ""
        began = time.perf_counter()
        try:
            with self.view.interrupts.deadline(SUMMARY_S):
                return summarize(value)
        except BaseException:  # noqa: BLE001 - a library's own code may fail on what a user did to its objects
            return ""
        finally:
            self._summaries_s += time.perf_counter() - began

    def _is_same(self, before: Component, part: Component) -> bool:
        """Whether nothing of a component has to be written.

        Some objects pickle to other bytes each time. What changed though no code can have done it, is pickled twice
        more; if those differ, it is one of them.
        """
        if before is part or before.fingerprint == part.fingerprint:
            return before is part
        if not self.audit:
            return False
        habits = self.view.habits
        if not habits.is_unstable(part.roots):
            try:
                again = self._dump_group(part.roots, frozenset())
                once_more = self._dump_group(part.roots, frozenset())
            except BaseException:  # noqa: BLE001 - user reducers
                return False
            if fingerprint(part.roots, again) == fingerprint(part.roots, once_more):
                return False
            habits.note_unstable(part.roots)
        return True

    def with_stream(self, part: Component) -> Component:
        if part.stream is not None:
            return part
        if len(part.roots) == 1:
            root = part.roots[0]
            return replace(part, stream=self._dump(root, self.value(root))[0])
        return replace(part, stream=self._dump_group(part.roots, frozenset()))

    def shown_size(self, value: Any, root: int) -> int:
        if is_atom(value):
            return sys.getsizeof(value)
        known = self.view.context.arrays.size_bytes(value)
        if known is not None:
            return known
        size = self.scan_of(root).size_bytes
        if type(value) in (list, tuple, dict, set, frozenset):
            return max(sys.getsizeof(value), size)
        return size
