"""Groups of documents that share a band, and the few edges that are compared of them."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.curate.near.groups import (
    by_whole_keys,
    distinct_edges,
    edges_of,
    new_edges,
    places_of,
    shared,
    units_and_rows,
)
from carnac.curate.near.numbers import WINDOW

Pairs = set[tuple[int, int]]
# Bands by document: documents of the same number in a set share a band.
GROUPS = st.lists(st.sets(st.integers(0, 40), min_size=2, max_size=25), max_size=5)


def arrays(groups: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    keys = [number for number, members in enumerate(groups) for _ in members]
    return np.array(keys, np.uint64), np.array([place for members in groups for place in sorted(members)], np.int64)


def pairs(edges: tuple[np.ndarray, np.ndarray]) -> Pairs:
    return set(zip(edges[0].tolist(), edges[1].tolist(), strict=True))


def wanted(groups: list[set[int]], dropped: set[int]) -> Pairs:
    """Return the edges by their definition: with the first, and with so many before."""
    found: Pairs = set()
    for members in groups:
        left = sorted(members - dropped)
        found |= {
            (left[one], left[other])
            for one, other in combinations(range(len(left)), 2)
            if one == 0 or other - one <= WINDOW
        }
    return found


@settings(max_examples=100)
@given(groups=GROUPS)
def test_each_document_meets_the_first_of_its_group_and_the_window_before_it(groups: list[set[int]]) -> None:
    less, greater = edges_of(*arrays(groups))
    assert pairs((less, greater)) == wanted(groups, set())
    assert len(less) <= (WINDOW + 1) * sum(map(len, groups))
    assert pairs(distinct_edges(less, greater)) == pairs((less, greater))
    assert len(distinct_edges(less, greater)[0]) == len(pairs((less, greater)))


@settings(max_examples=200)
@given(groups=GROUPS, rounds=st.lists(st.sets(st.integers(0, 40), max_size=8), max_size=4))
def test_over_the_rounds_all_edges_of_what_is_left_are_compared_and_none_twice(
    groups: list[set[int]], rounds: list[set[int]]
) -> None:
    """This is why the search ends where another search of what is left would find nothing."""
    seen, before, dropped = pairs(new_edges(*arrays(groups), np.zeros(0, np.int64), None)), np.zeros(0, np.int64), set()
    assert seen == wanted(groups, set())
    for more in rounds:
        dropped |= more
        now = np.array(sorted(dropped), np.int64)
        fresh = pairs(new_edges(*arrays(groups), now, before))
        # An edge may lie in two groups, of which one alone has changed: within a group none comes again.
        assert fresh <= wanted(groups, dropped)
        seen |= fresh
        assert wanted(groups, dropped) <= seen
        before = now
    if len(groups) == 1:
        first = pairs(new_edges(*arrays(groups), np.zeros(0, np.int64), None))
        assert not first & pairs(new_edges(*arrays(groups), np.array([5]), np.zeros(0, np.int64)))


@settings(max_examples=100)
@given(rows=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30)), unique=True, max_size=30), data=st.data())
def test_rows_that_share_a_key_are_found_wherever_they_are_cut(
    rows: list[tuple[int, int]], data: st.DataObject
) -> None:
    keys, places = shared(np.array([key for key, _ in rows], np.uint64), np.array([at for _, at in rows], np.int64))
    often = {key for key, _ in rows if sum(other == key for other, _ in rows) > 1}
    assert list(zip(keys.tolist(), places.tolist(), strict=True)) == sorted(row for row in rows if row[0] in often)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(keys)), max_size=4))), len(keys)]
    chunks = [(keys[a:b], places[a:b]) for a, b in pairwise(cuts)]
    whole = list(by_whole_keys(chunks))
    assert all(set(one[0].tolist()).isdisjoint(other[0].tolist()) for one, other in combinations(whole, 2))
    again = [np.concatenate([chunk[n] for chunk in whole]) for n in (0, 1)] if whole else [keys, places]
    assert np.array_equal(again[0], keys)
    assert np.array_equal(again[1], places)


def test_a_place_is_a_unit_and_a_row() -> None:
    places = places_of(70_000, np.array([0, 5, (1 << 40) - 1]))
    units, rows = units_and_rows(places)
    assert units.tolist() == [70_000] * 3
    assert rows.tolist() == [0, 5, (1 << 40) - 1]
    assert places.min() > places_of(69_999, np.array([(1 << 40) - 1])).max()
