"""What lies in the folder of a run, by name: written by training, read by whoever goes on from it or shows it."""

from __future__ import annotations

import re
from pathlib import Path

METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
STATE_FILE = "state.json"  # of a checkpoint
BEFORE = "before"  # in it lie the folders of all stages but the last, whose folder is the run's own
CHECKPOINT_NAME = re.compile(r"step-\d{8,}")


def checkpoint_name(next_step: int) -> str:
    """Return the folder name of the checkpoint from which `next_step` comes next."""
    return f"step-{next_step:08d}"


def step_of(path: Path) -> int:
    """Return the step that comes after the checkpoint at `path`."""
    return int(path.name.removeprefix("step-"))
