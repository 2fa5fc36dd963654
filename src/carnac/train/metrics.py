"""`metrics.jsonl`: one line per step, no step twice, whatever killed the run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from carnac.engine.storage import temporary_path


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """What one source of the mixture gave a step.

    `loss` is its own mean cross entropy, None without labels.
    """

    loss: float | None
    label_tokens: int
    tokens: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingRecord:
    """Mean loss of the `label_tokens` labels after an image, with the `right` images and with those of other samples.

    A model that looks at its images does worse with others.
    """

    right: float
    other: float
    label_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one step was.

    `step` counts from 0 and is the number of its batch in the plan. `loss` is the mean cross entropy over
    `label_tokens`, `z_loss` what the z-loss adds to it; `gradient_norm` the length before clipping. `tokens` leaves
    padding out, `pieces` counts the windows of samples, `stand_ins` those with a picture that did not decode. `seconds`
    is the whole step without its evaluation, `waiting_seconds` the part spent on waiting for its batch. `flops` are
    those of the model (0 where nobody counts them), `mfu` their share of what the device can do, None where its peak is
    not known. `grounding` and `evaluation` (the model after the step, by name) stand at the steps that measure them.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    label_tokens: int
    tokens: int
    images: int
    pieces: int
    seconds: float
    waiting_seconds: float
    z_loss: float = 0.0
    stand_ins: int = 0
    rows: int = 0
    sources: Mapping[str, SourceRecord] = field(default_factory=dict)
    flops: float = 0.0
    mfu: float | None = None
    grounding: GroundingRecord | None = None
    evaluation: Mapping[str, float] | None = None

    def to_json(self) -> str:
        """Return one line of JSON; what this step did not measure is left out."""
        fields = asdict(self)
        for name in ("grounding", "evaluation"):
            if fields[name] is None:
                del fields[name]
        return json.dumps(fields)


class MetricsFile:
    """Appends records to a file; a line is whole or, after a kill, missing its end."""

    def __init__(self, path: Path) -> None:
        self._handle = path.open("a", encoding="utf-8")

    def append(self, record: StepRecord) -> None:
        """Write `record` and hand it to the system: it survives the death of this process."""
        self._handle.write(record.to_json() + "\n")
        self._handle.flush()

    def sync(self) -> None:
        """Make what was appended survive a loss of power too."""
        os.fsync(self._handle.fileno())

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file in order; lines that are not whole are left out, a missing file has none."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def truncate_metrics(path: Path, next_step: int) -> None:
    """Keep the rows before `next_step`, which a resumed run writes next; replaces the file by one rename."""
    rows = [row for row in read_metrics(path) if row["step"] < next_step]
    partial = temporary_path(path)
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    partial.replace(path)
