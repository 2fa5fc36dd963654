"""Documents that hold items of evaluation sets: their kept texts and pictures are compared with those of every set.

evaluation sets --contamination_sets--> hashes with their items                     one unit per set
documents, image_signals, last masks --contaminated--> what each set was found in   one unit per documents part
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.core.schema import HITS
from carnac.curate.contamination.ngrams import hash_words
from carnac.curate.contamination.pictures import nearest_pictures
from carnac.curate.contamination.settings import DecontaminatePass, reason_of
from carnac.curate.masks import SIGNALS_FAILED, Masks, check_same_rows
from carnac.curate.signals.frame import starts_of
from carnac.curate.texts.split import split_words
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.manifest import Manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.jobs.curate_contamination_sets import KnownSet, read_set, write_sets

# A row per document and set whose text it shares, and one per picture of a set. Of a text: the first run of words that
# is shared, the item that it is of, and how many runs are. Of a picture: its URL, and the bits by which it differs.
CONTAMINATED = pa.schema(
    [
        *HITS,
        ("set", pa.string()),
        ("item", pa.string()),
        ("shared", pa.string()),
        ("num_runs", pa.int32()),
        ("image_url", pa.string()),
        ("distance", pa.int32()),
    ]
)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContaminationTask:
    """What a worker needs to compare one documents part with all sets: (name, part) of each."""

    documents: Place
    images: Place | None
    last: Place | None
    sets: tuple[tuple[str, Place], ...]
    max_phash_distance: int
    drop_images: str


def search_contamination(
    runner: Runner,
    step: DecontaminatePass,
    documents: Manifest,
    images: Manifest | None,
    last: Manifest | None,
    folder: Place,
) -> Manifest:
    """Write what of the documents that `last` keeps is of an evaluation set to `folder`, and the sets to `folder`/sets.

    `images` are those of `image_signals`. Raises InputError where sets have pictures and there are none of documents.
    """
    pictures = [each.name for each in step.sets if each.images is not None]
    if pictures and images is None:
        raise InputError(
            f"pass {step.name!r} compares pictures of {', '.join(pictures)}, but no images are known yet: "
            "give `images` in the recipe, put a pass of kind 'fetch' before it, or leave `images` of these sets out."
        )
    images = images if pictures else None
    sets = write_sets(runner, step, folder / "sets")
    parts = tuple((each.name, sets.part(each.name).path) for each in step.sets)
    settings = step.model_dump(mode="json", include={"ngram", "max_phash_distance", "drop_images"})
    units = []
    for entry in documents.parts:
        found = None if images is None else images.part(entry.unit)
        kept = None if last is None else last.part(entry.unit)
        task = ContaminationTask(
            documents=entry.path,
            images=None if found is None else found.path,
            last=None if kept is None else kept.path,
            sets=parts,
            max_phash_distance=step.max_phash_distance,
            drop_images=step.drop_images,
        )
        inputs = [entry.digest, "" if found is None else found.digest, "" if kept is None else kept.rows_digest]
        inputs += [each.digest for each in sets.parts]
        named = {**settings, "sets": [each.name for each in step.sets]}
        units.append(CONTAMINATED_STAGE.unit(entry.unit, task, settings=named, inputs=inputs))
    entries = runner.do(CONTAMINATED_STAGE, units, folder)
    return runner.publish(CONTAMINATED_STAGE, folder, entries, settings, {"documents": str(documents.folder)})


def compare_unit(unit: Unit, part: Part) -> None:
    """Write what of one documents part is of a set, by row; counts the documents, or images, of each set."""
    task: ContaminationTask = unit.task
    sets = [read_set(place, name) for name, place in task.sets]
    for first, tables in read_aligned_tables(_parts(task)):
        check_same_rows(*tables.values())
        masks = _masks(tables)
        rows = [*_shared_texts(tables["documents"], masks, sets, first, part)]
        if "images" in tables:
            rows += _shared_pictures(tables, masks, sets, task)
        for row in rows:
            part.count(row["reason"])
        table = pa.Table.from_pylist(sorted(rows, key=lambda row: int(row["row"])), CONTAMINATED)
        part.write_table(table.set_column(1, "row", pc.add(table.column("row"), first)))


def _parts(task: ContaminationTask) -> dict[str, tuple[Place, Sequence[str]]]:
    parts: dict[str, tuple[Place, Sequence[str]]] = {"documents": (task.documents, ["id", "texts", "images"])}
    if task.images is not None:
        parts["images"] = (task.images, ["id", "block_phash"])
    if task.last is not None:
        parts["last"] = (task.last, ["id", "reason", "block_reason"])
    return parts


def _masks(tables: Mapping[str, pa.Table]) -> Masks:
    documents = tables["documents"]
    return Masks.after(tables.get("last"), documents.column("id"), starts_of(documents.column("texts")))


def _shared_texts(documents: pa.Table, masks: Masks, sets: Sequence[KnownSet], first: int, part: Part) -> Iterator[Row]:
    """Yield a row per document and set that shares a run of words with it. Runs go on from block to block."""
    alive = masks.is_alive
    columns = (documents.column(name).to_pylist() for name in ("id", "texts"))
    for row, (name, texts) in enumerate(zip(*columns, strict=True)):
        start = masks.starts[row]
        kept = [text for block, text in enumerate(texts) if text is not None and alive[start + block]]
        if not kept:
            continue
        found = part.attempt(f"{name}@{first + row}", _compare_texts, kept, sets)
        # What could not be compared goes: it may be anything.
        rows = [{"reason": SIGNALS_FAILED}] if found is LOST else found
        yield from ({"id": name, "row": row, **each} for each in rows)


def _compare_texts(texts: Sequence[str], sets: Sequence[KnownSet]) -> list[Row]:
    """Return what a document's texts share with each set."""
    words = [word for text in texts for word in split_words(text)]
    hashes = hash_words(words)
    rows = []
    for known in sets:
        run = known.texts.find(hashes)
        if run is not None:
            shared = " ".join(words[run.position : run.position + run.length])
            facts = {"set": known.name, "item": run.item, "shared": shared, "num_runs": run.num_runs}
            rows.append({"reason": reason_of(known.name), **facts})
    return rows


def _shared_pictures(
    tables: Mapping[str, pa.Table], masks: Masks, sets: Sequence[KnownSet], task: ContaminationTask
) -> Iterator[Row]:
    """Yield a row per kept picture and set that holds it."""
    hashes = tables["images"].column("block_phash").combine_chunks().flatten()
    places = np.flatnonzero(masks.is_alive & hashes.is_valid().to_numpy(zero_copy_only=False))
    kept = hashes.take(pa.array(places)).to_numpy()
    urls = tables["documents"].column("images").combine_chunks().flatten()
    ids = tables["documents"].column("id")
    for known in sets:
        nearest, bits = nearest_pictures(kept, known.pictures, task.max_phash_distance)
        for number in np.flatnonzero(nearest >= 0).tolist():
            place = int(places[number])
            row = int(np.searchsorted(masks.starts, place, side="right")) - 1
            facts = {"set": known.name, "item": known.picture_items[int(nearest[number])].as_py()}
            block = place - int(masks.starts[row]) if task.drop_images == "image" else None
            seen = {"image_url": urls[place].as_py(), "distance": int(bits[number])}
            yield {"id": ids[row].as_py(), "row": row, "block": block, "reason": reason_of(known.name), **facts, **seen}


CONTAMINATED_STAGE = Stage(
    name="contaminated", version=1, schema=CONTAMINATED, work=compare_unit, rows_per_group=10_000
)
