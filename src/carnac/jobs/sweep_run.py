"""One run of a sweep, as a unit of work: a row for each step, and what the model is worth at its end.

A run that breaks is a result. Where its loss is not finite it ends there, with what it was until then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from carnac.core.errors import RunError
from carnac.engine.manifest import Manifest
from carnac.engine.part import Part
from carnac.engine.unit import Stage, Unit
from carnac.jobs.train_model import Given

# What is measured on held-out samples: of all their labels, of those after an image, of those before the first one; and
# in packed rows of the plan, of labels that read no image.
MEASURED = (
    "heldout_loss", "heldout_right_images", "heldout_shuffled_images", "heldout_none_images",
    "earlier_tokens", "earlier_loss", "earlier_loss_other", "earlier_change", "earlier_change_most",
    "packed_tokens", "packed_change",
)  # fmt: skip
# The row of a step whose loss is not finite has neither loss nor gradient, and is the last.
RUNS = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("gradient_norm", pa.float64()),
        ("label_tokens", pa.int64()),
        *((name, pa.float64()) for name in MEASURED),
    ]
)
PRELOAD = ("torch", "transformers", "carnac.model.build", "carnac.model.flops", "carnac.train.checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTask:
    """What a worker needs for one run. `given.heldout` is there."""

    given: Given


def train_once(unit: Unit, part: Part) -> None:
    """Train a model from the beginning, write what each step was, and keep no weights."""
    from carnac.jobs.sweep_probe import EarlierTokens, PackedTokens
    from carnac.jobs.train_evaluation import HeldOutLosses
    from carnac.jobs.train_model import build
    from carnac.mix.batches import BatchReader
    from carnac.sequence.tokenizer import load_tokenizer
    from carnac.train.loop import take_step

    task: SweepTask = unit.task
    given = task.given
    stage, settings, plan = given.stage, given.stage.training, given.plan
    assert given.heldout is not None
    words = load_tokenizer(plan.tokenizer_file)
    built = build(given, words)
    # A worker has no children: it makes its batches itself.
    reader = BatchReader(plan.rows.path, plan.shards, words, stage.pictures, stage.mix, first_row=stage.first_row)
    looks = (
        HeldOutLosses(given.heldout, words, given.inputs, settings),
        EarlierTokens(given.heldout, words, given.inputs, settings),
        PackedTokens(reader, settings),
    )
    built.model.train()
    for step in range(settings.steps):
        batch = reader.batch(step)
        try:
            outcome = take_step(built.model, built.parts.optimizer, batch, settings, step)
        except RunError:  # the loop's word for a loss or a gradient that is not finite
            part.write({"step": step, "label_tokens": batch.label_tokens})
            part.count("not_finite")
            return
        row: dict[str, float] = {"step": step, "label_tokens": batch.label_tokens}
        row |= {"loss": outcome.loss, "gradient_norm": outcome.gradient_norm}
        every = settings.monitor.evaluation_every_steps or settings.steps
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            for look in looks:
                row |= finite(look(built.model, step))
        part.write(row)
        part.count("tokens", int((batch.segment >= 0).sum()))


def finite(measured: Mapping[str, float]) -> dict[str, float]:
    """Return what is a number of what was measured and has a column."""
    return {name: value for name, value in measured.items() if name in MEASURED and math.isfinite(value)}


def affecting(given: Given) -> dict[str, object]:
    """Return the settings that the rows of a run depend on."""
    monitor = given.stage.training.monitor
    looks = monitor.model_dump(mode="json", include={"evaluation_every_steps", "evaluation_samples"})
    return {**given.affecting, "looks": looks}


def digests(given: Given, heldout: Manifest) -> list[str]:
    """Return the digests of what a run reads beside its settings."""
    return [given.plan.digest, *(manifest.digest for manifest in given.shards.values()), heldout.digest]


STAGE = Stage(name="sweep", version=1, schema=RUNS, work=train_once)
