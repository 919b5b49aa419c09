"""What runs and how it is set up: `kernelrepl status` and `kernelrepl doctor`."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from kernelrepl import __version__, config, discovery
from kernelrepl.cli.calls import tool
from kernelrepl.cli.terminal import FAILED, say
from kernelrepl.errors import InvalidSettings, KernelReplError, KernelStartFailed, NoKeeper, StorageFailed
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
    try:
        _show_waiting(config.load(), found)
    except InvalidSettings as error:
        say(f"settings: {error}")
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


def _show_waiting(settings: config.Settings, found: Mapping[str, Any]) -> list[str]:
    """Show what is set here and the keeper that runs does not have; return the names of these settings.

    found: what the keeper says of itself; one of an older version does not tell its settings.
    """
    waiting = config.waiting(settings, found.get("settings") or {}, os.environ)
    if waiting:
        say("settings that wait for the next start of the keeper (`kernelrepl stop` ends this one):")
    for name, (here, there) in waiting.items():
        say(f"  {name} = {_word(here)}, and the keeper has {_word(there)}")
    return list(waiting)


def _word(value: Any) -> str:
    """A setting in the form in which `kernelrepl doctor` prints it."""
    return "unlimited" if value is None else str(value)


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
    """Show paths, versions, settings and sandbox, then whether all is well. Exits with 1 if something is not."""
    wrong: list[str] = []
    try:
        settings: config.Settings | None = config.load()
    except InvalidSettings as error:
        settings = None
        say(f"kernelrepl: {error}", err=True)
        wrong.append(str(error))
    say(f"kernelrepl {__version__}, Python {platform.python_version()} ({sys.executable}), {platform.platform()}")
    say("packages: " + ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    data, runtime = _places(settings)
    say(f"data directory: {data}")
    say(f"runtime directory: {runtime}")
    say(f"log: {data / 'logs' / 'keeper.log'}")
    say(f"config file: {discovery.config_file()}" + ("" if discovery.config_file().exists() else " (not there)"))
    found = _find_keeper(data, runtime, wrong)
    _show_unknown(data, wrong)
    python = (found or {}).get("sessions_python") or (sys.executable if settings is None else settings.python)
    _show_sandbox(settings, python, runtime, wrong)
    say(f"control groups of kernels: {(found or {}).get('groups') or _groups()}")
    _show_installer(settings)
    waiting: list[str] = []
    if settings is not None:
        _show_settings(settings, runtime)
        waiting = [] if found is None else _show_waiting(settings, found)
    if thorough and not _check_database(data / "python_sessions.db"):
        wrong.append("the database is damaged; put a copy of it back")
    later = f"; `kernelrepl stop` lets the next keeper have {', '.join(waiting)}" if waiting else ""
    say(f"verdict: {'; '.join(wrong) if wrong else 'all is well'}{later}")
    if wrong:
        sys.exit(FAILED)


def _places(settings: config.Settings | None) -> tuple[Path, Path]:
    """Return the data directory and that of the sockets; without settings, as far as they are known."""
    if settings is not None:
        data = settings.data_dir.expanduser().absolute()
        return data, discovery.runtime_dir(data, settings.runtime_dir, os.environ)
    try:
        data = discovery.data_dir(os.environ)
    except InvalidSettings:
        data = discovery.default_data_dir()
    chosen = os.environ.get(discovery.PREFIX + "RUNTIME_DIR")
    return data, discovery.runtime_dir(data, Path(chosen).absolute() if chosen else None, os.environ)


def _find_keeper(data: Path, runtime: Path, wrong: list[str]) -> dict[str, Any] | None:
    """Show the keeper that runs, and return what it says of itself; None if none does. Adds to what is wrong."""
    try:
        found: dict[str, Any] = tool("keeper_status", operator=True, start=False).structured
    except NoKeeper:
        unusable = [text for path in (data, runtime) if (text := _unusable(path))]
        wrong += unusable
        say(f"keeper: not running; {'none can start' if unusable else 'the next call starts one'}")
        return None
    except KernelReplError as error:
        say(f"keeper: {error}")
        if str(error) not in wrong:
            wrong.append(f"keeper: {error}")
        return None
    say(f"{_keeper(found)}, sandbox {found['sandbox']}")
    if found.get("python"):
        say(f"  it runs in Python {found['python_version']} ({found['python']})")
        say(f"  new sessions from here run in {found['sessions_python']}")
    if found.get("note"):
        wrong.append(found["note"])
    return found


def _unusable(path: Path) -> str | None:
    """Return why a keeper that starts could not use a directory, or None. Makes nothing."""
    there = next(place for place in (path, *path.parents) if os.path.exists(place))  # noqa: PTH110
    if not os.path.isdir(there):  # noqa: PTH112 - unlike these, `Path` raises where it may not look
        return f"{there} is no directory; move it away, or choose another {path}"
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        return f"the directory {there} cannot be written to; make it writable, or choose another one than {path}"
    return None


def _show_installer(settings: config.Settings | None) -> None:
    """Show whether sessions can have packages installed for them."""
    from kernelrepl.keeper import process

    if settings is not None and settings.packages == "off":
        say("packages of sessions: off")
        return
    try:
        say(f"packages of sessions: installed by {process.installer()}")
    except KernelReplError as error:
        say(f"packages of sessions: {error}")


def _show_settings(settings: config.Settings, runtime: Path) -> None:
    say("settings:")
    origins = config.origins(os.environ)
    for name in config.Settings.model_fields:
        value = runtime if name == "runtime_dir" else getattr(settings, name)
        say(f"  {name} = {_word(value)}  ({origins[name]})")


def _show_unknown(data: Path, wrong: list[str]) -> None:
    """Files of sessions that the database does not know: it may have been deleted, or put back from a copy."""
    from kernelrepl.store.checking import workspaces

    place = directories.workspaces(data)
    try:
        names = losses.unknown(place, workspaces(data / "python_sessions.db"))
    except StorageFailed as error:
        say(f"database: {error}")
        wrong.append(str(error))
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


def _show_sandbox(settings: config.Settings | None, python: str, runtime: Path, wrong: list[str]) -> None:
    """What kernels run in and are confined by, found out by trying it anew, and each act that was tried."""
    from kernelrepl import sandbox
    from kernelrepl.sessions.confinement import base_environment, start_environment

    environment = base_environment(os.environ, discovery.cache_dir())
    fit = True
    try:
        sandbox.describe(python, start_environment(python, environment, runtime, confined=True))
    except KernelStartFailed as error:
        fit = False
        wrong.append(str(error))
        say(f"interpreter: {error}")
    if settings is not None and settings.sandbox == "off":
        say(f"sandbox: off, by {discovery.config_file()}; kernels run with your own rights")
        return
    if not fit:
        return
    with tempfile.TemporaryDirectory(prefix="kernelrepl-") as directory:
        tier = sandbox.probe(python, environment, Path(directory))
    if not tier.number:
        wrong.append(f"no kernel can be confined here: {tier.why}; docs/sandbox.md says what helps")
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
