"""Intervals by paired bootstrap: resample documents, keep what belongs together together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from carnac.core.seeds import generator

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with the percentile interval of its bootstrap distribution (Efron and Tibshirani 1993, ch. 13)."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def paired_difference(
    first: Array, second: Array, tokens: Array, *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Return the difference `second` - `first` of per-token means, with its interval.

    `first` and `second` float64 [D] are loss sums per document under two conditions, `tokens` [D] the label tokens of
    each. Documents are drawn with replacement, both sums and the tokens of a document together. Needs two documents.
    The tails are `expanded_tail`'s: plain percentiles of 11 documents held the truth in 90 of 100 experiments, not 95.
    """
    assert len(first) == len(second) == len(tokens) >= 2, "a paired bootstrap needs at least two documents"
    estimate = float((second - first).sum() / tokens.sum())
    random = generator(seed, "bootstrap")
    means = np.empty(resamples)
    # Blocks bound the memory to about 2 million draws at once, whatever the numbers of resamples and of documents.
    block = max(1, 2_000_000 // len(tokens))
    for start in range(0, resamples, block):
        drawn = random.integers(0, len(tokens), (min(block, resamples - start), len(tokens)))
        means[start : start + len(drawn)] = (second - first)[drawn].sum(1) / tokens[drawn].sum(1)
    tail = expanded_tail(len(tokens), level)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(estimate=estimate, low=float(low), high=float(high))


def expanded_tail(count: int, level: float) -> float:
    """Return the quantile to take at each end of the bootstrap distribution of a mean of `count` values.

    A plain percentile interval of few values is too narrow, as one with normal instead of Student quantiles and with
    the variance divided by n. The expanded one corrects both: Phi(-sqrt(n / (n - 1)) t), t the Student quantile of
    n - 1 degrees of freedom (Hesterberg 2015, What Teachers Should Know about the Bootstrap).
    """
    low, high = 0.0, 1.0
    while student_between(high, count - 1) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_between(middle, count - 1) < level else (low, middle)
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * high)


def student_between(t: float, degrees: int) -> float:
    """Return P(-t < T < t) of Student's distribution (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    if degrees > 1000:  # the normal differs by less than 1e-3 of the tail
        return 2 * NormalDist().cdf(t) - 1
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for index in range(2 + odd, degrees - 1, 2):
        term *= (index - 1) / index * math.cos(angle) ** 2
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
