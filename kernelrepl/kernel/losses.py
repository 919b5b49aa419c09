"""What a kernel says that it has restored or lost, as far as its session had it. Each name is lost once."""

from __future__ import annotations

from typing import Any

from kernelrepl.guest import wire
from kernelrepl.kernel.channel import text_of
from kernelrepl.model import Manifest, NotRestored, Restored


class Losses:
    """Of one kernel."""

    def __init__(self, manifest: Manifest) -> None:
        self._names = {name for name in manifest.names if name != "_" and not name.startswith("*")}
        """What may still be lost."""
        self._stories = set(manifest.stories) - set(manifest.names)
        self._others = wire.MAX_FAILED

    def restored(self, header: dict[str, Any]) -> Restored:
        """What a `ready` frame says. Raises WireError."""
        try:
            found = tuple(name for name in dict.fromkeys(header["restored"]) if name in self._names)
        except (KeyError, TypeError) as error:
            raise wire.WireError(f"malformed ready frame: {error}") from error
        lost = self.lost(header)
        self._stories, self._others = set(), 0  # of what was not saved it is told once, at the start
        return Restored(found, lost)

    def lost(self, header: dict[str, Any]) -> tuple[NotRestored, ...]:
        """What a frame says is lost, as far as there is something to lose. Raises WireError."""
        found = []
        for entry in _not_restored(header):
            if entry.name in self._names:
                self._names.discard(entry.name)
            elif entry.name in self._stories:
                self._stories.discard(entry.name)
            elif self._others > 0:
                self._others -= 1
            else:
                continue
            found.append(entry)
        return tuple(found)


def _not_restored(header: dict[str, Any]) -> list[NotRestored]:
    try:
        return [
            NotRestored(text_of(e["name"], wire.MAX_NAME_CHARS), text_of(e["type"], 200), text_of(e["reason"], 2000))
            for e in header["not_restored"]
        ]
    except (KeyError, TypeError) as error:
        raise wire.WireError(f"malformed {header['type']} frame: {error}") from error
