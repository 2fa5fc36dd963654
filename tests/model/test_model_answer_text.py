from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from carnac.model.generation.answer_text import AnswerText, Decode, ids_until_stop
from carnac.sequence.settings import TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

WORDS = "the old mill by the river\n\nturns its wheel, caf\u00e9 \U0001f600 na\u00efve"


@pytest.fixture(scope="module")
def bytes_tokenizer() -> LoadedTokenizer:
    """Return a tokenizer with few merges: most characters that are not ASCII take several ids."""
    return ready(train_tokenizer([WORDS], TokenizerSettings(vocabulary_size=280)))


def spaces_tokenizer() -> Decode:
    """Return the decoder of a tokenizer as Llama's: words begin with a mark, the first one loses its space."""
    words = ["\u2581the", "\u2581old", "\u2581mill", "s", ".", "<0xC3>", "<0xA9>", "\u2581"]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return lambda ids: str(tokenizer.decode(list(ids)))


def said(decode: Decode, ids: Sequence[int], stops: Sequence[str] = ()) -> tuple[list[str], bool]:
    """Return what comes with each id, then at the end, and whether a stop text came."""
    words = AnswerText(decode, stops)
    pieces = [words.add(number) for number in ids]
    return [*pieces, words.close()], words.stopped


@given(text=st.text(max_size=60))
def test_joined_it_is_the_text_of_all_ids(bytes_tokenizer: LoadedTokenizer, text: str) -> None:
    ids = bytes_tokenizer.encode(text)
    pieces, stopped = said(bytes_tokenizer.decode, ids)
    assert "".join(pieces) == bytes_tokenizer.decode(ids)
    assert not stopped


@given(ids=st.lists(st.integers(4, 259), max_size=40))
def test_bytes_that_are_no_text_come_out_as_all_at_once(bytes_tokenizer: LoadedTokenizer, ids: list[int]) -> None:
    assert "".join(said(bytes_tokenizer.decode, ids)[0]) == bytes_tokenizer.decode(ids)


@given(
    text=st.text(alphabet="ab\u00e9 ", max_size=30),
    stops=st.lists(st.text(alphabet="ab\u00e9 ", min_size=1, max_size=4), max_size=3),
)
def test_a_stop_text_ends_the_answer_before_it(bytes_tokenizer: LoadedTokenizer, text: str, stops: list[str]) -> None:
    pieces, stopped = said(bytes_tokenizer.decode, bytes_tokenizer.encode(text), stops)
    # The first text that is complete ends the answer, as a reader of the stream would see it.
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert stopped == bool(ends)
    assert "".join(pieces) in ({text[:start] for _, start in ends} if ends else {text})


def test_the_beginning_of_a_stop_text_waits(bytes_tokenizer: LoadedTokenizer) -> None:
    ids = [bytes_tokenizer.encode(letter)[0] for letter in "a\n\nb\n\n\nc"]
    pieces, stopped = said(bytes_tokenizer.decode, ids, ["\n\n\n"])
    assert pieces == ["a", "", "", "\n\nb", "", "", "", "", ""]
    assert stopped


def test_what_waited_comes_at_the_end(bytes_tokenizer: LoadedTokenizer) -> None:
    ids = [bytes_tokenizer.encode(letter)[0] for letter in "a\n"]
    assert said(bytes_tokenizer.decode, ids, ["\n\n"]) == (["a", "", "\n"], False)


def test_a_stop_text_inside_a_token_cuts_it() -> None:
    assert said(_spell, [0, 1, 2], ["\n"]) == (
        ["zero", " one", "", ""],
        True,
    )


def _spell(ids: Sequence[int]) -> str:
    return "".join(["zero", " one\n\ntwo", "three"][number] for number in ids)


def test_a_character_of_several_ids_waits_for_the_last() -> None:
    decode = spaces_tokenizer()
    pieces, _ = said(decode, [0, 5, 6, 1])
    assert pieces == ["the", "", "\u00e9", " old", ""]


def test_the_space_before_a_word_is_kept() -> None:
    decode = spaces_tokenizer()
    ids = [0, 1, 2, 3, 4, 7, 0]
    assert "".join(said(decode, ids)[0]) == decode(ids) == "the old mills.  the"


def test_an_empty_stop_text_stops_nothing(bytes_tokenizer: LoadedTokenizer) -> None:
    ids = bytes_tokenizer.encode("abc")
    assert "".join(said(bytes_tokenizer.decode, ids, [""])[0]) == "abc"


def test_a_word_behind_a_prompt_keeps_its_space() -> None:
    words = AnswerText(spaces_tokenizer(), after=[0])
    assert [words.add(1), words.add(2)] == [" old", " mill"]


# -- ids instead of text


@given(
    text=st.text(alphabet="ab\u00e9 ", max_size=30),
    stops=st.lists(st.text(alphabet="ab\u00e9 ", min_size=1, max_size=4), max_size=3),
)
def test_ids_up_to_a_stop_text_spell_what_stands_before_it(
    bytes_tokenizer: LoadedTokenizer, text: str, stops: list[str]
) -> None:
    ids, decode = bytes_tokenizer.encode(text), bytes_tokenizer.decode
    kept = list(ids_until_stop(iter(ids), decode, bytes_tokenizer.encode, stops))
    pieces, stopped = said(decode, ids, stops)
    assert decode(kept) == "".join(pieces)
    assert stopped or kept == ids


def test_no_more_ids_are_asked_for_after_a_stop_text(bytes_tokenizer: LoadedTokenizer) -> None:
    letters = [bytes_tokenizer.encode(letter)[0] for letter in "abc"]
    stream = iter(letters)
    assert list(ids_until_stop(stream, bytes_tokenizer.decode, bytes_tokenizer.encode, ["b"])) == letters[:1]
    assert list(stream) == letters[2:]
