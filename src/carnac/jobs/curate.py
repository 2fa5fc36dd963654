"""Documents to signals and masks: measure once, then judge pass after pass, each reading the last mask.

Units: one per documents part for signals and for every pass; one for the search of repeats, which needs a global view.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pyarrow.parquet as pq
from pydantic import Field

from carnac.core.schema import MASKS, REPEATS, document_from_row
from carnac.curate.funnel import Funnel
from carnac.curate.repeats import MASKS_COLUMNS, SIGNALS_COLUMNS, Competitors, find_repeats, judge_repeats_part
from carnac.curate.rules import judge_part
from carnac.curate.settings import Passes, RepeatsPass, RulesPass
from carnac.curate.signals import SIGNALS, ImageMeasure, failed_row, measure_document
from carnac.curate.verdicts import Reasons
from carnac.engine.aligned import read_rows
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.part import Part, write_file
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit, digest_of
from carnac.jobs.kept import kept_images
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import DocumentsFolder, Reads, Recipe


class CurateRecipe(Recipe):
    """Settings of the job `curate`."""

    job: Literal["curate"] = Field(description="the job that this recipe describes")
    documents: DocumentsFolder = Field(description="folder of the documents")
    images: Annotated[Path | None, Reads("images")] = Field(
        default=None, description="folder of their images, if they are there already: sizes become signals"
    )
    output: Path = Field(description="folder for signals/, masks/<pass>/, repeats/<pass>/ and the funnel")
    max_memory_mb: int = Field(default=1000, ge=100, description="memory cap of the search for repeats")
    passes: Passes = Field(alias="pass", min_length=1, description="the passes, in order; each reads the last mask")

    def folders_written(self) -> Iterator[tuple[str, str, Path]]:
        """Yield the signals and every pass's folders."""
        yield "output", "signals", self.output / "signals"
        for step in self.passes:
            yield "output", "masks", self.output / "masks" / step.name
            if isinstance(step, RepeatsPass):
                yield "output", "repeats", self.output / "repeats" / step.name


RECIPE = CurateRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsTask:
    """What a worker needs to measure one part."""

    documents: Path
    images: Path | None
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTask:
    """What a worker needs to judge one part. `last` and `repeats` are parts, where there are any."""

    unit: str
    documents: Path
    signals: Path
    last: Path | None
    repeats: Path | None
    step: RulesPass | RepeatsPass
    reasons: Reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatsTask:
    """What a worker needs to search all parts: (unit, signals, last masks) of each."""

    parts: tuple[tuple[str, Path, Path | None], ...]
    step: RepeatsPass
    max_memory_mb: int


def run(recipe: CurateRecipe, runner: Runner) -> None:
    """Write `signals/`, then the masks of every pass, then the funnel."""
    documents = read_manifest(recipe.documents, "documents")
    signals = _measure(recipe, runner, documents)
    last: Manifest | None = None
    for number, step in enumerate(recipe.passes):
        reasons = Reasons.of(recipe.passes[: number + 1])
        repeats = _search(recipe, runner, step, signals, last) if isinstance(step, RepeatsPass) else None
        last = _judge(recipe, runner, (documents, signals, last, repeats), step, reasons)
    if not runner.dry_run:
        _write_funnel(recipe, documents, signals)
        keep_recipe(recipe, recipe.output)


def _measure(recipe: CurateRecipe, runner: Runner, documents: Manifest) -> Manifest:
    images = None if recipe.images is None else read_manifest(recipe.images, "images")
    units = []
    for entry in documents.parts:
        task = SignalsTask(documents=entry.path, images=recipe.images, limit=recipe.limit)
        inputs = [entry.digest, "" if images is None else images.digest]
        units.append(SIGNALS_STAGE.unit(entry.unit, task, settings={"limit": recipe.limit}, inputs=inputs))
    folder = recipe.output / "signals"
    entries = runner.do(SIGNALS_STAGE, units, folder)
    return runner.publish(SIGNALS_STAGE, folder, entries, {}, {"documents": str(recipe.documents)})


def _search(
    recipe: CurateRecipe, runner: Runner, step: RepeatsPass, signals: Manifest, last: Manifest | None
) -> Manifest:
    masks = [None if last is None else last.part(entry.unit) for entry in signals.parts]
    parts = [
        (entry.unit, entry.path, None if mask is None else mask.path)
        for entry, mask in zip(signals.parts, masks, strict=True)
    ]
    inputs = [signals.digest, "" if last is None else last.digest]
    task = RepeatsTask(parts=tuple(parts), step=step, max_memory_mb=recipe.max_memory_mb)
    unit = REPEATS_STAGE.unit("all", task, settings={"by": list(step.by)}, inputs=inputs)
    folder = recipe.output / "repeats" / step.name
    entries = runner.do(REPEATS_STAGE, [unit], folder)
    return runner.publish(REPEATS_STAGE, folder, entries, {"by": list(step.by)}, {})


