"""This package is the command line. It starts each of the servers; only it prints for people."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from kernelrepl import __version__, config, discovery
from kernelrepl.cli import mcp_hosts
from kernelrepl.cli.attaching import attach, connection_file, kernel, trust
from kernelrepl.cli.base import CODE_FAILED, FAILED, given, paged, print_text, run, say, tool, written
from kernelrepl.cli.files import get, grant, put, workspace
from kernelrepl.cli.kernelspecs import kernelspec
from kernelrepl.cli.notebooks import export, import_
from kernelrepl.errors import CopyFailed, KernelReplError, NoKeeper, StorageFailed
from kernelrepl.model import amount, counted
from kernelrepl.workspaces import losses

STOP_TIMEOUT_S = 20.0
_PACKAGES = (
    "mcp",
    "jupyter_client",
    "ipykernel",
    "ipython",
    "pyzmq",
    "cloudpickle",
    "sqlite-utils",
    "blake3",
    "xxhash",
)


@click.group(
    help=f"kernelrepl {__version__}: Python sessions that survive. Without a command, it is an MCP server on stdio."
)
@click.version_option(__version__)
def cli() -> None:
    """Empty: the group only holds the commands."""


for _command in (workspace, put, get, grant, export, import_, kernel, attach, connection_file, trust, kernelspec):
    cli.add_command(_command)


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
    """Run CODE (or standard input) and print its output. Exits with 2 if the code failed."""
    from kernelrepl.client import connection

    source = sys.stdin.read() if code is None or code == "-" else code
    result = run(_execute(source, session_id, timeout))
    if save_figures is not None:
        places = written()
        try:
            paths = connection.write_figures(result, save_figures, "figure", places)
        except OSError as error:
            raise CopyFailed(str(save_figures), f"takes no figures: {error.strerror}", "give another place") from error
        for path in paths:
            say(f"figure: {path}", err=True)
    if as_json:
        say(json.dumps(result.structured_content, indent=2))
    else:
        say("\n".join(block.text for block in result.content if block.type == "text"))
    if result.structured_content["status"] != "ok":
        sys.exit(CODE_FAILED)


async def _execute(source: str, session_id: str | None, timeout: float | None) -> Any:
    from kernelrepl.client import connection

    async with connection.connect() as keeper:
        arguments: dict[str, Any] = {"code": source, "timeout": timeout, "wait": 3600}
        if session_id is not None:
            arguments["session_id"] = session_id
        return await connection.call(keeper, "python_repl", **arguments)


@cli.command()
@paged
def sessions(**page: Any) -> None:
    """List the sessions, the latest used first."""
    print_text(run(tool("python_list_sessions", **given(page))))


@cli.command()
@click.argument("session_id")
@paged
def variables(session_id: str, **page: Any) -> None:
    """List the variables of a session."""
    print_text(run(tool("python_list_variables", session_id=session_id, **given(page))))


@cli.command()
@click.argument("session_id")
@click.confirmation_option(prompt="Delete the session with its variables, history and files?")
def delete(session_id: str) -> None:
    """Delete a session for good."""
    print_text(run(tool("python_delete_session", session_id=session_id)))


@cli.command()
def stop() -> None:
    """Stop the keeper; the sessions stay."""
    found = discovery.read_keeper(discovery.data_dir(os.environ))
    try:
        print_text(run(tool("keeper_stop", operator=True, start=False)))
    except NoKeeper:
        say("no keeper is running")
        return
    if found is not None:
        discovery.wait_for_end(found["pid"], STOP_TIMEOUT_S)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, with the metrics.")
def status(as_json: bool) -> None:
    """Show what the keeper does and has counted."""
    try:
        found = run(tool("keeper_status", operator=True, start=False)).structured_content
    except NoKeeper:
        say(json.dumps(None) if as_json else "no keeper is running; the next call starts one")
        return
    if as_json:
        say(json.dumps(found, indent=2))
        return
    say(f"{_keeper(found)}, sandbox {found['sandbox']}")
    for session, pid in found["kernels"].items():
        say(f"kernel of {session}: pid {pid}")
    for metric in found["metrics"].values():
        for line in _told(metric):
            say(line)


def _keeper(found: dict[str, Any]) -> str:
    return (
        f"keeper: running, pid {found['pid']}, version {found['version']}, "
        f"{counted(found['sessions'], 'session')}, {counted(len(found['kernels']), 'kernel')},"
        f" {counted(found['connections'] - 1, 'client')}"
    )


def _told(metric: dict[str, Any]) -> Iterator[str]:
    """A metric in words, a line for each of its labels; nothing where nothing was counted."""
    values: dict[tuple[str, ...], dict[str, float]] = {}
    for sample in metric["samples"]:
        if "le" not in sample["labels"]:
            kind = sample["name"].rpartition("_")[2]
            values.setdefault(tuple(sample["labels"].values()), {})[kind] = sample["value"]
    for labels, found in values.items():
        of = f" ({', '.join(labels)})" if labels else ""
        if found.get("total"):
            text = f"{found['total']:,.0f}"
        elif found.get("count"):
            text = f"{found['count']:,.0f}, {found['sum'] / found['count'] * 1e3:,.1f} ms each"
        else:
            continue
        yield f"{metric['help']}{of}: {text}"


@cli.command()
@click.option("--check", "thorough", is_flag=True, help="Read the whole database and check every byte.")
def doctor(thorough: bool) -> None:
    """Show paths, versions, settings and sandbox. Each setting has its origin, each act of the sandbox its outcome."""
    settings = config.load()
    data = settings.data_dir.expanduser().absolute()
    say(f"kernelrepl {__version__}, Python {platform.python_version()} ({sys.executable}), {platform.platform()}")
    say("packages: " + ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    say(f"data directory: {data}")
    runtime = discovery.runtime_dir(data, settings.runtime_dir, os.environ)
    say(f"runtime directory: {runtime}")
    say(f"log: {data / 'logs' / 'keeper.log'}")
    say(f"config file: {discovery.config_file()}" + ("" if discovery.config_file().exists() else " (not there)"))
    groups = None
    try:
        found = run(tool("keeper_status", operator=True, start=False)).structured_content
        say(_keeper(found))
        groups = found["groups"]
    except NoKeeper:
        say("keeper: not running; the next call starts one")
    except KernelReplError as error:
        say(f"keeper: {error}")
    _show_unknown(data)
    _show_sandbox(settings)
    say(f"control groups of kernels: {groups or _groups()}")
    say("settings:")
    origins = config.origins(os.environ)
    for name in config.Settings.model_fields:
        value = runtime if name == "runtime_dir" else getattr(settings, name)
        say(f"  {name} = {'unlimited' if value is None else value}  ({origins[name]})")
    if thorough and not _check_database(data / "python_sessions.db"):
        sys.exit(FAILED)


def _show_unknown(data: Path) -> None:
    """Files of sessions that the database does not know: it may have been deleted, or put back from a copy."""
    from kernelrepl.store.checking import workspaces

    try:
        names = losses.unknown(data / "workspaces", workspaces(data / "python_sessions.db"))
    except StorageFailed as error:
        say(f"database: {error}")
        return
    if names:
        say(f"directories in {data / 'workspaces'} that belong to no session: {', '.join(names[:10])}")
        say(f"  {len(names)} of them, with files; the database of their sessions was deleted, emptied or put back")


def _check_database(path: Path) -> bool:
    """Show what is wrong with what is stored; whether nothing is."""
    from kernelrepl.store.checking import check

    if not path.exists():
        say(f"database: {path} is not there")
        return True
    report = check(path)
    say(f"database: {report.sessions} sessions, {amount(report.size_bytes)} in pieces, all of it read")
    for problem in report.problems:
        say(f"  {problem}")
    if report.problems:
        say("  what is damaged is not restored, and each session tells so; a copy of the database brings it back")
    else:
        say("  all of it is what was stored")
    return not report.problems


def _show_sandbox(settings: config.Settings) -> None:
    """What kernels are confined by, found out by trying it anew, and each act that was tried."""
    if settings.sandbox == "off":
        say(f"sandbox: off, by {discovery.config_file()}; kernels run with your own rights")
        return
    from kernelrepl import sandbox
    from kernelrepl.sessions.confinement import base_environment

    environment = base_environment(os.environ, discovery.cache_dir())
    with tempfile.TemporaryDirectory(prefix="kernelrepl-") as directory:
        tier = sandbox.probe(settings.python, environment, Path(directory))
    say(f"sandbox: {tier.label}" + (f", Landlock version {tier.landlock}" if tier.landlock else ""))
    if tier.why:
        say(f"  {'why not better' if tier.number else 'why'}: {tier.why}")
    for act, outcome in tier.acts:
        say(f"  {act}: {'done' if outcome == 'done' else f'refused ({outcome})'}")


def _groups() -> str:
    """The same as a keeper finds out that is started from here."""
    from kernelrepl.kernel import cgroups

    with tempfile.TemporaryDirectory(prefix="kernelrepl-") as directory:
        groups, said = cgroups.found(Path(directory))
    if groups is not None:
        groups.close()
    return said


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


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


@cli.command("config")
@click.argument("host", type=click.Choice(list(mcp_hosts.HOSTS)))
def configure(host: str) -> None:
    """Print the entry for the configuration of an MCP host."""
    script = Path(sys.executable).with_name("kernelrepl")
    command = [str(script)] if script.exists() else [sys.executable, "-P", "-m", "kernelrepl"]
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith(config.PREFIX)}
    say(f"for {mcp_hosts.HOSTS[host].title}, in {mcp_hosts.HOSTS[host].place}:", err=True)
    say(mcp_hosts.snippet(host, command, settings))


@cli.command(hidden=True)
@click.option("--ready-fd", type=int, default=None)
def keeper(ready_fd: int | None) -> None:
    """Serve a data directory. Started by whoever needs it."""
    from kernelrepl.keeper.run import run
    from kernelrepl.mcp.server import ClientHandler

    sys.exit(run(ClientHandler(), ready_fd))


def main() -> int:
    try:
        cli(prog_name="kernelrepl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return FAILED
    except KernelReplError as error:
        say(f"kernelrepl: {error}", err=True)
        return FAILED
    return 0
