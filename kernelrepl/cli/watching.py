"""Watch what runs in a session, whoever runs it: `watch`."""

from __future__ import annotations

from typing import Any

import click

from kernelrepl.cli import lists
from kernelrepl.cli.base import session_argument
from kernelrepl.cli.calls import Caller, Piece
from kernelrepl.cli.running import Printer
from kernelrepl.cli.terminal import remarked, say
from kernelrepl.outputs.terminal_text import said


@click.command()
@session_argument
def watch(session_id: str) -> None:
    """Show what runs in a session as it runs, whoever runs it: an agent, a notebook, a script. Ctrl-C ends it.

    Only this ends: what runs goes on.
    """
    number: int | None = None
    say(f"watching {session_id}; Ctrl-C ends this", err=True)
    with Caller(operator=True, live=True) as keeper:
        while True:
            number = _one(keeper, session_id, number)


def _one(keeper: Caller, session_id: str, number: int | None) -> int:
    """Show the next execution, and return its number."""
    printer = Printer()
    told: list[dict[str, Any]] = []

    def begin(entry: dict[str, Any]) -> None:
        nonlocal printer
        if told:  # the keeper has ended meanwhile, and this is another one
            printer.close()
            printer = Printer()
        told.append(entry)
        _head(entry)

    def show(pieces: list[Piece]) -> None:
        printer.show(pieces)

    after: dict[str, Any] = {} if number is None else {"number": number}
    try:
        reply = keeper.call("keeper_watch", show=show, begin=begin, session_id=session_id, **after)
        entry: dict[str, Any] = reply.structured["execution"]
        if not told or told[-1]["number"] != entry["number"]:
            begin(entry)
        printer.finish(reply.pieces)
        for line in reply.remarks:
            printer.remark(remarked(line))
        printer.remark(said(entry["status"], f"in {lists.duration(entry['duration_s'])}"))
    finally:
        printer.close()
    return int(reply.structured["number"])


def _head(entry: dict[str, Any]) -> None:
    say(said("began", f"{lists.local(entry['started_at'])} by {entry['by']}"), err=True)
    for line in str(entry["code"]).splitlines():
        say(said("code", line), err=True)
