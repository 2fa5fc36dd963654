"""Documents to signals and masks: measure once, then judge pass after pass, each reading the last mask.

measure   signals/, image_signals/                                           curate_measure.py
per pass  fetch: images of what is kept                                      images.py
          repeats/<pass>, listed/<pass>, contaminated/<pass>: what it hits   repeats.py, curate_lists.py,
                                                                             curate_contamination.py
          kept_signals/<pass>: measured again over what is kept              curate_kept.py
          masks/<pass>                                                       curate_judge.py
at last   the funnel                                                         curate_funnel.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from carnac.core.places import Folder, Place
from carnac.curate.contamination.settings import DecontaminatePass
from carnac.curate.lists.settings import ListsPass
from carnac.curate.masks import Reasons
from carnac.curate.repeats.settings import RepeatsPass
from carnac.curate.signals.settings import MeasureSettings
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.run import Runner
from carnac.jobs.curate_check import mistakes_of
from carnac.jobs.curate_contamination import search_contamination
from carnac.jobs.curate_funnel import PassTables, draw_funnel
from carnac.jobs.curate_judge import judge
from carnac.jobs.curate_kept import remeasure
from carnac.jobs.curate_lists import search_lists
from carnac.jobs.curate_measure import PRELOAD, measure_images, measure_texts
from carnac.jobs.curate_passes import AnyPass, FetchPass, Passes
from carnac.jobs.curate_sources import Sources, remeasured_columns
from carnac.jobs.images_found import read_found
from carnac.jobs.recipes import keep_recipe
from carnac.jobs.repeats import search_repeats
from carnac.jobs.repeats_sources import RepeatSources, SearchLimits
from carnac.recipe.settings import DocumentsFolder, Reads, Recipe
from carnac.recipe.source import Location


class CurateRecipe(Recipe):
    """Settings of the job `curate`."""

    job: Literal["curate"] = Field(description="the job that this recipe describes")
    documents: DocumentsFolder = Field(description="folder of the documents")
    images: Annotated[Folder | None, Reads("images")] = Field(
        default=None, description="folder of their images, if they are there already: what files tell becomes signals"
    )
    output: Folder = Field(description="folder for signals, masks/<pass>/, what was searched, and the funnel")
    measure: MeasureSettings = Field(
        default=MeasureSettings(), description="which words and models signals are taken with"
    )
    max_memory_mb: int = Field(
        default=1000, ge=100, description="memory cap of each worker that searches repeats; what exceeds it is spilled"
    )
    rows_per_bucket: int = Field(
        default=1_000_000, ge=1, description="documents that are searched for repeats at once, in one worker"
    )
    passes: Passes = Field(alias="pass", description="the passes, in order; each reads the last mask")

    def folders_written(self) -> Iterator[tuple[str, str, Place]]:
        """Yield the signals and every pass's folders."""
        yield "output", "signals", self.output / "signals"
        for number, step in enumerate(self.passes):
            yield "output", "masks", self.output / "masks" / step.name
            if isinstance(step, RepeatsPass):
                yield "output", "repeats", self.output / "repeats" / step.name
            elif isinstance(step, FetchPass):
                yield f"pass.{number}.images", "images", step.images


RECIPE = CurateRecipe
# What searches of repeats have compiled, by kind.
COMPILED = {
    "near": ("carnac.curate.near.kernels", "carnac.curate.near.link"),
    "image_phash": ("carnac.curate.near.phash_kernels",),
}


def check(recipe: CurateRecipe) -> list[tuple[Location, str]]:
    """Return what does not fit between the tables."""
    return mistakes_of(recipe)


def preload(recipe: CurateRecipe) -> tuple[str, ...]:
    """Return the compiled modules that units need: numba is imported once (0.4 s), not by each child."""
    kinds = {kind for step in recipe.passes if isinstance(step, RepeatsPass) for kind in step.by}
    of_kinds = [module for kind, modules in COMPILED.items() if kind in kinds for module in modules]
    return (*PRELOAD, *of_kinds)


def run(recipe: CurateRecipe, runner: Runner) -> None:
    """Write the signals, the masks of every pass, then the funnel."""
    documents = read_manifest(recipe.documents, "documents")
    job = _Job(recipe, runner, documents, measure_texts(runner, recipe.output, documents, recipe.limit, recipe.measure))
    if recipe.images is not None:
        job.images = measure_images(runner, recipe.output, documents, read_found(recipe.images))
    for number, step in enumerate(recipe.passes):
        job.do(step, Reasons.of(recipe.passes[: number + 1]))
    job.tell()
    if not runner.changes_nothing:
        keep_recipe(recipe, recipe.output)


class _Job:
    """What passes hand on: the signals known so far, and the masks of the last pass."""

    def __init__(self, recipe: CurateRecipe, runner: Runner, documents: Manifest, signals: Manifest) -> None:
        self._recipe, self._runner, self._documents, self._signals = recipe, runner, documents, signals
        self.images: Manifest | None = None
        self._passes: list[PassTables] = []

    @property
    def _last(self) -> Manifest | None:
        return self._passes[-1].masks if self._passes else None

    def do(self, step: AnyPass, reasons: Reasons) -> None:
        """Do one pass."""
        if isinstance(step, FetchPass):
            self.images = self._fetch(step)
        hits, kept = self._search(step), self._again(step)
        sources = Sources(signals=self._signals, images=self.images, kept=kept, last=self._last, hits=hits)
        masks = judge(self._runner, sources, step, reasons, self._recipe.output / "masks" / step.name)
        self._passes.append(PassTables(step=step, images=self.images, kept=kept, masks=masks))

    def tell(self) -> None:
        """Draw the funnel."""
        draw_funnel(self._runner, self._passes, self._documents, self._signals, self._recipe.output)

    def _fetch(self, step: FetchPass) -> Manifest:
        """Get the images of what is kept so far, and put what they tell beside the documents."""
        from carnac.jobs.images import ImagesRecipe
        from carnac.jobs.images import run as run_images

        wanted = ImagesRecipe(
            job="images",
            documents=self._recipe.documents,
            masks=None if self._last is None else self._last.folder,
            output=step.images,
            fetch=step.fetch,
            inspect=step.inspect,
            http=step.http,
            scores=step.scores,
        )
        run_images(wanted, self._runner)
        return measure_images(self._runner, self._recipe.output, self._documents, read_found(step.images))

    def _again(self, step: AnyPass) -> Manifest | None:
        """Measure over what is kept what a pass judges so."""
        columns = remeasured_columns(step)
        if self._last is None or not columns:
            return None
        folder = self._recipe.output / "kept_signals" / step.name
        return remeasure(self._runner, folder, self._documents, self._signals, self._last, columns)

    def _search(self, step: AnyPass) -> Manifest | None:
        """Search what a pass needs to know beyond the signals of each document."""
        recipe, runner = self._recipe, self._runner
        if isinstance(step, RepeatsPass):
            sources = RepeatSources(
                documents=self._documents, signals=self._signals, images=self.images, last=self._last
            )
            limits = SearchLimits(max_memory_mb=recipe.max_memory_mb, rows_per_bucket=recipe.rows_per_bucket)
            return search_repeats(runner, step, sources, recipe.output / "repeats" / step.name, limits)
        if isinstance(step, ListsPass):
            folder = recipe.output / "listed" / step.name
            return search_lists(runner, step, self._documents, self.images, self._last, folder)
        if isinstance(step, DecontaminatePass):
            folder = recipe.output / "contaminated" / step.name
            return search_contamination(runner, step, self._documents, self.images, self._last, folder)
        return None
