"""All frames of the channel between a kernel and its keeper: who sends each, when, and what it says.

Both ends make the frames that they send with `build`, and pass those that they receive through `check`. A kernel is
not trusted, so the keeper does nothing with a frame of it before that. What lies within a table or list (the
components of a commit, say) is checked where it is taken apart. docs/protocol.md shows `FRAMES` to people.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kernelrepl.guest import wire

KERNEL = "kernel"
KEEPER = "keeper"
EITHER = "either"
"""Who sends a frame."""

BYTES = "bytes"
FILE = "a file"
NOTHING = "nothing"
"""What a frame carries beside its header."""


class Kind(NamedTuple):
    """The values that a field may have."""

    name: str
    fits: Callable[[Any], bool]
    is_required: bool = True


def _count(most: int = (1 << 62) - 1) -> Kind:
    return Kind("a count", lambda value: type(value) is int and 0 <= value <= most)


def _table(most: int) -> Kind:
    return Kind("a table", lambda value: type(value) is dict and len(value) <= most)


def _list(most: int) -> Kind:
    return Kind("a list", lambda value: type(value) is list and len(value) <= most)


def _or_null(kind: Kind) -> Kind:
    return Kind(f"{kind.name} or null", lambda value: value is None or kind.fits(value))


def _are_numbers(value: Any) -> bool:
    return type(value) is list and bool(value) and all(type(entry) is int for entry in value)


# What has no bound here has one if a kernel says it: that of its header. Texts are cut where they are used.
_NUMBER = Kind("a number", lambda value: type(value) is int)
_NUMBERS = Kind("a list of numbers", _are_numbers)
_TEXT = Kind("a text", lambda value: type(value) is str)
_FLAG = Kind("true or false", lambda value: type(value) is bool)
_TABLE = Kind("a table", lambda value: type(value) is dict)
_LIST = Kind("a list", lambda value: type(value) is list)
_PART = Kind("a table or a list", lambda value: type(value) in (dict, list))


class Frame(NamedTuple):
    """One type of frame."""

    type: str
    sender: str
    when: str
    fields: dict[str, Kind]
    carries: str = NOTHING


_ALL = (
    # The start
    Frame("confine", KEEPER, "first of all", {"plan": _or_null(_TABLE)}),
    Frame("forked", KERNEL, "when the process that will run code exists, in tier 1", {"pid": _count()}),
    Frame(
        "refused", KERNEL, "if it could not be confined", {"step": _TEXT, "errno": _NUMBER, "reason": _TEXT}
    ),
    Frame(
        "hello", KERNEL, "when it is confined",
        {"protocol": _NUMBER, "pid": _NUMBER, "python": _TEXT, "packages": _TABLE},
    ),
    Frame(
        "start", KEEPER, "as the answer to `hello`",
        {
            "connection": _TABLE, "workspace": _TEXT, "confined": _FLAG, "durable": _FLAG,
            "most_file_bytes": _or_null(_count()), "limits": _TABLE, "names": _TABLE, "stories": _TABLE,
            "execution_count": _count(), "components": _LIST, "later": _LIST, "packages": _TABLE,
        },
        FILE,
    ),
    Frame("loading", KERNEL, "before it loads a component", {"component": _NUMBER}),
    Frame("loaded", KERNEL, "after it has loaded one, or all at the start", {"not_restored": _LIST}),
    Frame("ready", KERNEL, "at the end of the start", {"restored": _LIST, "not_restored": _LIST}),
    Frame("adopt", KEEPER, "when a kernel on standby gets a session", {"durable": _FLAG, "limits": _TABLE}),
    Frame("adopted", KERNEL, "as the answer to `adopt`", {}),
    # An execution
    Frame("begin", KERNEL, "before it runs a cell", {"request": _TEXT}),
    Frame("stage", KERNEL, "before a commit with large components", {"component": _NUMBER}, BYTES),
    Frame(
        "commit", KERNEL, "after a cell, and after an audit that has found something",
        {
            "commit": _count(), "cause": _TEXT, "request": _TEXT, "outcome": _or_null(_TABLE),
            "outputs_bytes": _count(wire.MAX_OUTPUTS_BYTES), "names": _table(wire.MAX_NAMES),
            "unsaved": _table(wire.MAX_NAMES), "deleted": _list(wire.MAX_NAMES),
            "components": _list(wire.MAX_COMPONENTS), "closed": _list(wire.MAX_COMPONENTS), "magic": _TEXT,
            "failure": _or_null(_TEXT), "missed": _count(), "saved": _TABLE,
        },
        BYTES,
    ),
    Frame(
        "committed", KEEPER, "as the answer to `commit`: the commit is in the store, or the reason why not",
        {"commit": _count(), "reason": _or_null(_TEXT)},
    ),
    Frame("audit", KEEPER, "before it stops a kernel", {}),
    Frame("audited", KERNEL, "when an audit is over", {}),
    # What waits until it is needed
    Frame("want", KERNEL, "when it needs components that wait", {"components": _NUMBERS}),
    Frame("data", KEEPER, "as the answer to `want`", {"components": _LIST}),
    Frame(
        "piece", KEEPER, "when a slot of the window is full",
        {"slot": _count(wire.SLOTS - 1), "size": _count(wire.SLOT_BYTES), "damaged": _FLAG._replace(is_required=False)},
    ),
    Frame("emptied", KERNEL, "when it has read a slot", {"slot": _count(wire.SLOTS - 1)}),
    # Packages of the session
    Frame("install", KERNEL, "when code asks for packages", {"request": _count(), "names": _list(100)}),
    Frame(
        "installed", KEEPER, "as the answer to `install`, and when a person has installed some",
        {"request": _count(), "layer": _or_null(_count()), "packages": _LIST, "reason": _or_null(_TEXT)},
    ),
    # Long headers
    Frame(
        "part", EITHER, "before a frame whose header would be too long",
        {"of": _TEXT, "path": _LIST, "value": _PART},
    ),
    # The trial of the sandbox
    Frame("try", KEEPER, "after `confine`, to a process that only tries the sandbox", {"targets": _TABLE}),
    Frame("tried", KERNEL, "as the answer to `try`", {"landlock": _count(), "acts": _TABLE}),
)  # fmt: skip
FRAMES: dict[str, Frame] = {frame.type: frame for frame in _ALL}


class _Checked(NamedTuple):
    """What `build` and `check` need of one type, made once: they are called for every frame."""

    sender: str
    required: frozenset[str]
    known: frozenset[str]
    tests: tuple[tuple[str, Callable[[Any], bool]], ...]
    """Of each field that is required, whether a value fits."""
    optional: tuple[tuple[str, Callable[[Any], bool]], ...]
    has_bytes: bool


def _checked(frame: Frame, of_framing: frozenset[str]) -> _Checked:
    tests = tuple((name, kind.fits) for name, kind in frame.fields.items() if kind.is_required)
    optional = tuple((name, kind.fits) for name, kind in frame.fields.items() if not kind.is_required)
    required = of_framing.union(name for name, _ in tests)
    return _Checked(frame.sender, required, of_framing | frame.fields.keys(), tests, optional, frame.carries == BYTES)


_OF_FRAMING = {BYTES: frozenset({"type"}), NOTHING: frozenset({"type"}), FILE: frozenset({"type", "file"})}
_BUILT = {frame.type: _checked(frame, frozenset()) for frame in _ALL}
_RECEIVED = {frame.type: _checked(frame, _OF_FRAMING[frame.carries]) for frame in _ALL}


def build(type_: str, /, **fields: Any) -> dict[str, Any]:
    """Return the header of a frame. Raises TypeError if these are not its fields."""
    frame, keys = _BUILT[type_], fields.keys()
    if keys != frame.required and not frame.required <= keys <= frame.known:
        raise TypeError(f"the fields of {type_!r} are {', '.join(FRAMES[type_].fields) or 'none'}")
    return {"type": type_, **fields}


def check(header: dict[str, Any], sender: str, payload_bytes: int = 0) -> None:
    """Refuse a frame that its sender may not send, or that is not as the table says. Raises wire.WireError."""
    type_ = header["type"]
    frame = _RECEIVED.get(type_)
    if frame is None or (frame.sender != sender and frame.sender != EITHER):
        raise wire.WireError(f"unexpected frame {type_!r:.40}")
    keys = header.keys()
    if keys != frame.required and not frame.required <= keys <= frame.known:
        raise wire.WireError(f"malformed frame {type_!r}: it has other fields")
    for name, fits in frame.tests:
        if not fits(header[name]):
            raise _unfit(type_, name)
    for name, fits in frame.optional:
        if name in header and not fits(header[name]):
            raise _unfit(type_, name)
    if payload_bytes and not frame.has_bytes:
        raise wire.WireError(f"malformed frame {type_!r}: it carries bytes")


def _unfit(type_: str, name: str) -> wire.WireError:
    return wire.WireError(f"malformed frame {type_!r}: {name!r} is not {FRAMES[type_].fields[name].name}")
