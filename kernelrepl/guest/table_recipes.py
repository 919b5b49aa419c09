"""Functions that find again what a library keeps. Pickled values name them: a storage format, as `recipes` is.

Runs in the kernel.
"""

from __future__ import annotations

import functools
import importlib
import platform
import sys
from typing import Any

from kernelrepl.guest import recipes


def found_at(module: str, path: str) -> Any:
    """What is there now, in a loaded module or in one of its classes; None if there is no such place."""
    space: Any = getattr(sys.modules.get(module), "__dict__", {})
    for step in path.split("."):
        owner = space.get(step)
        space = type.__dict__["__dict__"].__get__(owner) if isinstance(owner, type) else {}
    return owner


def version(module: str) -> str:
    """The version of the library that a module belongs to; that of Python for one without."""
    found = getattr(sys.modules.get(module.partition(".")[0]), "__version__", None)
    return found if type(found) is str else platform.python_version()


def table(module: str, path: str, saved_with: str, kept: Any) -> Any:
    """A container that a library keeps, with what the session had in it; a copy, if this is another library by now.

    kept: None where nothing is put into it.
    """
    if not module:
        return kept_by_shell(recipes.shell(), path)
    importlib.import_module(module)
    found = found_at(module, path)
    if kept is None:
        return found
    if type(found) is not type(kept) or version(module) != saved_with:
        return kept
    if type(found) is list:
        found[:] = kept
    else:
        found.clear()
        found.update(kept)
    return found


def kept_by_shell(shell: Any, path: str) -> Any:
    """A container of IPython's: an attribute, or a name in a namespace."""
    owner, _, name = path.rpartition(".")
    found = getattr(shell, owner) if owner else shell
    return found[name] if isinstance(found, dict) else getattr(found, name)


def part(module: str, path: str) -> Any:
    """What is an attribute of a module, or is reached from it: `name`, `name()`, with dots between them."""
    found: Any = importlib.import_module(module)
    for step in path.split("."):
        found = getattr(found, step.removesuffix("()"))
        found = found() if step.endswith("()") else found
    return found


def part_of_shell(*steps: Any) -> Any:
    """What hangs on IPython's shell: attributes, and keys in tuples of their own."""
    return functools.reduce(
        lambda found, step: found[step[0]] if type(step) is tuple else getattr(found, step), steps, recipes.shell()
    )


def context_state(target: Any, state: tuple[Any, ...]) -> None:
    """The state of a context of `decimal`."""
    *plain, flags, traps = state
    for name, value in zip(("prec", "rounding", "Emin", "Emax", "capitals", "clamp"), plain, strict=True):
        setattr(target, name, value)
    for kept, here in ((flags, target.flags), (traps, target.traps)):
        for signal in here:
            here[signal] = signal in kept


def module_class(module: Any, kind: type) -> None:
    """The class that code of the session has given to a module."""
    module.__class__ = kind
