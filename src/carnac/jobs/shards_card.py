"""The data card of shards, wired: `CARD.md` and `card.json` beside the splits.

    documents, masks --card_parts--> counts by topic       one unit per documents part
    card_parts --card--> their sum                         one unit per 64 of them, and so on

Only columns that hold no block are read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from carnac import __version__
from carnac.core.places import Place
from carnac.core.taken_down import TakenDown
from carnac.curate.masks import METADATA_KEY
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.storage import write_changed
from carnac.engine.tables import open_part, read_batches, read_rows
from carnac.engine.unit import Stage, Unit
from carnac.jobs.shards_choice import Choice, chosen_of
from carnac.jobs.shards_gather import Wanted
from carnac.shards.card import (
    MAX_SITES,
    Card,
    Counts,
    Topic,
    count_document,
    reservations_of,
    table_of,
    to_markdown,
    with_largest_sites,
)

FOLDER = "card"
DROPPED: tuple[Topic, Topic] = ("dropped_document", "dropped_block")
MERGED_AT_ONCE = 64
COLUMNS = ("language", "licence", "fetched_at", "published_at", "warc_file", "reservations")
CARD_COUNTS = pa.schema([("topic", pa.string()), ("name", pa.string()), ("number", pa.int64())])


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSources:
    """What a card tells of beside its counts: the manifests that the shards were made from, and their own."""

    source: str
    documents: Manifest
    masks: Manifest
    images: Manifest
    splits: Mapping[str, Manifest]
    taken_down: TakenDown
    mask_personal: tuple[str, ...] = ()


def write_card(runner: Runner, folder: Place, wanted: Sequence[Wanted], sources: CardSources) -> None:
    """Write the card of the shards in `folder`; `wanted` are the documents parts that they were made of."""
    units = []
    for each in wanted:
        settings = {**each.settings, "taken_down": each.choice.taken_down.digest}
        units.append(PARTS_STAGE.unit(each.unit, each.choice, settings=settings, inputs=each.inputs))
    entries = runner.do(PARTS_STAGE, units, folder / FOLDER / "parts")
    runner.publish(PARTS_STAGE, folder / FOLDER / "parts", entries, {}, {})
    total = _merged(runner, entries, folder / FOLDER)
    runner.publish(CARD_STAGE, folder / FOLDER, total, {}, {})
    if runner.changes_nothing:
        return
    card = _card(_sum(entry.path for entry in total), sources)
    write_changed(folder / "card.json", (json.dumps(card.to_json(), indent=1) + "\n").encode())
    write_changed(folder / "CARD.md", to_markdown(card).encode(errors="replace"))


def _merged(runner: Runner, parts: Sequence[PartEntry], folder: Place) -> tuple[PartEntry, ...]:
    """Return the part that holds the sum of all, none where there are none."""
    entries, level = tuple(parts), 0
    while level == 0 or len(entries) > 1:
        level += 1
        units = []
        for number, start in enumerate(range(0, len(entries), MERGED_AT_ONCE)):
            group = entries[start : start + MERGED_AT_ONCE]
            task, inputs = tuple(entry.path for entry in group), [entry.digest for entry in group]
            units.append(CARD_STAGE.unit(f"sum-{level}-{number:05d}", task, settings={}, inputs=inputs))
        entries = runner.do(CARD_STAGE, units, folder)
    return entries


def _card(counts: Counts, sources: CardSources) -> Card:
    sites, splits, asked = table_of(counts, "site"), sources.splits.values(), sorted(sources.mask_personal)
    made_of = {"documents": str(sources.documents.folder), "masks": str(sources.masks.folder)}
    return Card(
        source=sources.source,
        version=__version__,
        read_from={**{f"pages: {name}": _flat(value) for name, value in sources.documents.inputs.items()}, **made_of},
        splits={name: manifest.counts for name, manifest in sources.splits.items()},
        languages=table_of(counts, "language"),
        licences=table_of(counts, "licence"),
        fetched=table_of(counts, "fetched", in_order=True),
        published=table_of(counts, "published", in_order=True),
        archives=table_of(counts, "archive"),
        sites=sites,
        sites_are_all=len(sites) < MAX_SITES,
        reservations=reservations_of(counts),
        dropped_documents=table_of(counts, "dropped_document"),
        dropped_blocks=table_of(counts, "dropped_block"),
        images=_ends(sources.images.counts),
        lost=_lost(sources),
        num_taken_down=sum(len(getattr(sources.taken_down, name)) for name in ("urls", "domains", "images")),
        masked=tuple((kind, sum(each.counts.get(f"masked.{kind}", 0) for each in splits)) for kind in asked),
    )


def _flat(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value[:10])) + (f" and {len(value) - 10:,} more" if len(value) > 10 else "")
    return str(value)


def _ends(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    ends = [item for item in counts.items() if item[0] == "kept" or item[0].startswith(("dropped.", "deferred."))]
    return tuple(sorted(ends, key=lambda item: (-item[1], item[0])))


def _lost(sources: CardSources) -> tuple[tuple[str, int], ...]:
    stages = {"documents": sources.documents, "images": sources.images, **sources.splits}
    return tuple(
        (f"{stage}: {name.removeprefix('lost.')}", number)
        for stage, manifest in stages.items()
        for name, number in manifest.counts.items()
        if name.startswith("lost.")
    )


def count_part(unit: Unit, part: Part) -> None:
    """Write what one documents part gives to the shards, and what of it was left out."""
    choice: Choice = unit.task
    counts: Counts = Counter()
    for chosen in chosen_of(choice, COLUMNS):
        count_document(counts, chosen.document)
    for batch in read_batches(choice.documents, ["reservations"]):
        for use, number in Counter(batch["reservations"].flatten().to_pylist()).items():
            counts["reserved_seen", use] += number
    _count_dropped(counts, choice.mask)
    _write(part, counts)


def _count_dropped(counts: Counts, mask: Place) -> None:
    with open_part(mask) as file:
        stored = (file.schema_arrow.metadata or {}).get(METADATA_KEY, b"[]")
    names = json.loads(stored)
    for batch in read_batches(mask, ["keep", "reason", "block_reason"]):
        blocks = batch["block_reason"].filter(batch["keep"])  # those of dropped documents went with them
        for codes, topic in ((batch["reason"], DROPPED[0]), (blocks.flatten(), DROPPED[1])):
            numbers = np.bincount(pc.drop_null(codes).to_numpy(zero_copy_only=False), minlength=len(names))
            for name, number in zip(names, numbers.tolist(), strict=True):
                if number:
                    counts[topic, name] += number


def add_counts(unit: Unit, part: Part) -> None:
    """Write the sum of some parts."""
    _write(part, _sum(unit.task))


def _sum(parts: Iterable[Place]) -> Counts:
    counts: Counts = Counter()
    for place in parts:
        for row in read_rows(place):
            counts[row["topic"], row["name"]] += row["number"]
    return counts


def _write(part: Part, counts: Counts) -> None:
    for (topic, name), number in sorted(with_largest_sites(counts).items()):
        part.write({"topic": topic, "name": name, "number": number})


PARTS_STAGE = Stage(name="card_parts", version=1, schema=CARD_COUNTS, work=count_part, is_step=True)
CARD_STAGE = Stage(name="card", version=1, schema=CARD_COUNTS, work=add_counts, is_step=True)
