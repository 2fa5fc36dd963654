"""The search for pictures that occur too often, however they were scaled or recompressed.

images --phash_pictures--> kept image blocks with their hashes, by bucket     one unit per documents part
       --phash_distinct--> each hash once, and how often it occurs            one unit per bucket
       --phash_joined----> hashes within the distance of one another          one unit per some choices of bits
       --phash_frequent--> hashes of sets that occur too often                one unit
       --repeats---------> their blocks: every copy goes                      one unit per bucket
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.places import Place
from carnac.core.schema import REPEATS
from carnac.curate.near.groups import is_among
from carnac.curate.near.phash_pairs import (
    DISTINCT,
    FREQUENT,
    JOINED,
    PICTURES,
    Choice,
    Hashes,
    choices,
    join,
    sets_of,
)
from carnac.curate.repeats.settings import RepeatsPass, repeat_reason
from carnac.engine.buckets import KEY, BucketWriter, num_buckets, read_bucket
from carnac.engine.manifest import PartEntry, digest_of_parts
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_batches, read_table
from carnac.engine.unit import Stage, Unit
from carnac.jobs.repeats import REPEATS_STAGE
from carnac.jobs.repeats_sources import PartSources, RepeatSources, SearchLimits, part_sources, read_kept

KIND = "image_phash"
ROWS_AT_ONCE = 100_000
IMAGES_PER_DOCUMENT = 8  # for the number of buckets alone
BYTES_PER_HASH = 64  # while hashes are grouped: themselves, keys, order, roots, and copies


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturesTask:
    """What a worker needs to list the hashes of one part."""

    part: PartSources
    num_buckets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctTask:
    """What a worker needs to count the hashes of one bucket: `pictures` are the parts of all units."""

    pictures: tuple[Place, ...]
    bucket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTask:
    """What a worker needs to join hashes that agree in the chunks of some choices."""

    distinct: tuple[Place, ...]
    choices: tuple[Choice, ...]
    max_distance: int
    max_memory_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequentTask:
    """What a worker needs to tell which hashes occur too often, with all that are joined with them."""

    distinct: tuple[Place, ...]
    joined: tuple[Place, ...]
    max_copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksTask:
    """What a worker needs to name the blocks of one bucket that go: `pictures` are (unit, part), by unit."""

    pictures: tuple[tuple[str, Place], ...]
    frequent: Place
    bucket: int


def search_phash(
    runner: Runner,
    step: RepeatsPass,
    sources: RepeatSources,
    found: Sequence[PartEntry],
    folder: Place,
    limits: SearchLimits,
) -> tuple[PartEntry, ...]:
    """Write the blocks of pictures that occur too often to `folder`, and the steps before it to `folder`/phash.

    `found` is what earlier kinds of the pass took: it is not counted. Without images (`sources.images`) there is none.
    """
    if sources.images is None:
        return ()
    steps, distance = folder / "phash", step.max_phash_distance
    buckets = num_buckets(sources.documents.rows * IMAGES_PER_DOCUMENT, limits.rows_per_bucket)
    pictures = _list_pictures(runner, sources, found, steps / "pictures", buckets)
    paths, inputs = tuple(entry.path for entry in pictures), [digest_of_parts(pictures)]
    units = []
    for bucket in range(buckets):
        task = DistinctTask(pictures=paths, bucket=bucket)
        units.append(DISTINCT_STAGE.unit(f"{bucket:05d}", task, settings=_of(bucket, buckets), inputs=inputs))
    distinct = _done(runner, DISTINCT_STAGE, units, steps / "distinct")
    joined = _join(runner, distinct, distance, steps / "joined", limits)
    frequent = FrequentTask(
        distinct=tuple(entry.path for entry in distinct),
        joined=tuple(entry.path for entry in joined),
        max_copies=step.max_image_copies,
    )
    shown, read = {"max_copies": step.max_image_copies}, [digest_of_parts(distinct), digest_of_parts(joined)]
    unit = FREQUENT_STAGE.unit("frequent", frequent, settings=shown, inputs=read)
    (often,) = _done(runner, FREQUENT_STAGE, [unit], steps / "frequent")
    named = tuple((entry.unit, entry.path) for entry in sorted(pictures, key=lambda entry: entry.unit))
    units = []
    for bucket in range(buckets):
        blocks = BlocksTask(pictures=named, frequent=often.path, bucket=bucket)
        name, read = f"{KIND}-{bucket:05d}", [*inputs, often.digest]
        units.append(BLOCKS_STAGE.unit(name, blocks, settings=_of(bucket, buckets), inputs=read))
    return runner.do(BLOCKS_STAGE, units, folder)


def _of(bucket: int, buckets: int) -> dict[str, int]:
    return {"bucket": bucket, "num_buckets": buckets}


def _done(runner: Runner, stage: Stage, units: Sequence[Unit], place: Place) -> tuple[PartEntry, ...]:
    """Do a step and make its parts the content of its folder."""
    entries = runner.do(stage, units, place)
    runner.publish(stage, place, entries, {}, {})
    return entries


def _list_pictures(
    runner: Runner, sources: RepeatSources, found: Sequence[PartEntry], place: Place, buckets: int
) -> tuple[PartEntry, ...]:
    units = []
    for entry in sources.documents.parts:
        part, digests = part_sources(sources, entry.unit, found, ("images",))
        task = PicturesTask(part=part, num_buckets=buckets)
        units.append(PICTURES_STAGE.unit(entry.unit, task, settings={"num_buckets": buckets}, inputs=digests))
    return _done(runner, PICTURES_STAGE, units, place)


def _join(
    runner: Runner, distinct: Sequence[PartEntry], distance: int, place: Place, limits: SearchLimits
) -> tuple[PartEntry, ...]:
    """Join hashes by all choices of chunks: by some in a unit where there are few hashes."""
    all_choices, paths = choices(distance), tuple(entry.path for entry in distinct)
    rows = sum(entry.rows for entry in distinct)
    num_units = min(len(all_choices), num_buckets(rows * len(all_choices), limits.rows_per_bucket))
    units = []
    for number in range(num_units):
        task = JoinTask(
            distinct=paths,
            choices=all_choices[number::num_units],
            max_distance=distance,
            max_memory_mb=limits.max_memory_mb,
        )
        shown = {"max_distance": distance, "unit": number, "num_units": num_units}
        units.append(JOINED_STAGE.unit(f"{number:05d}", task, settings=shown, inputs=[digest_of_parts(distinct)]))
    return _done(runner, JOINED_STAGE, units, place)


def write_pictures(unit: Unit, part: Part) -> None:
    """Write the hashes of the kept image blocks of one part, by bucket."""
    task: PicturesTask = unit.task
    with BucketWriter(part, task.num_buckets, 10 * ROWS_AT_ONCE) as writer:
        for first, frame, masks in read_kept(task.part, {"images": ["block_phash"]}):
            hashes = frame.labels("block_phash")
            places = np.flatnonzero(masks.is_alive & pc.is_valid(hashes).to_numpy(zero_copy_only=False))
            rows = np.searchsorted(frame.starts, places, side="right") - 1
            columns = {
                KEY: hashes.take(pa.array(places)),
                "id": frame.columns["id"].take(pa.array(rows)),
                "row": rows + first,
                "block": (places - frame.starts[rows]).astype(np.int32),
            }
            writer.write(pa.table(columns))


def write_distinct(unit: Unit, part: Part) -> None:
    """Write each hash of one bucket once, ascending, with the number of its blocks."""
    task: DistinctTask = unit.task
    hashes, numbers = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for pictures in task.pictures:
        held = [batch.column(KEY).to_numpy() for batch in read_bucket(pictures, task.bucket, [KEY], ROWS_AT_ONCE)]
        if held:
            more, counts = np.unique(np.concatenate(held), return_counts=True)
            hashes, numbers = _added(np.concatenate([hashes, more]), np.concatenate([numbers, counts]))
    part.write_table(pa.table({KEY: hashes, "number": numbers}))


def _added(hashes: Hashes, numbers: npt.NDArray[np.int64]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Return each hash once, ascending, with the sum of its numbers."""
    distinct, which = np.unique(hashes, return_inverse=True)
    return distinct, np.bincount(which, numbers, len(distinct)).astype(np.int64)


