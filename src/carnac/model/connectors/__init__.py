"""What joins the two backbones: patches of the vision tower in, image tokens of the language model's width out.

Every connector maps [N, P, V] to [N, K, D] and says K in `tokens`; the resampler, which only cross-attention reads,
keeps the tower's width V. With a mask of patches (native aspect) those that are no picture are not read. Legend of
shapes: N squares (whole pictures or tiles), P patches of a square, V width of the vision tower, K image tokens of a
square, D width of the language model.
"""

from __future__ import annotations

from torch import nn

from carnac.model.connectors.mlp import MlpConnector
from carnac.model.connectors.perceiver import PerceiverConnector
from carnac.model.connectors.pixel_shuffle import PixelShuffleConnector
from carnac.model.connectors.resampler import ResamplerConnector
from carnac.model.settings import ConnectorSettings, MlpSettings, PerceiverSettings, ResamplerSettings

__all__ = [
    "MlpConnector",
    "PerceiverConnector",
    "PixelShuffleConnector",
    "ResamplerConnector",
    "build_connector",
    "output_size",
]


def build_connector(settings: ConnectorSettings, vision_size: int, language_size: int, patches: int) -> nn.Module:
    """Return a connector with random weights for squares of `patches` patches; widths are V and D.

    Raises InputError where the patches cannot be joined as the settings say.
    """
    if isinstance(settings, MlpSettings):
        return MlpConnector(settings, vision_size, language_size, patches)
    if isinstance(settings, PerceiverSettings):
        return PerceiverConnector(settings, vision_size, language_size)
    if isinstance(settings, ResamplerSettings):
        return ResamplerConnector(settings, vision_size)
    return PixelShuffleConnector(settings, vision_size, language_size, patches)


def output_size(settings: ConnectorSettings, vision_size: int, language_size: int) -> int:
    """Return the width of the image tokens that a connector makes, W."""
    return vision_size if isinstance(settings, ResamplerSettings) else language_size
