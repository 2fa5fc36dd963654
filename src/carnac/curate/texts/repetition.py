"""Repetition inside texts: of characters, words, lines and paragraphs. Compiled; linear in the length of the text.

What is compared is told apart by 64-bit hashes: of 10,000 some two collide with a probability below 1e-11.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from carnac.curate.texts.characters import SPACE
from carnac.curate.texts.compiled import compiled
from carnac.curate.texts.words import mix

CHARACTER_NGRAM = 10  # OBELICS (arXiv 2306.16527), appendix A
WORD_NGRAM = 5
TOP_NGRAMS = (2, 3, 4)  # Gopher (arXiv 2112.11446), table A1
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)
WORD_REPEATS = (
    "unique_word_ratio",
    "word_repetition",
    *(f"top_{length}gram_character_ratio" for length in TOP_NGRAMS),
    *(f"duplicate_{length}gram_character_ratio" for length in DUPLICATE_NGRAMS),
)
LINE_REPEATS = (
    "duplicate_line_ratio",
    "duplicate_line_character_ratio",
    "duplicate_paragraph_ratio",
    "duplicate_paragraph_character_ratio",
)
_LAST_TOP, _LONGEST = TOP_NGRAMS[-1], DUPLICATE_NGRAMS[-1]
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LEAVING = np.uint64(pow(0x9E3779B97F4A7C15, CHARACTER_NGRAM - 1, 1 << 64))  # of the character that leaves an n-gram
# More hashes than this are first sorted into groups of about so many: the table for so few stays in the cache.
_GROUP_BITS, _MAX_BITS = 13, 12
_NEWLINE = ord("\n")

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Counts = npt.NDArray[Any]
Shares = npt.NDArray[np.float64]


@compiled("int64(int64)")
def _table_size(number: int) -> int:
    """Return the entries of a table for `number` keys: a power of two, so that at most half are taken."""
    size = 2
    while size < 2 * number:
        size *= 2
    return size


@compiled("int64(uint64[::1], uint64[::1], int32[::1], int32[::1])")
def _tally(hashes: Hashes, keys: Hashes, counts: Counts, slots: Counts) -> int:
    """Count equal hashes in a table and return how many differ; `slots` gets the place in it of each."""
    size = _table_size(len(hashes))
    counts[:size] = 0
    last, distinct = np.uint64(size - 1), 0
    for place in range(len(hashes)):
        slot = hashes[place] & last
        while counts[slot] != 0 and keys[slot] != hashes[place]:
            slot = (slot + np.uint64(1)) & last
        if counts[slot] == 0:
            keys[slot] = hashes[place]
            distinct += 1
        counts[slot] += 1
        slots[place] = slot
    return distinct


@compiled("float64(int32[::1], int64)")
def _sum_of_largest(counts: Counts, number: int) -> float:
    """Return the sum of the largest counts, so many at most, without sorting them."""
    if len(counts) == 0:
        return 0.0
    times = np.zeros(counts.max() + 1, np.int64)
    for place in range(len(counts)):
        times[counts[place]] += 1
    total, left, count = 0, number, len(times) - 1
    while left > 0 and count > 0:
        taken = min(left, times[count])
        total += taken * count
        left -= taken
        count -= 1
    return float(total)


@compiled("void(uint32[::1], int64, int64[::1], uint64[::1])")
def _hash_ngrams(codes: npt.NDArray[np.uint32], bits: int, ends: Places, hashes: Hashes) -> None:
    """Hash the character n-grams of a text, by groups of equal highest `bits`: group g lies before `ends[g]`.

    `ends` comes with where each group begins. With no room in `hashes` it gets how many each group has, one place on:
    hashing twice is less work than fetching the pages of memory for hashes that are not grouped yet.
    """
    shift = np.uint64(63 - bits)
    state = np.uint64(0)
    for place in range(len(codes)):
        if place >= CHARACTER_NGRAM:
            state -= np.uint64(codes[place - CHARACTER_NGRAM]) * _LEAVING
        state = state * _MULTIPLIER + np.uint64(codes[place])
        if place >= CHARACTER_NGRAM - 1:
            value = mix(state)
            group = np.int64((value >> np.uint64(1)) >> shift)
            if len(hashes) == 0:
                ends[group + 1] += 1
            else:
                hashes[ends[group]] = value
                ends[group] += 1


@compiled("float64(uint32[::1])")
def _share_of_top(codes: npt.NDArray[np.uint32]) -> float:
    """Return the share of a text's commonest n-grams: the first sqrt(number that differ), without those of one time."""
    number = len(codes) - CHARACTER_NGRAM + 1
    if number < 2:
        return 0.0
    bits = 0
    while number >> (_GROUP_BITS + bits) > 0 and bits < _MAX_BITS:
        bits += 1
    ends = np.zeros((1 << bits) + 1, np.int64)
    if bits > 0:
        _hash_ngrams(codes, bits, ends, np.empty(0, np.uint64))
        ends = np.cumsum(ends)
    hashes = np.empty(number, np.uint64)
    _hash_ngrams(codes, bits, ends, hashes)
    keys, counts, slots = np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.int32)
    repeats = np.empty(number // 2, np.int32)  # how often each of those that occur again does
    num_repeats, distinct, begin = 0, 0, 0
    for end in ends[:-1]:
        size = _table_size(end - begin)
        if len(keys) < size:
            keys, counts, slots = np.empty(size, np.uint64), np.empty(size, np.int32), np.empty(size, np.int32)
        distinct += _tally(hashes[begin:end], keys, counts, slots)
        for slot in range(size):
            if counts[slot] > 1:
                repeats[num_repeats] = counts[slot]
                num_repeats += 1
        begin = end
    return _sum_of_largest(repeats[:num_repeats], int(np.sqrt(distinct))) / number


@compiled("float64(uint32[::1], int64[::1], int64[::1], float64[::1])")
def repeat_characters(codes: npt.NDArray[np.uint32], begins: Places, ends: Places, shares: Shares) -> float:
    """Return the share of the commonest character n-grams of a page; `shares` gets that of each of its blocks.

    `codes` is the page's whole text; blocks are `codes[begins:ends]`. A text shorter than an n-gram has 0.
    """
    page = _share_of_top(codes)
    if len(begins) == 1:
        shares[0] = page
        return page
    for block in range(len(begins)):
        shares[block] = _share_of_top(codes[begins[block] : ends[block]])
    return page


@compiled("void(uint64[::1], int64[::1], float64[::1])")
def repeat_words_of_blocks(words: Hashes, starts: Places, shares: Shares) -> None:
    """Fill `shares` with each block's share of word n-grams that occur more than once; words by their hashes."""
    keys, counts, slots = np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.int32)
    for block in range(len(starts) - 1):
        first, number = starts[block], starts[block + 1] - starts[block] - WORD_NGRAM + 1
        shares[block] = 0.0
        if number < 2:
            continue
        hashes = words[first : first + number].copy()
        for offset in range(1, WORD_NGRAM):
            for place in range(number):
                hashes[place] = mix(hashes[place] * _MULTIPLIER + words[first + place + offset])
        size = _table_size(number)
        if len(keys) < size:
            keys, counts, slots = np.empty(size, np.uint64), np.empty(size, np.int32), np.empty(size, np.int32)
        repeated = 0
        if _tally(hashes, keys, counts, slots) < number:
            for place in range(number):
                repeated += counts[slots[place]] > 1
        shares[block] = repeated / number


