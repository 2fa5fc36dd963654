"""A training step's forward and backward pass, by carnac and by transformers' class, on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from carnac.core.batch import IGNORED, Batch
from carnac.model.generation.prompt import Prompt
from carnac.model.multimodal import MultimodalModel
from model.inputs import batch_of, random_prompt, their_inputs, their_labels

Step = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How many rows of how many tokens, each with so many pictures."""

    rows: int
    tokens: int
    pictures: int


def rows_of(shape: Rows, model: MultimodalModel) -> list[Prompt]:
    """Return random rows: a picture and the text after it have equal shares where the row has room for that."""
    picture = (model.tokens_per_image, model.image_size_px, model.language.config.vocab_size)
    return [random_prompt(shape.tokens, shape.pictures, picture, seed=row) for row in range(shape.rows)]


def our_step(model: MultimodalModel, rows: Sequence[Prompt]) -> Step:
    """Return carnac's step: the head at the labels alone."""
    batch = batch_of(rows, model.tokens_per_image)

    def step() -> float:
        total, _ = model.loss(batch, batch.label_tokens)
        return _backward(model, total)

    return step


def our_step_with_all_logits(model: MultimodalModel, rows: Sequence[Prompt]) -> Step:
    """Return carnac's step as it would be with logits at every position, as transformers' classes make them."""
    batch: Batch = batch_of(rows, model.tokens_per_image)

    def step() -> float:
        tensors = model.tensors_of(batch)
        logits = model(tensors).float().flatten(0, 1)
        total = torch.nn.functional.cross_entropy(
            logits, tensors.labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return _backward(model, total / batch.label_tokens)

    return step


def their_step(model: Any, rows: Sequence[Prompt]) -> Step:
    """Return transformers' step, with the loss of its class."""
    inputs, labels = their_inputs(rows, model), their_labels(rows, next(model.parameters()).device)
    model.train()

    def step() -> float:
        return _backward(model, model(**inputs, labels=labels, use_cache=False).loss)

    return step


def _backward(model: torch.nn.Module, loss: torch.Tensor) -> float:
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    model.zero_grad(set_to_none=True)
    return float(loss.detach())
