"""What is written down is true: commands, tools, settings and links of the README and of docs/."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from kernelrepl import __version__
from kernelrepl.cli.commands import cli
from kernelrepl.cli.kernelspecs import kernelspec
from kernelrepl.cli.mcp_hosts import HOSTS, NAME, snippet
from kernelrepl.config import PREFIX, Settings
from kernelrepl.guest.frames import FRAMES, NOTHING, Frame
from kernelrepl.mcp.server import Tools
from tests.links import links

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
CLI, SETTINGS, PROTOCOL = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("cli", "settings", "protocol"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINKS = [(page, link) for page in PAGES for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text())]


@pytest.mark.parametrize(("page", "lines"), [("README.md", 180), ("ARCHITECTURE.md", 150)])
def test_what_is_read_first_is_short(page: str, lines: int) -> None:
    """The rest is in docs/."""
    assert len((ROOT / page).read_text().splitlines()) <= lines


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_ci_runs_the_test_command_to_the_letter(page: str) -> None:
    """Whoever types it gets what CI gets."""
    run = (ROOT / ".ci" / "run").read_text()
    lines = re.findall(r"^(?:python3 -m venv|\.venv/bin/python -m tests\.gate).*$", (ROOT / page).read_text(), re.M)
    own = [line for line in lines if "demo" not in line]
    assert own
    assert all(line in run for line in own)


def test_every_setting_is_there_with_its_default() -> None:
    """And no other."""
    rows = dict(re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \| (.+?) \|", SETTINGS, re.M))
    in_the_file_only = set(re.findall(r"^\| `([a-z_]+)`, in `config.toml` only \|", SETTINGS, re.M))
    assert set(rows) | {name.upper() for name in in_the_file_only} == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if field.default_factory is None and isinstance(field.default, int | float) and name != "python":
            assert float(rows[name.upper()].strip("`")) == field.default


def test_every_tool_is_in_the_readme_with_its_arguments() -> None:
    """And no other."""
    found = dict(re.findall(r"^\| `(python_\w+)\((.*?)\)`", README, re.M))
    tools = {name: method for name, method in vars(Tools).items() if name.startswith("python_")}
    assert set(found) == set(tools)
    for name, arguments in found.items():
        parameters = tools[name].__code__.co_varnames[: tools[name].__code__.co_argcount]
        assert [part.strip() for part in arguments.split(",") if part] == [
            parameter for parameter in parameters if parameter not in ("self", "ctx")
        ]


def test_every_command_is_there() -> None:
    """And every command that is named exists, options included."""
    used = set(re.findall(r"^`?kernelrepl ([a-z-]+)", CLI, re.M))
    cli.load_all()
    known = {name for name, command in cli.commands.items() if not command.hidden}
    assert used == known
    typed = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    assert set(re.findall(r"^(?:\.venv/bin/)?kernelrepl ([a-z-]+)", typed, re.M)) <= known
    commands = [*cli.commands.values(), *kernelspec.commands.values()]
    options = {option for command in commands for p in command.params for option in p.opts}
    for option in re.findall(r"(--[a-z][a-z-]+)", CLI):
        assert option in options


def test_every_frame_of_the_channel_is_there() -> None:
    """And no other, with who sends it, when, its fields and what it carries."""
    section = PROTOCOL.split("## The channel")[1].split("\n## ")[0]
    assert re.findall(r"^\| `.*\|$", section, re.M) == [row_of(frame) for frame in FRAMES.values()]


def row_of(frame: Frame) -> str:
    """The line of a frame in the table for people."""
    fields = (f"`{name}`" + ("" if kind.is_required else " (may be missing)") for name, kind in frame.fields.items())
    carries = "" if frame.carries == NOTHING else frame.carries
    return f"| `{frame.type}` | {frame.sender} | {frame.when} | {', '.join(fields)} | {carries} |"


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda value: getattr(value, "name", value))
def test_every_local_link_leads_somewhere(page: Path, link: str) -> None:
    """To a file, seen from the page, and to a heading in it."""
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    assert target.exists()
    if heading:
        titles = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
        assert heading in {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


def test_a_link_into_a_host_carries_what_config_prints() -> None:
    """Each is opened as its host does; `python -m tests.links` makes them."""
    found = dict(re.findall(r"^\[(\w+)\]: (https://.+)$", README, re.M))
    assert found == links()
    carried = {host: parse_qs(urlsplit(link).query, strict_parsing=True) for host, link in found.items()}
    scheme, _, sent = carried.pop("vscode")["url"][0].partition("?")
    assert scheme == "vscode:mcp/install"
    opened = {host: json.loads(base64.b64decode(query["config"][0])) for host, query in carried.items()}
    assert {query["name"][0] for query in carried.values()} == {NAME}
    opened["vscode"] = json.loads(unquote(sent))
    assert opened["vscode"].pop("name") == NAME
    for host, entry in opened.items():
        assert {HOSTS[host].servers: {NAME: entry}} == json.loads(snippet(host, ["uvx", "kernelrepl"], {}))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_is_named_is_there(page: Path) -> None:
    """Paths in backticks, as they are seen from the package or from the root."""
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text()):
        assert (ROOT / path).exists() or (ROOT / "kernelrepl" / path).exists(), path


def test_the_changelog_knows_this_version() -> None:
    """Its newest entry is the version that is installed."""
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[0]
    assert newest == __version__
