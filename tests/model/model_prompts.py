"""Prompts for tiny models, families that a cache could get wrong, and answers found without any cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from model_builder import FAMILIES, IMAGE_SIZE_PX, IMAGE_TOKENS, VOCABULARY, make_settings

from carnac.core.seeds import generator
from carnac.model.build import build_model
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.generation.prompt import Prompt
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import (
    ConfigValue,
    ConnectorSettings,
    CrossAttentionSettings,
    PerceiverSettings,
    ResamplerSettings,
)
from carnac.model.tensors import BatchTensors

TIE = 1e-4  # two logits nearer than this may change places by rounding
RESAMPLER = ResamplerSettings(type="resampler", latents=5, depth=2, heads=2, head_size=8)
WINDOW = 7  # of `FAMILIES`: shorter than the prompts and the answers


def make_talker(family: str = "llama", added_ids: tuple[int, ...] = (), **fields: ConfigValue) -> MultimodalModel:
    """Return a tiny model that does not say one token for ever, as small random weights do."""
    told: dict[str, ConfigValue] = {"tie_word_embeddings": False, **FAMILIES[family], **fields}
    vocabulary = Vocabulary(size=VOCABULARY, pad_id=0, added_ids=added_ids)
    model = build_model(make_settings(family, **told), vocabulary, IMAGE_SIZE_PX, seed=0)
    _speak_up(model, family)
    return model.eval()


def _speak_up(model: MultimodalModel, family: str) -> None:
    with torch.no_grad():
        for name, parameter in model.language.model.layers.named_parameters():
            if "norm" not in name:
                parameter.mul_(8.0)
            elif family.startswith("gemma"):  # which norms what each layer adds: scaled there
                parameter.add_(3.0)


def make_reader(
    family: str = "llama", *, connector: ConnectorSettings = RESAMPLER, seed: int = 0, **fields: Any
) -> CrossAttentionModel:
    """Return a tiny model of the cross-attention family whose blocks say something; `fields` are of their settings."""
    told: dict[str, ConfigValue] = {"tie_word_embeddings": False, "num_hidden_layers": 4, **FAMILIES[family]}
    plain = make_settings(family, **told)
    blocks = CrossAttentionSettings(**{"every": 2, "gate_start": 0.8, "gate_spread": 0.2, **fields})
    settings = plain.model_copy(update={"family": "cross_attention", "cross_attention": blocks, "connector": connector})
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0), IMAGE_SIZE_PX, seed)
    _speak_up(model, family)
    assert isinstance(model, CrossAttentionModel)
    return model.eval()


def make_native(family: Literal["autoregressive", "cross_attention"]) -> MultimodalModel:
    """Return a tiny model that takes pictures of any shape, in float64."""
    plain = make_settings(tie_word_embeddings=False)
    perceiver = PerceiverSettings(type="perceiver", latents=IMAGE_TOKENS, depth=1, heads=2, head_size=8, kv_heads=1)
    changes: dict[str, Any] = {"family": family, "connector": perceiver}
    if family == "cross_attention":
        blocks = CrossAttentionSettings(every=2, gate_start=0.8)
        changes |= {"connector": RESAMPLER, "cross_attention": blocks}
    settings = plain.model_copy(update=changes)
    vocabulary = Vocabulary(size=VOCABULARY, pad_id=0)
    model = build_model(settings, vocabulary, 3 * IMAGE_SIZE_PX, seed=0, native_aspect=True)
    _speak_up(model, "llama")
    return model.double().eval()


def in_shapes(prompt: Prompt, shapes: Sequence[tuple[int, int]], side_px: int, *, seed: int = 0) -> Prompt:
    """Return a prompt with other pictures, of (height, width) in pixels within squares: NaN beyond them."""
    draws = generator(seed, "shapes")
    pixels = np.full((len(shapes), 3, side_px, side_px), np.nan, dtype=np.float32)
    for square, (height, width) in zip(pixels, shapes, strict=True):
        square[:, :height, :width] = draws.standard_normal((3, height, width))
    return Prompt(ids=prompt.ids, places=prompt.places, pixels=pixels)


def make_prompt(tokens: int, images: int = 0, *, seed: int = 0, places_of_one: int = IMAGE_TOKENS) -> Prompt:
    """Return a prompt of so many random tokens with random pictures spread over it."""
    draws = generator(seed, "prompt", tokens, images)
    ids = draws.integers(3, VOCABULARY, tokens)
    places = np.array([1 + number * (tokens - 1) // max(images, 1) for number in range(images)], dtype=np.int64)
    for place in places:
        ids[place : place + places_of_one] = 2
    pixels = draws.standard_normal((images, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX), dtype=np.float32)
    return Prompt(ids=ids, places=places, pixels=pixels)


def joined(first: Prompt, second: Prompt) -> Prompt:
    """Return one prompt after another."""
    places = np.concatenate([first.places, second.places + len(first)])
    pixels = np.concatenate([first.pixels, second.pixels])
    return Prompt(ids=np.concatenate([first.ids, second.ids]), places=places, pixels=pixels)


def answer_without_cache(model: MultimodalModel, prompt: Prompt, count: int) -> tuple[list[int], list[float]]:
    """Return the likeliest ids after a prompt, all read anew for each, and how far the second likeliest was behind."""
    found: list[int] = []
    margins: list[float] = []
    with torch.no_grad():
        for _ in range(count):
            best = model(tensors_of(model, prompt, found))[0, -1].topk(2)
            found.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
    return found, margins


def tensors_of(model: MultimodalModel, prompt: Prompt, more: Sequence[int] = ()) -> BatchTensors:
    """Return a prompt and ids after it as one training row."""
    ids = torch.tensor(np.append(prompt.ids, np.array(more, dtype=np.int64)))[None]
    return BatchTensors(
        input_ids=ids,
        labels=ids,
        positions=torch.arange(ids.shape[1])[None],
        image_places=torch.tensor(prompt.places[:, None] + np.arange(model.tokens_per_image)),
        pixels=torch.tensor(prompt.pixels).to(model.vision.dtype),
    )


def assert_same(found: list[int], wanted: list[int], margins: list[float]) -> bool:
    """Require equal ids up to a tie; return whether there was one."""
    for place, (got, want) in enumerate(zip(found, wanted, strict=True)):
        if got != want:
            assert margins[place] < TIE, (place, found, wanted, margins[place])
            return True
    return False
