"""What is published besides the package has the form that its readers ask for, and says what the package says.

The forms are written down here as far as our files use them. Where they come from is beside each.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kernelrepl import __version__
from kernelrepl.cli.mcp_hosts import UVX, snippet
from kernelrepl.config import PREFIX, Settings
from kernelrepl.mcp.server import Tools

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "examples" / "manifests"
PLUGIN, BUNDLE = MANIFESTS / "claude-plugin", MANIFESTS / "mcpb"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = (ROOT / ".github" / "workflows" / "release.yml").read_text()

TEXT = {"type": "string", "minLength": 1}
EXACT = {"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+([a-z0-9.+-]*)$"}
WORD = {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"}
PERSON = {"type": "object", "properties": {"name": TEXT}, "required": ["name"], "additionalProperties": False}


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these fields and no other."""
    fields = {"properties": {**required, **optional}, "required": list(required)}
    return {"type": "object", **fields, "additionalProperties": False}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


SCHEMA_URL = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
STDIO = closed({"type": {"const": "stdio"}})
VARIABLE = closed({"name": TEXT}, description=TEXT, format={"enum": ["string", "number", "boolean", "filepath"]})
PACKAGE = closed(
    {"registryType": {"const": "pypi"}, "identifier": WORD, "version": EXACT, "transport": STDIO},
    registryBaseUrl={"const": "https://pypi.org"},
    runtimeHint={"enum": ["uvx"]},
    environmentVariables=listed(VARIABLE),
)
SERVER = closed(
    {
        "name": {"type": "string", "pattern": "^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$", "minLength": 3, "maxLength": 200},
        "description": {**TEXT, "maxLength": 100},
        "version": EXACT,
    },
    **{"$schema": {"const": SCHEMA_URL}, "title": {**TEXT, "maxLength": 100}, "packages": listed(PACKAGE)},
)
"""As SCHEMA_URL says."""

PLUGIN_FORM = closed(
    {"name": WORD}, version=EXACT, description=TEXT, author=PERSON, license=TEXT, keywords=listed(TEXT)
)
MARKETPLACE = closed(
    {
        "name": WORD,
        "owner": PERSON,
        "plugins": listed(closed({"name": WORD, "source": {"type": "string", "pattern": r"^\./"}}, description=TEXT)),
    }
)
"""As https://code.claude.com/docs/en/plugins-reference and .../plugin-marketplaces say."""

COMMAND = closed({"command": TEXT}, args={"type": "array", "items": {"type": "string"}})
MANIFEST = closed(
    {
        "manifest_version": {"const": "0.4"},
        "name": WORD,
        "version": EXACT,
        "description": TEXT,
        "author": PERSON,
        "server": closed({"type": {"const": "uv"}, "entry_point": TEXT}, mcp_config=COMMAND),
    },
    display_name=TEXT,
    license=TEXT,
    keywords=listed(TEXT),
    tools=listed(closed({"name": TEXT}, description=TEXT)),
    compatibility=closed(
        {},
        platforms=listed({"enum": ["darwin", "win32", "linux"]}),
        runtimes=closed({}, python=TEXT),
    ),
)
"""As https://github.com/modelcontextprotocol/mcpb/blob/main/schemas/mcpb-manifest-v0.4.schema.json says."""

FORMS = {
    "server.json": SERVER,
    ".claude-plugin/marketplace.json": MARKETPLACE,
    "claude-plugin/.claude-plugin/plugin.json": PLUGIN_FORM,
    "mcpb/manifest.json": MANIFEST,
}


def found(path: str) -> Any:
    """A manifest as it is."""
    return json.loads((MANIFESTS / path).read_text())


@pytest.mark.parametrize("path", FORMS)
def test_a_manifest_has_its_form(path: str) -> None:
    """And the form refuses one with a field that nobody knows."""
    jsonschema.Draft202012Validator.check_schema(FORMS[path])
    jsonschema.validate(found(path), FORMS[path])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**found(path), "surprise": 1}, FORMS[path])


