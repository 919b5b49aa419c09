"""How each MCP host wants to be told of a server. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from types import ModuleType
from typing import Any

from kernelrepl.cli import jsonc, toml_tables

Entry = dict[str, Any]
NAME = "kernelrepl"
UVX = "uvx"

_OF_A_CACHE = re.compile(r"(archive|environments|builds)-v[0-9]+")
"""The directories in which uv keeps environments that it may remove at any time."""


@dataclass(frozen=True)
class Host:
    """One program that starts MCP servers."""

    title: str
    place: str
    """Where its configuration is, for people."""
    servers: str = "mcpServers"
    """The name under which its configuration has all servers."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What an entry says besides command, arguments and environment."""
    form: ModuleType = jsonc
    """What reads and changes the text of its configuration."""

    @property
    def path(self) -> tuple[str, str]:
        """The names that lead to our entry."""
        return self.servers, NAME


HOSTS = {
    "claude": Host(
        "Claude Desktop", "claude_desktop_config.json (Settings > Developer > Edit Config); then start Claude anew"
    ),
    "claude-code": Host("Claude Code", "~/.claude.json, or .mcp.json in your project", extra={"type": "stdio"}),
    "cursor": Host("Cursor", "~/.cursor/mcp.json, or .cursor/mcp.json in your project"),
    "vscode": Host(
        "VS Code",
        "the mcp.json of the command 'MCP: Open User Configuration', or .vscode/mcp.json in your project",
        "servers",
        {"type": "stdio"},
    ),
    "zed": Host("Zed", "settings.json (command 'zed: open settings file')", "context_servers", {"source": "custom"}),
    "codex": Host(
        "Codex",
        "~/.codex/config.toml, or .codex/config.toml in your project",
        "mcp_servers",
        {"startup_timeout_sec": 60},
        toml_tables,
    ),
    "gemini": Host("Gemini CLI", "~/.gemini/settings.json, or .gemini/settings.json in your project"),
    "windsurf": Host("Windsurf", "~/.codeium/windsurf/mcp_config.json"),
    "cline": Host("Cline", "cline_mcp_settings.json (MCP Servers > Configure MCP Servers)"),
    "lmstudio": Host("LM Studio", "~/.lmstudio/mcp.json (Program > Install > Edit mcp.json)"),
}


def is_temporary(executable: PurePath) -> bool:
    """Whether an interpreter lies in the cache of uv, as those do that `uvx` starts."""
    return any(_OF_A_CACHE.fullmatch(part) for part in executable.parts)


def entry(host: str, command: Sequence[str], environment: Mapping[str, str]) -> Entry:
    """Return what a host is to know of our server.

    command: what starts the server, by its absolute path: hosts have a PATH of their own. environment: settings that
    it needs beside.
    """
    chosen = HOSTS[host]
    before = {name: value for name, value in chosen.extra.items() if isinstance(value, str)}
    after = {name: value for name, value in chosen.extra.items() if name not in before}
    settings = {"env": dict(environment)} if environment else {}
    return {**before, "command": command[0], "args": list(command[1:]), **settings, **after}


def snippet(host: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the configuration of a host that has this one server."""
    chosen = HOSTS[host]
    text: str = chosen.form.dump(chosen.path, entry(host, command, environment))
    return text


def starts_the_same(one: Entry, other: object) -> bool:
    """Whether two entries start the same server. A host or its user may have added to one: what tools may run, say."""
    if not isinstance(other, dict):
        return False
    parts: tuple[tuple[str, object], ...] = (("command", ""), ("args", []), ("env", {}))
    return all((one.get(name) or empty) == (other.get(name) or empty) for name, empty in parts)
