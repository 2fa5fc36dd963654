"""Models of n-grams: counts against a plain count, probabilities that sum to one and are those of the formula."""

from __future__ import annotations

import io
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.curate.perplexity import arpa as perplexity_arpa
from carnac.curate.perplexity.arpa import write_arpa
from carnac.curate.perplexity.ngrams import BEGIN, END, SPECIAL, Ngrams, count_ngrams
from carnac.curate.perplexity.tokens import split_sentences
from carnac.curate.perplexity.training import FALLBACK, adjusted_counts, discounts_of, train_model

Gram = tuple[int, ...]
ROOT = Path(__file__).parents[2]
SENTENCES = st.lists(st.lists(st.integers(3, 7), max_size=7), min_size=1, max_size=12)


def tokens_of(sentences: list[list[int]]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array([token for words in sentences for token in (BEGIN, *words, END)], np.uint32)


def grams_of(orders: list[Ngrams], number: int) -> list[Gram]:
    """Return the n-grams of an order, spelled out."""
    if number == 0:
        return [(int(word),) for word in orders[0].word]
    below = grams_of(orders, number - 1)
    ngrams = orders[number]
    return [(*below[prefix], word) for prefix, word in zip(ngrams.prefix.tolist(), ngrams.word.tolist(), strict=True)]


def plain_counts(sentences: list[list[int]], length: int) -> Counter[Gram]:
    marked = [(BEGIN, *words, END) for words in sentences]
    return Counter(words[start : start + length] for words in marked for start in range(len(words) - length + 1))


@given(SENTENCES, st.integers(2, 5))
def test_ngrams_are_those_of_a_plain_count(sentences: list[list[int]], order: int) -> None:
    orders = list(count_ngrams(tokens_of(sentences), 8, order))
    for number, ngrams in enumerate(orders[1:], 1):
        grams = grams_of(orders, number)
        assert dict(zip(grams, ngrams.count.tolist(), strict=True)) == plain_counts(sentences, number + 1)
        below = grams_of(orders, number - 1)
        assert [below[suffix] for suffix in ngrams.suffix.tolist()] == [gram[1:] for gram in grams]


@given(SENTENCES)
def test_lower_orders_count_the_words_before_them_but_at_a_beginning(sentences: list[list[int]]) -> None:
    orders = list(count_ngrams(tokens_of(sentences), 8, 4))
    for number in range(1, 3):
        longer, plain = plain_counts(sentences, number + 2), plain_counts(sentences, number + 1)
        before = Counter(gram[1:] for gram in longer)
        expected = [plain[gram] if gram[0] == BEGIN else before[gram] for gram in grams_of(orders, number)]
        assert adjusted_counts(orders, number).tolist() == expected
    assert adjusted_counts(orders, 3).tolist() == orders[3].count.tolist()


@given(SENTENCES, st.integers(3, 5), st.integers(1, 3))
@settings(max_examples=50)
def test_what_may_follow_any_context_sums_to_one(sentences: list[list[int]], order: int, min_count: int) -> None:
    orders = list(count_ngrams(tokens_of(sentences), 8, order))
    models = train_model(orders, min_count)
    probability: dict[Gram, float] = {}
    backoff: defaultdict[Gram, float] = defaultdict(float)
    for number, model in enumerate(models):
        for place, gram in enumerate(grams_of(orders, number)):
            if model.is_kept[place]:
                probability[gram] = float(model.probability[place])
                backoff[gram] = 0.0 if model.backoff is None else float(model.backoff[place])

    def log10(context: Gram, word: int) -> float:
        if (*context, word) in probability:
            return probability[*context, word]
        return backoff[context] + log10(context[1:], word)

    contexts = [gram for gram in probability if len(gram) < order and gram[-1] not in (END, 0)]
    words = [0, END, *range(3, 8)]
    for context in [(), *contexts]:
        assert math.fsum(10 ** log10(context, word) for word in words) == pytest.approx(1, abs=1e-5), context


def test_discounts_are_those_of_chen_and_goodman() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [40, 20, 10, 5, 3])
    share = 40 / (40 + 2 * 20)
    expected = (1 - 2 * share * 20 / 40, 2 - 3 * share * 10 / 20, 3 - 4 * share * 5 / 10)
    found, is_fallback = discounts_of(counts)
    assert found == pytest.approx(expected)
    assert not is_fallback
    assert discounts_of(np.array([1, 1, 2])) == (FALLBACK, True)
    assert discounts_of(np.repeat([1, 2, 3, 4], [10, 10, 1, 9])) == (FALLBACK, True)


