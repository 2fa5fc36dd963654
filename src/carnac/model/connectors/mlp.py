"""One patch, one token: linear layers with a GELU between."""

from __future__ import annotations

import torch
from torch import nn

from carnac.model.settings import MlpSettings


class MlpConnector(nn.Module):
    """Two linear layers with a GELU between (LLaVA-1.5, Liu et al. 2023, arXiv 2310.03744), or one linear map (LLaVA).

    [N, P, V] -> [N, P, H] -> [N, P, D], H the hidden width. `up` is None where there is one layer only.
    """

    def __init__(self, settings: MlpSettings, vision_size: int, language_size: int, patches: int) -> None:
        super().__init__()
        self.tokens = patches
        hidden_size = settings.hidden_size or language_size
        self.up = nn.Linear(vision_size, hidden_size, bias=settings.bias) if settings.layers == 2 else None
        down_from = vision_size if self.up is None else hidden_size
        self.down = nn.Linear(down_from, language_size, bias=settings.bias)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches [N, P, V] to image tokens [N, P, D]."""
        if self.up is not None:
            patches = nn.functional.gelu(self.up(patches))
        tokens: torch.Tensor = self.down(patches)
        return tokens
