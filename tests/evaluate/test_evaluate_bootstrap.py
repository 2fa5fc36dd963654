from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.seeds import generator
from carnac.evaluate.bootstrap import Interval, expanded_tail, paired_difference, student_between

Array = npt.NDArray[np.float64]


def restated(first: Array, second: Array, tokens: Array, seed: int, resamples: int) -> tuple[float, float, float]:
    """The same in plain Python: draw documents, divide sums of differences by sums of tokens, sort, interpolate."""
    random = generator(seed, "bootstrap")
    count = len(tokens)
    means = []
    for _ in range(resamples):
        drawn = random.integers(0, count, count).tolist()
        difference = sum(float(second[number]) - float(first[number]) for number in drawn)
        means.append(difference / sum(float(tokens[number]) for number in drawn))
    means.sort()

    def quantile(share: float) -> float:
        place = share * (resamples - 1)
        below = int(place)
        above = min(below + 1, resamples - 1)
        return means[below] + (place - below) * (means[above] - means[below])

    whole = sum(float(b) - float(a) for a, b in zip(first, second, strict=True)) / sum(map(float, tokens))
    # Student's t of 95 % from printed tables, by degrees of freedom.
    student = {1: 12.706, 2: 4.303, 16: 2.120}.get(count - 1, 1.963)
    tail = NormalDist().cdf(-student * (count / (count - 1)) ** 0.5)
    return whole, quantile(tail), quantile(1 - tail)


def documents(seed: int, count: int, gain: float = 0.0) -> tuple[Array, Array, Array]:
    """Documents of 20 to 400 tokens; the gain of each is drawn around `gain` nats per token."""
    random = generator(seed, "documents")
    tokens = random.integers(20, 400, count).astype(np.float64)
    first = tokens * random.normal(4.0, 0.5, count)
    return first, first + tokens * random.normal(gain, 0.1, count), tokens


@pytest.mark.parametrize("count", [2, 3, 17])
def test_it_is_the_plain_restatement(count: int) -> None:
    first, second, tokens = documents(count, count, gain=0.02)
    found = paired_difference(first, second, tokens, seed=5, resamples=1500)
    assert (found.estimate, found.low, found.high) == pytest.approx(restated(first, second, tokens, 5, 1500), abs=2e-4)


def test_blocks_change_nothing() -> None:
    # 900 documents: two million draws are 2,222 resamples, so that 3,000 take two blocks.
    first, second, tokens = documents(1, 900)
    found = paired_difference(first, second, tokens, seed=1, resamples=3000)
    assert (found.estimate, found.low, found.high) == pytest.approx(restated(first, second, tokens, 1, 3000), abs=2e-5)


def test_a_constant_difference_per_token_has_an_interval_without_width() -> None:
    tokens = np.array([1.0, 7.0, 30.0, 500.0])
    first = np.array([3.0, 20.0, 100.0, 1700.0])
    found = paired_difference(first, first + 0.25 * tokens, tokens, seed=0, resamples=500)
    assert (found.estimate, found.low, found.high) == (0.25, 0.25, 0.25)
    assert found.excludes_zero


def test_equal_losses_give_exactly_zero() -> None:
    first, _, tokens = documents(2, 30)
    found = paired_difference(first, first.copy(), tokens, seed=0, resamples=500)
    assert found == Interval(estimate=0.0, low=0.0, high=0.0)
    assert not found.excludes_zero


def test_two_documents_have_three_means_known_beforehand() -> None:
    # Drawn are (a, a), (a, b), (b, a), (b, b): with 10,000 resamples both tails hold a quarter, far above 2.5 %.
    found = paired_difference(np.zeros(2), np.array([1.0, -3.0]), np.array([10.0, 10.0]), seed=0)
    assert found.estimate == pytest.approx(-0.1)
    assert (found.low, found.high) == pytest.approx((-0.3, 0.1))


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    # True gain 0.03. 400 experiments of 40 documents: a percentile bootstrap covers slightly less than it says.
    held = 0
    for seed in range(400):
        first, second, tokens = documents(seed, 40, gain=0.03)
        found = paired_difference(first, second, tokens, seed=seed, resamples=400)
        held += found.low <= 0.03 <= found.high
    # 93.5 % over 2,000 experiments; three standard deviations of a coin thrown 400 times are 3.7 %.
    assert 0.895 <= held / 400 <= 0.99


def test_a_seed_repeats_and_another_one_differs() -> None:
    first, second, tokens = documents(3, 25)
    once, again = (paired_difference(first, second, tokens, seed=4, resamples=300) for _ in range(2))
    other = paired_difference(first, second, tokens, seed=5, resamples=300)
    assert once == again
    assert (once.low, once.high) != (other.low, other.high)
    assert once.estimate == other.estimate


def test_the_order_of_documents_moves_the_ends_only_by_resampling_noise() -> None:
    """The draws are by place, so another order is another resampling: equal estimate, ends equal up to noise."""
    first, second, tokens = documents(6, 60)
    order = generator(0, "order").permutation(60)
    one = paired_difference(first, second, tokens, seed=0)
    two = paired_difference(first[order], second[order], tokens[order], seed=0)
    assert two.estimate == pytest.approx(one.estimate, abs=1e-12)
    width = one.high - one.low
    assert abs(one.low - two.low) < 0.05 * width
    assert abs(one.high - two.high) < 0.05 * width


def test_a_document_counts_by_its_tokens() -> None:
    found = paired_difference(np.zeros(2), np.array([1.0, 0.0]), np.array([1.0, 999.0]), seed=0, resamples=200)
    assert found.estimate == pytest.approx(0.001)


@settings(max_examples=60, deadline=None)
@given(
    gains=st.lists(st.floats(-5, 5), min_size=2, max_size=12),
    level=st.sampled_from([0.5, 0.9, 0.95]),
    seed=st.integers(0, 2**32),
)
def test_interval_lies_within_the_gains_and_turns_with_them(gains: list[float], level: float, seed: int) -> None:
    tokens = np.arange(1.0, len(gains) + 1)
    second = np.array(gains) * tokens
    zero = np.zeros(len(gains))
    found = paired_difference(zero, second, tokens, seed=seed, resamples=120, level=level)
    slack = 1e-9
    assert min(gains) - slack <= found.low <= found.high <= max(gains) + slack
    assert min(gains) - slack <= found.estimate <= max(gains) + slack
    turned = paired_difference(second, zero, tokens, seed=seed, resamples=120, level=level)
    ends = (turned.estimate, turned.low, turned.high)
    assert ends == pytest.approx((-found.estimate, -found.high, -found.low), abs=slack)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0, 1, False)]
)
def test_excludes_zero(low: float, high: float, expected: bool) -> None:
    assert Interval(estimate=0.0, low=low, high=high).excludes_zero is expected


def test_one_document_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="at least two documents"):
        paired_difference(np.ones(1), np.ones(1), np.ones(1), seed=0)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (10, 2.228), (11, 2.201), (120, 1.980)]
)
def test_student_quantiles_are_those_of_printed_tables(degrees: int, quantile: float) -> None:
    assert student_between(quantile, degrees) == pytest.approx(0.95, abs=1e-4)


def test_tails_are_expanded_for_few_documents_and_plain_for_many() -> None:
    tails = [expanded_tail(count, 0.95) for count in (2, 3, 11, 100, 10_000)]
    assert tails == sorted(tails)
    assert tails[2] == pytest.approx(0.00972, abs=1e-5)
    assert tails[-1] == pytest.approx(0.025, abs=2e-4)
