"""Documents to signals and masks: measure once, then judge pass after pass, each reading the last mask.

Units: one per documents part for signals and for every pass; the search of repeats, which needs a global view, is in
`jobs/repeats.py`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field

from carnac.core.places import Folder, Place, read_bytes
from carnac.core.schema import MASKS, document_from_row
from carnac.curate.funnel import Funnel
from carnac.curate.repeats import judge_repeats_part
from carnac.curate.rules import judge_part
from carnac.curate.settings import Passes, RepeatsPass, RulesPass
from carnac.curate.signals import SIGNALS, ImageMeasure, failed_row, measure_document
from carnac.curate.verdicts import Reasons
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.storage import write_file
from carnac.engine.tables import read_rows, read_table
from carnac.engine.unit import Stage, Unit, digest_of
from carnac.jobs.images_found import read_found
from carnac.jobs.recipes import keep_recipe
from carnac.jobs.repeats import SearchLimits, found_between, found_in, search_repeats
from carnac.recipe.settings import DocumentsFolder, Reads, Recipe
from carnac.recipe.source import Location


class CurateRecipe(Recipe):
    """Settings of the job `curate`."""

    job: Literal["curate"] = Field(description="the job that this recipe describes")
    documents: DocumentsFolder = Field(description="folder of the documents")
    images: Annotated[Folder | None, Reads("images")] = Field(
        default=None, description="folder of their images, if they are there already: sizes become signals"
    )
    output: Folder = Field(description="folder for signals/, masks/<pass>/, repeats/<pass>/ and the funnel")
    max_memory_mb: int = Field(
        default=1000, ge=100, description="memory cap of each worker that searches repeats; what exceeds it is spilled"
    )
    rows_per_bucket: int = Field(
        default=1_000_000, ge=1, description="documents that are searched for repeats at once, in one worker"
    )
    passes: Passes = Field(alias="pass", min_length=1, description="the passes, in order; each reads the last mask")

    def folders_written(self) -> Iterator[tuple[str, str, Place]]:
        """Yield the signals and every pass's folders."""
        yield "output", "signals", self.output / "signals"
        for step in self.passes:
            yield "output", "masks", self.output / "masks" / step.name
            if isinstance(step, RepeatsPass):
                yield "output", "repeats", self.output / "repeats" / step.name


RECIPE = CurateRecipe
# Of a worker that searches a bucket, beside DuckDB's buffers: up to 225 MB (bench/memory.py).
BESIDE_DATABASE_MB = 300
ROWS_JUDGED = 250  # at once: their signals become Python objects, and 1,000 rows of them took 16 MB more


def check(recipe: CurateRecipe) -> list[tuple[Location, str]]:
    """Return what does not fit between the tables: a cap on a database above the cap on its process."""
    allowed, wanted = recipe.limits.memory_mb, recipe.max_memory_mb + BESIDE_DATABASE_MB
    if allowed is None or allowed >= wanted or not any(isinstance(step, RepeatsPass) for step in recipe.passes):
        return []
    message = (
        f"a worker may take {allowed} MB, but the search for repeats takes max_memory_mb ({recipe.max_memory_mb}) and "
        f"{BESIDE_DATABASE_MB} MB more; wanted {wanted} or more here, or a lower max_memory_mb."
    )
    return [(("limits", "memory_mb"), message)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsTask:
    """What a worker needs to measure one part. `found` are the images of its documents."""

    documents: Place
    found: Place | None
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTask:
    """What a worker needs to judge one part. `last` is a part of the pass before; `repeats` are all that were found."""

    unit: str
    documents: Place
    signals: Place
    last: Place | None
    repeats: tuple[Place, ...]
    step: RulesPass | RepeatsPass
    reasons: Reasons


def run(recipe: CurateRecipe, runner: Runner) -> None:
    """Write `signals/`, then the masks of every pass, then the funnel."""
    documents = read_manifest(recipe.documents, "documents")
    signals = _measure(recipe, runner, documents)
    last: Manifest | None = None
    for number, step in enumerate(recipe.passes):
        reasons = Reasons.of(recipe.passes[: number + 1])
        repeats = _search(recipe, runner, step, signals, last) if isinstance(step, RepeatsPass) else None
        last = _judge(recipe, runner, (documents, signals, last, repeats), step, reasons)
    if not runner.changes_nothing:
        _write_funnel(recipe, documents, signals)
        keep_recipe(recipe, recipe.output)


def _measure(recipe: CurateRecipe, runner: Runner, documents: Manifest) -> Manifest:
    images = None if recipe.images is None else read_found(recipe.images)
    units = []
    for entry in documents.parts:
        found = None if images is None else images.part(entry.unit)
        task = SignalsTask(documents=entry.path, found=None if found is None else found.path, limit=recipe.limit)
        inputs = [entry.digest, "" if found is None else found.digest]
        units.append(SIGNALS_STAGE.unit(entry.unit, task, settings={"limit": recipe.limit}, inputs=inputs))
    folder = recipe.output / "signals"
    entries = runner.do(SIGNALS_STAGE, units, folder)
    return runner.publish(SIGNALS_STAGE, folder, entries, {}, {"documents": str(recipe.documents)})


def _search(
    recipe: CurateRecipe, runner: Runner, step: RepeatsPass, signals: Manifest, last: Manifest | None
) -> Manifest:
    limits = SearchLimits(max_memory_mb=recipe.max_memory_mb, rows_per_bucket=recipe.rows_per_bucket)
    return search_repeats(runner, step, signals, last, recipe.output / "repeats" / step.name, limits)


def _judge(
    recipe: CurateRecipe,
    runner: Runner,
    sources: tuple[Manifest, Manifest, Manifest | None, Manifest | None],
    step: RulesPass | RepeatsPass,
    reasons: Reasons,
) -> Manifest:
    documents, signals, last, repeats = sources
    settings = {"pass": step.model_dump(mode="json"), "reasons": list(reasons.names)}
    found = () if repeats is None else repeats.parts
    paths, shared = tuple(part.path for part in found), [] if repeats is None else [repeats.digest]
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
            repeats=paths,
            step=step,
            reasons=reasons,
        )
        inputs = [entry.digest, measured.digest, *([] if before is None else [before.rows_digest]), *shared]
        units.append(stage.unit(entry.unit, task, settings=settings, inputs=inputs))
    folder = recipe.output / "masks" / step.name
    entries = runner.do(stage, units, folder)
    return runner.publish(stage, folder, entries, settings, {"documents": str(recipe.documents)})


