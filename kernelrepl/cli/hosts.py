"""How an MCP host starts kernelrepl: `kernelrepl config HOST` prints it, `kernelrepl install HOST` writes it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from kernelrepl import discovery
from kernelrepl.cli import host_files, host_places, mcp_hosts
from kernelrepl.cli.base import written
from kernelrepl.cli.host_files import Notes
from kernelrepl.cli.jsonc import NotReadable
from kernelrepl.cli.mcp_hosts import Entry, Host
from kernelrepl.cli.terminal import say
from kernelrepl.errors import HostFileRefused
from kernelrepl.workspaces import entrances


@click.command("config")
@click.argument("host", type=click.Choice(list(mcp_hosts.HOSTS)))
def configure(host: str) -> None:
    """Print the entry for the configuration of an MCP host."""
    command, settings = _start()
    say(f"for {mcp_hosts.HOSTS[host].title}, in {mcp_hosts.HOSTS[host].place}:", err=True)
    say(mcp_hosts.snippet(host, command, settings))


@click.command()
@click.argument("host", type=click.Choice(list(mcp_hosts.HOSTS)))
@click.option("--undo", is_flag=True, help="Take the entry out again.")
@click.option("--dry-run", is_flag=True, help="Show the change and write nothing.")
@click.option("--print", "only_print", is_flag=True, help="Print the entry only, as `config` does.")
@click.option("--force", is_flag=True, help="Replace or take out an entry of this name that starts something else.")
@click.option(
    "--file", type=click.Path(path_type=Path), default=None, help="Change this file, for example one of a project."
)
@click.pass_context
def install(
    ctx: click.Context, host: str, undo: bool, dry_run: bool, only_print: bool, force: bool, file: Path | None
) -> None:
    """Write the entry into the configuration of an MCP host. Everything else in the file stays as it is."""
    if only_print:
        ctx.invoke(configure, host=host)
        return
    path = _target(host, file)
    chosen = mcp_hosts.HOSTS[host]
    entry = mcp_hosts.entry(host, *_start())
    change = _Change(chosen, entry, path, Notes(discovery.data_dir(os.environ)), force, dry_run)
    try:
        if undo:
            change.undo()
        else:
            change.install()
    except NotReadable as error:
        remedy = "correct it there, then try again; nothing was written"
        raise HostFileRefused(str(path), f"cannot be read in line {error.line}: {error.why}", remedy) from error


class _Change:
    """One change of one configuration file."""

    def __init__(self, host: Host, entry: Entry, path: Path, notes: Notes, force: bool, dry_run: bool) -> None:
        self._host = host
        self._entry = entry
        self._path = path
        self._notes = notes
        self._force = force
        self._dry_run = dry_run

    def install(self) -> None:
        """Write the entry, unless it is there already."""
        text = host_files.read(self._path)
        servers = self._servers(text)
        found = servers.get(mcp_hosts.NAME)
        if mcp_hosts.starts_the_same(self._entry, found):
            say(f"{self._path} has this entry already; nothing was written")
            return
        if found is not None and not self._force:
            raise self._other("replace it with --force, or take it out with --undo --force")
        after = self._host.form.put(text or "", self._host.path, self._entry)
        self._check(text, after, self._entry)
        if not self._show(text, after):
            return
        self._notes.make_room()
        earlier = self._notes.find(self._path)
        origin = earlier.undone(text) if earlier else None
        made = host_files.write(self._path, text, after)
        if earlier is not None and origin is not None:  # what --undo gives back is older than this change
            before = None if earlier.before is None else origin
            note = host_files.note(before, after, earlier.has_new_group, earlier.directories)
        else:
            note = host_files.note(text, after, self._host.servers not in self._host.form.load(text or ""), made)
        self._notes.keep(self._path, note)
        say(f"{self._path}: written; if {self._host.title} is running, start it anew", err=True)

    def undo(self) -> None:
        """Give the file back as it was. If something else has changed it since, take out the entry only."""
        text = host_files.read(self._path)
        note = self._notes.find(self._path)
        servers = self._servers(text)
        if text is None or mcp_hosts.NAME not in servers:
            say(f"{self._path} has no entry {mcp_hosts.NAME}; nothing was written")
            self._notes.forget(self._path)
            return
        origin = note.undone(text) if note else None
        if note is not None and origin is not None:
            after = None if note.before is None else origin
            how = "removed, as it was not there before" if after is None else "is again as it was before"
        else:
            if note is None and not self._force and not self._is_ours(servers):
                raise self._other("take it out with --force")
            after = self._host.form.take(text, self._host.path)
            self._check(text, after, None)
            if note is not None and note.has_new_group and self._host.form.load(after).get(self._host.servers) == {}:
                after = self._host.form.take(after, self._host.path[:1])
            how = "only the entry was taken out, as there is no note of an earlier state"
            if note is not None:
                how = "only the entry was taken out, as the file has been changed since"
        if not self._show(text, after):
            return
        if after is not None:
            host_files.write(self._path, text, after)
        elif note is not None:
            host_files.remove(self._path, note.directories)
        self._notes.forget(self._path)
        say(f"{self._path}: {how}", err=True)

    def _servers(self, text: str | None) -> Entry:
        servers = self._host.form.load(text or "").get(self._host.servers)
        return servers if isinstance(servers, dict) else {}

    def _is_ours(self, servers: Entry) -> bool:
        return mcp_hosts.starts_the_same(self._entry, servers[mcp_hosts.NAME])

    def _show(self, before: str | None, after: str | None) -> bool:
        """Show the change, and say whether it is to be written."""
        say(host_files.difference(self._path, before, after))
        return not self._dry_run

    def _check(self, before: str | None, after: str, entry: Entry | None) -> None:
        """Make sure that the new text means what the old one does, but for the entry."""
        wanted = self._host.form.load(before or "")
        servers = dict(wanted.get(self._host.servers) or {})
        servers.pop(mcp_hosts.NAME, None)
        wanted[self._host.servers] = servers | ({} if entry is None else {mcp_hosts.NAME: entry})
        found = self._host.form.load(after)
        found.setdefault(self._host.servers, {})
        if found != wanted:
            raise HostFileRefused(
                str(self._path),
                "is written in a form that cannot be changed without changing what it means",
                f"change it by hand: `kernelrepl config` prints the entry for {self._host.title}",
            )

    def _other(self, remedy: str) -> HostFileRefused:
        return HostFileRefused(str(self._path), f"has another entry {mcp_hosts.NAME}", remedy)


def _start() -> tuple[list[str], dict[str, str]]:
    """What starts the server from anywhere, and the settings of this terminal.

    An environment that `uvx` made is in a cache and may be gone tomorrow, so there `uvx` is what starts the server.
    """
    executable = Path(sys.executable)
    script = executable.with_name("kernelrepl")
    command = [str(script)] if script.exists() else [sys.executable, "-P", "-m", "kernelrepl"]
    if mcp_hosts.is_temporary(executable):
        command = [shutil.which(mcp_hosts.UVX) or mcp_hosts.UVX, mcp_hosts.NAME]
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith(discovery.PREFIX)}
    return command, settings


def _target(host: str, file: Path | None) -> Path:
    """The file to change, with links followed: people link their settings to where they keep them.

    In a folder that sessions may write to, code could have put the link there, so none is followed.
    """
    if file is None:
        around = host_places.Surroundings(os.environ, sys.platform, Path.home())
        return Path(os.path.realpath(host_places.place(host, around)))
    path = Path(os.path.realpath(file))
    if path != Path(os.path.abspath(file)) and entrances.led_by(os.path.abspath(file), written()):  # noqa: PTH100
        why = "leads over a link in a folder that a session may write to"
        raise HostFileRefused(str(file), why, "give the path without links")
    return path
