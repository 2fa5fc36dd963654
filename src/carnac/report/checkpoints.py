"""The checkpoints at hand in a run's folder, as far as a look at their names and sizes tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carnac.train.run_folder import CHECKPOINT_NAME, CHECKPOINTS, STATE_FILE, step_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint: the step that comes next, its size, its `state.json`.

    `problem` says what is wrong at first sight; a resume checks every digest, which takes as long as reading it all.
    """

    step: int
    name: str
    num_bytes: int
    state: Mapping[str, Any]
    problem: str


def checkpoints_in(run: Path) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of a run, oldest first."""
    try:
        named = [path for path in (run / CHECKPOINTS).iterdir() if CHECKPOINT_NAME.fullmatch(path.name)]
    except OSError:
        return ()
    found = (_checkpoint(step_of(path), path) for path in sorted(named, key=step_of))
    return tuple(checkpoint for checkpoint in found if checkpoint is not None)


def _checkpoint(step: int, path: Path) -> Checkpoint | None:
    """Return a checkpoint; None where the run that works has just removed it."""
    try:
        sizes = {file.name: file.stat().st_size for file in path.iterdir()}
        state = _state(path / STATE_FILE) if STATE_FILE in sizes else {}
    except OSError:
        return None
    return Checkpoint(
        step=step, name=path.name, num_bytes=sum(sizes.values()), state=state or {}, problem=_problem(sizes, state)
    )


def _state(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _problem(sizes: Mapping[str, int], state: Mapping[str, Any] | None) -> str:
    if state is None:
        return f"{STATE_FILE} is damaged"
    digests = state.get("digests")
    wanted = [STATE_FILE, *(digests if isinstance(digests, dict) else ())]
    return next((f"{name} is missing" for name in wanted if name not in sizes), "")
