"""What one piece of code assigns to, which setters it calls, and what its names are bound to. Runs in the kernel."""

from __future__ import annotations

import dis
import functools
import re
import sys
import types
from collections.abc import Iterator

KNOWN = frozenset({"rcParams", "_global_config", "_registered_options", "Gcf", "dispatch_table", "modules", "environ"})
"""What is saved in other ways, or is of the process."""
KNOWN |= {"_default_context", "adapters", "converters", "_dialects", "defaults", "path", "argv", "figs"}
KNOWN |= {"displayhook", "excepthook", "stdin", "stdout", "stderr", "path_importer_cache", "tracebacklimit"}
KNOWN |= {"dont_write_bytecode"}
KNOWN |= {"_active", "_limbo", "_dangling", "_shutdown_locks", "_children", "_threads_queues", "_finalizer_registry"}
KNOWN |= {"_afterfork_registry", "_all_tasks", "_scheduled_tasks", "_eager_tasks", "_current_tasks"}
_SETS = re.compile(
    r"_*(set|manual_|reset|use|enable|disable|regist|unregist|install|uninstall|patch|config|init|activate|deactivate|switch|add_"
    r"|remove_|apply|push|pop_|textdomain|bind_?textdomain|addaudithook|sigint|pthread_sigmask|alarm|putenv|freeze|chroot"
    r"|openlog|dump_traceback_later|parse_and_bind)|.*(register|accessor|option|config|hook|theme|default)",
    re.IGNORECASE,
)
"""Names of what sets something."""
_CHANGES = frozenset({"append", "insert", "extend", "update", "setdefault", "pop", "clear", "remove", "discard", "add"})
_STORES = {"STORE_ATTR": 1, "DELETE_ATTR": 1, "STORE_SUBSCR": 2, "DELETE_SUBSCR": 2}
"""How many values lie on the stack from what is assigned to on."""
_STORE_CODES = frozenset(dis.opmap[name] for name in _STORES)
_LOADS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_FAST", "LOAD_FROM_DICT")
TEXT = ":"
"""What the name of a module begins with that code has as a text (`sys.modules["m"].x = 1`)."""
_MODULE = re.compile(r"[a-zA-Z_][\w.]{0,80}")
_BUILTIN = frozenset({"exec", "eval", "compile"})
_RUNS_TEXTS = _BUILTIN | {"run_path", "run_line_magic"}
_BINDS = ("STORE_NAME", "STORE_GLOBAL", "STORE_FAST", "STORE_DEREF")
_DOES = frozenset(
    number for name, number in dis.opmap.items() if name.startswith(("CALL", "STORE_ATTR", "STORE_SUBSCR", "BINARY"))
)
"""What code does that does more than import."""
IMPORT = dis.opmap["IMPORT_NAME"]
GIVEN_NAMES = frozenset({"setattr", "delattr", "__setattr__", "__delattr__", "vars", "__dict__"})
"""What assigns to what it is given."""


@functools.lru_cache(4096)
def sets(name: str) -> bool:
    """Whether a function of this name may set something."""
    return name in _CHANGES or _SETS.match(name) is not None


def missing_in(code: types.CodeType) -> Iterator[str]:
    """Libraries of which code imports something that has not been loaded."""
    if IMPORT in code.co_code[::2]:
        for name, parts in _imported_in(code):
            module = sys.modules.get(name)
            if module is None or any(part not in vars(module) for part in parts):
                yield name.partition(".")[0]


