"""The sentences of a sweep follow from its numbers: what breaks and where, what differs and how surely."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from carnac.core.errors import InputError
from carnac.jobs.sweep_drawing import draw_sweep
from carnac.jobs.sweep_outcomes import Outcome, difference, outcome_of, summarise
from carnac.jobs.sweep_recipe import SweepRecipe

Losses = dict[tuple[str, float | None], Sequence[float | None]]  # of each seed, None where it broke
NOTHING = dict.fromkeys(
    ("heldout_loss", "heldout_right_images", "heldout_shuffled_images", "earlier_change", "earlier_loss",
     "earlier_loss_other", "packed_change")
)  # fmt: skip
AXIS: dict[str, Any] = {"key": "training.optimizer.learning_rate", "values": [0.1, 0.2, 0.4], "label": "rate"}


def make(**fields: Any) -> SweepRecipe:
    model = {"vision": {"type": "siglip_vision_model"}, "language": {"type": "llama"}}
    told: dict[str, Any] = {
        "job": "sweep",
        **{name: name for name in ("shards", "heldout", "plan", "output")},
        "model": model,
        "training": {"steps": 10, "optimizer": {"learning_rate": 1e-3}},
        "variant": [{"name": "normed"}, {"name": "bare"}],
        **fields,
    }
    return SweepRecipe.model_validate_json(json.dumps(told), by_alias=True, by_name=False)


def rows(losses: Sequence[float | None], **last: float) -> list[dict[str, Any]]:
    told = [{"step": step, "loss": loss, "label_tokens": 10, **NOTHING} for step, loss in enumerate(losses)]
    return [*told[:-1], {**told[-1], **last}]


def outcomes(losses: Losses) -> list[Outcome]:
    """Return runs by variant and value: the held-out loss of each seed, None for a broken run."""
    return [
        Outcome(
            variant=variant,
            value=value,
            seed=seed,
            steps=1,
            is_finite=loss is not None,
            is_broken=loss is None,
            measures={} if loss is None else {"loss": loss, "heldout_loss": loss},
        )
        for (variant, value), seeds in losses.items()
        for seed, loss in enumerate(seeds)
    ]


def verdict(losses: Losses, **fields: Any) -> list[str]:
    found = outcomes(losses)
    recipe = make(num_seeds=len(next(iter(losses.values()))), **fields)
    return list(summarise(found, recipe)["verdict"])


def test_the_loss_of_a_run_is_that_of_its_last_tenth_by_labels() -> None:
    found = rows([9.0] * 18 + [1.0, 3.0], heldout_loss=2.5)
    found[-1]["label_tokens"] = 30
    outcome = outcome_of(found, ("a", 0.1, 7), broken_above=2.5)
    assert outcome.measures == {"loss": 2.5, "heldout_loss": 2.5}
    assert (outcome.is_broken, outcome.steps, outcome.seed) == (False, 20, 7)
    assert outcome_of(found, ("a", 0.1, 7), broken_above=2.4).is_broken
    assert not outcome_of(found, ("a", 0.1, 7), broken_above=None).is_broken


@pytest.mark.parametrize("last", [{"loss": None}, {"loss": 1.0, "heldout_loss": None}])
def test_what_is_not_finite_is_broken_without_a_bound(last: dict[str, Any]) -> None:
    found = [*rows([2.0, 1.0], heldout_loss=1.0), {"step": 2, "label_tokens": 10, **NOTHING, **last}]
    outcome = outcome_of(found, ("a", None, 0), broken_above=None)
    assert (outcome.is_finite, outcome.is_broken) == (False, True)
    assert "heldout_loss" not in outcome.measures


def test_gains_are_what_other_images_cost() -> None:
    last = {
        "heldout_loss": 1.0, "heldout_right_images": 0.5, "heldout_shuffled_images": 0.75,
        "earlier_change": 0.25, "earlier_loss": 2.0, "earlier_loss_other": 2.125, "packed_change": 0.5,
    }  # fmt: skip
    found = outcome_of(rows([1.0], **last), ("a", None, 0), None).measures
    assert found["image_gain"] == 0.25
    assert found["earlier_change"] == 0.25
    assert found["earlier_gain"] == 0.125
    assert found["packed_change"] == 0.5


def test_a_run_without_a_step_is_refused() -> None:
    with pytest.raises(InputError, match="no step"):
        outcome_of([], ("a", None, 3), None)


def test_the_variant_that_trains_further_is_named_with_the_ratio() -> None:
    found = verdict(
        {
            ("normed", 0.1): [1.0, 1.0], ("normed", 0.2): [0.5, 0.6], ("normed", 0.4): [0.9, None],
            ("bare", 0.1): [1.0, 1.0], ("bare", 0.2): [None, None], ("bare", 0.4): [None, None],
        },
        axis=AXIS,
    )  # fmt: skip
    assert found[:3] == [
        "normed: runs break at rate 0.4 (1 of 2); up to 0.2 every run trains. In all 1 of 6 break.",
        "bare: runs break at rate 0.2 (2 of 2), 0.4 (2 of 2); up to 0.1 every run trains. In all 4 of 6 break.",
        (
            "Every run of normed trains up to 0.2, of bare up to 0.1: among the values tried, normed stands 2 times "
            "the rate."
        ),
    ]
    assert found[3].startswith(
        "held-out loss (nats per token): normed 0.55 at 0.2, bare 1 at 0.1; difference +0.4500 ["
    )
    assert "0.3" not in found[4].partition(";")[0]
    assert found[4].startswith(
        "At 0.1, the highest at which both train: held-out loss (nats per token): normed 1 at 0.1"
    )
    assert found[4].endswith("difference +0.0000 [+0.0000, +0.0000]: they are equal.")


def test_equal_reach_and_no_break_are_said_as_such() -> None:
    sound: Losses = {(name, value): [1.0, 1.1] for name in ("normed", "bare") for value in (0.1, 0.2, 0.4)}
    found = verdict(sound, axis=AXIS)
    assert found[0] == "normed: none of 2 runs breaks at any rate tried, 0.1 to 0.4."
    assert found[2].startswith("held-out loss")
    both: Losses = {
        (name, value): [1.0, None if value == 0.2 else 1.1] for name in ("normed", "bare") for value in (0.1, 0.2, 0.4)
    }
    assert verdict(both, axis=AXIS)[2] == "bare begins to break where normed does, among the values of rate tried."


def test_a_variant_that_breaks_everywhere_is_not_compared() -> None:
    losses: Losses = {("normed", value): [1.0, 1.1] for value in (0.1, 0.2, 0.4)}
    losses |= {("bare", value): [None, None] for value in (0.1, 0.2, 0.4)}
    found = verdict(losses, axis=AXIS)
    assert found[2] == "Every run of normed trains up to 0.4; bare breaks at the least value tried, 0.1."
    assert found[3] == "held-out loss: nothing to compare, bare breaks everywhere."


def test_a_difference_is_told_with_its_interval_and_its_sign() -> None:
    first = [1.0, 1.5, 1.2, 1.4, 1.3]
    higher = [loss + 0.1 + 0.01 * number for number, loss in enumerate(first)]
    found = verdict({("normed", None): first, ("bare", None): higher}, axis=None)
    assert found[0] == "normed: 0 of 5 runs break."
    assert found[2].endswith("bare is higher.")
    assert "difference +0.1200 [+0.1" in found[2]  # paired: far narrower than the seeds are apart
    lower = verdict({("normed", None): higher, ("bare", None): first}, axis=None)
    assert lower[2].endswith("bare is lower.")
    mixed = verdict({("normed", None): first, ("bare", None): first[::-1]}, axis=None)
    assert mixed[2].endswith("the interval holds zero, these runs tell no difference.")


def test_a_broken_run_takes_its_pair_out_of_the_difference() -> None:
    found = outcomes({("normed", None): [1.0, 2.0, 3.0], ("bare", None): [None, 2.5, 3.5]})
    span = difference(found, "heldout_loss", ("normed", None), ("bare", None))
    assert span is not None
    assert span.estimate == 0.5
    assert difference(found[:2] + found[3:5], "heldout_loss", ("normed", None), ("bare", None)) is None


def test_the_table_has_medians_ranges_and_what_broke() -> None:
    found = outcomes({("normed", None): [3.0, 1.0, 1.5], ("bare", None): [2.0, None, 2.5]})
    table = summarise(found, make(num_seeds=3, axis=None))["table"]
    assert table[0]["measures"]["heldout_loss"] == {"median": 1.5, "least": 1.0, "most": 3.0, "difference": None}
    assert (table[1]["broken"], table[1]["not_finite"], table[1]["measures"]["heldout_loss"]["median"]) == (1, 1, 2.25)
    estimate, low, high = table[1]["measures"]["heldout_loss"]["difference"]
    assert low <= estimate <= high
    assert estimate == 0.0


@pytest.mark.parametrize("loss", [None, 1.0])
@pytest.mark.parametrize("axis", [None, {**AXIS, "label": "rate in $ or \u4e2d"}])
def test_a_figure_is_drawn_whatever_breaks(loss: float | None, axis: dict[str, Any] | None) -> None:
    values = AXIS["values"] if axis else [None]
    found = outcomes({(name, value): [loss, loss] for name in ("normed", "bare") for value in values})
    recipe = make(num_seeds=2, measures=["heldout_loss", "image_gain"], **({"axis": axis} if axis else {}))
    with Image.open(io.BytesIO(draw_sweep(found, recipe))) as figure:
        figure.load()
        assert figure.width == (3 if axis else 2) * 660
