"""Sets from pairs that are alike."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.seeds import generator
from carnac.curate.near.sets import components, linked, stays

NUMBER = 12
EDGES = st.lists(st.tuples(st.integers(0, NUMBER - 1), st.integers(0, NUMBER - 1)), max_size=20)


def scan(edges: list[tuple[int, int]], number: int) -> list[int]:
    root = list(range(number))
    for _ in range(number):
        for one, other in edges:
            root[one] = root[other] = min(root[one], root[other])
    return root


@settings(max_examples=200)
@given(edges=EDGES)
def test_components_are_what_a_scan_finds(edges: list[tuple[int, int]]) -> None:
    first, second = (np.array([edge[n] for edge in edges], np.int64) for n in (0, 1))
    assert components(first, second, NUMBER).tolist() == scan(edges, NUMBER)


def test_a_chain_of_a_hundred_thousand_is_one_component() -> None:
    order = generator(0, "test chain").permutation(100_000)
    assert not components(order[:-1], order[1:], 100_000).any()


def distances(points: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all pairs of points on a line with similarity 1 - distance: a metric, as Jaccard distance is."""
    less, greater = map(np.array, zip(*combinations(range(len(points)), 2), strict=True))
    at = np.array(points)
    return less, greater, 1 - np.abs(at[less] - at[greater])


@settings(max_examples=300)
@given(
    points=st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=25),
    known=st.floats(0.3, 1),
    seed=st.integers(0, 5),
)
def test_no_two_of_a_set_are_less_alike_than_the_floor_whatever_is_known(
    points: list[float], known: float, seed: int
) -> None:
    less, greater, similarity = distances(points)
    is_known = generator(seed, "test linked").random(len(less)) < known
    pairs = less[is_known], greater[is_known]
    roots = linked(pairs, similarity[is_known], len(points), 0.75, 0.7)
    for one, other in combinations(range(len(points)), 2):
        if roots[one] == roots[other]:
            assert abs(points[one] - points[other]) <= 0.3 + 1e-6
    strong = similarity[is_known] >= 0.75
    # What has no pair that is alike is alone, and where there is any at least one is joined: every round drops some.
    joined = roots != np.arange(len(points))
    assert joined.any() == strong.any()
    assert set(np.flatnonzero(joined).tolist()) <= set(pairs[1][strong].tolist()) | set(pairs[0][strong].tolist())


def test_the_most_alike_are_joined_first_and_a_chain_is_cut() -> None:
    pairs = np.array([0, 1, 2]), np.array([1, 2, 3])
    assert linked(pairs, np.array([0.78, 0.9, 0.78]), 4, 0.75, 0.7).tolist() == [0, 1, 1, 3]


def test_many_that_are_near_one_are_a_set_though_their_pairs_are_not_known() -> None:
    number = 50_000
    pairs = np.zeros(number - 1, np.int64), np.arange(1, number)
    assert not linked(pairs, np.full(number - 1, 0.9), number, 0.75, 0.7).any()


@settings(max_examples=100)
@given(edges=EDGES, ranks=st.lists(st.integers(-2, 2), min_size=NUMBER, max_size=NUMBER))
def test_of_a_set_the_least_rank_stays_then_the_first(edges: list[tuple[int, int]], ranks: list[int]) -> None:
    roots = scan(edges, NUMBER)
    chosen = stays(np.array(roots), np.array(ranks)).tolist()
    for thing, root in enumerate(roots):
        members = [other for other in range(NUMBER) if roots[other] == root]
        assert chosen[thing] == min(members, key=lambda member: (ranks[member], member))
