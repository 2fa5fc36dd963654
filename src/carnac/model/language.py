"""Any attention-only language model of transformers, proved to keep packed pieces apart before it is used.

Legend of shapes: R rows, T tokens of a row, D width of the model, K vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from carnac.core.errors import InputError
from carnac.model.settings import TowerSettings
from carnac.model.towers import tower_config

# Worst seen between packed and separate in fp32: 1e-6 of the features' scale; a leak starts at 1e-2.
LEAK_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What the language model must know of the tokenizer."""

    size: int
    pad_id: int
    bos_id: int | None = None
    eos_id: int | None = None


def build_language(tower: TowerSettings, vocabulary: Vocabulary) -> Any:
    """Return a language model with random weights; raise InputError where pieces of a row would see each other."""
    filled = {
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad_id,
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
    }
    model = language_from_config(tower_config("language", tower, filled))
    prove_packing(model)
    return model


def language_from_config(config: Any) -> Any:
    """Return a causal language model with random weights for a whole configuration."""
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call] # transformers is untyped
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"model.language: transformers cannot build this {config.model_type}: {error}") from error


def prove_packing(model: Any) -> None:
    """Raise InputError unless a piece computes the same beside another piece as alone.

    One forward of two rows of twelve tokens: cheaper than a list of families, and right for the next one too.
    """
    kind = model.config.model_type
    if getattr(model, "_is_stateful", False) or any(isinstance(module, nn.Conv1d) for module in model.modules()):
        raise InputError(f"model.language: {kind} mixes neighbouring tokens by convolution or recurrence: pieces leak")
    half = 6
    ids = torch.arange(1, 2 * half + 1, device=model.device) % model.config.vocab_size
    other = torch.cat([(ids[:half] * 7 + 3) % model.config.vocab_size, ids[half:]])
    positions = torch.arange(half, device=model.device).repeat(2).expand(2, -1)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        packed = _logits(model, torch.stack([ids, other]), positions)[:, half:]
        alone = _logits(model, ids[None, half:], positions[:1, half:])
    model.train(was_training)
    difference = (packed - alone).abs().max() / alone.abs().max()
    if not difference <= LEAK_TOLERANCE:
        raise InputError(
            f"model.language: {kind} cannot be packed: a piece beside another differs by {difference:.1e} of its scale "
            f"from the piece alone (at most {LEAK_TOLERANCE:.0e}); choose a family with attention and rotary positions"
        )


def _logits(model: Any, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    embedded = model.get_input_embeddings()(ids)
    outputs = model(inputs_embeds=embedded, position_ids=positions, attention_mask=None, use_cache=False)
    logits: torch.Tensor = outputs.logits
    return logits
