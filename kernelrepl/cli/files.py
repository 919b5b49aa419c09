"""What a person does with the files of a session, and with what it may reach beside them."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import click

from kernelrepl.cli.base import FAILED, print_text, say, written
from kernelrepl.cli.calls import tool
from kernelrepl.errors import CopyFailed, InvalidArgument, NoSessionYet, UnknownSession
from kernelrepl.validation import check_session_id
from kernelrepl.workspaces import files as workspace_files
from kernelrepl.workspaces import own_files


def _workspace(session_id: str, missing: type[UnknownSession] = UnknownSession) -> Path:
    """The directory of a session, from the keeper. Raises `missing`, with names that may be meant."""
    check_session_id(session_id)
    try:
        found = tool("keeper_workspace", operator=True, session_id=session_id)
    except UnknownSession as error:
        raise missing(session_id, error.close) from None
    return Path(found.text)


_MAX_BYTES = click.option(
    "--max-bytes",
    type=click.IntRange(min=0),
    default=workspace_files.LIMIT_BYTES,
    show_default=True,
    help="The largest file that is copied.",
)
_FORCE = click.option("--force", is_flag=True, help="Replace existing files.")


@click.command()
@click.argument("session_id")
@click.option("--list", "with_files", is_flag=True, help="List the files, with their sizes in bytes.")
def workspace(session_id: str, with_files: bool) -> None:
    """Print the working directory of a session."""
    root = _workspace(session_id)
    say(root)
    if not with_files:
        return
    listing = workspace_files.list_files(root)
    for entry in listing.entries:
        size = str(entry.size) if entry.kind == "file" else f"({entry.kind})"
        say(f"{size:>15}  {entry.path}")
    for directory in listing.closed:
        say(f"cannot be looked into: {directory or '.'}", err=True)
    if listing.more:
        say(f"only the first {len(listing.entries)} are listed; code in the session can list the rest", err=True)


@click.command()
@click.argument("session_id")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--to", "directory", default=".", help="Directory in the session for the copies; it is made if it does not exist."
)
@_FORCE
@_MAX_BYTES
def put(session_id: str, files: tuple[str, ...], directory: str, force: bool, max_bytes: int) -> None:
    """Copy FILEs into a session. They go into its working directory."""
    names = _names(files)
    root = _workspace(session_id, NoSessionYet)
    places = written()
    for file, name in zip(files, names, strict=True):
        target = str(PurePosixPath(directory) / name)
        with _outside(file), own_files.open_file(file, places) as source:
            size = workspace_files.write_from(root, target, source, max_bytes, replace=force)
        say(f"{workspace_files.shown(target)}: {size} bytes")


@click.command()
@click.argument("session_id")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--to", "directory", default=".", help="Directory for the copies; - prints them.  [default: the current one]"
)
@_FORCE
@_MAX_BYTES
def get(session_id: str, paths: tuple[str, ...], directory: str, force: bool, max_bytes: int) -> None:
    """Copy files out of a session. Each PATH is relative to its working directory."""
    names = _names(paths) if directory != "-" else []
    root = _workspace(session_id)
    if directory == "-":
        _print_files(root, paths, max_bytes)
        return
    places = written()
    with _outside(directory):
        os.close(own_files.open_directory(directory, places, make=True))
    for path, name in zip(paths, names, strict=True):
        target = Path(directory) / name
        with _outside(str(target)):
            size = workspace_files.fetch(root, path, target, max_bytes, replace=force, places=places)
        say(f"{workspace_files.shown(str(target))}: {size} bytes")


def _print_files(root: Path, paths: tuple[str, ...], max_bytes: int) -> None:
    try:
        with _outside("standard output"):
            for path in paths:
                workspace_files.read_into(root, path, sys.stdout.buffer, max_bytes)
            sys.stdout.buffer.flush()
    except CopyFailed as error:
        # What is left in the buffer has nowhere to go, and is not to be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error.__cause__, BrokenPipeError):  # the reader has had enough
            sys.exit(FAILED)
        raise


def _names(paths: Iterable[str]) -> list[str]:
    """The last part of each path, which its copy is called. Raises InvalidArgument if two are the same."""
    names: list[str] = []
    for path in paths:
        name = PurePosixPath(path).name
        if name in ("", ".."):
            raise InvalidArgument(f"{workspace_files.shown(path)!r} names no file; name a file in it")
        if name in names:
            raise InvalidArgument(
                f"two of the files are called {workspace_files.shown(name)!r}; copy them one by one, with --to"
            )
        names.append(name)
    return names


@contextlib.contextmanager
def _outside(path: str) -> Iterator[None]:
    """What the system refuses outside of the workspace, in words and with what to do."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.EEXIST: "--force replaces it, --to chooses another directory",
            errno.EISDIR: "only files are copied: name each by itself",
            errno.ENOSPC: "free some space, or choose another directory with --to",
            errno.ELOOP: "name what the link leads to, if you trust it",
        }.get(error.errno or 0, "look at its name and its permissions")
        raise CopyFailed(workspace_files.shown(path), f"cannot be copied: {error.strerror}", remedy) from error


@click.command()
@click.argument("session_id")
@click.option("--read", multiple=True, metavar="PATH", help="A file or folder that its code may read from now on.")
@click.option("--write", multiple=True, metavar="PATH", help="A file or folder that it may also write to.")
@click.option("--revoke", multiple=True, metavar="PATH", help="A granted path that it may no longer reach.")
def grant(session_id: str, read: tuple[str, ...], write: tuple[str, ...], revoke: tuple[str, ...]) -> None:
    """Let a session reach files of yours. Without options, print what it may reach."""
    check_session_id(session_id)
    paths = [[str(Path(path).expanduser().absolute()) for path in given] for given in (read, write, revoke)]
    print_text(
        tool(
            "keeper_grant",
            operator=True,
            session_id=session_id,
            read=paths[0],
            write=paths[1],
            revoke=paths[2],
        )
    )
