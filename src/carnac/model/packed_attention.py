"""Attention among the tokens of each piece alone, where a row is packed: what would be masked is not computed.

transformers builds each family's own packed mask (causal, sliding, chunked), and torch's attention then computes whole
rows of T x T numbers, most of which the mask throws away: 21 % of a CPU step with pieces of 121 tokens in rows of 512.
Here the mask that transformers built is cut into its blocks, which is exact whatever the family, and each block is
computed alone; only the order of sums differs (losses by 1e-6). A mask that has no such blocks is used as it is.

Legend of shapes: R rows, H heads, T tokens of a row, D width of a head, n tokens of a piece.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "carnac_pieces"
PIECES = "carnac_pieces"  # the attribute of a mask that holds its `Blocks`
# Rows of so many tokens are cut. On one core attention became 1.6 to 3 times as fast at 256 tokens, 3 to 6 times at
# 512, 6 to 10 times at 1,024 (pieces of 32 to 128 tokens, 4 to 8 heads); at 128 it is 0.96 to 1.75 times.
MIN_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The blocks on the diagonal of a packed mask, row after row: so many tokens each, and what is seen in it.

    `masks` bool [n, n]; None: every token sees itself and all before it.
    """

    lengths: tuple[int, ...]
    masks: tuple[torch.Tensor | None, ...]


def use_packed_attention(language: Any) -> None:
    """Let a language model compute packed rows piece by piece; one that cannot is left as it is.

    It can where it leaves attention to torch through transformers' interface, and does not itself ask for its name:
    families with sparse attention do, and mask more than the interface shows.
    """
    config = language.config
    if config._attn_implementation != "sdpa" or not getattr(language, "_supports_attention_backend", False):  # noqa: SLF001
        return
    try:
        source = inspect.getsource(sys.modules[type(language).__module__])
    except (OSError, TypeError, KeyError):
        return
    if '"sdpa"' not in source:
        language.set_attn_implementation(NAME)


def find_blocks(mask: torch.Tensor) -> Blocks | None:
    """Return the blocks of a mask, bool [R, 1, T, T]; None where tokens see others outside of their block.

    A block begins where a token does not see the one before it.
    """
    rows, heads, tokens, others = mask.shape
    if heads != 1 or tokens != others:
        return None
    joined = torch.diagonal(mask[:, 0], offset=-1, dim1=1, dim2=2)  # [R, T - 1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
    lengths: list[int] = []
    masks: list[torch.Tensor | None] = []
    seen = 0
    for row in range(rows):
        ends = [*(torch.nonzero(~joined[row])[:, 0] + 1).tolist(), tokens]
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            block = mask[row, 0, start:end, start:end]
            whole = causal[: end - start, : end - start]
            seen += int(block.count_nonzero())
            lengths.append(end - start)
            masks.append(None if torch.equal(block, whole) else block)
    if seen != int(mask.count_nonzero()):
        return None
    return Blocks(lengths=tuple(lengths), masks=tuple(masks))


def packed_mask(**keywords: Any) -> torch.Tensor | None:
    """Return transformers' own mask for torch's attention; on a CPU, a packed one knows its blocks.

    An attribute rather than a type of its own: code between here and the attention may slice a mask, and gets a mask.
    """
    mask: torch.Tensor | None = sdpa_mask(**keywords)
    # A GPU would start a kernel per piece and layer where one kernel does. With a mask of its own (padding on the left)
    # a caller does not pack, and some tokens see nothing.
    packed = keywords.get("attention_mask") is None
    if mask is not None and packed and mask.device.type == "cpu" and mask.shape[-1] >= MIN_TOKENS:
        setattr(mask, PIECES, find_blocks(mask))
    return mask


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Attend [R, H, T, D] -> [R, T, H, D]: piece by piece where the mask knows its blocks, else as always."""
    blocks: Blocks | None = getattr(attention_mask, PIECES, None)
    if blocks is None or keywords.get("position_bias") is not None or keywords.get("softcap") is not None:
        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **keywords
        )
        return attended
    rows, heads, tokens, _ = query.shape
    parts = (_pieces(states, blocks.lengths) for states in (query, key, value))
    outputs = [
        scaled_dot_product_attention(
            one_query,
            one_key,
            one_value,
            attn_mask=mask,
            dropout_p=keywords.get("dropout", 0.0),
            is_causal=mask is None,
            scale=keywords.get("scaling"),
            enable_gqa=key.shape[1] != heads,
        )
        for one_query, one_key, one_value, mask in zip(*parts, blocks.masks, strict=True)
    ]
    joined = torch.cat([output.transpose(1, 2) for output in outputs], dim=1)  # [1, R * T, H, D]
    return joined.view(rows, tokens, heads, -1), None


def _pieces(states: torch.Tensor, lengths: tuple[int, ...]) -> list[torch.Tensor]:
    """Cut [R, H, T, D] into [1, H, n, D] of the pieces; split's gradient is one copy, that of slices one for each."""
    flat = states.transpose(1, 2).flatten(0, 1)  # [R * T, H, D]
    return [piece.transpose(0, 1)[None] for piece in flat.split_with_sizes(list(lengths))]


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, packed_mask)
