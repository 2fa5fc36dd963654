"""Going on from a checkpoint, loudly: what it says is recomputed and compared, and a difference stops the run.

IDEFICS lost two of its eleven rollbacks to a resume that restored nothing and said nothing (M4's published chronicles).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from carnac.core.errors import RunError
from carnac.train.checkpoint import Parts, norms, read_state, restore_optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The step that comes next, and one printable line per thing compared."""

    next_step: int
    lines: tuple[str, ...]


def resume(path: Path, parts: Parts, *, key: str, learning_rate: Callable[[int], float]) -> Resumed:
    """Restore model and optimizer from the checkpoint at `path`.

    Raise InputError where a file is missing or damaged, RunError where the checkpoint belongs to another run or where
    what was restored is not what was saved.
    """
    state = read_state(path)
    if state["key"] != key:
        raise RunError(
            f"{path}: made by another run (key {state['key'][:16]}, this one is {key[:16]}): its settings or inputs "
            f"differ. Undo the change, write this run to another folder, or remove {path.parents[1]}"
        )
    parts.read_model(path)
    restore_optimizer(parts, path)
    pairs = [("learning rate", state["learning_rate"], learning_rate(state["step"] - 1))]
    pairs += [(f"norm of {name}", state["norms"][name], value) for name, value in norms(parts).items()]
    lines = [f"resumed at step {state['step']} from {path.name}"]
    for name, saved, found in pairs:
        # Norms are float64 sums: another number of threads moves them by 1e-15, a lost tensor by far more.
        if not math.isclose(saved, found, rel_tol=1e-9):
            raise RunError(f"{path}: {name} was {saved:.9g} when saved and is {found:.9g} now: nothing was resumed")
        lines.append(f"  {name} {found:.9g}, as saved")
    return Resumed(next_step=state["step"], lines=tuple(lines))
