"""Which values are saved together, and in which order they are loaded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl.guest.components import Union, closure, group, load_order

ROOTS = st.integers(1, 9)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[int, list[str]], dict[int, list[int]]]:
    """Roots with what they share and what they refer to."""
    roots = sorted(draw(st.sets(ROOTS, min_size=1)))
    things = st.lists(st.sampled_from("abcd"), max_size=2)
    touched = {root: draw(things) for root in roots}
    references = {root: draw(st.lists(st.sampled_from(roots), max_size=2)) for root in roots}
    return touched, references


@st.composite
def acyclic(draw: st.DrawFn) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Components, each with one or two roots, that refer to earlier ones only, in any order."""
    count = draw(st.integers(1, 8))
    numbers = draw(st.permutations(range(1, 2 * count + 1)))
    members = [tuple(sorted(numbers[2 * at : 2 * at + draw(st.integers(1, 2))])) for at in range(count)]
    components = {}
    for at, roots in enumerate(members):
        earlier = [root for others in members[:at] for root in others]
        references = draw(st.lists(st.sampled_from(earlier), max_size=4)) if earlier else []
        components[roots[0]] = (roots, tuple(references))
    return {key: components[key] for key in draw(st.permutations(sorted(components)))}


def reachable(edges: dict[int, set[int]], start: int) -> set[int]:
    """Every root that a path leads to, `start` included."""
    found, work = {start}, [start]
    while work:
        for target in edges[work.pop()] - found:
            found.add(target)
            work.append(target)
    return found


def test_each_root_is_alone_until_it_is_joined() -> None:
    """Sets are reported in ascending order, by their first root."""
    union = Union([3, 1, 2, 4])
    assert union.groups() == [(1,), (2,), (3,), (4,)]
    union.join(4, 2)
    union.join(2, 4)
    assert union.groups() == [(1,), (2, 4), (3,)]
    assert union.find(4) == union.find(2)
    assert union.find(3) == 3


@pytest.mark.parametrize(
    ("touched", "references", "expected"),
    [
        ({}, {}, []),
        ({1: "a", 2: "b"}, {}, [(1,), (2,)]),
        ({1: "a", 2: "ab", 3: "b"}, {}, [(1, 2, 3)]),
        ({1: "", 2: ""}, {1: [2]}, [(1,), (2,)]),
        ({1: "", 2: ""}, {1: [2], 2: [1]}, [(1, 2)]),
        ({1: "", 2: "", 3: ""}, {1: [2], 2: [3], 3: [1]}, [(1, 2, 3)]),
        ({1: "", 2: "", 3: "", 4: ""}, {1: [2], 2: [1], 3: [4], 4: [3]}, [(1, 2), (3, 4)]),
        ({1: ""}, {1: [1]}, [(1,)]),
        ({1: "a", 2: "a", 3: ""}, {2: [3], 3: [1]}, [(1, 2, 3)]),
    ],
    ids=["nothing", "apart", "chain", "refers", "pair", "circle", "two circles", "itself", "circle through sharing"],
)
def test_what_shares_or_circles_is_one(
    touched: dict[int, str], references: dict[int, list[int]], expected: list[tuple[int, ...]]
) -> None:
    """Sharing a mutable object unites, and so does referring to each other; referring alone does not."""
    assert group(touched, references) == expected


@given(graphs())
def test_a_group_is_exactly_what_sharing_and_circles_unite(
    graph: tuple[dict[int, list[str]], dict[int, list[int]]],
) -> None:
    """Two roots are together if and only if each leads to the other by references and shared objects."""
    touched, references = graph
    edges = {root: set(references[root]) for root in touched}
    for root in touched:
        for other in touched:
            if set(touched[root]) & set(touched[other]):
                edges[root].add(other)
    reach = {root: reachable(edges, root) for root in touched}
    expected = {
        tuple(other for other in sorted(touched) if root in reach[other] and other in reach[root]) for root in touched
    }
    assert set(group(touched, references)) == expected
    assert sorted(root for members in group(touched, references) for root in members) == sorted(touched)


def test_a_long_chain_does_not_exhaust_the_stack() -> None:
    """Sessions may hold more values than Python has frames."""
    count = 20_000
    chain = {root: [root + 1] for root in range(count)}
    touched: dict[int, list[int]] = {root: [] for root in range(count + 1)}
    assert len(group(touched, chain)) == count + 1
    assert group(touched, {**chain, count: [0]}) == [tuple(range(count + 1))]
    assert closure([0], chain) == set(range(count + 1))
    components = {root: ((root,), (root + 1,)) for root in range(count + 1)}
    assert load_order(components) == list(range(count, -1, -1))


def test_a_closure_has_everything_that_can_be_reached() -> None:
    """Itself included, circles too, unknown roots as they are."""
    references = {1: [2], 2: [3, 1], 4: [1]}
    assert closure([1], references) == {1, 2, 3}
    assert closure([3, 9], references) == {3, 9}
    assert closure([], references) == set()


@given(acyclic())
def test_a_component_is_loaded_after_those_it_refers_to(
    components: dict[int, tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Whatever order they come in; each is loaded once."""
    order = load_order(components)
    assert sorted(order) == sorted(components)
    place = {root: order.index(key) for key, (roots, _) in components.items() for root in roots}
    for key, (_, references) in components.items():
        assert all(place[reference] < order.index(key) for reference in references)


@given(graphs())
def test_references_that_lead_nowhere_or_in_circles_still_give_an_order(
    graph: tuple[dict[int, list[str]], dict[int, list[int]]],
) -> None:
    """A damaged store must not keep the rest from loading: each component comes once."""
    _, references = graph
    components = {root: ((root,), (*targets, root + 100)) for root, targets in references.items()}
    assert sorted(load_order(components)) == sorted(components)
