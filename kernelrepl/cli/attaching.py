"""From a terminal into a live session, and what a notebook host starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from kernelrepl.cli.base import print_text, session_argument
from kernelrepl.cli.calls import tool
from kernelrepl.errors import InvalidArgument
from kernelrepl.validation import check_session_id


@click.command(hidden=True)
@click.option("-f", "--file", type=click.Path(path_type=Path), required=True)
@click.option("-s", "--session", "session_id", default=None)
def kernel(file: Path, session_id: str | None) -> None:
    """Be the kernel of a notebook. Started by Jupyter hosts, through the kernelspec."""
    from kernelrepl.jupyter import launcher

    sys.exit(launcher.main(file, session_id))


@click.command()
@session_argument
@click.argument("options", nargs=-1)
def attach(session_id: str, options: tuple[str, ...]) -> None:
    """Open a Jupyter console in a session. `exit` leaves it; the session goes on.

    Options after -- are passed to jupyter console.
    """
    from kernelrepl.jupyter.attachment import Attachment

    check_session_id(session_id)
    console = shutil.which("jupyter-console", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH')}")
    if console is None:
        raise InvalidArgument(
            f"jupyter console is not installed; `{sys.executable} -m pip install jupyter-console` does"
        )
    attachment = Attachment(os.environ, session_id=session_id)
    connection = attachment.open()
    # The console cannot interrupt a kernel that it has not started; the keeper can.
    signal.signal(signal.SIGINT, lambda *_: attachment.here("keeper_interrupt"))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(connection, file)
        file.flush()
        try:
            code = subprocess.run([console, f"--existing={file.name}", *options], check=False).returncode
        finally:
            attachment.close()
    sys.exit(code)


@click.command("connection-file")
@session_argument
def connection_file(session_id: str) -> None:
    """Print the path of a connection file. It is for `jupyter console --existing=FILE` and other Jupyter clients."""
    print_text(tool("keeper_connection_file", operator=True, session_id=check_session_id(session_id)))


@click.command()
@session_argument
@click.option("--revoke", is_flag=True, help="Stop trusting its outputs.")
def trust(session_id: str, revoke: bool) -> None:
    """Let outputs of a session act in notebooks. Scripts and widgets in them run there with your rights."""
    print_text(tool("keeper_trust", operator=True, session_id=session_id, trusted=not revoke))
