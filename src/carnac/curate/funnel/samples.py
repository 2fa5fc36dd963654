"""Draw samples that come out the same in any order of units: those of the smallest (distance, id), no two of one text.

Ids are hashes, so that among equals this is a fair draw. A document gives one sample to a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FIRST_LOOKED = 32  # of those nearest: mostly enough for three of different texts
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """What was drawn: a document at `row` of the part `unit`, and the block that shows it (None: it has none).

    `distance` is from a threshold, 0 in draws without one; `value` is that of the signal, None without one. Two of
    equal `digest` have the same text.
    """

    distance: float
    id: str
    row: int
    unit: str
    block: int | None
    digest: int
    value: float | None


def merge_picks(picks: Iterable[Pick], count: int) -> list[Pick]:
    """Return the first `count` of different texts."""
    first: dict[int, Pick] = {}
    for pick in sorted(picks, key=lambda pick: (pick.distance, pick.id, pick.unit, pick.row)):
        first.setdefault(pick.digest, pick)
        if len(first) == count:
            break
    return list(first.values())


def nearest(distance: npt.NDArray[np.float64], of: Integers, rank: Integers, limit: float) -> Iterable[int]:
    """Yield the entries nearest to a threshold, one of each document, by (distance, rank of the document).

    `distance` (float64[n], at least 0) and `of` (int64[n], ascending: the document of each) describe n entries;
    `rank` is that of each document among all. Entries farther than `limit` are left out. Of a document it is the
    nearest entry, the first of equals.
    """
    near = np.flatnonzero(distance <= limit)
    looked, met = FIRST_LOOKED, set[int]()
    while len(near):
        farthest = np.inf if looked >= len(near) else np.partition(distance[near], looked)[looked]
        chosen = near[distance[near] <= farthest]
        inside, ties = chosen[distance[chosen] < farthest], chosen[distance[chosen] == farthest]
        # Whole numbers lie at one distance by the thousand.
        chosen = np.concatenate([inside, ties[_firsts(of[ties])]])
        for entry in chosen[np.lexsort((chosen, rank[of[chosen]], distance[chosen]))].tolist():
            document = int(of[entry])
            if document not in met:
                met.add(document)
                yield entry
        near = near[distance[near] > farthest]
        looked *= 4


def _firsts(documents: Integers) -> Integers:
    """Return where each document comes first; `documents` ascends."""
    is_first = np.ones(len(documents), np.bool_)
    is_first[1:] = documents[1:] != documents[:-1]
    return np.flatnonzero(is_first)


def draw(entries: Iterable[int], pick_of: Callable[[int], Pick], count: int) -> list[Pick]:
    """Return picks of the first `count` entries of different texts."""
    first: dict[int, Pick] = {}
    for entry in entries:
        pick = pick_of(entry)
        first.setdefault(pick.digest, pick)
        if len(first) == count:
            break
    return list(first.values())
