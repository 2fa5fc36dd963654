"""The records of the stages that have some: who can be poisoned, and whether all the others stayed as they were."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from carnac.core.places import Place
from carnac.engine.manifest import Manifest, PartEntry
from carnac.images.pack import read_image
from faults.verdict import check

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """A record: `name` is what the poison knows it by, `record` how its name in the ledger begins, `key` its rows'."""

    unit: str
    name: str
    record: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The records of a stage, as its rows tell: `name_of` and `key_of` (row, unit); "" for what is none.

    `left` is the column and word by which the row of a lost record says so, where it leaves one.
    """

    folder: str
    name_of: Callable[[Row, str], str]
    key_of: Callable[[Row, str], str]
    record_of: Callable[[str, str], str] = lambda name, _: name
    left: tuple[str, str] | None = None

    def candidates(self, whole: Manifest) -> list[Culprit]:
        """Return the records that can be told from all others; the pages of two archives come twice."""
        found = [
            Culprit(unit=unit, name=name, record=self.record_of(name, unit), key=self.key_of(row, unit))
            for unit, row in _rows(whole.steps or whole.parts)
            if (name := self.name_of(row, unit))
        ]
        # One record may have several rows, all in one unit: the pieces of a sample.
        met = Counter(name for name, _ in {(culprit.name, culprit.unit) for culprit in found})
        keys = Counter(key for key, _ in {(culprit.key, culprit.unit) for culprit in found})
        return [culprit for culprit in found if met[culprit.name] == keys[culprit.key] == 1]


SOURCES = {
    "documents": Source(
        folder="documents",
        name_of=lambda row, _: f"{row['warc_file']}@{row['warc_offset']}",
        key_of=lambda row, _: f"{row['warc_file']}@{row['warc_offset']}",
    ),
    "images": Source(
        folder="images",
        name_of=lambda row, _: row["received_sha256"] or "",
        key_of=lambda row, _: row["url"],
        record_of=lambda _, unit: f"{unit.partition('~')[2]}.warc.gz@",  # its rows do not tell the offset
        left=("reason", "not_inspected"),
    ),
    "signals": Source(
        folder="curated/signals",
        name_of=lambda row, _: row["id"],
        key_of=lambda row, _: row["id"],
        record_of=lambda name, _: f"{name}@",
        left=("failed", "not_measured"),
    ),
    "shards": Source(
        folder="shards/train",
        name_of=lambda row, _: row["id"],
        key_of=lambda row, _: row["id"],
        record_of=lambda name, _: f"{name}@",
    ),
    "pieces": Source(
        folder="plan/pieces",
        name_of=lambda row, _: f"{row['shard']}@{row['row']}",
        key_of=lambda row, _: f"{row['shard']}@{row['row']}",
    ),
}


def part_of(manifest: Manifest, unit: str) -> Place:
    """Return the part of a unit, also of an inner step."""
    return next(part.path for part in (*manifest.parts, *manifest.steps) if part.unit == unit)


def check_others(whole: Manifest, found: Manifest, culprit: Culprit, source: Source) -> None:
    """Raise Wrong unless the rows of all other records are what they were, in their order, and so are their images."""
    mine = [row for unit, row in _rows(found.parts) if source.key_of(row, unit) == culprit.key]
    if source.left is None:
        check(not mine, f"{culprit.name} was lost and has {len(mine)} rows")
    else:
        column, word = source.left
        said = [row[column] for row in mine]
        check(said == [word], f"{culprit.name} was lost; its rows say {said}, wanted {word}")
    wanted, there = _others(whole, culprit, source), _others(found, culprit, source)
    check(len(wanted) == len(there), f"{len(there)} other rows, wanted {len(wanted)}")
    changed = sum(one != other for one, other in zip(wanted, there, strict=True))
    check(not changed, f"{changed} other rows changed")
    check_bytes(found)


def check_bytes(images: Manifest) -> None:
    """Raise Wrong unless every image that rows name is in its pack."""
    for _, row in _rows(images.parts):
        if row.get("pack"):
            pack = images.folder / "packs" / row["pack"]
            digest = hashlib.sha256(read_image(pack, row["offset"], row["length"])).hexdigest()
            check(digest == row["sha256"], f"{row['url']}: other bytes in {pack.name}")


def _others(manifest: Manifest, culprit: Culprit, source: Source) -> list[tuple[str, Row]]:
    # Where an image stands in its pack depends on those before it; its bytes are looked at on their own.
    return [
        (unit, {name: value for name, value in row.items() if name != "offset"})
        for unit, row in _rows(manifest.parts)
        if source.key_of(row, unit) != culprit.key
    ]


def _rows(parts: Sequence[PartEntry]) -> Iterator[tuple[str, Row]]:
    for part in parts:
        for row in pq.read_table(part.path).to_pylist():
            yield part.unit, row
