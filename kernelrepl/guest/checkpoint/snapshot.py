"""The committed state of the namespace, and the way from there to its present state.

Runs in the kernel, main thread only.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from kernelrepl.guest import wire
from kernelrepl.guest.checkpoint.capture import Capture
from kernelrepl.guest.checkpoint.fast_path import quick
from kernelrepl.guest.checkpoint.reach import Reach, held_by_modules
from kernelrepl.guest.checkpoint.state import CaptureLimits, CommittedState, Component, Delta, Name, Unsaved
from kernelrepl.guest.checkpoint.survey import Survey
from kernelrepl.guest.code_names import HARMLESS, READERS, words_of_text
from kernelrepl.guest.depth import bounded
from kernelrepl.guest.interrupts import Interrupts
from kernelrepl.guest.neutral import ATOMS, is_a, is_atom, module_of
from kernelrepl.guest.pickling.chunks import Known
from kernelrepl.guest.pickling.pickler import PicklingContext

_MACHINERY = frozenset(
    {"__name__", "__doc__", "__package__", "__loader__", "__spec__", "__file__", "__session__"}
    | {"__builtin__", "__builtins__", "__warningregistry__"}
)
_IPYTHON = re.compile(r"_(i{1,3}|_{1,2}|i?\d+|ih|oh|dh|exit_code)\Z")


_NOTHING = object()


class Snapshot:
    """The committed state of one namespace, and the way from there to its present state."""

    def __init__(
        self,
        context: PicklingContext,
        hidden: dict[str, Any],
        interrupts: Interrupts,
        limits: CaptureLimits,
    ) -> None:
        self.context = context
        self.hidden = hidden
        self.interrupts = interrupts
        self.limits = limits
        self.state = CommittedState()
        self.holders: dict[int, int] = {}
        """Ids of the objects that may tie roots together, and for each a root that has it."""
        self.part_of: dict[int, int] = {}
        """The component of each saved root, by key."""
        self.bound: dict[str, Any] = {}
        """What each of the user's names was bound to at the last commit."""
        self.chunks = Known()
        self.unloaded: set[str] = set()
        """Names in the store whose value is not here. Absent from the namespace, yet not deleted."""
        self.pinned: dict[int, Any] = {}
        """Objects that components which could not be loaded refer to."""
        self.frozen_bytes = 0
        self.next_root = 1
        self._ids: dict[int, int] = {}
        self.own_roots: dict[str, int] = {}
        self.strays: dict[str, Any] = {}
        """Values of the session that are attributes of modules, by `module.attribute`: they are not saved."""
        self.placed: dict[str, Any] = {}
        """What the session has put where no name leads to, by a name that no variable can have."""
        self.kept: dict[str, Any] = {}
        """What of it was there at the last commit."""
        self.told: dict[str, Unsaved] = {}
        """What else is not saved, though it is no variable."""
        self.has_long = False
        """Whether a name that is too long to be saved was bound since the last commit."""
        self.slow: dict[int, Any] = {}
        self.unstable: set[int] = set()
        """Roots of components that pickle to other bytes each time."""
        self._by_name: dict[str, bool] = {}
        self._open: tuple[Any, ...] = ()

    def identify(self, value: Any) -> int:
        """The durable identity of an object, given at first sight. The object is kept alive meanwhile."""
        root = self._ids.get(id(value))
        if root is None:
            root = self.next_root
            self.next_root += 1
            self._ids[id(value)] = root
            self.state.objects[root] = value
        return root

    def adopt(self, root: int, value: Any) -> None:
        """Bind an identity from the store to the object that was loaded for it."""
        self._ids[id(value)] = root
        self.state.objects[root] = value
        self.next_root = max(self.next_root, root + 1)

    def adopt_own(self, name: str, root: int) -> None:
        self.own_roots[name] = root
        self.next_root = max(self.next_root, root + 1)

    def user_names(self, among: Iterable[Any] | None = None) -> dict[str, Any]:
        """The names that belong to the user, `_` included, and their values."""
        found = {}
        hidden, known, namespace = self.hidden, self._by_name, self.context.namespace
        for name in list(namespace) if among is None else among:
            value = namespace.get(name)
            if type(name) is not str:
                continue
            ours = known.get(name)
            if ours is None:
                # What is no identifier was put there by way of globals(), and no code can name it.
                ours = name not in _MACHINERY and not _IPYTHON.match(name) and name.isidentifier()
                ours = known[name] = ours and len(name) <= wire.MAX_NAME_CHARS
            if ours and (name not in hidden or hidden[name] is not value or name == "_"):
                found[name] = value
        return found

    def begin(self) -> None:
        """Code is about to run: remember what modules hold that it may change without naming it."""
        self._open = tuple(held_by_modules())

    def suspects(self, words: frozenset[str]) -> set[int] | None:
        """The roots that code which named these words may have changed; None for all."""
        reach = Reach(self.state, self.holders, self.context.namespace, self.part_of)
        reach.add_words(words)
        for name, value in self.placed.items():
            if name.rpartition(".")[2] in words and id(value) in self._ids:
                reach.add_root(self._ids[id(value)])
        if not self.is_harmless(words):
            reach.add_held((*self._open, *held_by_modules()))
            self._open = ()
        return reach.roots()

    def words_within(self, words: frozenset[str]) -> frozenset[str] | None:
        """All words of code that code with these words could call; None if it could run code of any words."""
        try:
            reach = Reach(self.state, self.holders, self.context.namespace, self.part_of)
            reach.add_words(words)
            reach.add_held(held_by_modules())
            known: frozenset[str] = frozenset()
            while reach.roots() is not None and not READERS & reach.words():
                if known == reach.words():
                    return known
                known = reach.words()
                for word in known:
                    text = self.context.namespace.get(word)
                    if type(text) is str:
                        reach.add_words(words_of_text(text))  # code, or a query, it may be
            return None
        except BaseException:  # noqa: BLE001 - what cannot be analysed may do anything
            return None

    def is_own(self, value: Any) -> bool:
        """Whether it is of the session: a function or class of it, an instance of one, or a value it has saved."""
        if is_a(value, types.FunctionType):
            return self.context.is_own_function(value)
        kind = value if is_a(value, type) else type(value)
        if module_of(kind) == "__main__" and self.context.is_own_class(kind):
            return True
        root = self._ids.get(id(value), self.holders.get(id(value)))
        return root is not None and not is_a(value, (*ATOMS, types.ModuleType))

    def changes(self) -> tuple[dict[str, Any], list[str]]:
        """The user's names that are bound to other values than at the last commit, and those that are gone."""
        namespace, bound = self.context.namespace, self.bound
        candidates = [name for name, value in list(namespace.items()) if bound.get(name, _NOTHING) is not value]
        new = self.user_names(candidates)
        self.has_long = any(type(name) is str and len(name) > wire.MAX_NAME_CHARS for name in candidates)
        gone = [name for name in bound if name not in namespace]
        return new, gone + [name for name in candidates if name in bound and name not in new]

    def release(self) -> None:
        """Let go of what no name is bound to any more, so that its finalizers run before the commit, not after it."""
        new, gone = self.changes()
        for name in (*new, *gone):
            value = self.bound.get(name)
            if value is not None:
                self.bound[name] = _NOTHING
            root = self._ids.get(id(value))
            if root is None or is_atom(value) or root in self.pinned or self.context.is_entity(value):
                continue
            if not any(other is value for other in list(self.context.namespace.values())):
                del self._ids[id(value)]
                self.state.objects.pop(root, None)

    def is_harmless(self, words: frozenset[str]) -> bool:
        """Whether code with these words can have changed nothing but what its names are bound to."""
        namespace = self.context.namespace
        return all(is_atom(namespace[word]) if word in namespace else word in HARMLESS for word in words)

    def differs(self, root: int) -> bool:
        """Whether a root is not as it was when it was looked at last."""
        value = self.state.objects.get(root)
        if is_atom(value) or root in self.unstable or root not in self.state.scans:
            return False
        with self._apart():
            survey = Survey(self, {}, {root})
            survey.rescan = True
            survey.visit(root, value)
            return survey.is_changed(root)

    def tied(self, roots: set[int]) -> set[int]:
        """All roots of the components that hold these."""
        keys = {self.part_of[root] for root in roots if root in self.part_of}
        return roots | {root for key in keys for root in self.state.live[key].roots}

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """While something is pickled: no global name may lead into __main__, which is not there after a restore.

        Nor is garbage collected: pickling makes many objects and no garbage, and would wake the collector for nothing.
        """
        main = sys.modules.get("__main__")
        sys.modules["__main__"] = types.ModuleType("__main__")
        collects = gc.isenabled()
        gc.disable()
        try:
            with bounded():
                yield
        finally:
            if collects:
                gc.enable()
            if main is not None:
                sys.modules["__main__"] = main

    def capture(
        self,
        own: dict[str, Any],
        suspects: set[int] | None = None,
        *,
        audit: bool = False,
        harmless: bool = False,
        loaded: bool = False,
    ) -> Delta:
        """Compare the namespace with what is committed.

        own: the session's own values (working directory, random state …) that may have changed, under names that
        no variable can have. suspects: the roots that may have changed; None looks at all. audit: no code ran.
        harmless: code ran that can only have bound names. loaded: all that is here comes from the store. Nothing is
        remembered until `accept` gets the delta back.
        """
        self.release()
        self.context = self.context.renewed()
        with self._apart():
            capture = Capture(self, own, suspects)
            capture.audit, capture.harmless, capture.loaded = audit, harmless, loaded
            if suspects is None:
                return capture.whole()
            capture.visit_suspects()
            return quick(capture) or capture.whole()

    def accept(self, delta: Delta) -> None:
        """The delta is committed: it is the state from which the next one is computed."""
        for key in delta.closed:
            self.chunks.remove(key)
        for part in delta.components:
            assert part.stream is not None
            self.chunks.add(part.key, part.stream.sums, part.size_bytes)
        if delta.quick:
            self._accept_quick(delta)
            return
        assert delta.after is not None
        before, after = self.state, delta.after
        self.bound, self.kept = delta.bound, dict(self.placed)
        for root in delta.regrouped:
            for key in before.scans[root].touched if root in before.scans else ():
                self.holders.pop(key, None)
        self.part_of = {root: part.key for part in after.live.values() for root in part.roots}
        for root in delta.regrouped & self.part_of.keys():
            self.holders.update(dict.fromkeys(after.scans[root].touched, root))
        for scan in after.scans.values():
            scan.stream = None
            if scan.error is not None:
                scan.error.__traceback__ = scan.error.__context__ = scan.error.__cause__ = None
        self.state = after
        self._ids = {id(value): root for root, value in after.objects.items()}
        self.unstable.intersection_update(self.part_of)
        self.unloaded.difference_update(after.names, after.unsaved)

    def _accept_quick(self, delta: Delta) -> None:
        state = self.state
        state.names.update(delta.names)
        self.bound.update(delta.bound)
        self.unloaded.difference_update(delta.names)
        for name in delta.deleted:
            state.names.pop(name, None)
            self.bound.pop(name, None)
        for part in delta.components:
            [root] = part.roots
            state.live[root] = replace(part, stream=None)
            state.scans[root] = replace(delta.scans[root], stream=None)
            self.part_of[root] = root
        for root in delta.closed:
            del state.live[root], state.scans[root], self.part_of[root]
            self._ids.pop(id(state.objects.pop(root)), None)

    def admit(self, roots: tuple[int, ...], names: dict[str, Name]) -> None:
        """A component of mere data has been loaded after the others: remember it as it is in the store."""
        state = self.state
        with self._apart():
            capture = Capture(self, {}, set(roots))
            for root in roots:
                capture.visit(root, state.objects[root])
            state.scans.update((root, replace(scan, stream=None)) for root, scan in capture.fresh.items())
            state.live[roots[0]] = capture.stored(roots)
        for root in roots:
            self.part_of[root] = roots[0]
            self.holders.update(dict.fromkeys(state.scans[root].touched, root))
        state.names.update(names)
        self.bound.update((name, state.objects[known.root]) for name, known in names.items())
        self.unloaded.difference_update(names)

    def rebase(self, names: dict[str, Name], stored: Iterable[tuple[int, ...]], own: dict[str, Any]) -> None:
        """After a load: fingerprint what is here, so that only real changes count from now on.

        stored: the roots of each component that was loaded. A component that falls into other parts than it
        was stored in is left as not stored, and so is written again by the next commit.
        """
        delta = self.capture(own, loaded=True)
        assert delta.after is not None
        state = delta.after
        known = set(stored)
        state.live = {key: part for key, part in state.live.items() if part.roots in known}
        for roots in known:
            state.live.setdefault(roots[0], Component(roots, (), b"", 0, False))
        delta.components, delta.closed = [], []
        for name, stored_name in names.items():
            here = state.names.get(name)
            if here is not None and here.root != stored_name.root:
                state.scans[stored_name.root] = state.scans[here.root]
        state.names = names
        state.unsaved = {}
        self.accept(delta)
