"""One round of the search for near-duplicates: pairs proposed, their sketches fetched, pairs compared, sets formed.

Sketches are never read at random: each part gives those that pairs need, once per bucket of pairs, and a bucket of
pairs then reads its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.places import Place
from carnac.core.schema import REPEATS
from carnac.curate.near.groups import (
    EDGES,
    Keys,
    Places,
    by_whole_keys,
    distinct_edges,
    edge_keys,
    is_among,
    new_edges,
    places_of,
    units_and_rows,
)
from carnac.curate.near.numbers import MARGIN
from carnac.curate.near.sets import linked, stays
from carnac.curate.near.sketch import compare_pairs, holds_all
from carnac.curate.repeats.settings import Keep, repeat_reason
from carnac.engine.buckets import BUCKET, KEY, BucketWriter, read_bucket, read_equal
from carnac.engine.part import Part
from carnac.engine.tables import read_batches, read_table
from carnac.engine.unit import Stage, Unit
from carnac.jobs.repeats import REPEATS_STAGE

ROWS_AT_ONCE = 100_000
SKETCHES_AT_ONCE = 20_000  # 40 MB
BYTES_PER_PAIR = 12_000  # two full sketches of 2 kB: as they are read, gathered, and in one array
MAX_PAIRS_AT_ONCE = 250_000  # Arrow's arrays of bytes end at 2 GB
NEVER = 1 << 62  # in place of the time of a document that has none

PAIRS = pa.schema([("unit", pa.int32()), ("place", pa.int64()), ("other", pa.int64())])
# `rank` says which of a set stays: the document of the least, of equals that of the smallest place.
WANTED = pa.schema(
    [
        (BUCKET, pa.int32()),
        ("place", pa.int64()),
        ("id", pa.string()),
        ("rank", pa.int64()),
        ("num_shingles", pa.int64()),
        ("hashes", pa.binary()),
    ]
)
COMPARED = pa.schema(
    [
        ("first", pa.int64()),
        ("second", pa.int64()),
        ("similarity", pa.float64()),
        ("first_rank", pa.int64()),
        ("second_rank", pa.int64()),
        ("first_id", pa.string()),
        ("second_id", pa.string()),
    ]
)
# A document that goes: the round and the set in which it does, by the one that stayed then, and what stays at last.
SETS = pa.schema([("place", pa.int64()), ("round", pa.int64()), ("set", pa.int64()), ("root", pa.int64())])


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgesTask:
    """What a worker needs to propose pairs of one bucket of bands; `dropped_before` are sets of the round before."""

    groups: Place
    dropped: Place | None
    dropped_before: Place | None
    num_buckets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsTask:
    """What a worker needs to list each pair of one bucket of pairs once."""

    edges: tuple[Place, ...]
    bucket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTask:
    """What a worker needs to give the sketches of one part, the unit of this rank, to the `pairs` of all buckets."""

    pairs: tuple[Place, ...]
    sketches: Place
    rank: int
    keep: Keep


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareTask:
    """What a worker needs to compare the pairs of one bucket: `wanted` are the parts of all units."""

    pairs: Place
    wanted: tuple[Place, ...]
    bucket: int
    min_similarity: float
    max_memory_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetsTask:
    """What a worker needs to form sets: all pairs that are alike, and the sets of the round before this `number`."""

    number: int
    compared: tuple[Place, ...]
    before: Place | None
    min_similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesTask:
    """What a worker needs to say which documents go: the last sets, the pairs for their ids, units by rank."""

    sets: Place
    compared: tuple[Place, ...]
    units: tuple[str, ...]


def write_edges(unit: Unit, part: Part) -> None:
    """Write the pairs to compare of one bucket of bands, by bucket of the pair."""
    task: EdgesTask = unit.task
    dropped = _dropped(task.dropped)
    before = None if task.dropped is None else _dropped(task.dropped_before)
    with BucketWriter(part, task.num_buckets, 10 * ROWS_AT_ONCE) as writer:
        for keys, places in by_whole_keys(_groups(task.groups)):
            less, greater = distinct_edges(*new_edges(keys, places, dropped, before))
            writer.write(pa.table({KEY: edge_keys(less, greater), "first": less, "second": greater}))


def _groups(part: Place) -> Iterator[tuple[Keys, Places]]:
    """Yield the groups of one bucket, some thousand rows at once: a batch a time would cut them often."""
    held: list[pa.RecordBatch] = []
    for batch in read_batches(part, [KEY, "place"]):
        held.append(batch)
        if sum(map(len, held)) >= ROWS_AT_ONCE:
            yield _key_and_place(held)
            held = []
    if held:
        yield _key_and_place(held)


def _key_and_place(batches: Sequence[pa.RecordBatch]) -> tuple[Keys, Places]:
    table = pa.Table.from_batches(batches)
    return table.column(KEY).to_numpy(), table.column("place").to_numpy()


def _dropped(sets: Place | None) -> Places:
    """Return the places that sets drop, ascending."""
    dropped: Places = np.zeros(0, np.int64) if sets is None else read_table(sets, ["place"])["place"].to_numpy()
    return dropped


def write_pairs(unit: Unit, part: Part) -> None:
    """Write each pair of one bucket from both its ends, by unit: a unit then reads only what is its own."""
    task: PairsTask = unit.task
    held = [
        (batch.column("first").to_numpy(), batch.column("second").to_numpy())
        for edges in task.edges
        for batch in read_bucket(edges, task.bucket, ("first", "second"), ROWS_AT_ONCE)
    ]
    if not held:
        return
    less, greater = distinct_edges(*map(np.concatenate, zip(*held, strict=True)))
    place, other = np.concatenate([less, greater]), np.concatenate([greater, less])
    order = np.lexsort((other, place))
    units, _ = units_and_rows(place[order])
    part.write_table(pa.table({"unit": units.astype(np.int32), "place": place[order], "other": other[order]}))


def write_wanted(unit: Unit, part: Part) -> None:
    """Write the sketches of one part that pairs need, a row group per bucket of pairs and `SKETCHES_AT_ONCE`."""
    task: WantedTask = unit.task
    rows, buckets = _asked(task)
    if not len(rows):
        return
    held: list[pa.RecordBatch] = []
    columns = ["row", "id", "num_words", "fetched_at", "num_shingles", "hashes"]
    for batch in read_batches(task.sketches, columns):
        there: Places = batch.column("row").to_numpy()
        start, stop = np.searchsorted(rows, [there[0], there[-1] + 1])
        if start == stop:
            continue
        taken = batch.take(pa.array(np.searchsorted(there, rows[start:stop])))
        held.append(taken.append_column(BUCKET, pa.array(buckets[start:stop])))
        if sum(map(len, held)) >= SKETCHES_AT_ONCE:
            _write_by_bucket(part, task, held)
            held = []
    if held:
        _write_by_bucket(part, task, held)


def _asked(task: WantedTask) -> tuple[Places, npt.NDArray[np.int32]]:
    """Return the rows of a part that are wanted, ascending, and by which bucket of pairs; a row may be there twice."""
    held: list[tuple[Places, npt.NDArray[np.int32]]] = []
    for bucket, pairs in enumerate(task.pairs):
        places = [batch.column("place").to_numpy() for batch in read_equal(pairs, "unit", task.rank, ["place"])]
        if places:
            _, rows = units_and_rows(np.unique(np.concatenate(places)))
            held.append((rows, np.full(len(rows), bucket, np.int32)))
    if not held:
        return np.zeros(0, np.int64), np.zeros(0, np.int32)
    rows, buckets = map(np.concatenate, zip(*held, strict=True))
    order = np.argsort(rows, kind="stable")
    return rows[order], buckets[order]


def _write_by_bucket(part: Part, task: WantedTask, batches: Sequence[pa.RecordBatch]) -> None:
    """Write rows so that one bucket of them can be read alone."""
    table = pa.Table.from_batches(batches).sort_by([(BUCKET, "ascending"), ("row", "ascending")])
    ranks = {"first": "row", "latest": "fetched_at", "longest": "num_words"}
    if task.keep == "first":
        rank = pa.array(np.zeros(table.num_rows, np.int64))
    else:
        rank = pc.fill_null(pc.negate(table.column(ranks[task.keep])), NEVER)
    buckets = table.column(BUCKET).to_numpy()
    rows = pa.table(
        {
            BUCKET: buckets,
            "place": places_of(task.rank, table.column("row").to_numpy()),
            "id": table.column("id"),
            "rank": rank,
            "num_shingles": table.column("num_shingles"),
            "hashes": table.column("hashes"),
        }
    )
    cuts = [0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), len(buckets)]
    for start, stop in pairwise(cuts):
        part.write_table(rows.slice(start, stop - start))


def write_compared(unit: Unit, part: Part) -> None:
    """Write the pairs of one bucket that are alike, or nearly so, by their places."""
    task: CompareTask = unit.task
    pairs = read_table(task.pairs, ["place", "other"])
    less, greater = pairs.column("place").to_numpy(), pairs.column("other").to_numpy()
    less, greater = less[less < greater], greater[less < greater]
    at_once = min(MAX_PAIRS_AT_ONCE, max(1, task.max_memory_mb * 1_000_000 // BYTES_PER_PAIR))
    for start in range(0, len(less), at_once):
        part.write_table(_alike(task, less[start : start + at_once], greater[start : start + at_once]))


def _alike(task: CompareTask, less: Places, greater: Places) -> pa.Table:
    """Return those of some pairs that are alike."""
    ends = np.unique(np.concatenate([less, greater]))
    sketches = _sketches(task, ends)
    places = sketches.column("place").to_numpy()
    assert np.array_equal(places, ends), f"bucket {task.bucket} lacks sketches of its pairs"
    pairs = np.stack([np.searchsorted(places, less), np.searchsorted(places, greater)], axis=1)
    hashes = sketches.column("hashes")
    lengths = pc.divide(pc.binary_length(hashes), 4).to_numpy()
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    counts = sketches.column("num_shingles").to_numpy()
    flat = np.frombuffer(b"".join(hashes.to_pylist()), "<u4")
    similarity = compare_pairs(pairs, starts, flat, holds_all(counts, lengths))
    found = similarity >= task.min_similarity - MARGIN
    first, second = (sketches.take(pa.array(pairs[found, end])) for end in (0, 1))
    columns = {"first": less[found], "second": greater[found], "similarity": similarity[found]}
    ranks = {"first_rank": first.column("rank"), "second_rank": second.column("rank")}
    return pa.table({**columns, **ranks, "first_id": first.column("id"), "second_id": second.column("id")})


def _sketches(task: CompareTask, ends: Places) -> pa.Table:
    """Return the sketches at these places, by place."""
    columns = ["place", "id", "rank", "num_shingles", "hashes"]
    held = [
        batch.filter(pa.array(is_among(batch.column("place").to_numpy(), ends)))
        for wanted in task.wanted
        for batch in read_bucket(wanted, task.bucket, columns)
    ]
    table = pa.Table.from_batches(held)
    return table.take(pa.array(np.argsort(table.column("place").to_numpy())))


def write_sets(unit: Unit, part: Part) -> None:
    """Write every document that goes, by place, with the one of its set that stays.

    Only what the rounds before left is put into sets, each document anew: so another search of what is left at last
    finds the same pairs, and none of them alike.
    """
    task: SetsTask = unit.task
    before = None if task.before is None else read_table(task.before)
    dropped = _dropped(task.before)
    columns = ["first", "second", "similarity", "first_rank", "second_rank"]
    table = pa.concat_tables([COMPARED.empty_table().select(columns), *(read_table(p, columns) for p in task.compared)])
    first, second = table.column("first").to_numpy(), table.column("second").to_numpy()
    table = table.filter(pa.array(~is_among(first, dropped) & ~is_among(second, dropped)))
    first, second, similarity, *ranks = (table.column(name).to_numpy() for name in columns)
    places, which = np.unique(np.concatenate([first, second]), return_index=True)
    pairs = np.searchsorted(places, first), np.searchsorted(places, second)
    sets = linked(pairs, similarity, len(places), task.min_similarity, task.min_similarity - MARGIN)
    chosen = stays(sets, np.concatenate(ranks)[which])
    goes = chosen != np.arange(len(places))
    gone, roots = places[goes], places[chosen[goes]]
    rows = {"place": gone, "round": np.full(len(gone), task.number), "set": roots, "root": roots}
    part.write_table(_added(before, pa.table(rows)))


def _added(before: pa.Table | None, rows: pa.Table) -> pa.Table:
    """Return rows of `SETS` with those of another round; what was dropped for one that goes now gets its root."""
    if before is None:
        return rows
    gone, roots = rows.column("place").to_numpy(), rows.column("root").to_numpy()
    last = before.column("root").to_numpy().copy()
    moved = is_among(last, gone)
    last[moved] = roots[np.searchsorted(gone, last[moved])]
    before = before.set_column(SETS.get_field_index("root"), "root", pa.array(last))
    return pa.concat_tables([before, rows]).sort_by("place")


def write_names(unit: Unit, part: Part) -> None:
    """Write the rows of `REPEATS` of what sets drop, by unit and row."""
    task: NamesTask = unit.task
    sets = read_table(task.sets)
    places, numbers, formed, roots = (sets.column(name).to_numpy() for name in SETS.names)
    names, ids = _ids(task.compared, np.unique(np.concatenate([places, roots])))
    units = pa.array(task.units, pa.string())
    for start in range(0, len(places), ROWS_AT_ONCE):
        mine, theirs = places[start : start + ROWS_AT_ONCE], roots[start : start + ROWS_AT_ONCE]
        (ranks, rows), (set_ranks, set_rows) = map(units_and_rows, (mine, formed[start : start + ROWS_AT_ONCE]))
        size, set_units = len(mine), units.take(pa.array(set_ranks))
        columns = {
            "id": ids.take(pa.array(np.searchsorted(names, mine))),
            "row": pa.array(rows),
            "block": pa.nulls(size, pa.int32()),
            "reason": pa.repeat(repeat_reason("near"), size),
            "unit": units.take(pa.array(ranks)),
            "kind": pa.repeat("near", size),
            "key": _set_names(set_units, set_rows, numbers[start : start + ROWS_AT_ONCE]),
            "root": ids.take(pa.array(np.searchsorted(names, theirs))),
        }
        part.write_table(pa.table({name: columns[name] for name in REPEATS.names}))


def _set_names(units: pa.Array, rows: Places, numbers: npt.NDArray[np.int64]) -> pa.Array:
    """Return "UNIT@ROW~ROUND": a set by the place of what stayed of it when it was formed; ids need not be unique."""
    places = pc.binary_join_element_wise(units, pa.array(rows).cast(pa.string()), "@")
    return pc.binary_join_element_wise(places, pa.array(numbers).cast(pa.string()), "~")


def _ids(compared: Sequence[Place], wanted: Places) -> tuple[Places, pa.Array]:
    """Return places, ascending, and their ids: all that are `wanted` (ascending)."""
    seen = np.zeros(len(wanted), np.bool_)
    held: list[tuple[npt.NDArray[np.int64], pa.Array]] = []
    for part in compared:
        for batch in read_batches(part, ["first", "second", "first_id", "second_id"]):
            for end in ("first", "second"):
                places: Places = batch.column(end).to_numpy()
                among = np.flatnonzero(is_among(places, wanted))
                numbers, which = np.unique(np.searchsorted(wanted, places[among]), return_index=True)
                fresh = ~seen[numbers]
                seen[numbers] = True
                held.append((numbers[fresh], batch.column(f"{end}_id").take(pa.array(among[which[fresh]]))))
    if not held:
        return wanted, pa.array([], pa.string())
    numbers = np.concatenate([numbers for numbers, _ in held])
    return wanted, pa.concat_arrays([ids for _, ids in held]).take(pa.array(np.argsort(numbers)))


EDGES_STAGE = Stage(
    name="near_edges", version=1, schema=EDGES, work=write_edges, rows_per_group=ROWS_AT_ONCE, is_step=True
)
# Groups of rows are what a unit reads to find its own: small ones, and not many.
PAIRS_STAGE = Stage(name="near_pairs", version=1, schema=PAIRS, work=write_pairs, rows_per_group=10_000, is_step=True)
WANTED_STAGE = Stage(name="near_wanted", version=1, schema=WANTED, work=write_wanted, is_step=True)
COMPARED_STAGE = Stage(
    name="near_compared", version=1, schema=COMPARED, work=write_compared, rows_per_group=10_000, is_step=True
)
SETS_STAGE = Stage(name="near_sets", version=1, schema=SETS, work=write_sets, rows_per_group=ROWS_AT_ONCE, is_step=True)
NAMES_STAGE = replace(REPEATS_STAGE, work=write_names)
