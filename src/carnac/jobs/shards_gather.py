"""From packs to shards without a random read: packs are read once, in order, and sorted on a disk.

    documents, masks, found --routes--> the images kept of a part, by group of packs         one unit per documents part
    routes, packs --gather--> a file of a group's images, in the order of the shards         one unit per group of packs

A shard then reads its segment of each file from front to back. All of it lies in `gather/` beside the splits as long as
shards are missing, and is removed when they are done.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.places import Place, is_local
from carnac.engine.buckets import BucketWriter, num_buckets, read_bucket
from carnac.engine.manifest import read_listed
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.storage import list_files, remove
from carnac.engine.unit import Stage, Unit, digest_of
from carnac.images.pack import read_pack
from carnac.jobs.shards_choice import Choice, chosen_of
from carnac.jobs.shards_images import Gathered
from carnac.shards.gather import MAX_GROUPS, ROUTES, SEGMENTS, Integers, layout_of
from carnac.shards.split import SPLITS

FOLDER = "gather"
ROUTES_FOLDER = "routes"
FILE_SUFFIX = ".images"
ROWS_PER_FLUSH = 100_000  # of routes: about 10 MB
_KINDS = {"part": np.int32, "split": np.int8, "pack": np.int32, "offset": np.int64, "length": np.int64}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutesTask:
    """What a worker needs to route the images of one documents part."""

    choice: Choice
    num_groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherTask:
    """What a worker needs to gather one group of packs. `routes` are (documents unit, part), `folder` is its own."""

    routes: tuple[tuple[str, Place], ...]
    group: int
    packs: Place
    folder: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A documents part whose shards need images, and what its routes depend on."""

    unit: str
    choice: Choice
    settings: dict[str, object]
    inputs: tuple[str, ...]


def num_groups_of(packs: Place, group_bytes: int) -> int:
    """Return into how many groups packs are divided: a power of two, at most `MAX_GROUPS`."""
    return min(num_buckets(sum(list_files(packs).values()), group_bytes), MAX_GROUPS)


def gather(
    runner: Runner, folder: Place, packs: Place, wanted: Sequence[Wanted], missing: Container[str], group_bytes: int
) -> tuple[Gathered, ...]:
    """Gather the images of all documents parts whose unit is in `missing`; `wanted` are those of the whole run.

    A run that was stopped while shards were written finds gathered what it had gathered for all that were missing then.
    """
    groups = num_groups_of(packs, group_bytes)
    units = []
    for each in wanted:
        task = RoutesTask(choice=each.choice, num_groups=groups)
        # What is gathered must be what the shards then take: after a take-down it is not.
        settings = {**each.settings, "num_groups": groups, "taken_down": each.choice.taken_down.digest}
        units.append(ROUTES_STAGE.unit(each.unit, task, settings=settings, inputs=each.inputs))
    units = _begun(units, missing, folder / ROUTES_FOLDER)
    entries = runner.do(ROUTES_STAGE, units, folder / ROUTES_FOLDER)
    runner.publish(ROUTES_STAGE, folder / ROUTES_FOLDER, entries, {"num_groups": groups}, {})
    routes = tuple(sorted((entry.unit, entry.path) for entry in entries))
    # The keys of routes know the images' bytes by their digests, which are no column of them.
    inputs = [digest_of(sorted([unit.name, unit.key] for unit in units))]
    files = []
    for group in range(groups):
        gathering = GatherTask(routes=routes, group=group, packs=packs, folder=folder)
        settings = {"group": group, "num_groups": groups}
        files.append(GATHER_STAGE.unit(f"group-{group:02d}", gathering, settings=settings, inputs=inputs))
    parts = runner.do(GATHER_STAGE, files, folder)
    return tuple(
        Gathered(part=entry.path, file=folder / f"{unit.stem}{FILE_SUFFIX}")
        for unit, entry in zip(files, parts, strict=True)
    )


def _begun(units: Sequence[Unit], missing: Container[str], folder: Place) -> list[Unit]:
    """Return the units to gather for: those missing, or all of an earlier run that was to do these among others."""
    needed = [unit for unit in units if unit.name in missing]
    try:
        before = {entry.key for entry in read_listed(folder, ROUTES_STAGE.name).parts}
    except InputError:  # none, or one that was cut short
        return needed
    if before <= {unit.key for unit in units} and before >= {unit.key for unit in needed}:
        return [unit for unit in units if unit.key in before]
    return needed


