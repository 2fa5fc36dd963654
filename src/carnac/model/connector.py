"""Patches -> the language model's width.

Legend of shapes: N images, P patches of an image, V width of the vision tower, D width of the language model.
"""

from __future__ import annotations

import torch
from torch import nn

from carnac.model.settings import ConnectorSettings


class MlpConnector(nn.Module):
    """Two linear layers with a GELU between (LLaVA-1.5, Liu et al. 2023, arXiv 2310.03744). One patch, one token."""

    def __init__(self, settings: ConnectorSettings, vision_size: int, language_size: int) -> None:
        super().__init__()
        self.up = nn.Linear(vision_size, settings.hidden_size)
        self.down = nn.Linear(settings.hidden_size, language_size)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches [N, P, V] to image tokens [N, P, D]."""
        tokens: torch.Tensor = self.down(nn.functional.gelu(self.up(patches)))
        return tokens
