"""The packages of a session: what there is, and what a person adds."""

from __future__ import annotations

import click

from kernelrepl.cli.base import as_json, print_reply, session_argument
from kernelrepl.cli.calls import tool
from kernelrepl.cli.terminal import say
from kernelrepl.validation import check_session_id


@click.command()
@session_argument
@click.argument("words", nargs=-1, metavar="[add NAME...]")
@click.option("--requirements", is_flag=True, help="Print them as a requirements file, with hashes.")
@as_json
def packages(session_id: str, words: tuple[str, ...], requirements: bool, as_json: bool) -> None:
    """List the packages of a session, or install more of them: `packages SESSION add seaborn`."""
    check_session_id(session_id)
    if words:
        if words[0] != "add" or len(words) == 1 or requirements:
            raise click.UsageError("give `add` and the names of packages, or nothing for a list")
        reply = tool("keeper_install", operator=True, session_id=session_id, names=list(words[1:]))
        print_reply(reply, as_json=as_json)
        return
    reply = tool("keeper_packages", operator=True, session_id=session_id)
    if as_json or not requirements:
        print_reply(reply, as_json=as_json)
        return
    for one in reply.structured["packages"]:
        say(" \\\n    ".join([f"{one['name']}=={one['version']}", *(f"--hash={hash_}" for hash_ in one["hashes"])]))
