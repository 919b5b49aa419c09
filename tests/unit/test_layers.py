"""The layers of the package, proven from its source: imports point down, and every tool has one owner."""

from __future__ import annotations

import ast
import functools
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

ORDER = [
    ["", "errors", "model", "bounded_json"],
    ["outputs", "workspaces", "validation"],
    ["discovery", "packages", "sandbox", "store"],
    ["client", "kernel", "testing"],
    ["sessions"],
    ["config", "jupyter"],
    ["keeper"],
    ["mcp"],
    ["cli"],
    ["__main__"],
]
"""The floors, lowest first: a room (a package, or a module beside them) imports only from floors below its own.

The package itself is the empty name.
"""

FLOORS = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}

OF_THE_GUEST = {"guest.wire", "guest.frames"}
"""What the host may import of the code that runs in kernels."""

PROTOCOLS = {"mcp": {"mcp.server", "mcp.proxy"}, "client": {"client.connection", "client.tools", "client.result"}}
"""What of a protocol others may import: its other modules belong to itself."""

OWNERS: dict[str, set[str]] = {
    "pickle": {"guest"},
    "cloudpickle": {"guest"},
    "marshal": {"guest"},
    "sqlite3": {"store"},
    "sqlite_utils": {"store"},
    "zmq": {"keeper.keeper", "jupyter.sockets", "jupyter.gateway", "jupyter.heartbeat", "guest"},
    "jupyter_client": {"kernel", "jupyter.sockets", "jupyter.provisioner", "guest"},
    "ipykernel": {"guest"},
    "IPython": {"guest", "client.result"},
    "nh3": {"outputs.sanitize"},
    "mistune": {"outputs.markup"},
    "mcp": {"mcp", "client", "cli.demonstration"},
    "mcp_types": {"mcp", "client", "cli.demonstration"},
    "click": {"cli"},
    "prometheus_client": {"keeper.metrics"},
    "nbformat": {"cli"},
    "packaging": {"packages"},
    "uv": {"packages.uv"},
}
"""Who may import a library: modules, or packages with all in them."""

READS_ENVIRONMENT = {"__main__", "keeper", "cli", "mcp.proxy", "client", "discovery", "guest", "testing"} | {
    "jupyter.provisioner",
    "jupyter.launcher",
}
"""Who may touch the environment. In a kernel it is the session's own, saved and restored."""

PRINTS = {"cli"}
PRINTS_TO_STDERR = {"mcp.proxy", "__main__"}


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


def room(module: str) -> str:
    """The package that a module is in, or itself if it stands beside them."""
    return module.split(".")[0]


def is_in(module: str, places: set[str]) -> bool:
    """Whether a module is one of these, or lies in one."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), str(MODULES[module]))


def imports(node: ast.AST) -> Iterator[Import]:
    """All imports below a node, wherever they stand, except those for type checkers only."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        for statement in node.orelse:
            yield from imports(statement)
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


@functools.cache
def imports_of(module: str) -> tuple[Import, ...]:
    """All imports of a module."""
    return tuple(imports(tree(module)))


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


def test_every_room_has_a_floor() -> None:
    """A new room says where it stands, and one that is gone is gone here too."""
    assert {room(module) for module in MODULES} - {"guest"} == set(FLOORS)


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) != "guest"])
def test_imports_point_down(module: str) -> None:
    """A room knows only what is below it; of a kernel's code the host knows the channel only."""
    wrong = []
    for entry in imports_of(module):
        if not entry.ours or entry.target in OF_THE_GUEST:
            continue
        target = room(entry.target)
        below = target != "guest" and FLOORS[target] < FLOORS[room(module)]
        if target != room(module) and not below:
            wrong.append(f"{module}:{entry.line} imports {entry.target}")
    assert not wrong


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) == "guest"])
def test_the_guest_knows_nothing_of_the_host(module: str) -> None:
    """A kernel may run under another interpreter and is not trusted: it imports itself only."""
    assert not [entry for entry in imports_of(module) if entry.ours and room(entry.target) != "guest"]


