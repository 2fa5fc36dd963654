from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from model_builder import VOCABULARY, make_batch, make_model, make_settings
from pydantic import ValidationError
from torch import nn

from carnac.core.errors import InputError
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.parts import TRAINED_PARTS, part_of
from carnac.model.settings import AdapterSettings, ModelSettings, PerceiverSettings, VisionSettings
from carnac.train.optimizer import make_optimizer, rates_at, rates_now, set_rates, undecayed_names
from carnac.train.settings import OptimizerSettings, ScheduleSettings, TrainSettings


def build(**changes: Any) -> MultimodalModel:
    """Return a model of a frozen tower, added tokens and adapters, with `changes` of its settings."""
    settings = make_settings().model_copy(update=changes)
    added = (VOCABULARY, VOCABULARY + 1)
    vocabulary = Vocabulary(size=VOCABULARY + 2, pad_id=0, eos_id=1, added_ids=added)
    return build_model(settings.model_copy(update={"language": settings.language}), vocabulary, 32, seed=0)


def test_betas_come_as_a_list_from_a_recipe() -> None:
    assert OptimizerSettings.model_validate({"learning_rate": 1, "betas": [0.8, 0.9]}).betas == (0.8, 0.9)


@pytest.mark.parametrize("betas", [[1.5, 0.9], [0.9, 1.0], [-0.1, 0.9]])
def test_betas_that_adamw_cannot_take_are_refused_with_the_recipe(betas: list[float]) -> None:
    with pytest.raises(ValidationError, match=r"less than 1|greater than or equal to 0"):
        OptimizerSettings.model_validate({"learning_rate": 1, "betas": betas})


def test_norms_biases_and_embeddings_are_not_decayed() -> None:
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
        assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.3]
        counted = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
        assert counted == sum(parameter.numel() for parameter in model.parameters())


def test_positions_tokens_and_latents_outside_of_tables_are_not_decayed_either() -> None:
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16}
    settings = ModelSettings(
        vision=VisionSettings(type="dinov2_with_registers", config={**tower, "num_register_tokens": 2}),
        connector=PerceiverSettings(type="perceiver", latents=4, depth=1, heads=2, head_size=8, kv_heads=1),
        language=make_settings().language,
    )
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), 32, seed=0)
    undecayed = undecayed_names(model)
    embeddings = {f"vision.embeddings.{name}" for name in ("cls_token", "register_tokens", "position_embeddings")}
    assert embeddings | {"connector.latents"} <= undecayed
    matrices = {f"{name}.weight" for name, each in model.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}
    assert not (matrices - {"language.lm_head.weight"}) & undecayed
    assert any("layer_scale" in name for name in undecayed), "gates"


def test_every_parameter_is_in_one_group_of_its_part() -> None:
    model = build(trained=("connector", "added_tokens"), adapters=AdapterSettings(rank=2, dora=True))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, OptimizerSettings(learning_rate=1e-3, rates={"adapters": 5e-4}), part_of)
    grouped = [(names[id(each)], group) for group in optimizer.param_groups for each in group["params"]]
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert sorted(name for name, _ in grouped) == sorted(trained)
    assert all(group["part"] == part_of(name) for name, group in grouped)
    assert {group["part"] for _, group in grouped} == {"connector", "added_tokens", "adapters"}
    undecayed = undecayed_names(model)
    assert all((group["weight_decay"] == 0) == (name in undecayed) for name, group in grouped)
    assert {name.rpartition(".")[2] for name, group in grouped if group["weight_decay"]} == {"weight"}
    magnitudes = [group for name, group in grouped if "magnitude" in name]
    assert magnitudes
    assert not any(group["weight_decay"] for group in magnitudes)


def test_parts_learn_at_their_own_rates() -> None:
    model = build()
    settings = TrainSettings(
        steps=9,
        optimizer=OptimizerSettings(learning_rate=1e-3, rates={"vision": 1e-4, "added_tokens": 1e-2}),
        schedule=ScheduleSettings(warmup_steps=3),
    )
    optimizer = make_optimizer(model, settings.optimizer, part_of)
    peaks = {"vision": 1e-4, "connector": 1e-3, "language": 1e-3, "added_tokens": 1e-2}
    assert {group["part"]: group["peak"] for group in optimizer.param_groups} == peaks
    set_rates(optimizer, 0, settings)
    assert rates_now(optimizer) == rates_at(optimizer, 0, settings)
    assert rates_now(optimizer) == pytest.approx({part: peak / 4 for part, peak in peaks.items()})
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    batch = make_batch([[(20, 1), (9, 0)]])
    model.loss(batch, batch.label_tokens)[0].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    # Adam's first step is as long as its rate wherever there is a gradient to speak of.
    longest = dict.fromkeys(peaks, 0.0)
    for name, parameter in model.named_parameters():
        moved = float((parameter.detach() - before[name]).abs().max())
        longest[part_of(name)] = max(longest[part_of(name)], moved)
    assert longest == pytest.approx({part: peak / 4 for part, peak in peaks.items()}, rel=0.2)


def test_frozen_weights_are_left_to_themselves() -> None:
    model = torch.nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    optimizer = make_optimizer(model, OptimizerSettings(learning_rate=1e-3))
    assert [group["params"] for group in optimizer.param_groups] == [[model.weight]]


def test_with_everything_frozen_there_is_a_sentence() -> None:
    model = torch.nn.Linear(3, 3).requires_grad_(False)
    with pytest.raises(InputError, match="every weight is frozen"):
        make_optimizer(model, OptimizerSettings(learning_rate=1e-3))


def test_a_rate_for_a_part_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="visoin"):
        OptimizerSettings.model_validate_json(json.dumps({"learning_rate": 1, "rates": {"visoin": 1e-3}}))
    with pytest.raises(ValidationError, match=r"the rate of vision is 0\.0"):
        OptimizerSettings(learning_rate=1, rates={"vision": 0.0})
    assert OptimizerSettings(learning_rate=1, rates=dict.fromkeys(TRAINED_PARTS, 1e-3)).rates["adapters"] == 1e-3


def test_names_of_other_models_belong_to_no_part() -> None:
    with pytest.raises(KeyError):
        part_of("transformer.h.0.weight")
