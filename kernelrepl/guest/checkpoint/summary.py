"""A few words about a value, for those who cannot look at it: shape, columns, signature, first characters.

Never asks the value itself where that could run code of the user: no `__repr__`, no `__len__`, no property.
What is not of a type known here has no summary beyond its attributes. Runs in the kernel.
"""

from __future__ import annotations

import collections
import sys
import types
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from kernelrepl.guest.neutral import name_of

MAX_CHARS = 200
_SHOWN = 8
_TEXT_CHARS = 40
_NAME_CHARS = 40
_MAX_BITS = 200
_module_of: Callable[[type], Any] = type.__dict__["__module__"].__get__
_PLAIN = (bool, float, complex, type(None))
_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)


def summarize(value: Any) -> str:
    """One line, at most MAX_CHARS characters; empty if there is nothing to say beyond the type."""
    text = _summarize(value)
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def _summarize(value: Any) -> str:
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if kind is int:
        bits = value.bit_length()
        return repr(value) if bits <= _MAX_BITS else f"an integer of {bits} bits"
    if kind is str:
        return _text(value)
    if kind in (bytes, bytearray):
        return f"{len(value)} bytes"
    if kind in _SEQUENCES:
        return _counted(len(value), "item", (name_of(type(item)) for item in islice(value, 100)))
    if kind in _MAPPINGS:
        return _counted(len(value), "key", (_label(key) for key in islice(value, _SHOWN + 1)))
    if kind is range:
        return repr(value)
    if kind is types.FunctionType:
        return f"function {value.__name__}({', '.join(_parameters(value))})"
    if kind is types.ModuleType:
        return f"module {_module(value)}"
    if isinstance(value, type):
        bases = [name_of(base) for base in type.mro(value)[1:2] if base is not object] if kind is type else []
        return f"class {name_of(value)}" + (f"({', '.join(bases)})" if bases else "")
    return _attributes(value) if _module_of(kind) == "__main__" else _of_library(value, kind)


def _text(value: str) -> str:
    shown = repr(value[:_TEXT_CHARS])
    return shown if len(value) <= _TEXT_CHARS else f"{shown[:-1]}…{shown[-1]}, {len(value)} characters"


def _counted(count: int, what: str, labels: Iterable[str]) -> str:
    listed = list(dict.fromkeys(labels))
    more = ", …" if len(listed) > _SHOWN else ""
    shown = ": " + ", ".join(listed[:_SHOWN]) + more if listed else ""
    return f"{count} {what}{'' if count == 1 else 's'}{shown}"


def _label(key: Any) -> str:
    """A key or a column, if it is of a type whose repr is Python's own."""
    if type(key) is str:
        return repr(key[:_NAME_CHARS])
    return repr(key) if type(key) in _PLAIN or (type(key) is int and key.bit_length() < _MAX_BITS) else "…"


def _parameters(function: types.FunctionType) -> list[str]:
    code = function.__code__
    names = code.co_varnames
    positional, keyword = code.co_argcount, code.co_kwonlyargcount
    defaults = len(function.__defaults__ or ())
    found = [f"{name}=…" if at >= positional - defaults else name for at, name in enumerate(names[:positional])]
    if code.co_posonlyargcount:
        found.insert(code.co_posonlyargcount, "/")
    at = positional + keyword
    if code.co_flags & 0x04:
        found.append(f"*{names[at]}")
        at += 1
    elif keyword:
        found.append("*")
    named = function.__kwdefaults__ or {}
    found += [f"{name}=…" if name in named else name for name in names[positional : positional + keyword]]
    if code.co_flags & 0x08:
        found.append(f"**{names[at]}")
    return found


def _module(value: types.ModuleType) -> str:
    names = value.__dict__
    name, version = names.get("__name__"), names.get("__version__")
    return " ".join(part for part in (name, version) if type(part) is str)


def _of_library(value: Any, kind: type) -> str:
    """Values of numpy, pandas, polars and matplotlib, by their exact types: nothing of a subclass is called."""
    np, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if np is not None and hasattr(np, "generic"):
        if kind is np.ndarray:
            return f"ndarray {value.shape} {_dtype(value.dtype)}"
        if isinstance(value, np.generic) and _module_of(kind) == "numpy":
            return f"{value.item()!r} {_dtype(value.dtype)}" if value.dtype.kind in "biufc" else _dtype(value.dtype)
    if pandas is not None and hasattr(pandas, "DataFrame"):
        if kind is pandas.DataFrame:
            few = value.iloc[:, : _SHOWN + 1]
            columns = [f"{_column(name)} {_dtype(dtype)}" for name, dtype in few.dtypes.items()]
            return _frame("DataFrame", value.shape, columns)
        if kind is pandas.Series:
            named = "" if value.name is None else f", name {_column(value.name)}"
            return f"Series of {len(value)}: {_dtype(value.dtype)}{named}"
    module = str(_module_of(kind))
    if module.startswith("polars.") and name_of(kind) == "DataFrame":
        few = value.schema.items()
        return _frame("DataFrame", value.shape, [f"{_column(name)} {dtype}" for name, dtype in islice(few, _SHOWN + 1)])
    if module == "matplotlib.figure" and name_of(kind) == "Figure":
        width, height = value.get_size_inches() * value.dpi
        return f"Figure {width:.0f} x {height:.0f} pixels with {len(value.axes)} axes"
    return ""


def _frame(kind: str, shape: tuple[int, int], columns: list[str]) -> str:
    more = ", …" if len(columns) > _SHOWN else ""
    return f"{kind} {shape[0]} x {shape[1]}" + (f": {', '.join(columns[:_SHOWN])}{more}" if columns else "")


def _column(name: Any) -> str:
    return name[:_NAME_CHARS] if type(name) is str else _label(name)


def _dtype(dtype: Any) -> str:
    return str(dtype)[:60]


def _attributes(value: Any) -> str:
    try:
        names = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return ""
    if type(names) is not dict or not names:
        return ""
    return (
        "with "
        + ", ".join(str(name)[:_NAME_CHARS] for name in islice(names, _SHOWN) if type(name) is str)
        + (", …" if len(names) > _SHOWN else "")
    )
