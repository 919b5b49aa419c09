"""The committed state of the namespace, and the way from there to its present state.

One full pass per execution: true before fast. Runs in the kernel, main thread only.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterable
from typing import Any

from kernelrepl.guest.capture import Capture
from kernelrepl.guest.interrupts import Interrupts
from kernelrepl.guest.pickler import Surroundings
from kernelrepl.guest.state import Component, Delta, Limits, Name, State

_MACHINERY = frozenset(
    {"__name__", "__doc__", "__package__", "__loader__", "__spec__", "__file__", "__session__"}
    | {"__builtin__", "__builtins__", "__warningregistry__"}
)
_IPYTHON = re.compile(r"_(i{1,3}|_{1,2}|i?\d+|ih|oh|dh|exit_code)\Z")


class Snapshot:
    """The committed state of one namespace, and the way from there to its present state."""

    def __init__(
        self,
        around: Surroundings,
        hidden: dict[str, Any],
        interrupts: Interrupts,
        limits: Limits,
    ) -> None:
        self.around = around
        self.hidden = hidden
        self.interrupts = interrupts
        self.limits = limits
        self.state = State()
        self.unloaded: set[str] = set()
        """Names in the store whose value is not here. Absent from the namespace, yet not deleted."""
        self.pinned: dict[int, Any] = {}
        """Objects that components which could not be loaded refer to."""
        self.frozen_bytes = 0
        self.next_root = 1
        self._ids: dict[int, int] = {}
        self.own_roots: dict[str, int] = {}
        self.slow: dict[int, Any] = {}
        self.unstable: set[int] = set()
        """Roots of components that pickle to other bytes each time."""

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

    def user_names(self) -> dict[str, Any]:
        """The names that belong to the user, `_` included."""
        found = {}
        for name, value in list(self.around.namespace.items()):
            if not isinstance(name, str) or name in _MACHINERY or _IPYTHON.match(name):
                continue
            if not name.isidentifier():
                continue  # put there by way of globals(); no code can name it
            if name in self.hidden and self.hidden[name] is value and name != "_":
                continue
            found[name] = value
        return found

    def capture(self, own: dict[str, Any], mentioned: frozenset[str] | None = None) -> Delta:
        """Compare the namespace with what is committed.

        own: the session's own values (working directory, random state …) under names that no variable can
        have. Nothing is remembered until `accept` gets the delta back.
        """
        # Saving by global name must not find session objects in __main__: they are not there after a restore.
        self.around = self.around.renewed()
        main = sys.modules.get("__main__")
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            return Capture(self, own, mentioned).run()
        finally:
            if main is not None:
                sys.modules["__main__"] = main

    def accept(self, delta: Delta) -> None:
        """The delta is committed: it is the state from which the next one is computed."""
        assert delta.after is not None
        self.state = delta.after
        self._ids = {id(value): root for root, value in self.state.objects.items()}
        self.unstable.intersection_update(root for part in self.state.live.values() for root in part.roots)
        self.unloaded.difference_update(self.state.names, self.state.unsaved)

    def rebase(self, names: dict[str, Name], stored: Iterable[tuple[int, ...]], own: dict[str, Any]) -> None:
        """After a load: fingerprint what is here, so that only real changes count from now on.

        stored: the roots of each component that was loaded. A component that falls into other parts than it
        was stored in is left as not stored, and so is written again by the next commit.
        """
        delta = self.capture(own)
        assert delta.after is not None
        state = delta.after
        known = set(stored)
        state.live = {key: part for key, part in state.live.items() if part.roots in known}
        for roots in known:
            state.live.setdefault(roots[0], Component(roots, (), b"", 0, False))
        for name, stored_name in names.items():
            here = state.names.get(name)
            if here is not None and here.root != stored_name.root:
                state.prints[stored_name.root] = state.prints[here.root]
        state.names = names
        state.unsaved = {}
        self.accept(delta)
