"""Whether a value is data and nothing else: loading it runs no code of the session, reads nothing that such code could
have changed, and leaves no trace but the value. When it is loaded does not matter then. Runs in the kernel.
"""

from __future__ import annotations

import types
from typing import Any

_PACKAGES = frozenset({"numpy", "pandas", "pyarrow", "polars", "scipy", "datetime", "decimal", "fractions", "uuid"})
_PACKAGES |= {"collections", "pathlib", "zoneinfo", "ipaddress", "kernelrepl", "copyreg", "_codecs", "pytz", "dateutil"}
"""Packages whose classes, when they are loaded, call nothing but what is in these packages."""
_BUILTINS = (complex, range, slice, type(...), object, bytearray, types.NoneType)
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType)
"""Kinds of objects that are saved by their names."""

_known: dict[type, bool] = {}


def is_inert(obj: Any) -> bool:
    """Whether an object itself, without what it holds, is mere data. One of plain built-in kinds always is."""
    kind = type(obj)
    found = _known.get(kind)
    if found is None:
        if issubclass(kind, _NAMED) or kind.__name__ == "cython_function_or_method":
            return obj in _BUILTINS_SAVED if kind is type and obj.__module__ == "builtins" else _is_of_packages(obj)
        found = _known[kind] = kind in _BUILTINS or (kind.__module__ != "builtins" and _is_of_packages(kind))
    return found


_BUILTINS_SAVED = frozenset({*_BUILTINS, int, float, bool, str, bytes, list, dict, set, frozenset, tuple})


def _is_of_packages(named: Any) -> bool:
    module = named.__module__
    return isinstance(module, str) and module.partition(".")[0] in _PACKAGES
