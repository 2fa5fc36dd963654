"""Compiled loops of the search for near-duplicates: shingles, MinHash bands, sketches compared.

In and out: flat arrays. Only workers import this module, since numba takes half a second to load.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from carnac.curate.near.numbers import BANDS, ROWS, SHINGLE

_WORD_PRIME = np.uint64(0x100000001B3)  # of FNV-1a, 64 bits
_WORD_BASIS = np.uint64(0xCBF29CE484222325)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_MOST = np.uint64(0xFFFFFFFFFFFFFFFF)
_NEWLINE = np.uint8(10)


@njit(cache=True, inline="always")
def _mixed(number: np.uint64) -> np.uint64:
    """Spread a number over all 64 bits: the finaliser of splitmix64, as `engine.buckets.mix`."""
    mixed = number + _GOLDEN
    mixed = (mixed ^ (mixed >> _S30)) * _FIRST
    mixed = (mixed ^ (mixed >> _S27)) * _SECOND
    return mixed ^ (mixed >> _S31)


@njit(cache=True)
def hash_shingles(codes: npt.NDArray[np.uint8], num_words: int) -> npt.NDArray[np.uint64]:
    """Return a hash of every run of `SHINGLE` words: uint64[num_words - SHINGLE + 1].

    `codes` are the bytes of the words (UTF-8), each followed by a line feed. A word's hash is FNV-1a, spread; that of a
    shingle is the chain of its words' hashes, so no string is joined.
    """
    words = np.empty(num_words, np.uint64)
    word, found = _WORD_BASIS, 0
    for code in codes:
        if code == _NEWLINE:
            words[found] = _mixed(word)
            word = _WORD_BASIS
            found += 1
        else:
            word = (word ^ np.uint64(code)) * _WORD_PRIME
    shingles = np.empty(max(0, num_words - SHINGLE + 1), np.uint64)
    for place in range(len(shingles)):
        chain = words[place]
        for offset in range(1, SHINGLE):
            chain = _mixed(chain) + words[place + offset]
        shingles[place] = _mixed(chain)
    return shingles


@njit(cache=True)
def band_keys(
    shingles: npt.NDArray[np.uint64], factors: npt.NDArray[np.uint64], addends: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """Return a hash of every band of a MinHash signature: uint64[BANDS].

    Value i of the signature is the least of the upper halves of `factors[i] * shingle + addends[i]`; band b holds
    values b * ROWS to b * ROWS + ROWS - 1 and its own number, so equal values of other bands do not meet.
    """
    keys = np.empty(BANDS, np.uint64)
    for band in range(BANDS):
        key = _mixed(np.uint64(band))
        for row in range(band * ROWS, band * ROWS + ROWS):
            factor, addend, least = factors[row], addends[row], _MOST
            for shingle in shingles:
                least = min(least, (factor * shingle + addend) >> _S32)
            key = _mixed(key + least)
        keys[band] = key
    return keys


@njit(cache=True)
def share_in_common(first: npt.NDArray[np.uint32], second: npt.NDArray[np.uint32], at_most: int) -> float:
    """Return the share of the union of two ascending sets that is in both, of its `at_most` least numbers alone."""
    here, there, union, common = 0, 0, 0, 0
    while union < at_most and (here < len(first) or there < len(second)):
        union += 1
        if there == len(second) or (here < len(first) and first[here] < second[there]):
            here += 1
        elif here == len(first) or second[there] < first[here]:
            there += 1
        else:
            common += 1
            here += 1
            there += 1
    return common / union if union else 0.0


@njit(cache=True)
def similarities(
    pairs: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint32],
    is_whole: npt.NDArray[np.bool_],
    size: int,
) -> npt.NDArray[np.float64]:
    """Return the similarity of pairs of sketches: float64[p].

    `pairs` (int64[p, 2]) count sketches; sketch s is `hashes[starts[s]:starts[s + 1]]`, ascending, and `is_whole[s]` if
    it holds every shingle. Where both are whole it is the Jaccard similarity itself, else an estimate from the `size`
    least of the union (bottom-k; Broder 1997), of standard error sqrt(J (1 - J) / size).
    """
    found = np.empty(len(pairs))
    for place in range(len(pairs)):
        one, other = pairs[place, 0], pairs[place, 1]
        first, second = hashes[starts[one] : starts[one + 1]], hashes[starts[other] : starts[other + 1]]
        at_most = len(first) + len(second) if is_whole[one] and is_whole[other] else size
        found[place] = share_in_common(first, second, at_most)
    return found
