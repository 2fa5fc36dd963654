"""Intervals by paired bootstrap: resample documents, keep what belongs together together."""

from __future__ import annotations

from dataclasses import dataclass

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
    """
    assert len(first) == len(second) == len(tokens) >= 2, "a paired bootstrap needs at least two documents"
    estimate = float((second - first).sum() / tokens.sum())
    random = generator(seed, "bootstrap")
    means = np.empty(resamples)
    # Blocks bound the memory: 1,000 x D indices at once, whatever the number of resamples.
    for start in range(0, resamples, 1000):
        drawn = random.integers(0, len(tokens), (min(1000, resamples - start), len(tokens)))
        means[start : start + len(drawn)] = (second - first)[drawn].sum(1) / tokens[drawn].sum(1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(estimate=estimate, low=float(low), high=float(high))
