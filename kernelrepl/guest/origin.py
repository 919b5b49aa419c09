"""Whether something was made by code of the session. Runs in the kernel."""

from __future__ import annotations

import types
from typing import Any

from kernelrepl.guest.neutral import is_a, module_of


def is_of_session(value: Any) -> bool:
    """Whether something, or its class, was made by code of the session."""
    if issubclass(type(value), type):
        return module_of(value) == "__main__"
    if is_a(value, types.FunctionType):
        return bool(value.__module__ == "__main__")
    if not is_a(value, types.ModuleType) and module_of(type(value)) == "__main__":
        return True
    inner = [_part(value, name) for name in ("__func__", "func", "__self__")]
    for one in (value, *inner):
        if one is None or is_a(one, types.ModuleType):
            continue
        if type(one) is types.FunctionType:
            home = one.__module__
        else:
            home = module_of(one if issubclass(type(one), type) else type(one))
        if home == "__main__":
            return True
    return False


def _part(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except BaseException:  # noqa: BLE001 - it may be a proxy, or have come from a class of the session
        return None
