"""The present state of a session: what a kernel needs to take it up again, and what of it the disk has changed.

Each row is compared with its seal, and all of them together with that of the session: a row may be lost, or one that
was superseded may have come back. What is damaged is told and never loaded; its bytes stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kernelrepl import bounded_json
from kernelrepl.guest import wire
from kernelrepl.model import Manifest, NotRestored, StoredComponent
from kernelrepl.store import names_in_code, seals
from kernelrepl.store.database import Database

MOST_NUMBERS = 1_000_000
"""In the list of a component: earlier versions wrote longer ones than this one."""
INCOMPLETE = NotRestored(
    "(names of this session)",
    "",
    "which names it has is damaged in the database: some may be missing, or have an earlier value; look at them, and"
    " put back a copy of the database if there is one",
)
_CODE_SHOWN_CHARS = 80
_NAMES = (
    f"SELECT {seals.columns(seals.NAME, 'n')}, n.seal, e.id, e.execution_count,"
    f" {seals.columns(seals.EXECUTION, 'e')}, e.seal"
    " FROM names n LEFT JOIN executions e ON e.id = n.execution WHERE n.session = ? AND n.to_commit IS NULL"
)
_COMPONENTS = (
    f"SELECT id, blocked, {seals.columns(seals.COMPONENT)}, seal FROM components"
    " WHERE session = ? AND to_commit IS NULL ORDER BY size_bytes, key"
)


@dataclass
class _Set:
    """Seals of rows that were read, as they are stored and as they should be."""

    stored: bytes = seals.NOTHING
    right: bytes = seals.NOTHING
    damaged: bool = False

    def add(self, stored: Any, values: Sequence[Any]) -> bool:
        """Whether a row is as it was written."""
        right = seals.seal(values)
        self.stored = seals.joined(self.stored, [stored])
        self.right = seals.joined(self.right, [right])
        self.damaged = self.damaged or stored != right
        return bool(stored == right)

    def lacks(self, live: Any) -> bool:
        """Whether these are not the rows that a session has."""
        return live not in (self.stored, self.right)


@dataclass
class _Names:
    """The live names of a session."""

    values: dict[str, tuple[int, str, int]] = field(default_factory=dict)
    stories: dict[str, str] = field(default_factory=dict)
    damaged: list[NotRestored] = field(default_factory=list)


def manifest(db: Database, session: int) -> Manifest:
    """What a kernel needs to take the session up again."""
    rows = _Set()
    names = _names(db, session, rows)
    parts = _components(db, session, rows)
    row = db.execute("SELECT execution_count, live FROM sessions WHERE id = ?", [session]).fetchone()
    if row is not None and rows.lacks(row[1]):
        names.damaged.append(INCOMPLETE)
    count = row[0] if row is not None and isinstance(row[0], int) else 0
    return Manifest(names.values, tuple(parts), names.stories, count, tuple(names.damaged))


def _names(db: Database, session: int, rows: _Set) -> _Names:
    found = _Names()
    lines: dict[int, dict[str, str]] = {}
    """Of each execution that made names: its words, and the line that made each."""
    width = len(seals.NAME)
    seen: set[str] = set()
    for row in db.execute(_NAMES, [session]):
        _, name, _, _, root, kind, size, path, reason, _, made = row[:width]
        intact = rows.add(row[width], row[:width])
        if not intact or name in seen:
            name = str(name)
            found.values.pop(name, None)
            found.stories[name] = f"name {name!r} was not restored: {wire.DAMAGED}"
            found.damaged.append(NotRestored(name, str(kind), wire.DAMAGED))
        elif root is not None:
            found.values[name] = (root, kind, size)
        else:
            execution, count, *made_by = row[width + 1 :]
            origin = None
            if execution is not None and seals.seal(made_by[:-1]) == made_by[-1]:
                code = made_by[seals.EXECUTION.index("code")]
                if execution not in lines:
                    lines[execution] = names_in_code.lines(code)
                first = lines[execution]
                origin = f"execution {count} (`{first.get(name, first[''])[:_CODE_SHOWN_CHARS]}`)"
            found.stories[name] = _story(name, kind, path, reason, made, origin)
        seen.add(name)
    return found


def _story(name: str, kind: str, path: str, reason: str, made: str, origin: str | None) -> str:
    where = f"; the trouble is {path}" if path and path != name else ""
    by = "" if origin is None else f" by {origin}"
    return f"name {name!r} was not saved: it was a {kind}, made at {made}{by}{where}: {reason}"


def _components(db: Database, session: int, rows: _Set) -> list[StoredComponent]:
    """The live components; of one that is damaged no more is given than whose values it may have held."""
    good: list[StoredComponent] = []
    bad: list[StoredComponent] = []
    for row in db.execute(_COMPONENTS, [session]):
        values, stored = row[2:-1], row[-1]
        part = _component(row[0], row[1], dict(zip(seals.COMPONENT, values, strict=True)))
        intact = rows.add(stored, values)
        if part is not None:
            (good if intact else bad).append(part)
    holders = Counter(root for part in good for root in part.roots)
    bad += [part for part in good if any(holders[root] > 1 for root in part.roots)]
    good = [part for part in good if all(holders[root] == 1 for root in part.roots)]
    taken = {root for part in good for root in part.roots}
    for part in bad:
        if taken.isdisjoint(part.roots):
            taken.update(part.roots)
            good.append(
                replace(
                    part, key=part.roots[0], references=(), segments=(), packages={}, inert=False, blocked=wire.DAMAGED
                )
            )
    return good


def _component(row: int, blocked: str | None, values: dict[str, Any]) -> StoredComponent | None:
    """A row as a component; None for one whose numbers are none: what it held counts as missing."""
    try:
        roots, references, segments = (_numbers(values[column]) for column in ("roots", "refs", "segments"))
        packages = bounded_json.loads(values["packages"].encode())
    except (ValueError, AttributeError):
        return None
    if not roots or not isinstance(packages, dict):
        return None
    return StoredComponent(
        row, values["key"], roots, references, segments, bool(values["has_code"]), str(values["magic"]),
        str(values["python"]), blocked, bool(values["inert"]), packages,
    )  # fmt: skip


def _numbers(stored: str) -> tuple[int, ...]:
    """Raises ValueError for anything but a list of them."""
    found = bounded_json.loads(stored.encode(), items=MOST_NUMBERS, depth=1)
    if not isinstance(found, list) or not all(type(number) is int and 0 <= number < 1 << 62 for number in found):
        raise ValueError("not a list of numbers")
    return tuple(found)


def unreachable(db: Database, heads: Sequence[tuple[int, int]]) -> list[tuple[int, int, list[int]]]:
    """Of each of these sessions that has some, itself, its last commit and its unreachable components."""
    found = ((session, head, unreachable_components(db, session)) for session, head in heads)
    return [entry for entry in found if entry[2]]


def unreachable_components(db: Database, session: int) -> list[int]:
    """Rows of live components that no live name leads to: left when a name that could not be loaded was replaced.

    None of a session in which anything is damaged: who knows where its names led.
    """
    rows = _Set()
    names = _names(db, session, rows)
    parts = _components(db, session, rows)
    if rows.damaged:
        return []
    holder = {root: part for part in parts for root in part.roots}
    work = [root for root, *_ in names.values.values()]
    seen: set[int] = set()
    while work:
        part = holder.get(work.pop())
        if part is not None and part.row not in seen:
            seen.add(part.row)
            work.extend(part.references)
    return [part.row for part in parts if part.row not in seen]
