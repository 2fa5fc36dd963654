"""`metrics.jsonl`: one line per step, no step twice, whatever killed the run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from carnac.engine.storage import temporary_path


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one step was.

    `step` counts from 0 and is the number of its batch in the plan. `loss` is the mean cross entropy over
    `label_tokens`; `gradient_norm` the length before clipping. `tokens` leaves padding out, `pieces` counts the windows
    of samples. `seconds` is the whole step, `waiting_seconds` the part spent on waiting for its batch.
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


class MetricsFile:
    """Appends records to a file; a line is whole or, after a kill, missing its end."""

    def __init__(self, path: Path) -> None:
        self._handle = path.open("a", encoding="utf-8")

    def append(self, record: StepRecord) -> None:
        """Write `record` and hand it to the system: it survives the death of this process."""
        self._handle.write(json.dumps(asdict(record)) + "\n")
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
