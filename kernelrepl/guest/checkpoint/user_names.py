"""Which names of the namespace are the user's, and not Python's or IPython's. Runs in the kernel, main thread only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from kernelrepl.guest import wire

_MACHINERY = frozenset(
    {"__name__", "__doc__", "__package__", "__loader__", "__spec__", "__file__", "__session__"}
    | {"__builtin__", "__builtins__", "__warningregistry__"}
)
_IPYTHON = re.compile(r"_(i{1,3}|_{1,2}|i?\d+|ih|oh|dh|exit_code)\Z")


class UserNames:
    """The names of one namespace that belong to the user, `_` included."""

    def __init__(self, namespace: dict[str, Any], hidden: dict[str, Any]) -> None:
        """hidden: what IPython has put into the namespace."""
        self._namespace = namespace
        self._hidden = hidden
        self._known: dict[str, bool] = {}

    def values(self, among: Iterable[Any] | None = None) -> dict[str, Any]:
        """Return their values: those of all names, or among some."""
        found = {}
        hidden, known, namespace = self._hidden, self._known, self._namespace
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
