"""The search for repeats, wired: of every part the digests that compete, in buckets; of every bucket what repeats.

Kinds are searched one after the other, since what repeats by one is gone when the next is searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.places import Place
from carnac.core.schema import REPEATS
from carnac.curate.repeats import REPEAT_KEYS, competing_rows, find_in_bucket
from carnac.curate.settings import RepeatKind, RepeatsPass
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.buckets import BucketWriter, num_buckets, open_database, read_bucket, read_equal
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit, digest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """What bounds the memory of the search: DuckDB's, and the rows of a bucket. Neither changes what is found."""

    max_memory_mb: int
    rows_per_bucket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysTask:
    """What a worker needs to put one part's digests into buckets. `found` are what earlier kinds found."""

    signals: Place
    masks: Place | None
    found: tuple[Place, ...]
    kind: RepeatKind
    num_buckets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketTask:
    """What a worker needs to search one bucket: `keys` are (unit, part) of all."""

    keys: tuple[tuple[str, Place], ...]
    kind: RepeatKind
    bucket: int
    max_memory_mb: int


def search_repeats(
    runner: Runner, step: RepeatsPass, signals: Manifest, last: Manifest | None, folder: Place, limits: SearchLimits
) -> Manifest:
    """Write `folder`, a part per kind and bucket, and `folder`/keys/<kind>, which only the search reads."""
    buckets = num_buckets(signals.rows, limits.rows_per_bucket)
    found: tuple[PartEntry, ...] = ()
    for kind in step.by:
        place, shown = folder / "keys" / kind, {"kind": kind, "num_buckets": buckets}
        keys = runner.do(KEYS_STAGE, _keys_units(signals, last, found, kind, buckets), place)
        runner.publish(KEYS_STAGE, place, keys, shown, {})
        found += runner.do(REPEATS_STAGE, _bucket_units(keys, kind, buckets, limits.max_memory_mb), folder)
    return runner.publish(REPEATS_STAGE, folder, found, {"by": list(step.by), "num_buckets": buckets}, {})


def _keys_units(
    signals: Manifest, last: Manifest | None, found: Sequence[PartEntry], kind: RepeatKind, buckets: int
) -> list[Unit]:
    masks = {} if last is None else {entry.unit: entry for entry in last.parts}
    earlier, settings = tuple(entry.path for entry in found), {"kind": kind, "num_buckets": buckets}
    shared = digest_of([entry.digest for entry in found])
    units = []
    for entry in signals.parts:
        mask = None if last is None else masks[entry.unit]
        task = KeysTask(
            signals=entry.path,
            masks=None if mask is None else mask.path,
            found=earlier,
            kind=kind,
            num_buckets=buckets,
        )
        inputs = [entry.digest, "" if mask is None else mask.rows_digest, shared]
        units.append(KEYS_STAGE.unit(entry.unit, task, settings=settings, inputs=inputs))
    return units


def _bucket_units(keys: Sequence[PartEntry], kind: RepeatKind, buckets: int, max_memory_mb: int) -> list[Unit]:
    parts = tuple((entry.unit, entry.path) for entry in keys)
    # The unit is no column of the keys, and decides which of two equals stays: its name is an input too.
    inputs = [digest_of([[entry.unit, entry.digest] for entry in keys])]
    units = []
    for bucket in range(buckets):
        task = BucketTask(keys=parts, kind=kind, bucket=bucket, max_memory_mb=max_memory_mb)
        settings = {"kind": kind, "bucket": bucket, "num_buckets": buckets}
        units.append(REPEATS_STAGE.unit(f"{kind}-{bucket:05d}", task, settings=settings, inputs=inputs))
    return units


def write_keys(unit: Unit, part: Part) -> None:
    """Write the documents of one part that compete by one kind, by bucket."""
    task: KeysTask = unit.task
    gone = rows_of(found_in(task.found, unit.name))
    parts: dict[str, tuple[Place, Sequence[str] | None]] = {"signals": (task.signals, ["id", f"{task.kind}_digest"])}
    if task.masks is not None:
        parts["masks"] = (task.masks, ["id", "keep"])
    with BucketWriter(part, task.num_buckets) as writer:
        for first, tables in read_aligned_tables(parts):
            writer.write(competing_rows(tables["signals"], tables.get("masks"), task.kind, gone, first))


def search_bucket(unit: Unit, part: Part) -> None:
    """Write what repeats in one bucket."""
    task: BucketTask = unit.task
    names = [name for name, _ in task.keys]
    columns = [name for name in REPEAT_KEYS.names if name != "bucket"]
    rows = (
        (place, batch) for place, (_, keys) in enumerate(task.keys) for batch in read_bucket(keys, task.bucket, columns)
    )
    with open_database(task.max_memory_mb) as database:
        for table in find_in_bucket(rows, names, task.kind, database):
            part.write_table(table)


def found_in(parts: Sequence[Place], unit: str) -> pa.Table:
    """Return what the parts of `repeats` list under one unit: its rows, ascending, with the kind."""
    batches = [batch for part in parts for batch in read_equal(part, "unit", unit, ["unit", "row", "kind"])]
    schema = pa.schema([REPEATS.field(name) for name in ("unit", "row", "kind")])
    return pa.Table.from_batches(batches, schema).sort_by("row")


def rows_of(found: pa.Table) -> npt.NDArray[np.int64]:
    """Return the rows that `found_in` found."""
    rows: npt.NDArray[np.int64] = found.column("row").to_numpy()
    return rows


def found_between(found: pa.Table, first: int, num_rows: int) -> dict[int, RepeatKind]:
    """Return the kind of what was found in `num_rows` rows from `first` on, by row counted from there."""
    start, stop = np.searchsorted(rows_of(found), [first, first + num_rows]).tolist()
    there = found.slice(start, stop - start)
    rows = [row - first for row in there.column("row").to_pylist()]
    return dict(zip(rows, there.column("kind").to_pylist(), strict=True))


KEYS_STAGE = Stage(name="repeat_keys", version=1, schema=REPEAT_KEYS, work=write_keys, rows_per_group=100_000)
REPEATS_STAGE = Stage(name="repeats", version=2, schema=REPEATS, work=search_bucket)
