from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carnac.curate.funnel.axis import MAX_BINS, MAX_DRAWN, NOTHING, Axis, coarsened
from carnac.curate.funnel.samples import nearest
from carnac.curate.signals.catalogue import CATALOGUE, signals_on

LOG = Axis(scale="log", step=0.05)


@pytest.mark.parametrize("axis", [LOG, Axis(scale="linear", step=0.01), Axis(scale="linear", step=5)])
@given(value=st.floats(min_value=1e-6, max_value=1e9))
def test_a_value_lies_between_the_edges_of_its_bin(axis: Axis, value: float) -> None:
    place = int(axis.bins(np.array([value]))[0])
    assert axis.edge(place) <= value * (1 + 1e-6)
    if axis.scale == "log" or place < MAX_BINS:
        assert value <= axis.edge(place + 1) * (1 + 1e-6)


def test_powers_of_ten_begin_a_bin() -> None:
    values = np.power(10.0, np.arange(-6, 10)).astype(np.float64)
    assert (LOG.bins(values) % 20 == 0).all()
    assert LOG.bins(np.array([0.0, -3.0])).tolist() == [NOTHING] * 2


def test_the_axis_of_a_signal_reaches_past_its_thresholds() -> None:
    ratio = signals_on("document")["special_character_ratio"]
    assert Axis.of(ratio, [0.275]) == Axis(scale="linear", step=0.01)
    assert Axis.of(ratio, []) == Axis(scale="linear", step=0.01)
    for signal in CATALOGUE:
        if not signal.is_label:
            for threshold in (0.001, 0.3, 7, 1500, 20_000):
                axis = Axis.of(signal, [threshold])
                assert axis.place(threshold) <= MAX_BINS or axis.scale == "log"
    assert Axis.of(replace(ratio, scale="log"), [3]) == LOG


@given(st.dictionaries(st.integers(-150, 150), st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=40))
def test_fewer_bins_hold_the_same_counts(bins: dict[int, tuple[int, ...]]) -> None:
    axis, counts = coarsened(LOG, bins)
    for side in range(2):
        assert sum(numbers[side] for numbers in counts.values()) == sum(numbers[side] for numbers in bins.values())
    assert not counts or max(counts) - min(counts) < MAX_DRAWN
    for place, numbers in bins.items():
        assert sum(counts[round(place // (axis.step / LOG.step))]) >= sum(numbers)


def test_whole_numbers_leave_no_comb() -> None:
    values = np.repeat(np.arange(1, 60), 3).astype(float)
    places, numbers = np.unique(LOG.bins(values), return_counts=True)
    _, counts = coarsened(LOG, {int(place): (int(number),) for place, number in zip(places, numbers, strict=True)})
    drawn = range(min(counts), max(counts) + 1)
    assert len(places) < 0.7 * (max(places) - min(places) + 1)
    assert len(counts) >= 0.8 * len(drawn)


def test_a_few_values_far_out_make_no_bin_wider() -> None:
    axis, counts = coarsened(Axis(scale="linear", step=0.01), {0: (1000, 0), 4: (0, 1), 6: (0, 1)})
    assert axis.step == 0.01
    assert counts == {0: (1000, 0), 4: (0, 1), 6: (0, 1)}


@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0.0, 0.5, 1.0, 2.5])), max_size=300),
    st.permutations(range(7)),
    st.sampled_from([0.5, 2.5, np.inf]),
)
def test_the_nearest_come_first_one_of_each_document(
    entries: list[tuple[int, float]], ranks: list[int], limit: float
) -> None:
    entries.sort(key=lambda entry: entry[0])
    of = np.array([document for document, _ in entries], np.int64)
    distance = np.array([far for _, far in entries])
    found = list(nearest(distance, of, np.array(ranks, np.int64), limit))
    best: dict[int, tuple[float, int, int]] = {}
    for place, (document, far) in enumerate(entries):
        if far <= limit:
            best[document] = min(best.get(document, (np.inf, 0, 0)), (far, ranks[document], place))
    assert found == [place for _, _, place in sorted(best.values())]
