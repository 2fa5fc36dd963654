from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from carnac.train.optimizer import make_optimizer, undecayed_names
from carnac.train.schedule import learning_rate
from carnac.train.settings import OptimizerSettings, ScheduleSettings, TrainSettings


def make(steps: int, warmup: int = 0, final_ratio: float = 0.1) -> TrainSettings:
    return TrainSettings(
        steps=steps,
        optimizer=OptimizerSettings(learning_rate=1.0),
        schedule=ScheduleSettings(warmup_steps=warmup, final_ratio=final_ratio),
    )


def test_warm_up_then_half_a_cosine() -> None:
    rates = [learning_rate(step, make(13, warmup=4)) for step in range(13)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[8] == pytest.approx(0.55)
    assert rates[12] == pytest.approx(0.1)


@given(st.integers(1, 300), st.integers(0, 400), st.floats(0, 1))
def test_rates_rise_then_fall_and_stay_in_bounds(steps: int, warmup: int, final_ratio: float) -> None:
    settings = make(steps, warmup, final_ratio)
    rates = [learning_rate(step, settings) for step in range(steps)]
    assert all(0 < rate <= 1 or (final_ratio < 1e-9 and rate >= 0) for rate in rates)
    pairs = itertools.pairwise(rates)
    assert all((late >= early) if step < warmup else (late <= early) for step, (early, late) in enumerate(pairs))


def test_one_step_trains_at_the_highest_rate() -> None:
    assert learning_rate(0, make(1)) == 1.0


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"micro_rows": 0}, {"threads": 0}, {"seed": -1}, {"stepz": 3}])
def test_wrong_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TrainSettings.model_validate({"steps": 3, "optimizer": {"learning_rate": 1e-3}, **wrong})


def test_betas_come_as_a_list_from_a_recipe() -> None:
    assert OptimizerSettings.model_validate({"learning_rate": 1, "betas": [0.8, 0.9]}).betas == (0.8, 0.9)


def test_norms_biases_and_embeddings_are_not_decayed() -> None:
    from model_builder import make_model

    for tied in (True, False):
        model = make_model(tie_word_embeddings=tied)
        undecayed = undecayed_names(model)
        assert "language.model.embed_tokens.weight" in undecayed
        assert "vision.embeddings.position_embedding.weight" in undecayed
        assert "language.model.norm.weight" in undecayed
        assert "connector.up.bias" in undecayed
        assert not {"connector.up.weight", "vision.embeddings.patch_embedding.weight"} & undecayed
        assert "language.lm_head.weight" not in undecayed
        optimizer = make_optimizer(model, OptimizerSettings(learning_rate=1e-3, weight_decay=0.3))
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
        counted = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
        assert counted == sum(parameter.numel() for parameter in model.parameters())


def test_frozen_weights_are_left_to_themselves() -> None:
    model = torch.nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    optimizer = make_optimizer(model, OptimizerSettings(learning_rate=1e-3))
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 0]
