"""Pictures -> patches: any vision tower of transformers that cuts a fixed square into square patches.

Legend of shapes: N images, C channels, S image side, P patches of an image, V width of the tower.
"""

from __future__ import annotations

from typing import Any

import torch

from carnac.core.errors import InputError
from carnac.model.settings import TowerSettings
from carnac.model.towers import own_fields, tower_config


def build_vision(tower: TowerSettings, image_size_px: int) -> Any:
    """Return a vision tower with random weights for square pictures of `image_size_px`."""
    filled = {"image_size": image_size_px, "num_channels": 3}
    # SigLIP's pooling head turns patches into one vector that nothing here reads: weights without gradients.
    if "vision_use_head" in own_fields(tower.type) - set(tower.config):
        filled["vision_use_head"] = False
    return vision_from_config(tower_config("vision", tower, filled))


def vision_from_config(config: Any) -> Any:
    """Return a vision tower with random weights for a whole configuration."""
    from transformers import AutoModel

    try:
        return AutoModel.from_config(config)  # type: ignore[no-untyped-call] # transformers is untyped
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"model.vision: transformers cannot build this {config.model_type}: {error}") from error


def num_patches(config: Any) -> int:
    """Return P, the patches of one picture."""
    return int((config.image_size // config.patch_size) ** 2)


def patches(tower: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Map pixels [N, C, S, S] to the features [N, P, V] of the last layer, class and register tokens left out."""
    features: torch.Tensor = tower(pixel_values=pixels).last_hidden_state
    return features[:, -num_patches(tower.config) :]
