"""A fixed number of tokens whatever the number of patches: latents read the patches by cross-attention."""

from __future__ import annotations

import torch
from torch import nn

from carnac.core.errors import InputError
from carnac.model.connectors.resampler import reading_mask
from carnac.model.settings import PerceiverSettings


class GatedMlp(nn.Module):
    """A gated linear unit with SiLU (Shazeer 2020, arXiv 2002.05202): [..., A] -> [..., H] -> [..., B]."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(input_size, hidden_size, bias=False)
        self.up = nn.Linear(input_size, hidden_size, bias=False)
        self.down = nn.Linear(hidden_size, output_size, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map [..., A] to [..., B]."""
        mapped: torch.Tensor = self.down(nn.functional.silu(self.gate(values)) * self.up(values))
        return mapped


class LatentAttention(nn.Module):
    """Latents [N, K, D] attend to the patches and to themselves [N, P + K, D], with grouped heads."""

    def __init__(self, settings: PerceiverSettings, size: int) -> None:
        super().__init__()
        self.head_size = settings.head_size
        self.query = nn.Linear(size, settings.heads * settings.head_size, bias=False)
        self.key = nn.Linear(size, settings.kv_heads * settings.head_size, bias=False)
        self.value = nn.Linear(size, settings.kv_heads * settings.head_size, bias=False)
        self.output = nn.Linear(settings.heads * settings.head_size, size, bias=False)

    def forward(self, latents: torch.Tensor, patches: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map latents [N, K, D] and patches [N, P, D] to [N, K, D]; `mask` bool [N, 1, 1, P + K] says what is read."""
        context = torch.cat([patches, latents], dim=1)
        query, key, value = self._split(self.query(latents)), self._split(self.key(context)), self.value(context)
        read = nn.functional.scaled_dot_product_attention(
            query, key, self._split(value), attn_mask=mask, enable_gqa=True
        )
        mapped: torch.Tensor = self.output(read.transpose(1, 2).flatten(2))
        return mapped

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(*values.shape[:2], -1, self.head_size).transpose(1, 2)


class PerceiverLayer(nn.Module):
    """Attention and a gated MLP of four times the width, each behind a norm and added to the latents."""

    def __init__(self, settings: PerceiverSettings, size: int) -> None:
        super().__init__()
        self.latent_norm = nn.RMSNorm(size, settings.norm_epsilon)
        self.patch_norm = nn.RMSNorm(size, settings.norm_epsilon)
        self.attention = LatentAttention(settings, size)
        self.mlp_norm = nn.RMSNorm(size, settings.norm_epsilon)
        self.mlp = GatedMlp(size, 4 * size, size)

    def forward(self, latents: torch.Tensor, patches: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map latents [N, K, D] and patches [N, P, D] to the next latents [N, K, D]."""
        latents = latents + self.attention(self.latent_norm(latents), self.patch_norm(patches), mask)
        mapped: torch.Tensor = latents + self.mlp(self.mlp_norm(latents))
        return mapped


class PerceiverConnector(nn.Module):
    """A gated MLP to the language model's width, then a resampler (Idefics2, Laurencon et al. 2024, arXiv 2405.02246).

    [N, P, V] -> [N, P, D] -> [N, K, D], K the number of latents. The gated MLP's hidden layer is as wide as the
    settings say, else as the language model.
    """

    def __init__(self, settings: PerceiverSettings, vision_size: int, language_size: int) -> None:
        super().__init__()
        if settings.heads % settings.kv_heads:
            raise InputError(f"model.connector.kv_heads: {settings.kv_heads} does not divide heads {settings.heads}")
        self.tokens = settings.latents
        self.mlp = GatedMlp(vision_size, settings.hidden_size or language_size, language_size)
        self.latents = nn.Parameter(torch.ones(settings.latents, language_size))
        self.layers = nn.ModuleList(PerceiverLayer(settings, language_size) for _ in range(settings.depth))
        self.norm = nn.RMSNorm(language_size, settings.norm_epsilon)
        # Equal latents would read the same and stay equal: Idefics2's ones are for a checkpoint to fill.
        nn.init.normal_(self.latents, std=0.02)

    def forward(self, patches: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map patches [N, P, V] to image tokens [N, K, D]; `mask` bool [N, P]: patches that are picture, None: all."""
        patches = self.mlp(patches)
        latents = self.latents.expand(len(patches), -1, -1)
        read = reading_mask(mask, self.tokens)
        for layer in self.layers:
            latents = layer(latents, patches, read)
        tokens: torch.Tensor = self.norm(latents)
        return tokens
