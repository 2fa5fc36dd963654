"""Going on from a checkpoint, loudly: what it says is recomputed and compared, and a difference stops the run.

IDEFICS lost two of its eleven rollbacks to a resume that restored nothing and said nothing (M4's published chronicles).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from carnac.core.errors import RunError
from carnac.train.checkpoint import Parts, RunState, computed_by, norms, read_state, restore_optimizer

# Norms are float64 sums: another number of threads moves them by 1e-15, a lost tensor by far more.
TOLERANCE = 1e-9
SHOWN = 8  # settings of a list of differences
NAMES = {"digest": "plan", "next_row": "next row", "next_pieces": "next pieces", "random": "seed of the next step"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The step that comes next, and one printable line per thing compared."""

    next_step: int
    lines: tuple[str, ...]


def resume(
    path: Path,
    parts: Parts,
    state_at: Callable[[int], RunState],
    rates_at: Callable[[int], Mapping[str, float]],
) -> Resumed:
    """Restore model and optimizer from the checkpoint at `path`, and compare it with what this run is.

    `state_at` maps a step to this run's state before it, `rates_at` to the learning rates of its parts. Raises
    InputError where a file is missing or damaged or the weights are another model's, RunError where the checkpoint
    belongs to another run (nothing has been touched then) or where what was restored is not what was saved.
    """
    saved = read_state(path)
    lines = [f"resumed at step {saved['step']} from {path.name}"]
    lines += _compare_runs(path, saved, state_at(saved["step"]))
    parts.read_model(path)
    restore_optimizer(parts, path)
    numbers = [
        ("learning rate of", saved["rates"], rates_at(saved["step"] - 1)),
        ("norm of", saved["norms"], norms(parts)),
    ]
    for what, before, now in numbers:
        lines += [
            _compare_numbers(path, f"{what} {name}", before.get(name), now.get(name)) for name in {**before, **now}
        ]
    lines.append(_compare_machines(saved["computed_by"], computed_by(parts)))
    return Resumed(next_step=saved["step"], lines=tuple(lines))


def differences(saved: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return one line `training.optimizer.learning_rate: 0.001 -> 0.002` per setting that is not as it was saved."""
    before, now = dict(_flat(saved)), dict(_flat(found))
    return [
        f"{name}: {_shown(before, name)} -> {_shown(now, name)}"
        for name in {**before, **now}
        if _shown(before, name) != _shown(now, name)
    ]


def _compare_runs(path: Path, saved: Mapping[str, Any], run: RunState) -> Iterator[str]:
    """Yield a line per thing that is as saved; raise RunError at the first that is not."""
    changed = differences(saved["settings"], json.loads(json.dumps(dict(run.settings))))
    if changed:
        more = f"\n  and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        listed = "\n  ".join(changed[:SHOWN])
        raise RunError(f"{path}: made with other settings:\n  {listed}{more}\n{_way_out(path)}")
    if saved["key"] != run.key:
        raise RunError(
            f"{path}: made by another run (key {saved['key'][:16]}, this one is {run.key[:16]}): "
            f"{'its inputs' if run.settings else 'its settings or inputs'} differ.{_plan_differs(saved, run)} "
            f"{_way_out(path)}"
        )
    yield f"  {len(dict(_flat(saved['settings'])))} settings, as saved"
    yield f"  key {run.key[:16]}, as saved"
    before = {**(saved["plan"] or {}), "random": saved["random"]}
    now: dict[str, str | int | None] = {**(asdict(run.plan) if run.plan else {}), "random": run.random}
    for field in {**before, **now}:
        old, new, name = before.get(field), now.get(field), NAMES[field]
        if old != new:
            raise RunError(f"{path}: {name} was {_short(old)} when saved and is {_short(new)} now. {_way_out(path)}")
        if new is not None:
            yield f"  {name} {_short(new) or '(none: the run is at its end)'}, as saved"


def _compare_numbers(path: Path, name: str, saved: float | None, found: float | None) -> str:
    if saved is None or found is None:
        there, missing = ("now", "when saved") if saved is None else ("when saved", "now")
        raise RunError(f"{path}: there is a {name} {there} and none {missing}: nothing was resumed")
    if not math.isclose(saved, found, rel_tol=TOLERANCE):
        raise RunError(f"{path}: {name} was {saved:.9g} when saved and is {found:.9g} now: nothing was resumed")
    return f"  {name} {found:.9g}, as saved"


def _compare_machines(saved: str, found: str) -> str:
    """Return a line: the one difference that is no reason to stop, since a run may move to another machine."""
    if saved == found:
        return f"  {found}, as saved"
    return f"  {found}; saved by {saved}: from here on losses may differ from that run's in their last digits"


def _plan_differs(saved: Mapping[str, Any], run: RunState) -> str:
    before = (saved["plan"] or {}).get("digest")
    if run.plan is None or before is None or before == run.plan.digest:
        return ""
    return f" The plan is another one ({_short(before)} -> {_short(run.plan.digest)}): shards or tokenizer changed."


def _way_out(path: Path) -> str:
    return f"Undo the change, write this run to another folder, or remove {path.parents[1]}"


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted place, value) of everything in nested tables and lists that is neither."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        yield place, value
        return
    for name, each in items:
        yield from _flat(each, f"{place}.{name}" if place else str(name))


def _shown(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "(not there)"


def _short(value: object) -> str:
    return value[:16] if isinstance(value, str) else str(value)
