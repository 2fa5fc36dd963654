from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from model_builder import IMAGE_SIZE_PX, VOCABULARY, make_batch, make_model, make_settings

from carnac.core.batch import IGNORED, Batch
from carnac.core.errors import InputError
from carnac.model.autoregressive import AutoregressiveModel
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import (
    ConnectorSettings,
    MlpSettings,
    PerceiverSettings,
    PixelShuffleSettings,
    VisionSettings,
)
from carnac.model.tensors import to_tensors

ROWS = [[(23, 2), (9, 0)], [(40, 1)]]


@pytest.fixture
def model() -> MultimodalModel:
    return make_model()


def plain_loss(model: MultimodalModel, batch: Batch, z_loss: float) -> float:
    """The definition in float64, logits at every position."""
    with torch.no_grad():
        logits = model(to_tensors(batch, model.tokens_per_image, model.device)).double().numpy()
    sums = np.log(np.exp(logits).sum(-1))
    total = 0.0
    for row, place in np.argwhere(batch.labels != IGNORED):
        total += sums[row, place] - logits[row, place, batch.labels[row, place]] + z_loss * sums[row, place] ** 2
    return float(total / batch.label_tokens)


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_loss_is_its_definition(model: MultimodalModel, z_loss: float) -> None:
    batch = make_batch(ROWS)
    total, per_token = model.loss(batch, batch.label_tokens, z_loss)
    assert total.item() == pytest.approx(plain_loss(model, batch, z_loss), rel=1e-6)
    assert per_token.shape == batch.labels.shape
    assert (per_token.numpy() != 0).tolist() == (batch.labels != IGNORED).tolist()
    assert not per_token.requires_grad
    assert per_token.sum().item() / batch.label_tokens == pytest.approx(plain_loss(model, batch, 0.0), rel=1e-6)


def test_z_loss_has_the_gradient_of_the_log_sum_exp(model: MultimodalModel) -> None:
    batch = make_batch(ROWS)
    head = model.language.get_output_embeddings().weight
    (total, _), (plain, _) = model.loss(batch, 1, 0.5), model.loss(batch, 1)
    (found,) = torch.autograd.grad(total - plain, head)
    logits = model(to_tensors(batch, model.tokens_per_image, model.device))[torch.tensor(batch.labels) != IGNORED]
    (wanted,) = torch.autograd.grad(0.5 * logits.logsumexp(-1).square().sum(), head)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_gradients_reach_every_part(model: MultimodalModel) -> None:
    torch.autograd.backward(model.loss(make_batch(ROWS), 1)[0])
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    for part in (model.vision.embeddings.patch_embedding, model.connector):
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())


def test_a_batch_without_images_runs_the_tower_for_nothing(model: MultimodalModel) -> None:
    batch = make_batch([[(20, 0)], [(11, 0)]])
    total, _ = model.loss(batch, batch.label_tokens)
    torch.autograd.backward(total)
    gradients = [*model.vision.parameters(), *model.connector.parameters()]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in gradients)
    with torch.no_grad():
        tensors = to_tensors(batch, model.tokens_per_image, model.device)
        text = model.language(input_ids=tensors.input_ids, position_ids=tensors.positions, use_cache=False).logits
        assert (model(tensors) == text).all()


def test_a_batch_without_labels_costs_nothing(model: MultimodalModel) -> None:
    batch = make_batch(ROWS)
    total, per_token = model.loss(dataclasses.replace(batch, labels=np.full_like(batch.labels, IGNORED)), 0)
    torch.autograd.backward(total)
    assert total.item() == 0.0
    assert not per_token.any()


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = make_model(seed=1), make_model(seed=1), make_model(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first.connector.up.weight, other.connector.up.weight)


@pytest.mark.parametrize("kind", ["clip_vision_model", "dinov2", "vit"])
def test_class_tokens_of_other_towers_are_left_out(kind: str) -> None:
    sizes: dict[str, int | float | bool | str] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower = VisionSettings(type=kind, config={**sizes, "patch_size": 16})
    settings = make_settings().model_copy(update={"vision": tower})
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0), IMAGE_SIZE_PX, seed=0)
    assert model.tokens_per_image == 4
    batch = make_batch(ROWS)
    assert torch.isfinite(model.loss(batch, batch.label_tokens)[0])


PERCEIVER = PerceiverSettings(type="perceiver", latents=4, depth=1, heads=2, head_size=8, kv_heads=1)


@pytest.mark.parametrize("connector", [MlpSettings(layers=1), PixelShuffleSettings(type="pixel_shuffle"), PERCEIVER])
def test_every_connector_trains_and_fills_as_many_places_as_it_says(connector: ConnectorSettings) -> None:
    settings = make_settings().model_copy(update={"connector": connector})
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0), IMAGE_SIZE_PX, seed=0)
    count = {"mlp": 4, "pixel_shuffle": 1, "perceiver": 4}[connector.type]
    assert model.tokens_per_image == count
    batch = make_batch(ROWS)
    batch = dataclasses.replace(batch, image_slots=np.minimum(batch.image_slots, [9, 999, count]))
    torch.autograd.backward(model.loss(batch, 1)[0])
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.connector.parameters())


def test_a_picture_of_tiles_is_several_squares_in_the_order_of_their_slots(model: MultimodalModel) -> None:
    batch = make_batch([[(40, 3)]])
    order = np.array([2, 0, 1])
    other = dataclasses.replace(batch, image_slots=batch.image_slots[order], pixels=batch.pixels[order])
    with torch.no_grad():
        one, two = (model(to_tensors(each, model.tokens_per_image, model.device)) for each in (batch, other))
    assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    ("places", "pixels", "words"),
    [
        (2, (1, 3, 32, 32), "places for 2 pictures or tiles, but 1 are there"),
        (1, (2, 3, 32, 32), "places for 1 pictures or tiles, but 2 are there"),
        (1, (0, 3, 32, 32), "places for 1 pictures or tiles, but 0 are there"),
        (1, (1, 3, 48, 48), "pictures of 3 x 48 x 48 values .* takes 3 x 32 x 32"),
        (1, (1, 1, 32, 32), "pictures of 1 x 32 x 32 values"),
    ],
)
def test_pictures_that_do_not_fit_their_places_give_one_sentence(
    model: MultimodalModel, places: int, pixels: tuple[int, ...], words: str
) -> None:
    ids = torch.ones((1, 20), dtype=torch.long)
    assert isinstance(model, AutoregressiveModel)
    with pytest.raises(InputError, match=words):
        model.embed(ids, torch.arange(4).expand(places, 4), torch.zeros(pixels))


def test_places_of_another_length_give_one_sentence(model: MultimodalModel) -> None:
    assert isinstance(model, AutoregressiveModel)
    with pytest.raises(InputError, match="in places of 3 tokens; this model takes 3 x 32 x 32 and 4"):
        model.embed(torch.ones((1, 20), dtype=torch.long), torch.arange(3)[None], torch.zeros(1, 3, 32, 32))
