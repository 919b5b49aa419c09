"""Load a session from its components into an empty namespace.

What cannot be loaded costs only itself and what refers to it: it is reported, its bytes stay in the
store, and using its name raises an error that tells why. Runs in the kernel; the only place where
saved bytes are unpickled.
"""

from __future__ import annotations

import gc
import importlib.util
import io
import pickle
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kernelrepl.guest import code_sources, handshake, recipes, table_recipes, wire
from kernelrepl.guest.components import load_order
from kernelrepl.guest.restore.incoming import Source

_LOAD = compile("load()", "<restore>", "eval")
MAGIC = importlib.util.MAGIC_NUMBER.hex()


class NotLoaded(Exception):
    """A component could not be loaded; the text says why."""


@dataclass(frozen=True)
class Stored:
    """One component as it comes from the keeper."""

    key: int
    roots: tuple[int, ...]
    references: tuple[int, ...]
    source: Source
    size_bytes: int
    has_code: bool
    magic: str
    python: str
    packages: dict[str, str]
    """The versions of libraries that it was saved with."""
    skip: str | None
    """Why this component must not be loaded, if so: the last kernel died while loading it."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, loader: Loader) -> None:
        super().__init__(io.BytesIO(stream))
        self._loader = loader
        self._tables: dict[tuple[str, str], Any] = {}

    def load_in_session(self) -> Any:
        """Load from a frame whose globals are the session's: what is evaluated then, as a formula, looks there."""
        return eval(_LOAD, self._loader.namespace, {"load": self.load})

    def find_class(self, module: str, name: str) -> Any:
        found, python = super().find_class(module, name), self._loader.compiler
        if python is None or not (found is types.CodeType or name == "_builtin_type"):
            return found

        def checked(*arguments: Any) -> Any:
            made = found(*arguments) if name == "_builtin_type" else None
            if found is types.CodeType or made is types.CodeType:
                raise NotLoaded(_foreign(python))
            return made

        return checked

    def persistent_load(self, pid: Any) -> Any:
        if pid == "namespace":
            return self._loader.namespace
        if isinstance(pid, tuple) and len(pid) == 2:
            module, attribute = pid
            return recipes.attribute(module, attribute) if attribute else recipes.namespace_of(module)
        if isinstance(pid, tuple):
            place = pid[:2]
            if place not in self._tables or pid[-1] is not None:
                self._tables[place] = table_recipes.table(*pid)
            return self._tables[place]
        raise pickle.UnpicklingError(f"unknown persistent id {pid!r}")


class Loader:
    """Loads components in the order of their references. Implements what recipes ask of a session."""

    def __init__(
        self,
        namespace: dict[str, Any],
        main_module: types.ModuleType,
        shell: Any,
        names: dict[int, list[str]] | None = None,
    ) -> None:
        """names: what to bind each root to as soon as it is there, for code that runs while others are loaded."""
        self.namespace = namespace
        self._names = names or {}
        self.main_module = main_module
        self.shell = shell
        self.objects: dict[int, Any] = {}
        self.failures: dict[int, str] = {}
        """Component key -> why it was not loaded."""
        self.holder: dict[int, int] = {}
        self.imported: set[str] = set()
        self._worth_another: set[int] = set()
        """Components that failed for the first time."""
        self._source: Source | None = None
        self._lent: list[tuple[Any, ...]] = []
        self.compiler: str | None = None
        """The Python that compiled the code in what is being loaded, if that is not this one."""

    def load(self, components: dict[int, Stored], note: Callable[[Stored], None]) -> None:
        """Load components, beside those loaded before. `note` is called ahead of each, so that a crash has a name."""
        self.holder.update((root, part.key) for part in components.values() for root in part.roots)
        order = load_order({key: (part.roots, part.references) for key, part in components.items()})
        enabled = gc.isenabled()
        gc.disable()
        try:
            with recipes.restoring(self):
                for key in order:
                    self._load_one(components[key], note)
                # Code of the user that ran while loading may have used what was not there yet.
                for key in order:
                    if key in self.failures and key in self._worth_another and components[key].source.again:
                        self._load_one(components[key], note)
        finally:
            if enabled:
                gc.enable()

    def _load_one(self, part: Stored, note: Callable[[Stored], None]) -> None:
        if part.skip is not None:
            self.failures[part.key] = part.skip
            return
        self.compiler = part.python if part.has_code and part.magic != MAGIC else None
        note(part)
        self.failures.pop(part.key, None)
        self._source = part.source
        try:
            stream = part.source.data()
            _refuse_damaged(part.source)
            values = _Unpickler(stream, self).load_in_session()
            part.source.finish()
            _refuse_damaged(part.source)
        except BaseException as error:  # noqa: BLE001 - loading runs user code; it must cost no other component
            if isinstance(error, code_sources.NoSource):
                error = NotLoaded(f"{_foreign(part.python)} ({error})")
            if part.source.damaged:
                error = NotLoaded(wire.DAMAGED)
            known = isinstance(error, NotLoaded)
            self.failures[part.key] = str(error) if known else _sentence(error) + _other_versions(part)
            self._worth_another ^= {part.key}
            return
        finally:
            self._source = self.compiler = None
        self.objects.update(zip(part.roots, values, strict=True))
        for root, value in zip(part.roots, values, strict=True):
            for name in self._names.get(root, ()):
                self.namespace[name] = value

    def resolve(self, root: int) -> Any:
        try:
            return self.objects[root]
        except KeyError:
            reason = self.failures.get(self.holder.get(root, 0), "it is missing from the store")
            raise NotLoaded(f"it uses something that could not be restored: {reason}") from None

    def buffer(self, index: int) -> Any:
        assert self._source is not None
        return self._source.buffer(index)

    def load_nested(self, stream: Any, lent: tuple[Any, ...] = ()) -> Any:
        self._lent.append(lent)
        try:
            return _Unpickler(recipes.whole(stream), self).load_in_session()
        finally:
            self._lent.pop()

    def lent(self, index: int) -> Any:
        return self._lent[-1][index]


def _refuse_damaged(source: Source) -> None:
    if source.damaged:
        raise NotLoaded(wire.DAMAGED)


def _foreign(python: str) -> str:
    return (
        f"it holds code compiled by Python {python}, which this Python cannot run; "
        f"use Python {python} for this session, or define it again"
    )


def _other_versions(part: Stored) -> str:
    """What to say of libraries that are other ones than when a component was saved."""
    here = handshake.versions()
    others = [
        f"{name} {version}, here is {here.get(name, 'none')}"
        for name, version in part.packages.items()
        if here.get(name) != version
    ]
    return f"; it was saved with {'; with '.join(others)}" if others else ""


def _sentence(error: BaseException) -> str:
    try:
        return f"loading it failed with {type(error).__name__}: {str(error)[:300]}"
    except Exception:  # noqa: BLE001 - __str__ of a user's exception
        return f"loading it failed with {type(error).__name__}"