def measure_unit(unit: Unit, part: Part) -> None:
    """Write the signals of one documents part, row for row."""
    task: SignalsTask = unit.task
    found = () if task.found is None else read_rows(task.found, ["url", "width", "height"])
    measures = {row["url"]: ImageMeasure(width=row["width"], height=row["height"], kept=True) for row in found}
    for number, row in enumerate(read_rows(task.documents)):
        document = document_from_row(row)
        if task.limit is not None and number >= task.limit:
            part.write(failed_row(document, "beyond_limit"))
            continue
        signals = part.attempt(f"{document.id}@{number}", measure_document, document, measures)
        # The row of a lost record stays, as nulls with the reason: rows are those of the documents.
        part.write(failed_row(document, "not_measured") if signals is LOST else signals)


def judge_unit(unit: Unit, part: Part) -> None:
    """Write the masks of one documents part after one pass."""
    task: PassTask = unit.task
    parts: dict[str, tuple[Place, Sequence[str] | None]] = {"documents": (task.documents, ["id", "kinds"])}
    if task.last is not None:
        parts["last"] = (task.last, None)
    parts["signals"] = (task.signals, None if isinstance(task.step, RulesPass) else ["id", "failed"])
    found = found_in(task.repeats, task.unit)
    for first, tables in read_aligned_tables(parts):
        judged = [
            _judge_rows(
                task, {name: table.slice(start, ROWS_JUDGED) for name, table in tables.items()}, first + start, found
            )
            for start in range(0, tables["documents"].num_rows, ROWS_JUDGED)
        ]
        part.write_table(pa.concat_tables(judged).combine_chunks())


def _judge_rows(task: PassTask, tables: dict[str, pa.Table], first: int, found: pa.Table) -> pa.Table:
    """Return the masks of some rows of a part, of which theirs is `first`."""
    documents, signals, last = tables["documents"], tables["signals"], tables.get("last")
    if isinstance(task.step, RulesPass):
        return judge_part(documents, signals, last, task.step.rules, task.reasons)
    mine = found_between(found, first, documents.num_rows)
    return judge_repeats_part(documents, signals, last, mine, task.reasons)


def _write_funnel(recipe: CurateRecipe, documents: Manifest, signals: Manifest) -> None:
    """Write `funnel.json`, unless the one there was drawn from the same masks."""
    masks = [read_manifest(recipe.output / "masks" / step.name, "masks") for step in recipe.passes]
    passes = [step.model_dump(mode="json") for step in recipe.passes]
    drawn_from = digest_of([documents.digest, signals.digest, passes, *(manifest.digest for manifest in masks)])
    path = recipe.output / "funnel.json"
    # A damaged funnel is drawn again: it holds nothing that the masks do not.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(read_bytes(path))["drawn_from"] == drawn_from:
            return
    funnel = Funnel(recipe.passes)
    for entry in documents.parts:
        funnel.add_part(
            read_table(entry.path, ["id", "url", "texts", "images", "kinds"]),
            read_table(signals.part(entry.unit).path, ["id", "block_num_words"]),
            [read_table(manifest.part(entry.unit).path) for manifest in masks],
        )
    steps = [step.to_json() for step in funnel.steps()]
    write_file(path, (json.dumps({"drawn_from": drawn_from, "steps": steps}, indent=1) + "\n").encode())


SIGNALS_STAGE = Stage(name="signals", version=1, schema=SIGNALS, work=measure_unit)
