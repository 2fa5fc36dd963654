"""Pointers to records, such as a query on Common Crawl's columnar index gives -> their pages, in the same order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from carnac.archive.pointers import PointedRecords, Pointer, count_pointers, read_pointers
from carnac.core.errors import RecordError
from carnac.core.places import Place
from carnac.core.taken_down import NOTHING, TakenDown
from carnac.engine.part import LOST, Part
from carnac.engine.unit import Stage, Unit, outside_digests, unit_names
from carnac.jobs.documents import MAX_PAYLOAD_BYTES, write_document
from carnac.web.extract import extract_page, is_page
from carnac.web.settings import ExtractSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PointersTask:
    """What a worker needs for the pointers in rows `start` to `stop` of a file; `root` is what their paths begin at."""

    pointers: Place
    start: int
    stop: int
    root: Place
    settings: ExtractSettings
    taken_down: TakenDown = NOTHING


def pointer_units(
    stage: Stage, files: Sequence[Place], root: Place, settings: ExtractSettings, *, per_unit: int, limit: int | None
) -> list[Unit]:
    """Return the units of pointers, `per_unit` each, in order; with `limit` each looks at its first so many only.

    Raises InputError for a file that holds no pointers.
    """
    units = []
    extract = settings.model_dump(mode="json")
    for name, file, digest in zip(unit_names(files), files, outside_digests(files), strict=True):
        num_rows = count_pointers(file)
        for number, start in enumerate(range(0, num_rows, per_unit)):
            stop = min(num_rows, start + per_unit, start + (limit or per_unit))
            task = PointersTask(pointers=file, start=start, stop=stop, root=root, settings=settings)
            known = {"extract": extract, "root": str(root), "start": start, "stop": stop}
            units.append(stage.unit(f"{name}-{number:06}", task, settings=known, inputs=[digest]))
    return units


def write_pointed(task: PointersTask, part: Part) -> None:
    """Write the documents of the records pointed to; one that cannot be had is quarantined with its reason."""
    pointers = read_pointers(task.pointers, task.start, task.stop)
    max_bytes = max(MAX_PAYLOAD_BYTES, task.settings.max_page_bytes)
    with PointedRecords(task.root, pointers, max_bytes) as records:
        for _ in records.fetch():
            part.count("requests")
        for number, name in enumerate(_names(pointers)):
            try:
                page = records.read(number)
            except RecordError as error:
                part.quarantine(name, error.reason, error.detail)
                continue
            part.count("records")
            if not is_page(page):
                part.count("not_a_page")
                continue
            part.count("pages")
            extracted = part.attempt(name, extract_page, page, name.rpartition("@")[0], task.settings)
            if extracted is not LOST:
                write_document(part, extracted.document, extracted.dropped, task.taken_down)


def _names(pointers: Sequence[Pointer]) -> list[str]:
    """Return a name for each record, FILE@OFFSET as in an archive; one that is pointed to again has a number."""
    met: Counter[str] = Counter()
    names = []
    for pointer in pointers:
        name = f"{(pointer.file or '').rpartition('/')[2]}@{pointer.offset}"
        met[name] += 1
        names.append(name if met[name] == 1 else f"{name}~{met[name]}")
    return names
