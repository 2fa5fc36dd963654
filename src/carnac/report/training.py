"""The training runs in a folder: their stages, numbers by step, checkpoints at hand.

Flow in: what lies on a disk: `metrics.jsonl`, `checkpoints/step-.../state.json`, manifests. Flow out: `Training`s.
A run that works, was killed, or is of an older carnac is told by what is there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from carnac.core.places import Place, is_local
from carnac.report.checkpoints import Checkpoint, checkpoints_in
from carnac.report.folders import StageFolder, Status
from carnac.report.lost import RECIPE
from carnac.train.run_folder import BEFORE, CHECKPOINT_NAME, CHECKPOINTS, METRICS_FILE
from carnac.train.series import Series, read_series

_SAVED = re.compile(rf"(?:(.*)/)?{CHECKPOINTS}/{CHECKPOINT_NAME.pattern}")


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """One stage of a run, or all of a run that has none. `name` is that of its folder, relative to what is shown."""

    name: str
    folder: str
    series: Series
    checkpoints: tuple[Checkpoint, ...]
    found: StageFolder | None

    @property
    def status(self) -> Status:
        """Whether it is done, or what became of the run in its folder."""
        return "unfinished" if self.found is None else self.found.status

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings that its output depends on, as the manifest or the newest checkpoint has them; or nothing."""
        if self.found is not None and self.found.is_finished:
            return self.found.content.settings
        states = (checkpoint.state.get("settings") for checkpoint in reversed(self.checkpoints))
        return next((settings for settings in states if isinstance(settings, dict)), {})

    def setting(self, *keys: str) -> Any:
        """Return a setting, None where it is not known."""
        value: Any = self.settings
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def num_steps(self) -> int | None:
        """How many steps are to be made, where it is known."""
        wanted = self.setting("training", "steps")
        return wanted if type(wanted) is int and wanted >= len(self.series) else None

    @property
    def clip_norm(self) -> float | None:
        """The longest gradient taken, where it is known."""
        wanted = self.setting("training", "optimizer", "clip_norm")
        return float(wanted) if isinstance(wanted, int | float) else None

    @property
    def tail(self) -> int:
        """How many steps count as the last ones: a tenth, since one step is mostly chance."""
        return max(1, len(self.series) // 10)

    def mean_loss(self) -> float:
        """Return the mean loss of the last steps; NaN where none has labels."""
        losses = self.series.losses()[1][-self.tail :]
        return float(losses.mean()) if len(losses) else float("nan")

    def share(self, name: str, over: str = "seconds") -> float | None:
        """Return the sum of a number over the last steps divided by that of another; None where there is neither."""
        above, below = (self.series.whole(each)[-self.tail :] for each in (name, over))
        has = np.isfinite(above) & np.isfinite(below)
        total = float(below[has].sum())
        return float(above[has].sum()) / total if total > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A run: its stages in the order in which they were trained, the last one's folder being its own."""

    folder: str
    stages: tuple[TrainingStage, ...]

    @property
    def begun(self) -> list[TrainingStage]:
        """Those that have made a step."""
        return [stage for stage in self.stages if len(stage.series)]

    @property
    def current(self) -> TrainingStage:
        """The stage that is trained, or was trained last."""
        return (self.begun or self.stages)[-1]

    @property
    def current_name(self) -> str:
        """The name of that stage, nothing where the run has none."""
        return "" if [stage.folder for stage in self.stages] == [self.folder] else self.current.name

    @property
    def is_finished(self) -> bool:
        """Whether its model is there."""
        return self.stages[-1].found is not None and self.stages[-1].found.is_finished


def find_trainings(root: Place, names: Sequence[str], folders: Sequence[StageFolder]) -> list[Training]:
    """Return the runs among `names`, the files below `root`; those first that lie highest."""
    if not is_local(root):
        return []
    found = {each.name: each for each in folders if each.stage == "model"}
    runs: dict[str, list[str]] = {}
    for folder in dict.fromkeys(_runs_of(names)):
        run = _run_of(folder)
        runs.setdefault(run, []).append(folder)
    trainings = []
    for run, parts in runs.items():
        named = _stage_names(root / run / RECIPE) or _last_planned(parts, run, folders)
        before = sorted((part for part in parts if part != run), key=lambda part: _order(root, part, named))
        last = [run] if run in parts or run in found else []
        stages = tuple(
            TrainingStage(
                name=named[-1] if part == run and named else part.rpartition("/")[2],
                folder=part,
                series=read_series(root / part / METRICS_FILE),
                checkpoints=checkpoints_in(root / part),
                found=found.get(part),
            )
            for part in (*before, *last)
        )
        if any(len(stage.series) or stage.checkpoints for stage in stages):
            trainings.append(Training(folder=run, stages=stages))
    return trainings


def _runs_of(names: Sequence[str]) -> Iterator[str]:
    """Yield the folders in which something was trained: a step was made there, or a checkpoint written."""
    for name in names:
        folder, _, file = name.rpartition("/")
        if file == METRICS_FILE:
            yield folder or "."
        elif match := _SAVED.fullmatch(folder):
            yield match[1] or "."


def _run_of(folder: str) -> str:
    """Return the folder of the run that a stage's folder is of."""
    above = folder.rpartition("/")[0]
    run, _, parent = above.rpartition("/")
    return (run or ".") if parent == BEFORE else folder


def _stage_names(recipe: Path) -> list[str]:
    """Return the names of the stages in the recipe that is kept beside a finished run."""
    try:
        stages = tomllib.loads(recipe.read_text(encoding="utf-8")).get("stage")
    except (OSError, ValueError):
        return []
    names = [stage.get("name") for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    return [name for name in names if isinstance(name, str)]


def _last_planned(parts: Sequence[str], run: str, folders: Sequence[StageFolder]) -> list[str]:
    """Return the name of the last stage of a run that is not done: of the plans it is that of no other stage."""
    before = {part.rpartition("/")[2] for part in parts if part != run}
    others = {stage_of_plan(folder) for folder in folders if folder.stage == "plan"} - before
    return list(others) if before and len(others) == 1 else []


def stage_of_plan(plan: StageFolder) -> str:
    """Return the name of the stage that a plan is for, `PLAN/NAME/rows`; where there are no stages, of its folder."""
    above = plan.name.rpartition("/")[0] if plan.name.rpartition("/")[2] == "rows" else plan.name
    return above.rpartition("/")[2]


def _order(root: Path, folder: str, named: Sequence[str]) -> tuple[int, float, str]:
    """Return where a stage stands: as the recipe says, else by when it last made a step, one after the other."""
    name = folder.rpartition("/")[2]
    try:
        moment = (root / folder / METRICS_FILE).stat().st_mtime
    except OSError:
        moment = float("inf")
    return named.index(name) if name in named else len(named), moment, name
