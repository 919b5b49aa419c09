"""JSON of a kernel is counted before it is decoded."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl import bounded_json
from kernelrepl.bounded_json import _PIECE, TooMuch

PAD = 20_000
"""Longer than what is decoded without a count."""

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(values, st.booleans())
def test_what_is_within_the_limits_is_decoded_as_ever(value: object, long: bool) -> None:
    """Strings full of quotes, commas and brackets are no structure."""
    body = json.dumps([value, '[{",\\' * (PAD if long else 1)]).encode()
    assert bounded_json.loads(body) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 400_000 + b"1]",
        b"[" + b"{}," * 400_000 + b"1]",
        b"[" + b"1," * 400_000 + b"1]",
        b"[" + b'"",' * 400_000 + b"1]",
        b"[" + b'"\\\\",' * 400_000 + b"1]",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[" * 500 + b"]" * 500,
        b'{"a":' * 40 + b"1" + b"}" * 40,
    ],
)
def test_too_much_is_refused_before_it_is_decoded(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is written."""
    if len(body) > PAD:
        monkeypatch.setattr(bounded_json, "json", None)
    with pytest.raises(TooMuch):
        bounded_json.loads(body)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32-le", "utf-32-be", "utf-32", "utf-7"])
@pytest.mark.parametrize("text", ['["\u2200",', '["\u2200\u2222\u2200",', "[["])
def test_other_encodings_hide_nothing(text: str, encoding: str) -> None:
    """In them other letters hold the byte of a quote, behind which nothing is counted as structure."""
    with pytest.raises(ValueError):
        bounded_json.loads((text + "[]," * PAD + "1]").encode(encoding), items=100)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'"' * PAD, b'"' * (PAD + 1), b"\xff" * PAD, b"[1,]", b"]" * PAD, b'"' + b'\\"' * 10**7]
)
def test_what_is_not_json_is_a_value_error(body: bytes) -> None:
    """And nothing else."""
    with pytest.raises(ValueError):
        bounded_json.loads(body)


class Watched(bytes):
    """Knows how far it was looked at."""

    looked = 0

    def count(self, mark: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        self.looked = max(self.looked, len(self) if end is None else end)
        return super().count(mark, start, end)


@pytest.mark.parametrize("entry", [b"[],", b'"",', b'"[],",', b"1,"])
def test_a_text_is_looked_at_no_further_than_to_its_limit(entry: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after it costs nothing, however long it is."""
    ends = []

    class Pieces:
        """The pattern, and where its matches end."""

        @staticmethod
        def match(body: bytes, at: int) -> re.Match[bytes] | None:
            found = _PIECE.match(body, at)
            ends.append(0 if found is None else found.end())
            return found

    monkeypatch.setattr(bounded_json, "_PIECE", Pieces)
    body = Watched(b"[" + entry * 2_000_000 + b"1]")
    with pytest.raises(TooMuch, match="more than 1000 values"):
        bounded_json.check(body, items=1000)
    assert body.looked < len(body) / 2
    assert max(ends) < len(body) / 2


@pytest.mark.parametrize("between", [b"", b'"]",', b'"' + b"x" * 100_000 + b'",', b"1," * 5000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_counted_over_all_of_a_text(between: bytes, brackets: tuple[bytes, bytes]) -> None:
    """However far apart its brackets are, and whatever strings stand between."""
    if brackets[0] != b"[":
        between = b"".join(b'"k%d":%s' % (n, part + b",") for n, part in enumerate(between.split(b",")[:-1]))
    opening = (brackets[0][:1] + between + brackets[0][1:]) if brackets[0] != b"[" else b"[" + between
    pad = b'"' + b'[,\\"' * 5000 + b'"'

    def nested(depth: int) -> bytes:
        return b"[" + b"[]," * 1000 + opening * depth + pad + brackets[1] * depth + b",1]"

    assert json.loads(nested(4))
    bounded_json.check(nested(4), depth=5)
    with pytest.raises(TooMuch, match="nested"):
        bounded_json.check(nested(5), depth=5)
