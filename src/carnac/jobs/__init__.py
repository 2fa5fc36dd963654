"""One file per kind of recipe: it opens files and wires stages, nothing else.

A job module has a `RECIPE` (the settings it takes), `run(recipe, runner)`, and may have `check(recipe)`, which returns
(location, sentence) for mistakes that only the job's own libraries can see.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

from carnac.engine.run import Runner
from carnac.recipe.settings import Recipe
from carnac.recipe.source import Location

JOBS = (
    "crawl", "adopt", "images", "perplexity", "curate", "shards", "conversations", "train", "sweep", "evaluate",
    "ask", "chat",
)  # fmt: skip


class Job(Protocol):
    """The face of a job module."""

    RECIPE: type[Recipe]

    def run(self, recipe: Recipe, runner: Runner) -> None:
        """Do what the recipe says, or only say it in a dry run."""


class CheckingJob(Job, Protocol):
    """A job with mistakes of its own to find."""

    def check(self, recipe: Recipe) -> Sequence[tuple[Location, str]]:
        """Return (location, sentence) per mistake."""


class PreloadingJob(Job, Protocol):
    """A job whose units need modules that are costly to import."""

    def preload(self, recipe: Recipe) -> tuple[str, ...]:
        """Return the names of modules that the fork server imports once for all units."""


def load_job(name: str) -> Job:
    """Import the module of a job."""
    return cast("Job", importlib.import_module(f"carnac.jobs.{name}"))


class RecipeModels(Mapping[str, type[Recipe]]):
    """The recipe model of every job. A job is imported when asked for: a slim installation lacks what others need."""

    def __getitem__(self, name: str) -> type[Recipe]:
        if name not in JOBS:
            raise KeyError(name)
        return load_job(name).RECIPE

    def __iter__(self) -> Iterator[str]:
        return iter(JOBS)

    def __len__(self) -> int:
        return len(JOBS)

    def __contains__(self, name: object) -> bool:
        return name in JOBS
