"""One training step each: carnac's own loop, a plain language model, transformers' Idefics2.

All of them run forward and backward, clip the gradient and move the weights with the same AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from carnac.core.batch import IGNORED, Batch
from carnac.model.multimodal import MultimodalModel
from carnac.train.loop import Losses, Run, train
from carnac.train.metrics import StepRecord
from carnac.train.optimizer import make_optimizer
from carnac.train.settings import MonitorSettings, OptimizerSettings, ScheduleSettings, TrainSettings

Step = Callable[[Batch], float]  # trains on a batch and returns its mean loss
RATE = 1e-5  # low: weights that hardly move keep the losses of all ways comparable
SETTINGS = TrainSettings(
    steps=1,
    threads=1,
    optimizer=OptimizerSettings(learning_rate=RATE),
    schedule=ScheduleSettings(final_ratio=1.0),
    monitor=MonitorSettings(grounding_every_steps=None),
)


class _Losses:
    """A watch that keeps the last loss."""

    last = 0.0

    def on_step(self, record: StepRecord, _batch: Batch, _per_token: Losses) -> None:
        self.last = record.loss

    def save(self, next_step: int) -> None:
        """Save nothing: a checkpoint is no part of a step."""


def our_step(model: MultimodalModel) -> Step:
    """Return carnac's: the loop itself, one step at a time, with all that it notes of a step."""
    watch = _Losses()
    run = Run(
        model=model,
        optimizer=make_optimizer(model, SETTINGS.optimizer),
        batches=lambda _: batch_now[0],
        settings=SETTINGS,
        watch=watch,
    )
    batch_now: list[Batch] = []

    def step(batch: Batch) -> float:
        batch_now[:] = [batch]
        train(replace(run))
        return watch.last

    return step


def plain_step(model: Any) -> Callable[[npt.NDArray[np.int64]], float]:
    """Return a language model's step on token ids [R, T]: transformers' class with its own loss."""
    move = _mover(model)

    def step(input_ids: npt.NDArray[np.int64]) -> float:
        ids = torch.from_numpy(input_ids)
        return move(model(input_ids=ids, labels=ids, use_cache=False).loss)

    return step


def their_step(model: Any, tokens_per_image: int, *, packed: bool) -> Step:
    """Return a step of transformers' Idefics2, on packed rows (by positions that begin again) or on padded ones."""
    move = _mover(model)

    def step(batch: Batch) -> float:
        inputs = _their_inputs(batch, packed=packed)
        assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == len(batch.pixels) * tokens_per_image
        return move(model(**inputs, use_cache=False).loss)

    return step


def _their_inputs(batch: Batch, *, packed: bool) -> dict[str, torch.Tensor]:
    """Return a batch as transformers' class takes it: labels are the tokens themselves, pictures stand by rows."""
    labels = np.full_like(batch.labels, IGNORED)
    labels[:, 1:] = batch.labels[:, :-1]
    inputs = {"input_ids": torch.from_numpy(batch.input_ids), "labels": torch.from_numpy(labels)}
    if packed:
        inputs["position_ids"] = torch.from_numpy(batch.positions)
    else:
        inputs["attention_mask"] = torch.from_numpy((batch.segment >= 0).astype(np.int64))
    if len(batch.pixels):
        rows = batch.image_slots[:, 0]
        pixels = np.zeros((len(batch.input_ids), np.bincount(rows).max(), *batch.pixels.shape[1:]), dtype=np.float32)
        for row in np.unique(rows):
            inside = batch.pixels[rows == row]
            pixels[row, : len(inside)] = inside  # those of zeros are no pictures there
        inputs["pixel_values"] = torch.from_numpy(pixels)
    return inputs


def _mover(model: nn.Module) -> Callable[[torch.Tensor], float]:
    optimizer = make_optimizer(model, SETTINGS.optimizer)
    parameters = list(model.parameters())

    def move(loss: torch.Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, SETTINGS.optimizer.clip_norm)
        optimizer.step()
        return float(loss.detach())

    return move
