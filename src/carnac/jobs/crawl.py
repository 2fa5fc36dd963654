"""Crawls to documents, from WARC files, a crawl known by name, pointers to single records, or folders of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from carnac.archive.records import Damage, read_responses
from carnac.core.errors import InputError
from carnac.core.places import Folder, Place, absolute, source_of
from carnac.core.schema import DOCUMENTS
from carnac.core.taken_down import NOTHING, TakenDown
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit, outside_digests, unit_names
from carnac.jobs.crawl_listing import COMMON_CRAWL, listed_archives
from carnac.jobs.crawl_pages import PagesTask, find_pages, page_units, write_pages
from carnac.jobs.crawl_pointers import PointersTask, pointer_units, write_pointed
from carnac.jobs.documents import MAX_PAYLOAD_BYTES, write_document
from carnac.jobs.inputs import find_files
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import Recipe, Writes
from carnac.recipe.source import Location
from carnac.web.extract import extract_page, is_page
from carnac.web.settings import ExtractSettings

SOURCES = ("warcs", "crawl", "pointers", "pages")
# Which settings say something of one source only.
_OF_SOURCE = {"sample": ("crawl",), "seed": ("crawl",), "crawl_root": ("crawl", "pointers"), "base_url": ("pages",)}


class CrawlRecipe(Recipe):
    """Settings of the job `crawl`. Exactly one of `warcs`, `crawl`, `pointers` and `pages` is given."""

    job: Literal["crawl"] = Field(description="the job that this recipe describes")
    warcs: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="WARC files, plain, gzip or zstd; * and ** match as in a shell"
    )
    crawl: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="a crawl by its name, such as CC-MAIN-2026-30, all of whose WARC files are read, or a sample",
    )
    sample: int | None = Field(default=None, ge=1, description="so many of the crawl's WARC files, spread over it")
    seed: int = Field(default=0, description="which sample")
    pointers: str | None = Field(
        default=None,
        description="Parquet file (or pattern) of records: warc_filename, warc_record_offset, warc_record_length",
    )
    crawl_root: str = Field(default=COMMON_CRAWL, description="where the files of a crawl, or of pointers, lie")
    pages: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="HTML files; * and ** match as in a shell"
    )
    base_url: str | None = Field(
        default=None, description="URL of the folder of the pages: a page's URL is this and its path below the folder"
    )
    records_per_unit: int = Field(default=1000, ge=1, description="pointers, or pages, that one worker does at once")
    output: Annotated[Folder, Writes("documents")] = Field(description="folder for the documents")
    extract: ExtractSettings = Field(default=ExtractSettings(), description="how a page becomes a document")


RECIPE = CrawlRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlTask:
    """What a worker needs for one WARC file."""

    warc: Place
    settings: ExtractSettings
    limit: int | None
    taken_down: TakenDown = NOTHING


def check(recipe: CrawlRecipe) -> Sequence[tuple[Location, str]]:
    """Return what is wrong between settings: no source or several, a setting of another source."""
    given = [name for name in SOURCES if getattr(recipe, name) is not None]
    mistakes: list[tuple[Location, str]] = []
    if not given:
        mistakes.append((("job",), f"says nothing of what to read. Wanted one of: {', '.join(SOURCES)}."))
    one = "Wanted one of them: a crawl has one kind of source."
    mistakes += [((name,), f"{given[0]} is given too. {one}") for name in given[1:]]
    for name, sources in _OF_SOURCE.items():
        is_default = getattr(recipe, name) == CrawlRecipe.model_fields[name].default
        if not is_default and len(given) == 1 and given[0] not in sources:
            mistakes.append(((name,), f"says nothing of {given[0]}. Wanted it with {' or '.join(sources)} only."))
    if recipe.pages is not None and not (recipe.base_url or "").startswith(("http://", "https://")):
        got = "missing" if recipe.base_url is None else f"got {recipe.base_url!r}"
        wanted = "Wanted the URL at which the folder of the pages was or will be, such as https://example.org/docs/."
        mistakes.append((("base_url",), f"{got}. {wanted}"))
    try:
        source_of(recipe.crawl_root)
    except ValueError as error:
        mistakes.append((("crawl_root",), f"{error}."))
    return mistakes


def run(recipe: CrawlRecipe, runner: Runner) -> None:
    """Write `documents/`."""
    if mistakes := check(recipe):
        raise InputError("; ".join(f"{location[-1]}: {sentence}" for location, sentence in mistakes))
    planned, inputs = _plan(recipe)
    # No part of a key: what is there was cleaned by the take-down itself.
    taken_down = TakenDown.read([recipe.output])
    units = [replace(unit, task=replace(unit.task, taken_down=taken_down)) for unit in planned]
    entries = runner.do(STAGE, units, recipe.output)
    runner.publish(STAGE, recipe.output, entries, recipe.extract.model_dump(mode="json"), inputs)
    if not runner.changes_nothing:
        keep_recipe(recipe, recipe.output)


def _plan(recipe: CrawlRecipe) -> tuple[list[Unit], Mapping[str, Any]]:
    """Return the units, and what the manifest says of their source.

    `warcs` in it are searched for images by who reads the documents. Those of a crawl known by name are not: they hold
    pages only, and reading them again would fetch each once more.
    """
    many: dict[str, Any] = {"per_unit": recipe.records_per_unit, "limit": recipe.limit}
    if recipe.warcs is not None:
        warcs = find_files(recipe.warcs)
        return _archive_units(recipe, warcs), {"warcs": [absolute(warc) for warc in warcs]}
    if recipe.crawl is not None:
        warcs = listed_archives(recipe.crawl_root, recipe.crawl, recipe.sample, recipe.seed)
        return _archive_units(recipe, warcs), {"crawl": recipe.crawl, "crawl_root": recipe.crawl_root}
    if recipe.pointers is not None:
        files = find_files([recipe.pointers], example="*.parquet")
        units = pointer_units(STAGE, files, source_of(recipe.crawl_root), recipe.extract, **many)
        return units, {"pointers": [absolute(file) for file in files], "crawl_root": recipe.crawl_root}
    assert recipe.pages is not None
    assert recipe.base_url is not None
    units = page_units(STAGE, find_pages(recipe.pages, recipe.base_url), recipe.extract, **many)
    return units, {"pages": list(recipe.pages), "base_url": recipe.base_url}


def _archive_units(recipe: CrawlRecipe, warcs: Sequence[Place]) -> list[Unit]:
    units = []
    for name, warc, digest in zip(unit_names(warcs), warcs, outside_digests(warcs), strict=True):
        task = CrawlTask(warc=warc, settings=recipe.extract, limit=recipe.limit)
        settings = {"extract": recipe.extract.model_dump(mode="json"), "limit": recipe.limit}
        units.append(STAGE.unit(name, task, settings=settings, inputs=[digest]))
    return units


def make_documents(unit: Unit, part: Part) -> None:
    """Write the documents of one unit, whatever its source."""
    task: CrawlTask | PointersTask | PagesTask = unit.task
    if isinstance(task, PointersTask):
        write_pointed(task, part)
    elif isinstance(task, PagesTask):
        write_pages(task, part)
    else:
        write_archive(task, part)


def write_archive(task: CrawlTask, part: Part) -> None:
    """Write the documents of one WARC file; whatever is not a readable page is counted with its reason."""
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
        extracted = part.attempt(name, extract_page, record, task.warc.name, task.settings)
        if extracted is not LOST:
            write_document(part, extracted.document, extracted.dropped, task.taken_down)


STAGE = Stage(name="documents", version=2, schema=DOCUMENTS, work=make_documents)
