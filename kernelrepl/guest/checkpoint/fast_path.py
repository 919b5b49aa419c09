"""The common case of a capture: names were bound to plain values, and what else was looked at is as it was.

Its cost does not depend on how many names there are, but for one comparison of identities each. Whatever is not of
this kind is left to a whole capture. Runs in the kernel, main thread only.
"""

from __future__ import annotations

from kernelrepl.guest.checkpoint.capture import MOST_NAMES, Capture
from kernelrepl.guest.checkpoint.diagnosis import type_name
from kernelrepl.guest.checkpoint.state import Delta, Name
from kernelrepl.guest.neutral import is_atom


def quick(capture: Capture) -> Delta | None:
    """The delta of a capture for which `visit_suspects` was called; None if it takes a whole one."""
    view = capture.view
    state = view.state
    if view.pinned or view.unloaded or any(map(capture.is_changed, capture.fresh)):
        return None
    if state.unsaved.keys() != view.strays.keys() | view.told.keys():
        return None
    if view.placed.keys() != view.kept.keys() or any(
        view.kept[name] is not value for name, value in view.placed.items()
    ):
        return None
    new, gone, has_long = view.changes()
    if has_long or len(state.names) + len(new) > MOST_NAMES:
        return None
    if not all(is_atom(value) for value in new.values()):
        return None
    delta = Delta(quick=True, bound=new)
    left: set[int] = set()
    for name in (*new, *gone):
        known = state.names.get(name)
        if known is None:
            continue
        if known.root not in view.part_of or not is_atom(state.objects.get(known.root, capture)):
            return None
        left.add(known.root)
    for name, value in new.items():
        root = view.identify(value)
        left.discard(root)
        capture.visit(root, value)
        scan = capture.scan_of(root)
        most = view.limits.variable_bytes
        if scan.error is not None or (most is not None and scan.size_bytes > most):
            return None
        _bind(capture, delta, name, root)
    for name, value in capture.own.items():
        known_root = view.own_roots.get(name)
        if known_root is None or name not in state.names:
            return None
        capture.values[known_root] = value
        capture.dump_plain(known_root, value)
        if capture.is_changed(known_root):
            _bind(capture, delta, name, known_root)
    limit = view.limits.session_bytes
    if left:
        here = set(map(id, list(view.context.namespace.values())))
        delta.closed = sorted(root for root in left if id(state.objects[root]) not in here)
    delta.deleted = sorted(name for name in gone if name in state.names)
    if limit is not None:
        total = sum(part.size_bytes for part in state.live.values()) + sum(p.size_bytes for p in delta.components)
        if total > limit:
            return None
    return delta


def _bind(capture: Capture, delta: Delta, name: str, root: int) -> None:
    """A name is bound to a plain value now."""
    view = capture.view
    if root not in view.part_of or capture.is_changed(root):
        if root not in delta.scans:
            delta.components.append(capture.with_stream(capture.component_of((root,))))
        delta.scans[root] = capture.scan_of(root)
    value = capture.value(root)
    known = view.state.names.get(name)
    changed = capture.has_changed(name, root)
    if known is not None and known.root == root and not changed:
        return
    own = name.startswith("*")
    delta.names[name] = Name(
        root, type_name(value), capture.shown_size(value, root), "" if own else capture.summary(value)
    )
    if not own and name != "_":
        if known is None:
            delta.created.append(name)
        elif changed:
            delta.changed.append(name)
