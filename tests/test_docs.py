"""What is written down is true: commands, tools, settings and links of the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernelrepl import __version__
from kernelrepl.cli import cli
from kernelrepl.cli.kernelspecs import kernelspec
from kernelrepl.config import PREFIX, Settings
from kernelrepl.mcp_server import Tools

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_test_command_of_the_readme_to_the_letter() -> None:
    """Whoever types it gets what CI gets."""
    (command,) = re.findall(r"^python3 -m venv .*tests\.gate$", README, re.M)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    """And no other."""
    rows = dict(re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \| (.+?) \|", README, re.M))
    in_the_file_only = set(re.findall(r"^\| `([a-z_]+)`, in `config.toml` only \|", README, re.M))
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


def test_every_command_is_in_the_readme() -> None:
    """And every command in the readme exists, options included."""
    used = set(re.findall(r"^`?kernelrepl ([a-z-]+)", README, re.M))
    assert used == {name for name, command in cli.commands.items() if not command.hidden}
    commands = [*cli.commands.values(), *kernelspec.commands.values()]
    options = {option for command in commands for p in command.params for option in p.opts}
    section = README.split("## Use it from a terminal")[1].split("\n## ")[0]
    for option in re.findall(r"(--[a-z][a-z-]+)", section):
        assert option in options


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_every_local_link_of_the_readme_leads_somewhere(link: str) -> None:
    """Links are relative to the readme."""
    assert (ROOT / link).exists()


def test_the_changelog_knows_this_version() -> None:
    """Its newest entry is the version that is installed."""
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[0]
    assert newest == __version__
