"""Squares of neighbouring patches become one token: a fixed share of the tokens, no learned pooling."""

from __future__ import annotations

import math

import torch
from torch import nn

from carnac.core.errors import InputError
from carnac.model.settings import PixelShuffleSettings


class PixelShuffleConnector(nn.Module):
    """Space to depth, then one linear map without bias (Idefics3, Laurencon et al. 2024, arXiv 2408.12637).

    [N, P, V] -> [N, P / F^2, V * F^2] -> [N, K, D], F the factor and K = P / F^2. Within a token the patches lie row
    by row, as in transformers' Idefics3 and SmolVLM.
    """

    def __init__(self, settings: PixelShuffleSettings, vision_size: int, language_size: int, patches: int) -> None:
        super().__init__()
        self.factor = settings.factor
        side = math.isqrt(patches)
        if side * side != patches or side % self.factor:
            raise InputError(
                f"model.connector.factor: {self.factor} does not divide the tower's {patches} patches, side by side, "
                "into whole squares; choose a factor that divides image size / patch size, and no class token"
            )
        self.tokens = (side // self.factor) ** 2
        self.projection = nn.Linear(vision_size * self.factor**2, language_size, bias=False)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches [N, P, V], row by row, to image tokens [N, K, D]."""
        tokens: torch.Tensor = self.projection(shuffle(patches, self.factor))
        return tokens


def shuffle(patches: torch.Tensor, factor: int) -> torch.Tensor:
    """Return [N, P / F^2, V * F^2]: every square of F x F patches in one place, its rows one after another."""
    count, length, width = patches.shape
    side = math.isqrt(length)
    grid = patches.reshape(count, side // factor, factor, side // factor, factor, width)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(count, length // factor**2, width * factor**2)
