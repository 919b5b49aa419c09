"""This module has what the commands share: calls to the keeper, options, and output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from kernelrepl.errors import KernelReplError
from kernelrepl.outputs.terminal_text import safe

T = TypeVar("T")
FAILED = 1
CODE_FAILED = 2


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run and unwrap: task groups wrap what their body raises."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        ours = group.subgroup(KernelReplError)
        if ours is None:
            raise
        error: BaseException = ours
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


async def tool(name: str, *, operator: bool = False, start: bool = True, **arguments: Any) -> Any:
    from kernelrepl.client import connection

    async with connection.connect(operator=operator, start=start) as keeper:
        return await connection.call(keeper, name, **arguments)


def written() -> list[str]:
    """Where sessions may write: there no link is followed to a file of the person's."""
    found: list[str] = run(tool("keeper_written", operator=True)).structured_content["result"]
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


def print_text(result: Any) -> None:
    say("\n".join(block.text for block in result.content if block.type == "text"))
