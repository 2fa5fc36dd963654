"""Trained backbones as their makers hand them out: folders that transformers saved, of tiny random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from carnac.model.towers import make_config

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
SQUARE: dict[str, Any] = {"patch_size": 8, "image_size": 32}  # 4 x 4 patches


def save_language(folder: Path, kind: str = "llama", **fields: Any) -> Any:
    """Save a causal language model of 128 tokens into `folder` and return it."""
    from transformers import AutoModelForCausalLM

    told = {**SMALL, "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 256, **fields}
    return _save(AutoModelForCausalLM, make_config(kind, told), folder)


def save_vision(folder: Path, kind: str, **fields: Any) -> Any:
    """Save a vision tower (`clip` and `siglip`: the whole contrastive model) into `folder` and return it."""
    from transformers import AutoModel

    if kind not in ("clip", "siglip", "siglip2"):
        known = {name: value for name, value in SMALL.items() if kind != "dinov2" or name != "intermediate_size"}
        return _save(AutoModel, make_config(kind, {**known, **SQUARE, **fields}), folder)
    square = {"patch_size": 8, "num_patches": 16} if kind == "siglip2" else SQUARE
    config = make_config(
        kind, {"text_config": {**SMALL, "vocab_size": 64}, "vision_config": {**SMALL, **square, **fields}}
    )
    return _save(AutoModel, config, folder)


def _save(auto: Any, config: Any, folder: Path) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = auto.from_config(config).eval()
        with torch.no_grad():  # sizes at which a wrong table or layer shows
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return model
