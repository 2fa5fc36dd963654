"""Runs of words and pictures that documents share with evaluation sets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from carnac.curate.contamination import pictures as contamination_pictures
from carnac.curate.contamination.ngrams import NgramIndex, SharedRun, hash_ngrams, hash_words, ngrams_of_item, texts_in
from carnac.curate.contamination.pictures import FLAT, nearest_pictures
from carnac.curate.contamination.settings import DecontaminatePass
from carnac.curate.texts.split import split_words

ITEM = "Which of these rivers, the Loire or the Seine, flows through more towns on its long way to the sea?"
WORDS = st.lists(st.sampled_from(["a", "b", "ab", "\u00e9t\u00e9", "\u77f3"]), max_size=40)


def index_of(*items: str, ngram: int = 13) -> NgramIndex:
    found = [(*ngrams_of_item(split_words(item), ngram), item) for item in items]
    hashes = np.concatenate([np.zeros(0, np.uint64), *(each[1] for each in found)])
    names = [name for _, each, name in found for _ in each]
    kept, first = np.unique(hashes, return_index=True)
    items_of = pa.chunked_array([pa.array(names, pa.string()).take(pa.array(first))])
    return NgramIndex.of(kept, items_of, sorted({each[0] for each in found} - {0}))


def find(index: NgramIndex, text: str) -> SharedRun | None:
    return index.find(hash_words(split_words(text)))


def test_a_run_is_found_whatever_its_case_punctuation_and_white_space() -> None:
    hidden = "Quiz night!\n\n*WHICH* of these rivers -- (the Loire) or\tthe Seine -- flows through more towns?"
    assert find(index_of(ITEM), hidden) == SharedRun(position=2, length=13, item=ITEM, num_runs=1)


def test_twelve_words_in_a_row_are_no_run_of_thirteen() -> None:
    twelve = "which of these rivers the loire or the seine flows through more"
    assert find(index_of(ITEM), f"{twelve} villages") is None
    assert find(index_of(ITEM), f"{twelve} towns") is not None


def test_all_runs_of_a_document_are_counted_and_the_first_is_told() -> None:
    found = find(index_of(ITEM, "nothing of it is in the text at all but these words are an item too"), f"x {ITEM}")
    assert found == SharedRun(position=1, length=13, item=ITEM, num_runs=len(split_words(ITEM)) - 12)


def test_a_shorter_item_counts_as_a_whole_from_eight_words_on() -> None:
    eight = "name the eight stones beside the old mill"
    assert find(index_of(eight), f"He said: {eight}.") == SharedRun(position=2, length=8, item=eight, num_runs=1)
    assert find(index_of(eight), eight.removesuffix(" mill")) is None
    assert ngrams_of_item(split_words("name the stones beside the old mill"), 13)[0] == 0


def test_a_shorter_ngram_takes_shorter_items() -> None:
    assert find(index_of("five stones in a row", ngram=5), "see five stones in a row here") is not None
    assert ngrams_of_item(["five", "stones", "here", "now"], 5)[0] == 0


def test_an_empty_set_and_an_empty_text_share_nothing() -> None:
    assert find(index_of(), ITEM) is None
    assert find(index_of(ITEM), "") is None
    assert len(hash_words([])) == len(hash_ngrams(hash_words(["a"]), 2)) == 0


@given(st.lists(WORDS, max_size=4), WORDS, st.integers(3, 6))
def test_runs_are_those_that_a_search_word_by_word_finds(items: list[list[str]], words: list[str], ngram: int) -> None:
    index = index_of(*(" ".join(item) for item in items), ngram=ngram)
    known = {
        tuple(item[start : start + length])
        for item in items
        for length in [min(ngram, len(item))]
        if length >= min(ngram, 8)
        for start in range(len(item) - length + 1)
    }
    places = [
        (start, length)
        for start in range(len(words))
        for length in sorted({len(each) for each in known})
        if tuple(words[start : start + length]) in known
    ]
    found = index.find(hash_words(words))
    assert (found and (found.position, found.length, found.num_runs)) == ((*places[0], len(places)) if places else None)


def test_the_hash_of_a_word_is_that_of_the_word_wherever_it_stands() -> None:
    words = [f"word{number}" for number in range(50_000)]
    hashes = hash_words(words)
    assert len(np.unique(hashes)) == len(words)
    assert hash_words(["word777"])[0] == hashes[777]
    assert hash_words(["caf\u00e9", "word777"])[1] == hashes[777]
    assert hashes[777] == 17993689507923810234, "hashes of sets lie on disk"


def test_texts_of_a_field_are_found_however_deep() -> None:
    assert texts_in({"question": "q", "choices": {"text": ["a", "b"], "label": [1, None]}}) == ["q", "a", "b"]


def test_pictures_are_those_within_the_distance_and_the_nearest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    known = random.integers(0, 1 << 63, 300, dtype=np.uint64)
    hashes = np.concatenate([known[:50] ^ np.uint64(0b1011), random.integers(0, 1 << 63, 200, dtype=np.uint64)])
    expected = [
        min(((int(a) ^ int(b)).bit_count(), place) for place, b in enumerate(known.tolist())) for a in hashes.tolist()
    ]
    for at_once in (1, 1000, 1 << 22):
        monkeypatch.setattr(contamination_pictures, "PAIRS_AT_ONCE", at_once)
        nearest, bits = nearest_pictures(hashes, known, 20)
        wanted = [(place, near) if near <= 20 else (-1, -1) for near, place in expected]
        assert list(zip(nearest.tolist(), bits.tolist(), strict=True)) == wanted
    assert nearest[:50].tolist() == list(range(50))
    assert nearest_pictures(hashes, known, 2)[0].max() == -1


def test_pictures_of_one_colour_are_of_no_set() -> None:
    flat = np.array([FLAT], np.uint64)
    assert nearest_pictures(flat, flat, 4)[0].tolist() == [-1]
    assert nearest_pictures(flat, np.zeros(0, np.uint64), 4)[0].tolist() == [-1]


def test_a_set_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="the set 'q' is empty: give texts, images or both"):
        DecontaminatePass.model_validate({"name": "clean", "kind": "decontaminate", "set": ({"name": "q"},)})