def test_names_versions_and_descriptions_are_those_of_the_package() -> None:
    """The description is the beginning of that of the package, as the registry allows 100 characters."""
    server, plugin, manifest = (
        found("server.json"),
        found("claude-plugin/.claude-plugin/plugin.json"),
        found("mcpb/manifest.json"),
    )
    [package] = server["packages"]
    [offered] = found(".claude-plugin/marketplace.json")["plugins"]
    bundle = tomllib.loads((BUNDLE / "pyproject.toml").read_text())["project"]
    versions = [each["version"] for each in (server, package, plugin, manifest, bundle)]
    assert set(versions) == {__version__}
    assert bundle["dependencies"] == [f"{PROJECT['name']}=={__version__}"]
    names = [server["name"].partition("/")[2], package["identifier"], plugin["name"], manifest["name"], offered["name"]]
    assert set(names) == {PROJECT["name"]}
    assert len({each["description"] for each in (server, plugin, manifest, offered)}) == 1
    assert PROJECT["description"].startswith(server["description"].partition(",")[0])
    assert {plugin["license"], manifest["license"]} == {PROJECT["license"]}
    assert {bundle["requires-python"], manifest["compatibility"]["runtimes"]["python"]} == {PROJECT["requires-python"]}


def test_the_registry_finds_its_name_in_the_readme() -> None:
    """It believes whoever may change what PyPI shows."""
    assert f"mcp-name: {found('server.json')['name']}" in (ROOT / PROJECT["readme"]).read_text()


def test_settings_and_tools_that_are_named_exist() -> None:
    """And all tools are named."""
    variables = found("server.json")["packages"][0]["environmentVariables"]
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert {each["name"] for each in variables} <= known
    tools = {name for name in vars(Tools) if name.startswith("python_")}
    assert {each["name"] for each in found("mcpb/manifest.json")["tools"]} == tools
    skill = (PLUGIN / "skills" / "kernelrepl" / "SKILL.md").read_text()
    assert set(re.findall(r"\bpython_\w+", skill)) == tools


def test_the_plugin_starts_what_config_prints() -> None:
    """For uvx, as a plugin has no other way to install a package."""
    assert json.loads((PLUGIN / ".mcp.json").read_text()) == json.loads(snippet("claude-code", [UVX, "kernelrepl"], {}))
    [offered] = found(".claude-plugin/marketplace.json")["plugins"]
    assert (MANIFESTS / offered["source"]).resolve() == PLUGIN


def test_the_skill_is_short_and_says_when_to_use_it() -> None:
    """Its description is all that a model sees before it reads it."""
    path = PLUGIN / "skills" / "kernelrepl" / "SKILL.md"
    _, front, text = path.read_text().split("---\n", 2)
    head = yaml.safe_load(front)
    assert head.keys() == {"name", "description"}
    assert head["name"] == path.parent.name
    assert "Use it to" in head["description"]
    assert len(head["description"]) <= 1024
    assert len(path.read_text().splitlines()) <= 60
    assert text.startswith("\n# ")


def test_the_bundle_has_what_its_host_runs() -> None:
    """The file that it names is our server."""
    server = found("mcpb/manifest.json")["server"]
    assert server["mcp_config"]["args"][-1] == server["entry_point"]
    line = [sys.executable, str(BUNDLE / server["entry_point"]), "--version"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60)
    assert __version__ in done.stdout


def test_a_release_is_built_and_uploaded_on_a_tag() -> None:
    """PyPI trusts the workflow, so that there is no key of it; only the job that uploads may prove who it is."""
    workflow = yaml.safe_load(WORKFLOW)
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    assert "permissions" not in build
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert "with" not in publish["steps"][-1]
    assert "secrets." not in WORKFLOW
    runs = [step.get("run", "") for step in build["steps"]]
    assert any("python -m build" in run for run in runs[runs.index(version_check()) + 1 :])


def version_check() -> str:
    """What the workflow runs before it builds anything."""
    steps = yaml.safe_load(WORKFLOW)["jobs"]["build"]["steps"]
    [run] = [step["run"] for step in steps if step.get("name") == "The tag is the version"]
    return str(run)


@pytest.mark.parametrize(("tag", "is_right"), [(f"v{__version__}", True), (__version__, False), ("v0.0.9", False)])
def test_a_tag_that_is_not_the_version_builds_nothing(tag: str, is_right: bool) -> None:
    """The step is run here as it is written there."""
    path = f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
    done = subprocess.run(
        ["bash", "-e", "-c", version_check()],
        env={"PATH": path, "GITHUB_REF_NAME": tag},
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) == is_right
