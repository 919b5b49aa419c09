"""The layers of the package, proven from its source: imports point down, and every tool has one owner."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import kernelrepl

ROOT = Path(kernelrepl.__file__).parent
MAX_LINES = 400

RANKS: dict[str, float] = {
    "": 0,
    "errors": 0,
    "model": 0,
    "bounded_json": 0,
    "shortening": 0.5,
    "passing": 0.5,
    "terminal_text": 0,
    "links": 0,
    "beneath": 0.3,
    "workspace_usage": 1,
    "rendezvous": 0.5,
    "trees": 0.5,
    "process": 0.5,
    "bootstrap": 0.5,
    "entrances": 0.4,
    "lifecycle": 1,
    "transcript": 1,
    "notebook": 1,
    "hosts": 1,
    "active_content": 1,
    "policy": 0.5,
    "config": 1,
    "checks": 1,
    "workspace_files": 1,
    "job": 1.5,
    "endings": 1.5,
    "remarks": 1.5,
    "store": 2,
    "kernel": 2,
    "sandbox": 2,
    "outcomes": 1.7,
    "overseer": 2.8,
    "seat": 2.9,
    "confinement": 2.7,
    "recorder": 2.5,
    "means": 2.5,
    "metrics": 2.5,
    "ledger": 2.7,
    "starting": 2.7,
    "stopping": 2.7,
    "standby": 3.2,
    "room": 2.4,
    "session": 3,
    "manager": 3.5,
    "connection": 3.6,
    "listener": 2.5,
    "notebook_files": 2.5,
    "jupyter_answers": 3.6,
    "screen": 3.6,
    "endpoint": 3.7,
    "endpoints": 3.8,
    "expiry": 3.7,
    "keeper": 4,
    "mcp_results": 4.5,
    "mcp_lines": 4.5,
    "mcp_arguments": 4.5,
    "mcp_operator": 4.7,
    "mcp_server": 5,
    "front": 5,
    "client": 5,
    "result": 5.3,
    "api": 5.5,
    "attachment": 5,
    "jupyter": 5.5,
    "relay": 5.5,
    "demo": 5.5,
    "cli": 6,
    "__main__": 7,
}
"""A module, or a package with all in it, imports only what has a lower rank; the package itself is the empty name."""

PACKAGES = ("store", "kernel", "sandbox", "guest", "cli")
"""Inside these, modules may import each other."""

OF_THE_GUEST = {"guest.wire"}
"""What the host may import of the code that runs in kernels."""

PARTS_OF = {
    part: {"mcp_server", "mcp_operator"} for part in ("mcp_results", "mcp_lines", "mcp_arguments", "mcp_operator")
}
"""Modules that belong to one face: nobody else imports them."""

OWNERS: dict[str, set[str]] = {
    "pickle": {"guest"},
    "cloudpickle": {"guest"},
    "marshal": {"guest"},
    "sqlite3": {"store"},
    "sqlite_utils": {"store"},
    "zmq": {"kernel", "keeper", "means", "listener", "endpoints", "guest"},
    "jupyter_client": {"kernel", "listener", "jupyter", "guest"},
    "ipykernel": {"guest"},
    "IPython": {"guest", "result"},
    "nh3": {"result", "active_content"},
    "mcp": {"mcp_server", "mcp_results", "mcp_arguments", "mcp_operator", "client", "api", "demo"},
    "mcp_types": {"mcp_server", "mcp_results", "mcp_lines", "mcp_arguments", "mcp_operator", "client", "demo"},
    "click": {"cli"},
    "prometheus_client": {"metrics"},
    "nbformat": {"cli"},
    "platformdirs": {"rendezvous"},
}
"""Who may import a library, by module or package of ours."""

READS_ENVIRONMENT = {"keeper", "cli", "front", "client", "rendezvous", "demo", "jupyter", "relay", "guest"}
"""Who may touch the environment. In a kernel it is the session's own, saved and restored."""

PRINTS = {"cli", "demo"}


@dataclass(frozen=True)
class Import:
    """One import statement's target: a module of ours without the package's name, or the library's top name."""

    line: int
    ours: bool
    target: str


def modules() -> dict[str, Path]:
    """Every module of the package by its name inside it."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def owner(module: str) -> str:
    """The module or package of ours that a rule speaks of."""
    return module.split(".")[0]


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), str(MODULES[module]))


def imports(node: ast.AST) -> Iterator[Import]:
    """All imports below a node, wherever they stand, except those for type checkers only."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        for child in node.orelse:
            yield from imports(child)
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield _import(node.lineno, alias.name)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative imports hide where they lead"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            is_module = name.removeprefix("kernelrepl.") in MODULES
            yield _import(node.lineno, name if is_module else str(node.module))
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


def _import(line: int, name: str) -> Import:
    top, _, rest = name.partition(".")
    return Import(line, True, rest) if top == "kernelrepl" else Import(line, False, top)


def uses_environment(node: ast.AST) -> Iterator[int]:
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and child.value.id == "os":
            if child.attr in ("environ", "environb", "getenv", "putenv", "unsetenv"):
                yield child.lineno
        elif isinstance(child, ast.ImportFrom) and child.module == "os":
            yield child.lineno


