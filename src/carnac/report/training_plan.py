"""The plan behind a stage of training: which folder it is, what it holds, source by source.

Flow in: the plans' folders of a story. Flow out: a line and a table. Older plans only tell how full they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from carnac.engine.manifest import Manifest
from carnac.mix.facts import PlanFacts, SourceFacts, facts_of
from carnac.mix.settings import MixSettings, SourceSettings
from carnac.report.folders import StageFolder
from carnac.report.layout import percent
from carnac.report.training import TrainingStage, stage_of_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanText:
    """What a plan comes to in a line, and a row for each of its sources below `head`."""

    line: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def plan_of(
    stage: TrainingStage, others: Sequence[TrainingStage], folders: Sequence[StageFolder]
) -> StageFolder | None:
    """Return the folder of a stage's plan: `PLAN/NAME/rows`, or `PLAN/rows` where a run has one stage.

    Of several runs below the folder that is shown, the plan that lies nearest to the model is taken.
    """
    plans = [folder for folder in folders if folder.stage == "plan"]
    names = {other.name for other in others}
    mine = [plan for plan in plans if stage_of_plan(plan) == stage.name]
    # Before a run is done only its folder's name is known of the last stage: its plan is none of the others'.
    mine = mine or [plan for plan in plans if stage_of_plan(plan) not in names]
    near = sorted(mine, key=lambda plan: (-_common(plan.name, stage.folder), plan.name))
    return near[0] if near else None


def _common(one: str, two: str) -> int:
    """Return how many folders two paths share."""
    shared = 0
    for first, second in zip(one.split("/"), two.split("/"), strict=False):
        if first != second:
            break
        shared += 1
    return shared


def plan_text(plan: Manifest, stage: TrainingStage) -> PlanText:
    """Return what a plan holds; its steps are those of the stage's batches, where their size is known."""
    mix = stage.setting("mix")
    batches = mix if isinstance(mix, Mapping) else None
    facts = _facts(plan, batches)
    if facts is None:
        fill = plan.counts.get("fill_per_mille")
        return PlanText(line=f"{plan.rows:,} rows" + ("" if fill is None else f", fill {fill / 1000:.3f}"))
    head = ("source", "text tokens", "positions", "images", "pieces", "epochs", "runs out")
    rows = tuple(_row(source, batches is not None) for source in facts.sources)
    return PlanText(line=facts.rows_text, head=head, rows=rows)


def _row(source: SourceFacts, are_steps_known: bool) -> tuple[str, ...]:
    wanted = "" if source.weight is None else f" (wanted {percent(source.weight)})"
    end = "" if source.ran_out_at is None else f"step {source.ran_out_at:,}" if are_steps_known else "yes"
    return (
        source.name,
        f"{percent(source.text_share)}{wanted}",
        percent(source.position_share),
        f"{source.images:,}",
        f"{source.pieces:,}",
        f"{source.epochs:.2f}",
        end,
    )


def _facts(plan: Manifest, batches: Mapping[str, Any] | None) -> PlanFacts | None:
    """Return the facts of a plan; None where its settings are of another version of carnac."""
    settings = plan.settings
    try:
        mix = MixSettings.model_validate(settings["mix"] if batches is None else batches)
        # Where the shards lie is no part of a plan's settings, and of no matter here.
        sources = [SourceSettings(**{**source, "shards": Path()}) for source in settings["sources"]]
        return facts_of(plan.counts, sources, mix, settings["first_row"])
    except (ValidationError, KeyError, TypeError):
        return None
