"""Which roots must be saved together: pure graph work on identities.

A root is a value that a name is bound to, or an entity (class, function) that others refer to. Roots
that share a mutable object form one component, and so do roots that refer to each other in a circle.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping


class Union:
    """Disjoint sets of roots."""

    def __init__(self, roots: Iterable[int]) -> None:
        self._parent = {root: root for root in roots}

    def find(self, root: int) -> int:
        parent = self._parent
        top = root
        while parent[top] != top:
            top = parent[top]
        while parent[root] != top:
            parent[root], root = top, parent[root]
        return top

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first

    def groups(self) -> list[tuple[int, ...]]:
        """Each set in ascending order, the sets by their first root."""
        found: dict[int, list[int]] = {}
        for root in sorted(self._parent):
            found.setdefault(self.find(root), []).append(root)
        return [tuple(found[top]) for top in sorted(found)]


def group(touched: Mapping[int, Iterable[Hashable]], references: Mapping[int, Iterable[int]]) -> list[tuple[int, ...]]:
    """Partition roots into components.

    touched: for each root what it shares with others (ids of mutable objects). references: for each
    root the roots that it refers to; all of them must be keys of `touched`.
    """
    union = Union(touched)
    owner: dict[Hashable, int] = {}
    for root, things in touched.items():
        for thing in things:
            first = owner.setdefault(thing, root)
            if first != root:
                union.join(first, root)
    for circle in _circles({root: set(refs) for root, refs in references.items()}, union):
        for root in circle[1:]:
            union.join(circle[0], root)
    return union.groups()


def _circles(references: dict[int, set[int]], union: Union) -> list[list[int]]:
    """Strongly connected sets of the graph whose nodes are the sets of `union` (Tarjan, iterative)."""
    graph: dict[int, set[int]] = {}
    for root, refs in references.items():
        node = union.find(root)
        graph.setdefault(node, set()).update(union.find(ref) for ref in refs)
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    circles: list[list[int]] = []
    for start in graph:
        if start in index:
            continue
        work = [(start, iter(sorted(graph[start])))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on_stack.add(start)
        while work:
            node, rest = work[-1]
            for child in rest:
                if child not in index:
                    index[child] = low[child] = len(index)
                    stack.append(child)
                    on_stack.add(child)
                    work.append((child, iter(sorted(graph.get(child, ())))))
                    break
                if child in on_stack:
                    low[node] = min(low[node], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    circle = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        circle.append(member)
                        if member == node:
                            break
                    if len(circle) > 1:
                        circles.append(circle)
    return circles


def closure(start: Iterable[int], references: Mapping[int, Iterable[int]]) -> set[int]:
    """Every root that can be reached from `start`, itself included."""
    reached: set[int] = set()
    work = list(start)
    while work:
        root = work.pop()
        if root not in reached:
            reached.add(root)
            work.extend(references.get(root, ()))
    return reached


def load_order(components: Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]]) -> list[int]:
    """Keys of components so that each comes after those it refers to.

    components: key -> (roots, referenced roots). References to roots that no component holds are ignored.
    """
    holder = {root: key for key, (roots, _) in components.items() for root in roots}
    order: list[int] = []
    done: set[int] = set()
    for first in components:
        work = [(first, False)]
        while work:
            key, ready = work.pop()
            if ready:
                order.append(key)
            elif key not in done:
                done.add(key)
                work.append((key, True))
                work.extend((holder[ref], False) for ref in components[key][1] if ref in holder)
    return order
