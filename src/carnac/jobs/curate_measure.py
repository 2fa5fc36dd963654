"""Documents to stored signals: of texts and pages (`signals/`), and of image files where they are known.

documents --signals--> numbers of texts and pages, block by block         one unit per documents part
documents, found --image_signals--> what the files of its images tell      one unit per documents part
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from carnac.core.places import Place
from carnac.core.schema import document_from_row
from carnac.curate.signals.catalogue import COLUMNS
from carnac.curate.signals.measure import SIGNALS, Measured, measure, not_measured, signals_table
from carnac.curate.signals.settings import MeasureSettings
from carnac.engine.manifest import Manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit, outside_digests

# Same parts, rows and order as `documents/`; a list has an entry per block, null where it is no image with a kept file.
IMAGE_COLUMNS = tuple(column for column in COLUMNS if column.table == "image_signals")
IMAGE_SIGNALS = pa.schema([("id", pa.string()), *(column.field for column in IMAGE_COLUMNS)])
# What is measured is held and written as one table, at most so many documents, or blocks: about 10 MB.
ROWS_AT_ONCE, BLOCKS_AT_ONCE = 1_000, 50_000
# Compiled functions take a second to load: the fork server loads them once for all workers.
PRELOAD = ("carnac.curate.texts.lexicon", "carnac.curate.texts.batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsTask:
    """What a worker needs to measure one part."""

    documents: Place
    limit: int | None
    settings: MeasureSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSignalsTask:
    """What a worker needs to put what image files tell beside one documents part."""

    documents: Place
    found: Place


def measure_texts(
    runner: Runner,
    folder: Place,
    documents: Manifest,
    limit: int | None,
    settings: MeasureSettings = MeasureSettings(),  # noqa: B008 -- frozen
) -> Manifest:
    """Write `folder`/signals. Raises InputError when a file that the settings name cannot be read."""
    named = [path for path in (settings.common_words, settings.perplexity_model) if path is not None]
    read = outside_digests(named)
    identity = {"limit": limit, "language": settings.language, "read": read}
    units = []
    for entry in documents.parts:
        task = SignalsTask(documents=entry.path, limit=limit, settings=settings)
        units.append(SIGNALS_STAGE.unit(entry.unit, task, settings=identity, inputs=[entry.digest]))
    entries = runner.do(SIGNALS_STAGE, units, folder / "signals")
    return runner.publish(SIGNALS_STAGE, folder / "signals", entries, identity, {"documents": str(documents.folder)})


def measure_images(runner: Runner, folder: Place, documents: Manifest, found: Manifest) -> Manifest:
    """Write `folder`/image_signals."""
    units = []
    for entry in documents.parts:
        there = found.part(entry.unit)
        task = ImageSignalsTask(documents=entry.path, found=there.path)
        inputs = [entry.digest, there.digest]
        units.append(IMAGE_SIGNALS_STAGE.unit(entry.unit, task, settings={}, inputs=inputs))
    place = folder / "image_signals"
    entries = runner.do(IMAGE_SIGNALS_STAGE, units, place)
    return runner.publish(IMAGE_SIGNALS_STAGE, place, entries, {}, {"documents": str(documents.folder)})


def measure_unit(unit: Unit, part: Part) -> None:
    """Write the signals of one documents part, row for row."""
    from carnac.curate.texts.lexicon import load_lexicon

    task: SignalsTask = unit.task
    lexicon = load_lexicon(task.settings)
    held: list[Measured] = []
    num_blocks = 0
    for number, row in enumerate(read_rows(task.documents)):
        document = document_from_row(row)
        if task.limit is not None and number >= task.limit:
            held.append(not_measured(document, "beyond_limit"))
        else:
            measured = part.attempt(f"{document.id}@{number}", measure, document, lexicon)
            # The row of a lost record stays, as nulls with the reason: rows are those of the documents.
            held.append(not_measured(document, "not_measured") if measured is LOST else measured)
        num_blocks += len(document.kinds)
        if len(held) >= ROWS_AT_ONCE or num_blocks >= BLOCKS_AT_ONCE:
            part.write_table(signals_table(held))
            held, num_blocks = [], 0
    if held:
        part.write_table(signals_table(held))


def write_image_signals(unit: Unit, part: Part) -> None:
    """Write what the image files of one documents part tell, row for row."""
    task: ImageSignalsTask = unit.task
    found = read_rows(task.found)
    following = next(found, None)
    for number, row in enumerate(read_rows(task.documents, ["id", "images"])):
        images: dict[int, dict[str, Any]] = {}
        while following is not None and following["row"] == number:
            images[following["block"]] = following
            following = next(found, None)
        part.write({"id": row["id"], **_image_row(row["images"], images)})


def _image_row(urls: list[str | None], images: dict[int, dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the columns of blocks; `images` are rows of `FOUND` by block."""
    facts = [images.get(block, {}) for block in range(len(urls))]
    columns = {
        column.name: [fact.get(column.name.removeprefix("block_")) for fact in facts] for column in IMAGE_COLUMNS
    }
    columns["block_has_image"] = [None if url is None else bool(fact) for url, fact in zip(urls, facts, strict=True)]
    return columns


SIGNALS_STAGE = Stage(name="signals", version=2, schema=SIGNALS, work=measure_unit)
IMAGE_SIGNALS_STAGE = Stage(name="image_signals", version=1, schema=IMAGE_SIGNALS, work=write_image_signals)
