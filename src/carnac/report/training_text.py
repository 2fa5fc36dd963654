"""The training runs of a story as lines and tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent

from carnac.report.layout import figures_table
from carnac.report.story import Story
from carnac.report.training import Training
from carnac.report.training_facts import facts, heading

MAX_RUNS = 3  # told whole; of more, such as a search over rates, each has a line


def training_text(story: Story, *, brief: bool = False) -> str:
    """Return what there is to say of each run: a line when it is to be brief, with figures and tables else."""
    runs = story.trainings
    if brief or len(runs) > MAX_RUNS:
        return "\n".join(_head(run, len(runs)) for run in runs)
    return "\n\n".join("\n".join(_lines(story, run)) for run in runs)


def _head(run: Training, number: int) -> str:
    names = [name for name in (run.folder if number > 1 else "", run.current_name) if name]
    named = f" ({', '.join(names)})" if names else ""
    return f"training{named}: {heading(run.current)}"


def _lines(story: Story, run: Training) -> Iterator[str]:
    yield _head(run, len(story.trainings))
    told = facts(run, story.folders)
    yield from (f"  {name}: {what}" for name, what in told.lines)
    for figures in told.tables:
        yield ""
        yield f"{figures.title}\n{indent(figures_table(figures.head, figures.rows), '  ')}"
