"""Folders of HTML -> pages. A page's URL is `base_url` and its path below the folder that its pattern names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from carnac.archive.bodies import read_at_most
from carnac.archive.records import Response
from carnac.core.errors import InputError
from carnac.core.places import Place, absolute, below, is_local, open_binary
from carnac.core.stores import store_errors
from carnac.core.taken_down import NOTHING, TakenDown
from carnac.engine.part import LOST, Part
from carnac.engine.unit import Stage, Unit, outside_digests
from carnac.jobs.documents import MAX_PAYLOAD_BYTES, write_document
from carnac.jobs.inputs import find_files, place_named
from carnac.web.extract import Extracted, extract_page, is_page
from carnac.web.settings import ExtractSettings

_PAGE_SUFFIXES = (".html", ".htm", ".xhtml", ".shtml")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFile:
    """A page on a disk or in a store. `name` is its path below the folder that its pattern names."""

    place: Place
    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesTask:
    """What a worker needs for a group of pages."""

    files: tuple[PageFile, ...]
    settings: ExtractSettings
    taken_down: TakenDown = NOTHING


def find_pages(patterns: Sequence[str], base_url: str) -> list[PageFile]:
    """Return the files that patterns name, each once. Raises InputError where two have one URL, or a pattern none."""
    base_url = base_url if base_url.endswith("/") else f"{base_url}/"
    found: dict[str, PageFile] = {}
    by_url: dict[str, Place] = {}
    for pattern in patterns:
        folder = fixed_folder(pattern)
        for place in find_files([pattern], example="*.html"):
            name = below(place, folder)
            page = PageFile(place=place, name=name, url=base_url + quote(name))
            other = by_url.setdefault(page.url, place)
            if absolute(other) != absolute(place):
                raise InputError(
                    f"{other} and {place} would both be {page.url}. Wanted a URL per page: give them recipes of their "
                    "own, with another base_url."
                )
            found.setdefault(absolute(place), page)
    return list(found.values())


def fixed_folder(pattern: str) -> Place:
    """Return the folder of a pattern up to where it begins to vary: of `site/**/*.html` it is `site`."""
    place = place_named(pattern)
    if is_local(place) and place.is_file():
        return place.parent
    kept = re.split(r"[*?\[]", str(place), maxsplit=1)[0]
    folder = kept.rpartition("/")[0] if kept != str(place) else str(place).rpartition("/")[0]
    if is_local(place):
        return Path(folder or ("/" if str(place).startswith("/") else "."))
    return place_named(folder)


def page_units(
    stage: Stage, files: Sequence[PageFile], settings: ExtractSettings, *, per_unit: int, limit: int | None
) -> list[Unit]:
    """Return the units of pages, `per_unit` each, in order; with `limit` each looks at its first so many only."""
    units = []
    for number, start in enumerate(range(0, len(files), per_unit)):
        group = tuple(files[start : start + per_unit][:limit])
        inputs = outside_digests([file.place for file in group])
        known = {"extract": settings.model_dump(mode="json"), "urls": [file.url for file in group]}
        task = PagesTask(files=group, settings=settings)
        units.append(stage.unit(f"pages-{number:06}", task, settings=known, inputs=inputs))
    return units


def write_pages(task: PagesTask, part: Part) -> None:
    """Write the documents of a group of pages; a file that is no HTML is counted."""
    for file in task.files:
        part.count("records")
        extracted = part.attempt(file.name, _extract_page, file, task.settings)
        if extracted is None:
            part.count("not_a_page")
            continue
        part.count("pages")
        if extracted is not LOST:
            write_document(part, extracted.document, extracted.dropped, task.taken_down)


def _extract_page(file: PageFile, settings: ExtractSettings) -> Extracted | None:
    """Return the document of a file; None where it is no page. Raises RecordError."""
    with open_binary(file.place) as stream, store_errors(file.place):
        payload = read_at_most(stream, max(MAX_PAYLOAD_BYTES, settings.max_page_bytes))
    # What is called a page is one, whatever it begins with; of other names a look at the content decides.
    media_type = "text/html" if file.name.lower().endswith(_PAGE_SUFFIXES) else ""
    page = Response(
        url=file.url, offset=0, fetched_at=None, status=200, media_type=media_type, charset=None, payload=payload
    )
    return extract_page(page, file.name, settings) if is_page(page) else None
