"""Words of text blocks as 64-bit hashes, and how many stand on lists: compiled.

The words are those of `carnac.curate.text.split_words`; a test holds one to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from carnac.curate.texts.characters import EDGE, SPACE, character_classes
from carnac.curate.texts.compiled import compiled

# Bits of a word on the lists of a language; the eight required words have the bits above them.
STOP, FLAGGED, SPAM = 1, 2, 4
REQUIRED_SHIFT = 8
WORD_COUNTS = ("num_words", "num_word_characters", "num_stop_words", "num_flagged_words", "num_spam_words")
_RIGHT_QUOTE, _APOSTROPHE = 0x2019, 0x27
# An odd multiplier of a polynomial hash modulo 2**64 (the 64-bit golden ratio), and splitmix64's two.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


@compiled("uint64(uint64)")
def mix(number: Any) -> Any:
    """Return splitmix64's finaliser of a number: every bit of it moves every bit of the result. Never 0."""
    number = (number ^ (number >> np.uint64(30))) * _MIX_1
    number = (number ^ (number >> np.uint64(27))) * _MIX_2
    number ^= number >> np.uint64(31)
    return number if number != np.uint64(0) else np.uint64(1)


@compiled("int64(uint32[::1], int64[::1], int64[::1], uint8[::1], uint64[::1], int64[::1], int64[::1])")
def hash_words(  # noqa: PLR0913, PLR0917 -- arrays in, arrays out
    codes: npt.NDArray[np.uint32],
    begins: Places,
    ends: Places,
    classes: npt.NDArray[np.uint8],
    hashes: Hashes,
    lengths: Places,
    starts: Places,
) -> int:
    """Hash the words of blocks of lower-case text and return their number.

    Of each word its hash and its length in characters go to `hashes` and `lengths`, which have room for half the
    characters and one more per block; `starts` (one longer than blocks) tells where each block's words begin.
    """
    num_words = 0
    for block in range(len(begins)):
        starts[block] = num_words
        state = whole = np.uint64(0)
        first = last = -1
        for place in range(begins[block], ends[block] + 1):
            if place == ends[block] or (classes[codes[place]] & SPACE) != 0:
                if first >= 0:
                    hashes[num_words], lengths[num_words] = mix(whole), last - first + 1
                    num_words += 1
                state, first = np.uint64(0), -1
                continue
            code = codes[place]
            is_edge = (classes[code] & EDGE) != 0
            if first >= 0 or is_edge:
                state = state * _MULTIPLIER + np.uint64(_APOSTROPHE if code == _RIGHT_QUOTE else code)
            if is_edge:
                first = place if first < 0 else first
                whole, last = state, place
    starts[len(begins)] = num_words
    return num_words


@dataclass(frozen=True, slots=True)
class WordTable:
    """Words by their hashes, with bits for each: an open table of a power of two entries, at most half full."""

    keys: Hashes
    bits: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, words: Mapping[str, int]) -> WordTable:
        """Return the table of words (as `split_words` gives them) and their bits."""
        size = 1 << max(1, 2 * len(words)).bit_length()
        table = cls(np.zeros(size, np.uint64), np.zeros(size, np.uint16))
        hashes = hash_each(words)
        _insert(hashes, np.array(list(words.values()), np.uint16), table.keys, table.bits)
        return table


def hash_each(words: Iterable[str]) -> Hashes:
    """Return the hash of each word. Raises ValueError where one is no single word."""
    listed = list(words)
    codes = codes_of("\n".join(listed))
    lengths = np.array([len(word) for word in listed], np.int64)
    begins = np.cumsum(lengths + 1) - lengths - 1
    hashes, starts = np.zeros(len(codes) // 2 + len(listed) + 1, np.uint64), np.zeros(len(listed) + 1, np.int64)
    found = np.zeros(len(hashes), np.int64)
    number = hash_words(codes, begins, begins + lengths, character_classes(), hashes, found, starts)
    wrong = np.flatnonzero(np.diff(starts) != 1)
    if len(wrong):
        raise ValueError(f"{listed[wrong[0]]!r} is no single word")
    return hashes[:number]


def codes_of(text: str) -> npt.NDArray[np.uint32]:
    """Return the code points of a text, lone surrogates included."""
    if text.isascii():  # a quarter of the bytes to go through
        return np.frombuffer(text.encode("ascii"), np.uint8).astype(np.uint32)
    # A copy that may be written to: compiled functions tell the two apart.
    return np.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), np.uint32)


@compiled("void(uint64[::1], uint16[::1], uint64[::1], uint16[::1])")
def _insert(hashes: Hashes, bits: npt.NDArray[Any], keys: Hashes, values: npt.NDArray[Any]) -> None:
    last = np.uint64(len(keys) - 1)
    for number in range(len(hashes)):
        slot = hashes[number] & last
        while keys[slot] != np.uint64(0) and keys[slot] != hashes[number]:
            slot = (slot + np.uint64(1)) & last
        keys[slot] = hashes[number]
        values[slot] |= bits[number]


@compiled("uint16(uint64, uint64[::1], uint16[::1])")
def _look_up(word: Any, keys: Hashes, values: npt.NDArray[Any]) -> Any:
    last = np.uint64(len(keys) - 1)
    slot = word & last
    while keys[slot] != np.uint64(0):
        if keys[slot] == word:
            return values[slot]
        slot = (slot + np.uint64(1)) & last
    return np.uint16(0)


@compiled("void(uint64[::1], int64[::1], int64[::1], uint64[::1], uint16[::1], int32[:,::1], uint8[::1])")
def count_listed(  # noqa: PLR0913, PLR0917 -- arrays in, arrays out
    hashes: Hashes,
    lengths: Places,
    starts: Places,
    keys: Hashes,
    values: npt.NDArray[Any],
    counts: npt.NDArray[Any],
    required: npt.NDArray[Any],
) -> None:
    """Fill `counts` (int32[blocks, columns of `WORD_COUNTS`]) and the bits of the `required` words in each block."""
    for block in range(len(starts) - 1):
        characters = stop = flagged = spam = 0
        met = np.uint16(0)
        for place in range(starts[block], starts[block + 1]):
            characters += lengths[place]
            bits = _look_up(hashes[place], keys, values)
            stop += (bits & STOP) != 0
            flagged += (bits & FLAGGED) != 0
            spam += (bits & SPAM) != 0
            met |= bits
        row = counts[block]
        row[0], row[1] = starts[block + 1] - starts[block], characters
        row[2], row[3], row[4] = stop, flagged, spam
        required[block] = met >> REQUIRED_SHIFT


@compiled("void(uint64[::1], int64[::1], uint64[::1], uint16[::1], int32[::1])")
def count_common(
    hashes: Hashes, starts: Places, keys: Hashes, values: npt.NDArray[Any], counts: npt.NDArray[Any]
) -> None:
    """Count the words of each block that a table holds."""
    for block in range(len(starts) - 1):
        common = 0
        for place in range(starts[block], starts[block + 1]):
            common += _look_up(hashes[place], keys, values) != 0
        counts[block] = common
