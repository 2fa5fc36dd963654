"""Twenty steps: what is frozen keeps every bit, what is trained changes."""

from __future__ import annotations

import pytest
import torch
from model_builder import IMAGE_SIZE_PX, VOCABULARY, make_batch, make_settings

from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel, freeze
from carnac.model.settings import PARTS, ModelSettings, Part
from carnac.train.optimizer import make_optimizer
from carnac.train.settings import OptimizerSettings

VOCABULARY_WITH_ADDED = Vocabulary(size=VOCABULARY + 2, pad_id=0, added_ids=(127, 128, 129))
CHOICES: list[tuple[Part, ...]] = [
    ("connector",),
    ("connector", "added_tokens"),
    ("vision", "connector"),
    ("language",),
    ("added_tokens",),
    PARTS,
]


def make_frozen(trained: tuple[Part, ...], *, tied: bool = True) -> MultimodalModel:
    settings = make_settings("gemma2", tie_word_embeddings=tied, sliding_window=7, head_dim=12)
    settings = ModelSettings.model_validate({**settings.model_dump(), "trained": trained})
    return build_model(settings, VOCABULARY_WITH_ADDED, IMAGE_SIZE_PX, seed=0)


def part_of(name: str) -> str:
    return "added_tokens" if ".added." in name else name.partition(".")[0]


def step(model: MultimodalModel, optimizer: torch.optim.Optimizer, number: int) -> None:
    batch = make_batch([[(40, 1), (20, 0)], [(40, 2)]], seed=number)
    batch.input_ids[0, 50:53] = batch.labels[0, 49:52] = VOCABULARY_WITH_ADDED.added_ids
    torch.autograd.backward(model.loss(batch, batch.label_tokens, 1e-4)[0])
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("trained", CHOICES)
def test_frozen_parts_keep_every_bit_and_trained_ones_change(trained: tuple[Part, ...], tied: bool) -> None:
    model = make_frozen(trained, tied=tied)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, OptimizerSettings(learning_rate=3e-3, weight_decay=0.1))
    for number in range(20):
        step(model, optimizer, number)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    wanted = {name for name in before if part_of(name) in trained}
    assert changed == wanted
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == wanted


def test_frozen_parts_have_no_gradients_and_the_rest_the_same_ones() -> None:
    whole, frozen = make_frozen(PARTS), make_frozen(("connector",))
    frozen.load_state_dict(whole.state_dict())
    for model in (whole, frozen):
        torch.autograd.backward(model.loss(make_batch([[(40, 1), (20, 0)]]), 1)[0])
    gradients = {name: parameter.grad for name, parameter in whole.named_parameters()}
    for name, parameter in frozen.named_parameters():
        wanted = gradients[name] if name.startswith("connector") else None
        assert (parameter.grad is None) == (wanted is None)
        if parameter.grad is not None and wanted is not None:
            assert torch.allclose(parameter.grad, wanted, rtol=1e-5, atol=1e-7)


def test_a_frozen_tower_keeps_no_graph() -> None:
    model = make_frozen(("connector", "added_tokens"))
    seen: list[bool] = []
    model.vision.register_forward_hook(lambda *told: seen.append(told[2].last_hidden_state.requires_grad))
    model.loss(make_batch([[(40, 1)]]), 1)
    assert seen == [False]


def test_parts_can_be_chosen_again() -> None:
    model = make_frozen(PARTS)
    vision: Part = "vision"
    freeze(model, [vision])
    assert all(parameter.requires_grad == name.startswith("vision.") for name, parameter in model.named_parameters())
    freeze(model, PARTS)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_decay_is_for_matrices_and_not_for_the_rows_of_added_tokens() -> None:
    model = make_frozen(("added_tokens",))
    (plain,) = make_optimizer(model, OptimizerSettings(learning_rate=1e-3)).param_groups
    assert (len(plain["params"]), plain["weight_decay"]) == (1, 0.0)
