"""Where each MCP host has the configuration of its user, on Linux, macOS and Windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_CLINE = "cline_mcp_settings.json"


@dataclass(frozen=True)
class Surroundings:
    """What decides where a program has its files."""

    environ: Mapping[str, str]
    platform: str
    """As `sys.platform` has it: linux, darwin or win32."""
    home: Path

    def variable(self, name: str) -> Path | None:
        """The directory that a variable names; None for one that is relative, as it means another place each time."""
        value = self.environ.get(name)
        return Path(value) if value and Path(value).is_absolute() else None

    @property
    def settings(self) -> Path:
        """Where programs of this platform have the settings of their user."""
        if self.platform == "win32":
            return self.variable("APPDATA") or self.home / "AppData" / "Roaming"
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support"
        return self.variable("XDG_CONFIG_HOME") or self.home / ".config"


def place(host: str, around: Surroundings) -> Path:
    """Return the configuration file of a host; it may be missing. Of several, the first that is there."""
    places = _PLACES[host](around)
    return next((path for path in places if path.exists()), places[0])


def _claude(around: Surroundings) -> list[Path]:
    return [around.settings / "Claude" / "claude_desktop_config.json"]


def _claude_code(around: Surroundings) -> list[Path]:
    """Where the file of its first versions is left, it reads no other."""
    chosen = around.variable("CLAUDE_CONFIG_DIR")
    first = (chosen or around.home / ".claude") / ".config.json"
    return [first if first.exists() else (chosen or around.home) / ".claude.json"]


def _cursor(around: Surroundings) -> list[Path]:
    return [around.home / ".cursor" / "mcp.json"]


def _vscode_user(around: Surroundings) -> Path:
    if portable := around.variable("VSCODE_PORTABLE"):
        return portable / "user-data" / "User"
    return (around.variable("VSCODE_APPDATA") or around.settings) / "Code" / "User"


def _vscode(around: Surroundings) -> list[Path]:
    return [_vscode_user(around) / "mcp.json"]


def _zed(around: Surroundings) -> list[Path]:
    if around.platform == "win32":
        return [around.settings / "Zed" / "settings.json"]
    usual = around.home / ".config"
    if around.platform != "darwin":
        usual = around.variable("FLATPAK_XDG_CONFIG_HOME") or around.settings
    return [usual / "zed" / "settings.json"]


def _codex(around: Surroundings) -> list[Path]:
    return [(around.variable("CODEX_HOME") or around.home / ".codex") / "config.toml"]


def _gemini(around: Surroundings) -> list[Path]:
    return [(around.variable("GEMINI_CLI_HOME") or around.home) / ".gemini" / "settings.json"]


def _windsurf(around: Surroundings) -> list[Path]:
    return [around.home / ".codeium" / "windsurf" / "mcp_config.json"]


def _cline(around: Surroundings) -> list[Path]:
    """Versions before 2026 have it in the storage of the extension of VS Code."""
    if chosen := around.variable("CLINE_MCP_SETTINGS_PATH"):
        return [chosen]
    data = around.variable("CLINE_DATA_DIR") or (around.variable("CLINE_DIR") or around.home / ".cline") / "data"
    extension = _vscode_user(around) / "globalStorage" / "saoudrizwan.claude-dev"
    return [data / "settings" / _CLINE, extension / "settings" / _CLINE]


def _lmstudio(around: Surroundings) -> list[Path]:
    """It notes in a file where it has its own, and had them in the cache once."""
    usual = [around.home / ".lmstudio" / "mcp.json", around.home / ".cache" / "lm-studio" / "mcp.json"]
    try:
        chosen = Path((around.home / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return usual
    return [chosen / "mcp.json"] if chosen.is_absolute() and chosen.is_dir() else usual


_PLACES: dict[str, Callable[[Surroundings], list[Path]]] = {
    "claude": _claude,
    "claude-code": _claude_code,
    "cursor": _cursor,
    "vscode": _vscode,
    "zed": _zed,
    "codex": _codex,
    "gemini": _gemini,
    "windsurf": _windsurf,
    "cline": _cline,
    "lmstudio": _lmstudio,
}
