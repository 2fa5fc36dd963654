"""Pictures whose perceptual hashes differ in a few bits: no pair is missed, and few are compared.

In: distinct 64-bit hashes. Out: which of them form sets. Multi-index hashing (Norouzi, Punjani and Fleet 2012,
arXiv 1307.2982): the bits are cut into d + 2 chunks; two hashes that differ in at most d bits differ in at most d of
them and so agree in two. So hashes are grouped by every choice of two chunks, and only those of a group compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.curate.near.sets import components
from carnac.engine.buckets import BUCKET, KEY

BITS = 64
CHUNKS_SHARED = 2
Hashes = npt.NDArray[np.uint64]

# A kept image block with its hash; a distinct hash with the number of blocks that have it; a hash that is joined with
# another; a hash that occurs too often, with the least hash and the number of blocks of its set.
PICTURES = pa.schema(
    [(BUCKET, pa.int32()), (KEY, pa.uint64()), ("id", pa.string()), ("row", pa.int64()), ("block", pa.int32())]
)
DISTINCT = pa.schema([(KEY, pa.uint64()), ("number", pa.int64())])
JOINED = pa.schema([("phash", pa.uint64()), ("other", pa.uint64())])
FREQUENT = pa.schema([("phash", pa.uint64()), ("root", pa.uint64()), ("number", pa.int64())])


@dataclass(frozen=True, slots=True)
class Choice:
    """Two chunks of the bits: (lowest bit, width) of each."""

    chunks: tuple[tuple[int, int], ...]

    @property
    def width(self) -> int:
        """Bits of a key."""
        return sum(width for _, width in self.chunks)

    def keys(self, hashes: Hashes) -> Hashes:
        """Return what hashes must share to be compared: uint64[n], below 2 ** width."""
        keys = np.zeros(len(hashes), np.uint64)
        for lowest, width in self.chunks:
            keys = keys << np.uint64(width) | hashes >> np.uint64(lowest) & np.uint64((1 << width) - 1)
        return keys


def choices(max_distance: int) -> tuple[Choice, ...]:
    """Return all choices of chunks by which hashes of at most this distance are grouped; none for 0.

    For 4: 15 choices of 21 or 22 bits; for 7: 36 of 14 or 15.
    """
    if not max_distance:
        return ()
    cuts = np.linspace(0, BITS, max_distance + CHUNKS_SHARED + 1).round().astype(int).tolist()
    chunks = [(low, high - low) for low, high in pairwise(cuts)]
    return tuple(Choice(chosen) for chosen in combinations(chunks, CHUNKS_SHARED))


def join(hashes: Hashes, choice: Choice, max_distance: int) -> tuple[Hashes, Hashes]:
    """Return hashes joined with another one of their group: (hash, other), each hash at most once.

    Two distinct hashes that agree in the chunks of `choice` and differ in at most `max_distance` bits are joined,
    through others or at once. The order of `hashes` does not matter.
    """
    from carnac.curate.near.phash_kernels import join_groups

    keys = choice.keys(hashes)
    order = np.lexsort((hashes, keys))
    keys, hashes = keys[order], hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
    roots = join_groups(hashes, starts, max_distance)
    joined = roots != np.arange(len(hashes))
    return hashes[joined], hashes[roots[joined]]


def sets_of(first: Hashes, second: Hashes) -> tuple[Hashes, Hashes]:
    """Return the hashes that are joined with any, ascending, and the least hash of each one's set."""
    hashes = np.unique(np.concatenate([first, second]))
    roots = components(np.searchsorted(hashes, first), np.searchsorted(hashes, second), len(hashes))
    return hashes, hashes[roots]
