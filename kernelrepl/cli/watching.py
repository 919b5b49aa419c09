"""Watch what runs in a session, whoever runs it: `watch`."""

from __future__ import annotations

from typing import Any

import click

from kernelrepl.cli import lists
from kernelrepl.cli.base import session_argument
from kernelrepl.cli.calls import Caller, Piece
from kernelrepl.cli.running import Printer
from kernelrepl.cli.terminal import say, worded


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
        told.append(entry)
        _head(entry)

    def show(pieces: list[Piece]) -> None:
        printer.show(pieces)

    after: dict[str, Any] = {} if number is None else {"number": number}
    reply = keeper.call("keeper_watch", show=show, begin=begin, session_id=session_id, **after)
    entry: dict[str, Any] = reply.structured["execution"]
    if not told:
        _head(entry)
    printer.finish(reply.pieces)
    for line in reply.remarks:
        printer.remark(worded(line))
    printer.remark(f"── {entry['status']} in {lists.duration(entry['duration_s'])}")
    return int(reply.structured["number"])


def _head(entry: dict[str, Any]) -> None:
    say(f"── {lists.local(entry['started_at'])} by {entry['by']}", err=True)
    for line in str(entry["code"]).splitlines():
        say(f">>> {line}", err=True)