def model_file(min_count: int) -> tuple[list[Ngrams], str]:
    """Return the n-grams of the licence's text, and its model of order 5."""
    numbers = {name: number for number, name in enumerate(SPECIAL)}
    sentences = split_sentences((ROOT / "LICENSE").read_text())
    words = [[numbers.setdefault(word, len(numbers)) for word in sentence.split()] for sentence in sentences]
    orders = list(count_ngrams(tokens_of(words), len(numbers), 5))
    models = train_model(orders, min_count)
    assert not any(model.is_fallback for model in models)
    write_arpa(file := io.BytesIO(), pa.array(numbers), orders, models)
    return orders, file.getvalue().decode()


def lines_of(arpa: str) -> list[dict[str, tuple[float, float]]]:
    """Return the n-grams of each order with probability and backoff (0 where there is none)."""
    orders = []
    for section in arpa.split("\n\n")[1:-1]:
        fields = [line.split("\t") for line in section.splitlines()[1:]]
        orders.append({each[1]: (float(each[0]), float(each[2]) if len(each) > 2 else 0.0) for each in fields})
    return orders


# What `lmplz -o 5` (kenlm 0.3.0) makes of the same sentences, and with `--prune 0 0 1 1 1`: of each order the n-grams,
# the sums of their log10 probabilities and backoffs, and some drawn by chance.
LMPLZ: dict[int, tuple[tuple[tuple[int, float, float], ...], dict[str, tuple[float, float]]]] = {
    1: (
        (
            (461, -1324.921, -46.98),
            (1364, -2019.083, -58.124),
            (1641, -1492.206, -38.084),
            (1611, -1185.954, -66.386),
            (1505, -837.442, 0.0),
        ),
        {
            "third": (-2.8945096, -0.24934366),
            "<s> contribution": (-2.4714365, -0.03607741),
            "owner that": (-1.4107962, -0.03607741),
            "[ yyyy ]": (-0.6181133, -0.021176063),
            "use , reproduction": (-1.5453714, -0.021176063),
            "form , including but": (-0.53447104, -0.045267873),
            "warranties or conditions </s>": (-0.7452916, 0.0),
            "<s> do not modify the": (-0.5269358, 0.0),
            "modifying the license . </s>": (-0.18546414, 0.0),
        },
    ),
    2: (
        (
            (461, -1324.921, -46.98),
            (1364, -2019.083, -17.057),
            (201, -142.948, -8.891),
            (130, -77.176, -4.263),
            (85, -44.11, 0.0),
        ),
        {
            "third": (-2.8945096, -0.24934366),
            "owner that": (-1.4107962, 0.0),
            "<s> the copyright": (-0.9638098, -0.17371807),
            "/ licenses /": (-0.79028463, 0.0),
            "charge , royalty -": (-0.5549493, -0.056154683),
            "or legal entity </s>": (-0.97154015, 0.0),
            "to the terms and conditions": (-0.18617941, 0.0),
        },
    ),
}


@pytest.mark.parametrize("min_count", [1, 2])
def test_a_model_is_that_of_lmplz(min_count: int) -> None:
    sums, samples = LMPLZ[min_count]
    orders = lines_of(model_file(min_count)[1])
    found = [tuple(math.fsum(each[column] for each in order.values()) for column in (0, 1)) for order in orders]
    assert [len(order) for order in orders] == [size for size, _, _ in sums]
    assert found == [pytest.approx(each[1:], abs=2e-3) for each in sums]
    for name, expected in samples.items():
        assert orders[name.count(" ")][name] == pytest.approx(expected, abs=1e-6), name


def test_a_model_is_written_as_others_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    orders, text = model_file(1)
    head, *sections, end = text.split("\n\n")
    assert head.splitlines() == ["\\data\\", *(f"ngram {n}={len(ngrams)}" for n, ngrams in enumerate(orders, 1))]
    for number, section in enumerate(sections, 1):
        first, *lines = section.splitlines()
        assert first == f"\\{number}-grams:"
        assert {(line.count("\t"), line.split("\t")[1].count(" ")) for line in lines} == {
            (2 if number < 5 else 1, number - 1)
        }
    assert end == "\\end\\\n"
    monkeypatch.setattr(perplexity_arpa, "ROWS_AT_ONCE", 7)
    assert model_file(1)[1] == text
