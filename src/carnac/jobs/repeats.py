"""The search for repeats, wired: of every part the keys that compete, in buckets; of every bucket what repeats.

Kinds are searched one after the other, since what repeats by one is gone when the next is searched.

signals, documents, images, masks --repeat_keys--> keys by bucket          one unit per kind and documents part
keys --repeats--> what repeats                                             one unit per kind and bucket
signals, images, masks --repeats--> images that a document shows again     one unit per documents part
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.core.schema import REPEATS
from carnac.curate.repeats.keys import BLOCK_KEYS, COLUMNS_OF, COLUMNS_OF_KEEP, DOCUMENT_KEYS, block_keys, document_keys
from carnac.curate.repeats.search import Bucket, cut, find_documents, find_frequent
from carnac.curate.repeats.settings import DOCUMENT_KINDS, Keep, RepeatKind, RepeatsPass
from carnac.curate.repeats.within import KIND as WITHIN
from carnac.curate.repeats.within import find_in_documents
from carnac.engine.buckets import BucketWriter, num_buckets, open_database, read_bucket
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit, digest_of
from carnac.jobs.repeats_sources import (
    PartSources,
    RepeatSources,
    SearchLimits,
    part_sources,
    read_kept,
    within_unit,
)

__all__ = ["RepeatSources", "SearchLimits", "search_repeats"]

# A block's key is a quarter of a document's row, and a document has 43 blocks (OBELICS): as many buckets for blocks as
# for four times the documents fill DuckDB's default cap of 1000 MB with the keys of a bucket.
BLOCKS_PER_ROW = 4
KEYS_AT_ONCE = 10_000  # of a part's rows of a bucket
DOCUMENTS_PER_FLUSH = 100_000
BLOCKS_PER_FLUSH = 500_000  # 30 MB; a row group per bucket and flush should hold more than a few rows


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysTask:
    """What a worker needs to put one part's keys into buckets. `keep` is "first" for kinds of blocks."""

    part: PartSources
    kind: RepeatKind
    keep: Keep
    num_buckets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketTask:
    """What a worker needs to search one bucket: `keys` are the parts of all units. `max_copies` is for blocks."""

    keys: Mapping[str, Place]
    kind: RepeatKind
    max_copies: int | None
    bucket: int
    max_memory_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """A search of several kinds."""

    runner: Runner
    step: RepeatsPass
    sources: RepeatSources
    folder: Place
    limits: SearchLimits


def search_repeats(
    runner: Runner, step: RepeatsPass, sources: RepeatSources, folder: Place, limits: SearchLimits
) -> Manifest:
    """Write `folder`, parts of what repeats, and `folder`/keys/<kind>, which only the search reads.

    Raises InputError where a kind needs image files and none are known.
    """
    search = _Search(runner=runner, step=step, sources=sources, folder=folder, limits=limits)
    found: tuple[PartEntry, ...] = ()
    for kind in step.by:
        if kind in ("image_sha256", "image_phash") and sources.images is None:
            raise InputError(
                f"pass {step.name!r}: repeats by {kind} need image files, and none are known here. Give the recipe "
                '`images`, or put a pass of kind "fetch" before this one.'
            )
        found += _found_by(search, kind, found)
    return runner.publish(REPEATS_STAGE, folder, found, {"by": list(step.by)}, {})


def _found_by(search: _Search, kind: RepeatKind, found: tuple[PartEntry, ...]) -> tuple[PartEntry, ...]:
    """Search one kind; `found` is what the kinds before it found."""
    runner, step, folder = search.runner, search.step, search.folder
    if kind == "near":
        from carnac.jobs.repeats_near import search_near

        return search_near(runner, step, search.sources, found, folder, search.limits)
    if kind == "image_phash":
        from carnac.jobs.repeats_phash import search_phash

        return search_phash(runner, step, search.sources, found, folder, search.limits)
    if kind == WITHIN:
        return runner.do(WITHIN_STAGE, _within_units(search.sources, found), folder)
    return _search_buckets(search, kind, found)


def _search_buckets(search: _Search, kind: RepeatKind, found: tuple[PartEntry, ...]) -> tuple[PartEntry, ...]:
    """Put the keys of every part into buckets and search each."""
    is_document = kind in DOCUMENT_KINDS
    stage = DOCUMENT_KEYS_STAGE if is_document else BLOCK_KEYS_STAGE
    keep: Keep = search.step.keep if is_document else "first"
    rows = search.sources.signals.rows * (1 if is_document else BLOCKS_PER_ROW)
    buckets = num_buckets(rows, search.limits.rows_per_bucket)
    place, settings = search.folder / "keys" / kind, {"kind": kind, "keep": keep, "num_buckets": buckets}
    units = []
    for entry in search.sources.signals.parts:
        part, digests = part_sources(search.sources, entry.unit, found, sorted(_columns(kind, keep)))
        task = KeysTask(part=part, kind=kind, keep=keep, num_buckets=buckets)
        units.append(stage.unit(entry.unit, task, settings=settings, inputs=digests))
    keys = search.runner.do(stage, units, place)
    search.runner.publish(stage, place, keys, settings, {})
    copies = None if is_document else _max_copies(search.step, kind)
    return search.runner.do(
        REPEATS_STAGE, _bucket_units(keys, kind, copies, buckets, search.limits.max_memory_mb), search.folder
    )


