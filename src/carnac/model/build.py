"""Settings -> a model of their family: with random or trained weights, or without any on the meta device."""

from __future__ import annotations

from typing import Any

import torch

from carnac.core.seeds import seed_of
from carnac.model.adapters import add_adapters
from carnac.model.added_tokens import add_tokens
from carnac.model.autoregressive import AutoregressiveModel
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.language import Vocabulary, build_language, language_config, language_from_config
from carnac.model.multimodal import MultimodalModel, freeze
from carnac.model.settings import ModelSettings
from carnac.model.towers import vision_config
from carnac.model.vision import build_vision, vision_from_config


def build_model(
    settings: ModelSettings, vocabulary: Vocabulary, image_size_px: int, seed: int, *, native_aspect: bool = False
) -> MultimodalModel:
    """Return a model whose random weights depend on `seed` alone, frozen as the settings say.

    With `native_aspect` the tower takes pictures of any shape within squares of `image_size_px`. The global generator
    is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "model") % 2**63)
        language = build_language(settings.language, vocabulary)
        vision = build_vision(settings.vision, image_size_px, native_aspect=native_aspect)
        model = join(settings.over(language.config), vision, language)
        freeze(model, settings.trained)
        add_adapters(model)
    return model


def build_skeleton(
    settings: ModelSettings, vocabulary: Vocabulary, image_size_px: int, *, native_aspect: bool = False
) -> MultimodalModel:
    """Return a model on the meta device: names, shapes and what is trained, but no weights and no memory.

    Of trained backbones only the configurations are read.
    """
    with torch.device("meta"):
        language = language_from_config(language_config(settings.language, vocabulary))
        add_tokens(language, vocabulary.added_ids)
        vision = vision_from_config(vision_config(settings.vision, image_size_px, native_aspect=native_aspect))
        model = join(settings.over(language.config), vision, language)
        freeze(model, settings.trained)
        add_adapters(model)
    return model


def join(settings: ModelSettings, vision: Any, language: Any) -> MultimodalModel:
    """Return the model of the settings' family over two backbones; what joins them has random weights."""
    if settings.family == "cross_attention":
        return CrossAttentionModel(settings, vision, language)
    return AutoregressiveModel(settings, vision, language)
