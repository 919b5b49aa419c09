"""How each MCP host wants to be told of a server. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = dict[str, Any]
NAME = "kernelrepl"


@dataclass(frozen=True)
class Host:
    """One program that starts MCP servers."""

    title: str
    place: str
    """Where its configuration is, for people."""
    wrap: Callable[[Entry], Entry]
    """The whole of a configuration with this one server."""


def _servers(entry: Entry) -> Entry:
    return {"mcpServers": {NAME: entry}}


HOSTS = {
    "claude": Host(
        "Claude Desktop",
        "claude_desktop_config.json (Settings > Developer > Edit Config); then start Claude anew",
        _servers,
    ),
    "claude-code": Host("Claude Code", ".mcp.json in your project", lambda entry: _servers({"type": "stdio", **entry})),
    "cursor": Host("Cursor", "~/.cursor/mcp.json, or .cursor/mcp.json in your project", _servers),
    "vscode": Host(
        "VS Code",
        ".vscode/mcp.json in your project, or the file of the command 'MCP: Open User Configuration'",
        lambda entry: {"servers": {NAME: {"type": "stdio", **entry}}},
    ),
    "zed": Host(
        "Zed",
        "settings.json (command 'zed: open settings')",
        lambda entry: {"context_servers": {NAME: {"source": "custom", **entry}}},
    ),
}


def snippet(host: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The JSON to put into the configuration of a host.

    command: what starts the server, by its absolute path: hosts have a PATH of their own. environment: settings that
    it needs beside.
    """
    entry: Entry = {"command": command[0], "args": list(command[1:])}
    if environment:
        entry["env"] = dict(environment)
    return json.dumps(HOSTS[host].wrap(entry), indent=2)
