"""How a process of ours starts in an interpreter that need not have this package: the guest's code travels alone."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
GUEST = PACKAGE / "guest"
"""All that a kernel needs of this package."""

# A package of our name with nothing but a place to look for the guest in: neither what else is in ours nor what is
# installed beside it can be imported through it.
_ENTER = (
    "import importlib.machinery, importlib.util, runpy, sys;"
    " spec = importlib.machinery.ModuleSpec('kernelrepl', None, is_package=True);"
    " spec.submodule_search_locations = [sys.argv.pop(1)];"
    " sys.modules['kernelrepl'] = importlib.util.module_from_spec(spec);"
    " runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def command(python: str, module: str, *arguments: str) -> list[str]:
    """Run a module of the guest's with an interpreter, as `-m` would where the package is installed."""
    return [python, "-P", "-c", _ENTER, str(PACKAGE), module, *arguments]
