"""Put back what a cell took away and the next cell cannot do without.

A cell may do what it likes with its own names. Standard streams, descriptors, builtins and the names that
IPython put into the namespace are back when it ends, and what was broken is said. Runs in the kernel.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from kernelrepl.guest import dict_versions
from kernelrepl.guest.ipython.output import GuestStream
from kernelrepl.guest.neutral import name_of
from kernelrepl.guest.originals import Originals

_NAMES = ("In", "Out", "_ih", "_oh", "_dh", "get_ipython", "exit", "quit", "open")
_IPYTHONS = frozenset({"exit", "quit"})
"""Builtins that IPython takes away while a cell runs, for its own of that name."""
_ABSENT = object()
_RECURSION_LIMIT = sys.getrecursionlimit()
"""Of a new kernel; a restored session may have its own."""


class Repair:
    """Remembers how things were when the kernel started."""

    def __init__(
        self, namespace: dict[str, Any], hidden: dict[str, Any], streams: Sequence[GuestStream], originals: Originals
    ) -> None:
        self._namespace = namespace
        self._streams = streams
        self._originals = originals
        self._names = {name: hidden[name] for name in _NAMES if name in hidden}
        self._builtins = {name: value for name, value in vars(builtins).items() if name not in _IPYTHONS}
        self._version = dict_versions.of(vars(builtins))
        self._stood_at = -1
        """The version of the builtins at which none was missing or broken."""
        self._told: dict[str, object] = {}

    def mend(self) -> None:
        """Called when user code stops or has ended, before anything of the kernel's own runs."""
        self._originals.set_aside()
        broken, needed = self._originals.drop() if self._originals else ([], [])
        broken += self._mend_builtins(vars(builtins))
        broken += self._mend_streams()
        for stream in self._streams:
            if stream.put_back():
                broken.append(f"descriptor {stream.descriptor}")
        _mend_stdin()
        self._mend_namespace()
        if sys.getrecursionlimit() < _RECURSION_LIMIT:
            sys.setrecursionlimit(_RECURSION_LIMIT)
            broken.append("the recursion limit")
        if needed:
            self._say(f"put back, because the kernel itself works with it: {', '.join(needed)}")
        if broken:
            self._say(f"put back, because the code had broken it: {', '.join(broken)}")

    def end_cell(self) -> None:
        """Mend, and tell of output that from now on goes elsewhere."""
        self.mend()
        for stream in self._streams:
            now = getattr(sys, stream.name)
            if now is not stream and now is not self._told.get(stream.name):
                self._told[stream.name] = now
                self._say(
                    f"sys.{stream.name} is a {name_of(type(now))} now, which takes what is printed;"
                    f" sys.{stream.name} = sys.__{stream.name}__ puts it back"
                )

    def _say(self, text: str) -> None:
        self._streams[-1].write(f"[{text}]\n")

    def _mend_builtins(
        self, space: dict[str, Any], absent: object = _ABSENT, is_callable: Any = callable
    ) -> Iterator[str]:
        # Uses no builtin by its name. A function that replaces another is left: that is a way to work.
        version = None if self._version is None else self._version.value
        if version == self._stood_at:
            return
        for name, value in self._builtins.items():
            now = space.get(name, absent)
            if now is not value and (now is absent or (is_callable(value) and not is_callable(now))):
                space[name] = value
                yield name
        if version is not None:
            self._stood_at = version  # what has just been put back is looked at once more

    def _mend_streams(self) -> Iterator[str]:
        for stream in self._streams:
            now = getattr(sys, stream.name)
            if now is stream:
                continue
            try:
                now.flush()  # what is wrapped around ours may hold back text
                if now.closed:
                    raise ValueError("it is closed")
            except BaseException:  # noqa: BLE001 - it may be any object
                setattr(sys, stream.name, stream)
                yield f"sys.{stream.name}"

    def _mend_namespace(self) -> None:
        space = self._namespace
        for name, value in self._names.items():
            if name not in space:
                space[name] = value
        now = space.get("__builtins__")
        if now is not builtins and now is not vars(builtins):
            space["__builtins__"] = builtins
        space["__name__"] = "__main__"


def _mend_stdin() -> None:
    try:
        os.fstat(0)
    except OSError:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        if descriptor:
            os.dup2(descriptor, 0)
            os.close(descriptor)
