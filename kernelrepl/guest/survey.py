"""Pickle every root of the namespace on its own.

That gives its fingerprint, what it shares with others, what it refers to, and whether it can be saved at
all. Runs in the kernel, main thread only.
"""

from __future__ import annotations

import pickle
from typing import Any, Protocol

from kernelrepl.guest import explain
from kernelrepl.guest.components import closure
from kernelrepl.guest.interrupts import DeadlinePassed, Interrupts
from kernelrepl.guest.pickler import Stream, Surroundings, TooLarge, dump
from kernelrepl.guest.state import Component, Limits, State, Unsaved

ATOMS = (int, float, complex, bool, str, bytes, type(None))
_HARMLESS = frozenset(
    {"abs", "bool", "bytes", "chr", "complex", "dict", "divmod", "float", "format", "hash", "int", "len", "list", "max"}
    | {"min", "ord", "pow", "print", "range", "repr", "round", "set", "sorted", "str", "sum", "tuple", "zip"}
)
"""Builtins through which code that names nothing else cannot reach an object; `exec` and `globals` are none."""
_EXPLAIN_S = 1.0
_SECOND_TRY_S = 1.0
_EXPLAIN_LIMIT_BYTES = 64 << 20


class Captured(Protocol):
    """What a pass needs of the snapshot that it is made for."""

    around: Surroundings
    interrupts: Interrupts
    limits: Limits
    state: State
    unloaded: set[str]
    pinned: dict[int, Any]
    frozen_bytes: int
    next_root: int
    own_roots: dict[str, int]
    slow: dict[int, Any]
    unstable: set[int]

    def identify(self, value: Any) -> int: ...

    def user_names(self) -> dict[str, Any]: ...


