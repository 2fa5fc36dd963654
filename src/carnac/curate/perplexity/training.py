"""Counts of n-grams -> a language model: interpolated modified Kneser-Ney.

Chen and Goodman 1998 (Harvard TR-10-98, section 4.1.6) with the conventions of Heafield et al. 2013 ("Scalable Modified
Kneser-Ney Language Model Estimation"): one <s> per sentence; an n-gram below the highest order counts how many words
stand before it, unless it begins with <s>; single words are interpolated with the uniform distribution over the
vocabulary without <s>, which is what <unk> gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carnac.curate.perplexity.ngrams import BEGIN, UNKNOWN, Ngrams

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
# Where a corpus is so small that counts 1, 2 or 3 do not occur, or give no discount between 0 and the count.
FALLBACK = (0.5, 1.0, 1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderModel:
    """One order of a model: log10 probability of each n-gram, log10 backoff (of the highest order None), what is kept.

    float32[k] and bool[k]. `discounts` are those of counts 1, 2 and 3 or more; `is_fallback` where they are `FALLBACK`.
    """

    probability: npt.NDArray[np.float32]
    backoff: npt.NDArray[np.float32] | None
    is_kept: Flags
    discounts: tuple[float, float, float]
    is_fallback: bool

    @property
    def num_ngrams(self) -> int:
        """Number of n-grams that are kept."""
        return int(self.is_kept.sum())


def train_model(orders: Sequence[Ngrams], min_count: int = 1) -> list[OrderModel]:
    """Return the model of n-grams of all orders from 1.

    N-grams of three words and more that the corpus holds fewer than `min_count` times are left out; what they would
    have got goes to the backoff of their context.
    """
    steps = [_Step(orders, number, min_count if number >= 2 else 1) for number in range(len(orders))]
    models = []
    lower = np.full(1, 1 / (len(orders[0]) - 1))  # uniform, over all words but <s>
    for number, (ngrams, step) in enumerate(zip(orders, steps, strict=True)):
        probability = step.own + step.gamma[ngrams.prefix] * lower[ngrams.suffix]
        if number == 0:
            probability[BEGIN] = 1.0  # never foreseen: its line holds the backoff
        above = steps[number + 1] if number + 1 < len(steps) else None
        models.append(_order_model(probability, None if above is None else above.gamma, step))
        lower = probability
    return models


def _order_model(probability: Floats, gamma: Floats | None, step: _Step) -> OrderModel:
    return OrderModel(
        probability=np.minimum(np.log10(probability), 0).astype(np.float32),
        backoff=None if gamma is None else np.log10(gamma).astype(np.float32),
        is_kept=step.is_kept,
        discounts=step.discounts,
        is_fallback=step.is_fallback,
    )


class _Step:
    """One order before it is interpolated: `own` probability of each n-gram, and `gamma`, what each context leaves."""

    def __init__(self, orders: Sequence[Ngrams], number: int, min_count: int) -> None:
        ngrams = orders[number]
        counts = adjusted_counts(orders, number)
        self.is_kept: Flags = ngrams.count >= min_count
        if number == 0:
            self.is_kept[:] = True
        self.discounts, self.is_fallback = discounts_of(counts)
        taken = np.array((0.0, *self.discounts))[np.minimum(counts, 3)]
        num_contexts = len(orders[number - 1]) if number else 1
        whole = np.bincount(ngrams.prefix, counts, num_contexts)
        left = np.bincount(ngrams.prefix, np.where(self.is_kept, taken, counts), num_contexts)
        # What no n-gram goes on from leaves all to the order below it.
        self.gamma: Floats = np.divide(left, whole, out=np.ones(num_contexts), where=whole > 0)
        per_context = np.divide(1.0, whole, out=np.zeros(num_contexts), where=whole > 0)
        self.own: Floats = (counts - taken) * per_context[ngrams.prefix]


def adjusted_counts(orders: Sequence[Ngrams], number: int) -> npt.NDArray[np.int64]:
    """Return what counts of each n-gram of order `number` + 1: how often it stands, or after how many words."""
    ngrams = orders[number]
    if number == len(orders) - 1:
        counts = ngrams.count.astype(np.int64)
    else:
        counts = np.bincount(orders[number + 1].suffix, minlength=len(ngrams))
        begins = _begins_sentence(orders, number)
        counts[begins] = ngrams.count[begins]
    if number == 0:
        counts[[UNKNOWN, BEGIN]] = 0
    return counts


def _begins_sentence(orders: Sequence[Ngrams], number: int) -> Flags:
    first: npt.NDArray[np.uint32] = np.arange(len(orders[number]), dtype=np.uint32)
    for ngrams in reversed(orders[1 : number + 1]):
        first = ngrams.prefix[first]
    begins: Flags = first == BEGIN
    return begins


def discounts_of(counts: npt.NDArray[np.int64]) -> tuple[tuple[float, float, float], bool]:
    """Return the discounts of counts 1, 2 and 3 or more (Chen and Goodman, equation 26), or `FALLBACK` and True."""
    seen = np.bincount(np.minimum(counts, 5), minlength=6)
    if not seen[1:4].all():
        return FALLBACK, True
    share = seen[1] / (seen[1] + 2 * seen[2])
    one, two, three = (float(count - (count + 1) * share * seen[count + 1] / seen[count]) for count in (1, 2, 3))
    if not (0 <= one <= 1 and 0 <= two <= 2 and 0 <= three <= 3):
        return FALLBACK, True
    return (one, two, three), False
