"""A training run wired as a job would: also a program, `train_run.py FOLDER [DIE_AT_STEP]`, for tests that kill it.

With DIE_AT_STEP the process gets SIGKILL in the middle of that checkpoint: the model is written, nothing is committed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from carnac.core.batch import Batch
from carnac.train.checkpoint import Parts, RunState, latest, sweep, write_checkpoint
from carnac.train.loop import Losses, train
from carnac.train.loop import Run as Given
from carnac.train.metrics import MetricsFile, StepRecord, truncate_metrics
from carnac.train.optimizer import make_optimizer, rates_at
from carnac.train.resume import resume
from carnac.train.settings import CheckpointSettings, OptimizerSettings, ScheduleSettings, TrainSettings

SETTINGS = TrainSettings(
    steps=9,
    seed=3,
    threads=1,
    optimizer=OptimizerSettings(learning_rate=3e-3, z_loss=1e-4),
    schedule=ScheduleSettings(warmup_steps=2),
    checkpoints=CheckpointSettings(every_steps=3),
)
KEY = "0123456789abcdef"


def plan(step: int) -> Batch:
    """Return batch `step`: pieces of all sizes, with and without images."""
    from model_builder import make_batch

    return make_batch([[(20 + step, 1), (9, 0)], [(12, 1), (21, 2)], [(30, 0)]], seed=step)


@dataclass(kw_only=True)
class Run:
    """A watch that writes metrics and checkpoints."""

    folder: Path
    parts: Parts
    settings: TrainSettings
    records: list[StepRecord] = field(default_factory=list)

    def on_step(self, record: StepRecord, batch: Batch, per_token: Losses) -> None:
        assert per_token.shape == batch.labels.shape
        self.records.append(record)
        with MetricsFile(self.folder / "metrics.jsonl") as metrics:
            metrics.append(record)

    def save(self, next_step: int) -> None:
        write_checkpoint(self.folder, self.parts, state_at(next_step), keep_last=self.settings.checkpoints.keep_last)


def state_at(step: int) -> RunState:
    """Return what the run is before `step`."""
    return RunState(next_step=step, key=KEY)


def make_parts(settings: TrainSettings = SETTINGS) -> Parts:
    from model_builder import make_model

    from carnac.model.weights import load_weights, save_model

    model = make_model(seed=settings.seed)
    return Parts(
        model=model,
        optimizer=make_optimizer(model, settings.optimizer),
        write_model=partial(save_model, model),
        read_model=partial(load_weights, model),
    )


def run(
    folder: Path, settings: TrainSettings = SETTINGS, batches: Callable[[int], Batch] = plan, die_at: int | None = None
) -> Run:
    """Start or go on."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, start = make_parts(settings), 0
    sweep(folder)
    newest = latest(folder)
    if newest is not None:
        start = resume(newest, parts, state_at, partial(rates_at, parts.optimizer, settings=settings)).next_step
    truncate_metrics(folder / "metrics.jsonl", start)
    watch = Run(folder=folder, parts=_deadly(parts, folder, die_at), settings=settings)
    model: Any = parts.model
    train(Given(model=model, optimizer=parts.optimizer, batches=batches, settings=settings, watch=watch), start)
    return watch


def _deadly(parts: Parts, folder: Path, die_at: int | None) -> Parts:
    def write(path: Path) -> None:
        parts.write_model(path)
        if path.name.startswith(f".step-{die_at or 0:08d}"):
            os.kill(os.getpid(), signal.SIGKILL)

    return Parts(model=parts.model, optimizer=parts.optimizer, write_model=write, read_model=parts.read_model)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
    run(Path(sys.argv[1]), die_at=int(sys.argv[2]) if len(sys.argv) > 2 else None)
