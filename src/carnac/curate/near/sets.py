"""Sets of documents (or pictures) from pairs that are alike, and the one of each set that stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


def components(first: Numbers, second: Numbers, number: int) -> Numbers:
    """Return the smallest member of each one's set: int64[number], of `number` things and pairs of them.

    All that a chain of pairs connects is one set. Sets are joined by their smallest members in rounds, all pairs at
    once (Shiloach and Vishkin 1982): at least half of the sets that still have a neighbour end in every round.
    """
    root = np.arange(number)
    while len(first):
        here, there = root[first], root[second]
        apart = here != there
        first, second, here, there = first[apart], second[apart], here[apart], there[apart]
        np.minimum.at(root, np.maximum(here, there), np.minimum(here, there))
        while not np.array_equal(root, up := root[root]):
            root = up
    return root


def linked(pairs: tuple[Numbers, Numbers], similarity: Shares, number: int, least: float, floor: float) -> Numbers:
    """Return the smallest member of each one's set: int64[number], of `number` things and known pairs of them.

    `pairs` (less, greater) are known with their similarity, each once. The most alike are joined first, down to
    `least`, and only where all pairs of the two sets are alike by `floor` or more: by what is known, or because both
    ends are near a third (Jaccard distance is a metric). Complete linkage; no chain of small steps makes a set.
    """
    if not (similarity >= least).any():
        return np.arange(number)
    from carnac.curate.near.link import link

    order = np.lexsort(pairs[::-1])
    less, greater, similarity = pairs[0][order], pairs[1][order], similarity[order]
    starts = np.searchsorted(less, np.arange(number + 1))
    strong = np.flatnonzero(similarity >= least)
    strong = strong[np.argsort(-similarity[strong], kind="stable")]  # equals by their places
    roots: Numbers = link(starts, less, greater, 1 - similarity, strong, 1 - floor)
    return roots


def stays(roots: Numbers, ranks: Numbers) -> Numbers:
    """Return the one of each thing's set that stays: int64[n], the member of the least rank, then number."""
    order = np.lexsort((ranks, roots))
    begins = np.ones(len(order), np.bool_)
    begins[1:] = roots[order][1:] != roots[order][:-1]
    best = order[np.flatnonzero(begins)]
    chosen = np.empty(len(roots), np.int64)
    chosen[order] = best[np.cumsum(begins) - 1]
    return chosen
