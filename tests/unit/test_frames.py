"""The table of the channel's frames: every frame is made by it, and what does not fit is refused."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from kernelrepl.guest import frames, wire
from kernelrepl.guest.frames import BYTES, EITHER, FILE, FRAMES, KEEPER, KERNEL

ROOT = Path(frames.__file__).parents[1]
FITS: dict[str, list[Any]] = {
    "a number": [-5, 0],
    "a count": [0, 3],
    "a text": ["", "\udc80"],
    "true or false": [True, False],
    "a table": [{}, {"x": 1}],
    "a list": [[], ["x"]],
    "a list of numbers": [[1], [3, -2]],
    "a table or a list": [{}, []],
}
"""Values of each kind."""
NEVER = [1.5, object(), (1,)]
"""Values of no kind."""
FIELDS = [(frame, name) for frame in FRAMES.values() for name in frame.fields]
NAMES = [f"{frame.type}.{name}" for frame, name in FIELDS]


def values(kind: frames.Kind) -> list[Any]:
    """Some that fit."""
    name, null, _ = kind.name.partition(" or null")
    return [*FITS[name], None] if null else FITS[name]


def of(frame: frames.Frame, which: int = 0) -> dict[str, Any]:
    """The header of a frame, as the other end gets it."""
    header = frames.build(frame.type, **{name: values(kind)[which] for name, kind in frame.fields.items()})
    return {**header, "file": 7} if frame.carries == FILE else header


def sender(frame: frames.Frame) -> str:
    return KERNEL if frame.sender == EITHER else frame.sender


@pytest.mark.parametrize("frame", FRAMES.values(), ids=list(FRAMES))
def test_a_frame_that_is_built_is_accepted(frame: frames.Frame) -> None:
    """From the end that sends it, and no other; with bytes if it carries some."""
    for which in (0, 1):
        frames.check(of(frame, which), sender(frame))
    if frame.sender != EITHER:
        with pytest.raises(wire.WireError, match="unexpected frame"):
            frames.check(of(frame), KEEPER if frame.sender == KERNEL else KERNEL)
    if frame.carries == BYTES:
        frames.check(of(frame), sender(frame), 3)
    else:
        with pytest.raises(wire.WireError, match="carries bytes"):
            frames.check(of(frame), sender(frame), 3)


@pytest.mark.parametrize(("frame", "name"), FIELDS, ids=NAMES)
def test_a_frame_without_one_of_its_fields_is_refused(frame: frames.Frame, name: str) -> None:
    """Unless that may be missing. Nobody builds such a frame either."""
    header = {key: value for key, value in of(frame).items() if key != name}
    fields = {key: value for key, value in header.items() if key in frame.fields}
    if not frame.fields[name].is_required:
        frames.check(header, sender(frame))
        assert frames.build(frame.type, **fields) == header
        return
    with pytest.raises(wire.WireError, match="other fields"):
        frames.check(header, sender(frame))
    with pytest.raises(TypeError):
        frames.build(frame.type, **fields)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=list(FRAMES))
def test_a_frame_with_another_field_is_refused(frame: frames.Frame) -> None:
    """Nobody builds one either."""
    header = of(frame)
    with pytest.raises(wire.WireError, match="other fields"):
        frames.check({**header, "more": 1}, sender(frame))
    with pytest.raises(TypeError):
        frames.build(frame.type, **{name: header[name] for name in frame.fields}, more=1)


@pytest.mark.parametrize(("frame", "name"), FIELDS, ids=NAMES)
def test_a_field_has_values_of_its_kind_only(frame: frames.Frame, name: str) -> None:
    """Everything that fits another kind is tried, and what fits none."""
    kind = frame.fields[name]
    fitting = values(kind)
    others = [value for kind in FITS.values() for value in kind] + [None, *NEVER]
    refused = 0
    for value in others:
        header = {**of(frame), name: value}
        if any(type(value) is type(one) and value == one for one in fitting):
            frames.check(header, sender(frame))
        elif not kind.fits(value):
            refused += 1
            with pytest.raises(wire.WireError, match=rf"'{name}' is not {kind.name}"):
                frames.check(header, sender(frame))
    assert refused >= len(NEVER)


@pytest.mark.parametrize(
    ("type_", "name", "value"),
    [
        ("commit", "outputs_bytes", wire.MAX_OUTPUTS_BYTES + 1),
        ("commit", "missed", 1 << 62),
        ("commit", "commit", True),
        ("commit", "names", dict.fromkeys(map(str, range(wire.MAX_NAMES + 1)))),
        ("commit", "deleted", ["x"] * (wire.MAX_NAMES + 1)),
        ("commit", "closed", [1] * (wire.MAX_COMPONENTS + 1)),
        ("emptied", "slot", wire.SLOTS),
        ("emptied", "slot", False),
        ("want", "components", []),
        ("want", "components", [True]),
        ("want", "components", ["1"]),
    ],
)
def test_what_is_out_of_bounds_is_refused(type_: str, name: str, value: Any) -> None:
    """Whatever a kernel says; true is no number."""
    with pytest.raises(wire.WireError, match=f"malformed frame '{type_}'"):
        frames.check({**of(FRAMES[type_]), name: value}, KERNEL)


def test_a_frame_that_is_not_in_the_table_is_refused() -> None:
    """Its type is told, but not all of a long one."""
    with pytest.raises(wire.WireError, match=r"^unexpected frame 'x{39}$"):
        frames.check({"type": "x" * 100}, KERNEL)


def test_every_frame_is_made_by_the_table() -> None:
    """Each type of it somewhere, and none by hand. What a zygote and its keeper say is no frame of the channel."""
    built, by_hand = set(), set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "frames.build":
                built.add(ast.literal_eval(node.args[0]))
            elif isinstance(node, ast.Dict):
                said = dict(zip((key and ast.unparse(key) for key in node.keys), node.values, strict=True))
                type_ = said.get("'type'")
                if isinstance(type_, ast.Constant) and type_.value in FRAMES:
                    by_hand.add((path.relative_to(ROOT).as_posix(), type_.value))
    assert built == FRAMES.keys() - {"part"}
    assert {entry for entry in by_hand if not entry[0].endswith("zygote.py")} == {("guest/wire.py", "part")}
