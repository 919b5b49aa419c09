"""The picture of the README shows what the commands print."""

from __future__ import annotations

from tests import picture


def test_the_picture_is_what_the_commands_print(environ: dict[str, str]) -> None:
    """Made anew, it is the same; `python -m tests.picture` writes it."""
    assert picture.svg(picture.record(environ)) == picture.PICTURE.read_text()
