"""A gated cross-attention block: tokens read images, then an MLP; both are let in by a gate.

Legend of shapes: R rows, T tokens of a row, N squares, K latents of a square, W their width, D width of the language
model, H heads, d width of a head, A tokens that read an image, G groups of them, L tokens of the longest group, M
images of a group at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from carnac.model.cross_attention.reading import Reading
from carnac.model.settings import CrossAttentionSettings

KeysValues = tuple[torch.Tensor, torch.Tensor]  # [N, H, K, d] each


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a block takes from the models around it: D, H, d, W, the width inside its MLP, the epsilon of its norms."""

    width: int
    heads: int
    head_size: int
    memory: int
    hidden: int
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """`reading.Reading` on the device of the model; see there."""

    tokens: torch.Tensor
    slots: torch.Tensor
    images: torch.Tensor
    longest: int
    mask: torch.Tensor | None
    unread: torch.Tensor
    rows: torch.Tensor
    row_of: torch.Tensor


def groups_of(reading: Reading, device: torch.device) -> Groups:
    """Return a reading as tensors."""
    names = ("tokens", "slots", "images", "unread", "rows", "row_of")
    arrays = {name: torch.from_numpy(getattr(reading, name)).to(device) for name in names}
    mask = None if reading.mask is None else torch.from_numpy(reading.mask).to(device)
    return Groups(longest=reading.longest, mask=mask, **arrays)


class CrossAttention(nn.Module):
    """Tokens attend to latents of the images of their group."""

    def __init__(self, settings: CrossAttentionSettings, sizes: Sizes) -> None:
        super().__init__()
        self.heads, self.head_size = sizes.heads, sizes.head_size
        width = sizes.heads * sizes.head_size
        self.query = nn.Linear(sizes.width, width, bias=False)
        self.key = nn.Linear(sizes.memory, width, bias=False)
        self.value = nn.Linear(sizes.memory, width, bias=False)
        self.output = nn.Linear(width, sizes.width, bias=False)
        normed = settings.qk_norms
        self.query_norm = nn.RMSNorm(sizes.head_size, sizes.epsilon) if normed else nn.Identity()
        self.key_norm = nn.RMSNorm(sizes.head_size, sizes.epsilon) if normed else nn.Identity()

    def keys_values(self, memory: torch.Tensor) -> KeysValues:
        """Map latents [N, K, W] to keys and values [N, H, K, d]: the same for every token that reads them."""
        return self.key_norm(self._split(self.key(memory))), self._split(self.value(memory))

    def forward(self, tokens: torch.Tensor, groups: Groups, keys_values: KeysValues) -> torch.Tensor:
        """Map tokens [A, D], in the order of `groups.tokens`, to what they read, [A, D]."""
        query = self.query(tokens)
        query = self.query_norm(query.view(len(query), self.heads, self.head_size))  # [A, H, d]
        count, longest = len(groups.images), groups.longest
        places = query.new_zeros(count * longest, *query.shape[1:]).index_copy(0, groups.slots, query)
        asked = places.view(count, longest, *query.shape[1:]).transpose(1, 2)  # [G, H, L, d]
        keys, values = (_gathered(each, groups.images) for each in keys_values)
        mask = groups.mask
        if mask is not None:
            mask = mask.repeat_interleave(keys_values[0].shape[2], dim=-1)[:, None]  # [G, 1, L, M * K]
        read = scaled_dot_product_attention(asked, keys, values, attn_mask=mask)
        flat = read.transpose(1, 2).flatten(0, 1).index_select(0, groups.slots).flatten(1)
        found: torch.Tensor = self.output(flat)
        return found

    def leaked(self, groups: Groups, values: torch.Tensor) -> torch.Tensor:
        """Return [U, D]: the mean of all values [N, H, K, d] of a token's row, what a masked row of scores comes to."""
        means = values.mean(2).flatten(1)  # [N, H * d]
        rows = int(groups.row_of.max()) + 1
        sums = means.new_zeros(rows, means.shape[1]).index_add(0, groups.row_of, means)
        counts = torch.bincount(groups.row_of, minlength=rows).clamp(min=1)
        found: torch.Tensor = self.output((sums / counts[:, None])[groups.rows])
        return found

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(*values.shape[:-1], self.heads, self.head_size).transpose(1, 2)