class Survey:
    """What is known of each root once it has been pickled alone.

    mentioned: the names in the code that ran since the last survey, or None if anything may have happened.
    """

    def __init__(self, snapshot: Captured, own: dict[str, Any], mentioned: frozenset[str] | None) -> None:
        self.snapshot = snapshot
        self.own = own
        self.mentioned = mentioned
        namespace = snapshot.around.namespace
        self.only_atoms = mentioned is not None and all(
            type(namespace[name]) in ATOMS if name in namespace else name in _HARMLESS for name in mentioned
        )
        """The code named nothing through which it could have changed an object."""
        self.values: dict[int, Any] = {}
        self.streams: dict[int, Stream] = {}
        self.kept: list[Any] = []
        self.errors: dict[int, BaseException] = {}
        self.references: dict[int, tuple[int, ...]] = {}
        self.reused: dict[int, Component] = {}

    def _visit(self, root: int, value: Any) -> None:
        work = [(root, value)]
        while work:
            root, value = work.pop()
            if root in self.values:
                continue
            self.values[root] = value
            if type(value) in ATOMS:
                live = self.snapshot.state.live.get(root)
                if live is not None and live.roots == (root,):
                    self.reused[root] = live
                else:
                    self._dump_plain(root, value)
                continue
            if self.only_atoms and root in self.snapshot.unstable:
                work.extend(self._reuse(root))
                continue
            self._dump_root(root, value)
            stream = self.streams.get(root)
            if stream is not None:
                entities = [(self.snapshot.identify(entity), entity) for entity in stream.references]
                self.references[root] = tuple(sorted(entity for entity, _ in entities))
                work.extend(entities)

    def _reuse(self, root: int) -> list[tuple[int, Any]]:
        """Take over a component whose bytes differ each time though its value does not; returns its other roots."""
        state = self.snapshot.state
        part = next(part for part in state.live.values() if root in part.roots)
        self.reused[root] = part
        others = [other for other in (*part.roots, *part.references) if other != root]
        self.references[root] = tuple(others)
        return [(other, state.objects[other]) for other in others]

    def _dump_plain(self, root: int, value: Any) -> None:
        limit = self.snapshot.limits.variable_bytes
        if isinstance(value, str | bytes) and limit is not None and len(value) > limit:
            self.errors[root] = TooLarge(limit)
            return
        self.streams[root] = Stream(pickle.dumps([value], protocol=5), [], [], [], [], False)

    def _dump_root(self, root: int, value: Any) -> None:
        snap = self.snapshot
        seconds = _SECOND_TRY_S if id(value) in snap.slow else snap.limits.deadline_s
        for attempt in (1, 2):
            try:
                with snap.interrupts.deadline(seconds):
                    stream, memo = dump(
                        [value],
                        snap.around,
                        snap.identify,
                        frozenset({id(value)}),
                        limit_bytes=snap.limits.variable_bytes,
                    )
            except DeadlinePassed as error:
                snap.slow[id(value)] = value
                self.errors[root] = error
                return
            except BaseException as error:  # noqa: BLE001
                # User reducers may raise anything. A container that another thread changes gets a second try.
                if attempt == 1 and isinstance(error, RuntimeError) and "changed" in str(error):
                    continue
                self.errors[root] = error
                return
            self.streams[root] = stream
            self.kept.append(memo)
            snap.slow.pop(id(value), None)
            return

    def _failed(self) -> dict[int, int]:
        """Roots that cannot be saved: root -> the root whose own fault it is."""
        users: dict[int, list[int]] = {}
        for root, refs in self.references.items():
            for ref in refs:
                users.setdefault(ref, []).append(root)
        failed: dict[int, int] = {}
        for origin in self.errors:
            for root in closure([origin], users):
                failed.setdefault(root, origin)
        return failed

    def _explain(self, name: str, value: Any, root: int, failed: dict[int, int]) -> Unsaved:
        origin = failed[root]
        kind = explain.type_name(value)
        known = self.snapshot.state.unsaved.get(name)
        if known is not None and known.root == root and self.mentioned is not None and name not in self.mentioned:
            return known
        error = self.errors[origin]
        passed = self._passed_limit(error)
        if passed is not None:
            return Unsaved(kind, name, passed, root)
        culprit_value = self.values[origin]
        try:
            with self.snapshot.interrupts.deadline(_EXPLAIN_S):
                path, culprit, deeper = explain.find_culprit(culprit_value, name, self._fails)
        except BaseException:  # noqa: BLE001 - user reducers again; the first error is reason enough
            path, culprit, deeper = name, culprit_value, None
        reason = explain.reason(deeper or error, culprit)
        if origin != root:
            label = getattr(culprit_value, "__qualname__", explain.type_name(culprit_value))
            reason = f"it uses {label!s:.100}, which cannot be saved: {reason}"
        return Unsaved(kind, path[:300], reason, root)

    def _passed_limit(self, error: BaseException) -> str | None:
        limits = self.snapshot.limits
        if isinstance(error, TooLarge) and limits.variable_bytes is not None:
            return too_large(limits.variable_bytes)
        if isinstance(error, DeadlinePassed):
            return f"saving it took longer than {limits.deadline_s:g} s and was stopped"
        return None

    def _fails(self, value: Any) -> BaseException | None:
        snap = self.snapshot
        try:
            dump([value], snap.around, snap.identify, frozenset({id(value)}), limit_bytes=_EXPLAIN_LIMIT_BYTES)
        except DeadlinePassed:
            raise
        except BaseException as error:  # noqa: BLE001 - user reducers may raise anything
            return error
        return None

    def _size(self, root: int) -> int:
        if root in self.reused:
            return self.reused[root].size_bytes
        return self.streams[root].size_bytes


def megabytes(size: int) -> str:
    return f"{size / 1e6:g} MB" if size >= 100_000 else f"{size} bytes"


def too_large(limit_bytes: int) -> str:
    return (
        f"it is larger than the limit of {megabytes(limit_bytes)} for one variable; "
        "write it to a file in the workspace, or raise max_variable_bytes"
    )
