"""The axis of a histogram: bins that a signal and its thresholds fix, so that counts of any parts add up.

Bins are finer than they are drawn; `coarsened` makes them fit what there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from carnac.curate.signals.signal import Signal

BINS_PER_DECADE = 20
MAX_BINS = 200  # of a linear axis, on either side of 0: what lies beyond counts in the last one
DECADES = (-9, 12)  # of a logarithmic axis
ROUNDING = 1e-9  # in bins: what a logarithm may be off must not move 1,000 below its own edge
NOTHING = -1_000  # the bin of a logarithmic axis for 0 and below
MAX_FACTOR = 4  # bins that become one at most, for the sake of gaps
MAX_DRAWN = 80  # bins of a drawing
MAX_EMPTY = 0.1  # share of empty bins that a drawing may have among those that hold the values but for `TAIL`
TAIL = 0.025  # share of all values at either end: a few that lie far out leave gaps in any drawing
Bins = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Bins of equal width: `step` in units of the signal where linear, in decades where logarithmic.

    Bin n holds values of [n, n + 1) steps.
    """

    scale: Literal["linear", "log"]
    step: float

    @classmethod
    def of(cls, signal: Signal, thresholds: Sequence[float]) -> Axis:
        """Return the axis of a signal that is judged by some thresholds: linear ones reach well past the largest."""
        if signal.scale == "log":
            return cls(scale="log", step=1 / BINS_PER_DECADE)
        reach = max([0.5, *(abs(threshold) for threshold in thresholds)])
        return cls(scale="linear", step=_round_down(reach / 50))

    def bins(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the bin of each value (any shape, no NaN)."""
        low, high = (-MAX_BINS, MAX_BINS) if self.scale == "linear" else (round(end / self.step) for end in DECADES)
        if self.scale == "linear":
            places = values / self.step
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                places = np.log10(values) / self.step
        places += ROUNDING
        bins = np.floor(np.clip(places, low, high, out=places), out=places)
        if self.scale == "log":
            bins[values <= 0] = NOTHING
        return bins.astype(np.int64)

    def edge(self, place: float) -> float:
        """Return the value at which a bin begins."""
        return place * self.step if self.scale == "linear" else 10 ** (place * self.step)

    def place(self, value: float) -> float:
        """Return where a value lies on the axis, in bins; `NOTHING` where it has no place."""
        if self.scale == "linear":
            return value / self.step
        return math.log10(value) / self.step if value > 0 else float(NOTHING)

    def coarser(self, factor: int) -> Axis:
        """Return the axis of which a bin is `factor` of these."""
        return Axis(scale=self.scale, step=self.step * factor)


def coarsened(axis: Axis, bins: Bins) -> tuple[Axis, dict[int, tuple[int, ...]]]:
    """Return an axis, and the counts on it, with few empty bins between full ones: whole numbers leave gaps."""
    factor = 1
    while not _is_drawable(counts := _join(bins, factor), may_have_gaps=factor >= MAX_FACTOR):
        factor *= 2
    return axis.coarser(factor), counts


def _join(bins: Bins, factor: int) -> dict[int, tuple[int, ...]]:
    counts: dict[int, tuple[int, ...]] = {}
    for place, numbers in sorted(bins.items()):
        joined = NOTHING if place == NOTHING else place // factor
        before = counts.get(joined, (0,) * len(numbers))
        counts[joined] = tuple(a + b for a, b in zip(before, numbers, strict=True))
    return counts


def _is_drawable(counts: Bins, *, may_have_gaps: bool) -> bool:
    drawn = [(place, sum(numbers)) for place, numbers in counts.items() if place != NOTHING]
    if not drawn:
        return True
    if drawn[-1][0] - drawn[0][0] >= MAX_DRAWN:
        return False
    rest = TAIL * sum(number for _, number in drawn)
    inner = _without_tail(_without_tail(drawn, rest)[::-1], rest)
    width = inner[0][0] - inner[-1][0] + 1
    return may_have_gaps or 1 - len(inner) / width <= MAX_EMPTY


def _without_tail(drawn: Sequence[tuple[int, int]], rest: float) -> Sequence[tuple[int, int]]:
    """Return bins without the first ones that hold no more than `rest` together; one is always left."""
    passed = 0
    for start, (_, number) in enumerate(drawn):
        passed += number
        if passed > rest:
            return drawn[start:]
    return drawn[-1:]


def _round_down(value: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is no larger."""
    power = 10.0 ** math.floor(math.log10(value) + ROUNDING)
    return next(first * power for first in (5, 2, 1) if first * power <= value * (1 + ROUNDING))
