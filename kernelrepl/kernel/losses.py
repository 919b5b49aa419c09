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

        self._found: dict[str, None] = {}
        self._lost: list[NotRestored] = []
        """What has come of a frame that comes in parts."""
        self._left_out = 0
        """How much more of what was around the session is lost."""

    def add(self, path: Any, part: Any) -> None:
        """Take a part of a `ready` or `loaded` frame. Raises wire.WireError."""
        if path == ["restored"]:
            self._note_restored(part)
        elif path == ["not_restored"]:
            self._note_lost(part)
        else:
            raise wire.WireError(f"a part of something else: {path!r:.60}")

    def restored(self, header: dict[str, Any]) -> Restored:
        """What a `ready` frame says. Raises wire.WireError."""
        self._note_restored(header["restored"])
        lost = self.lost(header)
        self._stories, self._others = set(), 0  # of what was not saved it is told once, at the start
        return Restored(tuple(self._found), lost, self._left_out)

    def lost(self, header: dict[str, Any]) -> tuple[NotRestored, ...]:
        """What a frame says is lost, as far as there is something to lose. Raises wire.WireError."""
        self._note_lost(header["not_restored"])
        lost, self._lost = self._lost, []
        return tuple(lost)

    def _note_restored(self, names: Any) -> None:
        try:
            self._found.update(dict.fromkeys(name for name in names if name in self._names))
        except TypeError as error:
            raise wire.WireError(f"malformed ready frame: {error}") from error

    def _note_lost(self, entries: Any) -> None:
        try:
            found = [
                NotRestored(text_of(e["name"], wire.MAX_NAME_CHARS), text_of(e["type"], 200), _reason(e["reason"]))
                for e in entries
            ]
        except (KeyError, TypeError) as error:
            raise wire.WireError(f"malformed list of what is lost: {error}") from error
        for entry in found:
            if entry.name in self._names:
                self._names.discard(entry.name)
            elif entry.name in self._stories:
                self._stories.discard(entry.name)
            elif self._others > 0:
                self._others -= 1
            else:
                self._left_out += 1
                continue
            self._lost.append(entry)


def _reason(value: Any) -> str:
    return text_of(value, wire.MAX_SAID_CHARS)
