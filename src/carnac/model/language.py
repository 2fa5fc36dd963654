"""Any attention-only language model of transformers, proved to keep packed pieces apart before it is used.

Legend of shapes: R rows, T tokens of a row, D width of the model, K vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from carnac.core.errors import InputError
from carnac.model.added_tokens import add_tokens
from carnac.model.settings import TowerSettings
from carnac.model.towers import tower_config, trained_config
from carnac.model.trained import load_trained

# Worst seen between packed and separate in fp32: 1e-6 of the features' scale; a leak starts at 1e-2.
LEAK_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What the language model must know of the tokenizer.

    `size` counts all ids; `added_ids` are those that the language model was not trained with (`model.added_tokens`).
    """

    size: int
    pad_id: int
    bos_id: int | None = None
    eos_id: int | None = None
    added_ids: tuple[int, ...] = ()


def build_language(tower: TowerSettings, vocabulary: Vocabulary) -> Any:
    """Return a language model, random or trained as the settings say, with rows for the added tokens.

    Raises InputError where it cannot be built, is not the tokenizer's, or where pieces of a row would see each other.
    """
    config = language_config(tower, vocabulary)
    model = load_trained("language", tower, config) if tower.type is None else language_from_config(config)
    name_special_ids(model, vocabulary)
    prove_packing(model)
    add_tokens(model, vocabulary.added_ids)
    return model


def language_config(tower: TowerSettings, vocabulary: Vocabulary) -> Any:
    """Return the configuration of the language model without added tokens; raise InputError with every mistake."""
    if tower.type is not None:
        filled = {"vocab_size": vocabulary.size} | _special_ids(vocabulary)
        return tower_config("language", tower, filled)
    config = trained_config("language", tower)
    strangers = sorted(set(range(config.vocab_size, vocabulary.size)) - set(vocabulary.added_ids))
    if strangers:
        raise InputError(
            f"model.language: {tower.folder or tower.hub} knows {config.vocab_size} tokens, the tokenizer has "
            f"{vocabulary.size}: the tokenizer of another model. Take the one of its own folder."
        )
    return config


def name_special_ids(model: Any, vocabulary: Vocabulary) -> None:
    """Write the tokenizer's special ids into the model's configuration, as an export shows them."""
    for name, token in _special_ids(vocabulary).items():
        setattr(model.config, name, token)


def _special_ids(vocabulary: Vocabulary) -> dict[str, int | None]:
    ids = (vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id)
    return dict(zip(("pad_token_id", "bos_token_id", "eos_token_id"), ids, strict=True))


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
    if model.device.type == "meta":
        return  # a skeleton: nothing to compute with
    if getattr(model, "_is_stateful", False) or any(isinstance(module, nn.Conv1d) for module in model.modules()):
        raise InputError(f"model.language: {kind} mixes neighbouring tokens by convolution or recurrence: pieces leak")
    half = 6
    ids = torch.arange(1, 2 * half + 1, device=model.device) % model.config.vocab_size
    other = torch.cat([(ids[:half] * 7 + 3) % model.config.vocab_size, ids[half:]])
    positions = torch.arange(half, device=model.device).repeat(2).expand(2, -1)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed = _logits(model, torch.stack([ids, other]), positions)[:, half:]
            alone = _logits(model, ids[None, half:], positions[:1, half:])
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"model.language: this {kind} cannot run: {' '.join(str(error).split())[:300]}") from error
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
