"""Models of the literature on the meta device: the right modules, of the right sizes, without memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from carnac.model.build import build_skeleton
from carnac.model.language import Vocabulary
from carnac.model.settings import ModelSettings

SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
LLAMA_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}

Model = tuple[dict[str, Any], int, dict[str, Any], int, int]  # tower, its squares, language model, its ids, factor
IDEFICS3: Model = (
    {**SO400M, "patch_size": 14},
    364,
    {**LLAMA_8B, "num_key_value_heads": 8, "tie_word_embeddings": False},
    128_259,
    2,
)
SMOLVLM: Model = (
    {**BASE, "patch_size": 16},
    512,
    {**SMOLLM2, "num_key_value_heads": 3, "tie_word_embeddings": True},
    49_280,
    4,
)


def ours(model: Model, added_ids: tuple[int, ...] = ()) -> Any:
    vision, size_px, language, ids, factor = model
    settings = ModelSettings.model_validate(
        {
            "vision": {"type": "siglip_vision_model", "config": vision},
            "connector": {"type": "pixel_shuffle", "factor": factor},
            "language": {"type": "llama", "config": language},
        }
    )
    return build_skeleton(settings, Vocabulary(size=ids, pad_id=2, added_ids=added_ids), size_px)


def theirs(model: Model) -> Any:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    vision, size_px, language, ids, factor = model
    text: Any = {"model_type": "llama", "vocab_size": ids, **language}
    config = Idefics3Config(
        vision_config={**vision, "image_size": size_px},
        text_config=text,
        scale_factor=factor,
        tie_word_embeddings=language["tie_word_embeddings"],
    )
    with torch.device("meta"):
        return Idefics3ForConditionalGeneration(config)


def parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("model", "billions", "tokens"), [(IDEFICS3, 8.462, 169), (SMOLVLM, 0.2281, 64)], ids=["Idefics3-8B", "SmolVLM"]
)
def test_sizes_are_the_published_ones_and_transformers_own(model: Model, billions: float, tokens: int) -> None:
    found = ours(model)
    assert found.device.type == "meta"
    assert found.tokens_per_image == tokens
    assert parameters(found) / 1e9 == pytest.approx(billions, abs=0.00005 if billions < 1 else 0.0005)
    assert parameters(found) == parameters(theirs(model))


HUGE = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_65B = {"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 80, "num_attention_heads": 64}
MISTRAL_7B = {**LLAMA_8B, "num_key_value_heads": 8}


@pytest.mark.parametrize(
    ("language", "billions", "blocks"), [(LLAMA_7B, 8.930, 8), (LLAMA_65B, 79.968, 20)], ids=["9b", "80b"]
)
def test_idefics_has_the_published_size_and_transformers_own(
    language: dict[str, int], billions: float, blocks: int
) -> None:
    from transformers import IdeficsConfig, IdeficsForVisionText2Text

    settings = ModelSettings.model_validate(
        {
            "family": "cross_attention",
            "vision": {"type": "clip_vision_model", "class_token": True, "config": {**HUGE, "patch_size": 14}},
            "connector": {"type": "resampler"},
            "language": {"type": "llama", "config": language},
        }
    )
    found: Any = build_skeleton(settings, Vocabulary(size=32_002, pad_id=0), 224)
    vision = {"embed_dim": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    sizes: Any = language
    config = IdeficsConfig(
        vocab_size=32_000,
        additional_vocab_size=2,
        cross_layer_interval=4,
        qk_layer_norms=True,
        use_resampler=True,
        vision_config={**vision, "patch_size": 14, "image_size": 224},
        perceiver_config={"use_resampler": True, "qk_layer_norms_perceiver": True},
        **sizes,
    )
    with torch.device("meta"):
        theirs = IdeficsForVisionText2Text(config)
    assert (found.tokens_per_image, len(found.fusion)) == (1, blocks)
    assert round(parameters(found) / 1e9, 3) == billions
    assert parameters(found) == parameters(theirs)


def test_idefics2_has_the_published_size_and_transformers_own() -> None:
    from transformers import Idefics2Config, Idefics2ForConditionalGeneration

    settings = ModelSettings.model_validate(
        {
            "vision": {"type": "siglip_vision_model", "config": {**SO400M, "patch_size": 14}},
            "connector": {"type": "perceiver", "hidden_like_language": True, "norm_epsilon": 1e-5},
            "language": {"type": "mistral", "config": MISTRAL_7B},
        }
    )
    found: Any = build_skeleton(settings, Vocabulary(size=32_003, pad_id=0), 980, native_aspect=True)
    text: Any = {"model_type": "mistral", "vocab_size": 32_003, **MISTRAL_7B}
    config = Idefics2Config(
        vision_config={**SO400M, "patch_size": 14, "image_size": 980},
        text_config=text,
        perceiver_config={"hidden_size": 4096},
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        theirs = Idefics2ForConditionalGeneration(config)
    assert (found.tokens_per_image, found.image_size_px) == (64, 980)
    assert found.settings.connector.hidden_size == 14_336
    assert round(parameters(found) / 1e9, 3) == 8.403
    assert parameters(found) == parameters(theirs)


def test_added_rows_are_counted_beside_the_tables() -> None:
    vision, size_px, language, ids, factor = SMOLVLM
    smaller = (vision, size_px, language, ids - 3, factor)
    found = ours(smaller, added_ids=(ids - 3, ids - 2, ids - 1))
    assert parameters(found) == parameters(ours(SMOLVLM))
    assert found.language.config.vocab_size == ids
