"""The final state of every wanted URL, and each document's images where the document has them.

    urls, archived, settled, scores --images--> one row per URL                  one unit per partition
    wanted, images --joined--> kept images by documents part                     one unit per partition
    joined --found--> kept images by row and block: beside documents/            one unit per documents part

So what comes later reads, with a documents part, the images of that part and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from carnac.core.places import Place
from carnac.core.schema import FOUND, IMAGE_STATES, IMAGES
from carnac.engine.buckets import read_bucket, read_equal
from carnac.engine.manifest import Manifest, PartEntry, read_manifest
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.jobs.images_wanted import Wanted, partition_name

FOUND_FOLDER = "found"
JOINED = pa.schema([("unit", pa.string()), *FOUND])
SCORES = ("url", "sha256", "nsfw_score", "pdq")  # of a part of scores
_FACTS = tuple(name for name in FOUND.names if name not in ("id", "row", "block"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StatesTask:
    """What a worker needs for the final states of one partition. `settled` are all parts of each round, in order.

    `scores` are those of all packs, none where nothing is scored.
    """

    partition: int
    urls: Place
    archived: tuple[Place, ...]
    settled: tuple[tuple[Place, ...], ...]
    scores: tuple[Place, ...]
    without_state: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """What is known of URLs before the table is written: by archives, by each round, and by scoring what is kept."""

    archived: Sequence[PartEntry]
    settled: Sequence[tuple[PartEntry, ...]] = ()
    scores: Sequence[PartEntry] = ()

    @property
    def digests(self) -> list[str]:
        """The digests of all parts."""
        return [entry.digest for entries in (self.archived, *self.settled, self.scores) for entry in entries]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTask:
    """What a worker needs to tell documents of one partition's images: `wanted` are (documents unit, part)."""

    partition: int
    wanted: tuple[tuple[str, Place], ...]
    images: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTask:
    """What a worker needs to gather the images of one documents part."""

    joined: tuple[Place, ...]


def settle_states(
    runner: Runner, folder: Place, wanted: Wanted, states: States, without_state: tuple[str, str]
) -> tuple[PartEntry, ...]:
    """Write the table: the parts `images-PARTITION`. `without_state` is (status, reason) of what nobody asked for."""
    settings = {"num_partitions": wanted.num_partitions, "without_state": list(without_state)}
    units = []
    for partition, urls in enumerate(wanted.urls):
        task = StatesTask(
            partition=partition,
            urls=urls.path,
            archived=tuple(entry.path for entry in states.archived),
            settled=tuple(tuple(entry.path for entry in entries) for entries in states.settled),
            scores=tuple(entry.path for entry in states.scores),
            without_state=without_state,
        )
        name = f"images-{partition_name(partition)}"
        units.append(IMAGES_STAGE.unit(name, task, settings=settings, inputs=[urls.digest, *states.digests]))
    return runner.do(IMAGES_STAGE, units, folder)


def write_states(unit: Unit, part: Part) -> None:
    """Write the final state of every URL of one partition: of an archive's record if it is kept, else the latest."""
    task: StatesTask = unit.task
    states: dict[str, dict[str, Any] | None] = {row["url"]: None for row in read_rows(task.urls, ["url"])}
    for row in _rows(task.archived, task.partition):
        before = states.get(row["url"], row)
        if before is None or (before["status"] != "kept" and row["status"] == "kept"):
            states[row["url"]] = row
    for parts in task.settled:
        for row in _rows(parts, task.partition, "is_next"):
            if not row.pop("is_next") and row["url"] in states:
                before = states[row["url"]]
                spent = 0 if before is None else before["received_bytes"] or 0
                states[row["url"]] = {**row, "received_bytes": spent + (row["received_bytes"] or 0)}
    scores = {
        (row["url"], row["sha256"]): row
        for place in task.scores
        for batch in read_bucket(place, task.partition, SCORES)
        for row in batch.to_pylist()
    }
    status, reason = task.without_state
    for url, state in states.items():
        final = state or {"url": url, "status": status, "reason": reason}
        if final["status"] == "moved":
            final |= {"status": "deferred", "reason": "moved"}
        final = {**final, **scores.get((url, final.get("sha256")), {})}
        part.count("kept" if final["status"] == "kept" else f"{final['status']}.{final['reason']}")
        part.write(final)


def _rows(parts: Iterable[Place], partition: int, *more: str) -> Iterator[dict[str, Any]]:
    for place in parts:
        for batch in read_bucket(place, partition, [*IMAGE_STATES.names, *more]):
            yield from batch.to_pylist()


def find_images(runner: Runner, folder: Place, wanted: Wanted, images: Sequence[PartEntry]) -> None:
    """Write `folder`/found: a part per documents part, under its name."""
    settings = {"num_partitions": wanted.num_partitions}
    parts = tuple((entry.unit, entry.path) for entry in wanted.parts)
    inputs = [entry.digest for entry in wanted.parts]
    units = []
    for partition, entry in enumerate(images):
        task = JoinTask(partition=partition, wanted=parts, images=entry.path)
        units.append(
            JOINED_STAGE.unit(partition_name(partition), task, settings=settings, inputs=[entry.digest, *inputs])
        )
    joined = runner.do(JOINED_STAGE, units, folder / "joined")
    runner.publish(JOINED_STAGE, folder / "joined", joined, settings, {})
    shared = [entry.digest for entry in joined]
    finding = FoundTask(joined=tuple(entry.path for entry in joined))
    units = [FOUND_STAGE.unit(entry.unit, finding, settings={}, inputs=shared) for entry in wanted.parts]
    found = runner.do(FOUND_STAGE, units, folder / FOUND_FOLDER)
    runner.publish(FOUND_STAGE, folder / FOUND_FOLDER, found, {}, {})


def write_joined(unit: Unit, part: Part) -> None:
    """Write the kept images of one partition for every place that wants them, a row group per documents part."""
    task: JoinTask = unit.task
    kept = {row["url"]: row for row in read_rows(task.images, ["status", *_FACTS]) if row.pop("status") == "kept"}
    for name, place in task.wanted:
        for batch in read_bucket(place, task.partition, ["id", "row", "block", "url"]):
            rows = [
                {"unit": name, **row, **kept[row["url"]]} for row in batch.to_pylist() if row["url"] in kept
            ]  # fmt: skip
            if rows:
                part.write_table(pa.Table.from_pylist(rows, JOINED))


def write_found(unit: Unit, part: Part) -> None:
    """Write the kept images of one documents part in the order of its rows and blocks."""
    task: FoundTask = unit.task
    batches = [batch for place in task.joined for batch in read_equal(place, "unit", unit.name, FOUND.names)]
    table = pa.Table.from_batches(batches, FOUND).sort_by([("row", "ascending"), ("block", "ascending")])
    part.count("images", table.num_rows)
    part.write_table(table)


def read_found(images: Place) -> Manifest:
    """Return what `images/found` lists. Raises InputError when it is not there."""
    return read_manifest(images / FOUND_FOLDER, FOUND_STAGE.name)


IMAGES_STAGE = Stage(name="images", version=3, schema=IMAGES, work=write_states)
JOINED_STAGE = Stage(name="joined", version=2, schema=JOINED, work=write_joined, rows_per_group=100_000, is_step=True)
FOUND_STAGE = Stage(name="found", version=2, schema=FOUND, work=write_found, rows_per_group=10_000, is_step=True)
