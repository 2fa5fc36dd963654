"""Sketches of texts: the sets of shingles they stand for, the bands that propose, the similarity they tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.seeds import generator
from carnac.curate.near.numbers import BANDS, ROWS, SKETCH
from carnac.curate.near.sketch import Sketch, compare, shingles_of, sketch_texts

WORDS = st.lists(st.sampled_from(["mill", "river", "\u00e9t\u00e9", "\u6c34", "a", "b-c", "\ud800x"]), max_size=30)


def sketch(text: str) -> Sketch:
    made = sketch_texts([text])
    assert made is not None
    return made


def triples(words: list[str]) -> set[tuple[str, str, str]]:
    return set(zip(words, words[1:], words[2:], strict=False))


def numbered(start: int, stop: int) -> str:
    """Return words that occur once: of n of them, n - 2 shingles."""
    letters = str.maketrans("0123456789", "abcdefghij")
    return " ".join(f"word{number}".translate(letters) for number in range(start, stop))


@settings(max_examples=200)
@given(words=WORDS)
def test_a_text_has_a_hash_for_every_three_words_in_a_row_and_no_other(words: list[str]) -> None:
    assert len(shingles_of(words)) == len(triples(words))


@settings(max_examples=200)
@given(one=WORDS, other=WORDS)
def test_of_short_texts_the_similarity_is_that_of_their_sets_of_shingles(one: list[str], other: list[str]) -> None:
    first, second = sketch_texts([" ".join(one)]), sketch_texts([" ".join(other)])
    here, there = triples(one), triples(other)
    assert (first is None) == (not here)
    if first is not None and second is not None:
        assert compare(first, second) == len(here & there) / len(here | there)


def test_a_text_of_fewer_than_three_words_has_no_sketch() -> None:
    assert sketch_texts(["one two"]) is None
    assert sketch_texts(["1, 2, 3"]) is None
    assert sketch_texts([]) is None


def test_where_a_text_is_cut_into_blocks_changes_nothing() -> None:
    cut, whole = sketch_texts(["The mill", "by the river"]), sketch_texts(["the Mill by the river!"])
    assert cut is not None
    assert whole is not None
    assert compare(cut, whole) == 1
    assert np.array_equal(cut.bands, whole.bands)


@pytest.mark.parametrize("shared", [700, 900, 1100, 1600, 1900])
def test_of_long_texts_the_similarity_is_told_within_four_standard_errors(shared: int) -> None:
    one, other = sketch(numbered(0, 2002)), sketch(numbered(2000 - shared, 4002 - shared))
    assert one.num_shingles == other.num_shingles == 2000
    assert len(one.hashes) == SKETCH
    exact = shared / (4000 - shared)
    assert compare(one, other) == pytest.approx(exact, abs=4 * (exact * (1 - exact) / SKETCH) ** 0.5)


def test_a_short_text_in_a_long_one_is_compared_as_well() -> None:
    short, long = sketch(numbered(0, 302)), sketch(numbered(0, 2002))
    assert compare(short, long) == compare(long, short) == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / SKETCH) ** 0.5)


def test_bands_are_shared_as_often_as_minhash_promises() -> None:
    """A band of r values is shared with probability J ** r: here 20 bands of 200 pairs, and 4 standard errors."""
    random, shared = generator(0, "test bands"), 80  # of 120 shingles in all
    num_pairs, met = 200, 0
    for _ in range(num_pairs):
        start = int(random.integers(1_000_000)) * 1000
        one, other = sketch(numbered(start, start + 102)), sketch(numbered(start + 20, start + 122))
        met += int((one.bands == other.bands).sum())
    expected = (shared / 120) ** ROWS
    error = (expected * (1 - expected) / num_pairs) ** 0.5  # as if the bands of a pair said all the same
    assert met / (num_pairs * BANDS) == pytest.approx(expected, abs=4 * error)


def test_the_bands_of_a_text_are_what_lies_on_disk() -> None:
    """Another number here is another version of the stage `near_sketches`."""
    made = sketch("The old mill by the river turns its wheel")
    assert made.num_words == 9
    assert made.num_shingles == 7
    assert [f"{key:016x}" for key in made.bands[:2].tolist()] == BANDS_OF_MILL
    assert made.hashes.tolist() == HASHES_OF_MILL


BANDS_OF_MILL = ["81df9af5e2a75777", "2c6ee173ff6fdabe"]
HASHES_OF_MILL = [152626558, 543690233, 901815276, 1015640894, 1394323504, 1736515896, 3088172641]
