"""Notebooks in and out of a session."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from kernelrepl.cli.base import session_argument, session_option, written
from kernelrepl.cli.calls import Caller
from kernelrepl.cli.running import LONGEST_WAIT_S, Printer, exit_code, print_reply
from kernelrepl.cli.terminal import say
from kernelrepl.errors import InvalidArgument
from kernelrepl.outputs import notebook, terminal_text
from kernelrepl.validation import check_session_id
from kernelrepl.workspaces import own_files


@click.command("export")
@session_argument
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the notebook to this file."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def export(session_id: str, output: Path | None, force: bool) -> None:
    """Print a session as a notebook. It has all code that ran in the session, with its outputs."""
    check_session_id(session_id)
    if output is not None and output.exists() and not force:
        raise InvalidArgument(f"'{output}' is there already; give another name, or --force to replace it")
    text = json.dumps(_document(session_id), indent=1) + "\n"
    if output is None:
        say(text, nl=False)
        return
    places = written()
    try:
        own_files.write(output, text.encode(), places)
    except OSError as error:
        raise InvalidArgument(f"'{output}' cannot be written: {error.strerror}; give another place") from error


def _document(session_id: str) -> dict[str, Any]:
    cells: list[dict[str, Any]] = []
    cursor = 0
    with Caller(operator=True) as keeper:
        while cursor is not None:
            page = keeper.call("keeper_history", session_id=session_id, cursor=cursor).structured
            cells += page["cells"]
            cursor = page["next_cursor"]
    return notebook.document(session_id, cells)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@session_option(required=True, help="Session in which the notebook runs.")
@click.option("--keep-going", is_flag=True, help="Continue after a cell that fails.")
def import_(file: Path, session_id: str, keep_going: bool) -> None:
    """Run the code cells of a notebook. They run in a session, in their order. Exits as `exec` does with the first
    cell that failed.
    """
    check_session_id(session_id)
    sys.exit(_run_all(_code(file), session_id, keep_going))


def _code(file: Path) -> list[str]:
    """The code cells of a notebook that is written in Python. Raises InvalidArgument."""
    import nbformat

    places = written()
    try:
        with own_files.open_file(file, places) as opened:
            book: Any = nbformat.reads(opened.read().decode(), as_version=4)
        nbformat.validate(book)
    except OSError as error:
        raise InvalidArgument(f"'{file}' cannot be read: {error.strerror}; name a notebook") from error
    except Exception as error:
        # Of many kinds: no JSON, no notebook, one of a version to come.
        reason = str(error).partition("\n")[0][:200]
        raise InvalidArgument(f"'{file}' is no notebook that can be read: {reason}; name an .ipynb file") from error
    about = book.metadata
    language = about.get("language_info", {}).get("name") or about.get("kernelspec", {}).get("language") or "python"
    if str(language).lower() not in ("python", "ipython"):
        raise InvalidArgument(f"'{file}' is written in {language}; sessions run Python")
    return [cell.source for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]


def _run_all(cells: list[str], session_id: str, keep_going: bool) -> int:
    """Run cells one after the other, and return the exit code of the first one that failed, or 0."""
    failed = 0
    with Caller(live=True) as keeper:
        for number, code in enumerate(cells, 1):
            printer = Printer()
            arguments: dict[str, Any] = {"code": code, "session_id": session_id, "wait": LONGEST_WAIT_S}
            try:
                reply = keeper.call("python_repl", show=printer.show, idle=printer.idle, **arguments)
                print_reply(printer, reply)
            finally:
                printer.close()
            status = reply.structured["status"]
            say(terminal_text.said(f"{number}/{len(cells)}", status), err=True)
            if status != "ok":
                failed = failed or exit_code(reply.structured)
                if not keep_going:
                    left = len(cells) - number
                    say(f"stopped at cell {number}; {left} not run; --keep-going goes on after errors", err=True)
                    break
    return failed
