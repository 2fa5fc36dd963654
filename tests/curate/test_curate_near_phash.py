"""Hashes within a distance: no pair is missed, and few are compared."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.seeds import generator
from carnac.curate.near.phash_pairs import BITS, choices, join, sets_of


def components_of(hashes: list[int], max_distance: int) -> list[list[int]]:
    """Return the sets of two or more, by a scan of all pairs."""
    root = {number: number for number in hashes}

    def of(number: int) -> int:
        while root[number] != number:
            number = root[number]
        return number

    for one, other in combinations(sorted(hashes), 2):
        if (one ^ other).bit_count() <= max_distance:
            here, there = of(one), of(other)
            root[max(here, there)] = min(here, there)
    members: dict[int, list[int]] = {}
    for number in sorted(hashes):
        members.setdefault(of(number), []).append(number)
    return sorted(each for each in members.values() if len(each) > 1)


def found(hashes: list[int], max_distance: int) -> list[list[int]]:
    joined = [join(np.array(hashes, np.uint64), choice, max_distance) for choice in choices(max_distance)]
    first, second = (np.concatenate([np.zeros(0, np.uint64), *(pair[end] for pair in joined)]) for end in (0, 1))
    members: dict[int, list[int]] = {}
    for number, root in zip(*(each.tolist() for each in sets_of(first, second)), strict=True):
        members.setdefault(root, []).append(number)
    assert all(min(each) == root for root, each in members.items())
    return sorted(members.values())


@pytest.mark.parametrize("max_distance", range(8))
def test_any_two_hashes_within_the_distance_share_two_chunks(max_distance: int) -> None:
    """For every way to choose the bits that differ: at random, all in neighbouring bits, and spread evenly."""
    random = generator(max_distance, "test phash chunks")
    spread = [tuple(range(start, BITS, BITS // max(1, max_distance)))[:max_distance] for start in range(BITS // 8)]
    together = [tuple(range(start, start + max_distance)) for start in range(BITS - max_distance)]
    drawn = [tuple(random.choice(BITS, max_distance, replace=False).tolist()) for _ in range(200)]
    for bits in (*spread, *together, *drawn):
        one = int(random.integers(1 << 63))
        pair = np.array([one, one ^ sum(1 << bit for bit in bits)], np.uint64)
        if max_distance:
            assert any(len(set(choice.keys(pair).tolist())) == 1 for choice in choices(max_distance))
        else:
            assert not choices(0)


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=6),
    flips=st.lists(st.sets(st.integers(0, 63), max_size=7), max_size=30),
    max_distance=st.integers(0, 7),
)
def test_sets_are_those_of_a_scan_of_all_pairs(seeds: list[int], flips: list[set[int]], max_distance: int) -> None:
    hashes = set(seeds)
    for number, bits in enumerate(flips):
        hashes.add(sorted(hashes)[number % len(hashes)] ^ sum(1 << bit for bit in bits))
    assert found(sorted(hashes), max_distance) == components_of(sorted(hashes), max_distance)


def test_the_order_of_hashes_changes_nothing() -> None:
    random = generator(0, "test phash order")
    hashes = random.integers(1 << 63, size=300).astype(np.uint64)
    hashes = np.unique(np.concatenate([hashes, hashes[:200] ^ np.uint64(5), hashes[:100] ^ np.uint64(1 << 40)]))
    choice = choices(4)[3]
    here, there = join(hashes, choice, 4), join(hashes[::-1].copy(), choice, 4)
    assert np.array_equal(here, there)
    assert len(here[0]) >= 100


@pytest.mark.parametrize(("max_distance", "least_bits"), [(1, 42), (2, 32), (4, 20), (7, 14)])
def test_keys_are_wide_enough_to_leave_few_to_compare(max_distance: int, least_bits: int) -> None:
    assert min(choice.width for choice in choices(max_distance)) >= least_bits
    assert len(choices(max_distance)) == (max_distance + 2) * (max_distance + 1) // 2
