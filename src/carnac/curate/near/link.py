"""Compiled loop that joins near-duplicates to sets in which all are alike. Only workers import it: it loads numba."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

# Of sets whose members are not all near their first ones, so many pairs are looked up at most before they stay apart:
# what they have in common is dropped all the same, and their first ones are compared in the next round.
MAX_CHECKS = 4096
_UNKNOWN = 2.0  # a distance greater than any
_ROUNDING = 1e-9
_Numbers = npt.NDArray[np.int64]
_Distances = npt.NDArray[np.float64]


@njit(cache=True)
def _distance(starts: _Numbers, greater: _Numbers, distances: _Distances, one: int, other: int) -> float:
    """Return the known distance of two things, or `_UNKNOWN`."""
    if one == other:
        return 0.0
    low, sought = starts[min(one, other)], max(one, other)
    high = starts[min(one, other) + 1]
    while low < high:
        middle = (low + high) // 2
        if greater[middle] < sought:
            low = middle + 1
        else:
            high = middle
    if low < starts[min(one, other) + 1] and greater[low] == sought:
        return float(distances[low])
    return _UNKNOWN


@njit(cache=True)
def _find(root: _Numbers, thing: int) -> int:
    """Return the least member of a thing's set, and halve the way there."""
    while root[thing] != thing:
        root[thing] = root[root[thing]]
        thing = root[thing]
    return thing


@njit(cache=True)
def _reach(
    following: _Numbers, starts: _Numbers, greater: _Numbers, distances: _Distances, ends: tuple[int, int], most: float
) -> float:
    """Return how far any of one set is from the first of another, or `_UNKNOWN` unless all pairs are near."""
    reach, first = 0.0, ends[0]
    while first >= 0:
        second = ends[1]
        while second >= 0:
            known = _distance(starts, greater, distances, first, second)
            if known > most:
                return _UNKNOWN
            if first == ends[0]:
                reach = max(reach, known)
            second = following[second]
        first = following[first]
    return reach


@njit(cache=True)
def link(
    starts: _Numbers, less: _Numbers, greater: _Numbers, distances: _Distances, strong: _Numbers, most: float
) -> _Numbers:
    """Return the least member of each thing's set: int64[n]. See `near_sets.linked`.

    Pairs are sorted by (less, greater), those of thing t from `starts[t]` to `starts[t + 1]`; `strong` are the numbers
    of pairs to join by, in their order. No two of a set are farther apart than `most`.
    """
    number, limit = len(starts) - 1, most + _ROUNDING
    root, following, last = np.arange(number), np.full(number, -1), np.arange(number)
    size, radius = np.ones(number, np.int64), np.zeros(number)
    for pair in strong:
        here, there = less[pair], greater[pair]
        one, other = _find(root, here), _find(root, there)
        if one == other:
            continue
        if other < one:
            one, other, here, there = other, one, there, here
        around = _distance(starts, greater, distances, one, here) + distances[pair]
        around += _distance(starts, greater, distances, there, other)
        reach = min(around, _distance(starts, greater, distances, one, other)) + radius[other]
        if radius[one] + reach > limit:
            if size[one] * size[other] > MAX_CHECKS:
                continue
            reach = _reach(following, starts, greater, distances, (one, other), limit)
            if reach > limit:
                continue
        radius[one] = max(radius[one], reach)
        size[one] += size[other]
        following[last[one]] = other
        last[one] = last[other]
        root[other] = one
    for thing in range(number):
        root[thing] = _find(root, thing)
    return root
