"""One client of a keeper: who it says it is, and what its sessions get."""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, field, replace

from kernelrepl import config
from kernelrepl.sessions.confinement import Grants
from kernelrepl.sessions.manager import Origin

CANCELLATIONS = 1000


@dataclass
class Connection:
    """One client: who it says it is, and what its sessions get."""

    name: str
    settings: config.Settings
    operator: bool
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    resumed: frozenset[str] = frozenset()
    """JSON-RPC ids of requests that it sends again because it lost their replies."""
    outputs: bool = False
    """It wants to have outputs as a notebook has them, too."""
    live: bool = False
    """It shows outputs as they come: it gets them as pieces of text, while it waits and with the reply."""
    cancelled: deque[str] = field(default_factory=lambda: deque(maxlen=CANCELLATIONS))
    """JSON-RPC ids of the requests that it cancelled last. A client that only leaves cancels nothing."""
    attached: bool = False
    """Notebooks are attached to sessions through it."""
    note: str = ""
    """Why its sessions do not run in the interpreter of its program."""

    def origin(self, client: str | None = None, *, can_ask: bool = False) -> Origin:
        """client: the name of the program behind it, where that is not this one. can_ask: it asks its person."""
        return Origin(client or self.name, replace(grants(self.settings), note=self.note), can_ask)


def grants(settings: config.Settings) -> Grants:
    """What settings give to a new session."""
    return Grants(settings.limits(), settings.python, settings.resources(), settings.allow_read, settings.allow_write)
