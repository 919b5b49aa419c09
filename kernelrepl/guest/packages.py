"""Packages of the session: `%pip install` asks the keeper for them, and what it installs can be imported at once.

Runs in the kernel, main thread only. The kernel never installs anything: the directory is not its to write.
"""

from __future__ import annotations

import importlib
import os
import re
import select
import shlex
import sys
import threading
from collections.abc import Callable
from typing import Any

from kernelrepl.guest import frames, imports
from kernelrepl.guest.interrupts import Interrupts
from kernelrepl.guest.mailbox import Mailbox

_PYTHON = re.compile(r"python[\d.]*")
_HARMLESS = frozenset({"-q", "-qq", "--quiet", "-U", "--upgrade", "-y", "--yes", "--user", "--system", "--no-input"})
"""Options that people type from habit, and that change nothing here."""
_LOOK_S = 0.5
_MOST_NAMES = 20
_MOST_CHARS = 4000


class NotInstalled(RuntimeError):
    """A package that code asked for was not installed. The text says why, and what to do."""


def wanted(command: str) -> list[str] | None:
    """Return the packages that a command line would install, or None if it does nothing of that kind.

    It understands pip and uv, as they are typed in a shell, with or without the Python before them.
    """
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return None
    if words[:1] == ["sudo"]:
        words = words[1:]
    if words and _PYTHON.fullmatch(os.path.basename(words[0])) and words[1:2] == ["-m"]:  # noqa: PTH119
        words = words[2:]
    if words[:1] == ["uv"]:
        words = words[1:]
        if words[:1] == ["add"]:
            words = ["pip", "install", *words[1:]]
    if len(words) < 2 or words[0] not in ("pip", "pip3") or words[1] != "install":
        return None
    return [word for word in words[2:] if word not in _HARMLESS]


class Packages:
    """This object has the directories with packages of the session, and asks for more."""

    def __init__(
        self, mailbox: Mailbox, interrupts: Interrupts, give: Callable[[str], None], start: dict[str, Any]
    ) -> None:
        """give: notes an entry of the import path as given. start: what the `start` frame says of packages."""
        self._mailbox = mailbox
        self._interrupts = interrupts
        self._give = give
        self._requests = 0
        self._pid = os.getpid()
        self.home: str = start["home"]
        self.ready = False
        """Whether the session is back, so that its code may ask."""

    def install(self, names: list[str]) -> None:
        """Have packages installed, and say which came. Raises NotInstalled."""
        if len(names) > _MOST_NAMES or sum(map(len, names)) > _MOST_CHARS:
            raise NotInstalled(f"these are too many packages for one request; name at most {_MOST_NAMES}")
        if not self.ready:
            raise NotInstalled("packages are not installed while a session comes back; ask for them in a cell")
        if os.getpid() != self._pid or threading.current_thread() is not threading.main_thread():
            raise NotInstalled("packages are installed from the main thread of a session; ask there")
        with self._interrupts.masked():
            self._requests += 1
            self._mailbox.channel.send(frames.build("install", request=self._requests, names=names))
        while True:
            # Only here an interrupt may come: what is being installed goes on then, and is there when it is done.
            select.select([self._mailbox.channel], [], [], _LOOK_S)
            with self._interrupts.masked():
                answer = self._mailbox.find("installed", self._requests)
                if answer is not None:
                    self.take(answer)
                    break
        if answer["reason"] is not None:
            raise NotInstalled(answer["reason"])
        names = [f"{name} {version}" for name, version in answer["packages"]]
        sys.stdout.write(f"{'installed' if answer['layer'] else 'already there:'} {', '.join(names)}\n")
        stale = sorted({name for name in map(_module, answer["packages"]) if name in sys.modules})
        if stale and answer["layer"]:
            sys.stdout.write(f"loaded already, and so as it was until the kernel restarts: {', '.join(stale)}\n")

    def take(self, answer: dict[str, Any]) -> None:
        """A layer has come: what is in it can be imported from now on."""
        if not answer["layer"]:
            return
        place = f"{self.home}/{answer['layer']}"
        if place in sys.path:
            return
        sys.path.append(place)
        sys.path[:] = arranged(sys.path, self.home)
        self._give(place)
        imports.note_installed(place)
        importlib.invalidate_caches()


def on_path(start: dict[str, Any]) -> None:
    """Put what the session has on the import path, behind the environment that all sessions share."""
    sys.path.extend(f"{start['home']}/{number}" for number in start["layers"])


def arranged(path: list[str], home: str) -> list[str]:
    """Return an import path on which the layers below `home` stand in the places that they have, the latest first."""
    places = [index for index, entry in enumerate(path) if _is_below(entry, home)]
    latest = sorted((path[index] for index in places), key=lambda entry: -int(entry.rpartition("/")[2]))
    found = list(path)
    for index, entry in zip(places, latest, strict=True):
        found[index] = entry
    return found


def _module(package: list[str]) -> str:
    return package[0].lower().replace("-", "_")


def _is_below(entry: object, home: str) -> bool:
    return isinstance(entry, str) and entry.startswith(f"{home}/") and entry[len(home) + 1 :].isdecimal()
