"""What a training run leaves while it goes on: a line of metrics per step, checkpoints, the bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from carnac.core.batch import Batch
from carnac.core.errors import RunError
from carnac.engine.progress import Task
from carnac.engine.state import Pulse
from carnac.train.metrics import MetricsFile, StepRecord
from carnac.train.progress import Speed
from carnac.train.settings import CheckpointSettings

if TYPE_CHECKING:
    from carnac.train.checkpoint import Parts, RunState
    from carnac.train.loop import Losses

SHOWN = 5  # samples of a budget that is spent


class Recorder(Protocol):
    """Takes a line per step."""

    def append(self, record: StepRecord) -> None:
        """Write a step."""


@dataclass(slots=True)
class BadSamples:
    """Counts pieces with a picture that does not decode: a few are the web, thousands are a broken disk."""

    most: int
    found: int

    def add(self, batch: Batch, step: int) -> None:
        """Count those of a batch; raise RunError when there are more than a run may have."""
        self.found += len(batch.stand_ins)
        if self.found <= self.most or not batch.stand_ins:
            return
        pieces = [batch.provenance[number] for number in batch.stand_ins]
        names = ", ".join(f"{piece.source}: {piece.shard} row {piece.row}" for piece in pieces[:SHOWN])
        raise RunError(
            f"step {step}: {self.found} pieces have had a picture that does not decode, more than "
            f"mix.max_bad_samples = {self.most}; the last: {names}. Look at them; with a higher number the same "
            "command goes on from the last checkpoint."
        )


@dataclass(slots=True, kw_only=True)
class Watch:
    """Writes metrics and checkpoints, and moves the bar."""

    metrics: MetricsFile
    recorders: tuple[Recorder, ...]
    parts: Parts
    task: Task
    pulse: Pulse
    folder: Path
    settings: CheckpointSettings
    state_at: Callable[[int], RunState]
    bad_samples: BadSamples
    speed: Speed = field(default_factory=Speed)

    def on_step(self, record: StepRecord, batch: Batch, per_token: Losses) -> None:  # noqa: ARG002 -- the loop's protocol
        """Write what the step was."""
        for recorder in (self.metrics, *self.recorders):
            recorder.append(record)
        self.pulse.beat()
        self.task.advance(note=self.speed.note(record))
        self.bad_samples.add(batch, record.step)

    def save(self, next_step: int) -> None:
        """Commit the checkpoint before `next_step`."""
        from carnac.train.checkpoint import write_checkpoint

        self.metrics.sync()  # before the checkpoint that goes on from them
        keep_last, keep_every = self.settings.keep_last, self.settings.keep_every
        state = self.state_at(next_step)
        write_checkpoint(self.folder, self.parts, state, keep_last=keep_last, keep_every=keep_every)
