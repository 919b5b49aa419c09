"""What sessions may write to, and what runs unconfined: the two must not meet.

Kernels, and what starts them, take their code from an interpreter before they are confined. A session that could write
there would be its own sandbox's author. So each grant is held against all interpreters and each interpreter against all
grants, when they are given, and again whenever a kernel starts.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kernelrepl.sandbox.bootstrap import PACKAGE
from kernelrepl.sandbox.interpreter import led, parts
from kernelrepl.workspaces.entrances import lies_in, met, ways

_PUBLIC = (".cache", ".local/share")
"""What of the hidden in a home is data, as far as it is not what follows."""
_STARTED = ("applications", "bash-completion", "dbus-1", "fish", "flatpak", "jupyter", "systemd")


@dataclass(frozen=True)
class Share:
    """What one session adds to it."""

    pythons: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()


@dataclass
class Exposure:
    """One for each keeper. Safe in any thread: whoever adds something adds it first and looks at the others then."""

    always: tuple[str, ...] = ()
    """Where any session writes: below these are their workspaces."""
    _shares: dict[str, Share] = field(default_factory=dict)
    _loaded: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def note(self, owner: str, python: str, write: Iterable[str], *, before: bool = False) -> None:
        """What a session has. before: and what it had, which a kernel of it may have still."""
        old = self._shares.get(owner, Share()) if before else Share()
        self._shares[owner] = Share(old.pythons | {python}, old.write | frozenset(write))

    def forget(self, owner: str) -> None:
        self._shares.pop(owner, None)

    def loaded(self, python: str, places: Iterable[str]) -> None:
        """Where a process that kernels are forked from has its code from, besides what its interpreter names."""
        self._loaded[python] = tuple(places)

    def written(self) -> tuple[str, ...]:
        """All places that a session may write to."""
        granted = [path for share in list(self._shares.values()) for path in share.write]
        return tuple(dict.fromkeys((*self.always, *granted)))

    def pythons(self) -> list[str]:
        return list(dict.fromkeys(python for share in list(self._shares.values()) for python in share.pythons))

    def loads(self) -> list[str]:
        return [place for places in list(self._loaded.values()) for place in places]


def own_sources() -> list[str]:
    """From where this process, which nothing confines, has its code, and may take more."""
    found = [str(PACKAGE), *led(sys.executable), *(entry or "/" for entry in sys.path)]
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix):
        found += parts(prefix)
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    found += {os.path.dirname(file) for file in files if isinstance(file, str) and file.startswith("/")}  # noqa: PTH120
    return list(dict.fromkeys(found))


def clash(place: str, sources: Iterable[str]) -> str | None:
    """What of these a place holds or lies in."""
    found = met(sources, [place])
    return None if found is None else found[0]


def of_the_person(place: str) -> str | None:
    """What in the person's home would run with their rights later, if a session could write to a place."""
    homes = {os.path.realpath(pwd.getpwuid(os.geteuid()).pw_dir), os.path.realpath(Path.home())} - {"/"}
    for home in sorted(homes):
        if lies_in(home, place):
            return home
        inside = place[len(home) + 1 :] if lies_in(place, home) else ""
        if not inside.startswith("."):
            continue
        public = next((name for name in _PUBLIC if lies_in(inside, name) and inside != name), None)
        if public is None or inside[len(public) + 1 :].split("/")[0] in _STARTED:
            return place
    return None


def resolved(paths: Iterable[Path | str]) -> tuple[str, ...]:
    """Where these really are."""
    return tuple(dict.fromkeys(ways(os.path.expanduser(path))[-1] for path in paths))  # noqa: PTH111
