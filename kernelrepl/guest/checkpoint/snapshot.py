"""The committed state of the namespace, and the way from there to its present state.

Runs in the kernel, main thread only.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kernelrepl.guest import wire
from kernelrepl.guest.checkpoint.capture import Capture
from kernelrepl.guest.checkpoint.fast_path import quick
from kernelrepl.guest.checkpoint.reach import Reach, held_by_modules
from kernelrepl.guest.checkpoint.state import CaptureLimits, CommittedState, Component, Delta, Name, Unsaved
from kernelrepl.guest.checkpoint.survey import Survey
from kernelrepl.guest.checkpoint.user_names import UserNames
from kernelrepl.guest.checkpoint.view import Changes, Habits, View
from kernelrepl.guest.code_names import HARMLESS, READERS, words_of_text
from kernelrepl.guest.depth import bounded
from kernelrepl.guest.interrupts import Interrupts
from kernelrepl.guest.neutral import ATOMS, is_a, is_atom, module_of
from kernelrepl.guest.pickling.chunks import Known
from kernelrepl.guest.pickling.pickler import PicklingContext

_NOTHING = object()


class Snapshot:
    """The committed state of one namespace, and the way from there to its present state."""

    def __init__(
        self, context: PicklingContext, hidden: dict[str, Any], interrupts: Interrupts, limits: CaptureLimits
    ) -> None:
        self._context = context
        self._user_names = UserNames(context.namespace, hidden)
        self._interrupts = interrupts
        self._limits = limits
        self._state = CommittedState()
        self._holders: dict[int, int] = {}
        self._part_of: dict[int, int] = {}
        self._bound: dict[str, Any] = {}
        self._chunks = Known()
        self._unloaded: set[str] = set()
        self._pinned: dict[int, Any] = {}
        self._frozen_bytes = 0
        self._next_root = 1
        self._ids: dict[int, int] = {}
        self._own_roots: dict[str, int] = {}
        self._strays: Mapping[str, Any] = {}
        self._placed: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        self._told: dict[str, Unsaved] = {}
        self._habits = Habits()
        self._open: tuple[Any, ...] = ()

    def _view(self) -> View:
        """What a pass sees of it; `View` says what each part is."""
        return View(
            self._context,
            self._interrupts,
            self._limits,
            self._state,
            self._holders,
            self._part_of,
            self._bound,
            self._unloaded,
            self._pinned,
            self._frozen_bytes,
            self._own_roots,
            self._strays,
            self._placed,
            self._kept,
            self._told,
            self._habits,
            self.identify,
            self._own_root,
            self._user_names.values,
            self._changes,
        )

    # What it is told

    def limit(self, limits: CaptureLimits) -> None:
        """These limits hold from now on."""
        self._limits = limits

    def note_imports(self, modules: Iterable[str]) -> None:
        """Code of the session has imported these."""
        self._context.imported.update(modules)

    def note_strays(self, strays: Mapping[str, Any]) -> None:
        """These values of the session are attributes of modules now."""
        self._strays = strays

    def note_settings(self, placed: dict[str, Any], told: Mapping[str, Unsaved]) -> None:
        """This the session has put where no name leads to, and this of it is not saved."""
        self._placed = placed
        self._told = {name: why for name, why in told.items() if name not in self._strays}

    # What comes from the store

    @property
    def placed(self) -> Iterable[Any]:
        """What the session has put where no name leads to."""
        return self._placed.values()

    def place(self, name: str, value: Any) -> None:
        """The session had put this where no name leads to."""
        self._placed[name] = value

    def reserve(self, roots: Iterable[int]) -> None:
        """These identities are in use: a new value under the number of an old one would be taken for it."""
        self._next_root = max([self._next_root, *(root + 1 for root in roots)])

    def await_names(self, names: Iterable[str]) -> None:
        """These names are in the store, and their values are not here."""
        self._unloaded = set(names)

    def freeze(self, size_bytes: int) -> None:
        """So many bytes are in the store whose values are not here; fewer than before if it is below zero."""
        self._frozen_bytes += size_bytes

    def pin(self, root: int, value: Any) -> None:
        """A component that could not be loaded refers to this."""
        self._pinned[root] = value

    def note_stored(self, key: int, sums: tuple[bytes, ...], size_bytes: int) -> None:
        """The store has the chunks of a component."""
        self._chunks.add(key, sums, size_bytes)

    def tell_lost_attributes(self) -> None:
        """Attributes of modules that are not here are told once by the next commit, and forgotten."""
        for name in [name for name in self._unloaded if "." in name]:
            self._unloaded.discard(name)
            self._state.unsaved[name] = Unsaved("", name, "", 0)

    # Identities

    def identify(self, value: Any) -> int:
        """The durable identity of an object, given at first sight. The object is kept alive meanwhile."""
        root = self._ids.get(id(value))
        if root is None:
            root = self._next_root
            self._next_root += 1
            self._ids[id(value)] = root
            self._state.objects[root] = value
        return root

    def adopt(self, root: int, value: Any) -> None:
        """Bind an identity from the store to the object that was loaded for it."""
        self._ids[id(value)] = root
        self._state.objects[root] = value
        self.reserve([root])

    def adopt_own(self, name: str, root: int) -> None:
        self._own_roots[name] = root
        self.reserve([root])

    def _own_root(self, name: str) -> int:
        root = self._own_roots.get(name)
        if root is None:
            root = self._own_roots[name] = self._next_root
            self._next_root += 1
        return root

    def roots(self) -> set[int]:
        """All roots that are in components."""
        return set(self._part_of)

    def begin(self) -> None:
        """Code is about to run: remember what modules hold that it may change without naming it."""
        self._open = tuple(held_by_modules())

    def suspects(self, words: frozenset[str]) -> set[int] | None:
        """The roots that code which named these words may have changed; None for all."""
        reach = Reach(self._state, self._holders, self._context.namespace, self._part_of)
        reach.add_words(words)
        for name, value in self._placed.items():
            if name.rpartition(".")[2] in words and id(value) in self._ids:
                reach.add_root(self._ids[id(value)])
        if not self.is_harmless(words):
            reach.add_held((*self._open, *held_by_modules()))
            self._open = ()
        return reach.roots()

    def words_within(self, words: frozenset[str]) -> frozenset[str] | None:
        """All words of code that code with these words could call; None if it could run code of any words."""
        try:
            reach = Reach(self._state, self._holders, self._context.namespace, self._part_of)
            reach.add_words(words)
            reach.add_held(held_by_modules())
            known: frozenset[str] = frozenset()
            while reach.roots() is not None and not READERS & reach.words():
                if known == reach.words():
                    return known
                known = reach.words()
                for word in known:
                    text = self._context.namespace.get(word)
                    if type(text) is str:
                        reach.add_words(words_of_text(text))  # code, or a query, it may be
            return None
        except BaseException:  # noqa: BLE001 - what cannot be analysed may do anything
            return None

    def is_own(self, value: Any) -> bool:
        """Whether it is of the session: a function or class of it, an instance of one, or a value it has saved."""
        if is_a(value, types.FunctionType):
            return self._context.is_own_function(value)
        kind = value if is_a(value, type) else type(value)
        if module_of(kind) == "__main__" and self._context.is_own_class(kind):
            return True
        root = self._ids.get(id(value), self._holders.get(id(value)))
        return root is not None and not is_a(value, (*ATOMS, types.ModuleType))

    def _changes(self) -> Changes:
        """The user's names that are bound to other values than at the last commit, and those that are gone."""
        namespace, bound = self._context.namespace, self._bound
        candidates = [name for name, value in list(namespace.items()) if bound.get(name, _NOTHING) is not value]
        new = self._user_names.values(candidates)
        has_long = any(type(name) is str and len(name) > wire.MAX_NAME_CHARS for name in candidates)
        gone = [name for name in bound if name not in namespace]
        return Changes(new, gone + [name for name in candidates if name in bound and name not in new], has_long)

    def release(self) -> None:
        """Let go of what no name is bound to any more, so that its finalizers run before the commit, not after it."""
        new, gone, _ = self._changes()
        for name in (*new, *gone):
            value = self._bound.get(name)
            if value is not None:
                self._bound[name] = _NOTHING
            root = self._ids.get(id(value))
            if root is None or is_atom(value) or root in self._pinned or self._context.is_entity(value):
                continue
            if not any(other is value for other in list(self._context.namespace.values())):
                del self._ids[id(value)]
                self._state.objects.pop(root, None)

    def is_harmless(self, words: frozenset[str]) -> bool:
        """Whether code with these words can have changed nothing but what its names are bound to."""
        namespace = self._context.namespace
        return all(is_atom(namespace[word]) if word in namespace else word in HARMLESS for word in words)

    def differs(self, root: int) -> bool:
        """Whether a root of a component is not as it was when it was looked at last."""
        value = self._state.objects.get(root)
        known = root in self._part_of and root in self._state.scans
        if not known or is_atom(value) or self._habits.is_unstable([root]):
            return False
        with self._apart():
            survey = Survey(self._view(), {}, {root})
            survey.rescan = True
            survey.visit(root, value)
            return survey.is_changed(root)

    def tied(self, roots: set[int]) -> set[int]:
        """All roots of the components that hold these."""
        keys = {self._part_of[root] for root in roots if root in self._part_of}
        return roots | {root for key in keys for root in self._state.live[key].roots}

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
        self._context = self._context.renewed()
        with self._apart():
            capture = Capture(self._view(), own, suspects)
            capture.audit, capture.harmless, capture.loaded = audit, harmless, loaded
            if suspects is None:
                return capture.whole()
            capture.visit_suspects()
            return quick(capture) or capture.whole()

    def runs(self, part: Component, sums: Sequence[bytes]) -> list[wire.Run] | None:
        """Where the store has chunks of a component already; None if it has none, or the component is small."""
        return None if part.size_bytes <= wire.ROW_BYTES else self._chunks.runs(sums)

    def distrust_store(self) -> None:
        """A commit has failed: whatever the store has not, comes with the next one."""
        self._chunks = Known()

    def accept(self, delta: Delta) -> None:
        """The delta is committed: it is the state from which the next one is computed."""
        for key in delta.closed:
            self._chunks.remove(key)
        for part in delta.components:
            assert part.stream is not None
            self._chunks.add(part.key, part.stream.sums, part.size_bytes)
        if delta.quick:
            self._accept_quick(delta)
            return
        assert delta.after is not None
        before, after = self._state, delta.after
        self._bound, self._kept = delta.bound, dict(self._placed)
        for root in delta.regrouped:
            for key in before.scans[root].touched if root in before.scans else ():
                self._holders.pop(key, None)
        self._part_of = {root: part.key for part in after.live.values() for root in part.roots}
        for root in delta.regrouped & self._part_of.keys():
            self._holders.update(dict.fromkeys(after.scans[root].touched, root))
        for scan in after.scans.values():
            scan.stream = None
            if scan.error is not None:
                scan.error.__traceback__ = scan.error.__context__ = scan.error.__cause__ = None
        self._state = after
        self._ids = {id(value): root for root, value in after.objects.items()}
        self._habits.forget_all_but(self._part_of.keys())
        self._unloaded.difference_update(after.names, after.unsaved)

    def _accept_quick(self, delta: Delta) -> None:
        state = self._state
        state.names.update(delta.names)
        self._bound.update(delta.bound)
        self._unloaded.difference_update(delta.names)
        for name in delta.deleted:
            state.names.pop(name, None)
            self._bound.pop(name, None)
        for part in delta.components:
            [root] = part.roots
            state.live[root] = replace(part, stream=None)
            state.scans[root] = replace(delta.scans[root], stream=None)
            self._part_of[root] = root
        for root in delta.closed:
            del state.live[root], state.scans[root], self._part_of[root]
            self._ids.pop(id(state.objects.pop(root)), None)

    def admit(self, roots: tuple[int, ...], names: dict[str, Name]) -> None:
        """A component of mere data has been loaded after the others: remember it as it is in the store."""
        state = self._state
        with self._apart():
            capture = Capture(self._view(), {}, set(roots))
            for root in roots:
                capture.visit(root, state.objects[root])
            state.scans.update((root, replace(scan, stream=None)) for root, scan in capture.fresh.items())
            state.live[roots[0]] = capture.stored(roots)
        for root in roots:
            self._part_of[root] = roots[0]
            self._holders.update(dict.fromkeys(state.scans[root].touched, root))
        state.names.update(names)
        self._bound.update((name, state.objects[known.root]) for name, known in names.items())
        self._unloaded.difference_update(names)

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