@compiled("float64(int64[::1], int64, int32[::1], int32[::1], int64[::1])")
def _covered_by_top(places: Places, length: int, counts: Counts, slots: Counts, ends: Places) -> float:
    """Return the characters of words in the commonest n-gram: of equally common ones the longest, then the first."""
    best, most, longest = -1, 1, 0
    for number in range(len(places)):
        count = counts[slots[number]]
        characters = ends[places[number] + length] - ends[places[number]]
        if count > most or (count == most and count > 1 and characters > longest):
            best, most, longest = slots[number], count, characters
    covered, until = 0, 0
    for number in range(len(places)):
        if slots[number] == best:
            begin = max(until, places[number])
            until = places[number] + length
            covered += ends[until] - ends[begin]
    return float(covered)


@compiled("float64(int64[::1], int64, int32[::1], int32[::1], int64[::1])")
def _covered_by_duplicates(places: Places, length: int, counts: Counts, slots: Counts, ends: Places) -> float:
    """Return the characters of words in n-grams that occur more than once, each counted once."""
    covered, until = 0, 0
    for number in range(len(places)):
        if counts[slots[number]] > 1:
            begin = max(until, places[number])
            until = places[number] + length
            covered += ends[until] - ends[begin]
    return float(covered)


@compiled("void(uint64[::1], int64[::1], float64[::1])")
def repeat_words(words: Hashes, lengths: Places, shares: Shares) -> None:
    """Fill `shares` (columns of `WORD_REPEATS`) for a page whose words have these hashes and lengths.

    An n-gram that occurs once begins no longer one that occurs twice: of each length only the places are looked at
    whose shorter n-gram occurs again, which in most texts are few from the second length on.
    """
    shares[:] = 0.0
    if len(words) == 0:
        return
    ends = np.zeros(len(words) + 1, np.int64)
    ends[1:] = np.cumsum(lengths)
    size = _table_size(len(words))
    keys, counts, slots = np.empty(size, np.uint64), np.empty(size, np.int32), np.empty(len(words), np.int32)
    places, hashes = np.arange(len(words)), words.copy()
    shares[0] = _tally(hashes, keys, counts, slots) / len(words)
    for length in range(2, _LONGEST + 1):
        number = 0
        for old in range(len(places)):
            if counts[slots[old]] > 1 and places[old] + length <= len(words):
                hashes[number] = mix(hashes[old] * _MULTIPLIER + words[places[old] + length - 1])
                places[number] = places[old]
                number += 1
        places = places[:number]
        if number == 0:
            return
        _tally(hashes[:number], keys, counts, slots)
        if length == WORD_NGRAM:
            repeated = 0
            for place in range(number):
                repeated += counts[slots[place]] > 1
            shares[1] = repeated / (len(words) - WORD_NGRAM + 1)
        if length <= _LAST_TOP:
            covered = _covered_by_top(places, length, counts, slots, ends)
        else:
            covered = _covered_by_duplicates(places, length, counts, slots, ends)
        shares[length] = covered / ends[-1]


