"""Settings of Python and of its own library. Runs in the kernel."""

from __future__ import annotations

import codecs
import contextlib
import copyreg
import gc
import locale
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
import types
import warnings
from collections.abc import Iterator
from typing import Any

from kernelrepl.guest import depth
from kernelrepl.guest.neutral import is_a
from kernelrepl.guest.origin import is_of_session
from kernelrepl.guest.settings.options_table import Options, remembered


def _interpreter() -> dict[str, Any]:
    return {
        "setrecursionlimit": depth.users_limit(),
        "setswitchinterval": sys.getswitchinterval(),
        "set_int_max_str_digits": sys.get_int_max_str_digits(),
        "tracebacklimit": getattr(sys, "tracebacklimit", None),
        "dont_write_bytecode": sys.dont_write_bytecode,
    }


def _set_interpreter(key: str, value: Any) -> None:
    if key.startswith("set"):
        getattr(sys, key)(value)
    else:
        setattr(sys, key, value)


def _collector() -> dict[str, Any]:
    return {"enabled": gc.isenabled(), "threshold": gc.get_threshold(), "debug": gc.get_debug()}


def _set_collector(key: str, value: Any) -> None:
    if key == "enabled":
        (gc.enable if value else gc.disable)()
    elif key == "threshold":
        gc.set_threshold(*value)
    else:
        gc.set_debug(value)


def _umask() -> dict[str, int]:
    mask = os.umask(0o077)  # there is no other way to ask; a thread that makes a file meanwhile makes it private
    os.umask(mask)
    return {"umask": mask}


def _stack_size() -> dict[str, int]:
    size = threading.stack_size()  # to ask is to set it to nothing
    threading.stack_size(size)
    return {"stack_size": size}


def _locale() -> dict[str, str]:
    return {"setlocale": locale.setlocale(locale.LC_ALL)}


def _timeout() -> dict[str, float | None]:
    return {"setdefaulttimeout": socket.getdefaulttimeout()}


_LIMITS = {number: name for name, number in vars(resource).items() if name.startswith("RLIMIT_")}


def _all_limits() -> list[tuple[int, int]]:
    return list(map(resource.getrlimit, _LIMITS))


def _limits() -> dict[str, Any]:
    return dict(zip(_LIMITS.values(), _all_limits(), strict=True))


def _scheduling() -> dict[str, Any]:
    return {"nice": os.getpriority(os.PRIO_PROCESS, 0), "sched_setaffinity": os.sched_getaffinity(0)}


# Warnings

_ENTRY = tuple[str, tuple[str, int] | None, type[Warning], tuple[str, int] | None, int]


def _pattern(found: Any) -> tuple[str, int] | None:
    # 3.14 has texts here, and matches them whole.
    return None if found is None else (found.pattern, found.flags) if isinstance(found, re.Pattern) else (found, -1)


_known_filters: tuple[list[Any], dict[str, Any]] = ([], {"filters": []})


def _filters() -> dict[str, Any]:
    global _known_filters
    if _known_filters[0] != warnings.filters:
        found = [(a, _pattern(m), c, _pattern(o), n) for a, m, c, o, n in warnings.filters]
        _known_filters = (list(warnings.filters), {"filters": found})
    return _known_filters[1]


def _set_filters(key: str, value: list[_ENTRY]) -> None:
    def compiled(found: tuple[str, int] | None) -> Any:
        return found and (found[0] if found[1] == -1 else re.compile(*found))

    warnings.resetwarnings()  # so that what has been decided by the old ones is forgotten
    filters: Any = warnings.filters
    filters.extend((a, compiled(m), c, compiled(o), n) for a, m, c, o, n in value)


# Others

_DIALECT = (
    "delimiter",
    "quotechar",
    "escapechar",
    "doublequote",
    "skipinitialspace",
    "lineterminator",
    "quoting",
    "strict",
)


def _csv() -> dict[str, Any]:
    csv: Any = sys.modules["csv"]
    found: dict[str, Any] = {}
    for name in csv.list_dialects():
        dialect = csv.get_dialect(name)
        found[name] = {part: getattr(dialect, part) for part in _DIALECT}
    return {**found, "field_size_limit()": csv.field_size_limit()}


def _set_csv(key: str, value: Any) -> None:
    csv: Any = sys.modules["csv"]
    if key == "field_size_limit()":
        csv.field_size_limit(value)
    else:
        csv.register_dialect(key, **value)


def _given_csv() -> dict[str, Any]:
    common = {"delimiter": ",", "quotechar": '"', "escapechar": None, "doublequote": True, "skipinitialspace": False}
    excel = {**common, "lineterminator": "\r\n", "quoting": 0, "strict": False}
    unix = {**excel, "quoting": 1, "lineterminator": "\n"}
    return {"excel": excel, "excel-tab": {**excel, "delimiter": "\t"}, "unix": unix, "field_size_limit()": 131072}


_CONTEXT = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def _decimal() -> dict[str, Any]:
    context = sys.modules["decimal"].getcontext()
    traps = sorted(signal.__name__ for signal, trapped in context.traps.items() if trapped)
    return {**{name: getattr(context, name) for name in _CONTEXT}, "traps": traps}


def _set_decimal(key: str, value: Any) -> None:
    decimal: Any = sys.modules["decimal"]
    context = decimal.getcontext()
    if key == "traps":
        for one in context.traps:
            context.traps[one] = one.__name__ in value
    else:
        setattr(context, key, value)