def test_the_channel_knows_nothing_of_the_package() -> None:
    """The modules that both sides share import neither."""
    found = {entry.target for module in OF_THE_GUEST for entry in imports_of(module) if entry.ours}
    assert found <= OF_THE_GUEST


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_part_of_a_protocol_is_imported_by_that_protocol_only(protocol: str) -> None:
    """Protocols share nothing with each other."""
    wrong = [
        f"{module}:{entry.line} imports {entry.target}"
        for module in MODULES
        for entry in imports_of(module)
        if entry.ours and room(entry.target) == protocol != room(module) and entry.target not in PROTOCOLS[protocol]
    ]
    assert not wrong


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_its_owners(library: str) -> None:
    """Pickles are opened in kernels only, SQL is spoken in the store only, and so on."""
    wrong = [
        f"{module}:{entry.line}"
        for module in MODULES
        for entry in imports_of(module)
        if not entry.ours and entry.target == library and not is_in(module, OWNERS[library])
    ]
    assert not wrong


def test_the_environment_enters_at_the_edges() -> None:
    """Everything else is given what it needs."""
    wrong = [
        f"{module}:{line}"
        for module in MODULES
        if not is_in(module, READS_ENVIRONMENT)
        for line in uses_environment(tree(module))
    ]
    assert not wrong


def test_only_the_command_line_prints() -> None:
    """Standard output belongs to a protocol elsewhere; what starts may say on standard error why it ends."""
    wrong = []
    for module in MODULES:
        for call in prints(tree(module)):
            to_stderr = any(word.arg == "file" and ast.unparse(word.value) == "sys.stderr" for word in call.keywords)
            if not is_in(module, PRINTS) and not (module in PRINTS_TO_STDERR and to_stderr):
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
    loaded = loaded_by("import kernelrepl.mcp.proxy")
    assert {name for name in loaded if name.startswith("kernelrepl")} == {
        "kernelrepl",
        "kernelrepl.discovery",
        "kernelrepl.discovery.link",
        "kernelrepl.errors",
        "kernelrepl.mcp",
        "kernelrepl.mcp.proxy",
    }
    assert not loaded & {"click", "mcp", "zmq", "pydantic", "jupyter_client", "asyncio"}
    assert {name.split(".")[0] for name in loaded} - {"kernelrepl"} <= sys.stdlib_module_names


def test_a_plain_command_line_loads_the_standard_library_only() -> None:
    """A person or a script waits for it each time: what parses options is loaded where there are some."""
    loaded = loaded_by("import kernelrepl.cli.entry, kernelrepl.cli.lists, kernelrepl.cli.running")
    assert {name for name in loaded if name.startswith("kernelrepl")} == {
        "kernelrepl",
        "kernelrepl.cli",
        "kernelrepl.cli.calls",
        "kernelrepl.cli.entry",
        "kernelrepl.cli.lists",
        "kernelrepl.cli.running",
        "kernelrepl.cli.terminal",
        "kernelrepl.discovery",
        "kernelrepl.discovery.link",
        "kernelrepl.errors",
        "kernelrepl.outputs",
        "kernelrepl.outputs.terminal_text",
    }
    assert not loaded & {"click", "asyncio", "hashlib", "random", "dataclasses", "subprocess"}
    assert {name.split(".")[0] for name in loaded} - {"kernelrepl"} <= sys.stdlib_module_names


def test_a_keeper_loads_nothing_that_opens_pickles_or_runs_cells() -> None:
    """Saved bytes are only bytes to it."""
    loaded = loaded_by("import kernelrepl.keeper.keeper, kernelrepl.mcp.server")
    assert {name for name in loaded if name.startswith("kernelrepl.guest")} == {
        "kernelrepl.guest",
        "kernelrepl.guest.frames",
        "kernelrepl.guest.wire",
    }
    assert not loaded & {"cloudpickle", "IPython", "ipykernel"}
