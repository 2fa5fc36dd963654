"""Documents that share a band, and the few pairs of them that are compared.

In: band keys of documents, by bucket. Out: groups (the documents of each key that two or more share), and from those
in every round the edges to compare. Each document is compared with the first of its group and with the `WINDOW` before
it: n documents give fewer than (WINDOW + 1) n edges, never all n (n - 1) / 2. What was dropped leaves its groups, and
the next round compares those that are left; the last round finds nothing new, so to search again finds nothing either.

A document's place is one number that orders documents by unit and row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.curate.near.numbers import WINDOW
from carnac.engine.buckets import BUCKET, KEY, mix

ROW_BITS = 40  # of a place; above them the rank of the unit by its name
Places = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

# A band of a document that competes, and of those the ones that share their key with another.
BAND_KEYS = pa.schema([(BUCKET, pa.int32()), (KEY, pa.uint64()), ("row", pa.int64())])
GROUPS = pa.schema([(KEY, pa.uint64()), ("place", pa.int64())])
# Two documents to compare, the smaller place first, by the bucket of the pair; a pair may be there once per bucket of
# bands.
EDGES = pa.schema([(BUCKET, pa.int32()), (KEY, pa.uint64()), ("first", pa.int64()), ("second", pa.int64())])


def places_of(rank: int, rows: npt.NDArray[np.int64]) -> Places:
    """Return the places of rows of the unit of this rank."""
    places: Places = (np.int64(rank) << np.int64(ROW_BITS)) | rows
    return places


def units_and_rows(places: Places) -> tuple[Places, Places]:
    """Return the ranks of the units and the rows."""
    return places >> ROW_BITS, places & ((1 << ROW_BITS) - 1)


def shared(keys: Keys, places: Places) -> tuple[Keys, Places]:
    """Return the rows whose key occurs in two or more documents, by key and place."""
    order = np.lexsort((places, keys))
    keys, places = keys[order], places[order]
    same = keys[1:] == keys[:-1]
    is_shared = np.zeros(len(keys), np.bool_)
    is_shared[1:] |= same
    is_shared[:-1] |= same
    return keys[is_shared], places[is_shared]


def by_whole_keys(chunks: Iterable[tuple[Keys, Places]]) -> Iterator[tuple[Keys, Places]]:
    """Yield rows that come sorted by key so that all of a key come at once; memory is that of the largest chunk."""
    held_keys, held_places = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for more_keys, more_places in chunks:
        keys, places = np.concatenate([held_keys, more_keys]), np.concatenate([held_places, more_places])
        cut = int(np.searchsorted(keys, keys[-1])) if len(keys) else 0
        if cut:
            yield keys[:cut], places[:cut]
        held_keys, held_places = keys[cut:], places[cut:]
    if len(held_keys):
        yield held_keys, held_places


def edges_of(keys: Keys, places: Places) -> tuple[Places, Places]:
    """Return the edges of groups: each place with the first of its key and the `WINDOW` before it; (less, greater).

    `keys` and `places` are sorted by key, then place.
    """
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = keys[1:] != keys[:-1]
    first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    number = np.arange(len(keys)) - first  # in its group
    less, greater = [], []
    for back in range(1, WINDOW + 1):
        later = np.flatnonzero(number >= back)
        less.append(places[later - back])
        greater.append(places[later])
    far = np.flatnonzero(number > WINDOW)
    return np.concatenate([*less, places[first[far]]]), np.concatenate([*greater, places[far]])


def new_edges(keys: Keys, places: Places, dropped: Places, dropped_before: Places | None) -> tuple[Places, Places]:
    """Return the edges of what is left of groups, less those that earlier rounds have compared; (less, greater).

    `dropped` (ascending) are the places dropped so far, `dropped_before` those when the last round began, None in the
    first. An edge of an earlier round between two that are left was one of the last round too.
    """
    left = ~is_among(places, dropped)
    if dropped_before is None:
        return edges_of(keys[left], places[left])
    there = ~is_among(places, dropped_before)
    touched = is_among(keys, np.unique(keys[there & ~left]))  # of the other groups all edges are known
    left, there = left & touched, there & touched
    now, then = edges_of(keys[left], places[left]), edges_of(keys[there], places[there])
    fresh = ~_is_among_pairs(now, then)
    return now[0][fresh], now[1][fresh]


def distinct_edges(less: Places, greater: Places) -> tuple[Places, Places]:
    """Return each edge once, by its places."""
    order = np.lexsort((greater, less))
    less, greater = less[order], greater[order]
    is_new = np.ones(len(less), np.bool_)
    is_new[1:] = (less[1:] != less[:-1]) | (greater[1:] != greater[:-1])
    return less[is_new], greater[is_new]


def edge_keys(less: Places, greater: Places) -> Keys:
    """Return the number by which an edge goes to its bucket."""
    keys: Keys = mix(mix(less) + greater.astype(np.uint64))
    return keys


def is_among(values: npt.NDArray[np.integer], ascending: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Say of each value whether it is one of some ascending ones."""
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    places = np.searchsorted(ascending, values)
    places[places == len(ascending)] = 0
    found: npt.NDArray[np.bool_] = ascending[places] == values
    return found


def _is_among_pairs(pairs: tuple[Places, Places], others: tuple[Places, Places]) -> npt.NDArray[np.bool_]:
    """Say of each pair whether it is one of some others."""
    number = np.concatenate([np.ones(len(others[0]), np.int8), np.zeros(len(pairs[0]), np.int8)])
    less, greater = (np.concatenate([theirs, mine]) for theirs, mine in zip(others, pairs, strict=True))
    order = np.lexsort((-number, greater, less))  # of equals those of `others` come first
    less, greater, number = less[order], greater[order], number[order]
    begins = np.ones(len(less), np.bool_)
    begins[1:] = (less[1:] != less[:-1]) | (greater[1:] != greater[:-1])
    known = np.zeros(len(less), np.bool_)
    known[order] = (number[np.flatnonzero(begins)] == 1)[np.cumsum(begins) - 1] if len(less) else False
    return known[len(others[0]) :]
