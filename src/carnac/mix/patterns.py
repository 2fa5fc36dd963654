"""Which lengths fill rows best together: the cutting-stock problem, its whole numbers left out. Pure.

A pattern says how many pieces of each length share a row. How often each is used, such that all pieces are placed in
the fewest rows, is a linear programme with far too many columns; only those that help are made, each by a knapsack over
the prices that the programme puts on lengths (Gilmore and Gomory, 1961). At any moment the prices bound the rows from
below, so the bound is sound wherever it stops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.integer]
Numbers = npt.NDArray[np.float64]

# Steps times positions of a row: some 8 s. In rows of 1,024 50 lengths take 130 steps, 230 lengths 2,700; what is found
# by then is used.
MAX_WORK = 2_500_000
GAP = 2e-4  # of the rows, between what is reached and the bound: then it is good enough


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patterns:
    """P patterns over m lengths.

    sizes   int64 [m]       the lengths
    counts  int64 [P, m]    pieces of each length in a row of each pattern
    rows    float64 [P]     rows of each pattern for one piece in all
    bound   so many rows at least are needed for one piece in all
    """

    sizes: Counts
    counts: Counts
    rows: Numbers
    bound: float


def best_patterns(sizes: Counts, number: Counts, budget: int, max_work: int = MAX_WORK) -> Patterns:
    """Return the patterns for `number[i]` pieces of `sizes[i]` (ascending, above 0) in rows of `budget` positions."""
    wanted = number.astype(np.float64)
    counts = np.diag(budget // sizes)  # to begin with, rows of one length each
    inverse = np.diag(1.0 / (budget // sizes))
    rows = wanted / (budget // sizes)
    bound = max(float(wanted @ _shares(sizes, budget, k)) for k in range(1, 16))
    for _ in range(max_work // budget):
        prices = inverse.sum(axis=0)
        worth, pattern = _dearest(sizes, prices, budget)
        bound = max(bound, float(wanted @ prices) / worth)
        if worth <= 1 + 1e-9 or rows.sum() - bound <= GAP * bound:
            break
        change = inverse @ pattern
        leaves = np.where(change > 1e-9, rows / np.where(change > 1e-9, change, 1.0), np.inf)
        out = int(leaves.argmin())
        rows = rows - leaves[out] * change
        rows[out] = leaves[out]
        pivot = inverse[out] / change[out]
        inverse -= np.outer(change, pivot)
        inverse[out] = pivot
        counts[out] = pattern
    return Patterns(sizes=sizes, counts=counts, rows=np.maximum(rows, 0.0) / wanted.sum(), bound=bound / wanted.sum())


def place_by_patterns(patterns: Patterns, tokens: Counts, most_pieces: int) -> tuple[list[list[int]], list[int]]:
    """Return rows of pieces that follow patterns of up to `most_pieces` pieces, and the pieces that are left over.

    First each pattern has its share of the rows, then those used most have what there still is for them.
    """
    there: dict[int, list[int]] = {}
    for piece, size in reversed(list(enumerate(tokens.tolist()))):
        there.setdefault(size, []).append(piece)
    sizes = patterns.sizes.tolist()
    rows: list[list[int]] = []
    order = [row for row in np.argsort(-patterns.rows, kind="stable") if patterns.counts[row].sum() <= most_pieces]
    shares = np.floor(patterns.rows * len(tokens)).astype(np.int64)
    for most in (shares, np.full(len(shares), len(tokens))):
        for row in order:
            kinds = [(sizes[place], int(patterns.counts[row, place])) for place in np.flatnonzero(patterns.counts[row])]
            number = min(int(most[row]), *(len(there.get(size, ())) // count for size, count in kinds))
            rows += [[there[size].pop() for size, count in kinds for _ in range(count)] for _ in range(number)]
    return rows, sorted(piece for pieces in there.values() for piece in pieces)


def _shares(sizes: Counts, budget: int, k: int) -> Numbers:
    """Return prices under which no row is worth more than 1: lengths rounded down to k-ths of a row.

    A dual feasible function (Fekete and Schepers, 2001). It helps where the programme would take long: of pieces of
    a third of a row and more, two fill it.
    """
    times = (k + 1) * sizes
    return np.where(times % budget == 0, sizes / budget, (times // budget) / k)


def _dearest(sizes: Counts, prices: Numbers, budget: int) -> tuple[float, Counts]:
    """Return the worth of the dearest row, and its pattern: an unbounded knapsack, length by length."""
    worth = np.zeros(budget + 1)
    last = np.full(budget + 1, -1)
    fitting = np.searchsorted(sizes, np.arange(budget + 1), side="right")
    for length in range(int(sizes[0]), budget + 1):
        values = worth[length - sizes[: fitting[length]]] + prices[: fitting[length]]
        best = int(values.argmax())
        if values[best] > worth[length - 1] + 1e-12:
            worth[length], last[length] = values[best], best
        else:
            worth[length] = worth[length - 1]
    pattern = np.zeros(len(sizes), dtype=np.int64)
    length = budget
    while length:
        if last[length] < 0:
            length -= 1
        else:
            pattern[last[length]] += 1
            length -= int(sizes[last[length]])
    return float(worth[budget]), pattern
