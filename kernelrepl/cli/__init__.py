"""This package is the command line. It starts each of the servers; only it prints for people."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from kernelrepl import __version__, discovery
from kernelrepl.cli.base import CODE_FAILED, FAILED, INTERRUPTED, given, paged, print_text, say, written
from kernelrepl.cli.calls import Caller, Reply, tool
from kernelrepl.errors import CopyFailed, KernelReplError, NoKeeper

STOP_TIMEOUT_S = 20.0


class Commands(click.Group):
    """This group has the commands of this module, and loads all others when somebody asks for one of them.

    What people and scripts type most has to start fast.
    """

    def load_all(self) -> None:
        """Add the commands of the other modules."""
        from kernelrepl.cli import attaching, files, hosts, kernelspecs, notebooks, packages, status

        for command in (
            hosts.install,
            attaching.attach, attaching.connection_file, attaching.kernel, attaching.trust, files.get, files.grant,
            files.put, files.workspace, hosts.configure, kernelspecs.kernelspec, notebooks.export, notebooks.import_,
            packages.packages,
            status.doctor, status.status,
        ):  # fmt: skip
            self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        self.load_all()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None if there is none of this name."""
        if cmd_name not in self.commands:
            self.load_all()
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=Commands,
    help=f"kernelrepl {__version__}: Python sessions that survive. Without a command, it is an MCP server on stdio.",
)
@click.version_option(__version__)
def cli() -> None:
    """Empty: the group only holds the commands."""


@cli.command("exec")
@click.argument("code", required=False)
@click.option(
    "-s", "--session", "session_id", default=None, help="Keep the state under this name; without it, nothing is kept."
)
@click.option("--timeout", type=float, default=None, help="Interrupt the code after this many seconds.")
@click.option(
    "--save-figures", type=click.Path(file_okay=False, path_type=Path), default=None, help="Write figures here."
)
@click.option("--json", "as_json", is_flag=True, help="Print the structured result.")
def execute(
    code: str | None, session_id: str | None, timeout: float | None, save_figures: Path | None, as_json: bool
) -> None:
    """Run CODE (or standard input) and print its output. Exits with 2 if the code failed, with 130 after Ctrl-C."""
    source = sys.stdin.read() if code is None or code == "-" else code
    reply, interrupted = _execute(source, session_id, timeout)
    if save_figures is not None:
        from kernelrepl.cli.figures import write_figures

        places = written()
        try:
            paths = write_figures(reply.images, save_figures, "figure", places)
        except OSError as error:
            raise CopyFailed(str(save_figures), f"takes no figures: {error.strerror}", "give another place") from error
        for path in paths:
            say(f"figure: {path}", err=True)
    if as_json:
        say(json.dumps(reply.structured, indent=2))
    else:
        print_text(reply)
    if interrupted:
        sys.exit(INTERRUPTED)
    if reply.structured["status"] != "ok":
        sys.exit(CODE_FAILED)


def _execute(source: str, session_id: str | None, timeout: float | None) -> tuple[Reply, bool]:
    """Run code, and return its outcome and whether Ctrl-C has ended it. Raises KeyboardInterrupt without a session."""
    with Caller() as keeper:
        try:
            options = given({"session_id": session_id, "timeout": timeout})
            return keeper.call("python_repl", code=source, wait=3600, **options), False
        except KeyboardInterrupt:
            if session_id is None:
                raise
    # The code is being interrupted: what it has shown until then is worth having.
    return tool("python_wait", session_id=session_id), True


@cli.command()
@paged
def sessions(**page: Any) -> None:
    """List the sessions, the latest used first."""
    print_text(tool("python_list_sessions", **given(page)))


@cli.command()
@click.argument("session_id")
@paged
def variables(session_id: str, **page: Any) -> None:
    """List the variables of a session."""
    print_text(tool("python_list_variables", session_id=session_id, **given(page)))


@cli.command()
@click.argument("session_id")
@click.confirmation_option(prompt="Delete the session with its variables, history and files?")
def delete(session_id: str) -> None:
    """Delete a session for good."""
    print_text(tool("python_delete_session", session_id=session_id))


@cli.command()
def stop() -> None:
    """Stop the keeper; the sessions stay."""
    found = discovery.read_keeper(discovery.data_dir(os.environ))
    try:
        print_text(tool("keeper_stop", operator=True, start=False))
    except NoKeeper:
        say("no keeper is running")
        return
    if found is not None:
        discovery.wait_for_end(found["pid"], STOP_TIMEOUT_S)


@cli.command()
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("kernelrepl-demo"),
    help="Directory for the figures.",
    show_default=True,
)
def demo(figures: Path) -> None:
    """Show a session that survives two kills. It analyses a real data set while kernel and keeper are killed."""
    from kernelrepl.cli import demonstration

    sys.exit(demonstration.run(figures))


@cli.command(hidden=True)
@click.option("--ready-fd", type=int, default=None)
def keeper(ready_fd: int | None) -> None:
    """Serve a data directory. Started by whoever needs it."""
    gc.disable()  # until it serves: to look at what is being imported, over and over, takes a seventh of the start
    from kernelrepl.keeper.run import run
    from kernelrepl.mcp.server import ClientHandler

    sys.exit(run(ClientHandler(), ready_fd))


def main() -> int:
    try:
        cli(prog_name="kernelrepl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as abort:
        return INTERRUPTED if isinstance(abort.__cause__, KeyboardInterrupt) else FAILED
    except KernelReplError as error:
        say(f"kernelrepl: {error}", err=True)
        return FAILED
    return 0
