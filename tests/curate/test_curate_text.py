from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carnac.curate.texts.digests import digest_text, digest_url, normalise
from carnac.curate.texts.split import split_words


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


def test_long_hostile_runs_are_split_in_linear_time() -> None:
    # A quadratic scan of either would need 10**12 steps and run into the suite's timeout.
    assert split_words("a" + "1" * 1_000_000) == ["a"]
    assert split_words("!" * 1_000_000) == []


def test_texts_that_differ_in_case_and_white_space_have_one_digest() -> None:
    assert digest_text("Stand  in\n\nlines") == digest_text(" stand in LINES ")
    assert digest_text("stand in lines") != digest_text("standin lines")
    assert digest_text(" \n\t") is None


@given(st.text())
def test_digests_are_numbers_of_64_bits_and_only_of_something(text: str) -> None:
    value = digest_text(text)
    assert (value is None) == (normalise(text) == "")
    assert value is None or 0 <= value < 1 << 64


def test_url_digest_ignores_the_fragment_only() -> None:
    assert digest_url("http://a.example/x?q=1#top") == digest_url("http://a.example/x?q=1")
    assert digest_url("http://a.example/x?q=1") != digest_url("http://a.example/x?q=2")
    assert digest_url("http://[bad#x") == digest_url("http://[bad")


def test_digests_stay_what_they_are_since_stored_ones_are_compared_with_new_ones() -> None:
    assert digest_text("Stand in lines") == 0xB027D0269832E640
    assert digest_url("http://a.example/#x") == 0x3A87AEF1EC36EFC3