def _given_decimal() -> dict[str, Any]:
    return {
        "prec": 28, "rounding": "ROUND_HALF_EVEN", "Emin": -999999, "Emax": 999999, "capitals": 1, "clamp": 0,
        "traps": ["DivisionByZero", "InvalidOperation", "Overflow"],
    }  # fmt: skip


_SIGNALS = sorted(signal.valid_signals() - {signal.SIGINT, signal.SIGKILL, signal.SIGSTOP})
"""SIGINT is the way to stop a cell; what code puts there is for that cell alone."""


def _all_handlers() -> list[Any]:
    return list(map(handler_of, _NAMES))


def _signals() -> dict[str, Any]:
    return {name: handler for number, name in _NAMES.items() if (handler := handler_of(number)) is not None}


def _set_signal(key: str, value: Any) -> None:
    signal.signal(signal.Signals[key], value)


handler_of: Any = sys.modules["_signal"].getsignal
"""Without an enumeration for each answer."""
_NAMES = {int(number): number.name for number in signal.Signals if number in _SIGNALS}


def _own_of(module: str, attribute: str) -> Any:
    """Reads the entries of a library's table that are of the session."""
    before: dict[Any, Any] = {}
    found: dict[Any, Any] = {}

    def read() -> dict[Any, Any]:
        nonlocal before, found
        table = getattr(sys.modules[module], attribute)
        if before != table:
            before = dict(table)
            found = {
                key: value
                for key, value in before.items()
                if is_of_session(value) or any(map(is_of_session, key if isinstance(key, tuple) else (key,)))
            }
        return found

    return read


def _set_adapter(key: Any, value: Any) -> None:
    sys.modules["sqlite3"].register_adapter(key[0], value)


def _set_converter(key: str, value: Any) -> None:
    sys.modules["sqlite3"].register_converter(key, value)


error_handlers: set[str] = set()
"""Names that code of the session may have registered: there is no table of them to be asked for."""


def _error_handlers() -> dict[str, Any]:
    found = {}
    for name in error_handlers:
        with contextlib.suppress(LookupError):
            found[name] = codecs.lookup_error(name)
    return {name: handler for name, handler in found.items() if is_of_session(handler)}


def _set_error_handler(key: str, value: Any) -> None:
    codecs.register_error(key, value)
    error_handlers.add(key)


registering: set[type] = set()
"""Abstract classes with which code of the session may have registered its own."""


def _registered() -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for abstract in registering:
        members = [
            cls
            for one in sys.modules["_abc"]._get_dump(abstract)[0]
            if (cls := one()) is not None and is_of_session(cls)
        ]
        for cls in members:
            found[abstract, cls] = True
    return found


def _set_registered(key: Any, value: Any) -> None:
    abstract, cls = key
    abstract.register(cls)
    registering.add(abstract)


def _methods() -> dict[str, Any]:
    return {"start method": sys.modules["multiprocessing.context"]._default_context.get_start_method(allow_none=True)}


def _set_method(key: str, value: Any) -> None:
    sys.modules["multiprocessing"].set_start_method(value, force=True)


PYTHON = (
    Options("sys", "sys", _interpreter, _set_interpreter),
    Options("gc", "gc", _collector, _set_collector),
    Options("os", "os", _umask, lambda key, value: os.umask(value)),
    Options("threading", "threading", _stack_size, lambda key, value: threading.stack_size(value)),
    Options("time", "time", lambda: {"zone": time.tzname}, lambda key, value: time.tzset()),
    Options("locale", "locale", _locale, lambda key, value: locale.setlocale(locale.LC_ALL, value)),
    Options("socket", "socket", _timeout, lambda key, value: socket.setdefaulttimeout(value)),
    Options("warnings", "warnings", _filters, _set_filters),
    Options("resource", "resource", remembered(_all_limits, _limits), None),
    Options("tracemalloc", "tracemalloc", lambda: {"start": sys.modules["tracemalloc"].is_tracing()}, None),
    Options("faulthandler", "faulthandler", lambda: {"enable": sys.modules["faulthandler"].is_enabled()}, None),
    Options("os.process", "os", _scheduling, None),
    Options("signal", "signal", remembered(_all_handlers, _signals), _set_signal),
    Options("csv", "csv", _csv, _set_csv, _given_csv),
    Options("decimal", "decimal", _decimal, _set_decimal, _given_decimal),
    Options("multiprocessing", "multiprocessing.context", _methods, _set_method, lambda: {"start method": None}),
    Options("copyreg", "copyreg", _own_of("copyreg", "dispatch_table"), copyreg.dispatch_table.__setitem__),
    Options("sqlite3.adapter", "sqlite3", _own_of("sqlite3", "adapters"), _set_adapter, dict),
    Options("sqlite3.converter", "sqlite3", _own_of("sqlite3", "converters"), _set_converter, dict),
    Options("codecs.register_error", "codecs", _error_handlers, _set_error_handler),
    Options("ABC.register", "abc", _registered, _set_registered),
)  # fmt: skip


REGISTER = frozenset({"register", "register_error"})


def _texts(code: types.CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _texts(constant)
        elif isinstance(constant, str):
            yield constant


def note(code: types.CodeType, words: frozenset[str], named: dict[str, Any]) -> None:
    """Code with these words runs: remember what cannot be asked for later. named: what its words may mean."""
    if "register_error" in words:
        error_handlers.update(_texts(code))
    if "register" in words:
        import _collections_abc
        import numbers
        from abc import ABCMeta

        spaces = [named, vars(_collections_abc), vars(numbers)]
        spaces += [vars(value) for value in named.values() if type(value) is type(sys)]
        registering.update(
            value for space in spaces for word in words & space.keys() if is_a(value := space[word], ABCMeta)
        )
