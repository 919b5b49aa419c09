"""How an MCP host starts kernelrepl: `kernelrepl config HOST`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from kernelrepl import discovery
from kernelrepl.cli import mcp_hosts
from kernelrepl.cli.base import say


@click.command("config")
@click.argument("host", type=click.Choice(list(mcp_hosts.HOSTS)))
def configure(host: str) -> None:
    """Print the entry for the configuration of an MCP host."""
    script = Path(sys.executable).with_name("kernelrepl")
    command = [str(script)] if script.exists() else [sys.executable, "-P", "-m", "kernelrepl"]
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith(discovery.PREFIX)}
    say(f"for {mcp_hosts.HOSTS[host].title}, in {mcp_hosts.HOSTS[host].place}:", err=True)
    say(mcp_hosts.snippet(host, command, settings))
