"""What a person does with the files of a session, and with what it may reach beside them."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

import click

from kernelrepl.cli.base import as_json, print_reply, session_argument, written
from kernelrepl.cli.calls import tool
from kernelrepl.cli.terminal import READER_LEFT, say, say_json
from kernelrepl.errors import CopyFailed, InvalidArgument, NoSessionYet, UnknownSession
from kernelrepl.validation import check_session_id
from kernelrepl.workspaces import changes, own_files
from kernelrepl.workspaces import files as workspace_files


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
@session_argument
@click.option("--list", "with_files", is_flag=True, help="List the files, with their sizes in bytes.")
@as_json
def workspace(session_id: str, with_files: bool, as_json: bool) -> None:
    """Print the working directory of a session."""
    root = _workspace(session_id)
    if as_json:
        found = workspace_files.list_files(root)
        files = [{"path": entry.path, "kind": entry.kind, "size_bytes": entry.size} for entry in found.entries]
        say_json({"path": str(root), "files": files, "more": found.more})
        return
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
@session_argument
@click.argument("files", nargs=-1, required=True, metavar="FILE_OR_FOLDER...")
@click.option(
    "--to", "directory", default=".", help="Directory in the session for the copies; it is made if it does not exist."
)
@_FORCE
@_MAX_BYTES
@as_json
def put(session_id: str, files: tuple[str, ...], directory: str, force: bool, max_bytes: int, as_json: bool) -> None:
    """Copy files and folders into a session. They go into its working directory."""
    names = _names(files)
    root = _workspace(session_id, NoSessionYet)
    places = written()
    with _copies(as_json) as copied:
        for file, name in (pair for pair in zip(files, names, strict=True) for pair in _below(*pair)):
            target = str(PurePosixPath(directory) / name)
            with _outside(file), own_files.open_file(file, places) as source:
                size = workspace_files.write_from(root, target, source, max_bytes, replace=force)
            changes.note_put(root, target, size)
            copied(target, size)


@click.command()
@session_argument
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--to", "directory", default=".", help="Directory for the copies; - prints them.  [default: the current one]"
)
@_FORCE
@_MAX_BYTES
@as_json
def get(session_id: str, paths: tuple[str, ...], directory: str, force: bool, max_bytes: int, as_json: bool) -> None:
    """Copy files and folders out of a session. Each PATH is relative to its working directory."""
    if as_json and directory == "-":
        raise click.UsageError("--json and --to - both want standard output; give one of them")
    names = _names(paths) if directory != "-" else []
    root = _workspace(session_id)
    if directory == "-":
        _print_files(root, paths, max_bytes)
        return
    places = written()
    with _outside(directory):
        os.close(own_files.open_directory(directory, places, make=True))
    with _copies(as_json) as copied:
        for path, name in (pair for pair in zip(paths, names, strict=True) for pair in _fetched(root, *pair)):
            target = Path(directory) / name
            with _outside(str(target)):
                os.close(own_files.open_directory(target.parent, places, make=True))
                size = workspace_files.fetch(root, path, target, max_bytes, replace=force, places=places)
            copied(str(target), size)


@contextlib.contextmanager
def _copies(as_json: bool) -> Iterator[Callable[[str, int], None]]:
    """Says of each copy where it is and how large: at once, or as one list when all is done or one has failed."""
    files: list[dict[str, str | int]] = []

    def copied(target: str, size: int) -> None:
        if as_json:
            files.append({"path": target, "size_bytes": size})
        else:
            say(f"{workspace_files.shown(target)}: {size} bytes")

    try:
        yield copied
    finally:
        if as_json:
            say_json({"files": files})


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
            sys.exit(READER_LEFT)
        raise


def _below(file: str, name: str) -> Iterator[tuple[str, str]]:
    """A file of the person's with its name in the session; of a folder all that are in it. No link is followed."""
    if not os.path.isdir(file) or os.path.islink(file):  # noqa: PTH112, PTH114
        yield file, name
        return
    found = [
        str(Path(place) / entry)
        for place, _, entries in os.walk(file)
        for entry in entries
        if not (Path(place) / entry).is_symlink()
    ]
    if len(found) > workspace_files.FOLDER_FILES:
        raise CopyFailed(file, f"has more than {workspace_files.FOLDER_FILES} files", "pack them into one")
    for path in sorted(found):
        yield path, str(PurePosixPath(name) / Path(path).relative_to(file).as_posix())


def _fetched(root: Path, path: str, name: str) -> Iterator[tuple[str, str]]:
    """The same of a path in a session."""
    below = workspace_files.files_below(root, path)
    if below is None:
        yield path, name
        return
    top = PurePosixPath(path)
    for file in below:
        yield file, str(PurePosixPath(name) / PurePosixPath(file).relative_to(top))


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
            errno.EISDIR: "only files and folders are copied: name each by itself",
            errno.ENOSPC: "free some space, or choose another directory with --to",
            errno.ELOOP: "name what the link leads to, if you trust it",
        }.get(error.errno or 0, "look at its name and its permissions")
        raise CopyFailed(workspace_files.shown(path), f"cannot be copied: {error.strerror}", remedy) from error


@click.command()
@session_argument
@click.option("--read", multiple=True, metavar="PATH", help="A file or folder that its code may read from now on.")
@click.option("--write", multiple=True, metavar="PATH", help="A file or folder that it may also write to.")
@click.option("--revoke", multiple=True, metavar="PATH", help="A granted path that it may no longer reach.")
@as_json
def grant(
    session_id: str, read: tuple[str, ...], write: tuple[str, ...], revoke: tuple[str, ...], as_json: bool
) -> None:
    """Let a session reach files of yours. Without options, print what it may reach."""
    check_session_id(session_id)
    paths = [[str(Path(path).expanduser().absolute()) for path in given] for given in (read, write, revoke)]
    reply = tool("keeper_grant", operator=True, session_id=session_id, read=paths[0], write=paths[1], revoke=paths[2])
    print_reply(reply, as_json=as_json)