def write_routes(unit: Unit, part: Part) -> None:
    """Write which images of one documents part are kept, and in which packs they lie."""
    task: RoutesTask = unit.task
    schema = pa.schema([ROUTES.field(name) for name in ROUTES.names[1:]])
    with BucketWriter(part, task.num_groups, ROWS_PER_FLUSH) as writer:
        rows: list[dict[str, Any]] = []
        for chosen in chosen_of(task.choice, ["id"]):
            split = SPLITS.index(chosen.split)
            rows += [
                {"key": image["pack"], "offset": image["offset"], "length": image["length"], "split": split}
                for image in chosen.found
            ]
            if len(rows) >= 10_000:
                writer.write(pa.Table.from_pylist(rows, schema))
                rows.clear()
        writer.write(pa.Table.from_pylist(rows, schema))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Images:
    """The images wanted from a group of packs, int [images] each, in the order of (part, row, block).

    `parts` and `packs` count in the order of their names. Under 100 bytes of memory for each image, all in all.
    """

    parts: Integers
    splits: Integers
    packs: Integers
    offsets: Integers
    lengths: Integers
    pack_names: tuple[str, ...]


def gather_images(unit: Unit, part: Part) -> None:
    """Write the images wanted from one group of packs to the file beside the part, and its segments as rows."""
    task: GatherTask = unit.task
    images = _wanted_images(task)
    layout = layout_of(images.parts, images.splits, images.lengths)
    with part.beside(task.folder, FILE_SUFFIX).open("wb") as file:
        file.truncate(layout.num_bytes)
        for pack, places in _places_by_pack(images, layout.places):
            for member, payload in read_pack(task.packs / pack, list(places)):
                for place in places[member]:
                    _write_at(file.fileno(), payload, place)
                part.count("members")
            part.count("packs")
    names = [name for name, _ in task.routes]
    for number, split, offset, length, count in zip(
        layout.parts.tolist(),
        layout.splits.tolist(),
        layout.offsets.tolist(),
        layout.lengths.tolist(),
        layout.images.tolist(),
        strict=True,
    ):
        part.write({"unit": names[number], "split": SPLITS[split], "offset": offset, "length": length, "images": count})
        part.count("images", count)


def _wanted_images(task: GatherTask) -> _Images:
    codes: dict[str, int] = {}
    columns: dict[str, list[Integers]] = {name: [np.empty(0, kind)] for name, kind in _KINDS.items()}
    for number, (_, routes) in enumerate(task.routes):
        for batch in read_bucket(routes, task.group, ROUTES.names[1:]):
            packs = batch.column("key").dictionary_encode()
            numbers = [codes.setdefault(name, len(codes)) for name in packs.dictionary.to_pylist()]
            columns["pack"].append(np.array(numbers, np.int32)[packs.indices.to_numpy()])
            columns["part"].append(np.full(batch.num_rows, number, np.int32))
            for name in ("split", "offset", "length"):
                columns[name].append(batch.column(name).to_numpy())
    joined = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    names = sorted(codes)
    rank = np.empty(len(codes), np.int32)
    rank[[codes[name] for name in names]] = np.arange(len(codes))
    return _Images(
        parts=joined["part"],
        splits=joined["split"],
        packs=rank[joined["pack"]],
        offsets=joined["offset"],
        lengths=joined["length"],
        pack_names=tuple(names),
    )


def _places_by_pack(images: _Images, places: Integers) -> Iterator[tuple[str, dict[tuple[int, int], list[int]]]]:
    """Yield pack by pack where each of its members (offset, length) goes: one image may be wanted many times."""
    order = np.argsort(images.packs, kind="stable")
    bounds = np.searchsorted(images.packs[order], np.arange(len(images.pack_names) + 1))
    for number, name in enumerate(images.pack_names):
        chosen = order[bounds[number] : bounds[number + 1]]
        wanted: dict[tuple[int, int], list[int]] = {}
        members = zip(images.offsets[chosen].tolist(), images.lengths[chosen].tolist(), strict=True)
        for member, place in zip(members, places[chosen].tolist(), strict=True):
            wanted.setdefault(member, []).append(place)
        yield name, wanted


def _write_at(file: int, payload: bytes, place: int) -> None:
    left = memoryview(payload)
    while left:
        written = os.pwrite(file, left, place)
        left, place = left[written:], place + written


def remove_gathered(folder: Place) -> None:
    """Remove what `gather` left. A folder that holds something else stays, with it."""
    mine = [name for name in list_files(folder) if _is_mine(name)]
    # The manifest first: without it nothing of a run that is killed here is taken for begun.
    for name in sorted(mine, key=lambda name: not name.endswith(".json")):
        remove(folder / name)
    if is_local(folder):
        for empty in (folder / ROUTES_FOLDER, folder):
            with contextlib.suppress(OSError):
                empty.rmdir()


def _is_mine(name: str) -> bool:
    return PurePosixPath(name).suffix in (".parquet", ".json", FILE_SUFFIX, ".tmp")


ROUTES_STAGE = Stage(
    name="routes", version=1, schema=ROUTES, work=write_routes, rows_per_group=ROWS_PER_FLUSH, is_step=True
)
GATHER_STAGE = Stage(name="gather", version=1, schema=SEGMENTS, work=gather_images, is_step=True)
