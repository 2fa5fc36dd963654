"""Runs of words that a document shares with the items of an evaluation set, found by hash.

As GPT-3 was checked (Brown et al. 2020, arXiv 2005.14165, appendix C): a document is contaminated when 13 words
of an item stand in it in a row. Words are those of `split_words`: case, punctuation and white space do not hide a run.
An n-gram is known by 64 bits: of 10 million of a set and a billion of a crawl, two meet by accident with a probability
of 0.0005.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.engine.buckets import mix

Hashes = npt.NDArray[np.uint64]

# An item that is shorter than an n-gram counts as a whole, from so many words on: GPT-3's smallest n. Fewer words are
# said by chance ("what is the capital of france").
MIN_WHOLE_WORDS = 8
# Cells per n-gram of the table that is looked into first, so that one n-gram in eight is searched for in vain.
CELLS_PER_NGRAM = 8
MAX_CELLS = 1 << 26  # 64 MB

_SEPARATOR = 10  # a line feed, which no word holds
# An odd number has an inverse modulo 2**64: the hash of bytes [a, b) is a difference of two sums over all bytes.
_MULTIPLIER = 0x9E3779B97F4A7C15
_INVERSE = pow(_MULTIPLIER, -1, 1 << 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRun:
    """What a document shares with a set: its first run (`length` words from `position` on), which is of `item`.

    `num_runs` counts the n-grams of the document that the set holds.
    """

    position: int
    length: int
    item: str
    num_runs: int


@dataclass(frozen=True, slots=True)
class NgramIndex:
    """The n-grams of one evaluation set.

    `hashes` (uint64[k]) ascends; `items` names, for each, the item that it is of. `lengths` are the numbers of words
    of n-grams that there are. `occupied` (bool[a power of two]) has a cell for some bits of each hash.
    """

    hashes: Hashes
    items: pa.ChunkedArray
    lengths: tuple[int, ...]
    occupied: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, hashes: Hashes, items: pa.ChunkedArray, lengths: Sequence[int]) -> NgramIndex:
        """Return the index of n-grams whose hashes ascend."""
        wanted = max(len(hashes) * CELLS_PER_NGRAM, 1)
        occupied = np.zeros(min(1 << (wanted - 1).bit_length(), MAX_CELLS), np.bool_)
        occupied[hashes & np.uint64(len(occupied) - 1)] = True
        return cls(hashes, items, tuple(sorted(lengths)), occupied)

    def find(self, word_hashes: Hashes) -> SharedRun | None:
        """Return what a text, given as the hashes of its words, shares with the set; None for nothing. Linear."""
        runs = [
            (int(place), length, int(ngram))
            for length in self.lengths
            for place, ngram in zip(*self._places(hash_ngrams(word_hashes, length)), strict=True)
        ]
        if not runs:
            return None
        position, length, ngram = min(runs)
        return SharedRun(position=position, length=length, item=self.items[ngram].as_py(), num_runs=len(runs))

    def _places(self, hashes: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return where `hashes` holds n-grams of the set, and which."""
        nothing = np.zeros(0, np.intp)
        if not len(self.hashes):
            return nothing, nothing
        maybe = np.flatnonzero(self.occupied[hashes & np.uint64(len(self.occupied) - 1)])
        there = np.minimum(np.searchsorted(self.hashes, hashes[maybe]), len(self.hashes) - 1)
        found = self.hashes[there] == hashes[maybe]
        return maybe[found], there[found]


def hash_words(words: Sequence[str]) -> Hashes:
    """Return 64 bits per word: uint64[w]. The same in every process: they lie on disk."""
    codes = np.frombuffer("\n".join([*words, ""]).encode("utf-8", "surrogatepass"), np.uint8)
    stops = np.flatnonzero(codes == _SEPARATOR)
    if not len(stops):
        return np.zeros(0, np.uint64)
    starts = np.append(0, stops[:-1] + 1)
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * _powers(_MULTIPLIER, len(codes)), out=sums[1:])
    return mix((sums[stops] - sums[starts]) * _powers(_INVERSE, len(codes))[starts])


def hash_ngrams(word_hashes: Hashes, length: int) -> Hashes:
    """Return 64 bits per run of `length` words: uint64[max(w - length + 1, 0)]."""
    number = max(len(word_hashes) - length + 1, 0)
    hashes = np.full(number, length, np.uint64)
    for offset in range(length):
        hashes = hashes * np.uint64(_MULTIPLIER) + word_hashes[offset : offset + number]
    return mix(hashes)


def ngrams_of_item(words: Sequence[str], ngram: int) -> tuple[int, Hashes]:
    """Return what of an item is searched for: (words in a row, their hashes).

    All runs of `ngram` words; the whole item where it is shorter; nothing where it has too few words (length 0).
    """
    length = min(ngram, len(words))
    if length < min(ngram, MIN_WHOLE_WORDS):
        return 0, np.zeros(0, np.uint64)
    return length, hash_ngrams(hash_words(words), length)


def texts_in(value: Any) -> list[str]:
    """Return the strings of a field's value: itself, or those of its entries, however deep."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts_in(each)]
    return [text for each in value for text in texts_in(each)] if isinstance(value, list) else []


def _powers(base: int, number: int) -> Hashes:
    """Return base**0, base**1 ... modulo 2**64: uint64[number]."""
    powers = np.full(number, base, np.uint64)
    powers[:1] = 1
    np.multiply.accumulate(powers, out=powers)
    return powers
