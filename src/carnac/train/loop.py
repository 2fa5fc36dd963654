"""The loop. It is handed everything it uses: a model, an optimizer, batches by number, and someone who watches.

Step n trains on batch n of the plan, with random numbers of (seed, n, micro-step): where the run was cut and resumed
leaves no trace.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from carnac.core.batch import Batch
from carnac.core.errors import RunError
from carnac.core.seeds import seed_of
from carnac.train.compute import arithmetic
from carnac.train.grounding import compare, exchange_images
from carnac.train.metrics import GroundingRecord, StepRecord
from carnac.train.optimizer import set_rates
from carnac.train.rows import micro_batches
from carnac.train.schedule import learning_rate
from carnac.train.settings import TrainSettings
from carnac.train.sources import records_by_source
from carnac.train.stop import Request

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


class Evaluation(Protocol):
    """What is measured of the model now and then: after each `every_steps` steps, and after the last one."""

    every_steps: int

    def __call__(self, model: Trainable, step: int) -> Mapping[str, float]:
        """Return numbers by name of the model as `step` left it; no weight moves, dropout is on again afterwards."""


class Listener(Protocol):
    """Where requests to save or to stop come in (`train.stop`)."""

    def pending(self) -> Request | None:
        """Return what is asked for now."""

    def settle(self) -> None:
        """Take note that it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the loop is handed.

    `batches` maps a step to its batch. `flops` counts those of a batch, forward and backward, in `peak_flops` per
    second that the device can do (None: not known).
    """

    model: Trainable
    optimizer: torch.optim.Optimizer
    batches: Callable[[int], Batch]
    settings: TrainSettings
    watch: Watch
    evaluations: Sequence[Evaluation] = ()
    listener: Listener | None = None
    flops: Callable[[Batch], float] | None = None
    peak_flops: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A step's mean loss over the labels, what the z-loss adds, the gradient's length before clipping, all losses."""

    loss: float
    gradient_norm: float
    per_token: Losses
    z_loss: float = 0.0
    grounding: GroundingRecord | None = None


def train(run: Run, start: int = 0) -> int | None:
    """Run steps [start, settings.steps); return the step before which a stop was asked for, None where none was.

    Raises RunError where a loss is not finite, before the weights are touched.
    """
    settings = run.settings
    torch.set_num_threads(settings.threads)
    run.model.train()
    for step in range(start, settings.steps):
        began = time.perf_counter()
        batch = run.batches(step)
        waited = time.perf_counter() - began
        outcome = take_step(run.model, run.optimizer, batch, settings, step)
        seconds = time.perf_counter() - began
        run.watch.on_step(_record(run, step, batch, outcome, (seconds, waited)), batch, outcome.per_token)
        request = run.listener.pending() if run.listener else None
        if request or _is_due(settings.checkpoints.every_steps, step, settings.steps):
            run.watch.save(step + 1)
        if request and run.listener:
            run.listener.settle()
        if request == "stop":
            return step + 1
    return None


def take_step(
    model: Trainable, optimizer: torch.optim.Optimizer, batch: Batch, settings: TrainSettings, step: int
) -> Outcome:
    """Move the weights by one batch; without a label in it they, and the optimizer's memory, stay as they are."""
    set_rates(optimizer, step, settings)
    optimizer.zero_grad(set_to_none=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    total, losses = _losses(model, batch, settings, step, parameters[0].device)
    loss = float(losses.sum(dtype=np.float64)) / max(batch.label_tokens, 1)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.optimizer.clip_norm))
    if not (math.isfinite(total) and math.isfinite(loss) and math.isfinite(norm)):
        raise RunError(describe_accident(step, loss, norm, batch, losses))
    every, grounding = settings.monitor.grounding_every_steps, None
    exchanged = exchange_images(batch, settings.seed, step) if every and step % every == 0 else None
    if exchanged is not None:  # once more with the images of other samples: the same weights and random numbers
        with torch.no_grad():
            _, other = _losses(model, exchanged, settings, step, parameters[0].device)
        grounding = compare(batch, losses, other)
    if batch.label_tokens:
        optimizer.step()
    penalty = total - loss if settings.optimizer.z_loss else 0.0
    return Outcome(loss=loss, gradient_norm=norm, per_token=losses, z_loss=penalty, grounding=grounding)


def describe_accident(step: int, loss: float, norm: float, batch: Batch, losses: Losses) -> str:
    """Return the sentence for a loss or gradient that is not finite: step, batch, and the pieces to look at.

    A NaN may reach the pieces of its row (0 x NaN in masked attention): its rows are named, else the whole batch.
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


def _losses(
    model: Trainable, batch: Batch, settings: TrainSettings, step: int, device: torch.device
) -> tuple[float, Losses]:
    """Return (what is descended, the loss of each token) of a batch, part by part; gradients too where they are on."""
    total, parts = 0.0, []
    for micro, rows in enumerate(micro_batches(batch, settings.micro_rows)):
        torch.manual_seed(seed_of(settings.seed, "step", step, micro) % 2**63)
        # Parts are divided by the labels of the whole batch: a mean of their means would weigh short parts more.
        with arithmetic(settings.compute, device):
            part, per_token = model.loss(rows, batch.label_tokens, settings.optimizer.z_loss)
        if torch.is_grad_enabled():
            torch.autograd.backward(part)
        total += float(part.detach())
        parts.append(per_token.cpu().numpy())
    return total, np.concatenate(parts)


def _record(run: Run, step: int, batch: Batch, outcome: Outcome, times: tuple[float, float]) -> StepRecord:
    """Return what a step was; what is evaluated after it is evaluated here."""
    measured: dict[str, float] = {}
    for evaluation in run.evaluations:
        if _is_due(evaluation.every_steps, step, run.settings.steps):
            measured |= evaluation(run.model, step)
    seconds, waited = times
    flops = run.flops(batch) if run.flops else 0.0
    return StepRecord(
        step=step,
        loss=outcome.loss,
        learning_rate=learning_rate(step, run.settings),
        gradient_norm=outcome.gradient_norm,
        label_tokens=batch.label_tokens,
        tokens=int((batch.segment >= 0).sum()),
        images=len(batch.pixels),
        pieces=len(batch.provenance),
        seconds=seconds,
        waiting_seconds=waited,
        z_loss=outcome.z_loss,
        stand_ins=len(batch.stand_ins),
        rows=len(batch.input_ids),
        sources=records_by_source(batch, outcome.per_token),
        flops=flops,
        mfu=flops / seconds / run.peak_flops if flops and run.peak_flops else None,
        grounding=outcome.grounding,
        evaluation=measured or None,
    )


def _is_due(every: int, step: int, steps: int) -> bool:
    """Say whether something done every so many steps is due after `step`; after the last one all is."""
    return (step + 1) % every == 0 or step + 1 == steps
