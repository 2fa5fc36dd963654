"""Histograms of a funnel as shapes of a drawing: bars, thresholds, ticks. Flow in: a rule of funnel.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carnac.curate.funnel.axis import MAX_BINS, NOTHING, Axis, coarsened

WIDTH, HEIGHT = 640, 150  # of the bars, in units of the drawing
MARGIN = 30  # left of the bars: the bar of what is 0 or less
NUM_WORDS = 12
KEEPS = {"min": "at least", "above": "more than", "max": "at most", "below": "less than"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: what was kept below, what was dropped on top of it. `y` is that of the upper edge."""

    x: float
    width: float
    kept_y: float
    kept_height: float
    dropped_y: float
    dropped_height: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A histogram: `lines` are thresholds and `ticks` values, each (x, label)."""

    bars: tuple[Bar, ...]
    lines: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WordBar:
    """How often a word occurs; widths in per cent of the commonest."""

    word: str
    kept: int
    dropped: int
    kept_width: float
    dropped_width: float


def draw_histogram(rule: Mapping[str, Any]) -> Drawing | None:
    """Return the histogram of a rule of funnel.json; None where it looked at no number."""
    bins = {place: (kept, dropped) for place, kept, dropped in rule["bins"]}
    if not bins:
        return None
    axis, counts = coarsened(Axis(scale=rule["scale"], step=rule["step"]), bins)
    thresholds = [(bound["at"], bound["side"]) for bound in rule["bounds"]]
    places = [place for place in counts if place != NOTHING]
    places += [math.floor(place) for at, _ in thresholds if (place := axis.place(at)) > NOTHING]
    first, last = (min(places), max(places) + 1) if places else (0, 1)
    unit = WIDTH / (last - first)
    most = max(sum(numbers) for numbers in counts.values())

    def x_of(place: float) -> float:
        return 0 if place <= NOTHING else MARGIN + (place - first) * unit

    return Drawing(
        bars=tuple(
            _bar(axis, place, numbers, most, (x_of(place), MARGIN * 0.7 if place == NOTHING else unit))
            for place, numbers in counts.items()
        ),
        lines=tuple((x_of(axis.place(at)), f"{KEEPS[side]} {write_number(at)}") for at, side in thresholds),
        ticks=tuple((x_of(axis.place(value)), write_number(value)) for value in _ticks(axis, first, last)),
        most=most,
    )


def _bar(axis: Axis, place: int, numbers: tuple[int, ...], most: int, where: tuple[float, float]) -> Bar:
    kept, dropped = numbers
    kept_height, dropped_height = (HEIGHT * number / most for number in numbers)
    if place == NOTHING:
        values = "0 or less"
    elif axis.scale == "linear" and axis.edge(place + 1) >= MAX_BINS * axis.step:
        values = f"{write_number(axis.edge(place))} and more"
    else:
        values = f"{write_number(axis.edge(place))} to {write_number(axis.edge(place + 1))}"
    return Bar(
        x=where[0],
        width=where[1],
        kept_y=HEIGHT - kept_height,
        kept_height=kept_height,
        dropped_y=HEIGHT - kept_height - dropped_height,
        dropped_height=dropped_height,
        title=f"{values}: {kept:,} kept, {dropped:,} dropped",
    )


def _ticks(axis: Axis, first: int, last: int) -> Iterator[float]:
    low, high = axis.edge(first), axis.edge(last)
    if axis.scale == "log":
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        parts = (1,) if high / low > 300 else (1, 2, 5)
        yield from (part * 10.0**decade for decade in decades for part in parts if low <= part * 10.0**decade <= high)
        return
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(part * power for part in (1, 2, 5, 10) if part * power >= rough)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield number * step


def draw_words(words: Sequence[tuple[str, int, int]]) -> list[WordBar]:
    """Return the commonest words of a rule on words."""
    commonest = sorted(words, key=lambda each: (-each[1] - each[2], each[0]))[:NUM_WORDS]
    most = max((kept + dropped for _, kept, dropped in commonest), default=0) or 1
    return [
        WordBar(word=word, kept=kept, dropped=dropped, kept_width=100 * kept / most, dropped_width=100 * dropped / most)
        for word, kept, dropped in commonest
    ]


def write_number(value: float) -> str:
    """Write a value of a signal: 3, 0.275, 20,000."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"
