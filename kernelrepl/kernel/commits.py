"""What is made of a commit that comes over the channel, a part at a time. Everything in it is untrusted and bounded.

A part is taken apart when it comes, so that no step takes long and nothing is kept that no commit may have.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from kernelrepl import bounded_json
from kernelrepl.guest import wire
from kernelrepl.kernel.channel import text_of
from kernelrepl.model import Commit, NewComponent, Saved

_LISTS = ("roots", "references", "segments", "runs")
_COMPONENT = (*_LISTS, "code", "inert", "staged")
_KINDS = ("created", "changed", "deleted")
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


class Draft:
    """A commit of which some has come."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[int, str, int]] = {}
        self._unsaved: dict[str, tuple[str, str, str]] = {}
        self._summaries: dict[str, str] = {}
        self._deleted: list[str] = []
        self._closed: list[int] = []
        self._saved: dict[str, dict[str, None]] = {kind: {} for kind in _KINDS}
        self._chars = self._told_chars = 0
        self._open: dict[str, Any] | None = None
        """The last component that has come, of which more may come."""
        self._components: list[NewComponent] = []
        self._held: set[int] = set()
        self._keys: set[int] = set()
        self._numbers = self._runs = self._chunks = 0

    @property
    def held(self) -> int:
        """About how many bytes have come: a letter may take four, a number 36, a name with what is told of it 400."""
        entries = len(self._summaries) + len(self._deleted) + len(self._closed) + sum(map(len, self._saved.values()))
        return 4 * (self._chars + self._told_chars) + 36 * self._numbers + 400 * (entries + len(self._components))

    def add(self, path: Any, part: Any) -> None:
        """Take a part of the header, and where in it that belongs. Raises wire.WireError."""
        try:
            self._add(path, part)
        except _MALFORMED as error:
            raise wire.WireError(f"malformed commit: {type(error).__name__}: {error}") from error

    def _add(self, path: Any, part: Any) -> None:
        match path:
            case ["names"]:
                self._add_names(part)
            case ["unsaved"]:
                self._add_unsaved(part)
            case ["deleted"]:
                self._deleted += map(self._told, part)
                _bounded(self._deleted)
            case ["closed"]:
                self._closed += map(_count, part)
                _bounded(self._closed, wire.MAX_COMPONENTS)
            case ["components"]:
                for entry in part:
                    self._close()
                    self._open = {key: entry[key] for key in _COMPONENT if key in entry}
                    self._count_numbers(len(entry[key] or ()) for key in _LISTS if key in entry)
            case ["components", -1] if self._open is not None:
                self._open |= {key: part[key] for key in _COMPONENT if key in part}
                self._count_numbers(len(part[key] or ()) for key in _LISTS if key in part)
            case ["components", -1, ("roots" | "references" | "segments" | "runs") as key] if self._open is not None:
                self._open[key] += [_run(*entry) for entry in part] if key == "runs" else map(_count, part)
                self._count_numbers([len(part)])
            case ["saved"]:
                for kind, names in part.items():
                    self._add_saved(kind, names)
            case ["saved", kind]:
                self._add_saved(kind, part)
            case _:
                raise ValueError(f"no part of one: {path!r:.60}")

    def _add_names(self, part: dict[str, Any]) -> None:
        for name, (root, kind, size, summary) in part.items():
            self._names[_name(name)] = _count(root), self._text(kind), _count(size)
            self._add_summary(name, summary)

    def _add_unsaved(self, part: dict[str, Any]) -> None:
        for name, (kind, path, reason, summary) in part.items():
            self._unsaved[_name(name)] = self._text(kind), self._text(path), self._text(reason)
            self._add_summary(name, summary)

    def _add_summary(self, name: str, summary: Any) -> None:
        self._summaries[name] = self._text(summary)
        self._chars += len(name)
        if len(self._summaries) > wire.MAX_NAMES or self._chars > wire.MAX_TEXT_CHARS:
            raise ValueError("more names, or more about them, than a session may have")

    def _add_saved(self, kind: Any, names: Any) -> None:
        """A name that the commit does not speak of has not changed, whatever is told: that is looked at in the end."""
        found = self._saved[kind]
        for name in names:
            found[_name(name)] = None
            self._told_chars += len(name)
        _bounded(found)
        if self._told_chars > wire.MAX_TEXT_CHARS:
            raise ValueError("more names than a session may have")

    def _told(self, name: Any) -> str:
        self._chars += len(_name(name))
        if self._chars > wire.MAX_TEXT_CHARS:
            raise ValueError("more names than a session may have")
        return str(name)

    def _text(self, value: Any) -> str:
        text = _text(value)
        self._chars += len(text)
        return text

    def _count_numbers(self, counts: Any) -> None:
        self._numbers += sum(counts)
        if self._numbers > wire.MAX_NUMBERS:
            raise ValueError(f"more than {wire.MAX_NUMBERS} roots, references and segments")

    def _close(self) -> None:
        """Nothing more comes of the last component. Nothing is made in proportion to a length that is only said."""
        entry, self._open = self._open, None
        if entry is None:
            return
        segments = tuple(_count(size) for size in _bounded(entry["segments"], wire.MAX_CHUNKS))
        _count(sum(segments))
        self._chunks += wire.Cuts(segments).count
        if self._chunks > wire.MAX_CHUNKS:
            raise ValueError(f"more than {wire.MAX_CHUNKS} chunks")
        runs = None
        if entry.get("runs") is not None:
            runs = tuple(_run(*run) for run in _bounded(entry["runs"], wire.MAX_RUNS))
            self._runs += len(runs)
            self._keys.update(key for key, _, _ in runs)
        if self._runs > wire.MAX_RUNS or len(self._keys) > wire.MAX_RUN_KEYS + 1:
            raise ValueError("too many runs")
        roots = tuple(_count(root) for root in entry["roots"])
        if not self._held.isdisjoint(roots) or len(set(roots)) < len(roots):
            raise ValueError("a root in two places")
        self._held.update(roots)
        if not roots or not segments:
            raise ValueError("a component without roots or segments")
        references = tuple(_count(root) for root in entry["references"])
        index = len(self._components)
        if index >= wire.MAX_COMPONENTS:
            raise ValueError("too many entries")
        data = None if entry.get("staged") else b""
        code, inert = bool(entry["code"]), bool(entry["inert"])
        self._components.append(NewComponent(index, roots, references, segments, code, data, inert, runs))

    def finish(self, header: dict[str, Any], payload: bytes, python: str, packages: str) -> Commit:
        """The commit, with the rest of its header and its payload. Raises wire.WireError."""
        try:
            return self._finish(header, payload, python, packages)
        except _MALFORMED as error:
            raise wire.WireError(f"malformed commit: {type(error).__name__}: {error}") from error

    def _finish(self, header: dict[str, Any], payload: bytes, python: str, packages: str) -> Commit:
        at = _count(header["outputs_bytes"])
        if at > min(len(payload), wire.MAX_OUTPUTS_BYTES):
            raise ValueError("outputs that are not there, or too many of them")
        for key in ("names", "unsaved", "deleted", "components", "closed", "saved"):
            self._add([key], header[key])
        self._close()
        outcome = header["outcome"]
        if outcome is not None:
            outcome = {
                "status": "error" if outcome["status"] == "error" else "ok",
                "execution_count": _count(outcome["execution_count"]),
                "duration_s": _seconds(outcome["duration_s"]),
                "error": _pair(outcome["error"]) if outcome["error"] else None,
            }
        if not self._names.keys().isdisjoint(self._unsaved):
            raise ValueError("a name that is saved and not saved")
        names = self._names.keys() | self._unsaved.keys()
        outputs, left_out = _outputs(payload[:at])
        told = {"created": names, "changed": names, "deleted": frozenset(self._deleted)}
        return Commit(
            cause=_text(header["cause"]),
            request=_text(header["request"]),
            names=self._names,
            unsaved=self._unsaved,
            summaries=self._summaries,
            deleted=tuple(self._deleted),
            components=self._with_data(payload, at),
            closed=tuple(self._closed),
            magic=_text(header["magic"]),
            python=_text(python),
            saved=Saved(*(tuple(name for name in self._saved[kind] if name in told[kind]) for kind in _KINDS)),
            packages=packages,
            outcome=outcome,
            outputs=outputs,
            left_out=left_out,
            missed=_count(header.get("missed", 0)),
            failure=None if header.get("failure") is None else _text(header["failure"]),
        )

    def _with_data(self, payload: bytes, at: int) -> tuple[NewComponent, ...]:
        """The components, whose bytes begin at a place in the payload."""
        found = []
        for part in self._components:
            size = wire.Cuts(part.segments).new_bytes(part.runs)
            if part.data is None:
                found.append(part)
                continue
            data = payload[at : at + size]
            if len(data) != size:
                raise ValueError("payload shorter than its components")
            found.append(replace(part, data=data))
            at += size
        return tuple(found)