def _max_copies(step: RepeatsPass, kind: RepeatKind) -> int:
    return step.max_paragraph_copies if kind == "paragraph" else step.max_image_copies


def _columns(kind: RepeatKind, keep: Keep) -> dict[str, tuple[str, ...]]:
    """Return the stored columns that a kind reads, by folder."""
    kinds, keeps = COLUMNS_OF[kind], COLUMNS_OF_KEEP[keep]
    return {folder: (*kinds.get(folder, ()), *keeps.get(folder, ())) for folder in sorted({*kinds, *keeps})}


def _bucket_units(
    keys: Sequence[PartEntry], kind: RepeatKind, max_copies: int | None, buckets: int, max_memory_mb: int
) -> list[Unit]:
    parts = {entry.unit: entry.path for entry in keys}
    # The unit is no column of the keys, and decides which of two equals stays: its name is an input too.
    inputs = [digest_of(sorted([entry.unit, entry.digest] for entry in keys))]
    units = []
    for bucket in range(buckets):
        task = BucketTask(keys=parts, kind=kind, max_copies=max_copies, bucket=bucket, max_memory_mb=max_memory_mb)
        settings = {"kind": kind, "max_copies": max_copies, "bucket": bucket, "num_buckets": buckets}
        units.append(REPEATS_STAGE.unit(f"{kind}-{bucket:05d}", task, settings=settings, inputs=inputs))
    return units


def _within_units(sources: RepeatSources, found: Sequence[PartEntry]) -> list[Unit]:
    units = []
    for entry in sources.signals.parts:
        part, digests = part_sources(sources, entry.unit, found, sorted(COLUMNS_OF[WITHIN]))
        units.append(WITHIN_STAGE.unit(within_unit(entry.unit), part, settings={"kind": WITHIN}, inputs=digests))
    return units


def write_keys(unit: Unit, part: Part) -> None:
    """Write the documents of one part that compete by one kind, or the blocks that it counts, by bucket."""
    task: KeysTask = unit.task
    is_document = task.kind in DOCUMENT_KINDS
    with BucketWriter(part, task.num_buckets, DOCUMENTS_PER_FLUSH if is_document else BLOCKS_PER_FLUSH) as writer:
        for first, frame, masks in read_kept(task.part, _columns(task.kind, task.keep)):
            if is_document:
                writer.write(document_keys(frame, masks, task.kind, task.keep, first))
            else:
                writer.write(block_keys(frame, masks, task.kind, first))


def search_bucket(unit: Unit, part: Part) -> None:
    """Write what repeats in one bucket."""
    task: BucketTask = unit.task
    bucket = Bucket(
        units=tuple(task.keys),
        read=lambda name, columns: read_bucket(task.keys[name], task.bucket, columns, KEYS_AT_ONCE),
    )
    with open_database(task.max_memory_mb) as database:
        if task.max_copies is None:
            tables = find_documents(bucket, task.kind, database)
        else:
            tables = find_frequent(bucket, task.kind, task.max_copies, database)
        for table in tables:
            part.write_table(table)


def search_within(unit: Unit, part: Part) -> None:
    """Write the images that each document of one part shows again."""
    task: PartSources = unit.task
    for table in cut(_found_within(task)):
        part.write_table(table)


def _found_within(task: PartSources) -> Iterator[pa.Table]:
    for first, frame, masks in read_kept(task, COLUMNS_OF[WITHIN]):
        yield find_in_documents(frame, masks, task.unit, first)


DOCUMENT_KEYS_STAGE = Stage(
    name="repeat_keys", version=2, schema=DOCUMENT_KEYS, work=write_keys, rows_per_group=DOCUMENTS_PER_FLUSH
)
BLOCK_KEYS_STAGE = Stage(
    name="repeat_keys", version=2, schema=BLOCK_KEYS, work=write_keys, rows_per_group=BLOCKS_PER_FLUSH
)
REPEATS_STAGE = Stage(name="repeats", version=3, schema=REPEATS, work=search_bucket)
WITHIN_STAGE = Stage(name="repeats", version=REPEATS_STAGE.version, schema=REPEATS, work=search_within)
