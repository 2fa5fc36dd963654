"""The same random model twice: carnac's, and transformers' class with the same weights, by way of an export.

Each format is benchmarked on what it was made for: LLaVA with every patch a token, Idefics3 with a pixel shuffle,
Idefics2 with latents of a tower for any shape, Idefics with latents that blocks between the layers read.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from carnac.model.build import build_model
from carnac.model.formats import FormatName
from carnac.model.formats.description import describe_model
from carnac.model.formats.folders import SpecialIds, write_folder
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import (
    ConfigValue,
    ConnectorSettings,
    CrossAttentionSettings,
    MlpSettings,
    ModelSettings,
    PerceiverSettings,
    PixelShuffleSettings,
    ResamplerSettings,
    TowerSettings,
    VisionSettings,
)
from carnac.sequence.settings import PictureSettings

IMAGE_ID, BEGIN_ID, END_ID, PAD_ID = 3, 1, 2, 0
FIRST_TEXT_ID = 4
LOUDER = 4.0
LATENTS = 64  # of Idefics; Idefics2's are places in the row, and rows of the smallest size have 64
PLACES = 32
# All layers of `SIZES` can be shared out by 3. Open gates: closed ones would hide whether pictures are read.
BLOCKS = CrossAttentionSettings(every=3, text_tokens="mlp", gate_start=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the two backbones are; widths of SigLIP and Llama, SmolLM2's proportions."""

    image_px: int
    patch_px: int
    vision_width: int
    vision_layers: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int


SIZES = {
    "tiny": Size(
        image_px=64, patch_px=16, vision_width=64, vision_layers=2, width=96, layers=3, heads=6, kv_heads=2,
        vocabulary=2048,
    ),
    "small": Size(
        image_px=96, patch_px=16, vision_width=128, vision_layers=4, width=192, layers=6, heads=6, kv_heads=2,
        vocabulary=8192,
    ),
    "medium": Size(
        image_px=128, patch_px=16, vision_width=384, vision_layers=6, width=384, layers=12, heads=6, kv_heads=2,
        vocabulary=32_768,
    ),
    # SmolLM2-135M beside 12 layers of 768, as in SmolVLM-256M.
    "large": Size(
        image_px=224, patch_px=16, vision_width=768, vision_layers=12, width=576, layers=30, heads=9, kv_heads=3,
        vocabulary=49_280,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The same weights in both libraries."""

    ours: MultimodalModel
    theirs: Any
    name: FormatName


def make_pair(name: FormatName, size: Size, device: str, dtype: torch.dtype = torch.float32) -> Pair:
    """Return carnac's model and transformers' class with its weights."""
    ours = make_ours(name, size)
    with tempfile.TemporaryDirectory() as folder:
        theirs = exported(ours, name, size, Path(folder))
    return Pair(ours=ours.to(device=device, dtype=dtype), theirs=theirs.to(device=device, dtype=dtype), name=name)


def make_ours(name: FormatName, size: Size) -> MultimodalModel:
    """Return a model with random weights."""
    vocabulary = Vocabulary(size=size.vocabulary, pad_id=PAD_ID, bos_id=BEGIN_ID, eos_id=END_ID)
    model = build_model(_settings(name, size), vocabulary, size.image_px, seed=0, native_aspect=name == "idefics2")
    with torch.no_grad():  # as they are made, random weights say one token for ever: answers would always be equal
        for parameter_name, parameter in model.language.model.layers.named_parameters():
            if "norm" not in parameter_name:
                parameter.mul_(LOUDER)
    return model


def exported(ours: MultimodalModel, name: FormatName, size: Size, folder: Path) -> Any:
    """Write `ours` in a format into `folder` and return what transformers loads from there."""
    from transformers import AutoModelForImageTextToText
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call] # transformers is untyped
    pictures = PictureSettings(
        size_px=size.image_px,
        patch_px=size.patch_px,
        tokens=ours.tokens_per_image,
        marks="none" if name == "llava" else name,
        aspect="native" if name == "idefics2" else "square",
    )
    ids = SpecialIds(image=IMAGE_ID, begin=BEGIN_ID, end=END_ID, pad=PAD_ID)
    write_folder(ours, describe_model(ours, pictures), name, ids, folder)
    theirs = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    return theirs.requires_grad_(requires_grad=True)  # Idefics begins with frozen backbones


def num_parameters(model: torch.nn.Module) -> int:
    """Return the number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _settings(name: FormatName, size: Size) -> ModelSettings:
    vision: dict[str, ConfigValue] = {
        "hidden_size": size.vision_width,
        "intermediate_size": 4 * size.vision_width,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_width // 32 if size.vision_width < 512 else size.vision_width // 64,
        "patch_size": size.patch_px,
    }
    crossed = name == "idefics"
    language: dict[str, ConfigValue] = {
        "hidden_size": size.width,
        "intermediate_size": size.width * 8 // 3,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        # transformers' Idefics has no shared heads: they would be repeated, and its work would be more than ours.
        "num_key_value_heads": size.heads if crossed else size.kv_heads,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }
    return ModelSettings(
        family="cross_attention" if crossed else "autoregressive",
        vision=VisionSettings(
            type="clip_vision_model" if crossed else "siglip_vision_model", config=vision, class_token=crossed
        ),
        connector=_connector(name, size),
        language=TowerSettings(type="llama", config=language),
        cross_attention=BLOCKS if crossed else None,
    )


def _connector(name: FormatName, size: Size) -> ConnectorSettings:
    heads = max(size.vision_width // 80, 1)  # 16 of 96 numbers beside the tower of Idefics, 1,280 wide
    if name == "llava":
        return MlpSettings()
    if name == "idefics3":
        return PixelShuffleSettings(type="pixel_shuffle", factor=2)
    if name == "idefics2":
        return PerceiverSettings(type="perceiver", latents=PLACES, heads=heads, kv_heads=1)
    return ResamplerSettings(type="resampler", latents=LATENTS, heads=heads)
