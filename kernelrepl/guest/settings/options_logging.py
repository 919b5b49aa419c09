"""Levels of logs, and handlers that only write. Runs in the kernel."""

from __future__ import annotations

import logging
import sys
from typing import Any

from kernelrepl.guest.settings.options_table import Options

_PASSIVE = frozenset({"NullHandler", "_StderrHandler"})


def _loggers() -> list[tuple[str, logging.Logger]]:
    named = list(logging.root.manager.loggerDict.items())
    return [("", logging.root), *[one for one in named if type(one[1]) is not logging.PlaceHolder]]  # type: ignore[list-item]


def _logging() -> dict[Any, Any]:
    found: dict[Any, Any] = {
        "disable": logging.root.manager.disable,
        "captureWarnings": logging._warnings_showwarning is not None,  # type: ignore[attr-defined]
        "raiseExceptions": logging.raiseExceptions,
        "level names": dict(logging._levelToName),
    }
    for name, logger in _loggers():
        if logger.level or logger.disabled or logger.propagate is not True:
            found["logger", name] = (logger.level, logger.disabled, logger.propagate)
    return found


def _set_logging(key: Any, value: Any) -> None:
    if key == "disable":
        logging.disable(value)
    elif key == "captureWarnings":
        logging.captureWarnings(value)
    elif key == "raiseExceptions":
        logging.raiseExceptions = value
    elif key == "level names":
        for level, name in value.items():
            logging.addLevelName(level, name)
    else:
        logger = logging.getLogger(key[1]) if key[1] else logging.root
        level, logger.disabled, logger.propagate = value
        logger.setLevel(level)


def _handlers() -> dict[str, Any]:
    """Of each logger: what makes those handlers again that only write, and those themselves that do other things."""
    return {
        name or "root": [_recipe(one) for one in logger.handlers if type(one).__name__ not in _PASSIVE]
        for name, logger in _loggers()
        if logger.handlers
    }


def _recipe(handler: logging.Handler) -> Any:
    shown = handler.formatter
    style = getattr(shown, "_style", None)
    simple = not handler.filters and (shown is None or type(shown) is logging.Formatter)
    how = None if shown is None else (shown._fmt, shown.datefmt, _STYLES.get(type(style), "%"))
    if simple and type(handler) is logging.StreamHandler:
        for name in ("stderr", "stdout"):
            if handler.stream in (getattr(sys, name), getattr(sys, f"__{name}__")):
                return (name, handler.level, how)
    if simple and type(handler) is logging.FileHandler:
        return ("file", handler.level, how, handler.baseFilename, handler.encoding)
    return handler


_STYLES: dict[Any, str] = {kind: sign for sign, (kind, _) in logging._STYLES.items()}


def _set_handlers(key: str, value: list[Any]) -> None:
    logger = logging.root if key == "root" else logging.getLogger(key)
    there = _handlers().get(key, [])
    for recipe in value:
        if recipe in there:
            continue
        if not isinstance(recipe, tuple):
            logger.addHandler(recipe)
            continue
        where, level, how, *file = recipe
        made = logging.FileHandler(file[0], encoding=file[1]) if file else logging.StreamHandler(getattr(sys, where))
        made.setLevel(level)
        if how is not None:
            made.setFormatter(logging.Formatter(*how))
        logger.addHandler(made)


LOGGING = (
    Options("logging", "logging", _logging, _set_logging),
    Options("logging.handlers of", "logging", _handlers, _set_handlers),
)