def write_joined(unit: Unit, part: Part) -> None:
    """Write hashes joined with others by some choices of chunks: ranges of keys after one another where many."""
    task: JoinTask = unit.task
    num_rows = sum(len(batch) for distinct in task.distinct for batch in read_batches(distinct, [KEY]))
    num_slices = max(1, -(-num_rows * BYTES_PER_HASH // (task.max_memory_mb * 1_000_000)))
    for choice in task.choices:
        for number in range(num_slices):
            hashes = np.concatenate([np.zeros(0, np.uint64), *_slice(task, choice, number, num_slices)])
            first, second = join(hashes, choice, task.max_distance)
            part.write_table(pa.table({"phash": first, "other": second}))


def _slice(task: JoinTask, choice: Choice, number: int, num_slices: int) -> Iterator[Hashes]:
    """Yield the hashes of one range of keys."""
    for distinct in task.distinct:
        for batch in read_batches(distinct, [KEY]):
            hashes: Hashes = batch.column(KEY).to_numpy()
            keys = choice.keys(hashes)
            yield hashes[keys * np.uint64(num_slices) >> np.uint64(choice.width) == number]


def write_frequent(unit: Unit, part: Part) -> None:
    """Write the hashes of sets that occur more often than allowed, ascending."""
    task: FrequentTask = unit.task
    pairs = [read_table(joined) for joined in task.joined]
    first, second = (
        np.concatenate([np.zeros(0, np.uint64), *(table.column(name).to_numpy() for table in pairs)])
        for name in JOINED.names
    )
    members, roots = sets_of(first, second)
    numbers = np.zeros(len(members), np.int64)
    alone: list[pa.Table] = []
    for distinct in task.distinct:
        table = read_table(distinct)
        hashes, counts = table.column(KEY).to_numpy(), table.column("number").to_numpy()
        known = is_among(hashes, members)
        numbers[np.searchsorted(members, hashes[known])] = counts[known]
        often = ~known & (counts > task.max_copies)
        alone.append(pa.table({"phash": hashes[often], "root": hashes[often], "number": counts[often]}))
    _, which = np.unique(roots, return_inverse=True)
    totals = np.bincount(which, numbers).astype(np.int64)[which] if len(which) else numbers
    often = totals > task.max_copies
    sets = pa.table({"phash": members[often], "root": roots[often], "number": totals[often]})
    part.write_table(pa.concat_tables([*alone, sets]).sort_by("phash"))


def write_blocks(unit: Unit, part: Part) -> None:
    """Write the blocks of one bucket whose picture occurs too often, by unit, row and block."""
    task: BlocksTask = unit.task
    frequent = read_table(task.frequent, ["phash", "root"])
    hashes, roots = frequent.column("phash").to_numpy(), frequent.column("root").to_numpy()
    held: list[pa.Table] = []
    for name, pictures in task.pictures:
        for batch in read_bucket(pictures, task.bucket, [KEY, "id", "row", "block"], ROWS_AT_ONCE):
            mine = batch.filter(pa.array(is_among(batch.column(KEY).to_numpy(), hashes)))
            keys = roots[np.searchsorted(hashes, mine.column(KEY).to_numpy())]
            held.append(_repeats(name, mine, keys))
        if sum(map(len, held)) >= ROWS_AT_ONCE:
            part.write_table(pa.concat_tables(held))
            held = []
    if held:
        part.write_table(pa.concat_tables(held))


def _repeats(unit: str, blocks: pa.RecordBatch, keys: Hashes) -> pa.Table:
    """Return the rows of `REPEATS` of blocks that go; `keys` name their sets."""
    size = len(blocks)
    columns = {
        "id": blocks.column("id"),
        "row": blocks.column("row"),
        "block": blocks.column("block"),
        "reason": pa.repeat(repeat_reason(KIND), size),
        "unit": pa.repeat(unit, size),
        "kind": pa.repeat(KIND, size),
        "key": pa.array([f"{key:016x}" for key in keys.tolist()], pa.string()),
        "root": pa.nulls(size, pa.string()),
    }
    return pa.table({name: columns[name] for name in REPEATS.names})


PICTURES_STAGE = Stage(
    name="phash_pictures",
    version=1,
    schema=PICTURES,
    work=write_pictures,
    rows_per_group=ROWS_AT_ONCE,
    is_step=True,
)
DISTINCT_STAGE = Stage(
    name="phash_distinct", version=1, schema=DISTINCT, work=write_distinct, rows_per_group=ROWS_AT_ONCE, is_step=True
)
JOINED_STAGE = Stage(
    name="phash_joined", version=1, schema=JOINED, work=write_joined, rows_per_group=ROWS_AT_ONCE, is_step=True
)
FREQUENT_STAGE = Stage(
    name="phash_frequent", version=1, schema=FREQUENT, work=write_frequent, rows_per_group=ROWS_AT_ONCE, is_step=True
)
BLOCKS_STAGE = replace(REPEATS_STAGE, work=write_blocks)
