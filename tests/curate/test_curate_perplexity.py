"""How well a model foresees a text, as KenLM tells it; and sentences where there is none to ask."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from carnac.core.errors import InputError
from carnac.curate.perplexity.arpa import write_arpa
from carnac.curate.perplexity.model import PerplexityModel
from carnac.curate.perplexity.ngrams import BEGIN, END, SPECIAL, count_ngrams
from carnac.curate.perplexity.tokens import split_sentences
from carnac.curate.perplexity.training import train_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the licence's text."""
    numbers = {name: number for number, name in enumerate(SPECIAL)}
    sentences = [line.split() for line in split_sentences((ROOT / "LICENSE").read_text())]
    tokens = [[BEGIN, *(numbers.setdefault(word, len(numbers)) for word in sentence), END] for sentence in sentences]
    orders = list(count_ngrams(np.array([token for each in tokens for token in each], np.uint32), len(numbers), 3))
    write_arpa(file := io.BytesIO(), pa.array(numbers), orders, train_model(orders))
    place = tmp_path_factory.mktemp("perplexity") / "model.arpa"
    place.write_bytes(file.getvalue())
    return place


def perplexity(model: PerplexityModel, text: str) -> float:
    probability, tokens = model.score(text)
    return float(10 ** (-probability / tokens))


def test_words_in_order_are_foreseen_better_than_shuffled_and_those_better_than_unknown_ones(path: Path) -> None:
    model = PerplexityModel.load(path)
    in_order = perplexity(model, "The License does not grant permission to use the trade names of the Licensor")
    shuffled = perplexity(model, "names License to use not the of grant permission does The the trade Licensor")
    unknown = perplexity(model, "Stones align themselves by moonlight whenever nobody counts along with druids")
    assert 1 < in_order < shuffled / 3 < shuffled < unknown


def test_a_score_counts_tokens_and_ends_of_lines_and_adds_up(path: Path) -> None:
    import kenlm

    model = PerplexityModel.load(path)
    first, second = "You may add 12 notices.", "the work"
    expected = kenlm.Model(str(path)).score("you may add 00 notices .", bos=True, eos=True)
    assert model.score(first) == pytest.approx((expected, 7))
    both = model.score(f"{first}\n\n{second}\n")
    assert both == pytest.approx((model.score(first)[0] + model.score(second)[0], 7 + 3))
    assert model.score(" \n\t\n") == (0.0, 0)


def test_sentences_are_lines_in_lower_case_with_marks_apart_and_digits_0() -> None:
    text = "It\u2019s 1,234.5 at Noon (CET)!\n\n  \u4e2d\u6587 and \u30ab\u30ca, caf\u00e9\x00 x_1\n\x00 \u00a0"
    assert split_sentences(text) == [
        "it ' s 0 , 000 . 0 at noon ( cet ) !",
        "\u4e2d \u6587 and \u30ab \u30ca , caf\u00e9 x_0",
    ]


def test_a_file_that_lacks_or_is_no_model_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.arpa: no such file. Wanted a language model .* job 'perplexity'"):
        PerplexityModel.load(tmp_path / "gone.arpa")
    (tmp_path / "words.arpa").write_text("hello\n")
    with pytest.raises(InputError, match=r'words.arpa: KenLM cannot read it .*first non-empty line was "hello"'):
        PerplexityModel.load(tmp_path / "words.arpa")


def test_without_the_library_a_sentence_says_how_to_get_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(InputError, match=r"queried with ufal-kenlm, which is not installed; pip install 'carnac"):
        PerplexityModel.load(path)
