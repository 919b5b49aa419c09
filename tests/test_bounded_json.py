"""JSON of a kernel is counted before it is decoded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl import bounded_json
from kernelrepl.bounded_json import TooMuch

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


@pytest.mark.parametrize(
    "body", [b"", b"{", b'"' * PAD, b'"' * (PAD + 1), b"\xff" * PAD, b"[1,]", b"]" * PAD, b'"' + b'\\"' * 10**7]
)
def test_what_is_not_json_is_a_value_error(body: bytes) -> None:
    """And nothing else."""
    with pytest.raises(ValueError):
        bounded_json.loads(body)