def prints(node: ast.AST) -> Iterator[ast.Call]:
    for child in ast.walk(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id == "print":
            yield child


def test_an_import_inside_a_function_is_seen() -> None:
    """What the rules below rest on: no import escapes, except one for type checkers only."""
    source = """
from typing import TYPE_CHECKING
import zmq.asyncio
if TYPE_CHECKING:
    from kernelrepl import cli
else:
    import click
def late():
    from kernelrepl import keeper, __version__
    from kernelrepl.store import reading, Store
"""
    found = [(entry.ours, entry.target) for entry in imports(ast.parse(source))]
    assert found == [
        (False, "typing"),
        (False, "zmq"),
        (False, "click"),
        (True, "keeper"),
        (True, ""),
        (True, "store.reading"),
        (True, "store"),
    ]


def test_every_module_has_a_rank() -> None:
    """A new module says where it stands, and a rank whose module is gone is gone too."""
    assert {owner(module) for module in MODULES} - {"guest"} == set(RANKS)


@pytest.mark.parametrize("module", [module for module in MODULES if owner(module) != "guest"])
def test_imports_point_down(module: str) -> None:
    """A module knows only what is below it; of a kernel's code the host knows the framing only."""
    wrong = []
    for entry in imports(tree(module)):
        if not entry.ours or entry.target in OF_THE_GUEST:
            continue
        target = owner(entry.target)
        sibling = owner(module) in PACKAGES and target == owner(module)
        below = target != "guest" and RANKS[target] < RANKS[owner(module)]
        if not (sibling or below):
            wrong.append(f"{module}:{entry.line} imports {entry.target}")
    assert not wrong


@pytest.mark.parametrize("module", [module for module in MODULES if owner(module) == "guest"])
def test_the_guest_knows_nothing_of_the_host(module: str) -> None:
    """A kernel may run under another interpreter and is not trusted: it imports itself only."""
    assert not [entry for entry in imports(tree(module)) if entry.ours and owner(entry.target) != "guest"]


def test_the_framing_knows_nothing_of_the_package() -> None:
    """The one module that both sides share imports neither."""
    assert not [entry for module in OF_THE_GUEST for entry in imports(tree(module)) if entry.ours]


@pytest.mark.parametrize("part", PARTS_OF)
def test_a_part_of_a_face_is_imported_by_that_face_only(part: str) -> None:
    """Faces share nothing with each other."""
    users = {module for module in MODULES for entry in imports(tree(module)) if entry.ours and entry.target == part}
    assert users <= PARTS_OF[part]


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_its_owners(library: str) -> None:
    """Pickles are opened in kernels only, SQL is spoken in the store only, and so on."""
    wrong = [
        f"{module}:{entry.line}"
        for module in MODULES
        for entry in imports(tree(module))
        if not entry.ours and entry.target == library and owner(module) not in OWNERS[library]
    ]
    assert not wrong


def test_the_environment_enters_at_the_edges() -> None:
    """Everything else is given what it needs."""
    wrong = [
        f"{module}:{line}"
        for module in MODULES
        if owner(module) not in READS_ENVIRONMENT
        for line in uses_environment(tree(module))
    ]
    assert not wrong


def test_only_the_command_line_prints() -> None:
    """Standard output belongs to a protocol elsewhere; the front may say on standard error why it ends."""
    wrong = []
    for module in MODULES:
        for call in prints(tree(module)):
            to_stderr = any(word.arg == "file" and ast.unparse(word.value) == "sys.stderr" for word in call.keywords)
            if owner(module) not in PRINTS and not (module == "front" and to_stderr):
                wrong.append(f"{module}:{call.lineno}")
    assert not wrong


@pytest.mark.parametrize("module", MODULES)
def test_a_module_fits_one_reading(module: str) -> None:
    """A file that has grown too long wants to be two."""
    assert len(MODULES[module].read_text().splitlines()) <= MAX_LINES


def loaded_by(statement: str) -> set[str]:
    """The names of all modules that a fresh interpreter has after a statement, and has not without it."""
    program = (
        f"import sys, json; before = set(sys.modules); {statement}; print(json.dumps([*set(sys.modules) - before]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_else() -> None:
    """Every kernel imports it at its start."""
    loaded = loaded_by("import kernelrepl")
    assert {name for name in loaded if name.startswith("kernelrepl")} == {"kernelrepl"}
    assert not loaded & {"mcp", "jupyter_client", "zmq", "pydantic", "asyncio", "json"}


def test_importing_the_front_loads_the_standard_library_only() -> None:
    """A client waits for it at every start."""
    loaded = loaded_by("import kernelrepl.front")
    assert {name for name in loaded if name.startswith("kernelrepl")} == {
        "kernelrepl",
        "kernelrepl.errors",
        "kernelrepl.front",
        "kernelrepl.rendezvous",
    }
    assert not loaded & {"click", "mcp", "zmq", "pydantic", "jupyter_client", "asyncio", "platformdirs"}
    assert {name.split(".")[0] for name in loaded} - {"kernelrepl"} <= sys.stdlib_module_names


def test_a_keeper_loads_nothing_that_opens_pickles_or_runs_cells() -> None:
    """Saved bytes are only bytes to it."""
    loaded = loaded_by("import kernelrepl.keeper, kernelrepl.mcp_server")
    assert {name for name in loaded if name.startswith("kernelrepl.guest")} == {
        "kernelrepl.guest",
        "kernelrepl.guest.wire",
    }
    assert not loaded & {"cloudpickle", "IPython", "ipykernel"}
