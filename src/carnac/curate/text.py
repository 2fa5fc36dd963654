"""Words, special characters and repetition of a text: pure functions, each linear in the length of the text.

The definitions are those of OBELICS (Laurencon et al. 2023, arXiv 2306.16527, appendix A) where it has them, which took
them from the ROOTS corpus (Laurencon et al. 2022, arXiv 2303.03915).
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

CHARACTER_NGRAM = 10
WORD_NGRAM = 5

# From the first letter to the last letter of a run without white space: "(3) 'Hello-world!'" gives "hello-world".
_WORD = re.compile(r"[^\W\d_](?:\S*[^\W\d_])?")
# An odd multiplier of a polynomial hash modulo 2**64 (the 64-bit golden ratio, as in splitmix64).
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def split_words(text: str) -> list[str]:
    """Return the words of `text`: lower case, stripped of digits, punctuation and symbols at both ends.

    A run without white space is at most one word, so Chinese, Japanese and Thai are undercounted.
    """
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def count_special_characters(text: str) -> int:
    """Count the characters that are neither letters nor marks: white space, digits, punctuation, symbols, emoji."""
    counts = Counter(text)
    return sum(
        count
        for character, count in counts.items()
        if not character.isalpha() and not unicodedata.category(character).startswith("M")
    )


def measure_character_repetition(text: str, length: int = CHARACTER_NGRAM) -> float:
    """Return the share of the most frequent character n-grams among all of them.

    The most frequent are the first sqrt(number of distinct n-grams), those that occur once excluded. N-grams are told
    apart by a 64-bit hash: two of 10,000 collide with a probability below 1e-11. 0.0 for a text shorter than `length`.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    num_ngrams = len(codes) - length + 1
    if num_ngrams < 1:
        return 0.0
    hashes = np.zeros(num_ngrams, dtype=np.uint64)
    for offset in range(length):
        hashes = hashes * _MULTIPLIER + codes[offset : offset + num_ngrams]
    counts = np.sort(np.unique(hashes, return_counts=True)[1])[::-1]
    num_top = min(math.isqrt(len(counts)), int((counts > 1).sum()))
    return float(counts[:num_top].sum() / num_ngrams)


def measure_word_repetition(words: Sequence[str], length: int = WORD_NGRAM) -> float:
    """Return the share of word n-grams that occur more than once; 0.0 for a text shorter than one n-gram."""
    counts = Counter(zip(*(words[offset:] for offset in range(length)), strict=False))
    total = counts.total()
    return sum(count for count in counts.values() if count > 1) / total if total else 0.0


def digest_text(text: str) -> str | None:
    """Return sha256, in hex, of `text` in lower case with white space collapsed; None where nothing is left."""
    normalised = " ".join(text.lower().split())
    return hashlib.sha256(normalised.encode("utf-8", "surrogatepass")).hexdigest() if normalised else None


def digest_url(url: str) -> str:
    """Return sha256, in hex, of `url` without its fragment, which names a place in a page."""
    return hashlib.sha256(url.partition("#")[0].encode("utf-8", "surrogatepass")).hexdigest()