@compiled("int64(uint32[::1], int64[::1], int64[::1], uint8[::1], boolean, uint64[::1], int64[::1])")
def _hash_stretches(  # noqa: PLR0913, PLR0917 -- arrays in, arrays out
    codes: npt.NDArray[np.uint32],
    begins: Places,
    ends: Places,
    classes: npt.NDArray[np.uint8],
    is_by_line: bool,
    hashes: Hashes,
    lengths: Places,
) -> int:
    """Hash the lines of blocks, or whole blocks, without white space at both ends; empty ones are none."""
    number = 0
    for block in range(len(begins)):
        state = whole = np.uint64(0)
        first = last = -1
        for place in range(begins[block], ends[block] + 1):
            if place == ends[block] or (is_by_line and codes[place] == _NEWLINE):
                if first >= 0:
                    hashes[number], lengths[number] = mix(whole), last - first + 1
                    number += 1
                state, first = np.uint64(0), -1
                continue
            is_space = (classes[codes[place]] & SPACE) != 0
            if first >= 0 or not is_space:
                state = state * _MULTIPLIER + np.uint64(codes[place])
            if not is_space:
                first = place if first < 0 else first
                whole, last = state, place
    return number


@compiled("void(uint64[::1], int64[::1], float64[::1])")
def _share_of_duplicates(hashes: Hashes, lengths: Places, shares: Shares) -> None:
    """Fill `shares` with the share of those that were there before, by number and by characters."""
    if len(hashes) == 0:
        return
    size = _table_size(len(hashes))
    keys, counts, slots = np.empty(size, np.uint64), np.empty(size, np.int32), np.empty(len(hashes), np.int32)
    distinct = _tally(hashes, keys, counts, slots)
    again = 0
    for place in range(len(hashes)):
        again += lengths[place] if counts[slots[place]] < 0 else 0
        counts[slots[place]] = -1
    shares[0] = (len(hashes) - distinct) / len(hashes)
    shares[1] = again / lengths.sum()


@compiled("void(uint32[::1], int64[::1], int64[::1], uint8[::1], float64[::1])")
def repeat_lines(
    codes: npt.NDArray[np.uint32], begins: Places, ends: Places, classes: npt.NDArray[np.uint8], shares: Shares
) -> None:
    """Fill `shares` (columns of `LINE_REPEATS`) for the page of blocks `codes[begins:ends]`: paragraphs are blocks."""
    shares[:] = 0.0
    room = len(begins)
    for place in range(len(codes)):
        room += codes[place] == _NEWLINE
    hashes, lengths = np.empty(room, np.uint64), np.empty(room, np.int64)
    number = _hash_stretches(codes, begins, ends, classes, True, hashes, lengths)
    _share_of_duplicates(hashes[:number], lengths[:number], shares[:2])
    number = _hash_stretches(codes, begins, ends, classes, False, hashes, lengths)
    _share_of_duplicates(hashes[:number], lengths[:number], shares[2:])
