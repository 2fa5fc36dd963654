"""The loop. It is handed everything it uses: a model, an optimizer, batches by number, and someone who watches.

Step n trains on batch n of the plan, with random numbers of (seed, n, micro-step): where the run was cut and resumed
leaves no trace.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from carnac.core.batch import Batch
from carnac.core.errors import RunError
from carnac.core.seeds import seed_of
from carnac.train.metrics import StepRecord
from carnac.train.rows import micro_batches
from carnac.train.schedule import learning_rate
from carnac.train.settings import TrainSettings

Losses = npt.NDArray[np.float32]  # [R, T], the cross entropy of each token


class Trainable(Protocol):
    """What the loop asks of a model, which is a `torch.nn.Module` besides."""

    def loss(self, batch: Batch, label_tokens: int, z_loss: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (total to descend, loss of each token [R, T]) of some rows of a batch with `label_tokens` labels."""

    def train(self, mode: bool = True) -> object:
        """Turn dropout on."""


class Watch(Protocol):
    """What the loop tells, in this order, after the weights have moved."""

    def on_step(self, record: StepRecord, batch: Batch, per_token: Losses) -> None:
        """Take note of a step; `batch.segment` joins `per_token` to the samples."""

    def save(self, next_step: int) -> None:
        """Write a checkpoint from which the run goes on at `next_step`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A step's mean loss over the labels, the gradient's length before clipping, and the loss of each token."""

    loss: float
    gradient_norm: float
    per_token: Losses


def train(
    model: Trainable,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Batch],
    settings: TrainSettings,
    watch: Watch,
    start: int = 0,
) -> None:
    """Run steps [start, settings.steps); raise RunError where a loss is not finite, before the weights are touched."""
    torch.set_num_threads(settings.threads)
    model.train()
    for step in range(start, settings.steps):
        began = time.perf_counter()
        batch = batches(step)
        waited = time.perf_counter() - began
        outcome = take_step(model, optimizer, batch, settings, step)
        record = StepRecord(
            step=step,
            loss=outcome.loss,
            learning_rate=learning_rate(step, settings),
            gradient_norm=outcome.gradient_norm,
            label_tokens=batch.label_tokens,
            tokens=int((batch.segment >= 0).sum()),
            images=len(batch.pixels),
            pieces=len(batch.provenance),
            seconds=time.perf_counter() - began,
            waiting_seconds=waited,
        )
        watch.on_step(record, batch, outcome.per_token)
        if (step + 1) % settings.checkpoints.every_steps == 0 or step + 1 == settings.steps:
            watch.save(step + 1)


def take_step(
    model: Trainable, optimizer: torch.optim.Optimizer, batch: Batch, settings: TrainSettings, step: int
) -> Outcome:
    """Move the weights by one batch."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    optimizer.zero_grad(set_to_none=True)
    parts = []
    for micro, rows in enumerate(micro_batches(batch, settings.micro_rows)):
        torch.manual_seed(seed_of(settings.seed, "step", step, micro) % 2**63)
        # Parts are divided by the labels of the whole batch: a mean of their means would weigh short parts more.
        total, per_token = model.loss(rows, batch.label_tokens, settings.optimizer.z_loss)
        torch.autograd.backward(total)
        parts.append(per_token.cpu().numpy())
    losses: Losses = np.concatenate(parts)
    loss = float(losses.sum(dtype=np.float64)) / max(batch.label_tokens, 1)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.optimizer.clip_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise RunError(describe_accident(step, loss, norm, batch, losses))
    optimizer.step()
    return Outcome(loss=loss, gradient_norm=norm, per_token=losses)


def describe_accident(step: int, loss: float, norm: float, batch: Batch, losses: Losses) -> str:
    """Return the sentence for a loss or gradient that is not finite: step, batch, and the pieces to look at.

    A NaN reaches the pieces of its row (0 x NaN in attention): the rows it is in are named, else the whole batch.
    """
    bad_rows = ~np.isfinite(losses).all(axis=1)
    segments = batch.segment[bad_rows] if bad_rows.any() else batch.segment
    pieces = [batch.provenance[number] for number in np.unique(segments[segments >= 0])]
    names = [f"{piece.shard} row {piece.row} tokens {piece.start}-{piece.stop}" for piece in pieces]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    rows = f"rows {np.flatnonzero(bad_rows).tolist()}" if bad_rows.any() else "all rows (no single loss is to blame)"
    return (
        f"step {step}: the loss is {loss}, the gradient's length {norm}; the weights of the step before are kept. "
        f"Batch {step}, {rows}: {'; '.join(names[:8])}{more}. "
        f"Try a lower learning rate or a longer warm-up from the last checkpoint, and look at these samples."
    )
