"""The compiled signals beside the plain restatement of `bench/`: on real pages, and on text made to go wrong."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from curate_pages import page, sample_pages
from curate_plain import LEXICON, differences
from hypothesis import example, given, settings
from hypothesis import strategies as st

from carnac.curate.texts.batch import TextBatch
from carnac.curate.texts.characters import (
    DIGIT,
    EDGE,
    LETTER,
    LETTER_OR_MARK,
    SIGN,
    SIGNS,
    SPACE,
    UPPERCASE,
    WORD,
    character_classes,
)
from carnac.curate.texts.counts import CHARACTER_COUNTS
from carnac.curate.texts.lexicon import Lexicon
from carnac.curate.texts.split import split_words
from carnac.curate.texts.words import WordTable, hash_each

# What the definitions turn on: ends of sentences and lines, bullets, quotes, numerals, marks, capital sharp s.
SIGNS_AND_WORDS = (
    *"ab .,;:!?#'\"\u2019\u2026()[]{}-*+_0\u00bd\n\t",
    "\u2022 ",
    "...",
    "the ",
    "The end. ",
    "use cookies ",
    "\u3002",
    "e\u0301",
    "\u0130",
    "\u03a3",
    "\ud800",
    "\U0001f600",
    "\u6f22\u5b57",
    "\x1f",
    "\x00",
    "\u00a0",
)
HOSTILE = st.lists(st.lists(st.sampled_from(SIGNS_AND_WORDS), max_size=60).map("".join), max_size=5)


def test_all_signals_of_real_pages_are_those_of_the_plain_restatement() -> None:
    documents, _ = sample_pages()
    assert sum(len(document.texts) for document in documents) > 1_000
    assert [difference for document in documents for difference in differences(document)] == []


@settings(max_examples=300, deadline=None)
@given(HOSTILE)
@example([])
@example(["", " \n", "\n\n"])
@example(["a" * 200, "ab " * 200])
@example(["one two three four five six seven"] * 3)
@example(["\u039f\u0394\u039f\u03a3", "\u0130" * 20])
def test_all_signals_of_hostile_texts_are_those_of_the_plain_restatement(texts: list[str]) -> None:
    assert differences(page(*texts)) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=4))
def test_all_signals_of_any_texts_are_those_of_the_plain_restatement(texts: list[str]) -> None:
    assert differences(page(*texts)) == []


def test_classes_of_characters_are_those_of_python() -> None:
    classes = character_classes()
    told: dict[int, Callable[[str], bool]] = {
        SPACE: str.isspace,
        EDGE: lambda c: c.isalnum() and not c.isdecimal(),
        LETTER_OR_MARK: lambda c: c.isalpha() or unicodedata.category(c)[0] == "M",
        LETTER: str.isalpha,
        UPPERCASE: lambda c: c.isupper() and c.isalpha(),
        DIGIT: str.isdecimal,
        WORD: lambda c: c.isalnum() or c == "_",
        SIGN: lambda c: c in SIGNS,
    }
    # Every code point of the planes that hold characters of several kinds, every 97th of the others.
    codes = [*range(0x20000), *range(0x20000, 0x110000, 97), *range(0xE0000, 0xE0200)]
    for bit, is_such in told.items():
        wrong = [code for code in codes if bool(classes[code] & bit) != bool(is_such(chr(code)))]
        assert wrong == [], f"bit {bit}"


@given(st.lists(st.text(max_size=40), max_size=4))
def test_words_are_hashed_as_the_splitter_yields_them(texts: list[str]) -> None:
    words = [split_words(text) for text in texts]
    batch = TextBatch.of(texts)
    assert np.diff(batch.word_starts).tolist() == [len(block) for block in words]
    assert batch.words.tolist() == hash_each(word for block in words for word in block).tolist()
    assert batch.word_lengths.tolist() == [len(word) for block in words for word in block]


def test_a_list_of_words_holds_single_words_only() -> None:
    with pytest.raises(ValueError, match="'two words' is no single word"):
        WordTable.of({"one": 1, "two words": 1})


def test_words_are_counted_by_the_lists_of_their_language() -> None:
    german = "Der Stein und das Haus sind alt, und wir sind es nicht"
    batch = TextBatch.of([german])
    stop_words = {
        language: batch.word_counts(Lexicon(), language)[0][0].tolist()[2] for language in ("de", "en", "xx", None)
    }
    assert stop_words["de"] == 9  # all but Stein, Haus, alt
    assert stop_words["en"] == stop_words["xx"] == stop_words[None] == 0
    assert batch.word_counts(Lexicon(language="de"), None)[0][0].tolist()[2] == 9


def counted(text: str) -> dict[str, int]:
    return dict(zip(CHARACTER_COUNTS, TextBatch.of([text]).character_counts()[0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("One.", 1),
        ("One. Two! Three?", 3),
        ('He said: "Go." She went.', 2),
        ("It costs 3.14 euros at carnac.example", 1),
        ("Wait... what?!", 2),
        ("A heading\nA line", 2),
        ("1. 2. 3.", 0),
        ("\u6f22\u5b57\u3002\u6f22\u5b57\u3002", 2),
    ],
)
def test_sentences_end_at_terminals_before_white_space_and_at_the_ends_of_lines(text: str, number: int) -> None:
    assert counted(text)["num_sentences"] == number


def test_lines_are_told_by_how_they_begin_and_end() -> None:
    lines = counted("- one\n-two\n\u2022three...\n\n  It ends well.  \n" + "x" * 31)
    assert lines["num_lines"] == 5
    assert lines["num_bullet_lines"] == 2
    assert lines["num_ellipsis_lines"] == 1
    assert lines["num_terminal_lines"] == 2
    assert lines["num_short_lines"] == 4


def page_of(*texts: str) -> dict[str, float]:
    return TextBatch.of(texts).repetition_of_page()


def test_repeated_lines_and_paragraphs_count_from_their_second_time_on() -> None:
    repeated = page_of("Accept all\nRead on", "Accept all", "Accept all", "Other text")
    assert repeated["duplicate_line_ratio"] == pytest.approx(2 / 5)
    assert repeated["duplicate_line_character_ratio"] == pytest.approx(20 / (10 + 7 + 10 + 10 + 10))
    assert repeated["duplicate_paragraph_ratio"] == pytest.approx(1 / 4)


def test_a_repeated_phrase_is_covered_once_however_its_ngrams_overlap() -> None:
    phrase = "one two three four five six"
    repeated = page_of(f"{phrase} and {phrase}")
    characters = len(phrase.replace(" ", ""))
    assert repeated["duplicate_5gram_character_ratio"] == pytest.approx(2 * characters / (2 * characters + 3))
    assert repeated["duplicate_6gram_character_ratio"] == pytest.approx(2 * characters / (2 * characters + 3))
    assert repeated["duplicate_7gram_character_ratio"] == 0.0
    assert repeated["top_2gram_character_ratio"] == pytest.approx(2 * len("threefour") / (2 * characters + 3))
    assert repeated["unique_word_ratio"] == pytest.approx(7 / 13)


def test_nothing_repeats_in_a_text_without_repetition() -> None:
    repeated = page_of("the quick brown fox jumps over a lazy dog", "and nothing else happens here today")
    assert {name for name, share in repeated.items() if share > 0} == {"unique_word_ratio"}
    assert repeated["unique_word_ratio"] == 1.0


def units_of_work(texts: Sequence[str]) -> int:
    """Return the bytes that all arrays of a batch take: compiled passes go over each a fixed number of times."""
    batch = TextBatch.of(texts)
    arrays = (batch.flat.codes, batch.flat.begins, batch.words, batch.word_lengths, batch.word_starts)
    return sum(array.nbytes for array in arrays)


def test_a_hundred_times_larger_block_is_a_hundred_times_the_data_and_measured_alike() -> None:
    # A quadratic pass over a million words takes 10**12 steps and would run into the suite's timeout.
    small, large = "a bc def " * 3_000, "a bc def " * 300_000
    assert units_of_work([large]) == pytest.approx(100 * units_of_work([small]), rel=0.01)
    few, many = page_of(small), page_of(large)
    assert many["duplicate_10gram_character_ratio"] == few["duplicate_10gram_character_ratio"] == 1.0
    # Nine different 10-grams, of which the square root counts.
    assert TextBatch.of([large]).repetition_of_blocks()[0][0] == pytest.approx(3 / 9, abs=1e-6)


@pytest.mark.parametrize(
    "text", ["a" + "1" * 1_000_000, "!" * 1_000_000, "\n" * 1_000_000, "." * 1_000_000, "a" * 1_000_000]
)
def test_long_hostile_runs_cost_linear_work(text: str) -> None:
    batch = TextBatch.of([text])
    assert batch.character_counts()[0][0] == len(text)
    assert batch.word_counts(LEXICON, "en")[0][0][0] == (1 if "a" in text else 0)
    assert batch.repetition_of_blocks()[2] > 0.99
    assert batch.repetition_of_page()["duplicate_line_ratio"] == 0.0
