from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from carnac.curate.stop_words import STOP_WORDS
from carnac.curate.text import (
    count_special_characters,
    digest_text,
    digest_url,
    measure_character_repetition,
    measure_word_repetition,
    split_words,
)

REPETITIVE = st.text(alphabet="ab \N{GREEK SMALL LETTER ALPHA}\N{GRINNING FACE}", max_size=200)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("123 ... -- (4)", []),
        ("(3) 'Hello-World!' ", ["hello-world"]),
        ("It\u2019s here;\nit's gone.", ["it's", "here", "it's", "gone"]),
        ("\u00c9t\u00e9 2024 caf\u00e9", ["\u00e9t\u00e9", "caf\u00e9"]),
        ("numpy.ndarray[float]", ["numpy.ndarray[float"]),
        ("\U0001f600wow\U0001f600", ["wow"]),
    ],
)
def test_words_are_lower_case_and_stripped_of_what_is_no_letter(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(st.text())
def test_words_hold_no_white_space_and_start_and_end_with_letters(text: str) -> None:
    for word in split_words(text):
        assert word.split() == [word]
        assert not word[0].isdecimal()
        assert word[0].isalnum()
        assert word[-1].isalnum()


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("plain", 0), ("two words", 1), ("a1!\n", 3), ("e\u0301t", 0), ("\U0001f600 ok", 2), ("\u6f22\u5b57", 0)],
)
def test_special_characters_are_those_that_are_neither_letters_nor_marks(text: str, count: int) -> None:
    assert count_special_characters(text) == count


@given(REPETITIVE)
@example("a" * 200)
@example("abcdefghij" * 2)
@example("\ud800" * 12)
def test_character_repetition_is_that_of_the_paper_restated(text: str) -> None:
    counts = Counter(text[start : start + 10] for start in range(len(text) - 9))
    top = min(math.isqrt(len(counts)), sum(count > 1 for count in counts.values()))
    expected = sum(sorted(counts.values(), reverse=True)[:top]) / counts.total() if counts else 0.0
    assert measure_character_repetition(text) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.sampled_from(["a", "b", "ab"]), max_size=60))
def test_word_repetition_is_that_of_the_paper_restated(words: list[str]) -> None:
    ngrams = [" ".join(words[start : start + 5]) for start in range(len(words) - 4)]
    expected = sum(ngrams.count(ngram) > 1 for ngram in ngrams) / len(ngrams) if ngrams else 0.0
    assert measure_word_repetition(words) == pytest.approx(expected, abs=1e-12)


def test_repetition_of_a_text_without_any_is_zero_and_of_one_phrase_is_one() -> None:
    assert measure_character_repetition("the quick brown fox") == 0.0
    assert measure_character_repetition("a" * 100) == 1.0
    assert measure_word_repetition(["buy"] * 6) == 1.0
    assert measure_word_repetition(["one", "two", "three", "four"]) == 0.0


def test_texts_that_differ_in_case_and_white_space_have_one_digest() -> None:
    assert digest_text("Stand  in\n\nlines") == digest_text(" stand in LINES ")
    assert digest_text("stand in lines") != digest_text("standin lines")
    assert digest_text(" \n\t") is None


def test_url_digest_ignores_the_fragment_only() -> None:
    assert digest_url("http://a.example/x?q=1#top") == digest_url("http://a.example/x?q=1")
    assert digest_url("http://a.example/x?q=1") != digest_url("http://a.example/x?q=2")
    assert digest_url("http://[bad#x") == digest_url("http://[bad")


def test_stop_words_are_words_as_the_splitter_yields_them() -> None:
    assert len(STOP_WORDS) > 250
    assert all(split_words(word) == [word] for word in STOP_WORDS)
    assert {"the", "and", "it's", "don't"} <= STOP_WORDS
    assert not {"stone", "home", "click", "image"} & STOP_WORDS


def test_long_hostile_runs_cost_linear_work() -> None:
    # A quadratic scan of either would need 10**12 steps and run into the suite's timeout.
    assert split_words("a" + "1" * 1_000_000) == ["a"]
    assert split_words("!" * 1_000_000) == []