class GatedMlp(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202) or two layers with a GELU: [..., D] -> [..., D]."""

    def __init__(self, kind: str, size: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, hidden, bias=False) if kind == "swiglu" else None
        self.up = nn.Linear(size, hidden, bias=False)
        self.down = nn.Linear(hidden, size, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map [..., D] to [..., D]."""
        up = self.up(values)
        inner = nn.functional.gelu(up) if self.gate is None else nn.functional.silu(self.gate(values)) * up
        mapped: torch.Tensor = self.down(inner)
        return mapped


class GatedCrossAttention(nn.Module):
    """x + tanh(a) * attention(norm(x)), then x + tanh(b) * mlp(norm(x)) (Alayrac et al. 2022, arXiv 2204.14198, 3.1.2).

    With query-key norms as in Idefics (Laurencon et al. 2023, arXiv 2306.16527). A token that reads no image gets zero
    from the attention; whether the MLP reaches it is `CrossAttentionSettings.text_tokens`.
    """

    def __init__(self, settings: CrossAttentionSettings, sizes: Sizes) -> None:
        super().__init__()
        self.leaks = settings.mask == "uniform"
        self.is_for_text = settings.text_tokens == "mlp" or self.leaks
        self.attention_norm = nn.RMSNorm(sizes.width, sizes.epsilon)
        self.attention = CrossAttention(settings, sizes)
        self.mlp_norm = nn.RMSNorm(sizes.width, sizes.epsilon)
        self.mlp = GatedMlp(settings.mlp, sizes.width, sizes.hidden)
        shape = (1,) if settings.gates == "scalar" else (sizes.width,)
        self.attention_gate, self.mlp_gate = (
            nn.Parameter(settings.gate_start + settings.gate_spread * torch.randn(shape)) for _ in range(2)
        )

    def keys_values(self, memory: torch.Tensor) -> KeysValues:
        """Map latents [N, K, W] to keys and values [N, H, K, d]."""
        return self.attention.keys_values(memory)

    def forward(
        self,
        hidden: torch.Tensor,
        groups: Groups,
        memory: torch.Tensor | None = None,
        keys_values: KeysValues | None = None,
    ) -> torch.Tensor:
        """Map hidden states [R, T, D] to [R, T, D], reading latents [N, K, W] or what was made of them before.

        Latents are mapped in here, not by the caller: what shards a block's weights gathers them around this call.
        """
        if keys_values is None:
            assert memory is not None, "a block reads latents, or the keys and values that it made of them"
            keys_values = self.keys_values(memory)
        flat = hidden.flatten(0, 1)
        rows = flat.index_select(0, groups.tokens)
        rows = rows + self._gated(self.attention_gate, self.attention(self.attention_norm(rows), groups, keys_values))
        if not self.is_for_text:
            rows = rows + self._gated(self.mlp_gate, self.mlp(self.mlp_norm(rows)))
            return flat.index_copy(0, groups.tokens, rows.to(flat.dtype)).view_as(hidden)
        flat = flat.index_copy(0, groups.tokens, rows.to(flat.dtype))
        if self.leaks and len(groups.unread):
            leaked = self._gated(self.attention_gate, self.attention.leaked(groups, keys_values[1]))
            flat = flat.index_add(0, groups.unread, leaked.to(flat.dtype))
        flat = flat + self._gated(self.mlp_gate, self.mlp(self.mlp_norm(flat))).to(flat.dtype)
        return flat.view_as(hidden)

    def _gated(self, gate: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return torch.tanh(gate) * values


def _gathered(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return [G, H, M * K, d] of values [N, H, K, d] and images [G, M]."""
    chosen = values[images]  # [G, M, H, K, d]
    return chosen.transpose(1, 2).flatten(2, 3)
