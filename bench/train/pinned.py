"""The pinned configuration: a language model of 7 M parameters that sees pictures of 112 x 112 pixels.

The sizes of an earlier measurement of transformers' classes: a Mistral-type model of 6.95 M parameters, pictures of
64 patches that become 16 tokens through Idefics2's perceiver, rows of 512. The tower is a SigLIP of 0.9 M parameters.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ConfigValue, ModelSettings, PerceiverSettings, TowerSettings, VisionSettings
from carnac.sequence.settings import PictureSettings

BEGIN_ID, END_ID, PAD_ID, IMAGE_ID = 0, 1, 2, 3
FIRST_TEXT_ID = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the backbones, the connector and the rows are."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    vision_width: int
    vision_layers: int
    image_px: int
    patch_px: int
    latents: int
    depth: int
    row_tokens: int
    rows: int

    @property
    def pictures(self) -> PictureSettings:
        """The pictures, as recipes say them."""
        return PictureSettings(size_px=self.image_px, patch_px=self.patch_px, tokens=self.latents)


SIZES = {
    "pinned": Size(
        width=256, layers=6, heads=8, kv_heads=4, vocabulary=4096, vision_width=128, vision_layers=4, image_px=112,
        patch_px=14, latents=16, depth=2, row_tokens=512, rows=4,
    ),
    "tiny": Size(
        width=48, layers=2, heads=4, kv_heads=2, vocabulary=512, vision_width=32, vision_layers=2, image_px=32,
        patch_px=8, latents=4, depth=1, row_tokens=128, rows=3,
    ),
}  # fmt: skip


def make_ours(size: Size) -> MultimodalModel:
    """Return carnac's model with random weights."""
    vocabulary = Vocabulary(size=size.vocabulary, pad_id=PAD_ID, bos_id=BEGIN_ID, eos_id=END_ID)
    return build_model(make_settings(size), vocabulary, size.image_px, seed=0).train()


def make_plain(ours: MultimodalModel) -> Any:
    """Return the same language model alone, with the same weights: transformers' class, and its attention."""
    plain: Any = copy.deepcopy(ours.language)
    plain.set_attn_implementation("sdpa")
    return plain.train()


def num_parameters(model: torch.nn.Module) -> int:
    """Return the number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def make_settings(size: Size) -> ModelSettings:
    """Return the model as a recipe says it."""
    return ModelSettings(
        vision=VisionSettings(type="siglip_vision_model", config=vision_fields(size)),
        connector=PerceiverSettings(
            type="perceiver",
            hidden_size=4 * size.width,  # as in transformers' Idefics2: the language model's
            latents=size.latents,
            depth=size.depth,
            heads=size.heads,
            head_size=size.width // size.heads,
            kv_heads=size.kv_heads,
        ),
        language=TowerSettings(type="mistral", config=language_fields(size)),
    )


def vision_fields(size: Size) -> dict[str, ConfigValue]:
    """Return the tower's fields of transformers' configuration."""
    return {
        "hidden_size": size.vision_width,
        "intermediate_size": 4 * size.vision_width,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_width // 32,
        "patch_size": size.patch_px,
    }


def language_fields(size: Size) -> dict[str, ConfigValue]:
    """Return the language model's fields of transformers' configuration."""
    return {
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
