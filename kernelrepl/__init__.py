"""Python sessions for AI agents that survive kill -9, on Jupyter kernels.

    from kernelrepl import python_repl

    await python_repl(code="x = 42", session_id="analysis")

Importing this package loads nothing else, because every kernel imports it. A function is loaded when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # without `typing`: every kernel and every command loads this
if TYPE_CHECKING:
    from typing import Any

    from kernelrepl.client.tools import (
        Result,
        python_clear_session,
        python_delete_session,
        python_interrupt,
        python_list_sessions,
        python_list_variables,
        python_repl,
        python_wait,
    )

__version__ = "0.1.0"

__all__ = [
    "Result",
    "python_clear_session",
    "python_delete_session",
    "python_interrupt",
    "python_list_sessions",
    "python_list_variables",
    "python_repl",
    "python_wait",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("kernelrepl.client.tools"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
