"""All commands with their options. Those of this module are the ones that are typed most."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

import click

from kernelrepl import __version__, discovery
from kernelrepl.cli import lists, running
from kernelrepl.cli.base import as_json, given, paged, print_text, session_argument, session_option, written
from kernelrepl.cli.calls import Reply, tool
from kernelrepl.cli.terminal import CANNOT_RUN, FAILED, INTERRUPTED, answer, say
from kernelrepl.errors import CopyFailed, NoKeeper
from kernelrepl.validation import check_session_id

STOP_TIMEOUT_S = 20.0
_SECONDS = click.FloatRange(min=0, min_open=True)
_MEANT = {
    "export": "write it to a file with -o FILE",
    "stop": "it stops the keeper; `interrupt NAME` stops what runs in a session, `delete NAME` removes it",
    "sessions": "`variables NAME` and `log NAME` show one of them",
    "exec": "quote the code as one argument, and give the session with -s NAME",
}
"""What is probably meant by an argument too many."""


class Commands(click.Group):
    """This group has the commands of this module, and loads all others when somebody asks for one of them.

    What people and scripts type most has to start fast.
    """

    def load_all(self) -> None:
        """Add the commands of the other modules."""
        from kernelrepl.cli import attaching, files, hosts, kernelspecs, notebooks, origin, packages, status, watching

        for command in (
            hosts.install,
            attaching.attach, attaching.connection_file, attaching.kernel, attaching.trust, files.get, files.grant,
            files.put, files.workspace, hosts.configure, kernelspecs.kernelspec, notebooks.export, notebooks.import_,
            origin.import_origin, packages.packages,
            status.doctor, status.status, watching.watch,
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
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__)
def cli() -> None:
    """Empty: the group only holds the commands."""


# Running code


@cli.command("exec")
@click.argument("code", required=False, metavar="[CODE | FILE.py | -]")
@session_option(default=None, help="Keep the state under this name; without it, nothing is kept.")
@click.option("-f", "--file", default=None, help="Run this file, whatever its name.")
@click.option("--timeout", type=_SECONDS, default=None, help="Interrupt the code after this many seconds.")
@click.option("-d", "--detach", is_flag=True, help="Return at once; `kernelrepl wait` collects the outcome.")
@click.option(
    "--save-figures", type=click.Path(file_okay=False, path_type=Path), default=None, help="Write figures here."
)
@as_json
def execute(
    code: str | None,
    session_id: str | None,
    file: str | None,
    timeout: float | None,
    detach: bool,
    save_figures: Path | None,
    as_json: bool,
) -> None:
    """Run Python code, a file or standard input, and print what it shows as it comes.

    Results and output go to stdout; errors, and what there is to say of the session, to stderr. Exits with 1 if the
    code raised, with n after `sys.exit(n)`, with 124 if it was timed out, with 137 if its kernel died, with 130 after
    Ctrl-C, and with 125 if it could not be run.
    """
    if detach and session_id is None:
        raise click.UsageError("--detach needs -s NAME: without a session, nobody could ask for the outcome")
    if file is not None and code is not None:
        raise click.UsageError("give code or --file, not both")
    try:
        source = running.source_of(code, file)
    except (OSError, UnicodeDecodeError) as error:
        say(f"kernelrepl: '{file or code}' cannot be read: {error}; name a file with Python code", err=True)
        sys.exit(CANNOT_RUN)
    save = None if save_figures is None else lambda reply: _save_figures(reply, save_figures)
    sys.exit(running.run(source, session_id, timeout=timeout, detach=detach, as_json=as_json, save_figures=save))


def _save_figures(reply: Reply, directory: Path) -> None:
    if not reply.images:
        return
    from kernelrepl.cli.figures import write_figures

    places = written()
    try:
        paths = write_figures(reply.images, directory, "figure", places)
    except OSError as error:
        raise CopyFailed(str(directory), f"takes no figures: {error.strerror}", "give another place") from error
    for path in paths:
        say(f"figure: {path}", err=True)


@cli.command()
@session_argument
@click.option("--timeout", type=click.FloatRange(min=0), help="Give up after this many seconds; the code goes on.")
@as_json
def wait(session_id: str, timeout: float | None, as_json: bool) -> None:
    """Wait for the code that runs in a session, and print all that it shows. Exits as `exec` would.

    If nothing runs, the outcome of the last code is printed.
    """
    sys.exit(running.wait(session_id, timeout=timeout, as_json=as_json))


@cli.command()
@session_argument
@click.option("--force", is_flag=True, help="End the kernel at once; the next code restores what is saved.")
@as_json
def interrupt(session_id: str, force: bool, as_json: bool) -> None:
    """Interrupt the code that runs in a session, and print what came of it. Its changes until then are kept."""
    sys.exit(running.interrupt(session_id, force=force, as_json=as_json))


# Sessions


@cli.command()
@paged
@as_json
def sessions(as_json: bool, **page: Any) -> None:
    """List the sessions, the latest used first."""
    lists.sessions(as_json=as_json, **given(page))


@cli.command()
@session_argument
@paged
@as_json
def variables(session_id: str, as_json: bool, **page: Any) -> None:
    """List the variables of a session."""
    lists.variables(session_id, as_json=as_json, **given(page))


@cli.command()
@session_argument
@click.option("-n", "count", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@as_json
def log(session_id: str, count: int, as_json: bool) -> None:
    """Show what ran in a session last: the code, when, by whom, how it ended, and what was saved."""
    lists.log(session_id, count=count, as_json=as_json)


_YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def _ask(question: str) -> None:
    """Raises click.Abort for any answer but yes."""
    said = answer(f"{question} [y/N]: ")
    if not said:
        say("\nnobody has answered; --yes does in a script", err=True)
    if said.strip().lower() not in ("y", "yes"):
        raise click.Abort


@cli.command()
@session_argument
@_YES
def clear(session_id: str, yes: bool) -> None:
    """Remove all variables of a session. Its files and its history stay."""
    if not yes:
        _ask(f"Remove all variables of {check_session_id(session_id)}?")
    print_text(tool("python_clear_session", session_id=session_id))


@cli.command()
@session_argument
@click.argument("new_id")
def rename(session_id: str, new_id: str) -> None:
    """Give a session another name. Its variables, history, files and kernel stay."""
    print_text(tool("keeper_rename_session", operator=True, session_id=session_id, new_id=new_id))


@cli.command()
@session_argument
@_YES
def delete(session_id: str, yes: bool) -> None:
    """Delete a session for good."""
    if not yes:
        _ask(f"Delete {check_session_id(session_id)} with its variables, history and files?")
    print_text(tool("python_delete_session", session_id=session_id))


# The keeper


@cli.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask, even if code runs.")
def stop(yes: bool) -> None:
    """Stop the keeper; the sessions stay. It asks first if code runs, which is interrupted by this."""
    found = discovery.read_keeper(discovery.data_dir(os.environ))
    try:
        busy = tool("keeper_status", operator=True, start=False).structured["busy"]
        if busy and not yes:
            _ask(f"Code runs in {', '.join(busy)}, and would be stopped. Stop?")
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
    """Parse the command line of this process and run it. Raises KernelReplError."""
    try:
        cli(prog_name="kernelrepl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        context = error.ctx if isinstance(error, click.UsageError) else None
        if context and "extra argument" in error.message and context.info_name in _MEANT:
            say(f"{context.info_name}: {_MEANT[context.info_name]}", err=True)
        return error.exit_code
    except click.Abort as abort:
        return INTERRUPTED if isinstance(abort.__cause__, KeyboardInterrupt) else FAILED
    return 0
