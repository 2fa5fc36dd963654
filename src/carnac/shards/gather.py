"""Gathering: where each image that a shard wants lies in a gather file.

A gather file holds what all shards want from one group of packs: a segment for each shard, in it the images in the
order in which the shard reads them. All lengths are known before the first byte is read, and so all places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.shards.split import SPLITS

Integers = npt.NDArray[np.integer[Any]]

MAX_GROUPS = 64  # a shard reads from as many files: each has its share of the memory for reading ahead

# An image wanted, in the order of (row, block) of a documents part. `bucket` is the group of packs, `key` the pack;
# `split` indexes SPLITS.
ROUTES = pa.schema(
    [
        ("bucket", pa.int32()),
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("split", pa.int8()),
    ]
)

# What the shard of `unit` and `split` finds in a gather file: `images` images in `length` bytes from `offset` on.
SEGMENTS = pa.schema(
    [
        ("unit", pa.string()),
        ("split", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("images", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A gather file of `num_bytes`: `places` are the offsets of the images, in the order in which they were given.

    Of the segments, in the order of their offsets: the documents part and the split (of SPLITS) that each is for, its
    offset, its length in bytes, and its number of images.
    """

    places: npt.NDArray[np.int64]
    parts: Integers
    splits: Integers
    offsets: Integers
    lengths: Integers
    images: Integers
    num_bytes: int


def layout_of(parts: Integers, splits: Integers, lengths: Integers) -> Layout:
    """Return the layout of images given in the order of (part, row, block): by part and split, else as they come.

    The three arrays, int [images], say of each image which documents part wants it, for which of SPLITS, and how many
    bytes it has.
    """
    order = np.lexsort((splits, parts))  # stable
    sizes = lengths[order].astype(np.int64)
    stops = np.cumsum(sizes)
    places = np.empty(len(order), np.int64)
    places[order] = stops - sizes
    shards = parts[order].astype(np.int64) * len(SPLITS) + splits[order]
    first = np.flatnonzero(np.diff(shards, prepend=-1))
    num_bytes = int(sizes.sum())
    offsets = (stops - sizes)[first]
    return Layout(
        places=places,
        parts=shards[first] // len(SPLITS),
        splits=shards[first] % len(SPLITS),
        offsets=offsets,
        lengths=np.diff(offsets, append=num_bytes) if len(first) else offsets,
        images=np.diff(first, append=len(shards)) if len(first) else first,
        num_bytes=num_bytes,
    )
