from __future__ import annotations

import itertools
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from carnac.train.schedule import learning_rate
from carnac.train.settings import OptimizerSettings, ScheduleSettings, TrainSettings

Kind = Literal["cosine", "linear", "stable_decay"]
KINDS: tuple[Kind, ...] = ("cosine", "linear", "stable_decay")


def make(steps: int, warmup: int = 0, final_ratio: float = 0.1, kind: Kind = "cosine", **fields: Any) -> TrainSettings:
    return TrainSettings(
        steps=steps,
        optimizer=OptimizerSettings(learning_rate=1.0),
        schedule=ScheduleSettings(warmup_steps=warmup, final_ratio=final_ratio, kind=kind, **fields),
    )


def rates(settings: TrainSettings) -> list[float]:
    return [learning_rate(step, settings) for step in range(settings.steps)]


def test_warm_up_then_half_a_cosine() -> None:
    found = rates(make(13, warmup=4))
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[8] == pytest.approx(0.55)
    assert found[12] == pytest.approx(0.1)


def test_warm_up_then_a_straight_line() -> None:
    found = rates(make(11, warmup=1, final_ratio=0.0, kind="linear"))
    assert found == pytest.approx([0.5, *(1 - step / 9 for step in range(10))])


def test_warm_up_a_plateau_and_a_straight_line_over_the_last_steps() -> None:
    found = rates(make(10, warmup=1, final_ratio=0.2, kind="stable_decay", decay_steps=4))
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert rates(make(10, kind="stable_decay")) == pytest.approx([1] * 8 + [0.55, 0.1])


settings_of_any_kind = st.builds(
    lambda steps, warmup, final, kind, decay: make(
        steps, warmup, final, kind, **({"decay_steps": decay} if kind == "stable_decay" else {})
    ),
    st.integers(1, 300),
    st.integers(0, 400),
    st.floats(0, 1),
    st.sampled_from(KINDS),
    st.none() | st.integers(1, 400),
)


@given(settings_of_any_kind)
def test_rates_rise_then_fall_and_stay_in_bounds(settings: TrainSettings) -> None:
    found, warmup = rates(settings), settings.schedule.warmup_steps
    lowest = min(settings.schedule.final_ratio, 1 / (warmup + 1))
    assert all(lowest - 1e-12 <= rate <= 1 + 1e-12 for rate in found)
    pairs = enumerate(itertools.pairwise(found))
    assert all((late > early) if step < warmup else (late <= early + 1e-12) for step, (early, late) in pairs)
    assert found[0] > 0


@given(settings_of_any_kind)
def test_the_last_step_has_the_final_ratio_where_there_is_a_way_down(settings: TrainSettings) -> None:
    last = rates(settings)[-1]
    if settings.steps - 1 > settings.schedule.warmup_steps:
        assert last == pytest.approx(settings.schedule.final_ratio)
    elif settings.steps - 1 == settings.schedule.warmup_steps:
        assert last == 1.0


@given(settings_of_any_kind)
def test_no_step_down_is_longer_than_the_way_down_allows(settings: TrainSettings) -> None:
    schedule, warmup = settings.schedule, settings.schedule.warmup_steps
    way = settings.steps - 1 - warmup
    if schedule.kind == "stable_decay":
        way = min(way, schedule.decay_steps or max(1, settings.steps // 5))
    steepest = {"cosine": 1.5708, "linear": 1.0, "stable_decay": 1.0}[schedule.kind]
    for early, late in itertools.pairwise(rates(settings)[warmup:]):
        assert early - late <= (1 - schedule.final_ratio) * steepest / way + 1e-9


@given(settings_of_any_kind, st.floats(1e-6, 1e2), st.integers(0, 299))
def test_parts_with_other_peaks_keep_their_proportion(settings: TrainSettings, peak: float, step: int) -> None:
    assert learning_rate(step, settings, peak) == pytest.approx(peak * learning_rate(step, settings))
    assert learning_rate(step, settings, 1.0) == learning_rate(step, settings)


@given(settings_of_any_kind)
def test_after_the_end_the_rate_stays_the_last_one(settings: TrainSettings) -> None:
    if settings.steps > settings.schedule.warmup_steps:
        assert learning_rate(settings.steps + 7, settings) == rates(settings)[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_trains_at_the_highest_rate(kind: Kind) -> None:
    assert rates(make(1, kind=kind)) == [1.0]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"micro_rows": 0}, {"threads": 0}, {"seed": -1}, {"stepz": 3}])
def test_wrong_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TrainSettings.model_validate({"steps": 3, "optimizer": {"learning_rate": 1e-3}, **wrong})
