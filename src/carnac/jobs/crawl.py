"""Crawl archives to documents: one WARC file is one unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from carnac.archive.records import Damage, read_responses
from carnac.core.places import Folder, Place, absolute
from carnac.core.schema import DOCUMENTS, document_to_row
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit, outside_digests, unit_names
from carnac.jobs.inputs import find_files
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import Recipe, Writes
from carnac.web.extract import extract_document, is_page
from carnac.web.settings import ExtractSettings

# A crawl holds films and disk images: beyond this a record is not read at all. Well above any page, so that a page that
# is too large says so (`page_too_large`) and a large download is no loss.
MAX_PAYLOAD_BYTES = 64_000_000


class CrawlRecipe(Recipe):
    """Settings of the job `crawl`."""

    job: Literal["crawl"] = Field(description="the job that this recipe describes")
    warcs: tuple[str, ...] = Field(min_length=1, description="WARC files, plain or gzip; * and ** match as in a shell")
    output: Annotated[Folder, Writes("documents")] = Field(description="folder for the documents")
    extract: ExtractSettings = Field(default=ExtractSettings(), description="how a page becomes a document")


RECIPE = CrawlRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlTask:
    """What a worker needs for one WARC file."""

    warc: Place
    settings: ExtractSettings
    limit: int | None


def run(recipe: CrawlRecipe, runner: Runner) -> None:
    """Write `documents/`."""
    units = []
    warcs = find_files(recipe.warcs)
    for name, warc, digest in zip(unit_names(warcs), warcs, outside_digests(warcs), strict=True):
        task = CrawlTask(warc=warc, settings=recipe.extract, limit=recipe.limit)
        settings = {"extract": recipe.extract.model_dump(mode="json"), "limit": recipe.limit}
        units.append(STAGE.unit(name, task, settings=settings, inputs=[digest]))
    entries = runner.do(STAGE, units, recipe.output)
    inputs = {"warcs": [absolute(unit.task.warc) for unit in units]}
    runner.publish(STAGE, recipe.output, entries, recipe.extract.model_dump(mode="json"), inputs)
    if not runner.changes_nothing:
        keep_recipe(recipe, recipe.output)


def crawl_warc(unit: Unit, part: Part) -> None:
    """Write the documents of one WARC file; whatever is not a readable page is counted with its reason."""
    task: CrawlTask = unit.task
    pages = 0
    for record in read_responses(task.warc, max_payload_bytes=max(MAX_PAYLOAD_BYTES, task.settings.max_page_bytes)):
        name = f"{task.warc.name}@{record.place}"
        if isinstance(record, Damage):
            part.quarantine(name, record.reason, f"{record.url or ''} {record.detail}".strip())
            continue
        part.count("records")
        if not is_page(record):
            part.count("not_a_page")
            continue
        if task.limit is not None and pages >= task.limit:
            break
        pages += 1
        part.count("pages")
        document = part.attempt(name, extract_document, record, task.warc.name, task.settings)
        if document is LOST:
            continue
        part.count("documents")
        part.count("text_blocks", sum(text is not None for text in document.texts))
        part.count("images", sum(image is not None for image in document.images))
        part.write(document_to_row(document))


STAGE = Stage(name="documents", version=1, schema=DOCUMENTS, work=crawl_warc)
