"""This module has the options that commands share, and what several of them ask the keeper for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from kernelrepl.cli.calls import Reply, tool
from kernelrepl.cli.terminal import say, say_json
from kernelrepl.errors import KernelReplError


def _matching(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The sessions whose name begins like this, for a shell that completes it."""
    try:
        found = tool("python_list_sessions", start=False, contains=incomplete, limit=200).structured["sessions"]
    except KernelReplError:
        return []
    return [entry["session_id"] for entry in found if entry["session_id"].startswith(incomplete)]


session_argument = click.argument("session_id", shell_complete=_matching)
session_option = functools.partial(click.option, "-s", "--session", "session_id", shell_complete=_matching)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


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


def print_text(reply: Reply) -> None:
    say(reply.text)


def print_reply(reply: Reply, *, as_json: bool) -> None:
    """Print the fields of a reply as JSON, or else its text."""
    if as_json:
        say_json(reply.structured)
    else:
        say(reply.text)
