"""What runs and how it is set up: `kernelrepl status` and `kernelrepl doctor`."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from kernelrepl import __version__, config, discovery
from kernelrepl.cli.calls import tool
from kernelrepl.cli.terminal import FAILED, say
from kernelrepl.errors import KernelReplError, NoKeeper, StorageFailed
from kernelrepl.model import amount, counted
from kernelrepl.workspaces import directories, losses

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


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, with the metrics.")
def status(as_json: bool) -> None:
    """Show what the keeper does and has counted."""
    try:
        found = tool("keeper_status", operator=True, start=False).structured
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


@click.command()
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
        found = tool("keeper_status", operator=True, start=False).structured
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

    place = directories.workspaces(data)
    try:
        names = losses.unknown(place, workspaces(data / "python_sessions.db"))
    except StorageFailed as error:
        say(f"database: {error}")
        return
    if names:
        say(f"directories in {place} that belong to no session: {', '.join(names[:10])}")
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
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
