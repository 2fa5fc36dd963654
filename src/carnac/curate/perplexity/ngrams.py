"""The distinct n-grams of a corpus with their counts, for orders 1 to N, each order told by the one below it.

An n-gram is (its first n - 1 words as the number of an n-gram of the order below, its last word); numbers are places in
sorted order. So one sort of 64-bit keys per order counts n-grams of any length, whatever the size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UNKNOWN, BEGIN, END = 0, 1, 2  # of the vocabulary: <unk>, <s>, </s>
SPECIAL = ("<unk>", "<s>", "</s>")
Numbers = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ngrams:
    """The k distinct n-grams of one order: uint32[k] each.

    `prefix` and `suffix` number, in the order below, its first and its last n - 1 words (0 for single words), `word` is
    its last word, `count` how often it stands in the corpus.
    """

    prefix: Numbers
    word: Numbers
    suffix: Numbers
    count: Numbers

    def __len__(self) -> int:
        return len(self.word)


def count_ngrams(tokens: Numbers, vocabulary_size: int, order: int) -> Iterator[Ngrams]:
    """Yield the n-grams of orders 1 to `order`. No n-gram goes beyond its sentence.

    `tokens` (uint32[t]) holds sentences, one after the other, each from `BEGIN` to `END`.
    """
    count = np.bincount(tokens, minlength=vocabulary_size).astype(np.uint32)
    none = np.zeros(vocabulary_size, np.uint32)
    yield Ngrams(prefix=none, word=np.arange(vocabulary_size, dtype=np.uint32), suffix=none, count=count)
    left = _words_left(tokens)
    numbers = tokens  # of the n-gram of the order below that begins at each place
    for length in range(2, order + 1):
        starts = np.flatnonzero(left >= length).astype(np.uint32)
        ngrams, mine = _distinct(numbers, tokens, starts, length)
        yield ngrams
        numbers = np.zeros(len(tokens), np.uint32)
        numbers[starts] = mine


def _distinct(numbers: Numbers, tokens: Numbers, starts: Numbers, length: int) -> tuple[Ngrams, Numbers]:
    """Return the distinct n-grams that begin at `starts`, and the number of each (uint32[len(starts)])."""
    keys = numbers[starts].astype(np.uint64) << np.uint64(32)
    keys |= tokens[starts + np.uint32(length - 1)]
    order = np.argsort(keys).astype(np.uint32)
    keys = keys[order]
    is_first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    mine = np.empty(len(keys), np.uint32)
    mine[order] = np.cumsum(is_first, dtype=np.uint32) - np.uint32(1)
    firsts = np.flatnonzero(is_first)
    keys = keys[firsts]
    ngrams = Ngrams(
        prefix=(keys >> np.uint64(32)).astype(np.uint32),
        word=keys.astype(np.uint32),
        suffix=numbers[starts[order[firsts]] + np.uint32(1)],
        count=np.diff(np.append(firsts, len(order))).astype(np.uint32),
    )
    return ngrams, mine


def _words_left(tokens: Numbers) -> npt.NDArray[np.int32]:
    """Return for each place how many tokens there are from it to the end of its sentence: int32[t]."""
    ends = np.flatnonzero(tokens == END)
    lengths = np.diff(np.append(-1, ends))
    left: npt.NDArray[np.int32] = (np.repeat(ends, lengths) - np.arange(len(tokens)) + 1).astype(np.int32)
    return left
