"""Flamingo's perceiver resampler, at the width of the vision tower: what cross-attention reads."""

from __future__ import annotations

import torch
from torch import nn

from carnac.model.settings import ResamplerSettings


class ResamplerAttention(nn.Module):
    """Latents [N, K, V] attend to the patches and to themselves [N, P + K, V]."""

    def __init__(self, settings: ResamplerSettings, size: int) -> None:
        super().__init__()
        self.head_size = settings.head_size
        width = settings.heads * settings.head_size
        self.patch_norm = nn.LayerNorm(size)
        self.latent_norm = nn.LayerNorm(size)
        self.query_norm = nn.LayerNorm(settings.head_size) if settings.qk_norms else nn.Identity()
        self.key_norm = nn.LayerNorm(settings.head_size) if settings.qk_norms else nn.Identity()
        self.query = nn.Linear(size, width, bias=False)
        self.key = nn.Linear(size, width, bias=False)
        self.value = nn.Linear(size, width, bias=False)
        self.output = nn.Linear(width, size, bias=False)

    def forward(self, latents: torch.Tensor, patches: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map latents [N, K, V] and patches [N, P, V] to [N, K, V]; `mask` bool [N, 1, 1, P + K] says what is read."""
        latents = self.latent_norm(latents)
        context = torch.cat([self.patch_norm(patches), latents], dim=1)
        query, key = self.query_norm(self._split(self.query(latents))), self.key_norm(self._split(self.key(context)))
        read = nn.functional.scaled_dot_product_attention(query, key, self._split(self.value(context)), attn_mask=mask)
        mapped: torch.Tensor = self.output(read.transpose(1, 2).flatten(2))
        return mapped

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(*values.shape[:2], -1, self.head_size).transpose(1, 2)


class ResamplerMlp(nn.Module):
    """A norm, four times the width, a ReLU and back: [N, K, V] -> [N, K, V]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.up = nn.Linear(size, 4 * size, bias=False)
        self.down = nn.Linear(4 * size, size, bias=False)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Map [N, K, V] to [N, K, V]."""
        mapped: torch.Tensor = self.down(nn.functional.relu(self.up(self.norm(latents))))
        return mapped


class ResamplerLayer(nn.Module):
    """Attention and an MLP, each added to the latents."""

    def __init__(self, settings: ResamplerSettings, size: int) -> None:
        super().__init__()
        self.attention = ResamplerAttention(settings, size)
        self.mlp = ResamplerMlp(size)

    def forward(self, latents: torch.Tensor, patches: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map latents [N, K, V] and patches [N, P, V] to the next latents [N, K, V]."""
        latents = latents + self.attention(latents, patches, mask)
        mapped: torch.Tensor = latents + self.mlp(latents)
        return mapped


class ResamplerConnector(nn.Module):
    """Flamingo's resampler (Alayrac et al. 2022, arXiv 2204.14198) as Idefics has it (arXiv 2306.16527).

    [N, P, V] -> [N, K, V], K the number of latents.
    """

    def __init__(self, settings: ResamplerSettings, vision_size: int) -> None:
        super().__init__()
        self.tokens = settings.latents
        # Of one size with what the first layer adds: as small as 0.02 they would all be next to equal after it.
        self.latents = nn.Parameter(torch.randn(settings.latents, vision_size))
        self.layers = nn.ModuleList(ResamplerLayer(settings, vision_size) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(vision_size)

    def forward(self, patches: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map patches [N, P, V] to latents [N, K, V]; `mask` bool [N, P]: patches that are picture, None: all are."""
        latents = self.latents.expand(len(patches), -1, -1)
        read = reading_mask(mask, self.tokens)
        for layer in self.layers:
            latents = layer(latents, patches, read)
        tokens: torch.Tensor = self.norm(latents)
        return tokens


def reading_mask(mask: torch.Tensor | None, latents: int) -> torch.Tensor | None:
    """Return bool [N, 1, 1, P + K] of a mask [N, P] of patches: latents read those, and all latents."""
    return None if mask is None else nn.functional.pad(mask, (0, latents), value=True)[:, None, None]
