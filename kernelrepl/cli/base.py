"""This module has what the commands share: options and output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from kernelrepl.cli.calls import Reply, tool
from kernelrepl.outputs.terminal_text import safe

FAILED = 1
CODE_FAILED = 2
INTERRUPTED = 130
"""By Ctrl-C, as shells have it."""


def written() -> list[str]:
    """Where sessions may write: there no link is followed to a file of the person's."""
    found: list[str] = tool("keeper_written", operator=True).structured["result"]
    return found


def paged(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that prints a list."""
    for option in (
        click.option("--cursor", default=None, help="Show the page at this cursor, which the page before prints."),
        click.option("--limit", type=int, default=None, help="Show this many entries, at most 1000."),
        click.option("--contains", default=None, help="Show only names that contain this text, ignoring case."),
    ):
        command = option(command)
    return command


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given: what a tool takes for the others is its own affair."""
    return {name: value for name, value in options.items() if value is not None}


def say(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print for a person, whose terminal obeys nothing of it."""
    click.echo(safe(str(text)), err=err, nl=nl)


def print_text(reply: Reply) -> None:
    say(reply.text)