def parse_commit(header: dict[str, Any], payload: bytes, python: str, packages: str = "{}") -> Commit:
    """A commit frame that has come whole. Raises wire.WireError for anything that is not of its form."""
    return Draft().finish(header, payload, python, packages)


def _outputs(recorded: bytes) -> tuple[str, str | None]:
    """Recorded outputs, as they came: counted, not decoded; and what is to be said if they hold too much, and are not
    taken."""
    if not recorded:
        return "[]", None
    try:
        bounded_json.check(recorded)
    except bounded_json.TooMuch as error:
        return "[]", f"the outputs were left out: {error}"
    return recorded.decode(), None


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"not a count: {value!r:.40}")
    return value


def _run(key: Any, start: Any, count: Any) -> wire.Run:
    return (-1 if key == -1 else _count(key)), _count(start), _count(count)


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"not a duration: {value!r:.40}")
    return abs(seconds)  # of a zero below zero, SQLite gives back another one


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > wire.MAX_NAME_CHARS:
        raise ValueError("not a name")
    value.encode()  # a lone surrogate could not be stored
    return value


def _pair(value: Any) -> list[str]:
    first, second = value
    return [_text(first), _text(second)]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return text_of(value, wire.MAX_SAID_CHARS)


def _bounded(value: Any, most: int = wire.MAX_NAMES) -> Any:
    if len(value) > most:
        raise ValueError("too many entries")
    return value
