"""Sketches of documents, their bands in buckets, and the documents that share one: what every round starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.places import Place
from carnac.curate.near.groups import BAND_KEYS, GROUPS, Keys, Places, places_of, shared
from carnac.curate.near.numbers import BANDS
from carnac.curate.near.sketch import SKETCHES, Sketch, sketch_texts
from carnac.engine.buckets import KEY, BucketWriter, read_bucket
from carnac.engine.part import LOST, Part
from carnac.engine.tables import read_batches
from carnac.engine.unit import Stage, Unit
from carnac.jobs.repeats_sources import PartSources, read_kept

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROWS_AT_ONCE = 1000  # sketches that are held, 2 MB
# Rows of bands that are held and put into buckets at once: 100,000 documents, 50 MB.
BANDS_AT_ONCE = 100_000 * BANDS
BATCH_ROWS = 100_000
BYTES_PER_ROW = 64  # of a row of bands while its bucket is sorted: key and place, their order, and a copy


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchTask:
    """What a worker needs to sketch one part."""

    part: PartSources


@dataclass(frozen=True, slots=True, kw_only=True)
class BandsTask:
    """What a worker needs to put the bands of one part into buckets."""

    sketches: Place
    num_buckets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupsTask:
    """What a worker needs to find who shares a band: `bands` are the parts of all units, by rank."""

    bands: tuple[Place, ...]
    bucket: int
    max_memory_mb: int


def write_sketches(unit: Unit, part: Part) -> None:
    """Write the sketches of the documents of one part that compete."""
    task: SketchTask = unit.task
    rows: list[tuple[int, str, str | None, Sketch]] = []
    for row, document, fetched_at, texts in _kept_texts(task.part):
        sketch = part.attempt(f"{document}@{row}", sketch_texts, texts)
        if sketch is not LOST and sketch is not None:
            rows.append((row, document, fetched_at, sketch))
        if len(rows) == ROWS_AT_ONCE:
            part.write_table(_table(rows))
            rows.clear()
    if rows:
        part.write_table(_table(rows))


def _kept_texts(part: PartSources) -> Iterator[tuple[int, str, str | None, list[str]]]:
    """Yield (row, id, time of fetching, texts of kept blocks) of the documents that compete."""
    for first, frame, masks in read_kept(part, {"documents": ["texts", "fetched_at"]}):
        alive = masks.is_alive
        ids, texts, times = (frame.columns[name] for name in ("id", "texts", "fetched_at"))
        for place in np.flatnonzero(masks.keep).tolist():
            kept = alive[masks.starts[place] : masks.starts[place + 1]].tolist()
            blocks = zip(texts[place].as_py(), kept, strict=True)
            chosen = [text for text, is_kept in blocks if is_kept and text is not None]
            yield first + place, ids[place].as_py(), times[place].as_py(), chosen


def _table(rows: Sequence[tuple[int, str, str | None, Sketch]]) -> pa.Table:
    """Return rows of `SKETCHES`."""
    numbers, ids, times, sketches = zip(*rows, strict=True)
    columns: list[Any] = [
        numbers,
        ids,
        [sketch.num_words for sketch in sketches],
        [microseconds(time) for time in times],
        [sketch.num_shingles for sketch in sketches],
        [sketch.bands.astype("<u8").tobytes() for sketch in sketches],
        [sketch.hashes.astype("<u4").tobytes() for sketch in sketches],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SKETCHES, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SKETCHES)


def microseconds(time: str | None) -> int | None:
    """Return microseconds since 1970 of a time in ISO 8601 with its zone; None where it is none."""
    try:
        read = None if time is None else datetime.fromisoformat(time)
    except ValueError:
        return None
    return None if read is None or read.tzinfo is None else (read - EPOCH) // timedelta(microseconds=1)


def write_bands(unit: Unit, part: Part) -> None:
    """Write a row for every band of the sketches of one part, by bucket."""
    task: BandsTask = unit.task
    with BucketWriter(part, task.num_buckets, BANDS_AT_ONCE) as writer:
        for batch in read_batches(task.sketches, ["row", "bands"]):
            keys = np.frombuffer(b"".join(batch.column("bands").to_pylist()), "<u8")
            rows = np.repeat(batch.column("row").to_numpy(), BANDS)
            writer.write(pa.table({KEY: keys, "row": rows}))


def write_groups(unit: Unit, part: Part) -> None:
    """Write the documents of one bucket that share a band with another, by key and place.

    More rows than the memory takes are sorted in several readings, each of a range of keys.
    """
    task: GroupsTask = unit.task
    for held in _slices(task, max(1, task.max_memory_mb * 1_000_000 // BYTES_PER_ROW)):
        keys, places = shared(*map(np.concatenate, zip(*held, strict=True)))
        part.write_table(pa.table({KEY: keys, "place": places}))


def _slices(task: GroupsTask, max_rows: int) -> Iterator[list[tuple[Keys, Places]]]:
    """Yield all rows of a bucket by ascending ranges of keys, about `max_rows` at once."""
    num_rows, held = 0, list[tuple[Keys, Places]]()
    for chunk in _bands(task):
        num_rows += len(chunk[0])
        if num_rows <= max_rows:
            held.append(chunk)
        else:
            held.clear()
    if held:
        yield held
        return
    num_slices = -(-num_rows // max_rows)
    for number in range(num_slices):
        held = []
        for keys, places in _bands(task):
            mine = (keys >> np.uint64(32)) * np.uint64(num_slices) >> np.uint64(32) == number
            held.append((keys[mine], places[mine]))
        yield held


def _bands(task: GroupsTask) -> Iterator[tuple[Keys, Places]]:
    """Yield the keys and places of one bucket."""
    for rank, bands in enumerate(task.bands):
        for batch in read_bucket(bands, task.bucket, (KEY, "row"), BATCH_ROWS):
            rows: npt.NDArray[np.int64] = batch.column("row").to_numpy()
            yield batch.column(KEY).to_numpy(), places_of(rank, rows)


SKETCHES_STAGE = Stage(name="near_sketches", version=1, schema=SKETCHES, work=write_sketches, is_step=True)
BANDS_STAGE = Stage(
    name="near_bands", version=1, schema=BAND_KEYS, work=write_bands, rows_per_group=BATCH_ROWS, is_step=True
)
GROUPS_STAGE = Stage(
    name="near_groups", version=1, schema=GROUPS, work=write_groups, rows_per_group=BATCH_ROWS, is_step=True
)
