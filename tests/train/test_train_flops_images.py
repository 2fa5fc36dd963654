"""The operations of a step where blocks read the pictures, and where pictures have any shape: torch's own count."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from model_builder import VOCABULARY, make_family, make_settings
from model_images_read import LAYOUT, Layout, Piece, crossing_settings, lay_out, make_crossing, who_reads
from test_train_flops import counted_by_torch

from carnac.core.batch import Batch
from carnac.model.build import build_model
from carnac.model.flops import FlopCount, count_flops
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import AdapterSettings, ModelSettings, PerceiverSettings, VisionSettings

PERCEIVER = PerceiverSettings(type="perceiver", latents=4, depth=2, heads=2, head_size=8, kv_heads=1)
LORA = AdapterSettings(rank=4, vision=("q_proj",), language=("q_proj", "v_proj"))
TRAINED: dict[str, dict[str, Any]] = {
    "all": {},
    "connector": {"trained": ("connector",)},
    "language": {"trained": ("language",)},
    "adapters": {"trained": ("connector",), "adapters": LORA},
}
BLOCKS: dict[str, dict[str, Any]] = {
    "idefics": {"text_tokens": "mlp"},
    "untouched": {"gates": "vector", "mlp": "gelu", "heads": 3, "hidden_size": 20},
    "every second": {"every": 2, "qk_norms": False},
    "all earlier": {"attend": "earlier"},
}
# A piece per row and images that are read by as many tokens each: torch counts what is padded too, we do not.
EVEN: list[Layout] = [
    [[Piece(24, (0,))], [Piece(24, (0,))]],
    [[Piece(24, (9,))], [Piece(24, (9,))]],
    [[Piece(24, (23,))], [Piece(24)], [Piece(24)]],
]
TWO: Layout = [[Piece(24, (6, 15))], [Piece(24, (6, 15))]]


def build(settings: ModelSettings, *, native_aspect: bool = False) -> MultimodalModel:
    vocabulary = Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1)
    return build_model(settings, vocabulary, 32, seed=0, native_aspect=native_aspect)


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("blocks", BLOCKS)
def test_the_count_with_blocks_is_torchs_own(blocks: str, trained: str) -> None:
    model = build(crossing_settings("llama", BLOCKS[blocks], **TRAINED[trained]))
    count = count_flops(model)
    layouts = EVEN if BLOCKS[blocks].get("attend") == "earlier" else [*EVEN, TWO]
    for layout in layouts:
        batch = lay_out(layout)
        assert count(batch) == pytest.approx(counted_by_torch(model, batch), rel=0.002)


def test_the_count_of_tokens_that_read_the_next_image_is_torchs_own() -> None:
    model = build(crossing_settings("llama", {"attend": "next"}))
    for layout in ([[Piece(24, (11, 23))]] * 2, [[Piece(24, (0,))], [Piece(24, (0,))]]):
        batch = lay_out(layout)
        assert count_flops(model)(batch) == pytest.approx(counted_by_torch(model, batch), rel=0.002)


def reading_part(count: FlopCount, batch: Batch) -> float:
    return count(batch) - dataclasses.replace(count, reading=None)(batch)


@pytest.mark.parametrize("attend", ["previous", "next", "earlier"])
def test_what_is_read_is_counted_token_by_token_and_image_by_image(attend: str) -> None:
    batch = lay_out(LAYOUT)
    count = count_flops(make_crossing(blocks={"attend": attend}))
    read = [images for row in who_reads(LAYOUT, attend) for images in row]
    assert count.reading is not None
    wanted = count.reading.token * sum(map(bool, read)) + count.reading.image * sum(map(len, read))
    assert reading_part(count, batch) == pytest.approx(wanted, rel=1e-9)
    assert count.reading.token
    assert count.reading.image
    assert reading_part(count, lay_out([[Piece(30)], [Piece(7)]])) == 0.0


def test_pieces_that_read_the_next_image_while_training_are_counted_so() -> None:
    batch = lay_out(LAYOUT)
    ahead, plain = (count_flops(make_crossing(blocks={"p_next": share})) for share in (1.0, 0.0))
    following = count_flops(make_crossing(blocks={"attend": "next"}))
    assert reading_part(ahead, batch) == reading_part(following, batch)
    assert reading_part(ahead, batch) != reading_part(plain, batch)


def test_a_square_of_one_place_costs_its_keys_and_values_once_per_block() -> None:
    two, one = (count_flops(make_crossing(blocks={"every": every})) for every in (1, 2))
    # Keys and values of a block: two matrices of 48 x 32 weights, three latents, forward and backward.
    assert two.square - one.square == 6 * 2 * 48 * 32 * 3
    assert two.label == one.label


def test_windows_of_the_language_model_are_those_without_blocks() -> None:
    # Blocks are trained in front of every layer, as the embeddings are: the layers cost what they cost without.
    crossing, plain = count_flops(make_crossing("gemma3_text")), count_flops(make_family("gemma3_text"))
    assert crossing.pairs == plain.pairs
    assert set(crossing.pairs) == {7.0, float("inf")}
    assert crossing.token == plain.token


def native_batch(shapes: list[tuple[int, int]], tokens: int) -> Batch:
    """Return a batch whose pictures are so many patches of 4 px high and wide, one at the start of each row."""
    layout: Layout = [[Piece(24, (0,))] for _ in shapes]
    batch = lay_out(layout)
    pixels = np.full_like(batch.pixels, np.nan)
    for picture, (rows, columns) in zip(pixels, shapes, strict=True):
        picture[:, : rows * 4, : columns * 4] = 0.5
    slots = batch.image_slots.copy()
    slots[:, 2] = tokens
    return dataclasses.replace(batch, pixels=pixels, image_slots=slots)


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("family", ["autoregressive", "cross_attention"])
def test_a_picture_of_any_shape_costs_its_own_patches(family: str, trained: str) -> None:
    tower: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "patch_size": 4}
    told: dict[str, Any] = {
        "vision": VisionSettings(type="siglip_vision_model", config=tower | {"num_attention_heads": 2})
    }
    told |= TRAINED[trained]
    settings = crossing_settings(**told)
    if family == "autoregressive":
        settings = make_settings().model_copy(update={"connector": PERCEIVER, **told})
    model = build(settings, native_aspect=True)
    count = count_flops(model)
    costs = []
    for shape in ((8, 8), (8, 3), (1, 1), (2, 7)):
        batch = native_batch([shape, shape], model.tokens_per_image)
        costs.append(count(batch))
        assert costs[-1] == pytest.approx(counted_by_torch(model, batch), rel=0.002)
    assert costs[0] > costs[1] > costs[3] > costs[2]
    # Pictures of several shapes: each its own, where torch counts the padding to the largest.
    mixed = native_batch([(8, 8), (1, 1)], model.tokens_per_image)
    assert count(mixed) == pytest.approx((costs[0] + costs[2]) / 2)
    assert count(mixed) < counted_by_torch(model, mixed)
