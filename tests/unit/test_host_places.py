"""Where each MCP host has its configuration, on each platform and with the variables that it honours."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from kernelrepl.cli.host_places import Surroundings, place
from kernelrepl.cli.mcp_hosts import HOSTS, is_temporary

LINUX = {
    "claude": ".config/Claude/claude_desktop_config.json",
    "claude-code": ".claude.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".config/Code/User/mcp.json",
    "zed": ".config/zed/settings.json",
    "codex": ".codex/config.toml",
    "gemini": ".gemini/settings.json",
    "windsurf": ".codeium/windsurf/mcp_config.json",
    "cline": ".cline/data/settings/cline_mcp_settings.json",
    "lmstudio": ".lmstudio/mcp.json",
}
OTHERS = {
    "darwin": {
        "claude": "Library/Application Support/Claude/claude_desktop_config.json",
        "vscode": "Library/Application Support/Code/User/mcp.json",
    },
    "win32": {
        "claude": "AppData/Roaming/Claude/claude_desktop_config.json",
        "vscode": "AppData/Roaming/Code/User/mcp.json",
        "zed": "AppData/Roaming/Zed/settings.json",
    },
}
VARIABLES = {
    "XDG_CONFIG_HOME": {
        "claude": "Claude/claude_desktop_config.json",
        "vscode": "Code/User/mcp.json",
        "zed": "zed/settings.json",
    },
    "CLAUDE_CONFIG_DIR": {"claude-code": ".claude.json"},
    "VSCODE_PORTABLE": {"vscode": "user-data/User/mcp.json"},
    "VSCODE_APPDATA": {"vscode": "Code/User/mcp.json"},
    "FLATPAK_XDG_CONFIG_HOME": {"zed": "zed/settings.json"},
    "CODEX_HOME": {"codex": "config.toml"},
    "GEMINI_CLI_HOME": {"gemini": ".gemini/settings.json"},
    "CLINE_DIR": {"cline": "data/settings/cline_mcp_settings.json"},
    "CLINE_DATA_DIR": {"cline": "settings/cline_mcp_settings.json"},
    "CLINE_MCP_SETTINGS_PATH": {"cline": ""},
}


def test_every_host_has_a_place() -> None:
    """And no other."""
    assert LINUX.keys() == HOSTS.keys()


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("host", LINUX)
def test_the_file_of_a_host(host: str, platform: str, tmp_path: Path) -> None:
    """Below the home of its user."""
    found = place(host, Surroundings({}, platform, tmp_path))
    assert found == tmp_path / OTHERS.get(platform, {}).get(host, LINUX[host])


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_leads_those_that_honour_it(variable: str, tmp_path: Path) -> None:
    """And nobody else; a relative path means another place each time, and is none."""
    home, there = tmp_path / "home", tmp_path / "there"
    for host, usual in LINUX.items():
        own = VARIABLES[variable].get(host)
        found = place(host, Surroundings({variable: str(there)}, "linux", home))
        assert found == (home / usual if own is None else there / own)
        assert place(host, Surroundings({variable: "there"}, "linux", home)) == home / usual


def test_windows_says_where_settings_are(tmp_path: Path) -> None:
    """They may be on another drive."""
    found = place("claude", Surroundings({"APPDATA": str(tmp_path / "r")}, "win32", tmp_path))
    assert found == tmp_path / "r" / "Claude" / "claude_desktop_config.json"


@pytest.mark.parametrize(
    ("host", "older"),
    [
        ("cline", ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"),
        ("lmstudio", ".cache/lm-studio/mcp.json"),
    ],
)
def test_a_file_of_an_older_version_is_found(host: str, older: str, tmp_path: Path) -> None:
    """Unless there is a newer one."""
    for path in (tmp_path / older, tmp_path / LINUX[host]):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        assert place(host, Surroundings({}, "linux", tmp_path)) == path


@pytest.mark.parametrize("chosen", [None, "elsewhere"])
def test_the_first_file_of_claude_code_hides_the_usual_one(chosen: str | None, tmp_path: Path) -> None:
    """It reads no other while that one is there."""
    environ = {} if chosen is None else {"CLAUDE_CONFIG_DIR": str(tmp_path / chosen)}
    usual = (tmp_path if chosen is None else tmp_path / chosen) / ".claude.json"
    first = tmp_path / (chosen or ".claude") / ".config.json"
    first.parent.mkdir()
    usual.write_text("{}")
    assert place("claude-code", Surroundings(environ, "linux", tmp_path)) == usual
    first.write_text("{}")
    assert place("claude-code", Surroundings(environ, "linux", tmp_path)) == first


def test_lm_studio_is_followed_where_it_has_moved(tmp_path: Path) -> None:
    """It leaves a note; one that leads nowhere is none."""
    note = tmp_path / ".lmstudio-home-pointer"
    note.write_text(f"{tmp_path / 'moved'}\n")
    assert place("lmstudio", Surroundings({}, "linux", tmp_path)) == tmp_path / LINUX["lmstudio"]
    (tmp_path / "moved").mkdir()
    assert place("lmstudio", Surroundings({}, "linux", tmp_path)) == tmp_path / "moved" / "mcp.json"


def test_environments_of_uvx_are_known() -> None:
    """Those of `uv tool install` and of projects stay."""
    assert is_temporary(PurePosixPath("/home/me/.cache/uv/archive-v0/Xb3_q/bin/python"))
    assert is_temporary(PurePosixPath("/somewhere/environments-v2/tool-1a/bin/python3"))
    assert is_temporary(PureWindowsPath(r"C:\Users\me\AppData\Local\uv\cache\archive-v0\Xb3\Scripts\python.exe"))
    assert not is_temporary(PurePosixPath("/home/me/.local/share/uv/tools/kernelrepl/bin/python"))
    assert not is_temporary(PurePosixPath("/home/me/archive-v0x/.venv/bin/python"))
