"""Blocks before the layers of a language model that somebody else wrote, and what they read, as a keyword of the call.

transformers hands keywords that it does not know down to its decoder layers. A hook in front of each layer takes the
images off and, where a block stands, runs it: nothing is kept on a module, so calls cannot meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from carnac.core.errors import InputError
from carnac.model.cross_attention.blocks import GatedCrossAttention, Groups, KeysValues

KEYWORD = "images_read"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImagesRead:
    """What the blocks read in one forward pass: latents [N, K, W], or the keys and values that each block made of them.

    `recompute`: activations of the blocks are not kept for the backward pass.
    """

    groups: Groups
    memory: torch.Tensor | None = None
    keys_values: Sequence[KeysValues] | None = None
    recompute: bool = False


class _Entrance:
    """A hook in front of a layer. An object and no closure: a copy of the model has the copy's block."""

    def __init__(self, block: GatedCrossAttention | None, number: int) -> None:
        self.block, self.number = block, number

    def __call__(
        self, _layer: nn.Module, args: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        told = dict(keywords)
        read: ImagesRead | None = told.pop(KEYWORD, None)
        if self.block is None or read is None:
            return args, told
        if args:
            return (enter(self.block, self.number, args[0], read), *args[1:]), told
        told["hidden_states"] = enter(self.block, self.number, told["hidden_states"], read)
        return args, told


def enter(block: GatedCrossAttention, number: int, hidden: torch.Tensor, read: ImagesRead) -> torch.Tensor:
    """Return hidden states [R, T, D] behind block `number`."""

    def run(states: torch.Tensor, memory: torch.Tensor | None) -> torch.Tensor:
        made = None if memory is not None else (read.keys_values or ())[number]
        passed: torch.Tensor = block(states, read.groups, memory, made)
        return passed

    if read.recompute and torch.is_grad_enabled():
        kept: torch.Tensor = checkpoint(run, hidden, read.memory, use_reentrant=False)
        return kept
    return run(hidden, read.memory)


def decoder_layers(language: Any) -> nn.ModuleList:
    """Return the layers of a causal language model. Raises InputError where they are not to be found."""
    count = getattr(language.config, "num_hidden_layers", None)
    for module in language.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(
        f"model.language: {language.config.model_type} keeps its layers where no cross-attention can be put between"
    )


def insert_blocks(language: Any, blocks: Sequence[GatedCrossAttention], every: int) -> None:
    """Let `blocks` run before layers 0, `every`, 2 x `every` ... of a language model."""
    for number, layer in enumerate(decoder_layers(language)):
        block = blocks[number // every] if number % every == 0 else None
        layer.register_forward_pre_hook(_Entrance(block, number // every), with_kwargs=True)


def count_blocks(language: Any, every: int) -> int:
    """Return how many blocks a language model takes, one before every `every`-th layer."""
    return -(-len(decoder_layers(language)) // every)
