"""The training runs of a story as a chapter of its page: figures, drawings, tables."""

from __future__ import annotations

from typing import Any

from carnac.report.pictures import drawing
from carnac.report.story import Story
from carnac.report.training import Training
from carnac.report.training_facts import facts, heading

MAX_DRAWN = 4  # runs with drawings; a page of more is megabytes


def training_runs(story: Story) -> list[dict[str, Any]]:
    """Return what the page shows of each run."""
    return [_run(story, training) for training in story.trainings[:MAX_DRAWN]]


def other_runs(story: Story) -> list[str]:
    """Return a line for each run beyond those that are drawn."""
    return [f"{training.folder}: {heading(training.current)}" for training in story.trainings[MAX_DRAWN:]]


def _run(story: Story, training: Training) -> dict[str, Any]:
    from carnac.train.panels import draw_panels

    begun = training.begun
    panels = draw_panels([stage.series for stage in begun], clip_norm=training.current.clip_norm) if begun else []
    return {
        "name": training.folder if len(story.trainings) > 1 else "",
        "stage": training.current_name,
        "stages": [stage.name for stage in begun] if len(training.stages) > 1 else [],
        "heading": heading(training.current),
        "facts": facts(training, story.folders),
        "panels": [{"panel": panel, "src": drawing(panel.svg)} for panel in panels],
    }