def _judge(
    recipe: CurateRecipe,
    runner: Runner,
    sources: tuple[Manifest, Manifest, Manifest | None, Manifest | None],
    step: RulesPass | RepeatsPass,
    reasons: Reasons,
) -> Manifest:
    documents, signals, last, repeats = sources
    settings = {"pass": step.model_dump(mode="json"), "reasons": list(reasons.names)}
    found = None if repeats is None else repeats.parts[0]
    schema = MASKS.with_metadata(reasons.to_metadata())
    stage = Stage(name="masks", version=1, schema=schema, work=judge_unit)
    units = []
    for entry in documents.parts:
        measured, before = signals.part(entry.unit), None if last is None else last.part(entry.unit)
        task = PassTask(
            unit=entry.unit,
            documents=entry.path,
            signals=measured.path,
            last=None if before is None else before.path,
            repeats=None if found is None else found.path,
            step=step,
            reasons=reasons,
        )
        inputs = [entry.digest, measured.digest, *(part.digest for part in (before, found) if part is not None)]
        units.append(stage.unit(entry.unit, task, settings=settings, inputs=inputs))
    folder = recipe.output / "masks" / step.name
    entries = runner.do(stage, units, folder)
    return runner.publish(stage, folder, entries, settings, {"documents": str(recipe.documents)})


def measure_unit(unit: Unit, part: Part) -> None:
    """Write the signals of one documents part, row for row."""
    task: SignalsTask = unit.task
    images = {} if task.images is None else kept_images(read_manifest(task.images, "images"))
    measures = {url: ImageMeasure(width=row["width"], height=row["height"], kept=True) for url, row in images.items()}
    for number, row in enumerate(read_rows(task.documents)):
        document = document_from_row(row)
        if task.limit is not None and number >= task.limit:
            part.write(failed_row(document, "beyond_limit"))
            continue
        try:
            part.write(measure_document(document, measures))
        except Exception as error:  # noqa: BLE001 -- the edge of a record: its row stays, as nulls with the reason
            part.quarantine(document.id, "not_measured", f"{document.url} {type(error).__name__}: {error}")
            part.write(failed_row(document, "not_measured"))


def search_unit(unit: Unit, part: Part) -> None:
    """Write the duplicates found over all parts."""
    task: RepeatsTask = unit.task
    competitors = (
        Competitors(
            unit=name,
            signals=pq.read_table(signals, columns=list(SIGNALS_COLUMNS)),
            masks=None if masks is None else pq.read_table(masks, columns=list(MASKS_COLUMNS)),
        )
        for name, signals, masks in task.parts
    )
    with tempfile.TemporaryDirectory() as scratch:
        memory = task.max_memory_mb
        found = find_repeats(competitors, by=task.step.by, max_memory_mb=memory, scratch=Path(scratch))
    part.write_table(found)


def judge_unit(unit: Unit, part: Part) -> None:
    """Write the masks of one documents part after one pass."""
    task: PassTask = unit.task
    documents = pq.read_table(task.documents, columns=["id", "kinds"])
    last = None if task.last is None else pq.read_table(task.last)
    if isinstance(task.step, RulesPass):
        part.write_table(judge_part(documents, pq.read_table(task.signals), last, task.step.rules, task.reasons))
    else:
        repeats = pq.read_table(task.repeats)
        part.write_table(judge_repeats_part(task.unit, documents, last, repeats, task.reasons))


def _write_funnel(recipe: CurateRecipe, documents: Manifest, signals: Manifest) -> None:
    """Write `funnel.json`, unless the one there was drawn from the same masks."""
    masks = [read_manifest(recipe.output / "masks" / step.name, "masks") for step in recipe.passes]
    passes = [step.model_dump(mode="json") for step in recipe.passes]
    drawn_from = digest_of([documents.digest, signals.digest, passes, *(manifest.digest for manifest in masks)])
    path = recipe.output / "funnel.json"
    # A damaged funnel is drawn again: it holds nothing that the masks do not.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(path.read_bytes())["drawn_from"] == drawn_from:
            return
    funnel = Funnel(recipe.passes)
    for entry in documents.parts:
        funnel.add_part(
            pq.read_table(entry.path, columns=["id", "url", "texts", "images", "kinds"]),
            pq.read_table(signals.part(entry.unit).path, columns=["id", "block_num_words"]),
            [pq.read_table(manifest.part(entry.unit).path) for manifest in masks],
        )
    steps = [step.to_json() for step in funnel.steps()]
    write_file(path, (json.dumps({"drawn_from": drawn_from, "steps": steps}, indent=1) + "\n").encode())


SIGNALS_STAGE = Stage(name="signals", version=1, schema=SIGNALS, work=measure_unit)
REPEATS_STAGE = Stage(name="repeats", version=1, schema=REPEATS, work=search_unit)
