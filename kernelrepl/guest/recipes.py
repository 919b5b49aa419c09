"""What saved sessions call by name when they are loaded.

The streams in the database refer to `kernelrepl.guest.recipes.<name>`. These functions are therefore
a storage format: they may be added to, but never renamed, moved, or given other arguments.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Protocol


class Session(Protocol):
    """What a load needs to know of the session it restores into."""

    @property
    def namespace(self) -> dict[str, Any]: ...

    @property
    def main_module(self) -> types.ModuleType: ...

    @property
    def shell(self) -> Any: ...

    def resolve(self, root: int) -> Any:
        """The object with this identity, which another component holds."""

    def buffer(self, index: int) -> Any:
        """An out-of-band buffer of the component that is being loaded."""

    def load_nested(self, stream: bytes) -> Any: ...


_current: Session | None = None


@contextlib.contextmanager
def restoring(session: Session) -> Iterator[None]:
    """Make `session` the one that recipes refer to."""
    global _current
    previous, _current = _current, session
    try:
        yield
    finally:
        _current = previous


def _session() -> Session:
    if _current is None:
        raise RuntimeError("a saved component can be loaded only while its session is restored")
    return _current


def ref(root: int) -> Any:
    return _session().resolve(root)


def main_module() -> types.ModuleType:
    return _session().main_module


def namespace() -> dict[str, Any]:
    return _session().namespace


def shell() -> Any:
    return _session().shell


def attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def function(code: types.CodeType, name: str, closure: tuple[types.CellType, ...] | None) -> Any:
    return types.FunctionType(code, _session().namespace, name, None, closure)


def function_state(target: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    attributes, slots = state
    target.__dict__.update(attributes)
    for name, value in slots.items():
        setattr(target, name, value)


def cell() -> types.CellType:
    return types.CellType()


def cell_state(target: types.CellType, state: tuple[Any]) -> None:
    target.cell_contents = state[0]


def lru_cache(wrapped: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize=maxsize, typed=typed)(wrapped)


def object_state(target: Any, state: dict[str, Any]) -> None:
    target.__dict__.update(state)


def array(data: Any, dtype: Any, shape: tuple[int, ...], order: str, writeable: bool) -> Any:
    np = sys.modules.get("numpy") or importlib.import_module("numpy")
    result = np.empty(shape, dtype, order=order)
    flat = result.reshape(-1, order="A").view("u1")
    flat[:] = np.frombuffer(data, "u1")
    if not writeable:
        result.flags.writeable = False
    return result


def view(root: Any, offset: int, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], writeable: bool) -> Any:
    np = sys.modules.get("numpy") or importlib.import_module("numpy")
    if dtype.hasobject:
        flat = root.ravel(order="K")
        start = flat[offset // dtype.itemsize :]
        result = np.lib.stride_tricks.as_strided(start, shape, strides)
    else:
        result = np.ndarray(shape, dtype, root.ravel(order="K").view("u1"), offset, strides)
    if not writeable:
        result.flags.writeable = False
    return result


def buffer(index: int) -> Any:
    return _session().buffer(index)


def nested(stream: bytes) -> Any:
    return _session().load_nested(stream)