def loaded_by(code: types.CodeType) -> list[str]:
    """Modules that code loads, if it does nothing but import."""
    if IMPORT not in code.co_code[::2] or not _DOES.isdisjoint(code.co_code[::2]):
        return []
    names = [step.argval for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"]
    return [name for name in names if name not in sys.modules]


@functools.lru_cache(4096)
def _imported_in(code: types.CodeType) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Modules that code imports, and what it imports from each, if it goes on to do something else."""
    found: list[tuple[str, list[str]]] = []
    others = False
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            found.append((step.argval, []))
        elif step.opname == "IMPORT_FROM" and found:
            found[-1][1].append(step.argval)
        others = others or step.opname.startswith(("CALL", "STORE_ATTR", "STORE_SUBSCR", "LOAD_ATTR"))
    return tuple((name, tuple(parts)) for name, parts in found) if others else ()


def runs_texts(code: types.CodeType) -> bool:
    """Whether code runs texts, or files of the session that a text names."""
    if _RUNS_TEXTS.isdisjoint(code.co_names):
        return False
    loaded = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_NAME", "LOAD_GLOBAL")}
    return not (_BUILTIN.isdisjoint(loaded) and (_RUNS_TEXTS - _BUILTIN).isdisjoint(code.co_names))


@functools.lru_cache(4096)
def setters_in(code: types.CodeType) -> tuple[str, ...]:
    return tuple(filter(sets, code.co_names))


@functools.lru_cache(4096)
def names_set_upon(code: types.CodeType) -> frozenset[str]:
    may = any(map(sets, code.co_names)) or not _STORE_CODES.isdisjoint(code.co_code[::2])
    return frozenset(_set_upon(code)) if may else frozenset()


def _set_upon(code: types.CodeType) -> Iterator[str]:
    """What code calls the things of which it assigns to a part, or calls a setter."""
    steps = list(dis.get_instructions(code))
    if not GIVEN_NAMES.isdisjoint(code.co_names):
        yield from code.co_names
    imported = ""
    aliases: dict[str, str] = {}
    for index, step in enumerate(steps):
        name = step.argval
        if step.opname == "IMPORT_NAME":
            imported = name
        elif step.opname in _BINDS and imported and steps[index - 1].opname in ("IMPORT_NAME", "IMPORT_FROM"):
            aliases[name] = imported
        if step.opname in _STORES:
            end = index - 1
            if _STORES[step.opname] == 2:
                end = _start(steps, end) - 1
            yield from _names_of(steps, end, aliases)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(name, str) and sets(name):
            deep = steps[index - 1].opname in ("LOAD_ATTR", "LOAD_METHOD")
            if name not in _CHANGES or deep:
                yield from _names_of(steps, index - 1, aliases)
        elif step.opname in _LOADS and isinstance(name, str) and sets(name) and name not in _CHANGES:
            yield aliases.get(name, name)


def _start(steps: list[dis.Instruction], end: int) -> int:
    """Where the expression begins whose value the instruction at `end` leaves on the stack."""
    wanted, index = 1, end
    while wanted > 0 and index >= 0:
        wanted -= dis.stack_effect(steps[index].opcode, steps[index].arg)
        index -= 1
    return index + 1


def _names_of(steps: list[dis.Instruction], end: int, aliases: dict[str, str]) -> Iterator[str]:
    """The names in the expression that ends there; none if it leads to what is saved anyway."""
    expression = steps[_start(steps, end) : end + 1]
    if any(isinstance(step.argval, str) and step.argval in KNOWN and step.argval != "modules" for step in expression):
        return
    for step in expression:
        if step.opname.startswith(_LOADS) and isinstance(step.argval, str):
            yield aliases.get(step.argval, step.argval)
        elif step.opname == "LOAD_CONST" and isinstance(step.argval, str) and _MODULE.fullmatch(step.argval):
            yield TEXT + step.argval


_HELD = re.compile(
    rb"(?:%b|%b)\0*(?:%b|%b)"
    % tuple(re.escape(bytes([dis.opmap[name]])) for name in ("LOAD_ATTR", "IMPORT_FROM", "STORE_NAME", "STORE_GLOBAL"))
)
"""Code that binds a name to an attribute."""


@functools.lru_cache(4096)
def bound_in(code: types.CodeType) -> tuple[tuple[str, ...], ...]:
    """Names that code binds to attributes of modules: the name, what it calls the module, and the attributes."""
    if _HELD.search(code.co_code[::2]) is None:
        return ()
    found: list[tuple[str, ...]] = []
    chain: list[str] = []
    imported = ""
    for step in dis.get_instructions(code):
        name = step.argval
        if step.opname == "IMPORT_NAME":
            imported, chain = name, []
        elif step.opname == "IMPORT_FROM":
            chain = [imported, name]
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            chain = [name]
        elif step.opname == "LOAD_ATTR" and chain:
            chain.append(name)
        elif step.opname in ("STORE_NAME", "STORE_GLOBAL") and len(chain) > 1:
            found.append((name, *chain))
            chain = []
        else:
            chain = []
    return tuple(found)
