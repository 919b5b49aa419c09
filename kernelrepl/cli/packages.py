"""The packages of a session: what there is, and what a person adds."""

from __future__ import annotations

import click

from kernelrepl.cli.base import print_text, say
from kernelrepl.cli.calls import tool
from kernelrepl.validation import check_session_id


@click.command()
@click.argument("session_id")
@click.argument("words", nargs=-1, metavar="[add NAME...]")
@click.option("--requirements", is_flag=True, help="Print them as a requirements file, with hashes.")
def packages(session_id: str, words: tuple[str, ...], requirements: bool) -> None:
    """List the packages of a session, or install more of them: `packages SESSION add seaborn`."""
    check_session_id(session_id)
    if words:
        if words[0] != "add" or len(words) == 1 or requirements:
            raise click.UsageError("give `add` and the names of packages, or nothing for a list")
        print_text(tool("keeper_install", operator=True, session_id=session_id, names=list(words[1:])))
        return
    reply = tool("keeper_packages", operator=True, session_id=session_id)
    if not requirements:
        print_text(reply)
        return
    for one in reply.structured["packages"]:
        say(" \\\n    ".join([f"{one['name']}=={one['version']}", *(f"--hash={hash_}" for hash_ in one["hashes"])]))
