"""What `python -m tests.replies` counts and marks; that command alone asks the libraries themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.replies.__main__ import TAP, column_of
from tests.replies.cells import CELLS, calls
from tests.replies.comparison import Column, outcome, table

TEXT = {"type": "text", "text": 'one\n"two"'}
IMAGE = {"type": "image", "data": "aW1hZ2U=", "mimeType": "image/png"}
LINK = {"type": "resource_link", "uri": "kernelrepl://executions/1/stdout", "name": "whole stdout"}
REPLY = {"content": [TEXT, IMAGE, IMAGE, LINK]}
WHOLE = {"texts": [TEXT["text"], json.dumps(LINK)], "images": [IMAGE["data"]] * 2, "fields": "", "urls": []}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({}, ""),
        ({"texts": [json.dumps(TEXT), json.dumps(LINK)]}, "t"),
        ({"texts": [TEXT["text"]], "urls": [LINK["uri"]]}, "l"),
        ({"images": [IMAGE["data"]]}, "i"),
        ({"images": [IMAGE["data"], "b3RoZXI="]}, "i"),
        ({"texts": [], "images": [], "fields": json.dumps(REPLY)}, "til"),
    ],
)
def test_what_a_host_does_not_hand_out_is_marked(change: dict[str, Any], lost: str) -> None:
    """A text that is escaped, one of two images that are equal, a link, or all of it."""
    assert outcome("cell", REPLY, {**WHOLE, **change}).lost == lost


def test_the_table_counts_what_reaches_a_model_and_explains_what_does_not() -> None:
    """Calls that prepare a cell have no row, and a host that could not be asked has no column."""
    replies = [{"client": "x", "tool": call["tool"], "reply": REPLY} for _, call in calls()]
    blind: dict[str, Any] = {**WHOLE, "images": []}
    first = next(at for at, (cell, _) in enumerate(calls()) if cell is not None)
    longer = [*replies]
    longer[first] = {**replies[first], "reply": {"content": [*REPLY["content"], {"type": "text", "text": "o"}]}}
    hosts = [
        column_of(name, {"version": "1", "seen": [seen for _ in replies]}, noted)
        for name, seen, noted in (("good", WHOLE, replies), ("blind", blind, longer))
    ]
    assert [each.cell for each in hosts[0].outcomes] == [cell.name for cell in CELLS]
    shown = table([*hosts, Column("gone", trouble="could not be installed")])
    sums = [line.split() for line in shown.splitlines() if line.startswith("all: ")]
    assert [line[-2:] for line in sums][2:] == [[str(2 * len(CELLS)), "0"], ["0", str(len(CELLS))]]
    assert "i  blind: the image is not whole in: numbers, prints" in shown
    assert "numbers: the server did not send each host the same: [9, 10] characters" in shown
    assert shown.count("the server did not send") == 1
    assert "gone: could not be installed" in shown


def test_the_tap_passes_every_line_on_and_notes_replies(tmp_path: Path) -> None:
    """To the byte, with the name of the client in both ways of opening, and nothing of what is no call of a tool."""
    server = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'method': 'notifications/message', 'params': {}}))\n"
        "    print(json.dumps({'id': json.loads(line)['id'], 'result': {'of': line}}), flush=True)\n"
    )
    about = {"name": "a host", "version": "1"}
    lines = [
        {"id": 1, "method": "initialize", "params": {"clientInfo": about}},
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "python_repl", "arguments": {"code": "é"}}},
        {"id": "4", "method": "tools/call", "params": {"name": "python_wait"}},
    ]
    record = tmp_path / "record"
    asked = "".join(json.dumps(line) + "\n" for line in lines)
    command = [sys.executable, "-c", server]
    plain, tapped = (
        subprocess.run(each, input=asked, capture_output=True, text=True, check=True, timeout=60).stdout
        for each in (command, [sys.executable, str(TAP), str(record), *command])
    )
    assert tapped == plain
    noted = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(each["client"], each["tool"]) for each in noted] == [("a host", "python_repl"), ("a host", "python_wait")]
    assert [json.loads(each["reply"]["of"])["id"] for each in noted] == [3, "4"]
