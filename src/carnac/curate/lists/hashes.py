"""Perceptual hashes near those of a list, by the number of bits in which they differ (Norouzi et al. 2012).

A hash is cut into chunks of 16 bits. Where two hashes differ in d bits, one of their c chunks differs in d // c bits at
most, so only entries that share a chunk up to so many bits are compared: of a million random PDQ hashes 4,000 in place
of all, at 31 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

CHUNK_BITS = 16
CHUNKS_PER_WORD = 64 // CHUNK_BITS
FEW = 4096  # entries: fewer are compared one by one, as fast as by an index
MAX_RADIUS = 2  # bits of a chunk: 137 values at two, 697 at three, by when it is cheaper to compare all
PAIRS_AT_ONCE = 1 << 20  # compared: 32 MB of PDQ hashes


def words_of(hashes: Sequence[bytes], num_bytes: int) -> Words:
    """Return hashes of `num_bytes` bytes as uint64[n, num_bytes / 8], the first byte highest."""
    return np.frombuffer(b"".join(hashes), ">u8").astype(np.uint64).reshape(len(hashes), num_bytes // 8)


def nearest(queries: Words, listed: Words, max_distance: int) -> tuple[Integers, Integers]:
    """Return, for each of `queries` (uint64[n, w]), the nearest of `listed` (uint64[m, w]) and its distance in bits.

    -1 stands for none within `max_distance`; of equally near ones the first is returned.
    """
    num_listed = max(len(listed), 1)
    best = np.full(len(queries), (max_distance + 1) * num_listed, np.int64)  # distance * m + entry: least is nearest
    radius = max_distance // (listed.shape[1] * CHUNKS_PER_WORD)
    is_small = len(listed) <= FEW or radius > MAX_RADIUS
    pairs = _all_pairs(len(queries), len(listed)) if is_small else _pairs_by_chunk(queries, listed, radius)
    for query, entry in pairs:
        distance = np.bitwise_count(queries[query] ^ listed[entry]).sum(axis=1, dtype=np.int64)
        np.minimum.at(best, query, distance * num_listed + entry)
    distance, entry = np.divmod(best, num_listed)
    is_none = distance > max_distance
    return np.where(is_none, -1, entry), np.where(is_none, -1, distance)


def _all_pairs(num_queries: int, num_listed: int) -> Iterator[tuple[Integers, Integers]]:
    """Yield (queries, entries) of all pairs, some at a time."""
    at_once = max(PAIRS_AT_ONCE // max(num_listed, 1), 1)
    entries = np.arange(num_listed)
    for start in range(0, num_queries, at_once):
        rows = np.arange(start, min(start + at_once, num_queries))
        yield np.repeat(rows, num_listed), np.tile(entries, len(rows))


def _pairs_by_chunk(queries: Words, listed: Words, radius: int) -> Iterator[tuple[Integers, Integers]]:
    """Yield (queries, entries) of the pairs that share a chunk up to `radius` bits, some of them more than once."""
    num_chunks = listed.shape[1] * CHUNKS_PER_WORD
    asked = np.ascontiguousarray(queries).view(np.uint16).reshape(len(queries), num_chunks)
    known = np.ascontiguousarray(listed).view(np.uint16).reshape(len(listed), num_chunks)
    masks = _masks(radius)
    for chunk in range(num_chunks):
        order = np.argsort(known[:, chunk], kind="stable")
        starts = np.searchsorted(known[order, chunk], np.arange((1 << CHUNK_BITS) + 1))
        values = asked[:, chunk, None] ^ masks
        first, stop = starts[values], starts[values.astype(np.int64) + 1]
        ends = np.cumsum((stop - first).sum(axis=1))
        begin = 0
        while begin < len(queries):
            done = ends[begin - 1] if begin else 0
            end = max(int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")), begin + 1)
            counts = (stop - first)[begin:end].ravel()
            rows = np.repeat(np.arange(begin, end), (stop - first)[begin:end].sum(axis=1))
            into = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            yield rows, order[np.repeat(first[begin:end].ravel(), counts) + into]
            begin = end


def _masks(radius: int) -> npt.NDArray[np.uint16]:
    """Return all values of 16 bits of which `radius` or fewer are set."""
    bits = [1 << place for place in range(CHUNK_BITS)]
    sets = [sum(chosen) for number in range(radius + 1) for chosen in combinations(bits, number)]
    return np.array(sets, np.uint16)
